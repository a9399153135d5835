//! Sealing: AES-256-GCM over single messages and over streams of chunks.
//!
//! **Why no nonce is used twice.** A *message* is sealed under a key of its own, derived from the
//! data key and a random 256-bit salt; that key seals once, with nonce zero. A *stream*'s key is
//! derived from its data key and the hash of its header, which holds a random object id; a
//! [`StreamSealer`] counts its chunks, gives each number out once and cannot be built anew for a
//! stream that has begun. Recovery, which closes a stream that lost its writer, uses nonces of
//! its own whose plaintext is always empty, so that closing twice seals the same bytes.
//!
//! **What a stream tells.** Its last chunk says how it ended: `Final` (complete) or `Closed`
//! (unfinished: recovery ended it). A stream without either is in progress or was truncated;
//! only whoever knows whether a writer is alive can tell these two apart.
//!
//! It does not decide which key seals what: see [`crate::key`].

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base::{Secret, limit};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const MESSAGE_VERSION: u8 = 1;
const STREAM_VERSION: u8 = 1;
const STREAM_MAGIC: &[u8; 4] = b"CGVS";
/// Length and kind in front of each chunk's ciphertext.
const FRAME_BYTES: usize = 5;
/// Bytes of an object id.
pub(crate) const OBJECT_ID_BYTES: usize = 16;

/// Bytes could not be sealed: the system's randomness or cipher failed, or the input is over
/// limit `vault.chunk_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("sealing failed")]
pub struct SealError;

/// Why sealed bytes were not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnsealError {
    /// Not in this format.
    #[error("not sealed by this program, or by a newer version of it")]
    Format,
    /// The wrong key, the wrong place, or changed bytes.
    #[error("the seal is broken: wrong key, wrong place or changed bytes")]
    Forged,
}

/// 256 bits that seal one object or wrap other keys; wiped when dropped.
#[derive(Clone, Debug)]
pub struct DataKey(Secret<[u8; KEY_BYTES]>);

impl DataKey {
    /// A key from the operating system's randomness.
    pub fn random() -> Result<Self, SealError> {
        let mut key = Self(Secret::new([0; KEY_BYTES]));
        aws_lc_rs::rand::fill(key.0.expose_mut()).map_err(|_| SealError)?;
        Ok(key)
    }

    /// The key with these bytes, which are wiped; `None` where they are not 32.
    #[must_use]
    pub fn from_bytes(bytes: &mut [u8]) -> Option<Self> {
        let key = <[u8; KEY_BYTES]>::try_from(&*bytes).ok().map(|key| Self(Secret::new(key)));
        bytes.zeroize();
        key
    }

    /// The key itself, for a KMS to wrap.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        self.0.expose()
    }

    /// A key for one `purpose`, a constant that is unique in the program.
    pub(crate) fn derive(&self, purpose: &'static str) -> Self {
        Self(Secret::new(blake3::derive_key(purpose, self.expose())))
    }

    /// A key for one `purpose` and one public `value`.
    fn derive_with(&self, purpose: &'static str, value: &[u8]) -> Self {
        let purpose_key = self.derive(purpose);
        Self(Secret::new(*blake3::keyed_hash(purpose_key.expose(), value).as_bytes()))
    }

    fn cipher(&self) -> Result<LessSafeKey, SealError> {
        let key = UnboundKey::new(&AES_256_GCM, self.expose()).map_err(|_| SealError)?;
        Ok(LessSafeKey::new(key))
    }

    fn message_cipher(&self, salt: &[u8]) -> Result<LessSafeKey, SealError> {
        self.derive_with("callgate 2026 vault message v1", salt).cipher()
    }
}

/// Each part with its length in front, so that no two contexts give the same bytes.
fn message_context(context: &[&[u8]]) -> Vec<u8> {
    let mut aad = vec![MESSAGE_VERSION];
    for part in context {
        aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
        aad.extend_from_slice(part);
    }
    aad
}

