//! When to wake: at once when little comes, on a short tick under load.
//!
//! A wake costs more than a packet: measured at 20,000 packets a second, one wake for each costs
//! 2.4 to 5 times what a tick of 500 us does; at 45,000, 64 datagrams a wake cost a tenth less
//! than 32. So few packets are taken as they come, and of many, those of a tick together: as many
//! as make a wake cheap, but never later than the longest tick.

use std::time::Duration;

use base::Instant;

/// How long datagrams gather under load, at least and at most: with a timer's slack and the round's
/// own work nobody waits for 2 ms (DESIGN section 3), and what a longer one saves is not worth it.
pub(super) const TICK: Duration = Duration::from_micros(500);
pub(super) const TICK_MAX: Duration = Duration::from_micros(1_500);
/// Datagrams of one wake that make it cheap.
const GATHERED: u32 = 64;
/// How long arrivals are counted before the load is judged.
const WINDOW: Duration = Duration::from_millis(4);
/// Datagrams in a window from which it counts as load: 4,000 a second. Below that a tick would
/// delay each and save little.
const LOADED: u32 = 16;
/// Datagrams in a window below which load is over; lower, so that a load at the border does not
/// switch in each window.
const IDLE: u32 = 8;
/// The shortest packet time in use.
pub(super) const RESTED: Duration = Duration::from_millis(10);

/// Judges the load of one worker.
#[derive(Debug, Default)]
pub(super) struct Tick {
    /// When the last wait ended.
    woke: Instant,
    /// Where the present window began.
    began: Instant,
    count: u32,
    is_loaded: bool,
    /// How long datagrams gather.
    length: Duration,
}

impl Tick {
    /// A wait has ended, with so many datagrams.
    pub(super) fn seen(&mut self, now: Instant, datagrams: usize) {
        self.woke = now;
        self.count = self.count.saturating_add(u32::try_from(datagrams).unwrap_or(u32::MAX));
        let window = now.since(self.began);
        if window < WINDOW {
            return;
        }
        let bar = if self.is_loaded { IDLE } else { LOADED };
        // A window may be longer: by a wait for the first packet, or by a round's work.
        self.is_loaded = WINDOW * self.count >= window * bar;
        let wanted = window.saturating_mul(GATHERED) / self.count.max(1);
        self.length = wanted.clamp(TICK, TICK_MAX);
        (self.began, self.count) = (now, 0);
    }

    /// How long the next wait lets datagrams gather; `None` where the first one ends it. A tick
    /// begins with the end of the last wait, so that after a round that takes longer there is
    /// nothing to wait for.
    pub(super) fn gather(&self, now: Instant, most: Duration) -> Option<Duration> {
        self.is_loaded.then(|| (self.woke + self.length).since(now).min(most))
    }

    /// Whether the last wait is so long ago that a stream may have brought more than one packet.
    pub(super) fn has_rested(&self, now: Instant) -> bool {
        now.since(self.woke) > RESTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds packets at an even rate for so long; how long it then gathers.
    fn after(tick: &mut Tick, now: &mut Instant, per_second: u64, millis: u64) -> Option<Duration> {
        let gap = Duration::from_nanos(1_000_000_000 / per_second);
        let end = *now + Duration::from_millis(millis);
        while *now < end {
            *now += gap;
            tick.seen(*now, 1);
        }
        tick.gather(*now, Duration::from_secs(1))
    }

    #[test]
    fn few_packets_are_taken_as_they_come_and_many_on_a_tick() {
        let (mut tick, mut now) = (Tick::default(), Instant::from_nanos(5_000_000_000));
        assert_eq!(after(&mut tick, &mut now, 1_000, 100), None);
        assert_eq!(after(&mut tick, &mut now, 20_000, 100), Some(TICK_MAX));
        assert_eq!(after(&mut tick, &mut now, 3_000, 100), Some(TICK_MAX), "no flutter");
        assert_eq!(after(&mut tick, &mut now, 150_000, 100), Some(TICK));
        let between = after(&mut tick, &mut now, 64_000, 100).unwrap();
        assert!(between.abs_diff(Duration::from_millis(1)) < Duration::from_micros(20));
        assert_eq!(after(&mut tick, &mut now, 1_000, 100), None);
    }

    #[test]
    fn load_is_known_within_two_windows_and_forgotten_within_two_of_silence() {
        let (mut tick, mut now) = (Tick::default(), Instant::from_nanos(5_000_000_000));
        assert_eq!(after(&mut tick, &mut now, 150_000, 9), Some(TICK));
        for _ in 0..20 {
            now += TICK;
            tick.seen(now, 0);
        }
        assert_eq!(tick.gather(now, Duration::from_secs(1)), None);
    }

    #[test]
    fn a_tick_outlasts_neither_what_is_due_nor_a_long_round() {
        let (mut tick, mut now) = (Tick::default(), Instant::from_nanos(5_000_000_000));
        after(&mut tick, &mut now, 150_000, 20);
        let due = Duration::from_micros(30);
        assert_eq!(tick.gather(now, due), Some(due));
        let (later, second) = (now + Duration::from_micros(300), Duration::from_secs(1));
        assert_eq!(tick.gather(later, second), Some(TICK - Duration::from_micros(300)));
        assert_eq!(tick.gather(now + 2 * TICK, second), Some(Duration::ZERO));
    }
}
