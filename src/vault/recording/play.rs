//! From Ogg Opus back to samples, for export.

use std::io::{self, Cursor, Write};

use ogg::PacketReader;
use ogg::reading::OggReadError;
use opus::MSDecoder;
use thiserror::Error;

use super::SAMPLE_RATE;
use super::encode::{FRAME_48K, MAPPING, UPSAMPLED};
use super::mix::FRAME;

/// Why a recording was not turned into samples.
#[derive(Debug, Error)]
pub enum PlayError {
    /// Its pages are malformed.
    #[error("Ogg: {0}")]
    Ogg(#[from] OggReadError),
    /// A packet does not decode.
    #[error("Opus: {0}")]
    Opus(#[from] opus::Error),
    /// It is longer than a WAV file can be.
    #[error("too long for a WAV file; export it as Ogg")]
    TooLong,
    /// The output cannot be written.
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

/// What stands in front of a recording's audio, and how long that is in 48 kHz samples.
struct Extent {
    pre_skip: u64,
    total: u64,
}

fn extent(ogg: &[u8]) -> Result<Extent, OggReadError> {
    let mut reader = PacketReader::new(Cursor::new(ogg));
    let head = reader.read_packet_expected()?;
    let pre_skip = match head.data.get(10..12) {
        Some([low, high]) => u64::from(u16::from_le_bytes([*low, *high])),
        _ => 0,
    };
    reader.read_packet_expected()?;
    let (mut packets, mut last) = (0_u64, None);
    while let Some(packet) = reader.read_packet()? {
        packets += 1;
        if packet.last_in_stream() {
            last = Some(packet.absgp_page());
        }
    }
    // Without a last page (an unfinished recording) everything decoded is heard.
    let total = last.unwrap_or(packets * FRAME_48K).saturating_sub(pre_skip);
    Ok(Extent { pre_skip, total })
}

/// How long a recording is; 0 where it has no audio.
pub(crate) fn duration_ms(ogg: &[u8]) -> u64 {
    extent(ogg).map_or(0, |extent| extent.total / 48)
}

/// How loud a recording is over time: the largest sample of each step, by full scale of 255.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// How long the recording is.
    pub duration_ms: u64,
    /// The caller's side.
    pub caller: Vec<u8>,
    /// The voice agent's side.
    pub agent: Vec<u8>,
}

/// The peaks of a recording in at most `count` steps.
pub(crate) fn peaks(ogg: &[u8], count: usize) -> Result<Peaks, PlayError> {
    if ogg.is_empty() || count == 0 {
        return Ok(Peaks::default());
    }
    let extent = extent(ogg)?;
    let samples = extent.total / UPSAMPLED;
    let step = samples.div_ceil(count as u64).max(1);
    let steps = usize::try_from(samples.div_ceil(step)).unwrap_or(count).min(count);
    let mut peaks =
        Peaks { duration_ms: extent.total / 48, caller: vec![0; steps], agent: vec![0; steps] };
    let mut at = 0_u64;
    decode(ogg, &extent, &mut |samples| {
        for pair in samples.chunks_exact(2) {
            let place = usize::try_from(at / step).unwrap_or(usize::MAX);
            for (side, sample) in [&mut peaks.caller, &mut peaks.agent].into_iter().zip(pair) {
                if let Some(peak) = side.get_mut(place) {
                    let loud = (sample.unsigned_abs() / 128).min(255) as u8;
                    *peak = (*peak).max(loud);
                }
            }
            at += 1;
        }
        Ok(())
    })?;
    Ok(peaks)
}

/// Writes a recording as a stereo WAV file of 16 kHz: caller left, agent right.
pub(crate) fn write_wav(ogg: &[u8], out: &mut dyn Write) -> Result<(), PlayError> {
    let extent = extent(ogg)?;
    write_wav_header(extent.total / UPSAMPLED, out)?;
    let mut bytes = Vec::with_capacity(4 * FRAME as usize);
    decode(ogg, &extent, &mut |samples| {
        bytes.clear();
        samples.iter().for_each(|sample| bytes.extend_from_slice(&sample.to_le_bytes()));
        Ok(out.write_all(&bytes)?)
    })?;
    Ok(out.flush()?)
}

/// Hands out what is heard, in pairs of samples of 16 kHz.
fn decode(
    ogg: &[u8],
    extent: &Extent,
    heard_out: &mut dyn FnMut(&[i16]) -> Result<(), PlayError>,
) -> Result<(), PlayError> {
    let mut left = extent.total / UPSAMPLED;
    let mut decoder = MSDecoder::new(SAMPLE_RATE, 2, 0, &MAPPING)?;
    let mut reader = PacketReader::new(Cursor::new(ogg));
    reader.read_packet_expected()?;
    reader.read_packet_expected()?;
    let mut skip = extent.pre_skip / UPSAMPLED;
    let mut samples = [0_i16; 2 * FRAME as usize];
    while let Some(packet) = reader.read_packet()? {
        let count = decoder.decode(&packet.data, &mut samples, false)? as u64;
        let skipped = skip.min(count);
        skip -= skipped;
        let heard = (count - skipped).min(left);
        left -= heard;
        heard_out(&samples[skipped as usize * 2..(skipped + heard) as usize * 2])?;
    }
    Ok(())
}

fn write_wav_header(samples: u64, out: &mut dyn Write) -> Result<(), PlayError> {
    let bytes = samples.checked_mul(4).and_then(|bytes| u32::try_from(bytes).ok());
    let bytes = bytes.filter(|bytes| *bytes <= u32::MAX - 36).ok_or(PlayError::TooLong)?;
    let mut header = b"RIFF".to_vec();
    header.extend_from_slice(&(bytes + 36).to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&16_u32.to_le_bytes());
    header.extend_from_slice(&1_u16.to_le_bytes());
    header.extend_from_slice(&2_u16.to_le_bytes());
    header.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
    header.extend_from_slice(&(SAMPLE_RATE * 4).to_le_bytes());
    header.extend_from_slice(&4_u16.to_le_bytes());
    header.extend_from_slice(&16_u16.to_le_bytes());
    header.extend_from_slice(b"data");
    header.extend_from_slice(&bytes.to_le_bytes());
    Ok(out.write_all(&header)?)
}

#[cfg(test)]
mod tests {
    use super::super::encode::OggOpus;
    use super::*;

    /// A tone of `frequency` for one side, silence for the other.
    fn encoded(frames: usize, finish: bool, side: usize) -> Vec<u8> {
        let mut encoder = OggOpus::new(7).unwrap();
        for frame in 0..frames {
            let mut pcm = [0_i16; 640];
            for at in 0..320 {
                let phase = (frame * 320 + at) as f64 * 440.0 * std::f64::consts::TAU / 16_000.0;
                pcm[at * 2 + side] = (phase.sin() * 12_000.0) as i16;
            }
            encoder.frame(&pcm).unwrap();
        }
        if finish {
            encoder.finish().unwrap();
        }
        encoder.take()
    }

    fn decoded(ogg: &[u8]) -> Vec<(f64, f64)> {
        let mut wav = Vec::new();
        write_wav(ogg, &mut wav).unwrap();
        assert_eq!(u32::from_le_bytes(wav[40..44].try_into().unwrap()) as usize, wav.len() - 44);
        let sample = |bytes: &[u8]| f64::from(i16::from_le_bytes([bytes[0], bytes[1]]));
        wav[44..].chunks(4).map(|pair| (sample(pair), sample(&pair[2..]))).collect()
    }

    #[test]
    fn a_finished_recording_is_as_long_as_what_went_in() {
        for frames in [1, 19, 20, 21, 100] {
            let ogg = encoded(frames, true, 0);
            assert_eq!(duration_ms(&ogg), frames as u64 * 20);
            assert_eq!(decoded(&ogg).len(), frames * 320);
        }
    }

    #[test]
    fn an_unfinished_recording_plays_up_to_its_last_page() {
        let ogg = encoded(59, false, 0);
        let heard = decoded(&ogg).len();
        assert!((50 * 320 - 320..=50 * 320).contains(&heard), "{heard}");
    }

    #[test]
    fn a_voice_is_heard_on_its_own_side_only() {
        for side in [0, 1] {
            let samples = decoded(&encoded(50, true, side));
            let energy = |pick: fn(&(f64, f64)) -> f64| {
                samples.iter().map(|pair| pick(pair) * pick(pair)).sum::<f64>()
            };
            let (left, right) = (energy(|pair| pair.0), energy(|pair| pair.1));
            let (own, other) = if side == 0 { (left, right) } else { (right, left) };
            assert!(own / samples.len() as f64 > 3_000_f64.powi(2), "side {side}: {own}");
            assert!(own > other * 1e6, "side {side}: {own} against {other}");
        }
    }

    #[test]
    fn the_tone_comes_back_at_its_own_time() {
        let samples = decoded(&encoded(50, true, 0));
        // Against the source, the best match must be at no shift: the pre-skip is right.
        let source: Vec<f64> = (0..samples.len())
            .map(|at| (at as f64 * 440.0 * std::f64::consts::TAU / 16_000.0).sin())
            .collect();
        let match_at = |shift: usize| -> f64 {
            (4_000..12_000).map(|at| source[at] * samples[at + shift - 9].0).sum()
        };
        let best = (0..18).max_by(|a, b| match_at(*a).total_cmp(&match_at(*b))).unwrap();
        assert!((7..=11).contains(&best), "shifted by {} samples", best as i64 - 9);
    }

    #[test]
    fn peaks_show_who_spoke_and_when() {
        let ogg = encoded(100, true, 1);
        let shown = peaks(&ogg, 50).unwrap();
        assert_eq!((shown.duration_ms, shown.caller.len(), shown.agent.len()), (2_000, 50, 50));
        assert!(shown.agent[1..].iter().all(|peak| (80..=110).contains(peak)), "{shown:?}");
        assert!(shown.caller.iter().all(|peak| *peak < 2), "{shown:?}");
        // Never more steps than samples, and never none of something.
        assert_eq!(peaks(&encoded(1, true, 0), 1_000).unwrap().caller.len(), 320);
        assert_eq!(peaks(b"", 10).unwrap(), Peaks::default());
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(write_wav(b"OggS, but not really", &mut Vec::new()).is_err());
        assert_eq!(duration_ms(b""), 0);
    }
}
