//! Time as a parameter. Nothing in tiers 0-3 reads a clock; the shell passes `now` in.

use core::cell::Cell;
use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A point on the monotonic clock, in nanoseconds.
///
/// In production it is `CLOCK_MONOTONIC`, so that every thread shares one origin without
/// passing it around; in the simulated world it starts at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin of the clock.
    pub const ZERO: Self = Self(0);

    /// A point `nanos` after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, or zero where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;
    /// Saturates at the end of the clock (584 years).
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(rhs)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    /// Saturates at the origin.
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_nanos(rhs)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    /// Saturates at zero.
    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

/// A point on the wall clock: milliseconds since 1970-01-01 UTC. `Display` is RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(u64);

const MILLIS_PER_DAY: u64 = 86_400_000;

impl WallTime {
    /// `millis` milliseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_millis(self) -> u64 {
        self.0
    }

    /// The UTC date of this point.
    #[must_use]
    pub const fn date(self) -> Date {
        Date::from_days(self.0 / MILLIS_PER_DAY)
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;
    /// Saturates.
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_day = self.0 % MILLIS_PER_DAY;
        let (h, m, s) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
        write!(f, "{}T{h:02}:{m:02}:{s:02}.{:03}Z", self.date(), of_day % 1000)
    }
}

/// A calendar date in UTC. `Display` is `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// A date of the proleptic Gregorian calendar from 1970 on; `None` where there is no such day.
    #[must_use]
    pub const fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        if year < 1970 || month == 0 || month > 12 || day == 0 || day > days_in(year, month) {
            return None;
        }
        Some(Self { year, month, day })
    }

    /// The date `days` days after 1970-01-01.
    #[must_use]
    pub const fn from_days(days: u64) -> Self {
        // Howard Hinnant's civil_from_days, eras of 400 years starting on 1 March.
        let z = days + 719_468;
        let era = z / 146_097;
        let doe = z % 146_097;
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = (doy - (153 * mp + 2) / 5 + 1) as u8;
        let month = (if mp < 10 { mp + 3 } else { mp - 9 }) as u8;
        let year = yoe + era * 400 + if month <= 2 { 1 } else { 0 };
        Self { year: year as u16, month, day }
    }

    /// Days from 1970-01-01 to this date.
    #[must_use]
    pub const fn days(self) -> u64 {
        let y = self.year as u64 - if self.month <= 2 { 1 } else { 0 };
        let (era, yoe) = (y / 400, y % 400);
        let mp = (self.month as u64 + 9) % 12;
        let doy = (153 * mp + 2) / 5 + self.day as u64 - 1;
        era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
    }

    /// The first instant after the end of this day: an expiry date holds until here (DESIGN 4.1).
    #[must_use]
    pub const fn end(self) -> WallTime {
        WallTime((self.days() + 1) * MILLIS_PER_DAY)
    }
}

const fn days_in(year: u16, month: u8) -> u8 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Where the shell gets time from. Tiers 0-3 take the values, not the clock.
pub trait Clock {
    /// Now, on the monotonic clock.
    fn now(&self) -> Instant;
    /// Now, on the wall clock.
    fn wall(&self) -> WallTime;
}

/// A clock that moves only when told to.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Cell<Instant>,
    wall_at_origin: WallTime,
}

impl ManualClock {
    /// A clock at the origin, whose origin is `wall` on the wall clock.
    #[must_use]
    pub const fn starting_at(wall: WallTime) -> Self {
        Self { now: Cell::new(Instant::ZERO), wall_at_origin: wall }
    }

    /// Moves the clock forward by `by`.
    pub fn advance(&self, by: Duration) {
        self.now.set(self.now.get() + by);
    }

    /// Moves the clock to `to`; a clock never goes back, so an earlier point is ignored.
    pub fn advance_to(&self, to: Instant) {
        self.now.set(self.now.get().max(to));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.now.get()
    }
    fn wall(&self) -> WallTime {
        self.wall_at_origin + self.now.get().since(Instant::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn dates_survive_the_round_trip_and_print_as_rfc3339() {
        for days in (0..60_000).step_by(7) {
            let date = Date::from_days(days);
            assert_eq!(date.days(), days);
            assert_eq!(Date::new(date.year, date.month, date.day), Some(date));
        }
        assert_eq!(Date::new(2027, 2, 29), None);
        assert_eq!(Date::new(2028, 2, 29).map(|d| d.to_string()).as_deref(), Some("2028-02-29"));
        let wall = WallTime::from_unix_millis(1_795_392_000_123);
        assert_eq!(wall.to_string(), "2026-11-23T00:00:00.123Z");
    }

    #[test]
    fn an_expiry_date_holds_to_the_end_of_its_day() {
        let last = Date::new(2027, 1, 31).unwrap();
        assert_eq!(last.end().to_string(), "2027-02-01T00:00:00.000Z");
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(Instant::ZERO - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::from_nanos(u64::MAX) + Duration::MAX, Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::ZERO.since(Instant::from_nanos(5)), Duration::ZERO);
    }
}
