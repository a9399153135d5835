//! Which protocol a datagram on a media port belongs to.

/// What the first bytes of a datagram say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// STUN (ICE checks and keep-alives).
    Stun,
    /// ZRTP.
    Zrtp,
    /// DTLS.
    Dtls,
    /// TURN channel data.
    Turn,
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
    /// None of these: empty, too short, or outside the ranges.
    Unknown,
}

/// Sorts a datagram by its first two bytes; the protocols' own parsers decide whether it is valid.
#[must_use]
pub const fn classify(datagram: &[u8]) -> Datagram {
    // RFC 7983 section 7.
    match datagram {
        [0..=3, ..] => Datagram::Stun,
        [16..=19, ..] => Datagram::Zrtp,
        [20..=63, ..] => Datagram::Dtls,
        [64..=79, ..] => Datagram::Turn,
        // RFC 5761 section 4: RTCP types 192-223 are RTP payload types 64-95 with the marker set,
        // which no profile assigns.
        [128..=191, 192..=223, ..] => Datagram::Rtcp,
        [128..=191, _, ..] => Datagram::Rtp,
        _ => Datagram::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_told_by_its_first_bytes() {
        for (bytes, expected) in [
            (&[][..], Datagram::Unknown),
            (&[0x80], Datagram::Unknown),
            (&[0x00, 0x01], Datagram::Stun),
            (&[0x16, 0xfe], Datagram::Dtls),
            (&[0x10, 0x00], Datagram::Zrtp),
            (&[0x40, 0x00], Datagram::Turn),
            (&[0x80, 0x00], Datagram::Rtp),
            (&[0x80, 0x80 | 111], Datagram::Rtp),
            (&[0x80, 0x80 | 63], Datagram::Rtp),
            (&[0x80, 200], Datagram::Rtcp),
            (&[0x81, 201], Datagram::Rtcp),
            (&[0x81, 224], Datagram::Rtp),
            (&[0xff, 0xff], Datagram::Unknown),
        ] {
            assert_eq!(classify(bytes), expected, "{bytes:x?}");
        }
    }
}
