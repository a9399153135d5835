//! RTP packets (RFC 3550 section 5.1) as views over bytes: reading, writing and changing in place.

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 12;

const VERSION: u8 = 2;

/// Why bytes are no RTP packet, or why one does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Shorter than its headers say.
    #[error("truncated")]
    Truncated,
    /// Not version 2.
    #[error("not version 2")]
    Version,
    /// The padding count is zero or larger than the payload.
    #[error("bad padding")]
    Padding,
    /// The target buffer is too small.
    #[error("buffer too small")]
    NoRoom,
}

/// A validated packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    header_len: usize,
    padding: usize,
}

impl<'a> Packet<'a> {
    /// Reads a plain packet.
    ///
    /// # Errors
    /// Where lengths, version or padding contradict each other.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let mut packet = Self::parse_protected(bytes)?;
        if bytes[0] & 0x20 != 0 {
            // RFC 3550 section 5.1: the last octet counts the padding, itself included.
            let count = usize::from(bytes[bytes.len() - 1]);
            if count == 0 || count > bytes.len() - packet.header_len {
                return Err(PacketError::Padding);
            }
            packet.padding = count;
        }
        Ok(packet)
    }

    /// Reads an SRTP packet: the headers are in the clear, while padding is not, so that
    /// [`Self::payload`] is all that follows the headers, authentication tag included.
    ///
    /// # Errors
    /// As [`Self::parse`], except for padding.
    pub fn parse_protected(bytes: &'a [u8]) -> Result<Self, PacketError> {
        if bytes.len() < HEADER_BYTES {
            return Err(PacketError::Truncated);
        }
        if bytes[0] >> 6 != VERSION {
            return Err(PacketError::Version);
        }
        let mut header_len = HEADER_BYTES + 4 * usize::from(bytes[0] & 0x0f);
        if bytes[0] & 0x10 != 0 {
            let words = match bytes.get(header_len + 2..header_len + 4) {
                Some(length) => usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return Err(PacketError::Truncated),
            };
            header_len += 4 + 4 * words;
        }
        if bytes.len() < header_len {
            return Err(PacketError::Truncated);
        }
        Ok(Self { bytes, header_len, padding: 0 })
    }

    /// The marker bit; on audio, the first packet after silence.
    #[must_use]
    pub const fn marker(&self) -> bool {
        self.bytes[1] & 0x80 != 0
    }

    /// The payload type, 0-127.
    #[must_use]
    pub const fn payload_type(&self) -> u8 {
        self.bytes[1] & 0x7f
    }

    /// The sequence number.
    #[must_use]
    pub const fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// The timestamp, in units of the payload type's clock.
    #[must_use]
    pub const fn timestamp(&self) -> u32 {
        word(self.bytes, 4)
    }

    /// The sender's SSRC.
    #[must_use]
    pub const fn ssrc(&self) -> u32 {
        word(self.bytes, 8)
    }

    /// The contributing sources.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        let count = usize::from(self.bytes[0] & 0x0f);
        let bytes = self.bytes;
        (0..count).map(move |index| word(bytes, HEADER_BYTES + 4 * index))
    }

    /// The header extension: its profile word and its content.
    #[must_use]
    pub fn extension(&self) -> Option<(u16, &'a [u8])> {
        if self.bytes[0] & 0x10 == 0 {
            return None;
        }
        let start = HEADER_BYTES + 4 * usize::from(self.bytes[0] & 0x0f);
        let profile = u16::from_be_bytes([self.bytes[start], self.bytes[start + 1]]);
        Some((profile, &self.bytes[start + 4..self.header_len]))
    }

    /// The elements of an RFC 8285 header extension, in one-byte or two-byte form; none where
    /// there is no extension or it is of another kind.
    #[must_use]
    pub fn extension_elements(&self) -> ExtensionElements<'a> {
        match self.extension() {
            Some((0xbede, rest)) => ExtensionElements { rest, two_byte: false },
            // RFC 8285 section 4.3: 0x100 and four application bits.
            Some((profile, rest)) if profile & 0xfff0 == 0x1000 => {
                ExtensionElements { rest, two_byte: true }
            }
            _ => ExtensionElements { rest: &[], two_byte: false },
        }
    }

    /// Where the payload begins.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes of padding behind the payload.
    #[must_use]
    pub const fn padding(&self) -> usize {
        self.padding
    }

    /// The payload without padding.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..self.bytes.len() - self.padding]
    }
}

