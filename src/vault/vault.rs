//! Opening, closing and handing records to the vault.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use base::{CallId, Clock, Event, Instant, WorkspaceId, limit};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::access::{self, Keys};
use crate::audit::{ChainTip, HeadFile, genesis};
use crate::files;
use crate::key::ring::Workspace;
use crate::key::{HeadKey, KeyFileError, Kms, KmsError, LocalKms};
use crate::ledger::{Ledger, own_entry};
use crate::object::{ObjectError, Objects};
use crate::queue::Op;
use crate::read::database_path;
use crate::record::Record;
use crate::recording::recorder::{self, Desk};
use crate::recording::{RecordingId, RecordingWriter, Track};
use crate::retention::{Retention, Sweeper};
use crate::seal::SealError;
use crate::shared::Shared;
use crate::store::{self, Database, StoreError};
use crate::writer::{Chores, Heads, Writer};

/// More recorder threads than this do not help one disk.
const RECORDERS_MAX: usize = 4;
/// Bytes of an edge's id.
const EDGE_BYTES: usize = 8;

/// Where a vault is, and whose.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// The folder of everything sealed; made with mode 0700.
    pub data: PathBuf,
    /// The local KMS's key file, outside `data`; made with mode 0600 with a new vault.
    pub key_file: PathBuf,
    /// The folder that signed audit heads are written to. Ship it off the machine: whoever can
    /// change it together with `data` can cut the log unseen.
    pub audit_heads: PathBuf,
    /// The workspace whose calls are kept.
    pub workspace: WorkspaceId,
    /// For how long.
    pub retention: Retention,
}

/// Why a vault was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The key file was not used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The workspace's key was wrapped by another key file, or the KMS failed.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A folder or file cannot be made.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the vault in {0} is in use by another process")]
    InUse(PathBuf),
    /// No randomness.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The queue is full (limits `vault.queue`, `vault.queue_bytes`) or the vault is closed.
    #[error("the vault's queue is full")]
    Full,
    /// The record's text is over limit `vault.record_bytes`.
    #[error("the record is too large")]
    TooLarge,
}

/// The vault was closed before everything was on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the vault was closed before everything was on the disk")]
pub struct FlushError;

/// A recording was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The queue is full.
    #[error("the vault's queue is full")]
    Full,
    /// The disk or the database fails.
    #[error("the vault cannot write")]
    Unhealthy,
    /// No randomness.
    #[error("no randomness for a recording's id")]
    Random,
}

/// A call is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasure {
    /// It was just now.
    Now,
    /// It had been before; nothing was done.
    Before,
}

/// A call was not erased.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EraseError {
    /// Nothing is kept of such a call.
    #[error("not in this vault")]
    Unknown,
    /// The call or its recording goes on.
    #[error("the call is in progress, or its recording is being finished")]
    InProgress,
    /// The queue is full or the vault is closed.
    #[error("the vault's queue is full")]
    Full,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A recording could not be deleted.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// A vault's threads. Close it with [`Vault::close`]; dropping it asks the threads to stop and does
/// not wait.
pub struct Vault {
    handle: VaultHandle,
    writer: Option<JoinHandle<()>>,
    recorders: Vec<JoinHandle<()>>,
    head_key: HeadKey,
}

/// Gives records and recordings to a vault; cheap to clone, never waits but in `flush` and `erase`.
#[derive(Clone)]
pub struct VaultHandle {
    shared: Arc<Shared>,
    desks: Arc<[Desk]>,
    next_desk: Arc<AtomicUsize>,
    keys: Keys,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("head_key", &self.head_key).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for VaultHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VaultHandle").field("healthy", &self.healthy()).finish_non_exhaustive()
    }
}

