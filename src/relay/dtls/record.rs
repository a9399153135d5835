//! Records of a datagram (RFC 6347 section 4.1) and the pieces of handshake messages in them
//! (section 4.2.2), as slices of what came. Nothing here is decrypted or believed.

/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 13;
/// Bytes of the header of a piece of a handshake message.
pub(crate) const MESSAGE_HEADER: usize = 12;

/// `change_cipher_spec`
pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
/// `alert`
pub(crate) const ALERT: u8 = 21;
/// `handshake`
pub(crate) const HANDSHAKE: u8 = 22;

/// The message `client_hello`.
pub(crate) const CLIENT_HELLO: u8 = 1;

/// A record with a whole header, whose length fits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// Content type.
    pub(crate) kind: u8,
    /// Protocol version, as it stands.
    pub(crate) version: u16,
    /// Epoch; what is above 0 is protected.
    pub(crate) epoch: u16,
    /// What the record carries.
    pub(crate) fragment: &'a [u8],
    /// The whole record.
    pub(crate) bytes: &'a [u8],
}

/// What stands next in a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next<'a> {
    /// A record.
    Record(Record<'a>),
    /// Protected records of DTLS 1.3 (RFC 9147 section 4), to the end of the datagram.
    Unified(&'a [u8]),
}

/// The records of a datagram; the rest after what does not add up is lost.
#[derive(Clone, Debug)]
pub(crate) struct Records<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Next<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        // RFC 9147 section 4.1: the first three bits of a unified header are 001.
        if bytes.first()? >> 5 == 1 {
            return Some(Next::Unified(bytes));
        }
        let header = bytes.first_chunk::<RECORD_HEADER>()?;
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        let (record, rest) = bytes.split_at_checked(RECORD_HEADER + length)?;
        self.0 = rest;
        Some(Next::Record(Record {
            kind: header[0],
            version: u16::from_be_bytes([header[1], header[2]]),
            epoch: u16::from_be_bytes([header[3], header[4]]),
            fragment: &record[RECORD_HEADER..],
            bytes: record,
        }))
    }
}

/// A piece of a handshake message, within its message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// Type of the message.
    pub(crate) kind: u8,
    /// Length of the whole message.
    pub(crate) length: usize,
    /// Number of the message.
    pub(crate) message: u16,
    /// Where in the message the piece begins.
    pub(crate) offset: usize,
    /// The piece.
    pub(crate) body: &'a [u8],
}

impl Piece<'_> {
    /// Whether the message ends with it.
    pub(crate) const fn is_last(&self) -> bool {
        self.offset + self.body.len() == self.length
    }
}

/// The pieces in a plaintext handshake record; the rest after what does not add up is lost.
#[derive(Clone, Debug)]
pub(crate) struct Pieces<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        let (header, rest) = bytes.split_first_chunk::<MESSAGE_HEADER>()?;
        let [kind, a, b, c, m, n, d, e, f, x, y, z] = *header;
        let (length, offset) = (u24([a, b, c]), u24([d, e, f]));
        let (body, rest) = rest.split_at_checked(u24([x, y, z]))?;
        self.0 = rest;
        let message = u16::from_be_bytes([m, n]);
        (offset + body.len() <= length).then_some(Piece { kind, length, message, offset, body })
    }
}

const fn u24([a, b, c]: [u8; 3]) -> usize {
    u32::from_be_bytes([0, a, b, c]) as usize
}

/// Appends a record of epoch 0 and DTLS 1.2.
pub(crate) fn write_record(out: &mut Vec<u8>, kind: u8, sequence: u64, fragment: &[&[u8]]) {
    let length: usize = fragment.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&[kind, 0xfe, 0xfd, 0, 0]);
    out.extend_from_slice(&sequence.to_be_bytes()[2..]);
    out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    fragment.iter().for_each(|part| out.extend_from_slice(part));
}

/// The header of a message in one piece.
pub(crate) fn message_header(kind: u8, message: u16, length: usize) -> [u8; MESSAGE_HEADER] {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let [m, n] = message.to_be_bytes();
    [kind, a, b, c, m, n, 0, 0, 0, a, b, c]
}

/// The SRTP protection profiles that a ClientHello offers (RFC 5764 section 4.1.1), in its order;
/// `None` where it offers none or does not add up.
pub(crate) fn offered_profiles(client_hello: &[u8]) -> Option<Vec<u16>> {
    // RFC 6347 section 4.2.1: version and random, then session, cookie, suites and compression.
    let rest = client_hello.get(2 + 32..)?;
    let rest = skip(skip(rest, 1)?, 1)?;
    let rest = skip(skip(rest, 2)?, 1)?;
    let mut extensions = vector(rest, 2)?.0;
    while let [a, b, rest @ ..] = extensions {
        let (value, rest) = vector(rest, 2)?;
        extensions = rest;
        if u16::from_be_bytes([*a, *b]) == USE_SRTP {
            let (profiles, _mki) = vector(value, 2)?;
            let profiles = profiles.chunks_exact(2);
            return Some(profiles.map(|it| u16::from_be_bytes([it[0], it[1]])).collect());
        }
    }
    None
}

/// The extension `use_srtp`.
const USE_SRTP: u16 = 14;

/// A vector behind its length of so many bytes, and what follows it.
fn vector(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

fn skip(bytes: &[u8], width: usize) -> Option<&[u8]> {
    vector(bytes, width).map(|(_, rest)| rest)
}
