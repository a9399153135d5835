//! flite: text to speech piece by piece, and letters to phones. Knows nothing of calls.
#![allow(unsafe_code, reason = "calls the C library; every call states why it is sound")]

use std::ffi::{CStr, CString, c_char, c_int, c_short, c_void};
use std::ptr::{self, NonNull};
use std::slice;

use audio::{Resampler, SampleRate};
use speech::protocol::Voice;

/// The synthesiser; a voice is loaded when it is first wanted.
#[derive(Default)]
pub(crate) struct Synthesiser {
    voices: [Option<Loaded>; Voice::ALL.len()],
}

/// The synthesiser made nothing of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the synthesiser failed")]
pub(crate) struct SynthesisError;

struct Loaded {
    voice: NonNull<FliteVoice>,
    /// Belongs to the voice's features.
    streaming: NonNull<Streaming>,
}

/// Samples in one piece: 50 ms at 16 kHz.
const PIECE: c_int = 800;

impl Synthesiser {
    /// Speaks `text`, handing over pieces at 16 kHz as they are made.
    pub(crate) fn speak(
        &mut self,
        voice: Voice,
        text: &str,
        out: &mut dyn FnMut(&[i16]),
    ) -> Result<(), SynthesisError> {
        let text: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
        let text = CString::new(text).map_err(|_| SynthesisError)?;
        let place = self.voices.get_mut(voice as usize).ok_or(SynthesisError)?;
        let loaded = match place {
            Some(loaded) => loaded,
            None => place.insert(Loaded::new(voice)?),
        };
        let mut receiver = Receiver { out, resampler: None, done: 0 };
        // SAFETY: voice and streaming are alive until the process ends; the receiver outlives the
        // synthesis, which is the only time at which the callback runs, and is forgotten after it.
        let utterance = unsafe {
            (*loaded.streaming.as_ptr()).user = (&raw mut receiver).cast();
            let utterance = flite_synth_text(text.as_ptr(), loaded.voice.as_ptr());
            (*loaded.streaming.as_ptr()).user = ptr::null_mut();
            NonNull::new(utterance).ok_or(SynthesisError)?
        };
        // SAFETY: the utterance is ours; its wave lives as long.
        unsafe {
            if let Some(wave) = utt_wave(utterance.as_ptr()).as_ref() {
                // A voice that does not stream has said nothing yet.
                receiver.take(wave, 0, wave.count);
            }
            delete_utterance(utterance.as_ptr());
        }
        receiver.finish();
        Ok(())
    }
}

impl Loaded {
    fn new(voice: Voice) -> Result<Self, SynthesisError> {
        // SAFETY: flite may be initialised again; the voice's directory may be null for voices
        // that are compiled in; the streaming object is given to the voice, which keeps it.
        unsafe {
            flite_init();
            let voice = match voice {
                Voice::Slt => register_cmu_us_slt(ptr::null()),
                Voice::Rms => register_cmu_us_rms(ptr::null()),
                Voice::Awb => register_cmu_us_awb(ptr::null()),
                Voice::Kal => register_cmu_us_kal(ptr::null()),
            };
            let voice = NonNull::new(voice).ok_or(SynthesisError)?;
            let streaming = NonNull::new(new_audio_streaming_info()).ok_or(SynthesisError)?;
            (*streaming.as_ptr()).minimum = PIECE;
            (*streaming.as_ptr()).callback = Some(on_piece);
            let value = audio_streaming_info_val(streaming.as_ptr());
            flite_feat_set((*voice.as_ptr()).features, c"streaming_info".as_ptr(), value);
            Ok(Self { voice, streaming })
        }
    }
}

/// Where the pieces of one text go.
struct Receiver<'a> {
    out: &'a mut dyn FnMut(&[i16]),
    resampler: Option<Resampler>,
    /// Samples of the wave that were taken.
    done: c_int,
}

impl Receiver<'_> {
    fn take(&mut self, wave: &Wave, start: c_int, count: c_int) {
        let end = start.saturating_add(count).min(wave.count);
        let (from, count) = (self.done.max(start), end - self.done.max(start));
        let (Ok(from), Ok(count)) = (usize::try_from(from), usize::try_from(count)) else { return };
        if wave.samples.is_null() || wave.channels != 1 || count == 0 {
            return;
        }
        // SAFETY: flite holds `wave.count` samples there, and `from + count` is no more.
        let samples = unsafe { slice::from_raw_parts(wave.samples.add(from), count) };
        self.done = end;
        let rate = u32::try_from(wave.rate).ok().and_then(SampleRate::from_hz);
        let Some(rate) = rate else { return };
        if rate == SampleRate::Hz16000 {
            return (self.out)(samples);
        }
        let resampler =
            self.resampler.get_or_insert_with(|| Resampler::new(rate, SampleRate::Hz16000));
        convert(resampler, samples, self.out);
    }

    /// Lets the end of the text out of the resampler.
    fn finish(&mut self) {
        if let Some(resampler) = &mut self.resampler {
            let silence = vec![0; resampler.delay()];
            convert(resampler, &silence, self.out);
        }
    }
}

fn convert(resampler: &mut Resampler, samples: &[i16], out: &mut dyn FnMut(&[i16])) {
    let mut converted = vec![0; resampler.output_len(samples.len())];
    if let Ok(count) = resampler.process(samples, &mut converted) {
        out(&converted[..count]);
    }
}

extern "C" fn on_piece(
    wave: *const Wave,
    start: c_int,
    count: c_int,
    _is_last: c_int,
    streaming: *mut Streaming,
) -> c_int {
    // SAFETY: flite calls this during `flite_synth_text` only, with its wave and the object that
    // `Loaded::new` gave it, whose receiver is alive then.
    unsafe {
        if let (Some(wave), Some(streaming)) = (wave.as_ref(), streaming.as_ref())
            && let Some(receiver) = streaming.user.cast::<Receiver<'_>>().as_mut()
        {
            receiver.take(wave, start, count);
        }
    }
    0
}