/// Seals one message. `context` names its place (object, kind, number): the message opens only
/// with the same one. `plain` is wiped.
pub(crate) fn seal(
    key: &DataKey,
    context: &[&[u8]],
    plain: &mut [u8],
) -> Result<Vec<u8>, SealError> {
    let mut salt = [0; SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| SealError)?;
    let tag = key
        .message_cipher(&salt)?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(message_context(context)),
            plain,
        )
        .map_err(|_| SealError)?;
    let mut sealed = Vec::with_capacity(1 + SALT_BYTES + plain.len() + TAG_BYTES);
    sealed.push(MESSAGE_VERSION);
    sealed.extend_from_slice(&salt);
    sealed.extend_from_slice(plain);
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// Opens what [`seal`] made at the same place.
pub(crate) fn unseal(
    key: &DataKey,
    context: &[&[u8]],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
    let (version, rest) = sealed.split_first().ok_or(UnsealError::Format)?;
    if *version != MESSAGE_VERSION {
        return Err(UnsealError::Format);
    }
    let (salt, body) = rest.split_at_checked(SALT_BYTES).ok_or(UnsealError::Format)?;
    let cipher = key.message_cipher(salt).map_err(|_| UnsealError::Forged)?;
    let mut plain = Zeroizing::new(body.to_vec());
    let length = cipher
        .open_in_place(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(message_context(context)),
            &mut plain,
        )
        .map_err(|_| UnsealError::Forged)?
        .len();
    plain.truncate(length);
    Ok(plain)
}

/// What a chunk is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    /// Others follow.
    More = 0,
    /// The last one of a complete stream.
    Final = 1,
    /// Empty; recovery put it behind the last chunk of a stream whose writer died.
    Closed = 2,
}

impl ChunkKind {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::More),
            1 => Some(Self::Final),
            2 => Some(Self::Closed),
            _ => None,
        }
    }

    /// The nonce of chunk `number`: one series for the writer, one for recovery.
    fn nonce(self, number: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[0] = u8::from(matches!(self, Self::Closed));
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

/// What stands in front of a stream's chunks: magic, version, object id, wrapped key.
#[derive(Clone, Debug)]
pub(crate) struct StreamHeader {
    /// The object.
    pub(crate) object: [u8; OBJECT_ID_BYTES],
    /// Its data key, wrapped.
    pub(crate) wrapped_key: Vec<u8>,
}

impl StreamHeader {
    /// The header as bytes.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, SealError> {
        let length = u16::try_from(self.wrapped_key.len()).map_err(|_| SealError)?;
        let mut bytes = Vec::with_capacity(23 + self.wrapped_key.len());
        bytes.extend_from_slice(STREAM_MAGIC);
        bytes.push(STREAM_VERSION);
        bytes.extend_from_slice(&self.object);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.wrapped_key);
        Ok(bytes)
    }

    /// The header at the start of `bytes`, and its length.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, usize), UnsealError> {
        let rest = bytes.strip_prefix(STREAM_MAGIC).ok_or(UnsealError::Format)?;
        let (version, rest) = rest.split_first().ok_or(UnsealError::Format)?;
        if *version != STREAM_VERSION {
            return Err(UnsealError::Format);
        }
        let (object, rest) = rest.split_first_chunk().ok_or(UnsealError::Format)?;
        let (length, rest) = rest.split_first_chunk().ok_or(UnsealError::Format)?;
        let wrapped = rest
            .get(..usize::from(u16::from_be_bytes(*length)))
            .ok_or(UnsealError::Format)?
            .to_vec();
        let used = bytes.len() - rest.len() + wrapped.len();
        Ok((Self { object: *object, wrapped_key: wrapped }, used))
    }
}

struct StreamCipher {
    cipher: LessSafeKey,
    object: [u8; OBJECT_ID_BYTES],
}

impl StreamCipher {
    fn new(key: &DataKey, header: &StreamHeader) -> Result<Self, SealError> {
        let hash = blake3::hash(&header.to_bytes()?);
        let key = key.derive_with("callgate 2026 vault stream v1", hash.as_bytes());
        Ok(Self { cipher: key.cipher()?, object: header.object })
    }

    /// Associated data: object id, chunk number, kind.
    fn context(&self, number: u64, kind: ChunkKind) -> Aad<[u8; OBJECT_ID_BYTES + 9]> {
        let mut aad = [0; OBJECT_ID_BYTES + 9];
        aad[..OBJECT_ID_BYTES].copy_from_slice(&self.object);
        aad[OBJECT_ID_BYTES..OBJECT_ID_BYTES + 8].copy_from_slice(&number.to_be_bytes());
        aad[OBJECT_ID_BYTES + 8] = kind as u8;
        Aad::from(aad)
    }

    fn seal(&self, number: u64, kind: ChunkKind, plain: &mut [u8]) -> Result<Vec<u8>, SealError> {
        let length = plain.len() + TAG_BYTES;
        if length > limit::VAULT_CHUNK_BYTES.get() {
            return Err(SealError);
        }
        let tag = self
            .cipher
            .seal_in_place_separate_tag(kind.nonce(number), self.context(number, kind), plain)
            .map_err(|_| SealError)?;
        let mut frame = Vec::with_capacity(FRAME_BYTES + length);
        frame.extend_from_slice(&(length as u32).to_be_bytes());
        frame.push(kind as u8);
        frame.extend_from_slice(plain);
        frame.extend_from_slice(tag.as_ref());
        Ok(frame)
    }
}

