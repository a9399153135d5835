//! Voices for tests: two sentences spoken by Flite (8 kHz u-law), at 16 kHz.

use audio::{Resampler, SampleRate};

/// What the agent says.
pub(crate) fn agent() -> Vec<i16> {
    voice(include_bytes!("testdata/agent.ulaw"))
}

/// What the caller says.
pub(crate) fn caller() -> Vec<i16> {
    voice(include_bytes!("testdata/caller.ulaw"))
}

fn voice(law: &[u8]) -> Vec<i16> {
    let mut narrow = vec![0; law.len()];
    audio::g711::Law::Mu.decode(law, &mut narrow);
    let mut resampler = Resampler::new(SampleRate::Hz8000, SampleRate::Hz16000);
    let mut wide = vec![0; resampler.output_len(narrow.len())];
    let length = resampler.process(&narrow, &mut wide).unwrap();
    wide.truncate(length);
    wide
}

/// `voice`, later and quieter.
pub(crate) fn echo(voice: &[i16], delay_ms: usize, db: f32) -> Vec<i16> {
    let gain = audio::level::from_db(db);
    let silence = std::iter::repeat_n(0, delay_ms * 16);
    silence.chain(voice.iter().map(|sample| (f32::from(*sample) * gain) as i16)).collect()
}

/// Both at once, as long as the longer.
pub(crate) fn mix(a: &[i16], b: &[i16]) -> Vec<i16> {
    let at = |voice: &[i16], index: usize| voice.get(index).copied().unwrap_or(0);
    (0..a.len().max(b.len())).map(|index| at(a, index).saturating_add(at(b, index))).collect()
}
