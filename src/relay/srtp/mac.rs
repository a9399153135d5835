//! HMAC-SHA1 (RFC 2104) with its key worked in once: the states after the padded keys are kept,
//! so that a packet costs its own blocks and one more.

use aes::cipher::consts::U64;
use aes::cipher::generic_array::GenericArray;
use zeroize::{Zeroize, ZeroizeOnDrop};

const BLOCK: usize = 64;
/// FIPS 180-4 section 5.3.1.
const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// See the module.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct KeyedSha1 {
    inner: [u32; 5],
    outer: [u32; 5],
}

impl KeyedSha1 {
    pub(super) fn new(key: &[u8; 20]) -> Self {
        let padded = |pad: u8| {
            let mut block = [pad; BLOCK];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            let mut state = INITIAL;
            compress(&mut state, &block);
            block.zeroize();
            state
        };
        Self { inner: padded(0x36), outer: padded(0x5c) }
    }

    /// The whole tag of `text` followed by `end`, which has at most 4 bytes.
    pub(super) fn sign(&self, text: &[u8], end: &[u8]) -> [u8; 20] {
        let mut state = self.inner;
        let (whole, rest) = text.as_chunks::<BLOCK>();
        whole.iter().for_each(|block| compress(&mut state, block));
        finish(&mut state, text.len() + end.len(), [rest, end]);
        let digest = bytes(state);
        let mut state = self.outer;
        finish(&mut state, digest.len(), [&digest, &[]]);
        bytes(state)
    }
}

/// Works in the last bytes, less than a block and four, and the padding; `length` bytes follow the
/// key's block.
fn finish(state: &mut [u32; 5], length: usize, last: [&[u8]; 2]) {
    let mut blocks = [0; 2 * BLOCK];
    let mut used = 0;
    for part in last {
        blocks[used..used + part.len()].copy_from_slice(part);
        used += part.len();
    }
    blocks[used] = 0x80;
    let size = if used + 9 > BLOCK { 2 * BLOCK } else { BLOCK };
    let bits = 8 * (BLOCK + length) as u64;
    blocks[size - 8..size].copy_from_slice(&bits.to_be_bytes());
    blocks[..size].as_chunks().0.iter().for_each(|block| compress(state, block));
}

fn compress(state: &mut [u32; 5], block: &[u8; BLOCK]) {
    let block: &GenericArray<u8, U64> = block.into();
    sha1::compress(state, core::slice::from_ref(block));
}

fn bytes(state: [u32; 5]) -> [u8; 20] {
    let mut bytes = [0; 20];
    for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srtp::hex;
    use hmac::{Hmac, Mac};

    #[test]
    fn the_first_case_of_rfc_2202() {
        let mac = KeyedSha1::new(&[0x0b; 20]);
        let tag = hex("b617318655057264e28bc0b6fb378c8ef146be00");
        assert_eq!(mac.sign(b"Hi There", &[]).to_vec(), tag);
        assert_eq!(mac.sign(b"Hi T", b"here").to_vec(), tag);
    }

    #[test]
    fn every_length_is_what_another_implementation_says() {
        let key: [u8; 20] = core::array::from_fn(|at| at as u8 * 7);
        let text: Vec<u8> = (0..400).map(|at| (at * 31 % 251) as u8).collect();
        let ours = KeyedSha1::new(&key);
        for length in 0..400 {
            for end in [0, 4] {
                let mut theirs = <Hmac<sha1::Sha1> as Mac>::new_from_slice(&key).unwrap();
                theirs.update(&text[..length]);
                theirs.update(&text[..end]);
                let theirs: [u8; 20] = theirs.finalize().into_bytes().into();
                assert_eq!(ours.sign(&text[..length], &text[..end]), theirs, "{length} {end}");
            }
        }
    }
}
