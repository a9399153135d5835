//! Reading what was kept, next to a running edge: for the command line, later for the API.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use base::{CallId, Personal, WallTime};
use serde::Deserialize;
use sqlx::SqliteConnection;
use thiserror::Error;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::VaultConfig;
use crate::access::{self, Account, ApiKey};
use crate::audit::AuditRow;
use crate::key::ring::Workspace;
use crate::key::{DataKey, KeyFileError, KmsError, LocalKms};
use crate::object::{ObjectError, Objects};
use crate::record::{CallPersonal, Direction, LadderEntry, StoredLadder, StoredPersonal};
use crate::recording::part;
use crate::recording::play::{self, Peaks, PlayError};
use crate::recording::{RecordingId, RecordingState};
use crate::seal::{self, UnsealError};
use crate::store::read::{CallRow, StoredKey, Which};
use crate::store::write::Part;
use crate::store::{self, StoreError};
use crate::transcript::{StoredTurn, Turn};

/// Why something was not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The key file was not used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The workspace's key cannot be unwrapped.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The database has no such workspace.
    #[error("no workspace `{0}` in this vault")]
    NoWorkspace(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A seal is broken.
    #[error(transparent)]
    Unseal(#[from] UnsealError),
    /// There is no such call or recording.
    #[error("not in this vault")]
    Unknown,
    /// It was erased.
    #[error("it was erased")]
    Erased,
    /// A recording could not be turned into samples.
    #[error(transparent)]
    Play(#[from] PlayError),
}

/// How a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    /// It goes on (or the edge died and has not been started since).
    InProgress,
    /// It ended.
    Ended,
    /// The edge died during it.
    Lost,
}

/// A line of the list of calls.
#[derive(Clone, Debug)]
pub struct CallSummary {
    /// The call.
    pub id: CallId,
    /// How it stands.
    pub state: CallState,
    /// Which way it went.
    pub direction: Direction,
    /// The trunk's name.
    pub trunk: Option<String>,
    /// The voice agent's name.
    pub voice_agent: Option<String>,
    /// When it arrived.
    pub started: WallTime,
    /// When it was answered.
    pub answered: Option<WallTime>,
    /// When it ended.
    pub ended: Option<WallTime>,
    /// The code of why it ended.
    pub reason: Option<String>,
    /// From arrival to answer.
    pub setup: Option<Duration>,
    /// From answer to end.
    pub talked: Option<Duration>,
    /// The signalling transport.
    pub transport: String,
    /// The SRTP suite, or `none`.
    pub protection: String,
    /// The codec.
    pub codec: String,
    /// Whether SDES keys crossed exempted plaintext signalling.
    pub keys_exposed: bool,
    /// Whether recording was on.
    pub recording: bool,
    /// A word for why not, or not all the time, where it was wanted; else empty.
    pub unrecorded: String,
    /// Whether the transcript was on.
    pub transcript: bool,
    /// Whether it was erased since, alone or with the call.
    pub transcript_erased: bool,
    /// Caller and callee; `None` once erased.
    pub numbers: Option<(Personal<String>, Personal<String>)>,
}

/// A recording of a call.
#[derive(Clone, Debug)]
pub struct RecordingSummary {
    /// The recording.
    pub id: RecordingId,
    /// Its call.
    pub call: CallId,
    /// When it began.
    pub started: WallTime,
    /// How it stands.
    pub state: RecordingState,
    /// Sealed chunks, as far as noted.
    pub chunks: u64,
    /// Its length, as far as noted.
    pub duration: Duration,
}

/// Everything about one call.
#[derive(Clone, Debug)]
pub struct CallDetail {
    /// Its line in the list.
    pub summary: CallSummary,
    /// What identifies a person, with the decision; `None` once erased.
    pub personal: Option<CallPersonal>,
    /// The transcript.
    pub turns: Vec<Turn>,
    /// The SIP ladder.
    pub ladder: Vec<LadderEntry>,
    /// Its recordings.
    pub recordings: Vec<RecordingSummary>,
}

/// Which calls to list.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// At most this many, newest first.
    pub count: u32,
    /// Only those that arrived at or after this.
    pub since: WallTime,
    /// Only those from or to this number, in any spelling.
    pub number: Option<Personal<String>>,
    /// Only those of this trunk.
    pub trunk: Option<String>,
    /// Only those of this voice agent.
    pub voice_agent: Option<String>,
    /// Only those that go on.
    pub in_progress: bool,
    /// Only those that ended for one of these codes, where there are any.
    pub reasons: Vec<&'static str>,
    /// With `reasons`: those that were lost as well.
    pub lost: bool,
    /// Only those that come after this one in the list: the last of the page before.
    pub after: Option<(WallTime, CallId)>,
}

