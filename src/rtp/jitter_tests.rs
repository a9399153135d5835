use super::*;
use alloc::format;
use alloc::string::String;
use base::{Random as _, SeededRandom};
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const TICK: u32 = 20;

/// A buffer of G.711 in a world where time is milliseconds and packet `n` is sent at `20 n`.
struct World {
    buffer: JitterBuffer,
    played: Vec<u8>,
    /// One letter per pull: P, L or E.
    pulls: String,
}

impl World {
    fn new() -> Self {
        let buffer = JitterBuffer::new(JitterConfig::new(8000));
        Self { buffer, played: Vec::new(), pulls: String::new() }
    }

    fn push(&mut self, at: u32, n: u8) -> Pushed {
        let n16 = u16::from(n);
        self.push_raw(at, n16.wrapping_add(65_530), u32::from(n16) * 160, n)
    }

    fn push_raw(&mut self, at: u32, sequence: u16, timestamp: u32, payload: u8) -> Pushed {
        self.buffer.push(ms(at), sequence, timestamp, false, 0, &[payload; 160])
    }

    fn pull(&mut self, at: u32) -> char {
        let letter = match self.buffer.pull(ms(at)) {
            Pull::Packet(packet) => {
                assert_eq!(packet.payload, [packet.payload[0]; 160]);
                self.played.push(packet.payload[0]);
                'P'
            }
            Pull::Lost { .. } => 'L',
            Pull::Empty => 'E',
        };
        self.pulls.push(letter);
        letter
    }

    /// Feeds packets `(arrival, n)` in order of arrival and pulls every tick until `end`.
    fn run(&mut self, arrivals: &[(u32, u8)], end: u32) {
        let mut arrivals = arrivals.to_vec();
        arrivals.sort_by_key(|(at, _)| *at);
        let mut waiting = arrivals.into_iter().peekable();
        for now in (0..end).step_by(TICK as usize) {
            while let Some((at, n)) = waiting.next_if(|(at, _)| *at <= now) {
                self.push(at, n);
            }
            self.pull(now);
        }
    }
}

fn ms(at: u32) -> Instant {
    Instant::ZERO + MS * (at + 1_000)
}

fn even(count: u8) -> Vec<(u32, u8)> {
    (0..count).map(|n| (u32::from(n) * TICK + 5, n)).collect()
}

fn all(count: u8) -> Vec<u8> {
    (0..count).collect()
}

#[test]
fn an_even_stream_is_played_whole_after_a_short_fill() {
    let mut world = World::new();
    world.run(&even(50), 1_060);
    assert_eq!(world.played, all(50));
    assert!(world.pulls.starts_with("EEEP"), "{}", world.pulls);
    assert!(world.pulls.trim_matches('E').chars().all(|it| it == 'P'), "{}", world.pulls);
}

#[test]
fn reordered_packets_are_played_in_order_even_at_the_start() {
    let mut world = World::new();
    let mut arrivals = even(20);
    (arrivals[0].0, arrivals[1].0) = (arrivals[1].0, arrivals[0].0);
    (arrivals[9].0, arrivals[10].0) = (arrivals[10].0, arrivals[9].0);
    world.run(&arrivals, 440);
    assert_eq!(world.played, all(20));
    assert_eq!(world.buffer.stats().lost, 0);
}

#[test]
fn a_lost_packet_is_concealed_once_and_its_successor_is_at_hand() {
    let mut world = World::new();
    for n in [0, 1, 3] {
        world.push(u32::from(n) * TICK, n);
    }
    assert_eq!(world.pull(60), 'P');
    assert_eq!(world.pull(80), 'P');
    let Pull::Lost { ticks: 160, following: Some(payload) } = world.buffer.pull(ms(100)) else {
        panic!("no concealment");
    };
    assert_eq!(payload[0], 3);
    assert_eq!(world.pull(120), 'P');
    assert_eq!(world.played, [0, 1, 3]);
    assert_eq!(world.push(130, 2), Pushed::Late);
    let stats = world.buffer.stats();
    assert_eq!((stats.lost, stats.late, stats.concealed), (1, 1, 1));
}

#[test]
fn duplicates_and_oversize_packets_are_refused() {
    let mut world = World::new();
    assert_eq!(world.push(0, 0), Pushed::Stored);
    assert_eq!(world.push(1, 0), Pushed::Duplicate);
    let big = [0; 641];
    assert_eq!(world.buffer.push(ms(2), 0, 0, false, 0, &big), Pushed::TooLarge);
    let stats = world.buffer.stats();
    assert_eq!((stats.stored, stats.duplicates, stats.too_large), (1, 1, 1));
}