/// Seals a stream's chunks in order.
pub(crate) struct StreamSealer {
    cipher: StreamCipher,
    number: u64,
}

impl StreamSealer {
    /// A sealer for a stream that has no chunk yet. `key` and `header` are used for no other.
    pub(crate) fn new(key: &DataKey, header: &StreamHeader) -> Result<Self, SealError> {
        Ok(Self { cipher: StreamCipher::new(key, header)?, number: 0 })
    }

    /// The next chunk, framed and sealed; `plain` is overwritten.
    pub(crate) fn chunk(&mut self, last: bool, plain: &mut [u8]) -> Result<Vec<u8>, SealError> {
        let number = self.number;
        // Counted before sealing: a number whose sealing failed is not given out again.
        self.number = self.number.checked_add(1).ok_or(SealError)?;
        let kind = if last { ChunkKind::Final } else { ChunkKind::More };
        self.cipher.seal(number, kind, plain)
    }

    /// Chunks sealed so far.
    pub(crate) const fn chunks(&self) -> u64 {
        self.number
    }
}

/// The chunk that closes a stream of `chunks` chunks whose writer died.
pub(crate) fn closing_chunk(
    key: &DataKey,
    header: &StreamHeader,
    chunks: u64,
) -> Result<Vec<u8>, SealError> {
    StreamCipher::new(key, header)?.seal(chunks, ChunkKind::Closed, &mut [])
}

/// Why reading a stream stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ChunkError {
    /// The bytes end within chunk `.0`.
    #[error("chunk {0} is cut off")]
    Torn(u64),
    /// Chunk `.0` is not what was sealed at this place.
    #[error("chunk {0} was changed, moved or belongs to another object")]
    Forged(u64),
    /// Bytes follow the last chunk.
    #[error("bytes follow the last chunk")]
    Trailing,
}

/// Opens a stream's chunks in order.
pub(crate) struct StreamOpener<'a> {
    cipher: StreamCipher,
    rest: &'a [u8],
    number: u64,
    end: Option<ChunkKind>,
}

impl<'a> StreamOpener<'a> {
    /// An opener for `chunks`, the bytes after the header.
    pub(crate) fn new(
        key: &DataKey,
        header: &StreamHeader,
        chunks: &'a [u8],
    ) -> Result<Self, UnsealError> {
        let cipher = StreamCipher::new(key, header).map_err(|_| UnsealError::Forged)?;
        Ok(Self { cipher, rest: chunks, number: 0, end: None })
    }

