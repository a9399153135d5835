//! pocketsphinx: which phrase of a grammar some features are most like, and how much more so
//! than any string of phones at all. Knows nothing of audio or calls.
#![allow(unsafe_code, reason = "calls the C library; every call states why it is sound")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{CStr, CString, c_char, c_double, c_int, c_long};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use base::limit;

use crate::cepstra::{COEFFICIENTS, Cepstra};
use crate::lexicon::Lexicon;

/// A decoder over one acoustic model.
pub(crate) struct Recogniser {
    decoder: NonNull<Decoder>,
    /// The decoder's words are `w0`, `w1` and so on, so that nothing in a grammar is syntax.
    numbers: BTreeMap<String, usize>,
    words: Vec<String>,
    /// The grammars whose searches are built, the latest used last.
    built: VecDeque<(Rc<Phrases>, CString)>,
    grammars_built: u64,
}

/// A grammar as the recogniser takes it.
#[derive(PartialEq, Eq)]
pub(crate) struct Phrases(BTreeSet<String>);

impl Phrases {
    /// The phrases that can be recognised: words of letters and apostrophes within the limits.
    pub(crate) fn new(phrases: Vec<String>) -> Self {
        let is_word = |word: &str| {
            word.bytes().any(|it| it.is_ascii_lowercase())
                && word.bytes().all(|it| it.is_ascii_lowercase() || it == b'\'')
        };
        let is_phrase = |phrase: &String| {
            phrase.len() <= limit::AGENT_PHRASE_BYTES.get() && phrase.split(' ').all(is_word)
        };
        Self(phrases.into_iter().filter(is_phrase).collect())
    }

    /// Whether there is nothing to recognise.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What was most like the features.
pub(crate) struct Hypothesis {
    /// The phrase.
    pub(crate) text: String,
    /// How many frames of the features it took; the others were silence.
    pub(crate) frames: usize,
    /// By how much the phrase beats the best string of phones, as a log likelihood ratio per
    /// frame of speech in the decoder's units; negative where the phones win.
    pub(crate) margin: f32,
}

/// Something that the decoder did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecogniserError {
    #[error("the acoustic model does not load")]
    Model,
    #[error("the grammar does not build")]
    Grammar,
    #[error("the decoder failed")]
    Decoder,
    /// More different words than `provider.words`.
    #[error("the decoder's dictionary is full")]
    WornOut,
}

/// Searches that are kept built.
const BUILT_GRAMMARS: usize = 32;
const PHONE_LOOP: &CStr = c"phones";
/// The phones of the model but for silence and noise.
const PHONES: &str = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S \
                      SH T TH UH UW V W Y Z ZH";

impl Recogniser {
    /// Loads the model in the directory `model`, with other means and variances where given.
    pub(crate) fn open(
        model: &Path,
        parameters: Option<(&Path, &Path)>,
    ) -> Result<Self, RecogniserError> {
        let text = |path: &Path| {
            let path = path.to_str().and_then(|path| CString::new(path).ok());
            path.ok_or(RecogniserError::Model)
        };
        // The model's own list of parameters would turn the decoder's normalisation on, which
        // remembers the caller before; what the decoder needs of it stands here.
        let mut options = vec![
            (c"-hmm", text(model)?),
            (c"-featparams", c"/dev/null".into()),
            (c"-feat", c"1s_c_d_dd".into()),
            (c"-svspec", c"0-12/13-25/26-38".into()),
            (c"-cmn", c"none".into()),
        ];
        if let Some((means, variances)) = parameters {
            options.extend([(c"-mean", text(means)?), (c"-var", text(variances)?)]);
        }
        // SAFETY: a null log file turns the library's log off; it holds words.
        unsafe { err_set_logfp(ptr::null_mut()) };
        // SAFETY: a null base makes new options; the list ends with a null name; the strings are
        // copied, as are those of the next calls.
        let config = unsafe { cmd_ln_init(ptr::null_mut(), ps_args(), 1, ptr::null::<c_char>()) };
        let config = NonNull::new(config).ok_or(RecogniserError::Model)?;
        // SAFETY: the options are alive, each name is one of `ps_args` of the type that is set.
        let decoder = unsafe {
            for (name, value) in &options {
                cmd_ln_set_str_r(config.as_ptr(), name.as_ptr(), value.as_ptr());
            }
            cmd_ln_set_int_r(config.as_ptr(), c"-bestpath".as_ptr(), 0);
            let decoder = ps_init(config.as_ptr());
            // The decoder holds a reference of its own.
            cmd_ln_free_r(config.as_ptr());
            decoder
        };
        let decoder = NonNull::new(decoder).ok_or(RecogniserError::Model)?;
        let (numbers, words, built) = (BTreeMap::new(), Vec::new(), VecDeque::new());
        let mut recogniser = Self { decoder, numbers, words, built, grammars_built: 0 };
        recogniser.build_phone_loop()?;
        Ok(recogniser)
    }

