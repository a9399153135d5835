//! The recorder's thread: every tick it takes what came in for each of its recordings, encodes,
//! seals and appends it. No lock is held while it works, and nobody waits for it.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use base::Event;

use super::encode::{EncodeError, OggOpus};
use super::mix::Timeline;
use super::part::PartFile;
use super::{Ended, Track};
use crate::object::Objects;
use crate::queue::Op;
use crate::seal::{SealError, StreamSealer};
use crate::shared::Shared;

/// How often inboxes are emptied.
const TICK: Duration = Duration::from_millis(100);
/// How often files are synced, so that a power cut takes little more than this.
const SYNC: Duration = Duration::from_secs(1);
/// Up to this many files are synced one by one; beyond, their file system at once.
const SYNC_EACH_MAX: usize = 8;
/// Frames of one recording in one tick (a minute), so that a leap does not starve the others.
const FRAMES_PER_TICK: usize = 3_000;
/// Pages (40 s) kept while the database has not yet taken the recording's row and key.
const WAITING_PAGES_MAX: usize = 200;
/// After how many chunks (8 s) the database is told how many there are, which is what tells a
/// truncated file from an unfinished one.
const NOTE_CHUNKS: u64 = 40;

#[derive(Default)]
struct Incoming {
    tracks: Vec<Arc<Track>>,
    stop: bool,
}

/// Where recordings are given to a recorder's thread.
#[derive(Default)]
pub(crate) struct Desk {
    incoming: Mutex<Incoming>,
    wake: Condvar,
}

impl Desk {
    /// Gives a recording to the thread.
    pub(crate) fn add(&self, track: Arc<Track>) {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner).tracks.push(track);
    }

    /// Asks the thread to end what it has and to stop.
    pub(crate) fn stop(&self) {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.wake.notify_all();
    }

    /// Waits one tick (less when stopping); gives what came in.
    fn take(&self) -> (Vec<Arc<Track>>, bool) {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        if !incoming.stop {
            let waited = self.wake.wait_timeout(incoming, TICK);
            incoming = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        (std::mem::take(&mut incoming.tracks), incoming.stop)
    }
}

