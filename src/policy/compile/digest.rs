//! `digest` of a trunk: the credentials that we show it.

use super::trunk::Desk;
use crate::file::{At, DigestFile};
use crate::policy::TrunkDigest;

/// Compiles it; the file that it names is read by the edge. `crosses_plaintext` is whether the
/// trunk may be dialled so.
pub(super) fn compile(
    desk: &mut Desk<'_, '_>,
    file: Option<&At<DigestFile>>,
    crosses_plaintext: bool,
) -> Option<TrunkDigest> {
    let file = file?;
    let user = &file.user;
    // Peers disagree on whether the hash is of the escaped form.
    if user.is_empty() || user.contains(['"', '\\', ':']) || user.contains(char::is_control) {
        let help = "write it as the trunk gave it; it holds no colon, quote or backslash";
        desk.error(user.span(), "this is no user name", help);
    }
    if file.password_file.is_empty() {
        let help = "name a file that holds the password alone";
        desk.error(file.password_file.span(), "no file is named", help);
    }
    if let Some(realm) = file.realm.as_ref().filter(|realm| realm.contains(['"', '\\'])) {
        let help = "write it as the trunk's WWW-Authenticate has it between its quotes";
        desk.error(realm.span(), "this is no realm", help);
    }
    if crosses_plaintext {
        let help = "whoever reads the signalling can try passwords until one fits; prefer TLS";
        desk.warning(file.span(), "hashes of this password cross plaintext signalling", help);
    }
    Some(TrunkDigest {
        user: (**user).clone(),
        password_file: (*file.password_file).clone(),
        realm: file.realm.as_ref().map(|realm| (**realm).clone()),
        span: file.password_file.span(),
    })
}
