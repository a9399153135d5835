//! What a load amounted to, as a table (`Display`) and as JSON (serde).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base::limit::LOADGEN_LISTED_CALLS;
use serde::Serialize;

use crate::cause::Farewell;
use crate::config::Transport;

/// How a call turned out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// It was answered and media was agreed on.
    Answered,
    /// It was not.
    #[default]
    Failed,
    /// The load was cancelled before the answer.
    Cancelled,
}

/// How an answered call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The caller's script hung up.
    Script,
    /// [`crate::Config::hold`] was over.
    Hold,
    /// The far end hung up.
    FarEnd,
    /// The load was cancelled.
    Cancelled,
    /// The connection was lost, or a request of ours within the call was refused for good.
    Lost,
}

impl Ending {
    const fn name(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Hold => "hold",
            Self::FarEnd => "far_end",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

/// What one call amounted to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CallReport {
    /// Which call, from 0.
    pub index: u32,
    /// Its Call-ID.
    pub call_id: String,
    /// How it turned out.
    pub outcome: CallOutcome,
    /// The last status to its INVITE.
    pub status: Option<u16>,
    /// Why it failed: the stable code of a `Warning: 399` where there was one
    /// (`policy.plaintext_signalling`), else the phrase (`Busy Here`) or a code of ours
    /// (`connect.refused`, `setup.timeout`, `media.no_common_codec`).
    pub reason: Option<String>,
    /// How it ended, once answered.
    pub ending: Option<Ending>,
    /// By whom, by what and with which cause (RFC 3326) it was ended: `far end, BYE, Q.850 16`;
    /// `None` where no message did.
    pub farewell: Option<Farewell>,
    /// From the INVITE to the 200.
    pub setup_ms: Option<f64>,
    /// Of a browser, from the answer to the keys of its handshake: ICE and DTLS.
    pub secured_ms: Option<f64>,
    /// From the 200 to the first media packet that proved to be the far end's.
    pub first_audio_ms: Option<f64>,
    /// From the 200 to the first audio above -50 dBFS that was played.
    pub first_sound_ms: Option<f64>,
    /// From the 200 to the end.
    pub duration_ms: Option<f64>,
    /// The codec sent, as in SDP.
    pub codec: Option<String>,
    /// The crypto suite; `None` for plain RTP.
    pub suite: Option<String>,
    /// Packets and reports.
    pub media: MediaTotals,
    /// Share of the far end's packets that did not arrive, in percent.
    pub loss_percent: Option<f64>,
    /// Interarrival jitter at the end (RFC 3550 section 6.4.1).
    pub jitter_ms: Option<f64>,
    /// The round trip that the far end's last report tells.
    pub round_trip_ms: Option<f64>,
    /// Key presses heard.
    pub digits_heard: String,
    /// Steps of the script that went on because their time was over.
    pub waits_timed_out: u32,
    /// Steps of the script that were begun.
    pub steps_begun: u32,
    /// Where what was heard is.
    pub saved: Option<PathBuf>,
    /// Why it is not there, or not whole.
    pub save_error: Option<String>,
    /// Whether our clock kept up.
    pub saturation: Saturation,
}

/// Packets and reports, of one call or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MediaTotals {
    /// RTP packets sent.
    pub packets_sent: u64,
    /// RTP packets received that proved to be the far end's.
    pub packets_received: u64,
    /// RTP packets that did not arrive.
    pub packets_lost: u64,
    /// RTP packets that arrived too late to be played.
    pub packets_late: u64,
    /// Datagrams thrown away: not authentic, replayed, malformed, or from elsewhere.
    pub packets_rejected: u64,
    /// Datagrams that our own socket would not take.
    pub packets_unsent: u64,
    /// RTCP compounds sent.
    pub rtcp_sent: u64,
    /// RTCP compounds received.
    pub rtcp_received: u64,
    /// Key presses sent.
    pub digits_sent: u64,
}

impl MediaTotals {
    fn add(&mut self, other: &Self) {
        self.packets_sent += other.packets_sent;
        self.packets_received += other.packets_received;
        self.packets_lost += other.packets_lost;
        self.packets_late += other.packets_late;
        self.packets_rejected += other.packets_rejected;
        self.packets_unsent += other.packets_unsent;
        self.rtcp_sent += other.rtcp_sent;
        self.rtcp_received += other.rtcp_received;
        self.digits_sent += other.digits_sent;
    }
}

