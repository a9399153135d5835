//! The operator's way into a running edge: a socket in the vault's folder, so that whoever may
//! open the vault may use it, and nobody else. One line of JSON each way.
//!
//! What is asked for goes to the vault that runs; where none does, the vault is opened for an
//! erasure.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::CallId;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use vault::{EraseError, Erasure, OpenError, Retention, Vault, VaultConfig, VaultHandle};

use crate::boot::vault_config;
use crate::clock::OsClock;
use crate::config::Config;
use crate::keys;

const NAME: &str = "control.sock";
/// A request or an answer is below 200 bytes, with a password of many characters that JSON escapes
/// below 2 KB.
const LINE_BYTES: u64 = 4_096;
/// How long one asks; an erasure waits for the vault's queue.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a reader waits for what is still on its way to the disk.
const SETTLING: Duration = Duration::from_secs(2);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Erase this call.
    Erase(String),
    /// Bring to the disk what has happened so far.
    Settle,
    /// Change who may come in.
    Access(keys::Wish),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Settled,
    Erased,
    ErasedBefore,
    Unknown,
    InProgress,
    Failed,
    BadRequest,
}

/// Why a call was not erased.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EraseCallError {
    /// There is no vault.
    #[error("there is no vault in {0}")]
    NoVault(PathBuf),
    /// Nothing is kept of such a call.
    #[error("nothing is kept of such a call")]
    Unknown,
    /// The call or its recording goes on.
    #[error("the call is in progress, or its recording is being finished: wait for its end")]
    InProgress,
    /// The store failed.
    #[error("the store failed; see the edge's log and /health")]
    Failed,
    /// The vault cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The running edge does not answer.
    #[error("the running edge does not answer: {0}")]
    Silent(io::Error),
}

/// Erases a call, by the edge that runs on this vault or, where none does, by opening the vault.
/// The audit log says that the operator did it who runs this process.
///
/// # Errors
/// Why it was not erased.
pub async fn erase(config: &Config, call: CallId) -> Result<Erasure, EraseCallError> {
    let vault = vault_config(config);
    if !vault::database_path(&vault.data).exists() {
        return Err(EraseCallError::NoVault(vault.data));
    }
    let answer = match connect(&vault.data).await {
        Ok(stream) => {
            let request = Request::Erase(call.to_string());
            ask(stream, &request).await.map_err(EraseCallError::Silent)?
        }
        Err(error) if is_alone(&error) => erase_directly(vault, call).await?,
        Err(error) => return Err(EraseCallError::Silent(error)),
    };
    match answer {
        Answer::Erased => Ok(Erasure::Now),
        Answer::ErasedBefore => Ok(Erasure::Before),
        Answer::Unknown => Err(EraseCallError::Unknown),
        Answer::InProgress => Err(EraseCallError::InProgress),
        Answer::Failed | Answer::BadRequest | Answer::Settled => Err(EraseCallError::Failed),
    }
}

/// Lets a running edge bring to the disk what has happened so far, so that who reads its vault
/// sees the call that has just ended. Where no edge runs, or it does not answer in time, what is on
/// the disk is all there is to see.
pub async fn settle(config: &Config) {
    if let Ok(stream) = connect(&vault_config(config).data).await {
        let _ = tokio::time::timeout(SETTLING, ask::<Answer>(stream, &Request::Settle)).await;
    }
}

async fn erase_directly(config: VaultConfig, call: CallId) -> Result<Answer, EraseCallError> {
    let opened = open(config)?;
    let erased = answer_of(opened.handle().erase(call, own_operator()).await);
    // Signs the head over what was done.
    let _ = tokio::task::spawn_blocking(move || opened.close()).await;
    Ok(erased)
}

/// Opens a vault that no edge runs on.
pub(crate) fn open(config: VaultConfig) -> Result<Vault, OpenError> {
    // Sweeping is the edge's business.
    let config = VaultConfig { retention: Retention::default(), ..config };
    Vault::open(config, OsClock, Box::new(|_| {}))
}

