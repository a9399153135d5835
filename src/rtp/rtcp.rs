//! RTCP (RFC 3550 section 6): reading compound packets, and writing reports and goodbyes.

use core::time::Duration;

use base::WallTime;
use base::limit::RTP_PACKET_BYTES;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;

/// SDES item type of the canonical name (RFC 3550 section 6.5.1).
pub const CNAME: u8 = 1;

/// Why bytes are no RTCP, or why a report cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtcpError {
    /// Shorter than its own lengths say, or empty.
    #[error("truncated")]
    Truncated,
    /// Longer than limit `rtp.packet_bytes`.
    #[error("over limit rtp.packet_bytes")]
    TooLong,
    /// Not version 2, or not an RTCP packet type.
    #[error("not RTCP version 2")]
    NotRtcp,
    /// Padding on another packet than the last, or of a bad length.
    #[error("bad padding")]
    Padding,
    /// The target buffer is too small.
    #[error("buffer too small")]
    NoRoom,
    /// More than 31 blocks, or a text that is empty or longer than 255 bytes.
    #[error("a field is out of range")]
    OutOfRange,
}

/// A point in time as NTP has it: seconds since 1900 and their fraction, 32 bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NtpTime(pub u64);

/// Seconds from 1900 to 1970.
const NTP_UNIX_OFFSET: u64 = 2_208_988_800;

impl NtpTime {
    /// The middle 32 bits, as reports repeat them (RFC 3550 section 4).
    #[must_use]
    pub const fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The point on the wall clock; seconds below 1970 are taken for the era that begins in 2036.
    #[must_use]
    pub const fn to_wall(self) -> WallTime {
        let (seconds, fraction) = (self.0 >> 32, self.0 & 0xffff_ffff);
        let seconds = if seconds < NTP_UNIX_OFFSET { seconds + (1 << 32) } else { seconds };
        WallTime::from_unix_millis((seconds - NTP_UNIX_OFFSET) * 1000 + ((fraction * 1000) >> 32))
    }
}

impl From<WallTime> for NtpTime {
    fn from(wall: WallTime) -> Self {
        let millis = wall.unix_millis();
        let seconds = (millis / 1000).wrapping_add(NTP_UNIX_OFFSET) & 0xffff_ffff;
        // Rounded up, so that the way back gives the same millisecond.
        let fraction = ((millis % 1000) << 32).div_ceil(1000);
        Self(seconds << 32 | fraction)
    }
}

/// What a sender says of itself in a sender report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// When the report was sent.
    pub ntp: NtpTime,
    /// The same point on the RTP clock.
    pub rtp_timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
}

/// What a receiver says of one source (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Share lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the start; 24 bits, signed.
    pub lost: i32,
    /// Extended highest sequence number received.
    pub highest_sequence: u32,
    /// Interarrival jitter, in timestamp units.
    pub jitter: u32,
    /// Middle bits of the last sender report's time; 0 for none.
    pub last_sender_report: u32,
    /// Time since it arrived, in 1/65536 s.
    pub delay_since_last: u32,
}

const BLOCK_BYTES: usize = 24;

impl ReportBlock {
    /// The round trip that this block about us tells when it arrives at `now`; `None` where its
    /// sender had no report of ours, or where the clocks make no sense (RFC 3550 section 6.4.1).
    #[must_use]
    pub fn round_trip(&self, now: NtpTime) -> Option<Duration> {
        if self.last_sender_report == 0 {
            return None;
        }
        let units =
            now.middle().wrapping_sub(self.last_sender_report).wrapping_sub(self.delay_since_last);
        // More than half the range is a negative number: the peer overstates its delay.
        (units < 1 << 31).then(|| Duration::from_micros((u64::from(units) * 1_000_000) >> 16))
    }

    fn parse(bytes: &[u8]) -> Self {
        let word = |index: usize| be32(bytes, 4 * index);
        Self {
            ssrc: word(0),
            fraction_lost: bytes[4],
            // Shifted up and down to extend the sign of 24 bits.
            lost: ((word(1) << 8) as i32) >> 8,
            highest_sequence: word(2),
            jitter: word(3),
            last_sender_report: word(4),
            delay_since_last: word(5),
        }
    }

    fn write(&self, out: &mut Writer<'_>) -> Result<(), RtcpError> {
        let lost = self.lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        let words = [
            self.ssrc,
            u32::from(self.fraction_lost) << 24 | lost,
            self.highest_sequence,
            self.jitter,
            self.last_sender_report,
            self.delay_since_last,
        ];
        words.into_iter().try_for_each(|word| out.put(&word.to_be_bytes()))
    }
}