/// Runs until stopped.
pub(crate) fn run(desk: &Desk, objects: &Objects, shared: &Shared) {
    let mut reels: Vec<Reel> = Vec::new();
    let mut synced = shared.clock.now();
    loop {
        let (tracks, stop) = desk.take();
        for track in tracks {
            match Reel::new(track.clone()) {
                Ok(reel) => reels.push(reel),
                Err(_) => abandon(&track, shared),
            }
        }
        reels.retain_mut(|reel| {
            // A panic ends one recording, never the others.
            let turned = catch_unwind(AssertUnwindSafe(|| reel.turn(objects, shared, stop)));
            turned.unwrap_or_else(|_| {
                abandon(&reel.track, shared);
                false
            })
        });
        let now = shared.clock.now();
        if now.since(synced) >= SYNC {
            synced = now;
            sync(&mut reels, objects, shared);
        }
        if stop {
            if reels.is_empty() {
                return;
            }
            // What is left waits for the writer's thread.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn abandon(track: &Track, shared: &Shared) {
    track.fail();
    shared.recorder_failed();
}

fn sync(reels: &mut [Reel], objects: &Objects, shared: &Shared) {
    let dirty = reels.iter().filter(|reel| reel.is_dirty()).count();
    if dirty > SYNC_EACH_MAX && objects.sync_everything().is_ok() {
        reels.iter_mut().filter_map(Reel::file).for_each(PartFile::synced);
        return;
    }
    for reel in reels.iter_mut().filter(|reel| reel.is_dirty()) {
        if reel.file().is_some_and(|file| file.sync().is_err()) {
            reel.fail(shared);
        }
    }
}

/// Why a recording stopped.
#[derive(Debug, thiserror::Error)]
enum ReelError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the database did not take the recording in time")]
    NotOpened,
}

enum State {
    /// Waiting for the row and the key.
    Waiting,
    /// Writing.
    Writing { file: PartFile, sealer: StreamSealer, noted: u64 },
    /// Ended; the database is still to be told.
    Telling(Op),
}

/// One recording on the recorder's thread.
struct Reel {
    track: Arc<Track>,
    timeline: Timeline,
    encoder: OggOpus,
    /// Pages not yet written.
    pages: VecDeque<Vec<u8>>,
    state: State,
}

impl Reel {
    fn new(track: Arc<Track>) -> Result<Self, EncodeError> {
        let [a, b, c, d, ..] = *track.id.as_bytes();
        let encoder = OggOpus::new(u32::from_le_bytes([a, b, c, d]))?;
        let timeline = Timeline::default();
        Ok(Self { track, timeline, encoder, pages: VecDeque::new(), state: State::Waiting })
    }

    fn file(&mut self) -> Option<&mut PartFile> {
        match &mut self.state {
            State::Writing { file, .. } => Some(file),
            State::Waiting | State::Telling(_) => None,
        }
    }

    fn is_dirty(&self) -> bool {
        matches!(&self.state, State::Writing { file, .. } if file.is_dirty())
    }

    /// One tick's work; whether there will be more.
    fn turn(&mut self, objects: &Objects, shared: &Shared, stop: bool) -> bool {
        if !matches!(self.state, State::Telling(_)) && self.work(objects, shared, stop).is_err() {
            self.fail(shared);
        }
        // Without a database there is nobody to wait for; the next start closes the file.
        let is_hopeless = stop && !shared.is_database_well();
        let done = match std::mem::replace(&mut self.state, State::Waiting) {
            State::Telling(op) => match shared.queue.push(op) {
                Ok(_) => true,
                Err(op) => {
                    self.state = State::Telling(op);
                    is_hopeless
                }
            },
            other => {
                self.state = other;
                is_hopeless && matches!(self.state, State::Waiting)
            }
        };
        !done
    }

    fn fail(&mut self, shared: &Shared) {
        abandon(&self.track, shared);
        self.state = State::Telling(Op::RecordingLeft { id: self.track.id });
    }

    fn work(&mut self, objects: &Objects, shared: &Shared, stop: bool) -> Result<(), ReelError> {
        // Before the inbox: what was pushed before the end is in it then.
        let ended = match self.track.ended() {
            Ended::Not if stop => Ended::Abandoned,
            ended => ended,
        };
        let is_through = self.encode(ended != Ended::Not)?;
        if matches!(self.state, State::Waiting) {
            self.open(objects)?;
        }
        self.write(shared)?;
        if ended == Ended::Not || !is_through {
            return Ok(());
        }
        let State::Writing { file, sealer, .. } = &mut self.state else { return Ok(()) };
        let duration_ms = self.encoder.duration_ms();
        self.encoder.finish()?;
        let is_complete = ended == Ended::Finished;
        file.append(&sealer.chunk(is_complete, &mut self.encoder.take())?)?;
        file.sync()?;
        let (id, call, chunks) = (self.track.id, self.track.call, sealer.chunks());
        self.state = State::Telling(if is_complete {
            objects.adopt(id)?;
            Op::RecordingComplete { id, call, chunks, duration_ms, wall: shared.clock.wall() }
        } else {
            // Without a final chunk: the writer's thread closes it as unfinished.
            Op::RecordingLeft { id }
        });
        Ok(())
    }

    /// Encodes what is due; whether everything is encoded.
    fn encode(&mut self, ended: bool) -> Result<bool, ReelError> {
        let (pieces, masks) = self.track.drain();
        self.timeline.set_masks(masks);
        for piece in pieces {
            self.timeline.add(piece);
        }
        for _ in 0..FRAMES_PER_TICK {
            let Some(frame) = self.timeline.next_frame(ended) else { return Ok(true) };
            if self.encoder.frame(&frame)? {
                self.pages.push_back(self.encoder.take());
            }
        }
        Ok(false)
    }

    fn open(&mut self, objects: &Objects) -> Result<(), ReelError> {
        let Some(opened) = self.track.take_opened() else {
            return if self.pages.len() > WAITING_PAGES_MAX {
                Err(ReelError::NotOpened)
            } else {
                Ok(())
            };
        };
        let file = PartFile::create(&objects.part(self.track.id), &opened.header.to_bytes()?)?;
        objects.sync_folder()?;
        self.state = State::Writing { file, sealer: opened.sealer, noted: 0 };
        Ok(())
    }

    fn write(&mut self, shared: &Shared) -> Result<(), ReelError> {
        let State::Writing { file, sealer, noted } = &mut self.state else { return Ok(()) };
        while let Some(mut page) = self.pages.pop_front() {
            file.append(&sealer.chunk(false, &mut page)?)?;
        }
        let chunks = sealer.chunks();
        if chunks >= *noted + NOTE_CHUNKS {
            // Only what surely is on the disk may be noted.
            file.sync()?;
            let duration_ms = self.encoder.duration_ms();
            let op = Op::RecordingNoted { id: self.track.id, chunks, duration_ms };
            if shared.queue.push(op).is_ok() {
                *noted = chunks;
            }
        }
        Ok(())
    }
}

/// What telemetry hears when a recording fails.
pub(crate) const FAILED: Event = Event::VaultFailed { what: "recording" };

/// The longest time that audio stays in memory only: waiting for the slower channel, filling a
/// page, waiting for the tick (and one frame).
const UNWRITTEN_MAX_MS: u64 = (super::mix::HOLD_BACK + super::mix::FRAME) / 16
    + super::encode::PAGE * 20
    + TICK.as_millis() as u64;

// A `kill -9` takes at most a second (issue 2), with room for a busy machine.
const _: () = assert!(UNWRITTEN_MAX_MS <= 600);
