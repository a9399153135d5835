//! Signed heads of the chain: one line of JSON each, appended to one file per edge.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base::WallTime;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::{ChainTip, HASH_BYTES};
use crate::key::{HeadKey, Kms, SIGNATURE_BYTES};

/// A line is some 300 bytes.
const LINE_BYTES_MAX: u64 = 1_024;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadLine {
    edge: String,
    seq: u64,
    hash: String,
    wall: u64,
    signature: String,
}

/// A head whose signature was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) tip: ChainTip,
    pub(super) wall: WallTime,
}

fn signed_message(edge: &str, tip: ChainTip, wall: WallTime) -> Vec<u8> {
    let mut message = b"callgate audit head v1\0".to_vec();
    message.extend_from_slice(&(edge.len() as u64).to_be_bytes());
    message.extend_from_slice(edge.as_bytes());
    message.extend_from_slice(&tip.seq.to_be_bytes());
    message.extend_from_slice(&tip.hash);
    message.extend_from_slice(&wall.unix_millis().to_be_bytes());
    message
}

/// The file of an edge's heads below `folder`.
pub(super) fn file_of(folder: &Path, edge: &str) -> PathBuf {
    folder.join(format!("{edge}.heads"))
}

/// The file that heads are appended to.
#[derive(Debug)]
pub(crate) struct HeadFile {
    file: File,
    edge: String,
}

impl HeadFile {
    /// Opens the file of `edge` (in hex) in `folder`, created with the folder where missing.
    pub(crate) fn open(folder: &Path, edge: String) -> io::Result<Self> {
        crate::files::create_private_folder(folder)?;
        let path = file_of(folder, &edge);
        let mut file = crate::files::open_private(&path)?;
        // A power cut may leave half a line; the next must start on one of its own.
        let length = file.metadata()?.len();
        let from = length.saturating_sub(LINE_BYTES_MAX);
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < tail.len() {
            file.set_len(from + whole as u64)?;
        }
        Ok(Self { file, edge })
    }

    /// Signs `tip` and appends it; on the disk when this returns.
    pub(crate) fn append(
        &mut self,
        kms: &dyn Kms,
        tip: ChainTip,
        wall: WallTime,
    ) -> io::Result<()> {
        let signature = kms
            .sign_head(&signed_message(&self.edge, tip, wall))
            .map_err(|error| io::Error::other(error.to_string()))?;
        let line = HeadLine {
            edge: self.edge.clone(),
            seq: tip.seq,
            hash: hex::encode(tip.hash),
            wall: wall.unix_millis(),
            signature: BASE64.encode(signature),
        };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        let before = self.file.metadata()?.len();
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // Half a line would spoil the next one.
            self.file.set_len(before)?;
        }
        written
    }
}

/// What a line turned out to be.
pub(super) enum ReadHead {
    /// A good one.
    Good(Head),
    /// Line `.0` (from 1) is unreadable, of another edge, or its signature is wrong.
    Bad(u64),
}

/// Reads an edge's heads. Half a line at the very end is a write that a crash cut short.
pub(super) fn read(path: &Path, edge: &str, key: &HeadKey) -> io::Result<Vec<ReadHead>> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut heads = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            if line.len() as u64 == LINE_BYTES_MAX {
                heads.push(ReadHead::Bad(number));
            }
            break;
        }
        let head = parse(&line, edge, key);
        heads.push(head.map_or(ReadHead::Bad(number), ReadHead::Good));
    }
    Ok(heads)
}

fn parse(line: &[u8], edge: &str, key: &HeadKey) -> Option<Head> {
    let line: HeadLine = serde_json::from_slice(line).ok()?;
    let mut hash = [0; HASH_BYTES];
    hex::decode_to_slice(&line.hash, &mut hash).ok()?;
    let signature: [u8; SIGNATURE_BYTES] = BASE64.decode(&line.signature).ok()?.try_into().ok()?;
    let tip = ChainTip { seq: line.seq, hash };
    let wall = WallTime::from_unix_millis(line.wall);
    let good = line.edge == edge && key.verifies(&signed_message(edge, tip, wall), &signature);
    good.then_some(Head { tip, wall })
}
