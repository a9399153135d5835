//! One speech process and the thread that keeps it: starts it, feeds it, kills it where it hangs,
//! starts another where it dies. A second thread reads its answers for as long as it lives.

use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use agent::provider::Role;
use base::{Event, limit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use speech::protocol::{Answer, FrameReader};

use crate::cache::SpeechCache;
use crate::embedded::OnEvent;
use crate::pending::{Delivery, Hung, Pending};

/// Why embedded speech does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The helper cannot be run.
    #[error("{}: {error}", path.display())]
    NoProgram {
        /// The helper's path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The helper ended or hung before it was ready.
    #[error(
        "{} does not start: is the package pocketsphinx-en-us installed? (exit code {})",
        path.display(),
        code.map_or_else(|| "none".to_owned(), |code| code.to_string())
    )]
    NotReady {
        /// The helper's path.
        path: PathBuf,
        /// Its exit code: 10 no sandbox, 11 no model.
        code: Option<i32>,
    },
    /// No thread, or not the way to this program.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// What the threads of all processes and the calls share.
pub(crate) struct Shared {
    pub(crate) cache: Mutex<SpeechCache>,
    pub(crate) on_event: OnEvent,
}

/// What one process and its users share.
pub(crate) struct Desk {
    pending: Mutex<Pending>,
    pub(crate) shared: Arc<Shared>,
}

impl Desk {
    /// The book; a panic while it was held changed single entries at most.
    pub(crate) fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails what was not answered in time.
    fn expire(&self) -> Result<(), Hung> {
        let expired = self.pending().expire(Instant::now())?;
        expired.into_iter().for_each(Delivery::deliver);
        Ok(())
    }

    pub(crate) fn queue_is_full(&self) {
        (self.shared.on_event)(Event::QueueFull { queue: "speech" });
    }
}

