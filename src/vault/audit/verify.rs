//! Proves an audit log against its exported heads, offline: needs the database, the heads and the
//! public key, and no secret.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base::{WallTime, limit};
use thiserror::Error;

use super::head::{self, Head, ReadHead};
use super::{AuditRow, ChainTip, HASH_BYTES, genesis};
use crate::key::HeadKey;
use crate::store::{self, StoreError};

/// How far around its place a moved record is looked for.
const MOVED_REACH: u64 = 10_000;
/// Rows read at a time.
const PAGE: i64 = 1_000;

/// Why an audit log could not be verified at all.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The heads cannot be read.
    #[error("audit heads {path}: {source}")]
    Heads {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Something wrong with an audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The record's content is not what was hashed.
    Edited {
        /// The record.
        seq: u64,
    },
    /// The record once stood at another place.
    Moved {
        /// Where it stands.
        seq: u64,
        /// Where it was written.
        written: u64,
    },
    /// The record does not follow from the one before it: one of the two, or one between, was
    /// replaced.
    Relinked {
        /// The later record.
        seq: u64,
    },
    /// Records are missing.
    Missing {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The log ends before a record whose head was signed.
    Cut {
        /// The last record there is; 0 for none.
        last: u64,
        /// The last record that was signed.
        signed: u64,
    },
    /// The chain hangs together but is not the one that was signed.
    Rewritten {
        /// The record whose signed head differs.
        seq: u64,
        /// The last record before it whose head agrees; 0 for none.
        agreed: u64,
    },
    /// A line of the heads file is unreadable or not signed by this key.
    HeadForged {
        /// The line, from 1.
        line: u64,
    },
    /// Heads are out of order: the file was edited, or the log was cut and went on.
    HeadsDisordered {
        /// The head after which a smaller one follows.
        seq: u64,
    },
    /// More records follow the last head than are ever written without one: heads are missing.
    HeadsMissing {
        /// The last head; 0 for none.
        signed: u64,
        /// The last record.
        last: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited { seq } => write!(f, "record {seq} was edited"),
            Self::Moved { seq, written } => {
                write!(f, "record {seq} was moved there; it was written as record {written}")
            }
            Self::Relinked { seq } => {
                write!(f, "record {seq} does not follow from record {}", seq.saturating_sub(1))
            }
            Self::Missing { first, last } if first == last => {
                write!(f, "record {first} is missing")
            }
            Self::Missing { first, last } => write!(f, "records {first} to {last} are missing"),
            Self::Cut { last, signed } => {
                write!(f, "the log ends at record {last}, but record {signed} was signed")
            }
            Self::Rewritten { seq, agreed } => {
                write!(f, "records {} to {seq} are not those that were signed", agreed + 1)
            }
            Self::HeadForged { line } => {
                write!(f, "line {line} of the heads is damaged or not signed by this key")
            }
            Self::HeadsDisordered { seq } => {
                write!(f, "a head of an earlier record follows that of record {seq}")
            }
            Self::HeadsMissing { signed, last } => {
                write!(f, "the heads end at record {signed}, the log at {last}: heads are missing")
            }
        }
    }
}

/// What a verification found.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The edge whose chain it is, in hex.
    pub edge: String,
    /// Records read.
    pub records: u64,
    /// Good heads read.
    pub heads: u64,
    /// The last record whose head was signed, and when.
    pub signed: Option<(u64, WallTime)>,
    /// Records after the last signed head: a cut among them would go unseen.
    pub unsigned: u64,
    /// Everything wrong; empty for a good log.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Verifies the log in `database` against the heads in `heads` (the configured folder, or one
/// file of it).
pub async fn verify(
    database: &Path,
    heads: &Path,
    key: &HeadKey,
) -> Result<VerifyReport, VerifyError> {
    let mut connection = store::open_read_only(database).await?;
    let edge_id = store::read::edge(&mut connection).await?;
    let edge = hex::encode(&edge_id);
    let path = if heads.is_dir() { head::file_of(heads, &edge) } else { heads.to_owned() };
    // Heads first: a running edge adds records and then their heads while we read.
    let read = match head::read(&path, &edge, key) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|source| VerifyError::Heads { path, source })?,
    };
    let mut walk = Walk::new(&edge_id, read);
    let mut after = 0;
    loop {
        let rows = store::read::audit_rows(&mut connection, after, PAGE).await?;
        let Some((last, _)) = rows.last() else { break };
        after = last.seq;
        for (row, stored_hash) in &rows {
            walk.record(row, stored_hash);
        }
    }
    Ok(walk.finish(edge))
}