/// Whether the load generator kept up; where it did not, its other figures measure itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Saturation {
    /// Ticks of the 20 ms clock, over all calls.
    pub ticks: u64,
    /// Those that came more than 10 ms late.
    pub behind: u64,
    /// Those that came so late that their packet was not sent at all.
    pub skipped: u64,
    /// The latest of them.
    pub worst_ms: f64,
    /// Calls begun more than 10 ms after their turn, for want of room or of time.
    pub late_starts: u64,
}

impl Saturation {
    pub(crate) fn add(&mut self, other: &Self) {
        self.ticks += other.ticks;
        self.behind += other.behind;
        self.skipped += other.skipped;
        self.worst_ms = self.worst_ms.max(other.worst_ms);
        self.late_starts += other.late_starts;
    }

    /// Whether the other figures can be trusted: less than one tick in a thousand came late.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.behind.saturating_mul(1000) <= self.ticks
    }
}

/// Percentiles (nearest rank) of one measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// How many calls it was measured on.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`; `None` where there are none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let max = *values.last()?;
        let rank = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).max(1);
            values.get(rank - 1).copied().unwrap_or(max)
        };
        Some(Self { count: values.len() as u64, p50: rank(50), p95: rank(95), p99: rank(99), max })
    }
}

/// What a load amounted to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Who was called.
    pub target: String,
    /// How signalling travelled.
    pub transport: Transport,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// How long it took.
    pub elapsed_ms: u64,
    /// Whether it was cut short: cancelled, or stopped at its deadline.
    pub is_cut_short: bool,
    /// Calls that were to be placed.
    pub planned: u32,
    /// Calls that were.
    pub placed: u32,
    /// Calls that were answered.
    pub answered: u32,
    /// Calls that failed.
    pub failed: u32,
    /// Calls cancelled by us before the answer.
    pub cancelled: u32,
    /// Failed calls by status and reason.
    pub failures: BTreeMap<String, u32>,
    /// Answered calls by how they ended.
    pub endings: BTreeMap<String, u32>,
    /// Calls by whom, by what and with which cause they were ended: `far end, BYE, Q.850 16`.
    pub farewells: BTreeMap<String, u32>,
    /// Answered calls by codec and suite.
    pub codecs: BTreeMap<String, u32>,
    /// From the INVITE to the 200.
    pub setup_ms: Option<Spread>,
    /// Of browsers, from the answer to the keys of the handshake.
    pub secured_ms: Option<Spread>,
    /// From the 200 to the first media packet.
    pub first_audio_ms: Option<Spread>,
    /// From the 200 to the first audible sound.
    pub first_sound_ms: Option<Spread>,
    /// From the 200 to the end.
    pub duration_ms: Option<Spread>,
    /// Loss by call, in percent.
    pub loss_percent: Option<Spread>,
    /// Jitter by call.
    pub jitter_ms: Option<Spread>,
    /// Round trip by call.
    pub round_trip_ms: Option<Spread>,
    /// Packets and reports of all calls.
    pub media: MediaTotals,
    /// Whether the load generator kept up.
    pub saturation: Saturation,
    /// Whether what was heard of every call asked for was saved.
    pub save_errors: u32,
    /// The first calls one by one (limit `loadgen.listed_calls`).
    pub calls: Vec<CallReport>,
}

/// Milliseconds, to the microsecond.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The report in the making.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    placed: u32,
    answered: u32,
    failed: u32,
    cancelled: u32,
    failures: BTreeMap<String, u32>,
    endings: BTreeMap<String, u32>,
    farewells: BTreeMap<String, u32>,
    codecs: BTreeMap<String, u32>,
    setup: Vec<f64>,
    secured: Vec<f64>,
    first_audio: Vec<f64>,
    first_sound: Vec<f64>,
    duration: Vec<f64>,
    loss: Vec<f64>,
    jitter: Vec<f64>,
    round_trip: Vec<f64>,
    media: MediaTotals,
    saturation: Saturation,
    save_errors: u32,
    calls: Vec<CallReport>,
}

/// What the report says of the load as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) target: String,
    pub(crate) transport: Transport,
    pub(crate) started_at: String,
    pub(crate) elapsed: Duration,
    pub(crate) is_cut_short: bool,
    pub(crate) planned: u32,
}