/// A recording's audio.
pub struct RecordedAudio {
    /// Ogg Opus (RFC 7845), stereo: caller left, voice agent right.
    pub ogg: Vec<u8>,
    /// How it stands, by the file itself and what the database knows of it.
    pub state: RecordingState,
}

/// An audit record as shown.
#[derive(Clone, Debug)]
pub struct AuditView {
    /// Its number.
    pub seq: u64,
    /// When it was made.
    pub wall: WallTime,
    /// What happened.
    pub kind: String,
    /// Who did it.
    pub actor: String,
    /// The call it belongs to.
    pub call: Option<CallId>,
    /// The rest; `None` where it was erased with its call.
    pub details: Option<Personal<String>>,
}

/// Opens a vault read-only. Several may be open next to a running edge.
pub struct Reader {
    connection: Mutex<SqliteConnection>,
    workspace: Workspace,
    objects: Objects,
    edge: Vec<u8>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reader").field(self.workspace.name()).finish()
    }
}

impl Reader {
    /// Opens the vault that `config` describes; it must exist.
    pub async fn open(config: &VaultConfig) -> Result<Self, ReadError> {
        let kms = LocalKms::open(&config.key_file, &config.data)?;
        let mut connection = store::open_read_only(&database_path(&config.data)).await?;
        let name = config.workspace.as_str();
        let wrapped = store::read::workspace(&mut connection, name)
            .await?
            .ok_or_else(|| ReadError::NoWorkspace(name.to_owned()))?;
        let edge = store::read::edge(&mut connection).await?;
        Ok(Self {
            connection: Mutex::new(connection),
            workspace: Workspace::open(&kms, &config.workspace, &wrapped)?,
            objects: Objects::open_existing(&config.data)?,
            edge,
        })
    }

    /// Lists calls, newest first.
    pub async fn calls(&self, filter: &CallFilter) -> Result<Vec<CallSummary>, ReadError> {
        let number = match &filter.number {
            None => None,
            Some(number) => match self.workspace.blind().of(number.expose()) {
                None => return Ok(Vec::new()),
                index => index,
            },
        };
        let mut connection = self.connection.lock().await;
        let rows = store::read::calls(&mut connection, filter, number).await?;
        let mut calls = Vec::with_capacity(rows.len());
        for row in rows {
            let key = self.call_key(&mut connection, row.0.id).await?;
            calls.push(self.unseal_call(row, key.as_ref())?.0);
        }
        Ok(calls)
    }

