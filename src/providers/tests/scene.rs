//! What the tests share: the helper, a sink, ways through a codec.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent::provider::{
    Grammar, Listening, Phrase, ProviderEvent, ProviderSink, Transcriber, UtteranceId,
};
use base::{CallId, Event, SeededRandom};
use providers::{EmbeddedSpeech, EmbeddedSpeechConfig};

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The helper of the same build as this test; made where it is missing or older than its source.
pub(crate) fn helper() -> PathBuf {
    static HELPER: OnceLock<PathBuf> = OnceLock::new();
    HELPER
        .get_or_init(|| {
            let test = std::env::current_exe().unwrap();
            let folder = test.parent().and_then(Path::parent).unwrap().to_owned();
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--package", "callgate-speech", "--target-dir"]);
            build.arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "callgate-speech does not build");
            folder.join("callgate-speech")
        })
        .clone()
}

/// Embedded speech with so many processes; its events go to the receiver.
pub(crate) fn start(processes: usize) -> (EmbeddedSpeech, Receiver<Event>) {
    let (sender, events) = sync_channel(64);
    let on_event = Box::new(move |event| {
        let _ = sender.try_send(event);
    });
    let config = EmbeddedSpeechConfig { helper: Some(helper()), processes };
    (EmbeddedSpeech::start(config, on_event).unwrap(), events)
}

/// A call's end of the providers.
pub(crate) struct Caller {
    pub(crate) call: CallId,
    pub(crate) sink: Arc<Sink>,
    answers: Receiver<ProviderEvent>,
}

pub(crate) struct Sink(SyncSender<ProviderEvent>);

impl ProviderSink for Sink {
    fn deliver(&self, _: CallId, event: ProviderEvent) {
        self.0.try_send(event).unwrap();
    }
}

impl Caller {
    pub(crate) fn new(seed: u64) -> Self {
        let (sender, answers) = sync_channel(100_000);
        let call = CallId::random(&mut SeededRandom::new(seed));
        Self { call, sink: Arc::new(Sink(sender)), answers }
    }

    pub(crate) fn answer(&self) -> ProviderEvent {
        self.answers.recv_timeout(PATIENCE).expect("an answer within a minute")
    }

    /// The next answer that is no `Partial`.
    pub(crate) fn outcome(&self) -> ProviderEvent {
        loop {
            match self.answer() {
                ProviderEvent::Partial { .. } => {}
                outcome => return outcome,
            }
        }
    }

    pub(crate) fn has_no_more(&self) -> bool {
        self.answers.try_recv().is_err()
    }

    pub(crate) fn open(&self, speech: &EmbeddedSpeech, words: &[&str]) -> Box<dyn Listening> {
        let mut listening = speech.open(self.call, self.sink.clone()).unwrap();
        listening.grammar(grammar(words));
        listening
    }

    /// Says one utterance; what was heard, if anything.
    pub(crate) fn say(&self, listening: &mut dyn Listening, line: &Line) -> Option<String> {
        listening.begin(UtteranceId(1));
        line.samples.chunks(320).for_each(|frame| listening.audio(frame, line.is_narrowband));
        listening.end();
        match self.outcome() {
            ProviderEvent::Heard { utterance: UtteranceId(1), text, confidence } => {
                assert!((0.0..=1.0).contains(&confidence));
                Some(text.into_inner())
            }
            ProviderEvent::NothingHeard { utterance: UtteranceId(1) } => None,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn grammar(words: &[&str]) -> Arc<Grammar> {
    let phrase = |words: &&str| Phrase { words: (*words).to_owned(), meaning: String::new() };
    Arc::new(Grammar { phrases: words.iter().map(phrase).collect() })
}

/// Audio as the relay would tap it: 16 kHz.
pub(crate) struct Line {
    pub(crate) samples: Vec<i16>,
    pub(crate) is_narrowband: bool,
}

/// A codec that a call may come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    MuLaw,
    ALaw,
    G722,
}

impl Through {
    pub(crate) const ALL: [Self; 3] = [Self::MuLaw, Self::ALaw, Self::G722];

    /// What is left of 16 kHz audio behind the codec.
    pub(crate) fn carry(self, samples: &[i16]) -> Line {
        let law = match self {
            Self::MuLaw => audio::g711::Law::Mu,
            Self::ALaw => audio::g711::Law::A,
            Self::G722 => {
                let mut payload = vec![0; samples.len() / 2];
                let even = &samples[..samples.len() & !1];
                audio::g722::Encoder::default().encode(even, &mut payload).unwrap();
                return g722(&payload);
            }
        };
        let narrow = resample(samples, audio::SampleRate::Hz16000, audio::SampleRate::Hz8000);
        g711(law, &narrow)
    }
}

/// 8 kHz audio through G.711.
pub(crate) fn g711(law: audio::g711::Law, samples: &[i16]) -> Line {
    let (mut payload, mut decoded) = (vec![0; samples.len()], vec![0; samples.len()]);
    law.encode(samples, &mut payload);
    law.decode(&payload, &mut decoded);
    let samples = resample(&decoded, audio::SampleRate::Hz8000, audio::SampleRate::Hz16000);
    Line { samples, is_narrowband: true }
}

pub(crate) fn g722(payload: &[u8]) -> Line {
    let mut samples = vec![0; payload.len() * 2];
    audio::g722::Decoder::default().decode(payload, &mut samples).unwrap();
    Line { samples, is_narrowband: false }
}

fn resample(samples: &[i16], from: audio::SampleRate, to: audio::SampleRate) -> Vec<i16> {
    let mut resampler = audio::Resampler::new(from, to);
    let mut out = vec![0; resampler.output_len(samples.len())];
    let count = resampler.process(samples, &mut out).unwrap();
    out.truncate(count);
    out
}
