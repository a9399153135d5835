use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const FIVE: Digit = Digit(5);

fn at(ms: u32) -> Instant {
    Instant::ZERO + MS * ms
}

fn payload(event: u8, end: bool, duration: u16) -> [u8; 4] {
    TelephoneEvent { event, end, volume: 10, duration }.to_bytes()
}

/// Feeds `(timestamp, event, end, duration)` packets 20 ms apart.
fn receive(receiver: &mut DtmfReceiver, packets: &[(u32, u8, bool, u16)]) -> Vec<DtmfEvent> {
    let mut events = Vec::new();
    for (n, (timestamp, event, end, duration)) in packets.iter().enumerate() {
        let bytes = payload(*event, *end, *duration);
        events.extend(receiver.handle_packet(at(n as u32 * 20), *timestamp, &bytes));
    }
    events
}

fn started(digit: Digit) -> DtmfEvent {
    DtmfEvent::Started { digit }
}

fn ended(digit: Digit, ms: u32) -> DtmfEvent {
    DtmfEvent::Ended { digit, duration: MS * ms }
}

#[test]
fn keys_and_characters_correspond() {
    for (event, key) in "0123456789*#ABCD".chars().enumerate() {
        let digit = Digit::from_event(event as u8).unwrap();
        assert_eq!(digit.to_char(), key);
        assert_eq!(Digit::from_char(key), Some(digit));
    }
    assert_eq!(Digit::from_char('d'), Digit::from_event(15));
    assert_eq!(
        (Digit::from_char('E'), Digit::from_char('é'), Digit::from_event(16)),
        (None, None, None)
    );
}

#[test]
fn a_press_with_updates_and_three_ends_is_reported_once() {
    let mut receiver = DtmfReceiver::new(8000);
    let events = receive(
        &mut receiver,
        &[
            (100, 5, false, 160),
            (100, 5, false, 320),
            (100, 5, true, 480),
            (100, 5, true, 480),
            (100, 5, true, 480),
        ],
    );
    assert_eq!(events, [started(FIVE), ended(FIVE, 60)]);
    assert_eq!(receiver.poll_timeout(), None);
}

#[test]
fn the_same_key_pressed_twice_is_two_presses() {
    let mut receiver = DtmfReceiver::new(8000);
    let events = receive(&mut receiver, &[(100, 5, true, 480), (900, 5, true, 480)]);
    assert_eq!(events, [started(FIVE), ended(FIVE, 60), started(FIVE), ended(FIVE, 60)]);
}

#[test]
fn one_end_packet_is_enough() {
    let events = receive(&mut DtmfReceiver::new(48_000), &[(100, 11, true, 4800)]);
    assert_eq!(events, [started(Digit(11)), ended(Digit(11), 100)]);
}

#[test]
fn a_lost_end_is_made_up_by_the_next_press() {
    let mut receiver = DtmfReceiver::new(8000);
    let events = receive(&mut receiver, &[(100, 1, false, 320), (2000, 2, false, 160)]);
    assert_eq!(events, [started(Digit(1)), ended(Digit(1), 40), started(Digit(2))]);
}

#[test]
fn a_lost_end_is_made_up_by_time() {
    let mut receiver = DtmfReceiver::new(8000);
    receive(&mut receiver, &[(100, 1, false, 320)]);
    assert_eq!(receiver.handle_timeout(at(199)), None);
    assert_eq!(receiver.poll_timeout(), Some(at(200)));
    assert_eq!(receiver.handle_timeout(at(200)), Some(ended(Digit(1), 40)));
    // Its late end says nothing new.
    assert_eq!(receive(&mut receiver, &[(100, 1, true, 480)]), []);
}

#[test]
fn stragglers_of_an_older_press_are_passed_over() {
    let mut receiver = DtmfReceiver::new(8000);
    let events = receive(
        &mut receiver,
        &[(100, 1, true, 480), (2000, 2, false, 160), (100, 1, true, 480), (2000, 2, true, 320)],
    );
    assert_eq!(
        events,
        [started(Digit(1)), ended(Digit(1), 60), started(Digit(2)), ended(Digit(2), 40)]
    );
}

#[test]
fn a_press_longer_than_its_field_is_still_one_press() {
    let mut receiver = DtmfReceiver::new(8000);
    let next = 100u32.wrapping_add(0xffff);
    let events = receive(
        &mut receiver,
        &[
            (100, 7, false, 0xff00),
            (100, 7, false, 0xffff),
            (next, 7, false, 160),
            (next, 7, true, 465),
        ],
    );
    assert_eq!(events, [started(Digit(7)), ended(Digit(7), 8250)]);
}

#[test]
fn tones_that_are_no_keys_and_short_payloads_are_passed_over() {
    let mut receiver = DtmfReceiver::new(8000);
    assert_eq!(receive(&mut receiver, &[(100, 16, false, 160), (200, 255, true, 160)]), []);
    assert_eq!(receiver.handle_packet(at(0), 300, &[1, 2, 3]).count(), 0);
}

