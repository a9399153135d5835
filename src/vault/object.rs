//! Where recordings lie: `recordings/ID.part` while one is written (a local file, appended to),
//! `recordings/ID.sealed` in the object store once it has ended.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use rustix::fs::OFlags;
use thiserror::Error;

use crate::recording::RecordingId;

const FOLDER: &str = "recordings";
/// What a probe writes: more than a nearly full disk's last free block.
const PROBE_BYTES: usize = 65_536;

/// The object store did not give or take an object.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// It is not there.
    #[error("the object is not in the store")]
    Missing,
    /// The store failed.
    #[error("object store: {0}")]
    Store(object_store::Error),
    /// The local file failed.
    #[error("object file: {0}")]
    File(#[from] io::Error),
}

impl From<object_store::Error> for ObjectError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Missing,
            other => Self::Store(other),
        }
    }
}

/// The recordings below a data folder.
#[derive(Debug)]
pub(crate) struct Objects {
    folder: PathBuf,
    store: Box<dyn ObjectStore>,
}

impl Objects {
    /// Opens the folder below `data`, created where missing.
    pub(crate) fn open(data: &Path) -> Result<Self, ObjectError> {
        crate::files::own_folder(&data.join(FOLDER))?;
        Self::open_existing(data)
    }

    /// Opens the folder of a vault that exists.
    pub(crate) fn open_existing(data: &Path) -> Result<Self, ObjectError> {
        let store = Box::new(LocalFileSystem::new_with_prefix(data)?);
        Ok(Self { folder: data.join(FOLDER), store })
    }

    /// The local file of a recording in progress.
    pub(crate) fn part(&self, id: RecordingId) -> PathBuf {
        self.folder.join(format!("{id}.part"))
    }

    fn key(id: RecordingId) -> Key {
        Key::from_iter([FOLDER, &format!("{id}.sealed")])
    }

    /// Makes the local file, complete and synced, an object. On this store that is a rename.
    pub(crate) fn adopt(&self, id: RecordingId) -> io::Result<()> {
        std::fs::rename(self.part(id), self.folder.join(format!("{id}.sealed")))?;
        self.sync_folder()
    }

    /// Makes new names survive a power cut.
    pub(crate) fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// Makes everything on the folder's file system survive a power cut.
    pub(crate) fn sync_everything(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.folder)?)?)
    }

    /// An object's bytes.
    pub(crate) async fn read(&self, id: RecordingId) -> Result<Bytes, ObjectError> {
        Ok(self.store.get(&Self::key(id)).await?.bytes().await?)
    }

    /// Whether the object is there.
    pub(crate) async fn exists(&self, id: RecordingId) -> Result<bool, ObjectError> {
        match self.store.head(&Self::key(id)).await.map_err(ObjectError::from) {
            Ok(_) => Ok(true),
            Err(ObjectError::Missing) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object and its local file; neither need be there.
    pub(crate) async fn delete(&self, id: RecordingId) -> Result<(), ObjectError> {
        match std::fs::remove_file(self.part(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        match self.store.delete(&Self::key(id)).await.map_err(ObjectError::from) {
            Err(ObjectError::Missing) => Ok(()),
            other => other,
        }
    }

    /// Whether the disk takes a file again.
    pub(crate) fn probe(&self) -> io::Result<()> {
        let name = self.folder.join(".probe");
        let written = crate::files::open_private(&name).and_then(|mut file| {
            io::Write::write_all(&mut file, &[0; PROBE_BYTES])?;
            file.sync_all()
        });
        let removed = std::fs::remove_file(&name);
        written.and(removed)
    }
}

/// Creates a local file for a new recording; there must be none yet.
pub(crate) fn create_part(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}
