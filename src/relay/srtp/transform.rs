//! The two transforms, in place: AES counter mode with HMAC-SHA1 (RFC 3711 section 4) and
//! AES-GCM (RFC 7714). Keys are expanded once; a packet costs no allocation.
//!
//! A transform knows neither sequence numbers nor replay: it is told the index.

use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128Enc, Block};
use aws_lc_rs::aead;
use rtp::sdes::Suite;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::SrtpError;
use super::derive::SessionKeys;
use super::mac::KeyedSha1;
use crate::driver::ahead::prefetch;

/// Blocks of key stream made at once: a packet of 20 ms of G.711 has ten.
const PARALLEL: usize = 16;

/// Longest tag of any suite.
const TAG_MAX: usize = 16;

/// RTCP's tag has 80 bits in both counter mode suites (RFC 4568 section 6.2).
const RTCP_MAC: usize = 10;

/// Which packet a transform works on, for its nonce.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) ssrc: u32,
    /// 48 bits for RTP, 31 for RTCP.
    pub(super) index: u64,
}

/// Keys in use, for RTP or for RTCP of one direction.
pub(super) enum Transform {
    Counter(Box<CounterMode>),
    Gcm(Box<Gcm>),
}

impl Transform {
    pub(super) fn new(suite: Suite, keys: &SessionKeys, rtcp: bool) -> Result<Self, SrtpError> {
        Ok(match suite {
            Suite::AesCm128HmacSha1_80 => Self::Counter(CounterMode::new(keys, 10)?),
            Suite::AesCm128HmacSha1_32 => {
                Self::Counter(CounterMode::new(keys, if rtcp { RTCP_MAC } else { 4 })?)
            }
            Suite::AeadAes128Gcm => Self::Gcm(Gcm::new(keys, &aead::AES_128_GCM)?),
            Suite::AeadAes256Gcm => Self::Gcm(Gcm::new(keys, &aead::AES_256_GCM)?),
        })
    }

    /// Asks for the expanded keys.
    pub(super) fn prefetch(&self) {
        match self {
            Self::Counter(mode) => prefetch(&**mode),
            Self::Gcm(gcm) => prefetch(&**gcm),
        }
    }

    pub(super) fn tag_length(&self) -> usize {
        match self {
            Self::Counter(mode) => mode.tag_length,
            Self::Gcm(_) => TAG_MAX,
        }
    }

    /// Protects `packet[header..length]`; the tag follows at `length`. Returns the new length.
    pub(super) fn protect_rtp(
        &self,
        place: Place,
        packet: &mut [u8],
        header: usize,
        length: usize,
    ) -> Result<usize, SrtpError> {
        let end = length + self.tag_length();
        let packet = packet.get_mut(..end).ok_or(SrtpError::NoRoom)?;
        let (text, tag) = packet.split_at_mut(length);
        let (clear, secret) = text.split_at_mut_checked(header).ok_or(SrtpError::Malformed)?;
        match self {
            Self::Counter(mode) => {
                mode.cipher(place, secret)?;
                // The tag covers the packet and the roll-over counter (RFC 3711 section 4.2).
                let roll_over = ((place.index >> 16) as u32).to_be_bytes();
                tag.copy_from_slice(&mode.mac.sign(text, &roll_over)[..mode.tag_length]);
            }
            Self::Gcm(gcm) => tag.copy_from_slice(gcm.seal_rtp(place, clear, secret)?.as_ref()),
        }
        Ok(end)
    }

    /// Checks and deciphers a whole SRTP packet. Returns its length without the tag.
    pub(super) fn unprotect_rtp(
        &self,
        place: Place,
        packet: &mut [u8],
        header: usize,
    ) -> Result<usize, SrtpError> {
        let length = packet.len().checked_sub(self.tag_length()).ok_or(SrtpError::Malformed)?;
        if length < header {
            return Err(SrtpError::Malformed);
        }
        let (text, tag) = packet.split_at_mut(length);
        match self {
            Self::Counter(mode) => {
                let roll_over = ((place.index >> 16) as u32).to_be_bytes();
                mode.verify(text, &roll_over, tag)?;
                mode.cipher(place, &mut text[header..])?;
            }
            Self::Gcm(gcm) => {
                let (clear, secret) = text.split_at_mut(header);
                gcm.open(gcm.rtp_nonce(place), clear, secret, tag)?;
            }
        }
        Ok(length)
    }

