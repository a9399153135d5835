//! The passwords that the trunks' `digest` tables name. Files are read when a policy is loaded, so
//! that a bad one is an error of the policy and not of a call.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base::{Diagnostic, Secret, TrunkName};
use policy::{Policy, Warning};
use sip::digest::Login;

/// What the files hold, and what an operator should know of them.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    pub(crate) logins: BTreeMap<TrunkName, Login>,
    pub(crate) warnings: Vec<Warning>,
}

/// Reads every file that a `digest` names.
///
/// # Errors
/// Each one that cannot be used.
pub(crate) fn read(policy: &Policy) -> Result<Logins, Vec<Diagnostic>> {
    let (mut found, mut errors) = (Logins::default(), Vec::new());
    for line in policy.lines() {
        let Some(digest) = line.digest else { continue };
        let wrong = |what: &str, help: &str| {
            let message = format!("`{}` {what}", digest.password_file);
            policy.wrong_password(line.trunk, &message, help)
        };
        let path = Path::new(&digest.password_file);
        match password(path) {
            Ok(password) => {
                let (user, realm) = (digest.user.clone(), digest.realm.clone());
                found.logins.insert(line.trunk.clone(), Login { user, password, realm });
            }
            Err((what, help)) => errors.extend(wrong(&what, help)),
        }
        if std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o004 != 0) {
            let warning = wrong("can be read by everybody on this machine", "chmod 0600 it");
            found.warnings.extend(warning.map(Warning));
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// The password in a file, or what is wrong with it and what helps.
fn password(path: &Path) -> Result<Secret<String>, (String, &'static str)> {
    let text = std::fs::read_to_string(path).map(Secret::new).map_err(|error| {
        let help = match error.kind() {
            ErrorKind::NotFound => "create it with mode 0600: the password, and nothing else",
            ErrorKind::PermissionDenied => "let the user that the edge runs as read it",
            _ => "write the password into it, and nothing else",
        };
        (format!("cannot be read: {error}"), help)
    })?;
    let line = text.expose().strip_suffix('\n').unwrap_or(text.expose());
    let line = line.strip_suffix('\r').unwrap_or(line);
    let help = "write the password into it, and nothing else";
    if line.is_empty() {
        return Err(("is empty".to_owned(), help));
    }
    if line.contains(char::is_control) {
        return Err(("holds more than one line".to_owned(), help));
    }
    Ok(Secret::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A policy whose trunk has this password file.
    fn policy(file: &Path) -> Policy {
        let file = file.display();
        let text = format!(
            "[trunk.acme]\nsend_to = [\"sip:acme.example\"]\n\
             digest = {{ user = \"bob\", password_file = \"{file}\", realm = \"acme\" }}\n\
             [[route]]\nsend_to = {{ trunk = \"acme\" }}\n"
        );
        policy::load(&[("policy.toml", &text)], None).unwrap().0
    }

    fn written(folder: &Path, text: &[u8], mode: u32) -> std::path::PathBuf {
        let file = folder.join("password");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_file_holds_the_password_and_a_line_end() {
        let folder = tempfile::tempdir().unwrap();
        for (text, password) in [
            (&b"hunter2"[..], "hunter2"),
            (b"hunter2\n", "hunter2"),
            (b" two words \r\n", " two words "),
            ("pa\u{df}wort\n".as_bytes(), "pa\u{df}wort"),
        ] {
            let found = read(&policy(&written(folder.path(), text, 0o600))).unwrap();
            let login = &found.logins[&TrunkName::new("acme")];
            assert_eq!((login.user.as_str(), login.realm.as_deref()), ("bob", Some("acme")));
            assert_eq!(login.password.expose(), password);
            assert_eq!(found.warnings, []);
            assert!(!format!("{found:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_file_that_everybody_reads_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let found = read(&policy(&written(folder.path(), b"x\n", 0o644))).unwrap();
        let warning = found.warnings[0].to_string();
        assert!(
            warning.contains("policy.toml:3:42") && warning.contains("chmod 0600"),
            "{warning}"
        );
    }

    #[test]
    fn a_file_that_cannot_be_used_is_an_error_at_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for (text, what) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"a\nb\n", "one line"),
            (b"\xff", "read"),
        ] {
            let errors = read(&policy(&written(folder.path(), text, 0o600))).unwrap_err();
            let error = errors[0].to_string();
            assert!(error.contains(what) && error.contains("policy.toml:3:42"), "{error}");
            assert!(!error.contains("a\nb"), "what is in it is not shown");
        }
        let errors = read(&policy(&folder.path().join("none"))).unwrap_err();
        assert!(errors[0].to_string().contains("create it with mode 0600"));
    }
}