/// The walk along the chain.
struct Walk {
    tip: ChainTip,
    /// Whether the hash at the tip is worth comparing: false after a gap or a moved record.
    linked: bool,
    records: u64,
    heads: BTreeMap<u64, Head>,
    good_heads: u64,
    agreed: u64,
    findings: Vec<Finding>,
}

impl Walk {
    fn new(edge: &[u8], read: Vec<ReadHead>) -> Self {
        let mut walk = Self {
            tip: ChainTip { seq: 0, hash: genesis(edge) },
            linked: true,
            records: 0,
            heads: BTreeMap::new(),
            good_heads: 0,
            agreed: 0,
            findings: Vec::new(),
        };
        let mut highest = 0;
        for head in read {
            match head {
                ReadHead::Bad(line) => walk.findings.push(Finding::HeadForged { line }),
                ReadHead::Good(head) => {
                    if head.tip.seq < highest {
                        walk.findings.push(Finding::HeadsDisordered { seq: highest });
                    }
                    highest = highest.max(head.tip.seq);
                    walk.good_heads += 1;
                    // The first head of a record counts: a later one may have been made after
                    // the log was cut and went on.
                    walk.heads.entry(head.tip.seq).or_insert(head);
                }
            }
        }
        walk
    }

    fn record(&mut self, row: &AuditRow, stored_hash: &[u8; HASH_BYTES]) {
        self.records += 1;
        let expected = self.tip.seq.saturating_add(1);
        if row.seq > expected {
            self.findings.push(Finding::Missing { first: expected, last: row.seq - 1 });
            self.linked = false;
        }
        let hash = row.hash();
        if hash != *stored_hash {
            self.findings.push(match written_as(row, stored_hash) {
                Some(written) => Finding::Moved { seq: row.seq, written },
                None => Finding::Edited { seq: row.seq },
            });
        } else if self.linked && row.previous != self.tip.hash {
            self.findings.push(Finding::Relinked { seq: row.seq });
        }
        // The stored hash is what the next record was linked to; a change is told once.
        self.linked = hash == *stored_hash;
        self.tip = ChainTip { seq: row.seq, hash: *stored_hash };
        if let Some(head) = self.heads.get(&row.seq) {
            // Where the content no longer gives the stored hash, that was told above.
            if head.tip.hash == *stored_hash {
                self.agreed = row.seq;
            } else {
                let agreed = self.agreed;
                self.findings.push(Finding::Rewritten { seq: row.seq, agreed });
            }
        }
    }

    fn finish(mut self, edge: String) -> VerifyReport {
        let last = self.tip.seq;
        let signed = self.heads.last_key_value().map(|(seq, head)| (*seq, head.wall));
        let signed_seq = signed.map_or(0, |(seq, _)| seq);
        if signed_seq > last {
            self.findings.push(Finding::Cut { last, signed: signed_seq });
        }
        let unsigned = last.saturating_sub(signed_seq);
        // The batch that reaches the limit may be a whole one.
        if unsigned > limit::VAULT_AUDIT_HEAD_RECORDS.value + limit::VAULT_BATCH.value {
            self.findings.push(Finding::HeadsMissing { signed: signed_seq, last });
        }
        VerifyReport {
            edge,
            records: self.records,
            heads: self.good_heads,
            signed,
            unsigned,
            findings: self.findings,
        }
    }
}

/// The place at which the record's hash is right, nearest first.
fn written_as(row: &AuditRow, stored_hash: &[u8; HASH_BYTES]) -> Option<u64> {
    (1..=MOVED_REACH)
        .flat_map(|by| [row.seq.checked_sub(by), row.seq.checked_add(by)])
        .flatten()
        .find(|seq| row.hash_at(*seq) == *stored_hash)
}
