//! Recordings: stereo, caller left and voice agent right, Ogg Opus, sealed chunk by chunk.
//!
//! ```text
//! RecordingWriter --(inbox)--> mix --> encode --> seal --> data/recordings/ID.part
//!   any thread                 '-------- the recorder's thread --------'
//! ```
//!
//! Audio is in memory only until it is sealed. What a `kill -9` can take is what has not reached
//! the file: the wait for the slower channel ([`mix::HOLD_BACK`]), one page ([`encode::PAGE`])
//! and one tick of the recorder, together well below a second.

pub(crate) mod encode;
pub(crate) mod mix;
pub(crate) mod part;
pub(crate) mod play;
pub(crate) mod recorder;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::id::ParseIdError;
use base::{CallId, limit};
use thiserror::Error;

use crate::seal::{OBJECT_ID_BYTES, SealError, StreamHeader, StreamSealer};

/// Samples per second of each channel.
pub const SAMPLE_RATE: u32 = 16_000;

/// A recording. `Display` is `rec_` and 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordingId([u8; OBJECT_ID_BYTES]);

impl RecordingId {
    /// The id whose bytes these are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; OBJECT_ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// The id as bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; OBJECT_ID_BYTES] {
        &self.0
    }

    pub(crate) fn random() -> Result<Self, SealError> {
        let mut bytes = [0; OBJECT_ID_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SealError)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rec_{}", hex::encode(self.0))
    }
}

impl fmt::Debug for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RecordingId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let mut bytes = [0; OBJECT_ID_BYTES];
        let digits = text.strip_prefix("rec_").ok_or(ParseIdError)?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| ParseIdError)?;
        Ok(Self(bytes))
    }
}

/// How a recording stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordingState {
    /// It goes on.
    Open,
    /// It was finished in good order.
    Complete,
    /// The edge died or its disk failed; it was closed afterwards, and plays up to there.
    Unfinished,
    /// Fewer chunks were found than had been noted as written: somebody or something cut it.
    Truncated,
    /// A chunk in its middle does not open; it plays up to there.
    Damaged,
    /// Its file is gone.
    Missing,
    /// It was erased.
    Erased,
}

impl RecordingState {
    const ALL: [Self; 7] = [
        Self::Open,
        Self::Complete,
        Self::Unfinished,
        Self::Truncated,
        Self::Damaged,
        Self::Missing,
        Self::Erased,
    ];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Unfinished => "unfinished",
            Self::Truncated => "truncated",
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Erased => "erased",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Whose voice it is, which is also the side it is heard on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The caller, left.
    Caller = 0,
    /// The voice agent (or callee), right.
    Agent = 1,
}

/// The recorder did not take the audio: its inbox is full (limit `vault.recording_pending_ms`),
/// the recording has failed, or the position is beyond limit `call.duration_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the recorder did not take the audio")]
pub struct PushError;

/// Audio on its way to the recorder.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) channel: Channel,
    pub(crate) position: u64,
    pub(crate) samples: Vec<i16>,
}

/// A span to be silenced, in samples; `to` is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

#[derive(Debug, Default)]
struct Inbox {
    pieces: Vec<Piece>,
    samples: usize,
    masks: Vec<Mask>,
}

/// What the writer's thread gives the recorder once the recording's row and key are on the disk.
pub(crate) struct Opened {
    pub(crate) header: StreamHeader,
    pub(crate) sealer: StreamSealer,
}

const RUNNING: u8 = 0;
const FINISHED: u8 = 1;
const ABANDONED: u8 = 2;

/// What the two threads of one recording share.
pub(crate) struct Track {
    pub(crate) id: RecordingId,
    pub(crate) call: CallId,
    inbox: Mutex<Inbox>,
    opened: Mutex<Option<Opened>>,
    ended: AtomicU8,
    failed: AtomicBool,
    dropped: AtomicU64,
}

/// How a track's owner let go of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Not yet.
    Not,
    /// In good order.
    Finished,
    /// It was dropped: the call's owner failed.
    Abandoned,
}

impl Track {
    pub(crate) fn new(id: RecordingId, call: CallId) -> Self {
        Self {
            id,
            call,
            inbox: Mutex::default(),
            opened: Mutex::new(None),
            ended: AtomicU8::new(RUNNING),
            failed: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what came in, and the masks as they stand.
    pub(crate) fn drain(&self) -> (Vec<Piece>, Vec<Mask>) {
        let mut inbox = self.inbox();
        inbox.samples = 0;
        (std::mem::take(&mut inbox.pieces), inbox.masks.clone())
    }

    /// The row and the key are on the disk: the recorder may write.
    pub(crate) fn open(&self, opened: Opened) {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
    }

    /// What the recorder needs to write; given once.
    pub(crate) fn take_opened(&self) -> Option<Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn ended(&self) -> Ended {
        match self.ended.load(Ordering::Acquire) {
            RUNNING => Ended::Not,
            FINISHED => Ended::Finished,
            _ => Ended::Abandoned,
        }
    }

    /// No more audio is taken.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

/// Where a call's audio goes. Dropping it without [`finish`](Self::finish) leaves a recording that
/// is marked unfinished.
pub struct RecordingWriter {
    track: Arc<Track>,
}

impl fmt::Debug for RecordingWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordingWriter").field(&self.track.id).finish()
    }
}

impl RecordingWriter {
    pub(crate) const fn new(track: Arc<Track>) -> Self {
        Self { track }
    }

