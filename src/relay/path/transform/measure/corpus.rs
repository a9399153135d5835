//! Voices to measure with: four of flite's, and the human one of Debian's
//! `asterisk-core-sounds-en-wav` and `-g722` (CC-BY-SA-3.0, Allison Smith).
//! `deploy/setup.sh test` installs them; nothing of them is kept here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use audio::{Resampler, SampleRate};

/// What flite says; half of it begins with a sound that a telephone hardly carries.
const WORDS: &str = "five/four/seven/six/three/thank you/help me/hello/she said no/ship it/zero/\
    very good/two/ten/billing/payments/cancel/go back/operator/agent/eight/one/no/yes/main menu/\
    what did you say/wait a moment/stop please/hold on/excuse me";

/// What kal16 does not say: the pause before its w hums at 25 dB below its vowels, so that no onset
/// can be read off.
const NOT_BY_KAL16: [&str; 3] = ["one", "what did you say", "wait a moment"];

/// flite's voices at 16 kHz.
pub(crate) const VOICES: [&str; 4] = ["slt", "rms", "awb", "kal16"];

/// Words and sentences of the human voice.
const HUMAN: &str = "digits/0 digits/1 digits/2 digits/3 digits/4 digits/5 digits/6 digits/7 \
    digits/8 digits/9 digits/10 digits/11 digits/12 digits/20 digits/hundred goodbye hello \
    location extension vm-password vm-Family vm-Friends vm-Work vm-Urgent cancelled hours \
    vm-messages sorry removed disabled digits/day-0 digits/day-1 digits/day-2 digits/day-3 \
    digits/day-4 digits/day-5 digits/day-6 digits/today digits/tomorrow digits/yesterday \
    digits/mon-0 digits/mon-3 digits/mon-6 digits/mon-8 digits/mon-11 phonetic/a_p phonetic/b_p \
    phonetic/c_p phonetic/e_p phonetic/f_p phonetic/g_p phonetic/h_p phonetic/s_p phonetic/v_p \
    phonetic/z_p for with your is second im-sorry please-try-again one-moment-please \
    auth-thankyou speed-dial hello-world from-unknown-caller something-terribly-wrong \
    sorry-youre-having-problems screen-callee-options feature-not-avail-line vm-first";

/// Sentences for a babble of many and for the agent.
pub(crate) const PROSE: &str = "All of our agents are busy at the moment. Please stay on the line \
    and we will be with you as soon as we can. You may also leave us a message after the tone, or \
    press one to hear our opening hours again. Thank you for your patience.";

/// One utterance that begins after some silence, at each rate.
pub(crate) struct Recording {
    pub(crate) name: String,
    /// At 8 kHz.
    narrow: Vec<i16>,
    /// At 16 kHz.
    wide: Vec<i16>,
}

impl Recording {
    pub(crate) fn at(&self, rate: SampleRate) -> &[i16] {
        if rate == SampleRate::Hz8000 { &self.narrow } else { &self.wide }
    }
}

/// Every utterance; with `step` over 1, a share of them.
pub(crate) fn recordings(step: usize) -> Vec<Recording> {
    let synthetic = WORDS.split('/').enumerate().flat_map(|(index, text)| {
        // A different voice for each word where not all are wanted.
        (0..VOICES.len()).map(move |voice| (VOICES[(voice + index) % VOICES.len()], text))
    });
    let synthetic =
        synthetic.filter(|(voice, text)| *voice != "kal16" || !NOT_BY_KAL16.contains(text));
    let synthetic = synthetic.step_by(step).map(|(voice, text)| {
        let wide = flite(voice, text);
        let narrow = resample(&wide, SampleRate::Hz16000, SampleRate::Hz8000);
        Recording { name: format!("{voice}: {text}"), narrow, wide }
    });
    let folder = sounds();
    let human = HUMAN.split(' ').step_by(step.div_ceil(2)).map(|name| human(&folder, name));
    synthetic.chain(human).collect()
}

fn human(folder: &Path, name: &str) -> Recording {
    let read = |kind: &str| fs::read(folder.join(format!("{name}.{kind}"))).unwrap();
    let payload = read("g722");
    let mut wide = vec![0; payload.len() * 2];
    audio::g722::Decoder::default().decode(&payload, &mut wide).unwrap();
    Recording { name: name.to_owned(), narrow: wav(&read("wav"), SampleRate::Hz8000), wide }
}

/// What flite makes of `text`, at 16 kHz.
pub(crate) fn flite(voice: &str, text: &str) -> Vec<i16> {
    let said = Command::new("flite")
        .args(["-voice", voice, "-t", text, "-o", "/dev/stdout"])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("no flite ({error}): run `deploy/setup.sh test`"));
    assert!(said.status.success());
    wav(&said.stdout, SampleRate::Hz16000)
}

/// The samples of a mono wav file.
fn wav(file: &[u8], rate: SampleRate) -> Vec<i16> {
    assert_eq!(file[24..28], rate.hz().to_le_bytes());
    let data = file.windows(4).position(|it| it == b"data").unwrap() + 8;
    file[data..].as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

/// Where the recordings are, whatever their folder is called.
fn sounds() -> PathBuf {
    let top = Path::new("/usr/share/asterisk/sounds");
    let mut folders = fs::read_dir(top).into_iter().flatten().filter_map(Result::ok);
    folders
        .find(|it| it.path().join("digits/1.g722").exists())
        .unwrap_or_else(|| panic!("no recordings in {top:?}: run `deploy/setup.sh test`"))
        .path()
}

/// `samples` at another rate, without the filter's delay.
pub(crate) fn resample(samples: &[i16], from: SampleRate, to: SampleRate) -> Vec<i16> {
    let mut resampler = Resampler::new(from, to);
    let delay = resampler.delay();
    let flush = delay * from.hz() as usize / to.hz() as usize + 1;
    let padded = [samples, &vec![0; flush]].concat();
    let mut out = vec![0; resampler.output_len(padded.len())];
    let count = resampler.process(&padded, &mut out).unwrap();
    out.truncate(count);
    out.split_off(delay)
}
