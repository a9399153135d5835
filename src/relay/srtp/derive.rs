//! Session keys from a master key and salt (RFC 3711 section 4.3, key derivation rate 0).

use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128, Aes256, Block};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::SrtpError;

/// What a session key is for; the number is its label (RFC 3711 section 4.3.1).
#[derive(Clone, Copy)]
pub(super) enum Label {
    RtpCipher = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpCipher = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// The session keys of one direction, for RTP or for RTCP.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct SessionKeys {
    /// Cipher key; the first `cipher_length` bytes count.
    cipher: [u8; 32],
    cipher_length: usize,
    /// HMAC-SHA1 key; unused with an AEAD.
    pub(super) authentication: [u8; 20],
    /// Salt, 14 bytes for counter mode, 12 for GCM (RFC 7714 section 11).
    pub(super) salt: [u8; 14],
}

impl SessionKeys {
    /// The keys of RTP (`rtcp` false) or RTCP under this master key and salt.
    pub(super) fn derive(key: &[u8], salt: &[u8], rtcp: bool) -> Result<Self, SrtpError> {
        let prf = Prf::new(key)?;
        // A 96-bit salt is padded with zeros on the right (RFC 7714 section 11).
        let mut padded = Zeroizing::new([0; 14]);
        padded.get_mut(..salt.len()).ok_or(SrtpError::BadKey)?.copy_from_slice(salt);
        let labels = if rtcp {
            [Label::RtcpCipher, Label::RtcpAuthentication, Label::RtcpSalt]
        } else {
            [Label::RtpCipher, Label::RtpAuthentication, Label::RtpSalt]
        };
        let mut keys = Self {
            cipher: [0; 32],
            cipher_length: key.len(),
            authentication: [0; 20],
            salt: [0; 14],
        };
        prf.fill(&padded, labels[0], &mut keys.cipher[..key.len()]);
        prf.fill(&padded, labels[1], &mut keys.authentication);
        prf.fill(&padded, labels[2], &mut keys.salt[..salt.len()]);
        Ok(keys)
    }

    /// Session keys as they stand in RFC 7714 sections 16 and 17.
    #[cfg(test)]
    pub(super) fn given(cipher: &[u8], salt: &[u8]) -> Self {
        let mut keys = Self {
            cipher: [0; 32],
            cipher_length: cipher.len(),
            authentication: [0; 20],
            salt: [0; 14],
        };
        keys.cipher[..cipher.len()].copy_from_slice(cipher);
        keys.salt[..salt.len()].copy_from_slice(salt);
        keys
    }

    /// The cipher key.
    pub(super) fn cipher(&self) -> &[u8] {
        &self.cipher[..self.cipher_length]
    }
}

/// AES in counter mode as a pseudo-random function (RFC 3711 section 4.3.3, RFC 6188 section 3).
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one derivation")]
enum Prf {
    Aes128(Aes128),
    Aes256(Aes256),
}

impl Prf {
    fn new(key: &[u8]) -> Result<Self, SrtpError> {
        match key.len() {
            16 => Aes128::new_from_slice(key).map(Self::Aes128).map_err(|_| SrtpError::BadKey),
            32 => Aes256::new_from_slice(key).map(Self::Aes256).map_err(|_| SrtpError::BadKey),
            _ => Err(SrtpError::BadKey),
        }
    }

    fn fill(&self, salt: &[u8; 14], label: Label, out: &mut [u8]) {
        // key_id = label || index DIV kdr, which is 0 here; it is as long as the salt's last
        // seven bytes, so the label meets byte 7 (RFC 3711 section 4.3.1).
        for (counter, chunk) in (0u16..).zip(out.chunks_mut(16)) {
            let mut block = Block::default();
            block[..14].copy_from_slice(salt);
            block[7] ^= label as u8;
            block[14..].copy_from_slice(&counter.to_be_bytes());
            match self {
                Self::Aes128(aes) => aes.encrypt_block(&mut block),
                Self::Aes256(aes) => aes.encrypt_block(&mut block),
            }
            chunk.copy_from_slice(&block[..chunk.len()]);
            block.as_mut_slice().zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srtp::hex;

    #[test]
    fn the_session_keys_of_rfc_3711_appendix_b_3() {
        let keys = SessionKeys::derive(
            &hex("e1f97a0d3e018be0d64fa32c06de4139"),
            &hex("0ec675ad498afeebb6960b3aabe6"),
            false,
        )
        .unwrap();
        assert_eq!(keys.cipher(), hex("c61e7a93744f39ee10734afe3ff7a087"));
        assert_eq!(keys.salt.to_vec(), hex("30cbbc08863d8c85d49db34a9ae1"));
        assert_eq!(keys.authentication.to_vec(), hex("cebe321f6ff7716b6fd4ab49af256a156d38baa4"));
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        assert_eq!(SessionKeys::derive(&[0; 24], &[0; 14], false).err(), Some(SrtpError::BadKey));
        assert_eq!(SessionKeys::derive(&[0; 16], &[0; 15], false).err(), Some(SrtpError::BadKey));
    }
}