/// Iterates over `(id, content)` of an RFC 8285 header extension; stops at the first element that
/// does not fit.
#[derive(Clone, Debug)]
pub struct ExtensionElements<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> Iterator for ExtensionElements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            self.rest = rest;
            // RFC 8285 sections 4.2 and 4.3: id 0 is a byte of padding, without a length. In the
            // one-byte form that holds for the whole byte only.
            if first == 0 {
                continue;
            }
            let (id, len) = if self.two_byte {
                let (&len, rest) = self.rest.split_first()?;
                self.rest = rest;
                (first, usize::from(len))
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1)
            };
            // RFC 8285 section 4.2: one-byte id 15 ends the processing.
            if !self.two_byte && id == 15 || self.rest.len() < len {
                self.rest = &[];
                return None;
            }
            let (content, rest) = self.rest.split_at(len);
            self.rest = rest;
            if id != 0 {
                return Some((id, content));
            }
        }
    }
}

/// The fixed header, to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The marker bit.
    pub marker: bool,
    /// The payload type; only its low seven bits are written.
    pub payload_type: u8,
    /// The sequence number.
    pub sequence: u16,
    /// The timestamp.
    pub timestamp: u32,
    /// The SSRC.
    pub ssrc: u32,
}

impl Header {
    /// Writes the header and `payload` to the front of `out` and returns their length.
    ///
    /// # Errors
    /// [`PacketError::NoRoom`]
    pub fn write(&self, payload: &[u8], out: &mut [u8]) -> Result<usize, PacketError> {
        let len = HEADER_BYTES + payload.len();
        let out = out.get_mut(..len).ok_or(PacketError::NoRoom)?;
        out[..HEADER_BYTES].copy_from_slice(&self.to_bytes());
        out[HEADER_BYTES..].copy_from_slice(payload);
        Ok(len)
    }

    /// The header alone, without contributing sources, extension or padding.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0] = VERSION << 6;
        out[1] = u8::from(self.marker) << 7 | self.payload_type & 0x7f;
        out[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..].copy_from_slice(&self.ssrc.to_be_bytes());
        out
    }
}

/// A validated packet whose fixed header may be changed in place.
#[derive(Debug)]
pub struct PacketMut<'a> {
    bytes: &'a mut [u8],
}

impl<'a> PacketMut<'a> {
    /// Validates as [`Packet::parse`].
    ///
    /// # Errors
    /// As [`Packet::parse`].
    pub fn parse(bytes: &'a mut [u8]) -> Result<Self, PacketError> {
        Packet::parse(bytes)?;
        Ok(Self { bytes })
    }

    /// Sets the marker bit.
    pub const fn set_marker(&mut self, marker: bool) {
        self.bytes[1] = (marker as u8) << 7 | self.bytes[1] & 0x7f;
    }

    /// Sets the payload type; only its low seven bits count.
    pub const fn set_payload_type(&mut self, payload_type: u8) {
        self.bytes[1] = self.bytes[1] & 0x80 | payload_type & 0x7f;
    }

    /// Sets the sequence number.
    pub fn set_sequence(&mut self, sequence: u16) {
        self.bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
    }

    /// Sets the timestamp.
    pub fn set_timestamp(&mut self, timestamp: u32) {
        self.bytes[4..8].copy_from_slice(&timestamp.to_be_bytes());
    }

    /// Sets the SSRC.
    pub fn set_ssrc(&mut self, ssrc: u32) {
        self.bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
    }
}

const fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn plain(payload: &[u8]) -> Vec<u8> {
        let header = Header {
            marker: true,
            payload_type: 111,
            sequence: 0xfffe,
            timestamp: 0x0102_0304,
            ssrc: 0xdead_beef,
        };
        let mut out = vec![0; 200];
        let len = header.write(payload, &mut out).unwrap();
        out.truncate(len);
        out
    }

    fn with_extension(profile: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = plain(&[]);
        bytes[0] |= 0x10;
        bytes.extend(profile.to_be_bytes());
        bytes.extend(((content.len() / 4) as u16).to_be_bytes());
        bytes.extend(content);
        bytes.extend(b"audio");
        bytes
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = plain(b"audio");
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.marker());
        assert_eq!(packet.payload_type(), 111);
        assert_eq!(packet.sequence(), 0xfffe);
        assert_eq!(packet.timestamp(), 0x0102_0304);
        assert_eq!(packet.ssrc(), 0xdead_beef);
        assert_eq!(packet.payload(), b"audio");
        assert_eq!(packet.csrcs().count(), 0);
        assert_eq!(packet.extension(), None);
    }

    #[test]
    fn contributing_sources_stand_between_header_and_payload() {
        let mut bytes = plain(&[]);
        bytes[0] |= 2;
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 9]);
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.csrcs().eq([1, 2]));
        assert_eq!(packet.payload(), [9]);
        assert_eq!(Packet::parse(&bytes[..19]), Err(PacketError::Truncated));
    }

    #[test]
    fn padding_is_taken_off_and_must_fit() {
        let mut bytes = plain(&[7, 7, 0, 2]);
        bytes[0] |= 0x20;
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.payload(), packet.padding()), (&[7, 7][..], 2));
        assert_eq!(Packet::parse_protected(&bytes).unwrap().payload(), [7, 7, 0, 2]);
        for wrong in [0, 5, 255] {
            *bytes.last_mut().unwrap() = wrong;
            assert_eq!(Packet::parse(&bytes), Err(PacketError::Padding), "{wrong}");
        }
        *bytes.last_mut().unwrap() = 4;
        assert_eq!(Packet::parse(&bytes).unwrap().payload(), []);
    }

    #[test]
    fn one_byte_extensions_skip_padding_and_stop_at_id_15() {
        let bytes = with_extension(0xbede, &[0x10, 0xaa, 0, 0, 0x21, 1, 2, 0xf0, 0x30, 3, 0, 0]);
        let packet = Packet::parse(&bytes).unwrap();
        let found: Vec<_> = packet.extension_elements().collect();
        assert_eq!(found, [(1, &[0xaa][..]), (2, &[1, 2][..])]);
        assert_eq!(packet.payload(), b"audio");
    }

    #[test]
    fn two_byte_extensions_may_be_empty_and_must_fit() {
        let bytes = with_extension(0x1005, &[15, 0, 0, 200, 2, 5, 6, 9]);
        let found: Vec<_> = Packet::parse(&bytes).unwrap().extension_elements().collect();
        assert_eq!(found, [(15, &[][..]), (200, &[5, 6][..])]);
        let foreign = with_extension(0x1234, &[1, 1, 1, 1]);
        assert_eq!(Packet::parse(&foreign).unwrap().extension_elements().count(), 0);
    }

    #[test]
    fn an_extension_longer_than_the_packet_is_refused() {
        let mut bytes = with_extension(0xbede, &[0x10, 0xaa, 0, 0]);
        bytes[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        assert_eq!(Packet::parse(&bytes), Err(PacketError::Truncated));
        assert_eq!(Packet::parse(&bytes[..13]), Err(PacketError::Truncated));
    }

    #[test]
    fn a_relay_changes_the_header_in_place() {
        let mut bytes = plain(b"audio");
        let mut packet = PacketMut::parse(&mut bytes).unwrap();
        packet.set_marker(false);
        packet.set_payload_type(0xff);
        packet.set_sequence(5);
        packet.set_timestamp(6);
        packet.set_ssrc(7);
        let packet = Packet::parse(&bytes).unwrap();
        assert!(!packet.marker());
        assert_eq!(packet.payload_type(), 0x7f);
        assert_eq!((packet.sequence(), packet.timestamp(), packet.ssrc()), (5, 6, 7));
        assert_eq!(packet.payload(), b"audio");
    }

    #[test]
    fn a_small_buffer_is_an_error() {
        let header = Header { marker: false, payload_type: 0, sequence: 0, timestamp: 0, ssrc: 0 };
        assert_eq!(header.write(b"audio", &mut [0; 16]), Err(PacketError::NoRoom));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            first: u8,
            mut bytes in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Some(byte) = bytes.first_mut() {
                *byte = 0x80 | first & 0x3f;
            }
            let packets = [Packet::parse(&bytes), Packet::parse_protected(&bytes)];
            for packet in packets.iter().flatten() {
                let inside: usize = packet.extension_elements().map(|(_, it)| it.len()).sum();
                let total = packet.header_len() + packet.payload().len() + packet.padding();
                prop_assert!(total == bytes.len() && inside <= bytes.len());
                prop_assert!(packet.csrcs().count() <= 15);
            }
        }
    }
}