/// One packet of a compound.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Rtcp<'a> {
    /// A sender or receiver report.
    Report {
        /// Who reports.
        ssrc: u32,
        /// What it says of itself; `None` in a receiver report.
        sender: Option<SenderInfo>,
        /// What it says of others.
        blocks: ReportBlocks<'a>,
    },
    /// Source descriptions.
    SourceDescription(SdesItems<'a>),
    /// Sources that leave.
    Goodbye(Goodbye<'a>),
    /// Feedback, extended reports and others that are passed over.
    Other {
        /// The packet type.
        packet_type: u8,
    },
}

/// A validated sequence of RTCP packets: a compound, or the reduced size of RFC 5506.
#[derive(Clone, Copy, Debug)]
pub struct Compound<'a> {
    bytes: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Checks every packet.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtcpError> {
        if bytes.len() > RTP_PACKET_BYTES.get() {
            return Err(RtcpError::TooLong);
        }
        if bytes.is_empty() {
            return Err(RtcpError::Truncated);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, rest) = split_packet(rest)?;
        }
        Ok(Self { bytes })
    }

    /// The packets.
    pub fn packets(&self) -> impl Iterator<Item = Rtcp<'a>> + use<'a> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let (packet, after) = split_packet(rest).ok()?;
            rest = after;
            Some(packet)
        })
    }
}

/// Blocks of a report.
#[derive(Clone, Debug)]
pub struct ReportBlocks<'a>(&'a [u8]);

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.0.split_at_checked(BLOCK_BYTES)?;
        self.0 = rest;
        Some(ReportBlock::parse(block))
    }
}

/// `(ssrc, item type, text)` of a source description; stops at the first item that does not fit.
#[derive(Clone, Debug)]
pub struct SdesItems<'a> {
    rest: &'a [u8],
    ssrc: Option<u32>,
    /// Bytes of the packet before `rest`, to find 32-bit boundaries.
    offset: usize,
}

impl<'a> Iterator for SdesItems<'a> {
    type Item = (u32, u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(ssrc) = self.ssrc else {
                let head = self.take(4)?;
                self.ssrc = Some(be32(head, 0));
                continue;
            };
            let kind = self.take(1)?[0];
            if kind == 0 {
                // RFC 3550 section 6.5: nulls up to the next 32-bit boundary end a chunk.
                self.ssrc = None;
                self.take(self.offset.wrapping_neg() & 3)?;
                continue;
            }
            let len = usize::from(self.take(1)?[0]);
            return Some((ssrc, kind, self.take(len)?));
        }
    }
}

impl<'a> SdesItems<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            self.rest = &[];
            return None;
        };
        (self.rest, self.offset) = (rest, self.offset + len);
        Some(head)
    }
}

/// Sources that leave (RFC 3550 section 6.6).
#[derive(Clone, Debug)]
pub struct Goodbye<'a> {
    ssrcs: &'a [u8],
    /// Why, as sent; not trusted to be UTF-8.
    pub reason: Option<&'a [u8]>,
}

impl<'a> Goodbye<'a> {
    /// The sources.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.ssrcs.chunks_exact(4).map(|chunk| be32(chunk, 0))
    }
}

/// A report to write: SR or RR, then SDES with the canonical name, then BYE if wanted. Every
/// compound begins with a report and names its source (RFC 3550 section 6.1).
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Who reports.
    pub ssrc: u32,
    /// What we sent; `None` makes it a receiver report.
    pub sender: Option<SenderInfo>,
    /// What we received, at most 31.
    pub blocks: &'a [ReportBlock],
    /// The canonical name, 1-255 bytes; random per call, so that it identifies nobody (RFC 7022).
    pub cname: &'a str,
    /// Whether we leave.
    pub goodbye: bool,
}