impl Vault {
    /// Opens (or makes) a vault, closes what an earlier run left open, and starts its threads.
    /// `on_event` is called from them. Waits for the disk; may be called from anywhere.
    pub fn open(
        config: VaultConfig,
        clock: impl Clock + Send + Sync + 'static,
        on_event: Box<dyn Fn(Event) + Send + Sync>,
    ) -> Result<Self, OpenError> {
        let database = database_path(&config.data);
        let is_new = !database.exists();
        make_folder(&config.data)?;
        let lock = take_lock(&config.data)?;
        // A vault that exists was sealed with a key file that exists.
        let kms = if is_new {
            LocalKms::open_or_create(&config.key_file, &config.data)?
        } else {
            LocalKms::open(&config.key_file, &config.data)?
        };
        let head_key = kms.head_key();
        let objects = Arc::new(Objects::open(&config.data)?);
        let shared = Arc::new(Shared::new(Box::new(clock), on_event));

        let (send, receive) = mpsc::sync_channel(1);
        let (writer_shared, writer_objects) = (shared.clone(), objects.clone());
        let writer = spawn("vault-writer", move || {
            let opened = open_writer(&config, kms, writer_shared, writer_objects, lock);
            match opened {
                Ok((writer, lock)) => {
                    // The opener waits for this; were it gone, so would be the handle.
                    let _ = send.send(Ok(writer.keys.clone()));
                    let shared = writer.shared.clone();
                    // A panic must show as an unhealthy vault, not as one that never flushes.
                    let _ = catch_unwind(AssertUnwindSafe(|| writer.run()));
                    shared.writer_ends();
                    drop(lock);
                }
                Err(error) => {
                    let _ = send.send(Err(error));
                }
            }
        })?;
        let stopped = |_| OpenError::Thread(io::Error::other("it stopped"));
        let keys = receive.recv().map_err(stopped)??;

        let count = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
        let desks: Arc<[Desk]> =
            (0..count.clamp(1, RECORDERS_MAX)).map(|_| Desk::default()).collect();
        let handle = VaultHandle { shared, desks, next_desk: Arc::default(), keys };
        let mut vault = Self { handle, writer: Some(writer), recorders: Vec::new(), head_key };
        for index in 0..vault.handle.desks.len() {
            let (desks, shared) = (vault.handle.desks.clone(), vault.handle.shared.clone());
            let objects = objects.clone();
            shared.recorder_starts();
            vault.recorders.push(spawn(&format!("vault-recorder-{index}"), move || {
                recorder::run(&desks[index], &objects, &shared);
                shared.recorder_ends();
            })?);
        }
        Ok(vault)
    }

    /// A handle for whoever has something to keep.
    #[must_use]
    pub fn handle(&self) -> VaultHandle {
        self.handle.clone()
    }

    /// The public key of the audit heads, for whoever verifies them elsewhere.
    #[must_use]
    pub const fn head_key(&self) -> HeadKey {
        self.head_key
    }

    /// Ends what is being recorded (marked unfinished where nobody finished it), writes everything,
    /// signs the last head and stops. Waits for all of it.
    pub fn close(mut self) {
        self.handle.desks.iter().for_each(Desk::stop);
        for recorder in self.recorders.drain(..) {
            let _ = recorder.join();
        }
        self.handle.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        // The last recorder to end closes the queue, and that ends the writer.
        self.handle.desks.iter().for_each(Desk::stop);
        if self.recorders.is_empty() {
            self.handle.shared.queue.close();
        }
    }
}

impl VaultHandle {
    /// Takes a record to be kept. Never waits; the record is in memory until [`Self::flush`].
    pub fn submit(&self, record: Record) -> Result<(), SubmitError> {
        if record.text_bytes() > limit::VAULT_RECORD_BYTES.get() {
            return Err(SubmitError::TooLarge);
        }
        let op = Op::Record(record, self.shared.clock.wall());
        self.shared.queue.push(op).map(drop).map_err(|_| {
            self.shared.record_lost();
            SubmitError::Full
        })
    }

