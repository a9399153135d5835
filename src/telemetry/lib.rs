//! Tier 4, renders events: each becomes one structured log line and its metrics.
//!
//! Nothing is named here twice: names, labels and severities come from [`base::Event`], whose
//! fields cannot hold what a log must not. Figures that are sampled rather than happen (relay
//! stages, calls in progress) are registered as [`Gauge`]s and read at scrape time.

#![forbid(unsafe_code)]

mod log;
mod port;

use std::sync::{Mutex, PoisonError};

use base::Event;
use base::event::Value;
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

type Source = Box<dyn Fn(&mut Vec<Gauge>) + Send>;

/// Renders events and gauges.
pub struct Telemetry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    sources: Mutex<Vec<Source>>,
}

/// Seconds; from a frame to a long call.
const BUCKETS: [f64; 13] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0, 600.0];

const METADATA: Metadata<'_> = Metadata::new("callgate", Level::INFO, None);

impl Telemetry {
    /// A renderer that owns its metrics: two edges in one test do not mix theirs.
    ///
    /// # Errors
    /// Where the histogram's buckets are refused.
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
            .build_recorder();
        let handle = recorder.handle();
        Ok(Self { recorder, handle, sources: Mutex::new(Vec::new()) })
    }

    /// Renders one event: a log line, a counter, and a histogram for each duration in it.
    pub fn emit(&self, event: &Event) {
        log::write(event);
        let name = format!("callgate_{}", event.name().replace('.', "_"));
        let mut labels = Vec::new();
        let mut durations = Vec::new();
        event.visit(&mut |field, value| match value {
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
        let key = Key::from_parts(format!("{name}_total"), labels);
        self.recorder.register_counter(&key, &METADATA).increment(1);
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
    use base::{CallId, Reason, SeededRandom};
    use std::time::Duration;

    #[test]
    fn an_event_becomes_a_counter_by_reason_and_a_histogram_without_the_call() {
        let telemetry = Telemetry::new().unwrap();
        let call = CallId::random(&mut SeededRandom::new(1));
        let talked = Duration::from_millis(1_500);
        telemetry.emit(&Event::CallEnded { call, reason: Reason::CallerHungUp, talked });
        let text = telemetry.render();
        assert!(text.contains("callgate_call_ended_total{reason=\"call.caller_hung_up\"} 1"));
        assert!(text.contains("callgate_call_ended_talked_seconds_sum 1.5"), "{text}");
        assert!(!text.contains(&call.to_string()));
    }

    #[test]
    fn gauges_are_read_at_scrape_time_and_typed_once() {
        let telemetry = Telemetry::new().unwrap();
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
