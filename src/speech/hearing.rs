//! One call's ear: collects an utterance as mel powers, which is a third of its samples, and has
//! it recognised in one go when it is over. An utterance costs about 5 % of a core for as long as
//! it lasts, spent at its end, so decoders are shared and calls cost only what they said last.

use std::rc::Rc;
use std::{fs, io};

use base::limit;
use rustix::fd::AsRawFd;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::band::{self, ModelError};
use crate::cepstra::{self, Colour, Width};
use crate::lexicon::Lexicon;
use crate::mel::{FRAMES_PER_SECOND, MelBank, MelStream, Powers};
use crate::recogniser::{Hypothesis, Phrases, Recogniser, RecogniserError};

/// Debian's `pocketsphinx-en-us`.
const MODEL: &str = "/usr/share/pocketsphinx/model/en-us/en-us";
const DICTIONARY: &str = "/usr/share/pocketsphinx/model/en-us/cmudict-en-us.dict";

/// A margin below which what was said is taken for nothing in the grammar. Measured with 205
/// right words and 1,260 words of other grammars of 15 (many sound alike: six, sixth, sixteen):
/// none of the right ones and 79 % of the others lie below it; with noise at 20 dB, 9 % and 84 %.
const REJECT_MARGIN: f32 = -3.0;
/// The margin of half confidence: 2 % of the right ones and 86 % of the others lie below it.
const EVEN_MARGIN: f32 = 1.0;
/// How many units of margin change the odds by a factor of e.
const MARGIN_SCALE: f32 = 4.0;
/// Frames without which there is no word: an eighth of a second.
const SHORTEST: usize = FRAMES_PER_SECOND / 8;
/// Frames at which one looks at an utterance first, and then at each doubling.
const FIRST_GLANCE: usize = FRAMES_PER_SECOND / 2;

/// What every call's ear shares.
pub(crate) struct Models {
    bank: MelBank,
    lexicon: Lexicon,
    wide: Recogniser,
    narrow: Recogniser,
}

/// Why the models are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("a model file: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Recogniser(#[from] RecogniserError),
}

impl Models {
    /// Loads everything; takes about a quarter of a second.
    pub(crate) fn load() -> Result<Self, LoadError> {
        let model = MODEL.as_ref();
        let read = |name: &str| fs::read(format!("{MODEL}/{name}"));
        let (means, variances) =
            band::project(&read("means")?, &read("variances")?, Width::Narrow)?;
        // The decoder reads files only; these are in memory and have no name.
        let (means, variances) = (in_memory(&means)?, in_memory(&variances)?);
        let path = |file: &fs::File| format!("/proc/self/fd/{}", file.as_raw_fd());
        let paths = (path(&means), path(&variances));
        let narrow = Recogniser::open(model, Some((paths.0.as_ref(), paths.1.as_ref())))?;
        Ok(Self {
            bank: MelBank::new(),
            lexicon: Lexicon::new(fs::read_to_string(DICTIONARY)?),
            wide: Recogniser::open(model, None)?,
            narrow,
        })
    }
}

fn in_memory(bytes: &[u8]) -> io::Result<fs::File> {
    let mut file = fs::File::from(memfd_create(c"model", MemfdFlags::CLOEXEC)?);
    io::Write::write_all(&mut file, bytes)?;
    Ok(file)
}

/// One call's ear.
pub(crate) struct Ear {
    phrases: Rc<Phrases>,
    current: Option<Utterance>,
    /// The line's colour, as wideband and as narrowband.
    colours: [Colour; 2],
}

/// A stretch of the caller's speech.
pub(crate) struct Utterance {
    pub(crate) number: u32,
    phrases: Rc<Phrases>,
    width: Width,
    stream: MelStream,
    powers: Vec<Powers>,
    next_glance: usize,
    glanced: String,
}

/// What an utterance was.
pub(crate) enum Outcome {
    /// A phrase, and how sure that is.
    Heard(String, f32),
    /// Nothing in the grammar.
    Nothing,
}

