//! The local file of a recording: appended to while the call goes on, and closed by recovery where
//! its writer died.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use thiserror::Error;

use super::play;
use super::{RecordingId, RecordingState};
use crate::key::DataKey;
use crate::key::ring::unwrap_object_key;
use crate::object::create_part;
use crate::seal::{
    ChunkError, ChunkKind, SealError, StreamHeader, StreamOpener, UnsealError, closing_chunk,
};

/// How much of a file's end a crash may leave unreadable: what was written since the last sync,
/// with room. More is damage that a crash does not do.
const TORN_BYTES_MAX: usize = 65_536;

/// A file that grows.
pub(crate) struct PartFile {
    file: File,
    length: u64,
    dirty: bool,
}

impl PartFile {
    /// Creates the file with the stream's header.
    pub(crate) fn create(path: &Path, header: &[u8]) -> io::Result<Self> {
        let mut part = Self { file: create_part(path)?, length: 0, dirty: false };
        part.append(header)?;
        Ok(part)
    }

    /// Appends a sealed chunk; where that fails, the file is as it was.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.dirty = true;
        if let Err(error) = self.file.write_all(bytes) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Makes what was appended survive a power cut.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.dirty = false;
        Ok(())
    }

    /// Whether something is not synced.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The file was synced by other means.
    pub(crate) const fn synced(&mut self) {
        self.dirty = false;
    }
}

/// Why a file could not be closed now.
#[derive(Debug, Error)]
pub(crate) enum CloseError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// How a file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) state: RecordingState,
    pub(crate) chunks: u64,
    pub(crate) duration_ms: u64,
}

/// Opened content of a stream.
pub(crate) struct Content {
    /// The Ogg pages that open.
    pub(crate) ogg: Vec<u8>,
    pub(crate) chunks: u64,
    pub(crate) end: Option<ChunkKind>,
    pub(crate) error: Option<ChunkError>,
    /// Bytes after the last good chunk.
    pub(crate) leftover: usize,
}

impl Content {
    /// How the object stands by itself, told without the database.
    pub(crate) const fn state(&self) -> RecordingState {
        match (&self.error, self.end) {
            (Some(ChunkError::Forged(_) | ChunkError::Trailing), _) => RecordingState::Damaged,
            (Some(ChunkError::Torn(_)), _) | (None, None | Some(ChunkKind::More)) => {
                RecordingState::Truncated
            }
            (None, Some(ChunkKind::Final)) => RecordingState::Complete,
            (None, Some(ChunkKind::Closed)) => RecordingState::Unfinished,
        }
    }
}

/// Finds the key of a stream that must be recording `id`.
fn stream_key(
    bytes: &[u8],
    id: RecordingId,
    call_key: &DataKey,
) -> Result<(StreamHeader, usize, DataKey), UnsealError> {
    let (header, used) = StreamHeader::parse(bytes)?;
    if header.object != *id.as_bytes() {
        return Err(UnsealError::Forged);
    }
    let key = unwrap_object_key(call_key, &header.object, &header.wrapped_key)?;
    Ok((header, used, key))
}

fn open_all(key: &DataKey, header: &StreamHeader, chunks: &[u8]) -> Result<Content, UnsealError> {
    let mut opener = StreamOpener::new(key, header, chunks)?;
    let mut ogg = Vec::new();
    let error = loop {
        match opener.next_chunk() {
            Ok(Some(plain)) => ogg.extend_from_slice(&plain),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    Ok(Content {
        ogg,
        chunks: opener.chunks(),
        end: opener.end(),
        error,
        leftover: opener.remaining(),
    })
}

/// Opens a recording as far as it opens.
pub(crate) fn open(
    bytes: &[u8],
    id: RecordingId,
    call_key: &DataKey,
) -> Result<Content, UnsealError> {
    let (header, used, key) = stream_key(bytes, id, call_key)?;
    open_all(&key, &header, bytes.get(used..).unwrap_or_default())
}

/// Closes a file whose writer is gone, so that it is *unfinished* and no longer *in progress*: cuts
/// off what a crash tore and adds the closing chunk. A file that lost more than a crash takes is
/// left as it is and reported. `noted` is how many chunks the database knows of.
pub(crate) fn close(
    path: &Path,
    id: RecordingId,
    call_key: &DataKey,
    noted: u64,
) -> Result<Closed, CloseError> {
    let bytes = std::fs::read(path)?;
    let Ok((header, used, key)) = stream_key(&bytes, id, call_key) else {
        // A crash right at the start leaves half a header; anything else was changed.
        let state = if noted == 0 { RecordingState::Missing } else { RecordingState::Damaged };
        return Ok(Closed { state, chunks: 0, duration_ms: 0 });
    };
    let chunks_bytes = bytes.get(used..).unwrap_or_default();
    let content = open_all(&key, &header, chunks_bytes).map_err(|_| SealError)?;
    let closed = |state| Closed {
        state,
        chunks: content.chunks,
        duration_ms: play::duration_ms(&content.ogg),
    };
    if content.error.is_none() && content.end.is_some() {
        return Ok(closed(content.state()));
    }
    if content.error == Some(ChunkError::Trailing) || content.leftover > TORN_BYTES_MAX {
        return Ok(closed(RecordingState::Damaged));
    }
    if content.chunks < noted {
        return Ok(closed(RecordingState::Truncated));
    }
    let closing = closing_chunk(&key, &header, content.chunks)?;
    let mut file = crate::files::open_private(path)?;
    file.set_len((bytes.len() - content.leftover) as u64)?;
    file.write_all(&closing)?;
    file.sync_all()?;
    Ok(closed(RecordingState::Unfinished))
}
