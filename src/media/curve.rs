//! How a leg's media was over time: its reports as one spell after the other, at most so many
//! (limit `media.curve_spells`). Where they would be more, each two become one, so that a call of
//! hours has a whole curve too, and never more than twice the length of the shortest spell.

use core::time::Duration;

use base::limit;

use crate::report::{Quality, REPORT_EVERY};

/// The media of a leg from one report, or several, to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spell {
    /// When it ended, after the answer.
    pub end: Duration,
    /// RTP packets accepted in it.
    pub received: u32,
    /// RTP packets missing in it.
    pub lost: u32,
    /// Packets of it that came too late to be heard.
    pub late: u32,
    /// 20 ms frames of it that had to be concealed.
    pub concealed: u32,
    /// The largest interarrival jitter of its reports.
    pub jitter: Duration,
    /// The longest round trip of its reports.
    pub round_trip: Option<Duration>,
    /// The worst estimated mean opinion score of its reports, each for the packets of its own five
    /// seconds; `None` where nothing was to be heard, or of a codec without a score.
    pub mos: Option<f32>,
}

/// A leg's reports over time.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    start: Option<Duration>,
    last: Quality,
    spells: Vec<Spell>,
    /// Reports of the last spell, of those that a spell has, as a power of two.
    filled: u32,
    doublings: u32,
}

impl Curve {
    /// Takes a report, so long after the answer; what happened since the one before.
    pub fn handle_report(&mut self, after: Duration, quality: &Quality) -> Spell {
        let spell = spell(after, quality, &self.last);
        self.last = *quality;
        self.start.get_or_insert(after.saturating_sub(REPORT_EVERY));
        match self.spells.last_mut().filter(|_| self.filled < 1 << self.doublings) {
            Some(last) => {
                *last = last.and(&spell);
                self.filled += 1;
            }
            None => {
                if self.spells.len() >= limit::MEDIA_CURVE_SPELLS.get() {
                    self.halve();
                }
                self.spells.push(spell);
                self.filled = 1;
            }
        }
        spell
    }

    /// Takes a report from before the answer: what it counts is in no spell.
    pub const fn skip_report(&mut self, quality: &Quality) {
        self.last = *quality;
    }

    /// When the first spell began, after the answer.
    #[must_use]
    pub fn start(&self) -> Duration {
        self.start.unwrap_or_default()
    }

    /// The spells, one after the other.
    #[must_use]
    pub fn spells(&self) -> &[Spell] {
        &self.spells
    }

    /// The figures of the latest report.
    #[must_use]
    pub const fn last(&self) -> &Quality {
        &self.last
    }

    fn halve(&mut self) {
        let pairs = self.spells.chunks(2).filter_map(|pair| match pair {
            [one, other] => Some(one.and(other)),
            _ => pair.first().copied(),
        });
        self.spells = pairs.collect();
        self.doublings = (self.doublings + 1).min(u32::BITS - 2);
    }
}

impl Spell {
    /// This one and the next as one.
    fn and(&self, next: &Self) -> Self {
        let worse = |one: Option<f32>, other: Option<f32>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self {
            end: next.end,
            received: self.received.saturating_add(next.received),
            lost: self.lost.saturating_add(next.lost),
            late: self.late.saturating_add(next.late),
            concealed: self.concealed.saturating_add(next.concealed),
            jitter: self.jitter.max(next.jitter),
            round_trip: self.round_trip.max(next.round_trip),
            mos: worse(self.mos, next.mos),
        }
    }
}