    /// The phrase of `phrases` that is most like `features`, if any is like them at all.
    pub(crate) fn recognise(
        &mut self,
        phrases: &Rc<Phrases>,
        lexicon: &Lexicon,
        features: &mut [Cepstra],
    ) -> Result<Option<Hypothesis>, RecogniserError> {
        if phrases.is_empty() || features.is_empty() {
            return Ok(None);
        }
        let search = self.search(phrases, lexicon)?;
        let Some(best) = self.decode(&search, features)? else { return Ok(None) };
        let Some(any) = self.decode(PHONE_LOOP, features)? else { return Ok(None) };
        let margin = best.score.saturating_sub(any.score) as f32 / best.speech_frames.max(1) as f32;
        let frames = usize::try_from(best.speech_frames).unwrap_or(0);
        Ok(Some(Hypothesis { text: self.text(&best.words), frames, margin }))
    }

    /// What the beginning of an utterance is most like; half the work of `recognise`.
    pub(crate) fn glance(
        &mut self,
        phrases: &Rc<Phrases>,
        lexicon: &Lexicon,
        features: &mut [Cepstra],
    ) -> Result<Option<String>, RecogniserError> {
        if phrases.is_empty() || features.is_empty() {
            return Ok(None);
        }
        let search = self.search(phrases, lexicon)?;
        let best = self.decode(&search, features)?;
        Ok(best.map(|best| self.text(&best.words)).filter(|text| !text.is_empty()))
    }