#[test]
fn a_loss_at_an_empty_buffer_costs_one_concealment_and_no_delay() {
    let mut world = World::new();
    // Packet 10 is lost, and when its turn comes packet 11 is not here either.
    let mut arrivals = even(30);
    arrivals[11].0 += 25;
    arrivals.remove(10);
    world.buffer.config.target_max = Duration::from_millis(20);
    world.run(&arrivals, 660);
    let mut expected = all(30);
    expected.remove(10);
    assert_eq!(world.played, expected);
    assert_eq!(world.pulls.trim_start_matches('E')[..30].matches('L').count(), 1);
    assert!(world.pulls.contains("PPLPP"), "{}", world.pulls);
}

#[test]
fn a_late_packet_at_an_empty_buffer_is_still_played() {
    let mut world = World::new();
    let mut arrivals = even(20);
    for arrival in &mut arrivals[10..] {
        arrival.0 += 45;
    }
    world.run(&arrivals, 560);
    assert_eq!(world.played, all(20));
    assert_eq!(world.buffer.stats().lost, 0);
}

#[test]
fn the_consumer_is_told_to_catch_up_or_to_wait() {
    let mut world = World::new();
    for n in 0..4 {
        world.push(0, n);
    }
    let pace = |world: &mut World, at| match world.buffer.pull(ms(at)) {
        Pull::Packet(packet) => packet.pace,
        other => panic!("{other:?}"),
    };
    assert_eq!(pace(&mut world, 40), Pace::Faster);
    world.buffer.config.target_min = MS * 120;
    assert_eq!(pace(&mut world, 40), Pace::Slower);
    world.buffer.config.target_min = MS * 20;
    assert_eq!(pace(&mut world, 40), Pace::Normal);
}

#[test]
fn silence_is_silence_and_the_next_talkspurt_is_whole() {
    let mut world = World::new();
    // DTX: numbers go on, timestamps jump by two seconds of silence.
    for n in 0..10 {
        world.push_raw(u32::from(n) * TICK, u16::from(n), u32::from(n) * 160, n);
    }
    let mut now = 0;
    let mut talk = |world: &mut World, until: u32| {
        while now < until {
            world.pull(now);
            now += TICK;
        }
    };
    // All ten came at once in this world's time, so begin to pull when the last was sent.
    talk(&mut world, 2_000);
    let quiet = world.pulls.clone();
    for n in 10..15u8 {
        let sent = 2_000 + u32::from(n - 10) * TICK;
        world.push_raw(sent, u16::from(n), sent * 8, n);
        talk(&mut world, sent + TICK);
    }
    talk(&mut world, 2_300);
    assert_eq!(world.played, all(15));
    assert!(quiet.ends_with("EEEEEEEEEE"), "{quiet}");
    assert_eq!(world.buffer.stats().lost, 0);
}

#[test]
fn jitter_raises_the_target_and_calm_lowers_it() {
    let mut random = SeededRandom::new(11);
    let mut world = World::new();
    let mut send = |world: &mut World, from: u32, count: u32, jitter: u32| {
        for n in from..from + count {
            let late = if jitter == 0 { 0 } else { random.below(jitter) };
            world.push_raw(n * TICK + late, n as u16, n * 160, 0);
            world.buffer.pull(ms(n * TICK + jitter));
        }
    };
    assert_eq!(world.buffer.target(), MS * 40);
    send(&mut world, 0, 500, 100);
    let stormy = world.buffer.target();
    assert!(stormy >= MS * 80 && stormy <= MS * 110, "{stormy:?}");
    send(&mut world, 500, 3_000, 0);
    assert_eq!(world.buffer.target(), MS * 20);
}

#[test]
fn after_a_stall_old_audio_is_dropped_and_the_delay_returns() {
    let mut world = World::new();
    // From 400 ms on nothing comes for 600 ms, then everything at once.
    let late = |at| if (400..1_000).contains(&at) { 1_000 } else { at };
    let arrivals: Vec<_> = even(100).into_iter().map(|(at, n)| (late(at), n)).collect();
    world.run(&arrivals, 2_060);
    let stats = world.buffer.stats();
    assert!(stats.discarded >= 20, "{stats:?}");
    assert!(world.buffer.target() <= MS * 120, "{:?}", world.buffer.target());
    // Packet 94 was sent at 1.88 s; the last pull was at 2.04 s.
    assert!(world.played.last() >= Some(&94), "{:?}", world.played);
}

#[test]
fn a_flood_never_holds_more_than_the_limit() {
    let mut world = World::new();
    for n in 0..200u8 {
        world.push(1, n);
    }
    assert!(world.buffer.depth() <= MS * 20 * RTP_JITTER_PACKETS.get() as u32);
    assert_eq!(world.pull(60), 'P');
    assert!(world.played[0] >= 150);
}

#[test]
fn a_sender_that_starts_anew_is_followed_at_once() {
    let mut world = World::new();
    world.run(&even(20), 400);
    assert_eq!(world.push_raw(405, 14, 0x4000_0000, 100), Pushed::Restarted, "timestamp");
    assert_eq!(world.push_raw(425, 15, 0x4000_00a0, 101), Pushed::Stored);
    for now in [440, 460, 480] {
        world.pull(now);
    }
    assert!(world.played.ends_with(&[100, 101]), "{:?}", world.played);
    assert_eq!(world.push_raw(485, 60_000, 0x4000_0280, 102), Pushed::Restarted, "number");
    assert_eq!(world.buffer.stats().restarts, 2);
}