impl Report<'_> {
    /// Writes the compound to the front of `out` and returns its length.
    ///
    /// # Errors
    /// [`RtcpError::NoRoom`], or [`RtcpError::OutOfRange`] for blocks or name.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, RtcpError> {
        let blocks = u8::try_from(self.blocks.len()).ok().filter(|count| *count <= 31);
        let name_len = u8::try_from(self.cname.len()).ok().filter(|len| *len > 0);
        let (Some(blocks), Some(name_len)) = (blocks, name_len) else {
            return Err(RtcpError::OutOfRange);
        };
        let mut out = Writer { out, len: 0 };

        let kind = if self.sender.is_some() { SENDER_REPORT } else { RECEIVER_REPORT };
        let start = out.begin(blocks, kind)?;
        out.put(&self.ssrc.to_be_bytes())?;
        if let Some(sender) = &self.sender {
            out.put(&sender.ntp.0.to_be_bytes())?;
            out.put(&sender.rtp_timestamp.to_be_bytes())?;
            out.put(&sender.packets.to_be_bytes())?;
            out.put(&sender.octets.to_be_bytes())?;
        }
        self.blocks.iter().try_for_each(|block| block.write(&mut out))?;
        out.end(start);

        let start = out.begin(1, SOURCE_DESCRIPTION)?;
        out.put(&self.ssrc.to_be_bytes())?;
        out.put(&[CNAME, name_len])?;
        out.put(self.cname.as_bytes())?;
        // One null at least ends the chunk.
        out.put(&[0; 4][..4 - out.len % 4])?;
        out.end(start);

        if self.goodbye {
            let start = out.begin(1, GOODBYE)?;
            out.put(&self.ssrc.to_be_bytes())?;
            out.end(start);
        }
        Ok(out.len)
    }
}

struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), RtcpError> {
        let end = self.len + bytes.len();
        self.out.get_mut(self.len..end).ok_or(RtcpError::NoRoom)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    fn begin(&mut self, count: u8, kind: u8) -> Result<usize, RtcpError> {
        let start = self.len;
        self.put(&[0x80 | count, kind, 0, 0])?;
        Ok(start)
    }

    /// Sets the length of the packet that began at `start`; it is below 31 blocks.
    fn end(&mut self, start: usize) {
        let words = ((self.len - start) / 4 - 1) as u16;
        self.out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
    }
}

fn split_packet(bytes: &[u8]) -> Result<(Rtcp<'_>, &[u8]), RtcpError> {
    let &[first, packet_type, high, low, ..] = bytes else { return Err(RtcpError::Truncated) };
    // RFC 5761 section 4: RTCP packet types are 192-223.
    if first >> 6 != 2 || !(192..=223).contains(&packet_type) {
        return Err(RtcpError::NotRtcp);
    }
    let len = 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
    let (packet, rest) = bytes.split_at_checked(len).ok_or(RtcpError::Truncated)?;
    let mut body = &packet[4..];
    if first & 0x20 != 0 {
        // RFC 3550 section 6.4.1: only the last packet of a compound is padded, in words of 4.
        let count = usize::from(body.last().copied().unwrap_or(0));
        if !rest.is_empty() || count == 0 || count % 4 != 0 || count > body.len() {
            return Err(RtcpError::Padding);
        }
        body = &body[..body.len() - count];
    }
    Ok((parse_body(packet_type, usize::from(first & 0x1f), body)?, rest))
}

fn parse_body(packet_type: u8, count: usize, body: &[u8]) -> Result<Rtcp<'_>, RtcpError> {
    let take = |from: usize, len: usize| body.get(from..from + len).ok_or(RtcpError::Truncated);
    Ok(match packet_type {
        SENDER_REPORT => {
            let head = take(0, 24)?;
            let sender = SenderInfo {
                ntp: NtpTime(u64::from(be32(head, 4)) << 32 | u64::from(be32(head, 8))),
                rtp_timestamp: be32(head, 12),
                packets: be32(head, 16),
                octets: be32(head, 20),
            };
            let blocks = ReportBlocks(take(24, count * BLOCK_BYTES)?);
            Rtcp::Report { ssrc: be32(head, 0), sender: Some(sender), blocks }
        }
        RECEIVER_REPORT => {
            let blocks = ReportBlocks(take(4, count * BLOCK_BYTES)?);
            Rtcp::Report { ssrc: be32(take(0, 4)?, 0), sender: None, blocks }
        }
        SOURCE_DESCRIPTION => {
            Rtcp::SourceDescription(SdesItems { rest: body, ssrc: None, offset: 0 })
        }
        GOODBYE => {
            let ssrcs = take(0, 4 * count)?;
            let reason = match body.get(4 * count) {
                Some(len) => Some(take(4 * count + 1, usize::from(*len))?),
                None => None,
            };
            Rtcp::Goodbye(Goodbye { ssrcs, reason })
        }
        packet_type => Rtcp::Other { packet_type },
    })
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
#[path = "rtcp_tests.rs"]
mod tests;
