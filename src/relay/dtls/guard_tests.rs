//! The guard, record by record. What a record holds is made here byte by byte.

use super::*;
use crate::dtls::record::write_record;

const NOW: Instant = Instant::from_nanos(1_000_000_000);
const FORM: GuardForm = GuardForm { overhead: 24, has_13: false };

/// A handshake record with one piece.
fn piece(kind: u8, message: u16, length: usize, offset: usize, body: &[u8]) -> Vec<u8> {
    let mut header = message_header(kind, message, length);
    header[6..9].copy_from_slice(&offset.to_be_bytes()[5..]);
    header[9..12].copy_from_slice(&body.len().to_be_bytes()[5..]);
    let mut record = Vec::new();
    write_record(&mut record, HANDSHAKE, 0, &[&header, body]);
    record
}

fn record(kind: u8, epoch: u16, fragment: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    write_record(&mut record, kind, 9, &[fragment]);
    record[3..5].copy_from_slice(&epoch.to_be_bytes());
    record
}

fn admit(guard: &mut Guard, at: Instant, datagram: &[u8]) -> (Result<Heard, Refusal>, Vec<u8>) {
    let mut passed = Vec::new();
    let heard = guard.admit(at, datagram, &mut |it| passed.extend_from_slice(it));
    (heard, passed)
}

/// A message that is no ClientHello.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|it| u8::try_from(it % 251).unwrap()).collect()
}

fn complete() -> Guard {
    let mut guard = Guard::new(FORM);
    assert_eq!(admit(&mut guard, NOW, &piece(2, 0, 100, 0, &body(100))).0, Ok(Heard::News));
    guard.sent(NOW, b"our flight four");
    let mut last = Vec::new();
    write_record(&mut last, CHANGE_CIPHER_SPEC, 3, &[&[1]]);
    guard.sent(NOW, &last);
    guard.complete(false);
    guard
}

#[test]
fn a_message_in_pieces_passes_whole_whatever_their_order() {
    let whole = body(1_000);
    let cuts = [(0, 300), (300, 600), (600, 1_000)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut guard = Guard::new(FORM);
        for (index, at) in order.into_iter().enumerate() {
            let (from, to) = cuts[at];
            let datagram = piece(2, 0, 1_000, from, &whole[from..to]);
            let (heard, passed) = admit(&mut guard, NOW, &[&datagram[..], &datagram].concat());
            if index < 2 {
                assert_eq!((heard, passed.len()), (Ok(Heard::Nothing), 0));
            } else {
                assert_eq!(heard, Ok(Heard::News));
                assert_eq!(passed, piece(2, 0, 1_000, 0, &whole));
            }
        }
        assert_eq!(guard.waiting_bytes(), 0);
    }
}

#[test]
fn pieces_may_overlap_as_after_a_smaller_mtu() {
    let whole = body(700);
    let mut guard = Guard::new(FORM);
    for (from, to) in [(0, 400), (300, 500), (0, 200), (200, 450)] {
        let (heard, _) = admit(&mut guard, NOW, &piece(2, 0, 700, from, &whole[from..to]));
        assert_eq!(heard, Ok(Heard::Nothing));
    }
    let (_, passed) = admit(&mut guard, NOW, &piece(2, 0, 700, 480, &whole[480..]));
    assert_eq!(passed, piece(2, 0, 700, 0, &whole));
}

#[test]
fn messages_pass_in_their_order_and_records_are_numbered_anew() {
    let mut guard = Guard::new(FORM);
    assert!(admit(&mut guard, NOW, &piece(11, 1, 80, 0, &body(80))).1.is_empty());
    let (_, passed) = admit(&mut guard, NOW, &piece(2, 0, 90, 0, &body(90)));
    let mut second = piece(11, 1, 80, 0, &body(80));
    second[10] = 1;
    assert_eq!(passed, [piece(2, 0, 90, 0, &body(90)), second].concat());
}