#[test]
fn an_even_stream_uses_no_more_memory_than_it_holds() {
    let mut world = World::new();
    world.run(&even(200), 4_060);
    assert_eq!(world.played, all(200));
    let cell = world.buffer.config.payload_bytes;
    let used = world.buffer.payloads.chunks(cell).filter(|cell| cell[0] != 0).count();
    assert!(used <= 4, "{used}");
}

#[test]
fn a_late_packet_is_learned_of_at_once() {
    let mut world = World::new();
    world.run(&even(200), 4_060);
    assert_eq!(world.buffer.target(), MS * 40);
    // Of 50 packets one that is late is below the 2 % that may be; some more are not.
    for n in 0..10u16 {
        let at = 4_000 + u32::from(n) * TICK;
        world.push_raw(at + 90, (200 + n).wrapping_add(65_530), (200 + u32::from(n)) * 160, 1);
    }
    assert!(world.buffer.target() >= MS * 90, "{:?}", world.buffer.target());
}

#[test]
fn the_packet_time_is_learned() {
    let mut buffer = JitterBuffer::new(JitterConfig::new(8000));
    for n in 0..4u16 {
        buffer.push(ms(u32::from(n) * 40), n, u32::from(n) * 320, false, 0, &[1]);
    }
    assert_eq!(buffer.packet_time(), MS * 40);
    assert!(buffer.target() >= MS * 40);
}

#[test]
fn a_slow_sender_clock_never_builds_up_delay() {
    // 200 ppm fast: four more packets than ticks in 400 s.
    let mut buffer = JitterBuffer::new(JitterConfig::new(8000));
    let mut now = 0u64;
    let mut longest = Duration::ZERO;
    for n in 0..20_000u64 {
        let sent = n * 19_996;
        while now + 20_000 <= sent {
            now += 20_000;
            let at = Instant::from_nanos(1_000_000_000 + now * 1000);
            buffer.pull(at);
            longest = longest.max(buffer.depth());
        }
        let at = Instant::from_nanos(1_000_000_000 + sent * 1000);
        buffer.push(at, n as u16, (n * 160) as u32, false, 0, &[0]);
    }
    assert!(longest <= MS * 160, "{longest:?}");
    let stats = buffer.stats();
    assert!(stats.played + stats.discarded > 19_980, "{stats:?}");
}

#[test]
fn a_wrap_of_numbers_and_timestamps_is_no_event() {
    let mut buffer = JitterBuffer::new(JitterConfig::new(8000));
    let mut played = 0;
    for n in 0..100u32 {
        let (sequence, timestamp) =
            (65_500u16.wrapping_add(n as u16), (n * 160).wrapping_sub(8_000));
        assert_eq!(buffer.push(ms(n * TICK), sequence, timestamp, n == 0, 8, &[1]), Pushed::Stored);
        if let Pull::Packet(packet) = buffer.pull(ms(n * TICK + 1)) {
            assert_eq!(packet.timestamp, (played * 160u32).wrapping_sub(8_000));
            assert_eq!((packet.marker, packet.payload_type), (played == 0, 8));
            played += 1;
        }
    }
    assert!(played > 95, "{played}");
}

proptest! {
    #[test]
    fn whatever_comes_order_holds_and_counts_agree(
        steps in prop::collection::vec((0u32..200, any::<u16>(), any::<u32>(), 0u8..4), 1..300),
        clock_rate: u32,
    ) {
        let mut buffer = JitterBuffer::new(JitterConfig::new(clock_rate));
        let mut now = 0;
        let (mut sequence, mut timestamp) = (0u16, 0u32);
        for (wait, jump, far, kind) in steps {
            now += wait;
            match kind {
                0 => (sequence, timestamp) = (jump, far),
                1 => {
                    sequence = sequence.wrapping_add(jump % 8);
                    timestamp = timestamp.wrapping_add(160);
                }
                2 => timestamp = timestamp.wrapping_sub(far % 4000),
                _ => {}
            }
            buffer.push(ms(now), sequence, timestamp, false, 0, &[0; 20]);
            let _ = buffer.pull(ms(now));
            let stats = buffer.stats();
            let taken = buffer.slots.iter().filter(|slot| slot.is_taken).count() as u64;
            prop_assert!(stats.played + stats.discarded + taken <= stats.stored);
            prop_assert!(taken <= RTP_JITTER_PACKETS.value, "{}", format!("{stats:?}"));
            let mut cells = buffer.free.clone();
            cells.extend(buffer.slots.iter().filter(|slot| slot.is_taken).map(|slot| slot.cell));
            cells.sort_unstable();
            prop_assert!(cells.into_iter().eq(0..RTP_JITTER_PACKETS.value as u8));
        }
    }
}