    /// Protects an RTCP packet of `length` bytes in place. Returns the new length.
    pub(super) fn protect_rtcp(
        &self,
        place: Place,
        packet: &mut [u8],
        length: usize,
    ) -> Result<usize, SrtpError> {
        let end = length + 4 + self.tag_length();
        let packet = packet.get_mut(..end).ok_or(SrtpError::NoRoom)?;
        if length < 8 {
            return Err(SrtpError::Malformed);
        }
        // The first bit says that the packet is enciphered (RFC 3711 section 3.4).
        let word = (place.index as u32 | 1 << 31).to_be_bytes();
        match self {
            Self::Counter(mode) => {
                mode.cipher(place, &mut packet[8..length])?;
                packet[length..length + 4].copy_from_slice(&word);
                let (text, tag) = packet.split_at_mut(length + 4);
                tag.copy_from_slice(&mode.mac.sign(text, &[])[..mode.tag_length]);
            }
            Self::Gcm(gcm) => {
                // The tag stands before the index word (RFC 7714 section 9.2).
                let (clear, rest) = packet.split_at_mut(8);
                let (secret, rest) = rest.split_at_mut(length - 8);
                let (tag, word_out) = rest.split_at_mut(TAG_MAX);
                word_out.copy_from_slice(&word);
                let aad = rtcp_aad(clear, word);
                tag.copy_from_slice(gcm.seal(gcm.rtcp_nonce(place), &aad, secret)?.as_ref());
            }
        }
        Ok(end)
    }

    /// Checks and deciphers a whole SRTCP packet. Returns the RTCP packet's length.
    pub(super) fn unprotect_rtcp(
        &self,
        place: Place,
        packet: &mut [u8],
    ) -> Result<usize, SrtpError> {
        let length = packet.len().checked_sub(self.tag_length() + 4).filter(|length| *length >= 8);
        let length = length.ok_or(SrtpError::Malformed)?;
        match self {
            Self::Counter(mode) => {
                let (text, tag) = packet.split_at_mut(length + 4);
                mode.verify(text, &[], tag)?;
                mode.cipher(place, &mut text[8..length])?;
            }
            Self::Gcm(gcm) => {
                let (clear, rest) = packet.split_at_mut(8);
                let (secret, rest) = rest.split_at_mut(length - 8);
                let (tag, _) = rest.split_at_mut(TAG_MAX);
                let word = (place.index as u32 | 1 << 31).to_be_bytes();
                gcm.open(gcm.rtcp_nonce(place), &rtcp_aad(clear, word), secret, tag)?;
            }
        }
        Ok(length)
    }
}

/// The index of an SRTCP packet, unproven; refuses one that is not enciphered, since we never
/// agree on that.
pub(super) fn rtcp_index(suite: Suite, packet: &[u8]) -> Result<u64, SrtpError> {
    let behind = match suite {
        Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => RTCP_MAC,
        Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 0,
    };
    let at = packet.len().checked_sub(4 + behind);
    let word = at.and_then(|at| packet.get(at..)?.first_chunk::<4>());
    let word = u32::from_be_bytes(*word.ok_or(SrtpError::Malformed)?);
    if word >> 31 == 0 {
        return Err(SrtpError::Unencrypted);
    }
    Ok(u64::from(word & 0x7fff_ffff))
}

/// What GCM authenticates of an RTCP packet besides its text (RFC 7714 section 9.2).
fn rtcp_aad(clear: &[u8], word: [u8; 4]) -> [u8; 12] {
    let mut aad = [0; 12];
    aad[..8].copy_from_slice(clear);
    aad[8..].copy_from_slice(&word);
    aad
}

