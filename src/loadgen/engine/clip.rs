//! What is said, encoded once for each codec and packet time and shared by all calls that say it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use audio::{Codec, Encoder, OpusSettings, Resampler, SampleRate};

use super::stamp::{STAMP_AT, STAMP_BYTES};
use crate::script::RATE;

/// Bytes of the largest payload: 60 ms of G.711, and Opus stays below at its telephony rates.
const PAYLOAD_MAX: usize = 1_276;
/// Samples of the longest packet at the highest rate.
const SAMPLES_MAX: usize = 48 * 60;

/// Encoded audio, packet by packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clip {
    bytes: Vec<u8>,
    /// Where each packet ends.
    ends: Vec<u32>,
}

impl Clip {
    /// Encodes 16 kHz PCM; what is missing of the last packet is silence. A payload has room for a
    /// stamp always.
    pub(crate) fn encode(pcm: &[i16], codec: Codec, ptime_ms: u16) -> Option<Self> {
        let mut encoder = Encoder::new(codec, &OpusSettings::default()).ok()?;
        let mut resampler = Resampler::new(SampleRate::Hz16000, encoder.sample_rate());
        let frame = RATE / 1000 * usize::from(ptime_ms);
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        let (mut input, mut samples) = (vec![0; frame], vec![0; SAMPLES_MAX]);
        let mut payload = [0; PAYLOAD_MAX];
        for piece in pcm.chunks(frame.max(1)) {
            input.fill(0);
            input[..piece.len()].copy_from_slice(piece);
            let count = resampler.process(&input, &mut samples).ok()?;
            let length = encoder.encode(&samples[..count], &mut payload).ok()?;
            bytes.extend_from_slice(&payload[..length]);
            let least = STAMP_AT + STAMP_BYTES;
            bytes.resize(bytes.len() + least.saturating_sub(length), 0);
            ends.push(u32::try_from(bytes.len()).ok()?);
        }
        (!ends.is_empty()).then_some(Self { bytes, ends })
    }

    /// How many packets it has.
    pub(crate) fn packets(&self) -> usize {
        self.ends.len()
    }

    /// A packet's payload; empty behind the end.
    pub(crate) fn packet(&self, index: usize) -> &[u8] {
        let Some(end) = self.ends.get(index) else { return &[] };
        let start = match index {
            0 => 0,
            index => self.ends[index - 1] as usize,
        };
        &self.bytes[start..*end as usize]
    }
}

/// A sound, a codec's name, milliseconds.
type Key = (usize, &'static str, u16);

/// Every clip of a load, by what is said, codec and packet time; made when first needed.
#[derive(Default)]
pub(crate) struct Clips {
    sounds: Vec<Arc<[i16]>>,
    made: Mutex<BTreeMap<Key, Arc<Clip>>>,
}

impl Clips {
    /// With these sounds, 16 kHz PCM; calls name them by their place.
    pub(crate) fn new(sounds: Vec<Arc<[i16]>>) -> Self {
        Self { sounds, made: Mutex::default() }
    }

    /// The clip of a sound; `None` where the codec does not take packets of that length.
    pub(crate) fn clip(&self, sound: usize, codec: Codec, ptime_ms: u16) -> Option<Arc<Clip>> {
        let key = (sound, codec.name(), ptime_ms);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clip) = made.get(&key) {
            return Some(Arc::clone(clip));
        }
        let clip = Arc::new(Clip::encode(self.sounds.get(sound)?, codec, ptime_ms)?);
        made.insert(key, Arc::clone(&clip));
        Some(clip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_packs_what_is_said_at_its_packet_times() {
        let pcm = vec![1000; RATE];
        for (codec, times) in [
            (Codec::Pcmu, &[10, 20, 30, 40, 60][..]),
            (Codec::Pcma, &[10, 20, 30, 40, 60]),
            (Codec::G722, &[10, 20, 30, 40, 60]),
            (Codec::Opus, &[10, 20, 40, 60]),
        ] {
            for ptime in times {
                let clip = Clip::encode(&pcm, codec, *ptime).unwrap();
                assert_eq!(clip.packets(), 1000usize.div_ceil(usize::from(*ptime)));
                if codec != Codec::Opus {
                    assert_eq!(clip.packet(0).len(), 8 * usize::from(*ptime), "{codec:?}");
                }
                assert!((0..clip.packets()).all(|it| clip.packet(it).len() >= 22));
                assert_eq!(clip.packet(clip.packets()), &[] as &[u8]);
            }
        }
        assert!(Clip::encode(&[], Codec::Pcmu, 20).is_none());
    }

    #[test]
    fn a_clip_is_made_once() {
        let clips = Clips::new(vec![vec![0; 320].into()]);
        let one = clips.clip(0, Codec::Pcma, 20).unwrap();
        assert!(Arc::ptr_eq(&one, &clips.clip(0, Codec::Pcma, 20).unwrap()));
        assert!(clips.clip(1, Codec::Pcma, 20).is_none());
    }
}
