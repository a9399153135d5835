//! The bare cryptography of an SRTP packet with 20 ms of G.711: what no implementation is below.

use std::hint::black_box;

use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128Enc, Block};
use aws_lc_rs::aead;
use base::SeededRandom;
use hmac::{Hmac, Mac};
use relay::srtp::OVERHEAD;
use rtp::sdes::{KeySalt, Suite};
use sha1::Sha1;

/// Bytes of the packet before it is protected.
pub(crate) const PACKET: usize = 172;
const HEADER: usize = 12;

/// A packet and the room behind it.
pub(crate) type Buffer = [u8; PACKET + OVERHEAD];

/// The keys that everything here uses.
pub(crate) fn keys(suite: Suite) -> KeySalt {
    KeySalt::generate(suite, &mut SeededRandom::new(1))
}

/// Packets with numbers that follow each other.
pub(crate) fn packets() -> impl FnMut() -> Buffer {
    let mut sequence = 0_u16;
    move || {
        sequence = sequence.wrapping_add(1);
        let mut packet = [0x55; PACKET + OVERHEAD];
        (packet[0], packet[1]) = (0x80, 0);
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet[8..12].copy_from_slice(&7_u32.to_be_bytes());
        packet
    }
}

/// A key stream and a tag for each packet, and nothing else.
pub(crate) enum Floor {
    /// AES counter mode and HMAC-SHA1.
    Counter(Box<Aes128Enc>, Hmac<Sha1>),
    /// AES-GCM.
    Gcm(Box<aead::LessSafeKey>),
}

impl Floor {
    /// Of a suite; `None` where its key is refused.
    pub(crate) fn new(suite: Suite) -> Option<Self> {
        let keys = keys(suite);
        let algorithm = match suite {
            Suite::AeadAes128Gcm => &aead::AES_128_GCM,
            Suite::AeadAes256Gcm => &aead::AES_256_GCM,
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => {
                let aes = Aes128Enc::new_from_slice(keys.key()).ok()?;
                let mac = <Hmac<Sha1> as Mac>::new_from_slice(&[7; 20]).ok()?;
                return Some(Self::Counter(Box::new(aes), mac));
            }
        };
        let key = aead::UnboundKey::new(algorithm, keys.key()).ok()?;
        Some(Self::Gcm(Box::new(aead::LessSafeKey::new(key))))
    }

    /// What one packet takes.
    pub(crate) fn work(&self, packet: &mut Buffer) {
        match self {
            Self::Counter(aes, mac) => {
                black_box(counter_mode(aes, mac, packet));
            }
            Self::Gcm(key) => {
                let (clear, rest) = packet.split_at_mut(HEADER);
                let nonce = aead::Nonce::assume_unique_for_key(black_box([1; 12]));
                let aad = aead::Aad::from(&*clear);
                let text = &mut rest[..PACKET - HEADER];
                black_box(key.seal_in_place_separate_tag(nonce, aad, text).is_ok());
            }
        }
    }
}

fn counter_mode(aes: &Aes128Enc, mac: &Hmac<Sha1>, packet: &mut Buffer) -> [u8; 20] {
    let mut blocks = [Block::default(); 10];
    for (counter, block) in (0_u8..).zip(&mut blocks) {
        block[15] = counter;
    }
    aes.encrypt_blocks(&mut blocks);
    let text = packet[HEADER..PACKET].chunks_exact_mut(16);
    for (text, block) in text.zip(&blocks) {
        text.iter_mut().zip(block).for_each(|(text, key)| *text ^= key);
    }
    let mut mac = mac.clone();
    mac.update(&packet[..PACKET]);
    mac.update(&[0; 4]);
    mac.finalize().into_bytes().into()
}