/// What happened between two reports.
fn spell(end: Duration, now: &Quality, before: &Quality) -> Spell {
    // Another media session of the same leg counts from zero again.
    let before = if now.received < before.received { &Quality::default() } else { before };
    let since = |count: fn(&Quality) -> u64| {
        u32::try_from(count(now).saturating_sub(count(before))).unwrap_or(u32::MAX)
    };
    let (received, lost) = (since(|it| it.received), since(|it| it.lost));
    let expected = u64::from(received) + u64::from(lost);
    let loss = if expected == 0 { 0.0 } else { f64::from(lost) / expected as f64 };
    let one_way = now.round_trip.unwrap_or_default() / 2 + now.delay;
    Spell {
        end,
        received,
        lost,
        late: since(|it| it.late),
        concealed: since(|it| it.concealed),
        jitter: now.jitter,
        round_trip: now.round_trip,
        mos: now
            .impairment
            .filter(|_| expected != 0)
            .map(|impairment| rtp::mos(impairment, loss as f32, one_way)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtp::Impairment;

    fn quality(received: u64, lost: u64) -> Quality {
        let impairment = Some(Impairment::G711);
        Quality { received, lost, impairment, ..Quality::default() }
    }

    fn after(reports: u32) -> Duration {
        REPORT_EVERY * reports
    }

    #[test]
    fn a_burst_of_loss_is_seen_where_it_was_and_not_after_it() {
        let mut curve = Curve::default();
        for (report, quality) in
            [(1, quality(250, 0)), (2, quality(375, 125)), (3, quality(625, 125))]
        {
            curve.handle_report(after(report), &quality);
        }
        let spells = curve.spells();
        let counts: Vec<_> = spells.iter().map(|it| (it.received, it.lost)).collect();
        assert_eq!(counts, [(250, 0), (125, 125), (250, 0)]);
        let mos: Vec<_> = spells.iter().map(|it| it.mos.unwrap()).collect();
        assert!(mos[0] > 4.2 && mos[1] < 2.0 && mos[2] > 4.2, "{mos:?}");
        assert_eq!((curve.start(), spells[2].end), (Duration::ZERO, after(3)));
    }

    #[test]
    fn silence_has_no_score_and_what_was_before_the_answer_does_not_count() {
        let mut curve = Curve::default();
        curve.skip_report(&quality(500, 20));
        curve.handle_report(after(1), &quality(500, 20));
        curve.handle_report(after(2), &quality(600, 20));
        let [silent, heard] = curve.spells() else { panic!() };
        assert_eq!((silent.received, silent.lost, silent.mos), (0, 0, None));
        assert!(heard.received == 100 && heard.lost == 0 && heard.mos.is_some());
    }

    #[test]
    fn a_new_session_of_the_leg_counts_from_zero() {
        let mut curve = Curve::default();
        curve.handle_report(after(1), &quality(250, 30));
        curve.handle_report(after(2), &quality(100, 2));
        assert_eq!((curve.spells()[1].received, curve.spells()[1].lost), (100, 2));
        curve.handle_report(after(3), &quality(u64::MAX, 2));
        assert_eq!(curve.spells()[2].received, u32::MAX);
    }

    #[test]
    fn a_call_of_a_day_has_a_whole_curve_within_the_limit_and_loses_no_packet_and_no_worst() {
        let mut curve = Curve::default();
        let most = limit::MEDIA_CURVE_SPELLS.get();
        let reports = 86_400 / 5;
        for report in 1..=reports {
            let mut quality = quality(u64::from(report) * 250, 0);
            let is_bad = report == 1_234;
            quality.jitter = Duration::from_millis(if is_bad { 80 } else { 2 });
            quality.round_trip = Some(Duration::from_millis(if is_bad { 900 } else { 20 }));
            curve.handle_report(after(report), &quality);
            assert!(curve.spells().len() <= most);
        }
        let spells = curve.spells();
        assert!(spells.len() > most / 2, "{}", spells.len());
        assert_eq!(spells.iter().map(|it| it.received).sum::<u32>(), reports * 250);
        assert_eq!(spells.last().unwrap().end, after(reports));
        let long = |it: &&Spell| it.jitter == Duration::from_millis(80) && it.mos < Some(3.6);
        assert_eq!(spells.iter().filter(long).count(), 1);
        let lengths = spells.windows(2).map(|two| two[1].end - two[0].end);
        let (shortest, longest) = (lengths.clone().rev().skip(1).min(), lengths.max());
        assert!(longest.unwrap() <= shortest.unwrap() * 2);
    }
}