/// AES-128 in counter mode and HMAC-SHA1.
pub(super) struct CounterMode {
    aes: Aes128Enc,
    mac: KeyedSha1,
    salt: Salt,
    tag_length: usize,
}

/// A session salt, wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Salt([u8; 14]);

impl CounterMode {
    fn new(keys: &SessionKeys, tag_length: usize) -> Result<Box<Self>, SrtpError> {
        Ok(Box::new(Self {
            aes: Aes128Enc::new_from_slice(keys.cipher()).map_err(|_| SrtpError::BadKey)?,
            mac: KeyedSha1::new(&keys.authentication),
            salt: Salt(keys.salt),
            tag_length,
        }))
    }

    /// Adds the key stream; its own inverse.
    fn cipher(&self, place: Place, text: &mut [u8]) -> Result<(), SrtpError> {
        // IV = (salt * 2^16) XOR (SSRC * 2^64) XOR (index * 2^16), RFC 3711 section 4.1.1.
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt.0);
        xor(&mut iv[4..8], &place.ssrc.to_be_bytes());
        xor(&mut iv[8..14], &place.index.to_be_bytes()[2..]);
        // The block counter is the last 16 bits, which suffice for 1 MiB.
        let mut counter = 0u16;
        for chunk in text.chunks_mut(16 * PARALLEL) {
            let mut blocks = [Block::default(); PARALLEL];
            let count = chunk.len().div_ceil(16);
            for block in &mut blocks[..count] {
                block.copy_from_slice(&iv);
                block[14..].copy_from_slice(&counter.to_be_bytes());
                counter = counter.checked_add(1).ok_or(SrtpError::Malformed)?;
            }
            self.aes.encrypt_blocks(&mut blocks[..count]);
            let (whole, rest) = chunk.as_chunks_mut::<16>();
            for (text, block) in whole.iter_mut().zip(&blocks) {
                let key: [u8; 16] = (*block).into();
                *text = (u128::from_ne_bytes(*text) ^ u128::from_ne_bytes(key)).to_ne_bytes();
            }
            if let Some(block) = blocks.get(whole.len()) {
                xor(rest, block);
            }
        }
        Ok(())
    }

    /// Compares in constant time.
    fn verify(&self, text: &[u8], index: &[u8], tag: &[u8]) -> Result<(), SrtpError> {
        let expected = self.mac.sign(text, index);
        let expected = expected.get(..tag.len()).ok_or(SrtpError::NotAuthentic)?;
        aws_lc_rs::constant_time::verify_slices_are_equal(expected, tag)
            .map_err(|_| SrtpError::NotAuthentic)
    }
}

/// AES-GCM with a tag of 16 bytes.
pub(super) struct Gcm {
    key: aead::LessSafeKey,
    salt: Salt,
}

impl Gcm {
    fn new(
        keys: &SessionKeys,
        algorithm: &'static aead::Algorithm,
    ) -> Result<Box<Self>, SrtpError> {
        let key = aead::UnboundKey::new(algorithm, keys.cipher()).map_err(|_| SrtpError::BadKey)?;
        Ok(Box::new(Self { key: aead::LessSafeKey::new(key), salt: Salt(keys.salt) }))
    }

    /// 0 || SSRC || index (48 bits), XOR the salt (RFC 7714 section 8.1).
    fn rtp_nonce(&self, place: Place) -> aead::Nonce {
        self.nonce(place.ssrc, &place.index.to_be_bytes()[2..])
    }

    /// 0 || SSRC || 0 || index (32 bits), XOR the salt (RFC 7714 section 9.1).
    fn rtcp_nonce(&self, place: Place) -> aead::Nonce {
        self.nonce(place.ssrc, &(place.index & 0x7fff_ffff).to_be_bytes()[2..])
    }

