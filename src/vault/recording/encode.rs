//! Ogg Opus (RFC 7845) with two *uncoupled* mono streams: channel mapping family 1, so that
//! neither voice leaks into the other's channel, which joint stereo at these rates would do.

use ogg::{PacketWriteEndInfo, PacketWriter};
use opus::{Application, Bitrate, MSEncoder};
use thiserror::Error;

use super::SAMPLE_RATE;
use super::mix::Frame;

/// Frames in a page: 200 ms. A page is what is sealed and written at a time.
pub(crate) const PAGE: u64 = 10;
/// 48 kHz samples in a frame; Ogg Opus counts in 48 kHz whatever goes in (RFC 7845 section 4).
pub(crate) const FRAME_48K: u64 = 960;
/// How many 48 kHz samples one of ours is.
pub(crate) const UPSAMPLED: u64 = (48_000 / SAMPLE_RATE) as u64;
/// Which stream each channel is: the first is the caller's, the second the agent's.
pub(crate) const MAPPING: [u8; 2] = [0, 1];
/// Both voices together, in bit/s.
const BITRATE: i32 = 48_000;
/// Two packets of at most 1275 bytes and their lengths.
const PACKET_BYTES_MAX: usize = 2_600;

/// The encoder or the page writer failed.
#[derive(Debug, Error)]
pub(crate) enum EncodeError {
    #[error(transparent)]
    Opus(#[from] opus::Error),
    #[error(transparent)]
    Ogg(#[from] std::io::Error),
}

/// Turns frames into pages.
pub(crate) struct OggOpus {
    encoder: MSEncoder,
    pages: PacketWriter<'static, Vec<u8>>,
    serial: u32,
    pre_skip: u64,
    packets: u64,
}

impl OggOpus {
    /// An encoder; the two header pages are the first that it gives.
    pub(crate) fn new(serial: u32) -> Result<Self, EncodeError> {
        let mut encoder = MSEncoder::new(SAMPLE_RATE, 2, 0, &MAPPING, Application::Voip)?;
        encoder.set_bitrate(Bitrate::Bits(BITRATE))?;
        encoder.set_complexity(5)?;
        let lookahead = u64::try_from(encoder.get_lookahead()?).unwrap_or(0);
        let pre_skip = lookahead * UPSAMPLED;
        let mut pages = PacketWriter::new(Vec::new());
        pages.write_packet(head(pre_skip), serial, PacketWriteEndInfo::EndPage, 0)?;
        pages.write_packet(tags(), serial, PacketWriteEndInfo::EndPage, 0)?;
        Ok(Self { encoder, pages, serial, pre_skip, packets: 0 })
    }

    /// Encodes a frame; whether a page is complete now.
    pub(crate) fn frame(&mut self, frame: &Frame) -> Result<bool, EncodeError> {
        let is_full = (self.packets + 1).is_multiple_of(PAGE);
        let end =
            if is_full { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
        self.write(frame, end, (self.packets + 1) * FRAME_48K)?;
        Ok(is_full)
    }

    /// Ends the stream: what the encoder still holds, trimmed to the true length by the last
    /// granule position (RFC 7845 section 4.4).
    pub(crate) fn finish(&mut self) -> Result<(), EncodeError> {
        let total = self.packets * FRAME_48K + self.pre_skip;
        let silence: Frame = [0; 640];
        while (self.packets + 1) * FRAME_48K < total {
            let granule = (self.packets + 1) * FRAME_48K;
            self.write(&silence, PacketWriteEndInfo::NormalPacket, granule)?;
        }
        self.write(&silence, PacketWriteEndInfo::EndStream, total)
    }

    fn write(
        &mut self,
        frame: &Frame,
        end: PacketWriteEndInfo,
        granule: u64,
    ) -> Result<(), EncodeError> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let length = self.encoder.encode(frame, &mut packet)?;
        packet.truncate(length);
        self.pages.write_packet(packet, self.serial, end, granule)?;
        self.packets += 1;
        Ok(())
    }

    /// The pages that are complete.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.pages.inner_mut())
    }

    /// Milliseconds given so far; to be asked before [`Self::finish`].
    pub(crate) const fn duration_ms(&self) -> u64 {
        self.packets * 20
    }
}

/// RFC 7845 section 5.1.
fn head(pre_skip: u64) -> Vec<u8> {
    let mut head = b"OpusHead".to_vec();
    head.extend_from_slice(&[1, 2]);
    head.extend_from_slice(&u16::try_from(pre_skip).unwrap_or(u16::MAX).to_le_bytes());
    head.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
    head.extend_from_slice(&0_u16.to_le_bytes());
    // Mapping family 1, two streams, none coupled.
    head.extend_from_slice(&[1, 2, 0]);
    head.extend_from_slice(&MAPPING);
    head
}

/// RFC 7845 section 5.2; says nothing about the call.
fn tags() -> Vec<u8> {
    let vendor = b"callgate";
    let mut tags = b"OpusTags".to_vec();
    tags.extend_from_slice(&(vendor.len() as u32).to_le_bytes());
    tags.extend_from_slice(vendor);
    tags.extend_from_slice(&0_u32.to_le_bytes());
    tags
}