    /// Everything about one call.
    pub async fn call(&self, id: CallId) -> Result<CallDetail, ReadError> {
        let mut connection = self.connection.lock().await;
        let row = store::read::call(&mut connection, id).await?.ok_or(ReadError::Unknown)?;
        let key = self.call_key(&mut connection, id).await?;
        let (summary, personal) = self.unseal_call(row, key.as_ref())?;
        let (mut turns, mut ladder) = (Vec::new(), Vec::new());
        if let Some(key) = &key {
            for (index, sealed) in store::read::parts(&mut connection, Part::Turn, id).await? {
                let plain = unseal_part(key, Part::Turn, id, index, &sealed)?;
                turns.push(from_json::<StoredTurn<'_>>(&plain)?.into_turn(index));
            }
            for (first, sealed) in store::read::parts(&mut connection, Part::Ladder, id).await? {
                let plain = unseal_part(key, Part::Ladder, id, first, &sealed)?;
                let lines = plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                for (line, index) in lines.zip(first..) {
                    let stored: StoredLadder<'_> = from_json(line)?;
                    ladder.push(LadderEntry {
                        index,
                        at_ms: stored.at_ms,
                        leg: stored.leg,
                        sent: stored.sent,
                        message: Personal::new(stored.message.into_owned()),
                    });
                }
            }
        }
        let recordings = store::read::recordings(&mut connection, Which::OfCall(id)).await?;
        Ok(CallDetail { summary, personal, turns, ladder, recordings })
    }

    /// A recording's audio, as far as it opens: look at its state. Held in memory whole (some 20 MB
    /// an hour).
    pub async fn recording(&self, id: RecordingId) -> Result<RecordedAudio, ReadError> {
        let mut connection = self.connection.lock().await;
        let found = store::read::recordings(&mut connection, Which::One(id)).await?;
        let row = found.first().ok_or(ReadError::Unknown)?;
        let key = self.call_key(&mut connection, row.call).await?.ok_or(ReadError::Erased)?;
        drop(connection);
        if row.state == RecordingState::Open
            && let Ok(bytes) = std::fs::read(self.objects.part(id))
        {
            let ogg = part::open(&bytes, id, &key).map_or(Vec::new(), |content| content.ogg);
            return Ok(RecordedAudio { ogg, state: RecordingState::Open });
        }
        let bytes = match self.objects.read(id).await {
            Err(ObjectError::Missing) => {
                return Ok(RecordedAudio { ogg: Vec::new(), state: RecordingState::Missing });
            }
            other => other?,
        };
        let content = part::open(&bytes, id, &key)?;
        let state = match content.state() {
            // Fewer than noted: cut, and perhaps closed again.
            state if state != RecordingState::Damaged && content.chunks < row.chunks => {
                RecordingState::Truncated
            }
            state => state,
        };
        Ok(RecordedAudio { ogg: content.ogg, state })
    }

    /// Writes a recording as a stereo WAV file of 16 kHz; returns how it stands. Nothing is
    /// written of one that is missing.
    pub async fn recording_wav(
        &self,
        id: RecordingId,
        out: &mut (dyn Write + Send),
    ) -> Result<RecordingState, ReadError> {
        let audio = self.recording(id).await?;
        if audio.state != RecordingState::Missing {
            play::write_wav(&audio.ogg, out)?;
        }
        Ok(audio.state)
    }

    /// How loud a recording is over its whole length, in `count` steps, and how it stands. It is
    /// decoded for that: some 2 s of CPU for an hour.
    pub async fn peaks(
        &self,
        id: RecordingId,
        count: usize,
    ) -> Result<(Peaks, RecordingState), ReadError> {
        let audio = self.recording(id).await?;
        Ok((play::peaks(&audio.ogg, count)?, audio.state))
    }

    /// API keys, the newest first, and accounts, by name, as they are on the disk.
    pub async fn access(&self) -> Result<(Vec<ApiKey>, Vec<Account>), ReadError> {
        let mut connection = self.connection.lock().await;
        let (held, _) = access::load(&mut connection, &self.workspace).await?;
        Ok((held.shown_keys(), held.shown_accounts()))
    }

    /// Audit records after number `after`, oldest first, at most `count`.
    pub async fn audit(&self, after: u64, count: u32) -> Result<Vec<AuditView>, ReadError> {
        let mut connection = self.connection.lock().await;
        let rows = store::read::audit_rows(&mut connection, after, i64::from(count)).await?;
        let mut views = Vec::with_capacity(rows.len());
        for (row, _) in rows {
            let details = self.audit_details(&mut connection, &row).await?;
            views.push(AuditView {
                seq: row.seq,
                wall: row.wall,
                kind: row.kind,
                actor: row.actor,
                call: row.call,
                details,
            });
        }
        Ok(views)
    }

    async fn audit_details(
        &self,
        connection: &mut SqliteConnection,
        row: &AuditRow,
    ) -> Result<Option<Personal<String>>, ReadError> {
        let text = |bytes: &[u8]| Personal::new(String::from_utf8_lossy(bytes).into_owned());
        if !row.sealed {
            return Ok(Some(text(&row.details)));
        }
        let key = match row.call {
            None => Some(self.workspace.audit_key().clone()),
            Some(call) => self.call_key(connection, call).await?,
        };
        let (Some(key), false) = (key, row.details.is_empty()) else { return Ok(None) };
        let context = [b"audit", &self.edge[..], &row.seq.to_be_bytes()];
        Ok(Some(text(&seal::unseal(&key, &context, &row.details)?)))
    }

    /// `None` where it was erased or never was.
    async fn call_key(
        &self,
        connection: &mut SqliteConnection,
        call: CallId,
    ) -> Result<Option<DataKey>, ReadError> {
        match store::read::call_key(connection, call).await? {
            StoredKey::Wrapped(wrapped) => {
                Ok(Some(self.workspace.unwrap_call_key(call, &wrapped)?))
            }
            StoredKey::None | StoredKey::Erased => Ok(None),
        }
    }

    fn unseal_call(
        &self,
        (mut summary, sealed): CallRow,
        key: Option<&DataKey>,
    ) -> Result<(CallSummary, Option<CallPersonal>), ReadError> {
        let (Some(key), Some(sealed)) = (key, sealed) else { return Ok((summary, None)) };
        let plain = seal::unseal(key, &[b"call", summary.id.as_bytes()], &sealed)?;
        let personal = CallPersonal::from(from_json::<StoredPersonal<'_>>(&plain)?);
        summary.numbers = Some((personal.caller.clone(), personal.callee.clone()));
        Ok((summary, Some(personal)))
    }
}

/// The database below a data folder.
#[must_use]
pub fn database_path(data: &Path) -> std::path::PathBuf {
    data.join(store::FILE)
}

fn unseal_part(
    key: &DataKey,
    part: Part,
    call: CallId,
    index: u32,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
    seal::unseal(key, &[part.context(), call.as_bytes(), &index.to_be_bytes()], sealed)
}

fn from_json<'a, T: Deserialize<'a>>(plain: &'a [u8]) -> Result<T, ReadError> {
    serde_json::from_slice(plain).map_err(|_| ReadError::Unseal(UnsealError::Format))
}
