//! Tags, branches and Call-IDs of ours. Tags and branches begin with the shard that owns the
//! call, so that any listener can tell where a message belongs before parsing more of it.

use base::Random;

use crate::via::MAGIC_COOKIE;

/// A tag: the shard in two hex digits, `-`, 64 random bits (RFC 3261 section 19.3 asks for 32).
#[must_use]
pub fn new_tag(shard: u8, random: &mut dyn Random) -> String {
    format!("{shard:02x}-{}", hex::<8>(random))
}

/// A branch: the cookie, the shard in two hex digits, `-`, 96 random bits.
#[must_use]
pub fn new_branch(shard: u8, random: &mut dyn Random) -> String {
    format!("{MAGIC_COOKIE}{shard:02x}-{}", hex::<12>(random))
}

/// A Call-ID: 128 random bits and no host, which would tell our topology.
#[must_use]
pub fn new_call_id(random: &mut dyn Random) -> String {
    hex::<16>(random)
}

/// The shard named in a tag of ours; `None` where it cannot be ours.
#[must_use]
pub fn shard_of_tag(tag: &str) -> Option<u8> {
    shard_of(tag, 16)
}

/// The shard named in a branch of ours; `None` where it cannot be ours.
#[must_use]
pub fn shard_of_branch(branch: &str) -> Option<u8> {
    shard_of(branch.strip_prefix(MAGIC_COOKIE)?, 24)
}

fn shard_of(text: &str, digits: usize) -> Option<u8> {
    let (shard, random) = text.split_once('-')?;
    let is_hex = |it: &str| it.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if shard.len() != 2 || random.len() != digits || !is_hex(shard) || !is_hex(random) {
        return None;
    }
    u8::from_str_radix(shard, 16).ok()
}

fn hex<const BYTES: usize>(random: &mut dyn Random) -> String {
    let mut bytes = [0; BYTES];
    random.fill(&mut bytes);
    let digit = |value: u8| char::from(if value < 10 { b'0' + value } else { b'a' + value - 10 });
    bytes.iter().fold(String::with_capacity(2 * BYTES), |mut text, byte| {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 0xf));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::SeededRandom;

    #[test]
    fn the_shard_is_read_back_from_what_we_made() {
        let mut random = SeededRandom::new(1);
        for shard in [0, 7, 255] {
            assert_eq!(shard_of_tag(&new_tag(shard, &mut random)), Some(shard));
            assert_eq!(shard_of_branch(&new_branch(shard, &mut random)), Some(shard));
        }
        assert_eq!(new_call_id(&mut random).len(), 32);
    }

    #[test]
    fn foreign_tags_and_branches_name_no_shard() {
        for foreign in ["", "0a", "0a-12", "0A-0123456789abcdef", "zz-0123456789abcdef", "ß-"] {
            assert_eq!(shard_of_tag(foreign), None, "{foreign}");
        }
        assert_eq!(shard_of_branch("z9hG4bK776asdhds"), None);
        assert_eq!(shard_of_branch("0a-000000000000000000000000"), None);
    }
}