impl Tally {
    /// Counts a call that is over.
    pub(crate) fn add(&mut self, call: CallReport) {
        self.placed += 1;
        match call.outcome {
            CallOutcome::Answered => self.answered += 1,
            CallOutcome::Cancelled => self.cancelled += 1,
            CallOutcome::Failed => {
                self.failed += 1;
                *self.failures.entry(failure(&call)).or_default() += 1;
            }
        }
        if let Some(ending) = call.ending {
            *self.endings.entry(ending.name().to_owned()).or_default() += 1;
        }
        if let Some(farewell) = call.farewell {
            *self.farewells.entry(farewell.to_string()).or_default() += 1;
        }
        if let Some(codec) = &call.codec {
            let suite = call.suite.as_deref().unwrap_or("plain RTP");
            *self.codecs.entry(format!("{codec}, {suite}")).or_default() += 1;
        }
        for (all, one) in [
            (&mut self.setup, call.setup_ms),
            (&mut self.secured, call.secured_ms),
            (&mut self.first_audio, call.first_audio_ms),
            (&mut self.first_sound, call.first_sound_ms),
            (&mut self.duration, call.duration_ms),
            (&mut self.loss, call.loss_percent),
            (&mut self.jitter, call.jitter_ms),
            (&mut self.round_trip, call.round_trip_ms),
        ] {
            all.extend(one);
        }
        self.media.add(&call.media);
        self.saturation.add(&call.saturation);
        self.save_errors += u32::from(call.save_error.is_some());
        if self.calls.len() < LOADGEN_LISTED_CALLS.get() {
            self.calls.push(call);
        }
    }

    /// Calls begun late so far.
    pub(crate) const fn late_starts(&self) -> u64 {
        self.saturation.late_starts
    }

    /// The report.
    pub(crate) fn finish(mut self, frame: Frame) -> Report {
        self.calls.sort_by_key(|call| call.index);
        Report {
            target: frame.target,
            transport: frame.transport,
            started_at: frame.started_at,
            elapsed_ms: u64::try_from(frame.elapsed.as_millis()).unwrap_or(u64::MAX),
            is_cut_short: frame.is_cut_short,
            planned: frame.planned,
            placed: self.placed,
            answered: self.answered,
            failed: self.failed,
            cancelled: self.cancelled,
            failures: self.failures,
            endings: self.endings,
            farewells: self.farewells,
            codecs: self.codecs,
            setup_ms: Spread::of(self.setup),
            secured_ms: Spread::of(self.secured),
            first_audio_ms: Spread::of(self.first_audio),
            first_sound_ms: Spread::of(self.first_sound),
            duration_ms: Spread::of(self.duration),
            loss_percent: Spread::of(self.loss),
            jitter_ms: Spread::of(self.jitter),
            round_trip_ms: Spread::of(self.round_trip),
            media: self.media,
            saturation: self.saturation,
            save_errors: self.save_errors,
            calls: self.calls,
        }
    }
}