#[test]
fn a_new_source_may_begin_with_any_timestamp() {
    let mut receiver = DtmfReceiver::new(8000);
    receive(&mut receiver, &[(1_000_000, 1, false, 320)]);
    assert_eq!(receiver.reset(), Some(ended(Digit(1), 40)));
    assert_eq!(receive(&mut receiver, &[(999_900, 2, false, 160)]), [started(Digit(2))]);
}

fn transmit(sender: &mut DtmfSender, from: u32, ticks: u32) -> Vec<EventPacket> {
    (0..ticks).filter_map(|n| sender.poll_packet(from + n * 160)).collect()
}

#[test]
fn a_press_is_sent_with_one_marker_and_three_ends() {
    let mut sender = DtmfSender::new(8000);
    sender.send(FIVE, MS * 100).unwrap();
    assert!(sender.is_active());
    let packets = transmit(&mut sender, 1000, 20);
    let durations: Vec<_> = packets
        .iter()
        .map(|packet| TelephoneEvent::parse(&packet.payload).unwrap())
        .map(|event| (event.duration, event.end))
        .collect();
    assert_eq!(
        durations,
        [
            (160, false),
            (320, false),
            (480, false),
            (640, false),
            (800, true),
            (800, true),
            (800, true)
        ]
    );
    assert!(packets.iter().all(|packet| packet.timestamp == 1000));
    assert!(packets[0].marker && packets[1..].iter().all(|packet| !packet.marker));
    assert!(!sender.is_active());
}

#[test]
fn digits_in_a_row_are_heard_as_they_were_sent() {
    let mut sender = DtmfSender::new(8000);
    for key in "42#".chars() {
        sender.send(Digit::from_char(key).unwrap(), MS * 80).unwrap();
    }
    let mut receiver = DtmfReceiver::new(8000);
    let mut heard = Vec::new();
    for packet in transmit(&mut sender, 0, 60) {
        for event in receiver.handle_packet(at(0), packet.timestamp, &packet.payload) {
            if let DtmfEvent::Ended { digit, duration } = event {
                assert_eq!(duration, MS * 80);
                heard.push(digit.to_char());
            }
        }
    }
    assert_eq!(heard, ['4', '2', '#']);
    assert!(!sender.is_active());
}

#[test]
fn a_live_press_lasts_until_it_is_released_even_beyond_its_field() {
    let mut sender = DtmfSender::new(8000);
    let mut receiver = DtmfReceiver::new(8000);
    sender.press(FIVE).unwrap();
    let mut packets = transmit(&mut sender, 0, 500);
    sender.release(500 * 160);
    packets.extend(transmit(&mut sender, 500 * 160, 20));
    let events: Vec<_> = packets
        .iter()
        .flat_map(|packet| receiver.handle_packet(at(0), packet.timestamp, &packet.payload))
        .collect();
    assert_eq!(events, [started(FIVE), ended(FIVE, 10_000)]);
    assert_eq!(packets.iter().filter(|packet| packet.marker).count(), 1);
}

#[test]
fn a_tap_too_short_to_hear_is_sent_long_enough() {
    let mut sender = DtmfSender::new(8000);
    sender.press(FIVE).unwrap();
    sender.release(0);
    let packets = transmit(&mut sender, 0, 10);
    let last = TelephoneEvent::parse(&packets.last().unwrap().payload).unwrap();
    assert_eq!((last.duration, last.end), (320, true));
}

#[test]
fn the_queue_of_digits_is_bounded() {
    let mut sender = DtmfSender::new(8000);
    for _ in 0..CALL_DTMF_DIGITS.get() {
        sender.send(FIVE, MS).unwrap();
    }
    assert_eq!(sender.send(FIVE, MS), Err(DigitQueueFull));
}

proptest! {
    #[test]
    fn presses_and_releases_alternate_whatever_comes(
        packets in prop::collection::vec((0u32..3000, any::<[u8; 4]>(), 0u32..100), 0..100),
        clock_rate: u32,
    ) {
        let mut receiver = DtmfReceiver::new(clock_rate);
        let (mut down, mut now, mut timestamp) = (None, 0, 0u32);
        for (step, payload, wait) in packets {
            now += wait;
            timestamp = timestamp.wrapping_add(step);
            let late = receiver.handle_timeout(at(now));
            let events: Vec<_> = receiver.handle_packet(at(now), timestamp, &payload).collect();
            for event in late.into_iter().chain(events) {
                match event {
                    DtmfEvent::Started { digit } => prop_assert_eq!(down.replace(digit), None),
                    DtmfEvent::Ended { digit, .. } => prop_assert_eq!(down.take(), Some(digit)),
                }
            }
        }
    }
}
