//! Published vectors, and bytes that are no message.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// RFC 5769 section 2.1, the password of which is `VOkJxbRl1RmTxUk/WvJxBt`.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69\
    656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70c\
    bfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
/// RFC 5769 section 2.2.
const RESPONSE_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220\
    002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
/// RFC 5769 section 2.3.
const RESPONSE_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220\
    002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275\
    bfe3ed4180280004c8fb0b4c";
const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
}

#[test]
fn the_published_request_is_read_and_proved() {
    let raw = bytes(REQUEST);
    let message = Message::parse(&raw).unwrap();
    assert_eq!(message.class(), Class::Request);
    assert_eq!(message.username(), Some("evtj:h6vY"));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!(message.role(), Some(Role::Controlled(0x932f_f9b1_5126_3b36)));
    assert!(!message.uses_candidate());
    assert_eq!(message.unknown(), None);
    assert!(message.is_signed_with(PASSWORD));
    assert!(!message.is_signed_with(b"VOkJxbRl1RmTxUk/WvJxBu"));
}

#[test]
fn the_published_answers_are_read_and_proved() {
    for (hex, address) in [
        (RESPONSE_V4, "192.0.2.1:32853"),
        (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let raw = bytes(hex);
        let message = Message::parse(&raw).unwrap();
        assert_eq!(message.class(), Class::Success);
        assert_eq!(message.mapped_address(), Some(address.parse().unwrap()));
        assert!(message.is_signed_with(PASSWORD), "{address}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    for address in ["203.0.113.5:4000", "[2001:db8::1]:4000"] {
        let address = address.parse().unwrap();
        let mut buffer = [0; 256];
        let mut writer = Writer::new(&mut buffer, Class::Request, *b"0123456789ab");
        writer.username("asked", "asking");
        writer.priority(7);
        writer.use_candidate();
        writer.role(Role::Controlling(9));
        writer.mapped_address(address);
        let length = writer.finish(Some(b"key")).unwrap();
        let message = Message::parse(&buffer[..length]).unwrap();
        assert_eq!(message.transaction(), *b"0123456789ab");
        assert_eq!(message.username(), Some("asked:asking"));
        assert_eq!((message.priority(), message.uses_candidate()), (Some(7), true));
        assert_eq!(message.role(), Some(Role::Controlling(9)));
        assert_eq!(message.mapped_address(), Some(address));
        assert!(message.is_signed_with(b"key") && !message.is_signed_with(b"kez"));
    }
}

#[test]
fn an_error_names_its_code() {
    let mut buffer = [0; ANSWER_BYTES];
    let mut writer = Writer::new(&mut buffer, Class::Error, [7; 12]);
    writer.error_code(487);
    let length = writer.finish(Some(b"key")).unwrap();
    let message = Message::parse(&buffer[..length]).unwrap();
    assert_eq!((message.class(), message.error_code()), (Class::Error, Some(487)));
}

#[test]
fn any_changed_bit_is_noticed() {
    let raw = bytes(REQUEST);
    // Under another type the fingerprint is none, and need not be there.
    let type_of_fingerprint = (raw.len() - 8) * 8..(raw.len() - 6) * 8;
    for bit in (0..raw.len() * 8).filter(|bit| !type_of_fingerprint.contains(bit)) {
        let mut forged = raw.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let is_taken = Message::parse(&forged).is_ok_and(|it| it.is_signed_with(PASSWORD));
        assert!(!is_taken, "bit {bit}");
    }
}

#[test]
fn what_follows_the_integrity_counts_for_nothing() {
    let mut buffer = [0; 256];
    let mut writer = Writer::new(&mut buffer, Class::Request, [0; 12]);
    writer.username("a", "b");
    let signed = writer.finish(Some(b"key")).unwrap() - 8; // without the fingerprint
    // USE-CANDIDATE and an unknown attribute that nobody signed.
    buffer[signed..signed + 8].copy_from_slice(&[0, 0x25, 0, 0, 0x7f, 0xff, 0, 0]);
    let length = (signed + 8 - HEADER) as u16;
    buffer[2..4].copy_from_slice(&length.to_be_bytes());
    let message = Message::parse(&buffer[..signed + 8]).unwrap();
    assert!(message.is_signed_with(b"key"));
    assert!(!message.uses_candidate() && message.unknown().is_none());
}

#[test]
fn a_buffer_that_is_too_small_is_said() {
    for size in 0..60 {
        let mut buffer = std::vec![0; size];
        let mut writer = Writer::new(&mut buffer, Class::Success, [0; 12]);
        writer.mapped_address("192.0.2.1:1".parse().unwrap());
        assert_eq!(writer.finish(Some(b"key")), None, "{size}");
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = Message::parse(&raw) {
            let _ = (message.username(), message.priority(), message.role(), message.unknown());
            let _ = (message.mapped_address(), message.error_code(), message.transaction());
            prop_assert!(!message.is_signed_with(b"key"));
        }
    }

    #[test]
    fn nor_do_bytes_that_look_like_a_message(
        attributes in proptest::collection::vec((0_u16..0x30, 0_u16..40), 0..8),
    ) {
        let mut raw = std::vec![0, 1, 0, 0];
        raw.extend(MAGIC_COOKIE);
        raw.extend([1; 12]);
        for (kind, length) in attributes {
            raw.extend(kind.to_be_bytes());
            raw.extend(length.to_be_bytes());
            raw.extend(std::vec![1; usize::from(length).next_multiple_of(4)]);
        }
        let length = (raw.len() - HEADER) as u16;
        raw[2..4].copy_from_slice(&length.to_be_bytes());
        let message = Message::parse(&raw).unwrap();
        let _ = (message.username(), message.priority(), message.role(), message.unknown());
        let _ = (message.mapped_address(), message.error_code());
        prop_assert!(!message.is_signed_with(b"key"));
    }
}
