//! A figure: what was measured, against which bar, and whether it is met.

use benches::rig::generator::Seen;
use benches::rig::ratio::Ratio;
use serde::Serialize;

/// What a figure must reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) enum Bar {
    /// The 95 % upper bound is at most this.
    AtMost(f64),
    /// The 95 % lower bound is at least this.
    AtLeast(f64),
    /// Shown beside others; nothing depends on it.
    None,
}

/// Whether it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// The median passes, but too few pairs were good enough to bound it.
    Unsure,
    /// No bar.
    Shown,
    /// Why not.
    NotMeasured(String),
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) what: String,
    /// The unit of ours and theirs.
    pub(crate) unit: &'static str,
    /// Whether the value is ours / theirs.
    pub(crate) is_ratio: bool,
    pub(crate) bar: Bar,
    pub(crate) verdict: Verdict,
    /// The median: of the pairs' ratios, or of our samples.
    pub(crate) median: f64,
    /// The bound of the median at 95 %, on the side of the bar.
    pub(crate) bound: f64,
    pub(crate) ours: f64,
    /// Not a number where there is nobody to compare with.
    pub(crate) theirs: f64,
    /// Who that is.
    pub(crate) peer: &'static str,
    pub(crate) pairs: usize,
    pub(crate) notes: Vec<String>,
    pub(crate) windows: Vec<Window>,
}

impl Figure {
    /// Ours / theirs over pairs of `(ours, theirs)`.
    pub(crate) fn ratio(
        what: impl Into<String>,
        unit: &'static str,
        bar: Bar,
        peer: &'static str,
        pairs: &[(f64, f64)],
    ) -> Self {
        let ratio = Ratio::of(pairs);
        let bound = match bar {
            Bar::AtLeast(_) => {
                let swapped: Vec<_> = pairs.iter().map(|(ours, theirs)| (*theirs, *ours)).collect();
                1.0 / Ratio::of(&swapped).upper
            }
            Bar::AtMost(_) | Bar::None => ratio.upper,
        };
        let mut it = Self::blank(what, unit, bar, peer);
        (it.median, it.bound, it.pairs) = (ratio.median, bound, ratio.pairs);
        (it.ours, it.theirs, it.is_ratio) = (ratio.ours, ratio.theirs, true);
        it.judge();
        it
    }

    /// Samples of ours against a number.
    pub(crate) fn absolute(
        what: impl Into<String>,
        unit: &'static str,
        bar: Bar,
        samples: &[f64],
    ) -> Self {
        let pairs: Vec<_> = samples.iter().map(|sample| (*sample, 1.0)).collect();
        let mut it = Self::ratio(what, unit, bar, "", &pairs);
        (it.theirs, it.is_ratio) = (f64::NAN, false);
        it
    }

    /// A number that is counted and not sampled: its bound is itself.
    pub(crate) fn exact(what: impl Into<String>, unit: &'static str, bar: Bar, value: f64) -> Self {
        let mut it = Self::blank(what, unit, bar, "");
        (it.median, it.bound, it.ours, it.pairs) = (value, value, value, 1);
        it.judge();
        it
    }

    /// A figure that this run does not have.
    pub(crate) fn missing(what: impl Into<String>, bar: Bar, why: impl Into<String>) -> Self {
        let mut it = Self::blank(what, "", bar, "");
        it.verdict = Verdict::NotMeasured(why.into());
        it
    }

    fn blank(what: impl Into<String>, unit: &'static str, bar: Bar, peer: &'static str) -> Self {
        Self {
            what: what.into(),
            unit,
            is_ratio: false,
            bar,
            verdict: Verdict::Shown,
            median: f64::NAN,
            bound: f64::NAN,
            ours: f64::NAN,
            theirs: f64::NAN,
            peer,
            pairs: 0,
            notes: Vec::new(),
            windows: Vec::new(),
        }
    }

    fn judge(&mut self) {
        let passes = |value: f64| match self.bar {
            Bar::AtMost(most) => value <= most,
            Bar::AtLeast(least) => value >= least,
            Bar::None => true,
        };
        // Without enough pairs the bound is that of a median that could be anything.
        let is_bounded = self.bound.is_finite() && self.bound != 0.0;
        self.verdict = match self.bar {
            Bar::None => Verdict::Shown,
            _ if passes(self.bound) => Verdict::Met,
            _ if !is_bounded && passes(self.median) => Verdict::Unsure,
            _ => Verdict::Missed,
        };
    }

    /// The same with a remark.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same with what it was computed from.
    pub(crate) fn windows(mut self, windows: impl IntoIterator<Item = Window>) -> Self {
        self.windows.extend(windows);
        self
    }
}

/// One window of traffic through one anchor.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Window {
    pub(crate) anchor: &'static str,
    pub(crate) calls: u32,
    /// CPU of the anchor, in microseconds per packet that came out.
    pub(crate) cpu_us: f64,
    /// The share of a core that the anchor used, 0 to 1.
    pub(crate) cpu_share: f64,
    /// The share of what was sent that never came out, 0 to 1.
    pub(crate) loss: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) worst_ms: f64,
    pub(crate) wanted: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// What came out and matches nothing that was sent.
    pub(crate) strange: u64,
    /// The share of a core that the generator used, 0 to 1.
    pub(crate) generator_share: f64,
    /// The share of packets that the generator sent more than a millisecond late, 0 to 1.
    pub(crate) generator_late: f64,
    /// Whether the generator did all that it was asked for, with something left.
    pub(crate) has_headroom: bool,
}

impl Window {
    /// Of what the generator saw.
    pub(crate) fn of(anchor: &'static str, calls: u32, seen: &Seen) -> Self {
        let ms = |share| seen.latency(share).as_secs_f64() * 1e3;
        Self {
            anchor,
            calls,
            cpu_us: seen.cpu_per_packet(),
            cpu_share: seen.cpu.as_secs_f64() / seen.wall.as_secs_f64().max(1e-9),
            loss: seen.loss(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            worst_ms: ms(1.0),
            wanted: seen.wanted,
            sent: seen.sent,
            received: seen.received,
            strange: seen.strange,
            generator_share: seen.own_share(),
            generator_late: seen.late as f64 / seen.sent.max(1) as f64,
            has_headroom: seen.has_headroom(),
        }
    }

    /// Tells whoever waits for the run.
    pub(crate) fn say(&self) {
        eprintln!(
            "  {:<10} {:>5} calls {:6.2} us/packet, core {:3.0} %, loss {:.3} %, p50 {:.2} p99 \
             {:.2} worst {:.1} ms; generator {:.0} %, late {:.2} %{}",
            self.anchor,
            self.calls,
            self.cpu_us,
            self.cpu_share * 100.0,
            self.loss * 100.0,
            self.p50_ms,
            self.p99_ms,
            self.worst_ms,
            self.generator_share * 100.0,
            self.generator_late * 100.0,
            if self.has_headroom { "" } else { " (no headroom)" },
        );
    }

    /// Whether calls would sound well: hardly any loss, and no queue.
    pub(crate) fn is_healthy(&self) -> bool {
        self.loss < 0.001 && self.p99_ms < 20.0
    }
}