/// How flite would say a word of lower-case letters: names of phones.
pub(crate) fn phones_of(word: &str) -> Vec<String> {
    let Ok(word) = CString::new(word) else { return Vec::new() };
    if word.is_empty() {
        return Vec::new();
    }
    let mut phones = Vec::new();
    // SAFETY: the lexicon is static; the list is ours, its strings live until it is deleted.
    unsafe {
        let list = lex_lookup(cmu_lex_init(), word.as_ptr(), ptr::null(), ptr::null());
        let mut rest: *const Value = list;
        while !rest.is_null() {
            let name = val_string(val_car(rest));
            if !name.is_null() {
                phones.push(CStr::from_ptr(name).to_string_lossy().into_owned());
            }
            rest = val_cdr(rest);
        }
        delete_val(list);
    }
    phones
}

#[repr(C)]
struct FliteVoice {
    name: *const c_char,
    features: *mut Features,
}
#[repr(C)]
struct Features {
    _opaque: [u8; 0],
}
#[repr(C)]
struct Utterance {
    _opaque: [u8; 0],
}
#[repr(C)]
struct Value {
    _opaque: [u8; 0],
}
#[repr(C)]
struct FliteLexicon {
    _opaque: [u8; 0],
}

/// `cst_wave`.
#[repr(C)]
struct Wave {
    kind: *const c_char,
    rate: c_int,
    count: c_int,
    channels: c_int,
    samples: *mut c_short,
}

type Callback = extern "C" fn(*const Wave, c_int, c_int, c_int, *mut Streaming) -> c_int;

/// `cst_audio_streaming_info`.
#[repr(C)]
struct Streaming {
    minimum: c_int,
    callback: Option<Callback>,
    utterance: *const Utterance,
    item: *const c_void,
    user: *mut c_void,
}

// flite.h, cst_audio.h, cst_val.h and cst_lexicon.h of flite1-dev 2.2.
#[link(name = "flite")]
unsafe extern "C" {
    fn flite_init() -> c_int;
    fn flite_synth_text(text: *const c_char, voice: *mut FliteVoice) -> *mut Utterance;
    fn flite_feat_set(features: *mut Features, name: *const c_char, value: *const Value);
    fn utt_wave(utterance: *mut Utterance) -> *mut Wave;
    fn delete_utterance(utterance: *mut Utterance);
    fn new_audio_streaming_info() -> *mut Streaming;
    fn audio_streaming_info_val(streaming: *mut Streaming) -> *mut Value;
    fn lex_lookup(
        lexicon: *const FliteLexicon,
        word: *const c_char,
        part_of_speech: *const c_char,
        features: *const Features,
    ) -> *mut Value;
    fn val_car(value: *const Value) -> *const Value;
    fn val_cdr(value: *const Value) -> *const Value;
    fn val_string(value: *const Value) -> *const c_char;
    fn delete_val(value: *mut Value);
}

#[link(name = "flite_cmulex")]
unsafe extern "C" {
    fn cmu_lex_init() -> *mut FliteLexicon;
}

#[link(name = "flite_cmu_us_slt")]
unsafe extern "C" {
    fn register_cmu_us_slt(directory: *const c_char) -> *mut FliteVoice;
}

#[link(name = "flite_cmu_us_rms")]
unsafe extern "C" {
    fn register_cmu_us_rms(directory: *const c_char) -> *mut FliteVoice;
}

#[link(name = "flite_cmu_us_awb")]
unsafe extern "C" {
    fn register_cmu_us_awb(directory: *const c_char) -> *mut FliteVoice;
}

#[link(name = "flite_cmu_us_kal")]
unsafe extern "C" {
    fn register_cmu_us_kal(directory: *const c_char) -> *mut FliteVoice;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(voice: Voice, text: &str) -> (usize, Vec<i16>) {
        let (mut pieces, mut samples) = (0, Vec::new());
        let mut out = |piece: &[i16]| {
            pieces += 1;
            samples.extend_from_slice(piece);
        };
        Synthesiser::default().speak(voice, text, &mut out).unwrap();
        (pieces, samples)
    }

    #[test]
    fn every_voice_says_a_sentence_in_pieces() {
        for voice in Voice::ALL {
            let (pieces, samples) = spoken(voice, "Hello, and welcome to the reception desk.");
            let seconds = samples.len() as f32 / 16_000.0;
            assert!(pieces > 10, "{}: {pieces} pieces", voice.name());
            assert!((1.5..5.0).contains(&seconds), "{}: {seconds} s", voice.name());
            let power = samples.iter().map(|&it| f64::from(it).powi(2)).sum::<f64>();
            let level = (power / samples.len() as f64).sqrt();
            assert!((500.0..15_000.0).contains(&level), "{}: level {level}", voice.name());
        }
    }

    #[test]
    fn odd_texts_are_said_or_refused_but_never_fatal() {
        let long = "word ".repeat(300);
        for text in ["", " ", "\n\r\t", "!!!", "Grüß Gott ☎", "\u{202e}abc", "1e999 -- 0x", &long]
        {
            let _ = Synthesiser::default().speak(Voice::Slt, text, &mut |_| {});
        }
        assert!(Synthesiser::default().speak(Voice::Slt, "a\0b", &mut |_| {}).is_ok());
    }

    #[test]
    fn letters_become_phones() {
        assert_eq!(phones_of("callgate").len(), 6);
        assert!(phones_of("").is_empty());
        assert!(phones_of("a\0").is_empty());
    }
}