    fn nonce(&self, ssrc: u32, index: &[u8]) -> aead::Nonce {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&self.salt.0[..12]);
        xor(&mut nonce[2..6], &ssrc.to_be_bytes());
        xor(&mut nonce[6..], index);
        aead::Nonce::assume_unique_for_key(nonce)
    }

    fn seal_rtp(&self, place: Place, aad: &[u8], text: &mut [u8]) -> Result<aead::Tag, SrtpError> {
        self.seal(self.rtp_nonce(place), aad, text)
    }

    fn seal(
        &self,
        nonce: aead::Nonce,
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<aead::Tag, SrtpError> {
        self.key
            .seal_in_place_separate_tag(nonce, aead::Aad::from(aad), text)
            .map_err(|_| SrtpError::Malformed)
    }

    fn open(
        &self,
        nonce: aead::Nonce,
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), SrtpError> {
        self.key
            .open_in_place_separate_tag(nonce, aead::Aad::from(aad), tag, text)
            .map(|_| ())
            .map_err(|_| SrtpError::NotAuthentic)
    }
}

fn xor(into: &mut [u8], other: &[u8]) {
    into.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srtp::hex;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn the_key_stream_of_rfc_3711_appendix_b_2() {
        let keys = SessionKeys::given(
            &hex("2b7e151628aed2a6abf7158809cf4f3c"),
            &hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd"),
        );
        let mut text = [0; 48];
        let place = Place { ssrc: 0, index: 0 };
        CounterMode::new(&keys, 10).unwrap().cipher(place, &mut text).unwrap();
        let expected = "e03ead0935c95e80e166b16dd92b4eb4\
                        d23513162b02d0f72a43a2fe4a5f97ab\
                        41e95b3bb0a2e8dd477901e4fca894c0";
        assert_eq!(text.to_vec(), hex(expected));
    }

    fn gcm(suite: Suite, key_length: usize) -> Transform {
        let key = &hex(KEY)[..key_length];
        let keys = SessionKeys::given(key, &hex("517569642070726f2071756f"));
        Transform::new(suite, &keys, false).unwrap()
    }

    #[test]
    fn the_rtp_packets_of_rfc_7714_section_16() {
        let plain = hex("8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e6973206469766973\
                         6120696e207061727465732074726573");
        let of_128 = "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f\
                      42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce";
        let of_256 = "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3\
                      b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13";
        let place = Place { ssrc: 0x5501_a0b2, index: 0xf17b };
        for (suite, key_length, expected) in
            [(Suite::AeadAes128Gcm, 16, of_128), (Suite::AeadAes256Gcm, 32, of_256)]
        {
            let transform = gcm(suite, key_length);
            let mut packet = plain.clone();
            packet.resize(plain.len() + TAG_MAX, 0);
            transform.protect_rtp(place, &mut packet, 12, plain.len()).unwrap();
            assert_eq!(packet, hex(expected));
            let length = transform.unprotect_rtp(place, &mut packet, 12).unwrap();
            assert_eq!(packet[..length], plain);
        }
    }

    #[test]
    fn the_rtcp_packets_of_rfc_7714_section_17() {
        let plain = hex("81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
                         deadbeefdeadbeefdeadbeefdeadbeefdeadbeef");
        let of_128 = "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1\
                      730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4";
        let of_256 = "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1\
                      110555be8415f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4";
        let place = Place { ssrc: 0x4d61_7273, index: 0x5d4 };
        for (suite, key_length, expected) in
            [(Suite::AeadAes128Gcm, 16, of_128), (Suite::AeadAes256Gcm, 32, of_256)]
        {
            let transform = gcm(suite, key_length);
            let mut packet = plain.clone();
            packet.resize(plain.len() + TAG_MAX + 4, 0);
            transform.protect_rtcp(place, &mut packet, plain.len()).unwrap();
            assert_eq!(packet, hex(expected));
            assert_eq!(rtcp_index(suite, &packet), Ok(0x5d4));
            let length = transform.unprotect_rtcp(place, &mut packet).unwrap();
            assert_eq!(packet[..length], plain);
        }
    }
}
