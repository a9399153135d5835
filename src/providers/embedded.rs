//! Speech without a network: hears and speaks through `callgate-speech` processes on this
//! machine, which are restarted when they die and killed when they hang.
//!
//! What was spoken once is kept in memory (`provider.cache_bytes`, by voice and text, the longest
//! unused goes first), so a greeting is made for the first caller only.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use agent::provider::{
    Grammar, Listening, ProviderError, ProviderEvent, ProviderSink, Speaker, SpeechId, Transcriber,
    UtteranceId,
};
use base::{CallId, Event, limit};
use speech::protocol::{EarId, Voice};

use crate::cache::SpeechCache;
use crate::process::{Desk, Process, Shared, StartError, Starting};

/// Where events go: `ProviderFailed` when a process dies, `QueueFull` when one is overrun. Called
/// on the provider's threads and on its callers'; must not block.
pub type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

/// How embedded speech is run.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedSpeechConfig {
    /// The helper program; by default `callgate-speech` beside the running program.
    pub helper: Option<PathBuf>,
    /// How many processes, 1 to 64: one for each core that speech may use. Each hears about
    /// twenty callers who speak at once.
    pub processes: usize,
}

/// The embedded transcriber and speaker. Dropping it ends its processes and threads; ears that
/// are still open then fail.
pub struct EmbeddedSpeech {
    processes: Vec<Process>,
    shared: Arc<Shared>,
}

const MOST_PROCESSES: usize = 64;
const PROGRAM: &str = "callgate-speech";

impl EmbeddedSpeech {
    /// Starts the processes and waits until each has loaded its models, about half a second.
    ///
    /// # Errors
    /// Where the program is not there or does not get ready within `provider.reply_ms`.
    pub fn start(config: EmbeddedSpeechConfig, on_event: OnEvent) -> Result<Self, StartError> {
        let path = match config.helper {
            Some(path) => path,
            None => std::env::current_exe()?.with_file_name(PROGRAM),
        };
        let shared = Arc::new(Shared { cache: Mutex::new(SpeechCache::default()), on_event });
        let count = config.processes.clamp(1, MOST_PROCESSES);
        let starting = (0..count).map(|_| Process::start(&path, Arc::clone(&shared)));
        let starting: Vec<_> = starting.collect::<Result<_, _>>()?;
        let processes = starting.into_iter().map(Starting::ready).collect::<Result<_, _>>()?;
        Ok(Self { processes, shared })
    }

    /// The process with the least to do; none where none runs.
    fn idlest(&self, load: impl Fn(&Desk) -> usize) -> Result<&Arc<Desk>, ProviderError> {
        let desks = self.processes.iter().map(|process| &process.desk);
        let ready = desks.filter(|desk| desk.pending().is_ready);
        ready.min_by_key(|desk| load(desk)).ok_or(ProviderError::Unavailable)
    }
}

impl Transcriber for EmbeddedSpeech {
    fn open(
        &self,
        call: CallId,
        sink: Arc<dyn ProviderSink>,
    ) -> Result<Box<dyn Listening>, ProviderError> {
        let desk = self.idlest(|desk| desk.pending().ears())?;
        let mut pending = desk.pending();
        if pending.ears() >= limit::PROVIDER_EARS.get() {
            return Err(ProviderError::Busy);
        }
        let ear = pending.open(call, sink).ok_or(ProviderError::Busy)?;
        Ok(Box::new(EmbeddedListening { desk: Arc::clone(desk), ear }))
    }
}

impl Speaker for EmbeddedSpeech {
    fn speak(
        &self,
        call: CallId,
        speech: SpeechId,
        text: &str,
        voice: &str,
        sink: Arc<dyn ProviderSink>,
    ) -> Result<(), ProviderError> {
        let voice = Voice::named(voice).ok_or(ProviderError::Unsupported)?;
        if text.len() > limit::AGENT_TEXT_BYTES.get() || !text.contains(char::is_alphanumeric) {
            return Err(ProviderError::Unsupported);
        }
        let kept = {
            let mut cache = self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.find(voice, text)
        };
        if let Some(samples) = kept {
            sink.deliver(call, ProviderEvent::Speech { speech, samples, last: true });
            return Ok(());
        }
        let desk = self.idlest(|desk| desk.pending().texts())?;
        let mut pending = desk.pending();
        let is_taken = pending.texts() < limit::PROVIDER_SPEECHES.get()
            && pending.speak((call, speech, sink), (voice, text), reply_until());
        if is_taken { Ok(()) } else { Err(ProviderError::Busy) }
    }
}

fn reply_until() -> Instant {
    Instant::now() + limit::PROVIDER_REPLY_MS.millis()
}

/// An ear on one call. Survives the end of its process: what is begun after the restart is heard.
struct EmbeddedListening {
    desk: Arc<Desk>,
    ear: EarId,
}

impl EmbeddedListening {
    fn report(&self, is_sent: bool) {
        if !is_sent {
            self.desk.queue_is_full();
        }
    }
}

impl Listening for EmbeddedListening {
    fn grammar(&mut self, grammar: Arc<Grammar>) {
        let is_sent = self.desk.pending().grammar(self.ear, grammar);
        self.report(is_sent);
    }

    fn begin(&mut self, utterance: UtteranceId) {
        let is_sent = self.desk.pending().begin(self.ear, utterance);
        self.report(is_sent);
    }

    fn audio(&mut self, samples: &[i16], narrowband: bool) {
        let is_sent = self.desk.pending().audio(self.ear, narrowband, samples);
        self.report(is_sent);
    }

    fn end(&mut self) {
        let failed = self.desk.pending().end(self.ear, reply_until());
        if let Some(failed) = failed {
            failed.deliver();
        }
    }
}

impl Drop for EmbeddedListening {
    fn drop(&mut self) {
        self.desk.pending().close(self.ear);
    }
}
