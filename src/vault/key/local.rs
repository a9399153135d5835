//! The local KMS: two secrets in one file outside the data folder, readable by its owner alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::OFlags;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{DataKey, HeadKey, Kms, KmsError, SIGNATURE_BYTES};
use crate::seal;

const FIRST_LINE: &str = "callgate-keys 1";
/// A key file is some 200 bytes; more is another file.
const FILE_BYTES_MAX: u64 = 4_096;

/// Why the key file was not used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read or created.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is data but no key file: a new one could not open it.
    #[error("key file {0} is missing, and the data folder was sealed with it; restore it")]
    Missing(PathBuf),
    /// It lies in the data folder, so that a copy of the data would hold its key.
    #[error("key file {0} lies in the data folder; keep it elsewhere")]
    InsideData(PathBuf),
    /// Others may read or change it.
    #[error("key file {path} has mode {mode:04o}; run `chmod 600 {path}`")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to another user, or is no regular file.
    #[error("key file {0} is not a regular file of the user that runs this")]
    Owner(PathBuf),
    /// It is not a key file.
    #[error("key file {0} is not a callgate key file")]
    Format(PathBuf),
    /// The operating system gave no randomness for a new one.
    #[error("no randomness for a new key file")]
    Random,
}

/// A KMS key and an audit key from a file.
#[derive(Debug)]
pub struct LocalKms {
    key: DataKey,
    audit_seed: DataKey,
    head_key: HeadKey,
}

impl LocalKms {
    /// Opens the key file at `path`, which must not lie under `data`.
    pub fn open(path: &Path, data: &Path) -> Result<Self, KeyFileError> {
        refuse_inside(path, data)?;
        match Self::read(path) {
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(KeyFileError::Missing(path.to_owned()))
            }
            other => other,
        }
    }

    /// Opens the key file, or creates one with new keys where there is none.
    pub fn open_or_create(path: &Path, data: &Path) -> Result<Self, KeyFileError> {
        match Self::open(path, data) {
            Err(KeyFileError::Missing(_)) => {
                create(path)?;
                Self::read(path)
            }
            other => other,
        }
    }

    fn read(path: &Path) -> Result<Self, KeyFileError> {
        let fail = |source| KeyFileError::Io { path: path.to_owned(), source };
        // O_NOFOLLOW: the checks are about this very file; O_NONBLOCK: a pipe must not hang us.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(KeyFileError::Owner(path.to_owned()));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o177 != 0 {
            return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(fail)?;
        Self::parse(&text).ok_or_else(|| KeyFileError::Format(path.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut secret = |name: &str| {
            let value = lines.next()?.strip_prefix(name)?.strip_prefix(' ')?;
            DataKey::from_bytes(&mut Zeroizing::new(BASE64.decode(value).ok()?))
        };
        let (key, audit_seed) = (secret("kms")?, secret("audit")?);
        let pair = Ed25519KeyPair::from_seed_unchecked(audit_seed.expose()).ok()?;
        let head_key = HeadKey::from_bytes(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { key, audit_seed, head_key })
    }
}

impl Kms for LocalKms {
    fn wrap(&self, context: &str, key: &DataKey) -> Result<Vec<u8>, KmsError> {
        let mut plain = Secret::new(*key.expose());
        seal::seal(&self.key, &[b"kms", context.as_bytes()], plain.expose_mut())
            .map_err(|_| KmsError::Failed)
    }

    fn unwrap(&self, context: &str, wrapped: &[u8]) -> Result<DataKey, KmsError> {
        let mut plain = seal::unseal(&self.key, &[b"kms", context.as_bytes()], wrapped)
            .map_err(|_| KmsError::WrongKey)?;
        DataKey::from_bytes(&mut plain).ok_or(KmsError::WrongKey)
    }

    fn sign_head(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], KmsError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(self.audit_seed.expose())
            .map_err(|_| KmsError::Failed)?;
        let signature = pair.try_sign(message).map_err(|_| KmsError::Failed)?;
        signature.as_ref().try_into().map_err(|_| KmsError::Failed)
    }

    fn head_key(&self) -> HeadKey {
        self.head_key
    }
}

/// Compares real paths, so that neither `..` nor a symbolic link hides the place.
fn refuse_inside(path: &Path, data: &Path) -> Result<(), KeyFileError> {
    let fail = |source| KeyFileError::Io { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = match folder.canonicalize() {
        Ok(folder) => folder,
        // The folder is made with the file; until then, compare what is written.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::path::absolute(folder).map_err(fail)?
        }
        Err(error) => return Err(fail(error)),
    };
    let data = match data.canonicalize() {
        Ok(data) => data,
        Err(_) => std::path::absolute(data).map_err(fail)?,
    };
    if folder.starts_with(&data) {
        return Err(KeyFileError::InsideData(path.to_owned()));
    }
    Ok(())
}