    /// Returns once everything that was submitted before is on the disk.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let until = self.shared.queue.hurry();
        let mut progress = self.shared.progress.subscribe();
        let seen = progress.wait_for(|seen| seen.done >= until || seen.stopped).await;
        if seen.is_ok_and(|seen| seen.done >= until) { Ok(()) } else { Err(FlushError) }
    }

    /// Begins a recording of `call`; its position 0 is now.
    pub fn record(&self, call: CallId) -> Result<RecordingWriter, RecordError> {
        if !self.healthy() {
            self.shared.recording_lost();
            return Err(RecordError::Unhealthy);
        }
        let id = RecordingId::random().map_err(|_| RecordError::Random)?;
        let track = Arc::new(Track::new(id, call));
        let op = Op::RecordingOpened { track: track.clone(), started: self.shared.clock.wall() };
        self.shared.queue.push(op).map_err(|_| RecordError::Full)?;
        let index = self.next_desk.fetch_add(1, Ordering::Relaxed) % self.desks.len().max(1);
        if let Some(desk) = self.desks.get(index) {
            desk.add(track.clone());
        }
        Ok(RecordingWriter::new(track))
    }

    /// Who may come in: API keys, accounts and browser tokens.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys.clone()
    }

    /// Whether the vault can write. While it cannot, refuse calls that must be kept
    /// (`Reason::VaultUnavailable`).
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.shared.is_well()
    }

    /// Erases a call: its key, and with it its numbers, transcript, ladder, sealed audit details
    /// and recordings, in every backup of the object store too (backups of the database until they
    /// are gone themselves). Its times, trunk and reason stay. The audit log says that `actor` did
    /// it, see [`crate::AuditEntry::actor`].
    pub async fn erase(&self, call: CallId, actor: String) -> Result<Erasure, EraseError> {
        let (done, erased) = oneshot::channel();
        self.shared.queue.push(Op::Erase { call, actor, done }).map_err(|_| EraseError::Full)?;
        erased.await.unwrap_or(Err(EraseError::Full))
    }
}

fn make_folder(path: &Path) -> Result<(), OpenError> {
    files::own_folder(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

fn take_lock(data: &Path) -> Result<File, OpenError> {
    let path = data.join("vault.lock");
    match files::lock(&path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(OpenError::InUse(data.to_owned())),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(OpenError::Thread)
}

/// Opens the database on the writer's thread, which owns it from here on.
fn open_writer(
    config: &VaultConfig,
    kms: LocalKms,
    shared: Arc<Shared>,
    objects: Arc<Objects>,
    lock: File,
) -> Result<(Writer, File), OpenError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(OpenError::Thread)?;
    let wall = shared.clock.wall();
    let (ledger, edge, signed, keys) = runtime.block_on(async {
        let mut connection = store::open(&database_path(&config.data)).await?;
        let mut new_edge = [0; EDGE_BYTES];
        aws_lc_rs::rand::fill(&mut new_edge).map_err(|_| SealError)?;
        let edge = store::write::edge_or_insert(&mut connection, &new_edge).await?;
        let name = config.workspace.as_str();
        let workspace = match store::read::workspace(&mut connection, name).await? {
            Some(wrapped) => Workspace::open(&kms, &config.workspace, &wrapped)?,
            None => {
                let (workspace, wrapped) = Workspace::create(&kms, &config.workspace)?;
                store::write::insert_workspace(&mut connection, name, &wrapped).await?;
                workspace
            }
        };
        let start = ChainTip { seq: 0, hash: genesis(&edge) };
        let chain = store::write::chain_tip(&mut connection).await?.unwrap_or(start);
        let (held, damaged) = access::load(&mut connection, &workspace).await?;
        let keys = Keys::new(shared.clone(), &workspace, held);
        let database = Database::new(database_path(&config.data), connection);
        let mut ledger = Ledger::new(database, objects.clone(), workspace, edge.clone(), chain);
        let (calls, recordings) = ledger.recover(wall).await?;
        let details = format!("calls_lost={calls} recordings_closed={recordings}");
        ledger.audit(own_entry("vault.opened", None, details), wall).await?;
        if damaged > 0 {
            // Whoever they were for comes in no more; the others do.
            shared.tell(Event::VaultFailed { what: "access" });
            ledger
                .audit(own_entry("access.damaged", None, format!("rows={damaged}")), wall)
                .await?;
        }
        Ok::<_, OpenError>((ledger, edge, chain.seq, keys))
    })?;
    let heads_path = || config.audit_heads.clone();
    let file = HeadFile::open(&config.audit_heads, hex::encode(&edge))
        .map_err(|source| OpenError::Io { path: heads_path(), source })?;
    let heads =
        Heads { file, kms: Box::new(kms), signed, waiting_since: None, not_before: Instant::ZERO };
    let (sweeper, chores) = (Sweeper::new(config.retention), Chores::default());
    let writer =
        Writer { shared, runtime, ledger, objects, heads, sweeper, chores, keys, gave_up: false };
    Ok((writer, lock))
}
