//! WAV files: read what a caller says, write what it hears. PCM of 16 bits only.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use audio::{Resampler, SampleRate};
use base::limit::LOADGEN_AUDIO_MS;

use crate::script::RATE;

/// Why a file is no WAV that can be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WavError {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Larger than limit `loadgen.audio_ms` allows at the highest rate, or longer than it.
    #[error("the file holds more than {} ms (limit loadgen.audio_ms)", LOADGEN_AUDIO_MS.value)]
    TooLong,
    /// Not a RIFF file of type WAVE.
    #[error("the file is no WAV: it does not begin with RIFF....WAVE")]
    NotWav,
    /// A part of the file ends before its own length.
    #[error("the file ends in the middle of its `{0}` part")]
    Truncated(&'static str),
    /// A part is missing.
    #[error("the file has no `{0}` part")]
    Missing(&'static str),
    /// Not PCM.
    #[error("the file is not PCM (format {0:#06x}); convert it to 16-bit PCM")]
    NotPcm(u16),
    /// Not 16 bits.
    #[error("the file has {0} bits per sample; only 16 are read")]
    Bits(u16),
    /// Too many channels.
    #[error("the file has {0} channels; only 1 and 2 are read")]
    Channels(u16),
    /// A rate that is not known here.
    #[error(
        "the file has {0} samples per second; only 8000, 16000, 24000, 32000 and 48000 are read"
    )]
    Rate(u32),
    /// There is no audio in it.
    #[error("the file holds no audio")]
    Empty,
}

/// Reads a WAV file as 16 kHz mono PCM; two channels are mixed into one.
///
/// # Errors
/// See [`WavError`].
pub fn read(path: &Path) -> Result<Arc<[i16]>, WavError> {
    // Two channels of 16 bits at 48 kHz, and some room for other parts.
    let most = LOADGEN_AUDIO_MS.value * 192 + 1_048_576;
    if std::fs::metadata(path)?.len() > most {
        return Err(WavError::TooLong);
    }
    parse(&std::fs::read(path)?)
}

/// Reads the bytes of a WAV file; see [`read`].
///
/// # Errors
/// See [`WavError`].
pub fn parse(bytes: &[u8]) -> Result<Arc<[i16]>, WavError> {
    let parts = match (bytes.get(..4), bytes.get(8..12)) {
        (Some(b"RIFF"), Some(b"WAVE")) => &bytes[12..],
        _ => return Err(WavError::NotWav),
    };
    let mut format = None;
    let mut rest = parts;
    while let Some((head, body)) = rest.split_at_checked(8) {
        let size = word(head, 4).unwrap_or(0) as usize;
        match &head[..4] {
            b"fmt " => {
                let body = body.get(..size).ok_or(WavError::Truncated("fmt"))?;
                format = Some(Format::parse(body)?);
            }
            b"data" => {
                let format = format.ok_or(WavError::Missing("fmt"))?;
                // Programs that write to a pipe do not know the length and leave 0 or the largest
                // number; the data then goes on to the end.
                let data = match size {
                    0 => body,
                    size => &body[..size.min(body.len())],
                };
                return format.read(data);
            }
            _ => {}
        }
        // Parts are padded to an even length.
        let padded = size.saturating_add(size % 2);
        rest = body.get(padded..).unwrap_or_default();
    }
    Err(WavError::Missing(if format.is_some() { "data" } else { "fmt" }))
}

#[derive(Clone, Copy)]
struct Format {
    rate: SampleRate,
    channels: usize,
}

const FORMAT_PCM: u16 = 1;
const FORMAT_EXTENSIBLE: u16 = 0xfffe;

impl Format {
    fn parse(body: &[u8]) -> Result<Self, WavError> {
        let truncated = || WavError::Truncated("fmt");
        let half = |at| half_word(body, at).ok_or_else(truncated);
        let format = match half(0)? {
            // The true format begins its GUID.
            FORMAT_EXTENSIBLE => half(24)?,
            format => format,
        };
        if format != FORMAT_PCM {
            return Err(WavError::NotPcm(format));
        }
        let channels = match half(2)? {
            channels @ 1..=2 => usize::from(channels),
            other => return Err(WavError::Channels(other)),
        };
        let hz = word(body, 4).ok_or_else(truncated)?;
        let rate = SampleRate::from_hz(hz).ok_or(WavError::Rate(hz))?;
        match half(14)? {
            16 => Ok(Self { rate, channels }),
            bits => Err(WavError::Bits(bits)),
        }
    }

    fn read(self, data: &[u8]) -> Result<Arc<[i16]>, WavError> {
        let frames = data.chunks_exact(2 * self.channels);
        let seconds_max = LOADGEN_AUDIO_MS.get() / 1000;
        if frames.len() > seconds_max.saturating_mul(self.rate.hz() as usize) {
            return Err(WavError::TooLong);
        }
        let sample = |bytes: &[u8]| i32::from(i16::from_le_bytes([bytes[0], bytes[1]]));
        let mono = frames.map(|frame| {
            let sum: i32 = frame.chunks_exact(2).map(sample).sum();
            // The mean of two samples is one again.
            (sum / self.channels as i32) as i16
        });
        let mut pcm: Vec<i16> = mono.collect();
        if pcm.is_empty() {
            return Err(WavError::Empty);
        }
        if self.rate == SampleRate::Hz16000 {
            return Ok(pcm.into());
        }
        let mut resampler = Resampler::new(self.rate, SampleRate::Hz16000);
        let delay = resampler.delay();
        let length = resampler.output_len(pcm.len());
        // What the filter holds back comes out behind some silence.
        pcm.resize(pcm.len() + self.rate.samples(10), 0);
        let mut out = vec![0; resampler.output_len(pcm.len())];
        let written = resampler.process(&pcm, &mut out).unwrap_or(0);
        let end = (delay + length).min(written);
        Ok(out.get(delay..end).unwrap_or_default().into())
    }
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|it| u16::from_le_bytes([it[0], it[1]]))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]))
}