impl Ear {
    pub(crate) fn new() -> Self {
        let phrases = Rc::new(Phrases::new(Vec::new()));
        Self { phrases, current: None, colours: Default::default() }
    }

    /// What may be heard from the next utterance on.
    pub(crate) fn grammar(&mut self, phrases: Vec<String>) {
        self.phrases = Rc::new(Phrases::new(phrases));
    }

    pub(crate) fn begin(&mut self, number: u32) {
        self.current = Some(Utterance {
            number,
            phrases: Rc::clone(&self.phrases),
            width: Width::Wide,
            stream: MelStream::default(),
            powers: Vec::new(),
            next_glance: FIRST_GLANCE,
            glanced: String::new(),
        });
    }

    /// The utterance's next samples. One narrow piece makes it narrow: its bands below 4 kHz are
    /// good either way.
    pub(crate) fn audio(&mut self, models: &Models, is_narrowband: bool, samples: &[i16]) {
        let Some(utterance) = &mut self.current else { return };
        if is_narrowband {
            utterance.width = Width::Narrow;
        }
        if utterance.powers.len() < longest() {
            utterance.stream.push(&models.bank, samples, &mut utterance.powers);
            utterance.powers.truncate(longest());
        }
    }

    /// The utterance that is over.
    pub(crate) fn end(&mut self) -> Option<Utterance> {
        self.current.take()
    }

    /// Recognises `utterance`, which was this ear's.
    pub(crate) fn recognise(
        &mut self,
        models: &mut Models,
        utterance: &Utterance,
    ) -> Result<Outcome, RecogniserError> {
        let width = utterance.width;
        if utterance.powers.len() < SHORTEST || !cepstra::stands_out(&utterance.powers, width) {
            return Ok(Outcome::Nothing);
        }
        let colour = &mut self.colours[width as usize];
        let (mut features, own) = cepstra::features(&utterance.powers, width, colour);
        let recogniser = models.recogniser(width);
        let found = recogniser.0.recognise(&utterance.phrases, recogniser.1, &mut features)?;
        let is_speech = |it: &Hypothesis| it.margin >= REJECT_MARGIN && it.frames >= SHORTEST;
        let Some(found) = found.filter(|it| is_speech(it) && !it.text.is_empty()) else {
            return Ok(Outcome::Nothing);
        };
        let confidence = 1.0 / (1.0 + ((EVEN_MARGIN - found.margin) / MARGIN_SCALE).exp());
        if confidence > 0.5 {
            colour.learn(&own);
        }
        Ok(Outcome::Heard(found.text, confidence))
    }

    /// Looks at the utterance on its way, now and then; its number and words where they are new.
    pub(crate) fn glance(&mut self, models: &mut Models) -> Option<(u32, String)> {
        let utterance = self.current.as_mut()?;
        if utterance.powers.len() < utterance.next_glance {
            return None;
        }
        utterance.next_glance = utterance.powers.len() * 2;
        let colour = &self.colours[utterance.width as usize];
        let (mut features, _) = cepstra::features(&utterance.powers, utterance.width, colour);
        let (recogniser, lexicon) = models.recogniser(utterance.width);
        let text = recogniser.glance(&utterance.phrases, lexicon, &mut features).ok()??;
        if text == utterance.glanced {
            return None;
        }
        utterance.glanced.clone_from(&text);
        Some((utterance.number, text))
    }
}

impl Models {
    fn recogniser(&mut self, width: Width) -> (&mut Recogniser, &Lexicon) {
        let recogniser = match width {
            Width::Wide => &mut self.wide,
            Width::Narrow => &mut self.narrow,
        };
        (recogniser, &self.lexicon)
    }
}

/// The most frames of one utterance.
fn longest() -> usize {
    limit::AGENT_UTTERANCE_MS.get() * FRAMES_PER_SECOND / 1000
}