/// Who runs this process, as the audit log names him.
pub(crate) fn own_operator() -> String {
    operator(rustix::process::getuid().as_raw(), Some("self".to_owned()))
}

fn answer_of(erased: Result<Erasure, EraseError>) -> Answer {
    match erased {
        Ok(Erasure::Now) => Answer::Erased,
        Ok(Erasure::Before) => Answer::ErasedBefore,
        Err(EraseError::Unknown) => Answer::Unknown,
        Err(EraseError::InProgress) => Answer::InProgress,
        Err(_) => Answer::Failed,
    }
}

/// Opens the socket; to be called by whoever holds the vault in `data`.
pub(crate) fn listen(data: &Path) -> io::Result<UnixListener> {
    let (_folder, path) = short_path(data)?;
    match fs::remove_file(&path) {
        // Of an edge that was here before.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Takes the socket away, for whoever gives the vault up in good order.
pub(crate) fn close(data: &Path) {
    // One that is left behind is told by nobody listening to it.
    let _ = fs::remove_file(data.join(NAME));
}

/// Answers requests, one after the other, until the task is dropped.
pub(crate) async fn serve(listener: UnixListener, vault: VaultHandle) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: a pause lets calls end.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        // Whoever asks may go away before the answer; the erasure is done all the same.
        let _ = tokio::time::timeout(PATIENCE, answer(stream, &vault)).await;
    }
}

async fn answer(mut stream: UnixStream, vault: &VaultHandle) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() != own && peer.uid() != 0 {
        return Ok(());
    }
    let actor = || operator(peer.uid(), peer.pid().map(|pid| pid.to_string()));
    let answer = match receive::<Request>(&mut stream).await {
        Ok(Request::Access(wish)) => {
            let answer = keys::grant(&vault.keys(), wish, actor()).await;
            return send(&mut stream, &answer).await;
        }
        Ok(Request::Erase(call)) => match call.parse() {
            Ok(call) => answer_of(vault.erase(call, actor()).await),
            Err(_) => Answer::BadRequest,
        },
        Ok(Request::Settle) => vault.flush().await.map_or(Answer::Failed, |()| Answer::Settled),
        Err(_) => Answer::BadRequest,
    };
    send(&mut stream, &answer).await
}

pub(crate) async fn connect(data: &Path) -> io::Result<UnixStream> {
    let (_folder, path) = short_path(data)?;
    UnixStream::connect(path).await
}

/// Asks the edge that runs, which answers within a minute or not at all.
pub(crate) async fn ask<T: for<'a> Deserialize<'a>>(
    mut stream: UnixStream,
    request: &Request,
) -> io::Result<T> {
    let asked = async {
        send(&mut stream, request).await?;
        receive(&mut stream).await
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|late| Err(late.into()))
}

/// Whether nobody answers because no edge runs.
pub(crate) fn is_alone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

async fn send(stream: &mut UnixStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn receive<T: for<'a> Deserialize<'a>>(stream: &mut UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES)).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}

/// The socket's path by way of its open folder: a socket's path has 107 bytes at most.
fn short_path(data: &Path) -> io::Result<(File, PathBuf)> {
    let folder = File::open(data)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(NAME);
    Ok((folder, path))
}

/// Who runs process `pid`, as the audit log names him: the user who logged in, where the system
/// knows (it does not change with `sudo`), else the user that the process runs as.
fn operator(uid: u32, pid: Option<String>) -> String {
    const NOBODY: u32 = u32::MAX;
    let login = pid
        .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/loginuid")).ok())
        .and_then(|text| text.trim().parse().ok())
        .filter(|uid| *uid != NOBODY);
    let uid = login.unwrap_or(uid);
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = user_name(&users, uid).map_or_else(|| format!("uid-{uid}"), str::to_owned);
    format!("operator:{name}")
}

fn user_name(users: &str, uid: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