    /// The recording's id.
    #[must_use]
    pub fn id(&self) -> RecordingId {
        self.track.id
    }

    /// Gives 16 kHz mono audio of one channel. `position` is that of its first sample, counted from
    /// the start of the recording on a clock that both channels share: what is missing becomes
    /// silence, what comes twice replaces what came first unless that was already encoded (after
    /// some 200 ms). An empty `samples` says that the channel is silent up to `position`; say so
    /// now and then while a call is on hold.
    ///
    /// Copies and returns; never waits for the disk.
    pub fn push(&self, channel: Channel, position: u64, samples: &[i16]) -> Result<(), PushError> {
        const PER_MS: u64 = (SAMPLE_RATE / 1000) as u64;
        let end = position.checked_add(samples.len() as u64);
        let is_within = end.is_some_and(|end| end <= limit::CALL_DURATION_MS.value * PER_MS);
        let pending_max = (limit::VAULT_RECORDING_PENDING_MS.value * PER_MS * 2) as usize;
        if is_within && !self.track.has_failed() {
            let mut inbox = self.track.inbox();
            // An empty piece costs memory too.
            let cost = samples.len().max(16);
            if inbox.samples + cost <= pending_max {
                inbox.samples += cost;
                inbox.pieces.push(Piece { channel, position, samples: samples.to_vec() });
                return Ok(());
            }
        }
        self.track.dropped.fetch_add(1, Ordering::Relaxed);
        Err(PushError)
    }

    /// Silences both channels from sample `from` up to `to` (`u64::MAX`: until told otherwise), for
    /// whatever is not encoded yet: call it before the first masked sample is pushed. A second
    /// call with the same `from` moves the end.
    pub fn mask(&self, from: u64, to: u64) {
        let mut inbox = self.track.inbox();
        if let Some(mask) = inbox.masks.iter_mut().find(|mask| mask.from == from) {
            mask.to = to;
        } else if inbox.masks.len() < limit::VAULT_MASKS.get() {
            inbox.masks.push(Mask { from, to });
        } else if let Some(last) = inbox.masks.last_mut() {
            // Over the limit everything is masked: silence is lost, a card number is not shown.
            *last = Mask { from: last.from.min(from), to: u64::MAX };
        }
    }

    /// Whether the disk failed: what comes from now on is not kept.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.track.has_failed()
    }

    /// Pieces that were not taken.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.track.dropped.load(Ordering::Relaxed)
    }

    /// Ends the recording after what was pushed.
    pub fn finish(self) {
        self.track.ended.store(FINISHED, Ordering::Release);
    }
}

impl Drop for RecordingWriter {
    fn drop(&mut self) {
        // Fails, as it should, where `finish` came first.
        let _ = self.track.ended.compare_exchange(
            RUNNING,
            ABANDONED,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> (Arc<Track>, RecordingWriter) {
        let track =
            Arc::new(Track::new(RecordingId::from_bytes([7; 16]), CallId::from_bytes([1; 12])));
        (track.clone(), RecordingWriter::new(track))
    }

    #[test]
    fn an_id_survives_the_round_trip() {
        let id = RecordingId::from_bytes([0xa5; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("rec_12".parse::<RecordingId>().is_err());
        for state in RecordingState::ALL {
            assert_eq!(RecordingState::from_word(state.as_str()), Some(state));
        }
    }

    #[test]
    fn a_recorder_that_does_not_drain_costs_bounded_memory() {
        let (track, writer) = writer();
        let frame = [1_i16; 320];
        let taken =
            (0..2_000).filter(|n| writer.push(Channel::Caller, n * 320, &frame).is_ok()).count();
        assert_eq!(taken as u64, limit::VAULT_RECORDING_PENDING_MS.value * 32 / 320);
        assert_eq!(writer.dropped(), 2_000 - taken as u64);
        assert_eq!(track.drain().0.len(), taken);
        assert_eq!(writer.push(Channel::Caller, 0, &frame), Ok(()));
    }

    #[test]
    fn positions_beyond_the_longest_call_are_refused() {
        let (_, writer) = writer();
        let end = limit::CALL_DURATION_MS.value * 16;
        assert_eq!(writer.push(Channel::Agent, end - 1, &[0]), Ok(()));
        assert_eq!(writer.push(Channel::Agent, end, &[0]), Err(PushError));
        assert_eq!(writer.push(Channel::Agent, u64::MAX, &[0]), Err(PushError));
    }

    #[test]
    fn too_many_masks_mask_everything() {
        let (track, writer) = writer();
        for at in 0..=limit::VAULT_MASKS.value {
            writer.mask(at * 100, at * 100 + 10);
        }
        let (_, masks) = track.drain();
        assert_eq!(masks.len(), limit::VAULT_MASKS.get());
        assert_eq!(masks.last().map(|mask| mask.to), Some(u64::MAX));
    }

    #[test]
    fn dropping_a_writer_is_told_from_finishing_it() {
        let (track, kept) = writer();
        assert_eq!(track.ended(), Ended::Not);
        drop(kept);
        assert_eq!(track.ended(), Ended::Abandoned);
        let (track, kept) = writer();
        kept.finish();
        assert_eq!(track.ended(), Ended::Finished);
    }
}