#[test]
fn a_flood_of_small_pieces_neither_passes_nor_grows() {
    let mut guard = Guard::new(FORM);
    let mut refused = None;
    for at in 0..100_000 {
        let (heard, passed) = admit(&mut guard, NOW, &piece(1, 0, 100_000, at, &[0x41]));
        assert!(passed.is_empty());
        if let Err(refusal) = heard {
            refused.get_or_insert((at, refusal));
        }
        assert_eq!(guard.waiting_bytes(), 0);
    }
    let (at, refusal) = refused.unwrap();
    assert_eq!((at, refusal), (limit::DTLS_HANDSHAKE_RECORDS.get(), Refusal::Flood));
}

#[test]
fn many_messages_or_pieces_at_once_hold_no_more_than_the_limit() {
    for overlap in [false, true] {
        let mut guard = Guard::new(FORM);
        let mut most = 0;
        for at in 0..200_u16 {
            let (message, offset) = if overlap { (0, usize::from(at)) } else { (at, 64) };
            let datagram = piece(2, message, 7_000, offset, &body(1_000));
            let over = admit(&mut guard, NOW, &datagram).0.is_err();
            most = most.max(guard.waiting_bytes());
            assert!(most <= limit::DTLS_HANDSHAKE_BYTES.get());
            assert_eq!(over, at >= 31, "{at}: 32 KB are over");
        }
        assert!(most > 5_000);
    }
    // Thousands of empty pieces in one record.
    let mut guard = Guard::new(FORM);
    let empty: Vec<u8> = (0..150).flat_map(|_| message_header(2, 3, 0)).collect();
    assert_eq!(admit(&mut guard, NOW, &record(HANDSHAKE, 0, &empty)).0, Err(Refusal::Flood));
}

#[test]
fn what_no_honest_peer_sends_is_dropped() {
    let mut old = piece(2, 0, 100, 0, &body(100));
    old[1] = 3;
    let cases = [
        ("garbage", vec![0xff; 90]),
        ("nothing", Vec::new()),
        ("a cut header", record(HANDSHAKE, 0, &[])[..12].to_vec()),
        ("a cut record", piece(2, 0, 100, 0, &body(100))[..60].to_vec()),
        ("TLS", old),
        ("a small piece in the middle", piece(2, 0, 100, 10, &body(63))),
        ("a piece beyond its message", piece(2, 0, 100, 90, &body(64))),
        ("a message above the limit", piece(2, 0, 8_001, 0, &body(1_000))),
        ("a message far ahead", piece(2, 8, 100, 0, &body(100))),
        ("data in the clear", record(23, 0, b"hello")),
        ("data before completion", record(23, 1, &[1; 60])),
        ("a short protected record", record(HANDSHAKE, 1, &[1; 24])),
        ("a later epoch", record(HANDSHAKE, 2, &[1; 60])),
        ("a strange change", record(CHANGE_CIPHER_SPEC, 0, &[1, 1])),
        ("a change in epoch 1", record(CHANGE_CIPHER_SPEC, 1, &[1; 60])),
        ("DTLS 1.3 where it is not spoken", vec![0x2f; 60]),
        ("an alert before anything", record(ALERT, 0, &[2, 40])),
        ("an alert as long as none", record(ALERT, 0, &[2, 40, 0])),
        ("a datagram above the limit", [piece(2, 0, 100, 0, &body(100)), vec![0; 2_048]].concat()),
    ];
    for (story, datagram) in cases {
        let mut guard = Guard::new(FORM);
        assert_eq!(admit(&mut guard, NOW, &datagram), (Ok(Heard::Nothing), Vec::new()), "{story}");
    }
}

#[test]
fn a_change_and_protected_words_pass_before_completion() {
    let mut guard = Guard::new(FORM);
    for kind in [HANDSHAKE, ALERT] {
        let protected = record(kind, 1, &[1; 25]);
        assert_eq!(admit(&mut guard, NOW, &protected), (Ok(Heard::News), protected));
    }
    let change = admit(&mut guard, NOW, &record(CHANGE_CIPHER_SPEC, 0, &[1])).1;
    assert_eq!(change[0], CHANGE_CIPHER_SPEC);
}

const FORM_13: GuardForm = GuardForm { overhead: 16, has_13: true };

