//! The ear: one thread that takes the tapped frames of every call to its transcriber and its
//! recorder. It wakes each 10 ms while there is somebody to listen to, so that relay workers never
//! wake anybody; audio stays in memory, and a ring that overflows loses frames of its own call
//! only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use agent::provider::{Grammar, Listening, UtteranceId};
use base::{CallId, Clock, Instant};
use media::{Channel, FRAME_SAMPLES, TapFrame};
use rtrb::Consumer;
use vault::RecordingWriter;

use crate::clock::OsClock;

/// What an ear is told about one call.
#[derive(Debug)]
pub enum EarCommand {
    /// What may be heard from the next utterance on.
    Grammar(Arc<Grammar>),
    /// The caller speaks since `position`.
    Begin {
        /// Under this id.
        utterance: UtteranceId,
        /// Samples since the media began.
        position: u64,
    },
    /// The utterance is over.
    End,
    /// It is of no interest.
    Cancel,
    /// The call is over.
    Close,
    /// The recording of its bridged legs is over.
    CloseTape,
}

/// What an ear listens to and with.
pub struct Opened {
    /// The tapped frames.
    pub frames: Consumer<TapFrame>,
    /// The transcriber, where one could be had.
    pub listening: Option<Box<dyn Listening>>,
    /// The recording, where one is wanted.
    pub recording: Option<RecordingWriter>,
}

/// A recording of two legs that talk with each other.
pub struct Tape {
    /// The caller, and the callee.
    pub voices: [relay::listen::Listener; 2],
    /// Where it goes.
    pub recording: RecordingWriter,
}

enum Message {
    Open(CallId, Box<Opened>),
    Tape(CallId, Box<Tape>),
    Tell(CallId, EarCommand),
}

/// The thread; ends when the last handle is dropped.
pub struct Ear {
    handle: EarHandle,
    thread: JoinHandle<()>,
}

/// Tells the ear. Never waits.
#[derive(Clone)]
pub struct EarHandle(SyncSender<Message>);

/// Commands that may wait: a few for each call that begins or speaks within one wake.
const COMMANDS: usize = 4_096;
const WAKE: Duration = Duration::from_millis(10);
/// How long it sleeps where there is nobody to listen to; a command ends that.
const IDLE: Duration = Duration::from_secs(1);
/// How long recordings of bridged legs may take at each wake.
const TAPES_TIME: Duration = Duration::from_millis(8);
/// Audio before the voice detector's onset that the transcriber gets: soft first sounds.
const PRE_ROLL: u64 = 16 * 240;
/// Frames kept for it: the onset is told up to a second late.
const KEPT: usize = 64;

impl Ear {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn start() -> std::io::Result<Self> {
        let (sender, commands) = sync_channel(COMMANDS);
        let thread = std::thread::Builder::new().name("ear".into()).spawn(move || {
            Room::default().run(&commands);
        })?;
        Ok(Self { handle: EarHandle(sender), thread })
    }

    /// A handle.
    #[must_use]
    pub fn handle(&self) -> EarHandle {
        self.handle.clone()
    }

    /// Ends the thread once every other handle is gone.
    pub fn close(self) {
        drop(self.handle);
        // A thread that panicked has ended all the same.
        let _ = self.thread.join();
    }
}

impl EarHandle {
    /// Begins to listen; `false` where the ear is overrun.
    #[must_use]
    pub fn open(&self, call: CallId, opened: Opened) -> bool {
        self.0.try_send(Message::Open(call, Box::new(opened))).is_ok()
    }

    /// Begins to record two legs; `false` where the ear is overrun.
    #[must_use]
    pub fn tape(&self, call: CallId, tape: Tape) -> bool {
        self.0.try_send(Message::Tape(call, Box::new(tape))).is_ok()
    }