    /// The next chunk's content; `None` where the bytes end, see [`Self::end`].
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, ChunkError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.end.is_some() {
            return Err(ChunkError::Trailing);
        }
        let number = self.number;
        let (frame, rest) =
            self.rest.split_first_chunk::<FRAME_BYTES>().ok_or(ChunkError::Torn(number))?;
        let [l0, l1, l2, l3, kind] = *frame;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let kind = ChunkKind::from_byte(kind).ok_or(ChunkError::Forged(number))?;
        if length > limit::VAULT_CHUNK_BYTES.get() {
            return Err(ChunkError::Forged(number));
        }
        let (body, rest) = rest.split_at_checked(length).ok_or(ChunkError::Torn(number))?;
        let mut plain = Zeroizing::new(body.to_vec());
        let length = self
            .cipher
            .cipher
            .open_in_place(kind.nonce(number), self.cipher.context(number, kind), &mut plain)
            .map_err(|_| ChunkError::Forged(number))?
            .len();
        plain.truncate(length);
        self.rest = rest;
        if kind != ChunkKind::More {
            self.end = Some(kind);
        }
        if kind == ChunkKind::Closed {
            return if rest.is_empty() { Ok(None) } else { Err(ChunkError::Trailing) };
        }
        self.number += 1;
        Ok(Some(plain))
    }

    /// How the stream ended; `None` where no last chunk was seen.
    pub(crate) const fn end(&self) -> Option<ChunkKind> {
        self.end
    }

    /// Chunks opened so far.
    pub(crate) const fn chunks(&self) -> u64 {
        self.number
    }

    /// Bytes not opened yet.
    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> DataKey {
        DataKey::from_bytes(&mut [byte; 32]).unwrap()
    }

    fn header(object: u8) -> StreamHeader {
        StreamHeader { object: [object; 16], wrapped_key: vec![7; 40] }
    }

    fn stream(object: u8, chunks: &[&[u8]], last: bool) -> Vec<Vec<u8>> {
        let mut sealer = StreamSealer::new(&key(1), &header(object)).unwrap();
        let count = chunks.len();
        chunks
            .iter()
            .enumerate()
            .map(|(at, plain)| sealer.chunk(last && at + 1 == count, &mut plain.to_vec()).unwrap())
            .collect()
    }

    /// Opens everything that opens: the contents and how it stopped.
    fn open(object: u8, bytes: &[u8]) -> (Vec<Vec<u8>>, Result<Option<ChunkKind>, ChunkError>) {
        let mut opener = StreamOpener::new(&key(1), &header(object), bytes).unwrap();
        let mut contents = Vec::new();
        loop {
            match opener.next_chunk() {
                Ok(Some(plain)) => contents.push(plain.to_vec()),
                Ok(None) => return (contents, Ok(opener.end())),
                Err(error) => return (contents, Err(error)),
            }
        }
    }

    #[test]
    fn a_message_opens_only_at_its_own_place_and_with_its_own_key() {
        let sealed = seal(&key(1), &[b"turn", b"1"], &mut b"hello".to_vec()).unwrap();
        assert_eq!(&**unseal(&key(1), &[b"turn", b"1"], &sealed).unwrap(), b"hello");
        for (wrong_key, context) in
            [(key(1), [&b"turn"[..], b"2"]), (key(1), [b"turn1", b""]), (key(2), [b"turn", b"1"])]
        {
            assert_eq!(unseal(&wrong_key, &context, &sealed), Err(UnsealError::Forged));
        }
    }

    #[test]
    fn no_byte_of_a_sealed_message_can_be_changed() {
        let sealed = seal(&key(1), &[b"x"], &mut b"hello".to_vec()).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(unseal(&key(1), &[b"x"], &changed).is_err(), "byte {at}");
            assert!(unseal(&key(1), &[b"x"], &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_same_message_never_seals_to_the_same_bytes() {
        let one = seal(&key(1), &[b"x"], &mut b"hello".to_vec()).unwrap();
        let two = seal(&key(1), &[b"x"], &mut b"hello".to_vec()).unwrap();
        assert_ne!(one[33..], two[33..]);
    }

    #[test]
    fn a_complete_stream_an_unfinished_one_and_a_truncated_one_are_told_apart() {
        let complete = stream(9, &[b"one", b"two"], true);
        assert_eq!(open(9, &complete.concat()).1, Ok(Some(ChunkKind::Final)));

        let mut unfinished = stream(9, &[b"one", b"two"], false).concat();
        unfinished.extend(closing_chunk(&key(1), &header(9), 2).unwrap());
        let (contents, end) = open(9, &unfinished);
        assert_eq!(end, Ok(Some(ChunkKind::Closed)));
        assert_eq!(contents, [b"one", b"two"]);

        assert_eq!(open(9, &complete[0]).1, Ok(None));
        let torn = &complete.concat()[..complete[0].len() + 3];
        assert_eq!(open(9, torn).1, Err(ChunkError::Torn(1)));
        // A closing chunk cannot be moved forward to hide a cut.
        let mut hidden = complete[0].clone();
        hidden.extend(closing_chunk(&key(1), &header(9), 2).unwrap());
        assert_eq!(open(9, &hidden).1, Err(ChunkError::Forged(1)));
    }

    #[test]
    fn chunks_cannot_be_swapped_within_a_stream_or_between_two() {
        let a = stream(9, &[b"one", b"two", b"end"], true);
        let b = stream(8, &[b"one", b"two", b"end"], true);
        let swapped = [&a[1][..], &a[0], &a[2]].concat();
        assert_eq!(open(9, &swapped).1, Err(ChunkError::Forged(0)));
        let mixed = [&a[0][..], &b[1], &a[2]].concat();
        assert_eq!(open(9, &mixed).1, Err(ChunkError::Forged(1)));
        let dropped = [&a[0][..], &a[2]].concat();
        assert_eq!(open(9, &dropped).1, Err(ChunkError::Forged(1)));
        let doubled = [&a[0][..], &a[1], &a[2], &a[2]].concat();
        assert_eq!(open(9, &doubled).1, Err(ChunkError::Trailing));
    }

    #[test]
    fn a_header_survives_the_round_trip_and_refuses_other_formats() {
        let bytes = header(3).to_bytes().unwrap();
        let (parsed, used) = StreamHeader::parse(&[&bytes[..], b"rest"].concat()).unwrap();
        assert_eq!((parsed.object, used), ([3; 16], bytes.len()));
        assert_eq!(parsed.wrapped_key, [7; 40]);
        for cut in 0..bytes.len() {
            assert!(StreamHeader::parse(&bytes[..cut]).is_err());
        }
    }
}
