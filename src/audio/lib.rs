//! Sound, without I/O: [codecs](codec) (G.711, G.722, Opus), [resampling](resample),
//! [concealment](conceal) of lost packets, [time stretching](stretch),
//! [comfort noise](comfort_noise), [tones](tone), in-band [DTMF](dtmf), [voice activity](voice),
//! [levels](level) and [mixing](mix).
//!
//! All audio is 16-bit mono PCM at a [`SampleRate`]. Whatever works per frame allocates at
//! construction only, and no input makes it panic. This member knows nothing of RTP packets,
//! sequence numbers or clocks: those belong to `rtp` and `relay`. Widening telephone audio for a
//! recogniser is not done here either.

#![forbid(unsafe_code)]

pub mod codec;
pub mod comfort_noise;
pub mod conceal;
pub mod dtmf;
pub mod g711;
pub mod g722;
pub mod level;
pub mod mix;
pub mod opus;
pub mod resample;
pub mod stretch;
pub mod tone;
pub mod voice;

mod lpc;
mod pitch;
#[cfg(test)]
mod signals;
mod tonality;

pub use codec::{Codec, DecodeError, Decoder, EncodeError, Encoder};
pub use comfort_noise::{ComfortNoise, NoiseAnalyzer};
pub use conceal::Concealer;
pub use dtmf::{DtmfDetector, DtmfEvent, Key};
pub use opus::OpusSettings;
pub use resample::{Resampler, SampleRate};
pub use stretch::{Pace, Stretcher};
pub use tone::{Tone, ToneGenerator};
pub use voice::{Threshold, Voice, VoiceDetector};

/// The output slice is too short for what would be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the output must hold {needed} elements")]
pub struct ShortOutput {
    /// The elements that would be written.
    pub needed: usize,
}

/// The first `needed` elements of `out`, or the error that says how many there must be.
fn room<T>(out: &mut [T], needed: usize) -> Result<&mut [T], ShortOutput> {
    out.get_mut(..needed).ok_or(ShortOutput { needed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_has_state_can_move_to_another_thread() {
        const fn is_send<T: Send>() {}
        is_send::<(Encoder, Decoder, Resampler, Stretcher, Concealer)>();
        is_send::<(ComfortNoise, NoiseAnalyzer, ToneGenerator, DtmfDetector, VoiceDetector)>();
    }
}