/// The bytes before the samples.
const HEADER_BYTES: u32 = 44;

/// Writes a 16 kHz mono WAV as it goes; a call's audio is never held in memory.
pub(crate) struct Writer {
    file: BufWriter<File>,
    data_bytes: u32,
}

impl Writer {
    /// Creates the file, or empties it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 16, File::create(path)?);
        file.write_all(&header(0))?;
        Ok(Self { file, data_bytes: 0 })
    }

    /// Appends samples; a call ends long before 2^32 bytes.
    pub(crate) fn write(&mut self, pcm: &[i16]) -> io::Result<()> {
        for sample in pcm {
            self.file.write_all(&sample.to_le_bytes())?;
        }
        let bytes = u32::try_from(2 * pcm.len()).unwrap_or(u32::MAX);
        self.data_bytes = self.data_bytes.saturating_add(bytes);
        Ok(())
    }

    /// Writes the lengths into the header.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header(self.data_bytes))?;
        self.file.flush()
    }
}

fn header(data_bytes: u32) -> [u8; HEADER_BYTES as usize] {
    let rate = RATE as u32;
    let mut out = [0; HEADER_BYTES as usize];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"RIFF");
    put(4, &data_bytes.saturating_add(HEADER_BYTES - 8).to_le_bytes());
    put(8, b"WAVEfmt ");
    put(16, &16u32.to_le_bytes());
    put(20, &FORMAT_PCM.to_le_bytes());
    put(22, &1u16.to_le_bytes());
    put(24, &rate.to_le_bytes());
    put(28, &(2 * rate).to_le_bytes());
    put(32, &2u16.to_le_bytes());
    put(34, &16u16.to_le_bytes());
    put(36, b"data");
    put(40, &data_bytes.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rate: u32, channels: u16, bits: u16, format: u16, data: &[i16]) -> Vec<u8> {
        let mut out = header(2 * data.len() as u32).to_vec();
        out[20..22].copy_from_slice(&format.to_le_bytes());
        out[22..24].copy_from_slice(&channels.to_le_bytes());
        out[24..28].copy_from_slice(&rate.to_le_bytes());
        out[34..36].copy_from_slice(&bits.to_le_bytes());
        out.extend(data.iter().flat_map(|sample| sample.to_le_bytes()));
        out
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heard.wav");
        let mut writer = Writer::create(&path).unwrap();
        writer.write(&[1, -2, 3]).unwrap();
        writer.write(&[i16::MIN]).unwrap();
        writer.finish().unwrap();
        assert_eq!(*read(&path).unwrap(), [1, -2, 3, i16::MIN]);
    }

    #[test]
    fn two_channels_are_mixed_and_8_khz_becomes_16() {
        let stereo = file(16_000, 2, 16, 1, &[100, 200, i16::MIN, i16::MIN]);
        assert_eq!(*parse(&stereo).unwrap(), [150, i16::MIN]);
        let narrow = parse(&file(8000, 1, 16, 1, &[1000; 800])).unwrap();
        assert_eq!(narrow.len(), 1600);
        assert!(narrow[400..1200].iter().all(|sample| (990..1010).contains(sample)));
    }

    #[test]
    fn a_pipe_leaves_the_length_open_and_other_parts_are_passed_over() {
        for open in [0u32, u32::MAX] {
            let mut bytes = file(16_000, 1, 16, 1, &[5; 10]);
            bytes[40..44].copy_from_slice(&open.to_le_bytes());
            assert_eq!(parse(&bytes).unwrap().len(), 10);
        }
        let mut bytes = file(16_000, 1, 16, 1, &[5; 10]);
        bytes.splice(12..12, *b"LIST\x03\0\0\0abc\0");
        assert_eq!(parse(&bytes).unwrap().len(), 10);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        assert!(said(b"ID3\x04 an mp3 file").contains("no WAV"));
        assert!(said(&file(16_000, 1, 16, 3, &[1])).contains("not PCM (format 0x0003)"));
        assert!(said(&file(16_000, 1, 8, 1, &[1])).contains("8 bits"));
        assert!(said(&file(16_000, 6, 16, 1, &[1])).contains("6 channels"));
        assert!(said(&file(44_100, 1, 16, 1, &[1])).contains("44100"));
        assert!(said(&file(16_000, 1, 16, 1, &[])).contains("no audio"));
        let whole = file(16_000, 1, 16, 1, &[1; 4]);
        assert!(said(&whole[..30]).contains("middle of its `fmt` part"));
        assert!(said(&whole[..36]).contains("no `data` part"));
        for end in 0..whole.len() {
            let _ = parse(&whole[..end]);
        }
    }
}