#[test]
fn records_of_dtls_1_3_pass_once_the_peer_has_begun() {
    let mut guard = Guard::new(FORM_13);
    // Overtaken by what comes after it; it will be repeated.
    assert_eq!(admit(&mut guard, NOW, &[0x2e; 60]), (Ok(Heard::Nothing), Vec::new()));
    let hello = piece(2, 0, 100, 0, &body(100));
    let flight = [&hello[..], &[0x2e; 60]].concat();
    assert_eq!(admit(&mut guard, NOW, &flight), (Ok(Heard::News), flight.clone()));
    assert_eq!(admit(&mut guard, NOW, &[0x2e; 60]), (Ok(Heard::News), vec![0x2e; 60]));
    // An acknowledgement in the clear, which nobody owes us.
    let ack = record(26, 0, &[0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(admit(&mut guard, NOW, &ack), (Ok(Heard::Nothing), Vec::new()));
}

#[test]
fn a_flood_of_dtls_1_3_ends_a_handshake_and_no_more() {
    let mut guard = Guard::new(FORM_13);
    admit(&mut guard, NOW, &piece(2, 0, 100, 0, &body(100))).0.unwrap();
    let forged = vec![0x2e; 1_000];
    let passed = (0..1_000).take_while(|_| admit(&mut guard, NOW, &forged).0.is_ok()).count();
    assert_eq!(passed, (limit::DTLS_HANDSHAKE_BYTES.get() - 125) / 1_000);
    guard.complete(true);
    let passed = (0..1_000).filter(|at| {
        let now = NOW + Duration::from_micros(100 * at);
        admit(&mut guard, now, &forged).0 == Ok(Heard::News)
    });
    assert_eq!(passed.count(), 10, "one in ten milliseconds");
}

#[test]
fn after_dtls_1_3_is_complete_nothing_of_ours_is_repeated() {
    let mut guard = Guard::new(FORM_13);
    admit(&mut guard, NOW, &piece(2, 0, 100, 0, &body(100))).0.unwrap();
    guard.sent(NOW, b"our flight");
    guard.complete(true);
    let later = NOW + Duration::from_secs(1);
    let old = [piece(2, 0, 100, 0, &body(100)), record(HANDSHAKE, 1, &[1; 40])];
    for datagram in old {
        assert_eq!(admit(&mut guard, later, &datagram), (Ok(Heard::Nothing), Vec::new()));
    }
    assert!(guard.repeat(later).is_empty());
}

#[test]
fn a_peer_that_was_offered_dtls_1_3_and_took_1_2_is_one_of_1_2() {
    let mut guard = Guard::new(FORM_13);
    admit(&mut guard, NOW, &piece(2, 0, 100, 0, &body(100))).0.unwrap();
    guard.complete(false);
    let later = NOW + Duration::from_secs(1);
    assert_eq!(admit(&mut guard, later, &[0x2e; 60]), (Ok(Heard::Nothing), Vec::new()));
    let repeated = piece(11, 1, 80, 0, &body(80));
    assert_eq!(admit(&mut guard, later, &repeated).0, Ok(Heard::Repetition));
}

#[test]
fn a_peer_that_gives_up_ends_the_handshake_and_a_warning_does_not() {
    let mut guard = Guard::new(FORM);
    admit(&mut guard, NOW, &piece(2, 0, 100, 0, &body(100))).0.unwrap();
    assert_eq!(admit(&mut guard, NOW, &record(ALERT, 0, &[1, 41])).0, Ok(Heard::Nothing));
    assert_eq!(admit(&mut guard, NOW, &record(ALERT, 0, &[2, 42])).0, Err(Refusal::Alert(42)));
    assert_eq!(admit(&mut guard, NOW, &record(ALERT, 0, &[1, 0])).0, Err(Refusal::Alert(0)));
}

#[test]
fn after_completion_nothing_but_protected_alerts_passes() {
    let mut guard = complete();
    let cases = [
        record(ALERT, 0, &[2, 0]),
        record(ALERT, 0, &[1, 0]),
        record(23, 0, b"data in the clear"),
        record(CHANGE_CIPHER_SPEC, 0, &[1]),
        record(CHANGE_CIPHER_SPEC, 1, &[1; 60]),
        record(23, 1, &[1; 60]),
        record(ALERT, 1, &[1; 24]),
        record(ALERT, 2, &[1; 60]),
        vec![0x2f; 60],
        vec![0xff; 60],
    ];
    for datagram in cases {
        assert_eq!(admit(&mut guard, NOW, &datagram), (Ok(Heard::Nothing), Vec::new()));
    }
    let goodbye = record(ALERT, 1, &[1; 26]);
    assert_eq!(admit(&mut guard, NOW, &goodbye), (Ok(Heard::News), goodbye.clone()));
    // Each costs a decryption: no more than one in ten milliseconds.
    let flood = goodbye.repeat(50);
    let passed: usize = (0..1_000)
        .map(|at| admit(&mut guard, NOW + Duration::from_micros(100 * at), &flood).1.len())
        .sum();
    assert!((9..=10).contains(&(passed / goodbye.len())), "{passed}");
}

#[test]
fn a_lost_last_flight_is_repeated_eight_times_and_not_too_often() {
    let mut guard = complete();
    let repeated = piece(11, 1, 80, 0, &body(80));
    let mut repetitions = 0;
    for at in 0..10_000 {
        let now = NOW + Duration::from_millis(at);
        let (heard, passed) = admit(&mut guard, now, &repeated);
        assert_eq!((heard, passed.len()), (Ok(Heard::Repetition), 0));
        let again = guard.repeat(now).to_vec();
        if !again.is_empty() {
            assert_eq!(again.len(), 1, "only what follows the change of ciphers");
            assert_eq!(again[0][0], CHANGE_CIPHER_SPEC);
            repetitions += 1;
            assert!(at >= 100 + 200 * (repetitions - 1), "{at}");
        }
    }
    assert_eq!(repetitions, 8);
    let protected = record(HANDSHAKE, 1, &[1; 40]);
    assert_eq!(admit(&mut guard, NOW, &protected).0, Ok(Heard::Repetition));
}

#[test]
fn a_lost_flight_within_the_handshake_is_repeated_and_the_next_takes_its_place() {
    let mut guard = Guard::new(FORM);
    let first = piece(2, 0, 100, 0, &body(100));
    admit(&mut guard, NOW, &first).0.unwrap();
    guard.sent(NOW, b"one");
    guard.sent(NOW, b"two");
    let later = NOW + Duration::from_millis(300);
    assert_eq!(admit(&mut guard, later, &first).0, Ok(Heard::Repetition));
    assert_eq!(guard.repeat(later), [b"one", b"two"]);
    admit(&mut guard, later, &piece(11, 1, 80, 0, &body(80))).0.unwrap();
    guard.sent(later, b"six");
    let latest = later + Duration::from_millis(300);
    assert_eq!(guard.repeat(latest), [b"six"]);
    for _ in 0..20 {
        guard.sent(latest, b"no more than a flight");
    }
    assert_eq!(guard.flight.datagrams.len(), limit::DTLS_FLIGHT_DATAGRAMS.get());
}

#[test]
fn a_client_hello_tells_its_profiles() {
    // Version and random, no session, no cookie, one suite, no compression.
    let hello = |extensions: &[u8]| {
        let length = u16::try_from(extensions.len()).unwrap().to_be_bytes();
        let fixed = [&[0xfe, 0xfd][..], &[0; 32], &[0, 0, 0, 2, 0xc0, 0x2b, 1, 0]].concat();
        [&fixed[..], &length, extensions].concat()
    };
    let of = |body: &[u8]| {
        let mut guard = Guard::new(FORM);
        let heard = admit(&mut guard, NOW, &piece(CLIENT_HELLO, 0, body.len(), 0, body)).0;
        heard.map(|_| guard.offered_profiles().unwrap().to_vec())
    };
    let known = [0, 23, 0, 0, 0, 14, 0, 7, 0, 4, 0, 7, 0, 1, 0];
    assert_eq!(of(&hello(&known)), Ok(vec![7, 1]));
    assert_eq!(of(&hello(&known[..4])), Err(Refusal::NoProfile));
    assert_eq!(of(&hello(&[])), Err(Refusal::NoProfile));
    for cut in 0..hello(&known).len() {
        assert_eq!(of(&hello(&known)[..cut]), Err(Refusal::NoProfile), "{cut}");
    }
}
