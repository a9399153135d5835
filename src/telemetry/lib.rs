//! Tier 4, renders events: each becomes one structured log line and its metrics.
//!
//! Nothing is named here twice: names, labels and severities come from [`base::Event`], whose
//! fields cannot hold what a log must not. Figures that are sampled rather than happen (relay
//! stages, calls in progress) are registered as [`Gauge`]s and read at scrape time.

#![forbid(unsafe_code)]

mod log;
mod port;

use std::sync::{Mutex, MutexGuard, PoisonError};

use base::event::{Times, Value};
use base::{Clock, Event, Throttle, limit};
use metrics::{Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

pub use log::{LogFormat, start_log};
pub use port::{Health, serve};

/// A figure that is read when somebody asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Gauge {
    /// Prometheus name without the prefix, such as `relay_stage_drop_total`.
    pub name: &'static str,
    /// Labels and their values.
    pub labels: Vec<(&'static str, &'static str)>,
    /// The figure.
    pub value: f64,
}

/// How the media of one leg was in some seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MediaFigures {
    /// RTP packets that came.
    pub received: u64,
    /// RTP packets that did not come.
    pub lost: u64,
    /// RTP packets that came too late to be heard.
    pub late: u64,
    /// 20 ms frames that had to be concealed.
    pub concealed: u64,
    /// The share of what we send that the peer misses, 0 to 1; `None` where nothing is sent.
    pub remote_loss: Option<f64>,
    /// Estimated mean opinion score of what came, 1 to 4.5; `None` of a codec without one.
    pub mos: Option<f64>,
}

type Source = Box<dyn Fn(&mut Vec<Gauge>) + Send>;

/// Renders events and gauges.
pub struct Telemetry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    sources: Mutex<Vec<Source>>,
    clock: Box<dyn Clock + Send + Sync>,
    /// By the words of an event and its name.
    lines: Mutex<Throttle<String, &'static str>>,
}

/// Seconds; from a frame to a long call.
const BUCKETS: [f64; 13] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0, 600.0];

/// Estimated mean opinion scores: 3.6 is where many, 3.1 where nearly all are dissatisfied (ITU-T
/// G.107 appendix I).
const SCORES: [f64; 9] = [1.5, 2.0, 2.6, 3.1, 3.6, 3.8, 4.0, 4.2, 4.4];