/// The key under which a failure is counted: `486 Busy Here`, `403 policy.unknown_peer`,
/// `setup.timeout`.
fn failure(call: &CallReport) -> String {
    let reason = call.reason.as_deref().unwrap_or("unknown");
    match call.status {
        Some(status) if status >= 300 => format!("{status} {reason}"),
        _ => reason.to_owned(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed_ms as f64 / 1000.0;
        let cut = if self.is_cut_short { ", cut short" } else { "" };
        writeln!(f, "{} over {}: {seconds:.1} s{cut}", self.target, self.transport)?;
        writeln!(
            f,
            "calls      {} placed of {}, {} answered, {} failed, {} cancelled",
            self.placed, self.planned, self.answered, self.failed, self.cancelled
        )?;
        for (title, counts) in [
            ("failed", &self.failures),
            ("ended by", &self.endings),
            ("farewell", &self.farewells),
            ("media", &self.codecs),
        ] {
            for (name, count) in counts {
                writeln!(f, "  {title:<9}{count:>7}  {name}")?;
            }
        }
        writeln!(f, "{:<21}{:>9}{:>9}{:>9}{:>9}", "", "p50", "p95", "p99", "max")?;
        for (title, spread) in [
            ("set-up, ms", self.setup_ms),
            ("ICE and DTLS, ms", self.secured_ms),
            ("first packet, ms", self.first_audio_ms),
            ("first sound, ms", self.first_sound_ms),
            ("duration, ms", self.duration_ms),
            ("loss, %", self.loss_percent),
            ("jitter, ms", self.jitter_ms),
            ("round trip, ms", self.round_trip_ms),
        ] {
            let Some(Spread { p50, p95, p99, max, .. }) = spread else { continue };
            writeln!(f, "{title:<21}{p50:>9.2}{p95:>9.2}{p99:>9.2}{max:>9.2}")?;
        }
        let media = &self.media;
        writeln!(
            f,
            "RTP        {} sent, {} received, {} lost, {} late, {} rejected, {} unsent",
            media.packets_sent,
            media.packets_received,
            media.packets_lost,
            media.packets_late,
            media.packets_rejected,
            media.packets_unsent
        )?;
        writeln!(f, "RTCP       {} sent, {} received", media.rtcp_sent, media.rtcp_received)?;
        if self.save_errors > 0 {
            writeln!(f, "saving     {} recordings are missing or not whole", self.save_errors)?;
        }
        let Saturation { ticks, behind, skipped, worst_ms, late_starts } = self.saturation;
        write!(
            f,
            "own clock  {behind} of {ticks} ticks more than 10 ms late (worst {worst_ms:.1} ms), \
             {skipped} skipped, {late_starts} calls begun late"
        )?;
        if !self.saturation.is_sound() {
            write!(f, "\nwarning: the load generator did not keep up; the figures measure itself")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            target: "sip:reception@127.0.0.1".into(),
            transport: Transport::Tls,
            started_at: "2026-11-23T00:00:00.000Z".into(),
            elapsed: Duration::from_millis(1500),
            is_cut_short: false,
            planned: 3,
        }
    }

    fn answered() -> CallReport {
        CallReport {
            call_id: "c0".into(),
            outcome: CallOutcome::Answered,
            status: Some(200),
            ending: Some(Ending::FarEnd),
            farewell: Some(crate::Farewell {
                by_us: false,
                by: crate::FarewellBy::Bye,
                cause: Some(crate::Cause::Q850(16)),
            }),
            setup_ms: Some(4.25),
            first_audio_ms: Some(12.0),
            duration_ms: Some(1000.0),
            codec: Some("opus".into()),
            suite: Some("AEAD_AES_128_GCM".into()),
            media: MediaTotals { packets_sent: 50, packets_received: 49, ..Default::default() },
            loss_percent: Some(2.0),
            jitter_ms: Some(0.5),
            digits_heard: "1#".into(),
            steps_begun: 2,
            saturation: Saturation { ticks: 50, ..Default::default() },
            ..CallReport::default()
        }
    }

    fn refused(index: u32, status: Option<u16>, reason: &str) -> CallReport {
        CallReport { index, status, reason: Some(reason.into()), ..CallReport::default() }
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred = Spread::of((1..=100).rev().map(f64::from).collect()).unwrap();
        let found = (hundred.p50, hundred.p95, hundred.p99, hundred.max);
        assert_eq!(found, (50.0, 95.0, 99.0, 100.0));
        let one = Spread::of(vec![7.0]).unwrap();
        assert_eq!((one.count, one.p50, one.p99), (1, 7.0, 7.0));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn failures_are_counted_by_status_and_reason() {
        let mut tally = Tally::default();
        tally.add(refused(2, Some(403), "policy.unknown_peer"));
        tally.add(refused(1, Some(486), "Busy Here"));
        tally.add(refused(0, Some(486), "Busy Here"));
        tally.add(refused(3, Some(180), "setup.timeout"));
        tally.add(refused(4, None, "connect.refused"));
        let report = tally.finish(frame());
        let expected = [
            ("403 policy.unknown_peer", 1),
            ("486 Busy Here", 2),
            ("connect.refused", 1),
            ("setup.timeout", 1),
        ];
        assert!(report.failures.iter().map(|(key, count)| (key.as_str(), *count)).eq(expected));
        assert_eq!((report.placed, report.failed), (5, 5));
        assert!(report.calls.iter().map(|call| call.index).eq(0..5));
    }

    #[test]
    fn the_json_has_its_golden_shape() {
        let mut tally = Tally::default();
        tally.add(answered());
        let json = serde_json::to_string_pretty(&tally.finish(frame())).unwrap();
        assert_eq!(json, include_str!("testdata/report.json").trim_end());
    }

    #[test]
    fn the_table_warns_when_the_generator_itself_was_late() {
        let mut tally = Tally::default();
        tally.add(answered());
        let sound = tally.finish(frame()).to_string();
        assert!(sound.contains("1 placed of 3, 1 answered, 0 failed"), "{sound}");
        assert!(sound.contains("opus, AEAD_AES_128_GCM") && !sound.contains("warning"));

        let mut tally = Tally::default();
        let saturation = Saturation { ticks: 50, behind: 1, worst_ms: 11.0, ..Default::default() };
        tally.add(CallReport { saturation, ..answered() });
        let late = tally.finish(frame()).to_string();
        assert!(late.contains("1 of 50 ticks more than 10 ms late (worst 11.0 ms)"), "{late}");
        assert!(late.contains("warning: the load generator did not keep up"));
    }
}