    /// The words of a hypothesis as they stand in the grammar.
    fn text(&self, words: &str) -> String {
        let numbers = words.split(' ').filter_map(|word| word.strip_prefix('w')?.parse().ok());
        let words = numbers.filter_map(|number: usize| self.words.get(number));
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// The name of the built search for `phrases`.
    fn search(
        &mut self,
        phrases: &Rc<Phrases>,
        lexicon: &Lexicon,
    ) -> Result<CString, RecogniserError> {
        if let Some(at) = self.built.iter().position(|(built, _)| built == phrases)
            && let Some(found) = self.built.remove(at)
        {
            let name = found.1.clone();
            self.built.push_back(found);
            return Ok(name);
        }
        let alternatives: Result<Vec<String>, _> =
            phrases.0.iter().map(|phrase| self.spell(phrase, lexicon)).collect();
        if self.built.len() == BUILT_GRAMMARS
            && let Some((_, oldest)) = self.built.pop_front()
        {
            // SAFETY: the decoder is alive, the name ends with a null.
            unsafe { ps_unset_search(self.decoder.as_ptr(), oldest.as_ptr()) };
        }
        let name = format!("g{}", self.grammars_built);
        self.grammars_built += 1;
        let name = CString::new(name).map_err(|_| RecogniserError::Grammar)?;
        self.build(&name, &alternatives?.join(" | "))?;
        self.built.push_back((Rc::clone(phrases), name.clone()));
        Ok(name)
    }

    /// A phrase in the decoder's words; new ones enter its dictionary.
    fn spell(&mut self, phrase: &str, lexicon: &Lexicon) -> Result<String, RecogniserError> {
        let mut spelled = Vec::new();
        for word in phrase.split(' ') {
            let number = match self.numbers.get(word) {
                Some(number) => *number,
                None => self.add(word, lexicon)?,
            };
            spelled.push(format!("w{number}"));
        }
        Ok(spelled.join(" "))
    }

    fn add(&mut self, word: &str, lexicon: &Lexicon) -> Result<usize, RecogniserError> {
        let number = self.words.len();
        if number == limit::PROVIDER_WORDS.get() {
            return Err(RecogniserError::WornOut);
        }
        let pronunciations = lexicon.pronunciations(word);
        let (first, others) = pronunciations.split_first().ok_or(RecogniserError::Grammar)?;
        self.add_word(&format!("w{number}"), first)?;
        for (i, phones) in others.iter().enumerate() {
            // A variant with a phone that the model lacks is no loss.
            let _ = self.add_word(&format!("w{number}({})", i + 2), phones);
        }
        self.words.push(word.to_owned());
        self.numbers.insert(word.to_owned(), number);
        Ok(number)
    }

    fn build_phone_loop(&mut self) -> Result<(), RecogniserError> {
        let names: Vec<String> =
            PHONES.split(' ').map(|phone| format!("q{}", phone.to_ascii_lowercase())).collect();
        for (name, phone) in names.iter().zip(PHONES.split(' ')) {
            self.add_word(name, phone)?;
        }
        // The loop only says how well any speech would do: narrower beams give the same answer
        // in two thirds of the time. A search reads its beams when it is built.
        self.set_beams(1e-20, 1e-14);
        let built = self.build(PHONE_LOOP, &format!("( {} )+", names.join(" | ")));
        self.set_beams(1e-48, 7e-29);
        built
    }

    fn set_beams(&mut self, state: f64, word: f64) {
        // SAFETY: the decoder and so its options are alive; the names are of this type.
        unsafe {
            let config = ps_get_config(self.decoder.as_ptr());
            for (name, value) in [(c"-beam", state), (c"-pbeam", state), (c"-wbeam", word)] {
                cmd_ln_set_float_r(config, name.as_ptr(), value);
            }
        }
    }

    fn add_word(&mut self, word: &str, phones: &str) -> Result<(), RecogniserError> {
        let word = CString::new(word).map_err(|_| RecogniserError::Grammar)?;
        let phones = CString::new(phones).map_err(|_| RecogniserError::Grammar)?;
        // SAFETY: the decoder is alive; the strings end with a null and are copied.
        let added =
            unsafe { ps_add_word(self.decoder.as_ptr(), word.as_ptr(), phones.as_ptr(), 0) };
        if added < 0 { Err(RecogniserError::Grammar) } else { Ok(()) }
    }

    fn build(&mut self, name: &CStr, rule: &str) -> Result<(), RecogniserError> {
        let grammar = format!("#JSGF V1.0;\ngrammar g;\npublic <g> = {rule};\n");
        let grammar = CString::new(grammar).map_err(|_| RecogniserError::Grammar)?;
        // SAFETY: the decoder is alive; the strings end with a null and are copied.
        let built =
            unsafe { ps_set_jsgf_string(self.decoder.as_ptr(), name.as_ptr(), grammar.as_ptr()) };
        if built < 0 { Err(RecogniserError::Grammar) } else { Ok(()) }
    }

    fn decode(
        &mut self,
        search: &CStr,
        features: &mut [Cepstra],
    ) -> Result<Option<Best>, RecogniserError> {
        let mut rows: Vec<*mut f32> = features.iter_mut().map(|row| row.as_mut_ptr()).collect();
        let frames = c_int::try_from(rows.len()).map_err(|_| RecogniserError::Decoder)?;
        let decoder = self.decoder.as_ptr();
        // SAFETY: the decoder is alive and between utterances; `rows` holds `frames` pointers to
        // rows of `COEFFICIENTS` floats, which is the width of the model's features, and both
        // outlive the call.
        unsafe {
            if ps_set_search(decoder, search.as_ptr()) < 0 || ps_start_utt(decoder) < 0 {
                return Err(RecogniserError::Decoder);
            }
            let done = ps_process_cep(decoder, rows.as_mut_ptr(), frames, 0, 1);
            if ps_end_utt(decoder) < 0 || done < 0 {
                return Err(RecogniserError::Decoder);
            }
        }
        Ok(self.best())
    }

    /// The best path of the utterance that has just ended.
    fn best(&self) -> Option<Best> {
        let mut score = 0;
        // SAFETY: the decoder is alive; the string, if any, lives until the next utterance.
        let words = unsafe {
            let words = ps_get_hyp(self.decoder.as_ptr(), &raw mut score);
            if words.is_null() {
                return None;
            }
            CStr::from_ptr(words).to_string_lossy().into_owned()
        };
        let mut speech_frames = 0;
        // SAFETY: the iterator belongs to this loop until it is null, which frees it; the word
        // lives as long as the iterator stands on it.
        unsafe {
            let mut segment = ps_seg_iter(self.decoder.as_ptr());
            while !segment.is_null() {
                let (mut first, mut last) = (0, 0);
                ps_seg_frames(segment, &raw mut first, &raw mut last);
                let word = ps_seg_word(segment);
                if !word.is_null() && matches!(CStr::from_ptr(word).to_bytes(), [b'w' | b'q', ..]) {
                    speech_frames += last - first + 1;
                }
                segment = ps_seg_next(segment);
            }
        }
        Some(Best { words, score, speech_frames })
    }
}

impl Drop for Recogniser {
    fn drop(&mut self) {
        // SAFETY: this is the only reference.
        unsafe { ps_free(self.decoder.as_ptr()) };
    }
}

struct Best {
    words: String,
    score: i32,
    speech_frames: i32,
}

// The features are handed over as rows of C floats.
const _: () = assert!(size_of::<Cepstra>() == COEFFICIENTS * size_of::<std::ffi::c_float>());

#[repr(C)]
struct Decoder {
    _opaque: [u8; 0],
}
#[repr(C)]
struct Segment {
    _opaque: [u8; 0],
}
#[repr(C)]
struct Options {
    _opaque: [u8; 0],
}
#[repr(C)]
struct OptionTable {
    _opaque: [u8; 0],
}
#[repr(C)]
struct LogFile {
    _opaque: [u8; 0],
}

// pocketsphinx.h and ps_search.h of libpocketsphinx-dev 0.8+5prealpha.
#[link(name = "pocketsphinx")]
unsafe extern "C" {
    fn ps_args() -> *const OptionTable;
    fn ps_init(config: *mut Options) -> *mut Decoder;
    fn ps_free(decoder: *mut Decoder) -> c_int;
    fn ps_get_config(decoder: *mut Decoder) -> *mut Options;
    fn ps_add_word(
        decoder: *mut Decoder,
        word: *const c_char,
        phones: *const c_char,
        update: c_int,
    ) -> c_int;
    fn ps_set_jsgf_string(
        decoder: *mut Decoder,
        name: *const c_char,
        grammar: *const c_char,
    ) -> c_int;
    fn ps_set_search(decoder: *mut Decoder, name: *const c_char) -> c_int;
    fn ps_unset_search(decoder: *mut Decoder, name: *const c_char) -> c_int;
    fn ps_start_utt(decoder: *mut Decoder) -> c_int;
    fn ps_process_cep(
        decoder: *mut Decoder,
        rows: *mut *mut f32,
        frames: c_int,
        no_search: c_int,
        full_utterance: c_int,
    ) -> c_int;
    fn ps_end_utt(decoder: *mut Decoder) -> c_int;
    fn ps_get_hyp(decoder: *mut Decoder, score: *mut i32) -> *const c_char;
    fn ps_seg_iter(decoder: *mut Decoder) -> *mut Segment;
    fn ps_seg_next(segment: *mut Segment) -> *mut Segment;
    fn ps_seg_word(segment: *mut Segment) -> *const c_char;
    fn ps_seg_frames(segment: *mut Segment, first: *mut c_int, last: *mut c_int);
}

// cmd_ln.h and err.h of libsphinxbase-dev 0.8+5prealpha.
#[link(name = "sphinxbase")]
unsafe extern "C" {
    fn cmd_ln_init(base: *mut Options, table: *const OptionTable, strict: i32, ...)
    -> *mut Options;
    fn cmd_ln_free_r(options: *mut Options) -> c_int;
    fn cmd_ln_set_str_r(options: *mut Options, name: *const c_char, value: *const c_char);
    fn cmd_ln_set_int_r(options: *mut Options, name: *const c_char, value: c_long);
    fn cmd_ln_set_float_r(options: *mut Options, name: *const c_char, value: c_double);
    fn err_set_logfp(file: *mut LogFile);
}