/// Shares of packets that are lost.
const SHARES: [f64; 9] = [0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

/// Names of what is known of media.
const MOS: &str = "callgate_media_mos";
const LOSS: &str = "callgate_media_loss_ratio";

/// Room for the name of any counter.
const NAME_BYTES: usize = 64;

const METADATA: Metadata<'_> = Metadata::new("callgate", Level::INFO, None);

impl Telemetry {
    /// A renderer that owns its metrics: two edges in one test do not mix theirs. `clock` tells
    /// the minutes in which log lines are counted.
    ///
    /// # Errors
    /// Where the histogram's buckets are refused.
    pub fn new(clock: impl Clock + Send + Sync + 'static) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(MOS.to_owned()), &SCORES)?
            .set_buckets_for_metric(Matcher::Full(LOSS.to_owned()), &SHARES)?
            .build_recorder();
        let handle = recorder.handle();
        Ok(Self {
            recorder,
            handle,
            sources: Mutex::new(Vec::new()),
            clock: Box::new(clock),
            lines: Mutex::new(Throttle::new(
                &limit::TELEMETRY_LINES_PER_MINUTE,
                &limit::TELEMETRY_LINE_KINDS,
            )),
        })
    }

    /// Renders one event: a log line, a counter, and a histogram for each duration in it.
    pub fn emit(&self, event: &Event) {
        self.log(event);
        self.count(event);
    }

    /// Writes an event's log line only. Calls are bounded by their admission; of what belongs to
    /// no call, limit `telemetry.lines_per_minute` is written and [`Telemetry::tick`] tells how
    /// many lines were left out.
    pub fn log(&self, event: &Event) {
        // What no filter lets through is not left out.
        if !log::is_wanted(event.severity()) {
            return;
        }
        let mut words = Some(String::new());
        event.visit(&mut |_, value| match (value, &mut words) {
            (Value::Call(_), _) => words = None,
            (Value::Word(word), Some(words)) => {
                words.push_str(word);
                words.push(' ');
            }
            _ => {}
        });
        let is_admitted =
            words.is_none_or(|words| self.lines().admits(self.clock.now(), words, event.name()));
        if is_admitted {
            log::write(event);
        }
    }

    /// Tells of the log lines that were left out; to be called at least once a minute.
    pub fn tick(&self) {
        let mut left_out = std::collections::BTreeMap::<&'static str, u64>::new();
        for summary in self.lines().poll(self.clock.now()) {
            let count = left_out.entry(summary.kind).or_default();
            *count = count.saturating_add(summary.left_out);
        }
        for (of, lines) in left_out {
            let event = Event::LinesOmitted { of, lines: Times(lines) };
            log::write(&event);
            self.count(&event);
        }
    }

    fn lines(&self) -> MutexGuard<'_, Throttle<String, &'static str>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an event without a log line.
    pub fn count(&self, event: &Event) {
        let mut name = String::with_capacity(NAME_BYTES);
        name.push_str("callgate_");
        name.extend(event.name().chars().map(|letter| if letter == '.' { '_' } else { letter }));
        let mut labels = Vec::new();
        let mut durations = Vec::new();
        let mut times = 1;
        event.visit(&mut |field, value| match value {
            Value::Times(these) => times = these,
            // Words come from closed sets and from configured names, so labels are bounded.
            Value::Word(word) => labels.push(Label::new(field, word.to_owned())),
            Value::Bool(is) => labels.push(Label::new(field, if is { "true" } else { "false" })),
            Value::Micros(micros) => durations.push((field, micros)),
            Value::Unsigned(_) | Value::Call(_) => {}
        });
        for (field, micros) in durations {
            let key = Key::from_name(format!("{name}_{field}_seconds"));
            self.recorder.register_histogram(&key, &METADATA).record(micros as f64 / 1e6);
        }
        name.push_str("_total");
        let key = Key::from_parts(name, labels);
        self.recorder.register_counter(&key, &METADATA).increment(times);
    }

    /// Counts some seconds of a leg's media under the trunk that it belongs to. Trunks are those of
    /// the policy, so the series are bounded.
    pub fn media(&self, trunk: &str, figures: &MediaFigures) {
        let label = |name, value: &str| Label::new(name, value.to_owned());
        for (what, count) in [
            ("received", figures.received),
            ("lost", figures.lost),
            ("late", figures.late),
            ("concealed", figures.concealed),
        ] {
            let labels = vec![label("trunk", trunk), label("what", what)];
            let key = Key::from_parts("callgate_media_packets_total", labels);
            self.recorder.register_counter(&key, &METADATA).increment(count);
        }
        let expected = figures.received.saturating_add(figures.lost);
        let loss = (expected > 0).then(|| figures.lost as f64 / expected as f64);
        for (way, loss) in [("from_trunk", loss), ("to_trunk", figures.remote_loss)] {
            let Some(loss) = loss else { continue };
            let key = Key::from_parts(LOSS, vec![label("trunk", trunk), label("way", way)]);
            self.recorder.register_histogram(&key, &METADATA).record(loss);
        }
        if let Some(mos) = figures.mos {
            let key = Key::from_parts(MOS, vec![label("trunk", trunk)]);
            self.recorder.register_histogram(&key, &METADATA).record(mos);
        }
    }

    /// Adds figures that are read at scrape time.
    pub fn register(&self, source: impl Fn(&mut Vec<Gauge>) + Send + 'static) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// Everything in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        let mut gauges = Vec::new();
        for source in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            source(&mut gauges);
        }
        gauges.sort_by_key(|gauge| gauge.name);
        let mut last = "";
        for gauge in gauges {
            if gauge.name != last {
                last = gauge.name;
                let kind = if last.ends_with("_total") { "counter" } else { "gauge" };
                text.push_str(&format!("# TYPE callgate_{last} {kind}\n"));
            }
            let labels: Vec<String> =
                gauge.labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
            let labels = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", labels.join(",")),
            };
            text.push_str(&format!("callgate_{last}{labels} {}\n", gauge.value));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{CallId, Instant, Reason, SeededRandom, TrunkName, WallTime};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// A clock that is set in seconds.
    #[derive(Clone, Default)]
    struct Seconds(Arc<AtomicU64>);

    impl Clock for Seconds {
        fn now(&self) -> Instant {
            Instant::ZERO + Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
        fn wall(&self) -> WallTime {
            WallTime::default()
        }
    }

    #[test]
    fn a_flood_of_refusals_leaves_a_bounded_log_and_every_one_in_the_counters() {
        let clock = Seconds::default();
        let telemetry = Telemetry::new(clock.clone()).unwrap();
        let (reason, transport, status) = (Reason::UnknownPeer, "tls", 403);
        let refused = Event::RequestRefused { reason, transport, status };
        let call = CallId::random(&mut SeededRandom::new(1));
        let ended = Event::CallEnded { call, reason: Reason::CallerHungUp, talked: Duration::ZERO };
        let text = log::tests::logged(LogFormat::Text, "info", || {
            for _ in 0..1_000 {
                telemetry.emit(&refused);
                telemetry.emit(&ended);
                telemetry.emit(&Event::CertificatesReloaded {});
            }
            clock.0.store(59, Ordering::Relaxed);
            telemetry.tick();
            clock.0.store(60, Ordering::Relaxed);
            telemetry.tick();
            telemetry.emit(&refused);
        });
        let share = limit::TELEMETRY_LINES_PER_MINUTE.get();
        assert_eq!(text.matches("sip.request.refused reason").count(), share + 1);
        assert_eq!(text.matches("call.ended").count(), 1_000, "calls are not left out");
        let omitted = format!("log.lines.omitted of=sip.request.refused lines={}\n", 1_000 - share);
        assert_eq!(text.matches(&omitted).count(), 1, "{}", &text[text.len() - 500..]);
        let metrics = telemetry.render();
        let labels = "{reason=\"policy.unknown_peer\",transport=\"tls\"}";
        assert!(metrics.contains(&format!("callgate_sip_request_refused_total{labels} 1001\n")));
        let labels = "{of=\"sip.request.refused\"}";
        let count = 1_000 - share;
        assert!(metrics.contains(&format!("callgate_log_lines_omitted_total{labels} {count}\n")));
    }

    #[test]
    fn a_summary_counts_all_that_it_stands_for() {
        let telemetry = Telemetry::new(Seconds::default()).unwrap();
        for calls in [994, 6] {
            let (trunk, calls) = (TrunkName::new("acme"), Times(calls));
            telemetry.count(&Event::CallsRefused { trunk, reason: Reason::NoRoute, calls });
        }
        let labels = "{trunk=\"acme\",reason=\"policy.no_route\"}";
        let wanted = format!("callgate_call_refused_more_total{labels} 1000\n");
        assert!(telemetry.render().contains(&wanted), "{}", telemetry.render());
    }

    #[test]
    fn an_event_becomes_a_counter_by_reason_and_a_histogram_without_the_call() {
        let telemetry = Telemetry::new(Seconds::default()).unwrap();
        let call = CallId::random(&mut SeededRandom::new(1));
        let talked = Duration::from_millis(1_500);
        telemetry.emit(&Event::CallEnded { call, reason: Reason::CallerHungUp, talked });
        let text = telemetry.render();
        assert!(text.contains("callgate_call_ended_total{reason=\"call.caller_hung_up\"} 1"));
        assert!(text.contains("callgate_call_ended_talked_seconds_sum 1.5"), "{text}");
        assert!(!text.contains(&call.to_string()));
    }

    #[test]
    fn media_is_counted_by_trunk_so_that_bad_sound_wakes_somebody() {
        let telemetry = Telemetry::new(Seconds::default()).unwrap();
        let good = MediaFigures { received: 250, mos: Some(4.39), ..MediaFigures::default() };
        let bad = MediaFigures {
            received: 225,
            lost: 25,
            late: 3,
            concealed: 30,
            remote_loss: Some(0.03),
            mos: Some(2.4),
        };
        telemetry.media("acme", &good);
        telemetry.media("acme", &bad);
        // Nothing was expected of one that only listens: that is no loss.
        telemetry.media("quiet", &MediaFigures::default());
        let text = telemetry.render();
        for line in [
            "callgate_media_packets_total{trunk=\"acme\",what=\"received\"} 475",
            "callgate_media_packets_total{trunk=\"acme\",what=\"lost\"} 25",
            "callgate_media_packets_total{trunk=\"acme\",what=\"concealed\"} 30",
            "callgate_media_mos_bucket{trunk=\"acme\",le=\"3.6\"} 1",
            "callgate_media_mos_count{trunk=\"acme\"} 2",
            "callgate_media_loss_ratio_bucket{trunk=\"acme\",way=\"from_trunk\",le=\"0.05\"} 1",
            "callgate_media_loss_ratio_bucket{trunk=\"acme\",way=\"from_trunk\",le=\"0.1\"} 2",
            "callgate_media_loss_ratio_count{trunk=\"acme\",way=\"to_trunk\"} 1",
            "callgate_media_packets_total{trunk=\"quiet\",what=\"received\"} 0",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
        }
        assert!(!text.contains("callgate_media_loss_ratio_count{trunk=\"quiet\""), "{text}");
    }

    #[test]
    fn gauges_are_read_at_scrape_time_and_typed_once() {
        let telemetry = Telemetry::new(Seconds::default()).unwrap();
        telemetry.register(|gauges| {
            for word in ["replayed", "stranger"] {
                let labels = vec![("stage", "latch"), ("reason", word)];
                gauges.push(Gauge { name: "relay_drop_total", labels, value: 2.0 });
            }
        });
        let text = telemetry.render();
        assert_eq!(text.matches("# TYPE callgate_relay_drop_total counter").count(), 1);
        assert!(
            text.contains("callgate_relay_drop_total{stage=\"latch\",reason=\"stranger\"} 2\n")
        );
    }
}