/// Writes a new key file under another name and links it into place: whoever comes second keeps
/// the first one's keys, and a half-written file is never seen.
fn create(path: &Path) -> Result<(), KeyFileError> {
    let fail = |source| KeyFileError::Io { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    crate::files::create_private_folder(&folder).map_err(fail)?;
    let random = || DataKey::random().map_err(|_| KeyFileError::Random);
    let (key, audit, suffix) = (random()?, random()?, random()?);
    let text = Zeroizing::new(format!(
        "{FIRST_LINE}\nkms {}\naudit {}\n",
        &*Zeroizing::new(BASE64.encode(key.expose())),
        &*Zeroizing::new(BASE64.encode(audit.expose())),
    ));
    let temporary = folder.join(format!(".callgate-keys.{}", hex::encode(&suffix.expose()[..8])));
    let written = write_private(&temporary, text.as_bytes())
        .and_then(|()| match std::fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        })
        .and_then(|()| File::open(&folder)?.sync_all());
    let removed = std::fs::remove_file(&temporary);
    written.and(removed).map_err(fail)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    struct Place {
        _folder: tempfile::TempDir,
        data: PathBuf,
        key: PathBuf,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let (data, key) = (folder.path().join("data"), folder.path().join("keys/callgate.key"));
        fs::create_dir(&data).unwrap();
        Place { _folder: folder, data, key }
    }

    #[test]
    fn a_new_key_file_is_private_and_opens_again_with_the_same_keys() {
        let place = place();
        let first = LocalKms::open_or_create(&place.key, &place.data).unwrap();
        assert_eq!(fs::metadata(&place.key).unwrap().mode() & 0o7777, 0o600);
        let parent = place.key.parent().unwrap();
        assert_eq!(fs::metadata(parent).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_dir(parent).unwrap().count(), 1, "no temporary file stays");

        let wrapped = first.wrap("acme", &DataKey::from_bytes(&mut [5; 32]).unwrap()).unwrap();
        let again = LocalKms::open_or_create(&place.key, &place.data).unwrap();
        assert_eq!(again.unwrap("acme", &wrapped).unwrap().expose(), &[5; 32]);
        assert_eq!(again.unwrap("other", &wrapped).unwrap_err(), KmsError::WrongKey);
        assert_eq!(again.head_key(), first.head_key());
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let place = place();
        LocalKms::open_or_create(&place.key, &place.data).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o660, 0o700] {
            fs::set_permissions(&place.key, Permissions::from_mode(mode)).unwrap();
            let error = LocalKms::open(&place.key, &place.data).unwrap_err();
            assert!(matches!(error, KeyFileError::Permissions { mode: m, .. } if m == mode));
        }
        fs::set_permissions(&place.key, Permissions::from_mode(0o400)).unwrap();
        LocalKms::open(&place.key, &place.data).unwrap();
    }

    #[test]
    fn a_key_file_of_another_user_is_refused() {
        let place = place();
        LocalKms::open_or_create(&place.key, &place.data).unwrap();
        // Only root may give a file away; elsewhere there is nothing to test.
        if std::os::unix::fs::chown(&place.key, Some(12_345), None).is_ok() {
            let error = LocalKms::open(&place.key, &place.data).unwrap_err();
            assert!(matches!(error, KeyFileError::Owner(_)));
        }
    }

    #[test]
    fn a_symbolic_link_or_a_folder_is_no_key_file() {
        let place = place();
        LocalKms::open_or_create(&place.key, &place.data).unwrap();
        let link = place.key.with_file_name("link.key");
        std::os::unix::fs::symlink(&place.key, &link).unwrap();
        assert!(LocalKms::open(&link, &place.data).is_err());
        let folder = place.key.parent().unwrap();
        assert!(matches!(LocalKms::open(folder, &place.data), Err(KeyFileError::Owner(_))));
    }

    #[test]
    fn a_key_file_inside_the_data_folder_is_refused_however_it_is_written() {
        let place = place();
        let sideways = place.data.join("../data/sub/callgate.key");
        let link = place.data.with_file_name("link");
        std::os::unix::fs::symlink(&place.data, &link).unwrap();
        for path in [place.data.join("callgate.key"), sideways, link.join("callgate.key")] {
            let error = LocalKms::open_or_create(&path, &place.data).unwrap_err();
            assert!(matches!(error, KeyFileError::InsideData(_)), "{}", path.display());
        }
    }

    #[test]
    fn a_missing_or_broken_key_file_is_told_from_a_good_one() {
        let place = place();
        let error = LocalKms::open(&place.key, &place.data).unwrap_err();
        assert!(matches!(error, KeyFileError::Missing(_)));
        LocalKms::open_or_create(&place.key, &place.data).unwrap();
        fs::write(&place.key, "callgate-keys 1\nkms AAAA\n").unwrap();
        let error = LocalKms::open(&place.key, &place.data).unwrap_err();
        assert!(matches!(error, KeyFileError::Format(_)));
    }

    #[test]
    fn a_signature_verifies_with_the_exported_key_only() {
        let (here, there) = (place(), place());
        let one = LocalKms::open_or_create(&here.key, &here.data).unwrap();
        let two = LocalKms::open_or_create(&there.key, &there.data).unwrap();
        let signature = one.sign_head(b"head").unwrap();
        let exported: HeadKey = one.head_key().to_string().parse().unwrap();
        assert!(exported.verifies(b"head", &signature));
        assert!(!exported.verifies(b"other", &signature));
        assert!(!two.head_key().verifies(b"head", &signature));
        assert!("short".parse::<HeadKey>().is_err());
    }
}