/// A process and its thread; dropping it ends both.
pub(crate) struct Process {
    pub(crate) desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// A process that loads its models.
pub(crate) struct Starting {
    process: Process,
    outcome: Receiver<Result<(), StartError>>,
}

/// How often one looks whether the process hangs or is gone.
const WATCH: Duration = Duration::from_millis(50);
/// Between the end of a process and the start of the next; doubles up to the second.
const BACK_OFF: Duration = Duration::from_millis(100);
const BACK_OFF_MOST: Duration = Duration::from_secs(10);
/// A process that lived this long starts the back-off anew.
const LIVED: Duration = Duration::from_secs(60);

impl Process {
    /// Starts a process.
    pub(crate) fn start(path: &Path, shared: Arc<Shared>) -> Result<Starting, StartError> {
        let (queue, commands) = sync_channel(limit::PROVIDER_QUEUE.get());
        let desk = Arc::new(Desk { pending: Mutex::new(Pending::new(queue)), shared });
        let (started, outcome) = sync_channel(1);
        let keeper = Keeper { path: path.to_owned(), desk: Arc::clone(&desk), commands };
        let thread = thread::Builder::new().name("speech".into());
        let thread = thread.spawn(move || keeper.keep(&started))?;
        Ok(Starting { process: Self { desk, thread: Some(thread) }, outcome })
    }
}

impl Starting {
    /// Waits until the process is ready; where it does not get so, it ends here.
    pub(crate) fn ready(self) -> Result<Process, StartError> {
        self.outcome.recv().map_err(|_| io::Error::from(ErrorKind::BrokenPipe))??;
        Ok(self.process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The thread sees the queue's end, kills the process and joins its reader.
        self.desk.pending().queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

struct Keeper {
    path: PathBuf,
    desk: Arc<Desk>,
    commands: Receiver<Vec<u8>>,
}

/// Why a process is no longer attended to.
#[derive(PartialEq, Eq)]
enum End {
    /// It died, hung or broke the protocol.
    Failed,
    /// It is not wanted any more.
    Unwanted,
}

type Started = SyncSender<Result<(), StartError>>;

impl Keeper {
    fn keep(self, started: &Started) {
        let mut back_off = BACK_OFF;
        let mut started = Some(started);
        loop {
            let since = Instant::now();
            let end = match Running::spawn(&self.path, &self.desk) {
                Ok(running) => self.attend(running, &mut started),
                Err(error) => {
                    let path = self.path.clone();
                    if let Some(started) = started.take() {
                        let _ = started.try_send(Err(StartError::NoProgram { path, error }));
                        return;
                    }
                    End::Failed
                }
            };
            if end == End::Unwanted || started.is_some() {
                return;
            }
            for role in [Role::Transcriber, Role::Speaker] {
                (self.desk.shared.on_event)(Event::ProviderFailed { provider: role.word() });
            }
            back_off = if since.elapsed() > LIVED { BACK_OFF } else { back_off };
            // Nobody queues while there is no process, so what wakes us is the queue's end.
            if let Err(RecvTimeoutError::Disconnected) = self.commands.recv_timeout(back_off) {
                return;
            }
            back_off = (back_off * 2).min(BACK_OFF_MOST);
        }
    }

    /// Feeds a process until it ends; everything in its hands has failed then.
    fn attend(&self, mut running: Running, started: &mut Option<&Started>) -> End {
        let end = self.feed(&mut running, started);
        let code = running.finish();
        let failed = {
            let mut pending = self.desk.pending();
            // Under the lock, so that nothing new is queued between the two.
            let failed = pending.fail();
            self.commands.try_iter().for_each(drop);
            failed
        };
        failed.into_iter().for_each(Delivery::deliver);
        if let Some(started) = started {
            let error = StartError::NotReady { path: self.path.clone(), code };
            let _ = started.try_send(Err(error));
        }
        end
    }

    fn feed(&self, running: &mut Running, started: &mut Option<&Started>) -> End {
        let ready_until = Instant::now() + limit::PROVIDER_REPLY_MS.millis();
        let mut frames = Vec::new();
        loop {
            match self.commands.recv_timeout(WATCH) {
                Ok(frame) => {
                    frames.clear();
                    frames.extend(frame);
                    while frames.len() < limit::PROVIDER_FRAME_BYTES.get()
                        && let Ok(frame) = self.commands.try_recv()
                    {
                        frames.extend(frame);
                    }
                    if running.write(&frames, &self.desk).is_err() {
                        return End::Failed;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return End::Unwanted,
            }
            if running.is_gone.load(Ordering::Acquire) {
                return End::Failed;
            }
            let is_ready = self.desk.pending().is_ready;
            if self.desk.expire().is_err() || !is_ready && Instant::now() > ready_until {
                return End::Failed;
            }
            if is_ready && let Some(started) = started.take() {
                let _ = started.try_send(Ok(()));
            }
        }
    }
}

/// A process that was started, with the thread that reads its answers.
struct Running {
    child: Child,
    input: ChildStdin,
    reader: Option<JoinHandle<()>>,
    /// Its answers have ended.
    is_gone: Arc<AtomicBool>,
}

impl Running {
    fn spawn(path: &Path, desk: &Arc<Desk>) -> io::Result<Self> {
        // Nothing of ours but the three streams, of which the third could hold words.
        let mut command = Command::new(path);
        command.env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::from(ErrorKind::BrokenPipe));
        };
        let is_gone = Arc::new(AtomicBool::new(false));
        let mut running = Self { child, input, reader: None, is_gone: Arc::clone(&is_gone) };
        // A process that hangs must not hang us.
        rustix::io::ioctl_fionbio(&running.input, true)?;
        let desk = Arc::clone(desk);
        let reader = thread::Builder::new().name("speech-answers".into());
        running.reader = Some(reader.spawn(move || {
            read(output, &desk);
            is_gone.store(true, Ordering::Release);
        })?);
        Ok(running)
    }

    /// Writes all of `bytes`, unless the process hangs or is gone.
    fn write(&mut self, mut bytes: &[u8], desk: &Desk) -> io::Result<()> {
        let until = Instant::now() + limit::PROVIDER_REPLY_MS.millis();
        while !bytes.is_empty() {
            match self.input.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.is_gone.load(Ordering::Acquire)
                        || Instant::now() > until
                        || desk.expire().is_err()
                    {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    let wait = Timespec { tv_sec: 0, tv_nsec: WATCH.as_nanos() as _ };
                    poll(&mut [PollFd::new(&self.input, PollFlags::OUT)], Some(&wait))?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the process and its reader; its exit code, if it ended by itself.
    fn finish(&mut self) -> Option<i32> {
        if !self.is_gone.load(Ordering::Acquire) {
            let _ = self.child.kill();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.child.wait().ok().and_then(|status| status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only where starting it failed half-way is there still something to end.
        if self.reader.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads answers until they end or are none.
fn read(mut output: ChildStdout, desk: &Desk) {
    let mut reader = FrameReader::default();
    let mut bytes = vec![0; limit::PROVIDER_FRAME_BYTES.get()];
    loop {
        match output.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => reader.push(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
        loop {
            match reader.message::<Answer>() {
                Ok(Some(answer)) => on_answer(answer, desk),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn on_answer(answer: Answer, desk: &Desk) {
    let until = Instant::now() + limit::PROVIDER_REPLY_MS.millis();
    let (delivery, made) = desk.pending().answer(answer, until);
    // Kept before its last piece is delivered, so that who has heard it finds it.
    if let Some(made) = made {
        let mut cache = desk.shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.keep(made.voice, made.text, made.samples);
    }
    if let Some(delivery) = delivery {
        delivery.deliver();
    }
}