    /// Tells one call's ear; `false` where it is overrun.
    #[must_use]
    pub fn tell(&self, call: CallId, command: EarCommand) -> bool {
        match self.0.try_send(Message::Tell(call, command)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

#[derive(Default)]
struct Room {
    listeners: BTreeMap<CallId, Listener>,
    /// The one that waits longest is the first.
    tapes: VecDeque<(CallId, Box<Tape>)>,
}

struct Listener {
    opened: Opened,
    /// The caller's latest frames.
    kept: VecDeque<TapFrame>,
    /// While an utterance is being heard: the first position that was not yet handed over.
    hearing: Option<u64>,
    /// The position of the first frame: a recording begins there, the leg's media perhaps long
    /// before, when others talked on it.
    origin: Option<u64>,
}

impl Room {
    fn run(mut self, commands: &Receiver<Message>) {
        loop {
            let is_idle = self.listeners.is_empty() && self.tapes.is_empty();
            match commands.recv_timeout(if is_idle { IDLE } else { WAKE }) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            for message in commands.try_iter().take(COMMANDS) {
                self.take(message);
            }
            self.listeners.values_mut().for_each(Listener::hear);
            self.record();
        }
        for (_, mut listener) in self.listeners {
            listener.close();
        }
        for (_, tape) in self.tapes {
            tape.close();
        }
    }

    /// Lets recordings of bridged legs hear, as many as there is time for: voice agents wait for
    /// their words, these lose nothing for a second.
    fn record(&mut self) {
        let began = OsClock.now();
        for _ in 0..self.tapes.len() {
            let now = OsClock.now();
            let Some((call, mut tape)) = self.tapes.pop_front() else { return };
            tape.hear(now);
            self.tapes.push_back((call, tape));
            if now.since(began) >= TAPES_TIME {
                return;
            }
        }
    }

    fn close_tape(&mut self, call: CallId) {
        if let Some(at) = self.tapes.iter().position(|(known, _)| *known == call)
            && let Some((_, tape)) = self.tapes.remove(at)
        {
            tape.close();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Open(call, opened) => {
                let listener = Listener {
                    opened: *opened,
                    kept: VecDeque::with_capacity(KEPT),
                    hearing: None,
                    origin: None,
                };
                self.listeners.insert(call, listener);
            }
            Message::Tape(call, tape) => {
                self.close_tape(call);
                self.tapes.push_back((call, tape));
            }
            Message::Tell(call, EarCommand::Close) => {
                if let Some(mut listener) = self.listeners.remove(&call) {
                    listener.close();
                }
            }
            Message::Tell(call, EarCommand::CloseTape) => {
                self.close_tape(call);
            }
            Message::Tell(call, command) => {
                if let Some(listener) = self.listeners.get_mut(&call) {
                    listener.obey(command);
                }
            }
        }
    }
}

impl Tape {
    /// Records what was said until now.
    fn hear(&mut self, now: Instant) {
        let channels = [vault::Channel::Caller, vault::Channel::Agent];
        for (voice, channel) in self.voices.iter_mut().zip(channels) {
            voice.listen(now, &mut |position, frame| {
                // What the recorder has no room for is a gap, which it counts.
                let _ = self.recording.push(channel, position, frame);
            });
        }
    }

    fn close(mut self) {
        self.hear(OsClock.now());
        self.recording.finish();
    }
}

impl Listener {
    fn obey(&mut self, command: EarCommand) {
        self.hear();
        let Some(listening) = &mut self.opened.listening else { return };
        match command {
            EarCommand::Grammar(grammar) => listening.grammar(grammar),
            EarCommand::Begin { utterance, position } => {
                listening.begin(utterance);
                self.hearing = Some(position.saturating_sub(PRE_ROLL));
                self.hand_over();
            }
            // The words of an utterance that is given up are thrown away by their id.
            EarCommand::End | EarCommand::Cancel => {
                if self.hearing.take().is_some() {
                    listening.end();
                }
            }
            EarCommand::Close | EarCommand::CloseTape => {}
        }
    }

    /// Takes what was tapped since the last wake.
    fn hear(&mut self) {
        while let Ok(frame) = self.opened.frames.pop() {
            if let Some(recording) = &self.opened.recording {
                let origin = *self.origin.get_or_insert(frame.position);
                let channel = match frame.channel {
                    Channel::Caller => vault::Channel::Caller,
                    Channel::Agent => vault::Channel::Agent,
                };
                // What the recorder has no room for is a gap, which it counts.
                let position = frame.position.saturating_sub(origin);
                let _ = recording.push(channel, position, &frame.samples);
            }
            if frame.channel == Channel::Caller {
                if self.kept.len() == KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back(frame);
                self.hand_over();
            }
        }
    }

    /// Gives the transcriber the kept frames that it has not had.
    fn hand_over(&mut self) {
        let (Some(from), Some(listening)) = (self.hearing, &mut self.opened.listening) else {
            return;
        };
        let mut next = from;
        for frame in self.kept.iter().filter(|frame| frame.position >= from) {
            listening.audio(&frame.samples, frame.narrowband);
            next = frame.position + FRAME_SAMPLES as u64;
        }
        self.hearing = Some(next);
    }

    fn close(&mut self) {
        self.hear();
        self.opened.listening = None;
        if let Some(recording) = self.opened.recording.take() {
            recording.finish();
        }
    }
}

#[cfg(test)]
#[path = "ear_tests.rs"]
mod tests;
