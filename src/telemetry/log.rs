//! Structured log lines. What is logged is an event; there is no free text to leak into.
//!
//! A line of the JSON format is one object: `time` (RFC 3339, UTC), `level`, `event`, and the
//! fields of the event as they are declared in [`base::event`]: numbers, claims and words.
//! Durations are whole microseconds under `NAME_us`; the call an event belongs to is always
//! `call`. What is no event (a warning about a file, or a library's) has `event` `log.message`,
//! its `target`, its `message` and, as texts, its `fields`.

use std::fmt;

use base::Event;
use base::event::{Severity, Value};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Starts logging to standard error, at `level` (`error`, `warn`, `info`, `debug`) for callgate
/// and `warn` for libraries.
///
/// # Errors
/// Where logging was started before.
pub fn start_log(format: LogFormat, level: &str) -> Result<(), TryInitError> {
    subscriber(format, level, std::io::stderr).try_init()
}

fn subscriber<W>(format: LogFormat, level: &str, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(format!("warn,{TARGET}={level}"));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).event_format(Lines(format));
    tracing_subscriber::registry().with(filter).with(layer)
}

const TARGET: &str = "callgate";
/// The fields that one event's line is built from; no library has fields of these names.
const NAME: &str = "callgate.event";
const FIELDS: &str = "callgate.fields";

/// Whether a line of this severity would be written at all.
pub(crate) fn is_wanted(severity: Severity) -> bool {
    match severity {
        Severity::Debug => tracing::enabled!(target: TARGET, Level::DEBUG),
        Severity::Info => tracing::enabled!(target: TARGET, Level::INFO),
        Severity::Warn => tracing::enabled!(target: TARGET, Level::WARN),
        Severity::Error => tracing::enabled!(target: TARGET, Level::ERROR),
    }
}

pub(crate) fn write(event: &Event) {
    let (name, fields) = (event.name(), Fields(event));
    macro_rules! at {
        ($level:expr) => {
            tracing::event!(
                target: TARGET, $level, callgate.event = name, callgate.fields = ?fields
            )
        };
    }
    match event.severity() {
        Severity::Debug => at!(Level::DEBUG),
        Severity::Info => at!(Level::INFO),
        Severity::Warn => at!(Level::WARN),
        Severity::Error => at!(Level::ERROR),
    }
}

/// An event's fields: as ` name=value` for people, as `,"name":value` with `{:#?}`.
struct Fields<'a>(&'a Event);

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_json = f.alternate();
        let mut done = Ok(());
        self.0.visit(&mut |name, value| {
            if done.is_ok() {
                done =
                    if is_json { json_field(f, name, value) } else { text_field(f, name, value) };
            }
        });
        done
    }
}

/// A leg is named by its call.
const fn call_field(name: &'static str) -> &'static str {
    match name.as_bytes() {
        b"leg" => "call",
        _ => name,
    }
}

fn text_field(f: &mut fmt::Formatter<'_>, name: &'static str, value: Value<'_>) -> fmt::Result {
    match value {
        Value::Unsigned(number) | Value::Times(number) => write!(f, " {name}={number}"),
        Value::Micros(micros) => write!(f, " {name}_us={micros}"),
        Value::Bool(is) => write!(f, " {name}={is}"),
        Value::Word(word) => write!(f, " {name}={word}"),
        Value::Call(call) => write!(f, " {}={call}", call_field(name)),
    }
}

fn json_field(f: &mut fmt::Formatter<'_>, name: &'static str, value: Value<'_>) -> fmt::Result {
    match value {
        Value::Unsigned(number) | Value::Times(number) => write!(f, ",\"{name}\":{number}"),
        Value::Micros(micros) => write!(f, ",\"{name}_us\":{micros}"),
        Value::Bool(is) => write!(f, ",\"{name}\":{is}"),
        Value::Word(word) => write!(f, ",\"{name}\":{}", json_text(word)),
        Value::Call(call) => write!(f, ",\"{}\":\"{call}\"", call_field(name)),
    }
}

fn json_text(text: &str) -> serde_json::Value {
    serde_json::Value::from(text)
}

/// Writes lines in one format.
struct Lines(LogFormat);

/// What a record of `tracing` holds.
#[derive(Default)]
struct Found {
    is_json: bool,
    name: Option<String>,
    fields: String,
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Found {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            NAME => self.name = Some(value.to_owned()),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            FIELDS if self.is_json => self.fields = format!("{value:#?}"),
            FIELDS => self.fields = format!("{value:?}"),
            "message" => self.message = format!("{value:?}"),
            name => self.others.push((name, format!("{value:?}"))),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        record: &tracing::Event<'_>,
    ) -> fmt::Result {
        let mut found = Found { is_json: self.0 == LogFormat::Json, ..Found::default() };
        record.record(&mut found);
        let (level, target) = (record.metadata().level(), record.metadata().target());
        match self.0 {
            LogFormat::Text => {
                SystemTime.format_time(&mut line)?;
                write!(line, " {level:>5} ")?;
                text_line(&mut line, target, &found)
            }
            LogFormat::Json => {
                line.write_str("{\"time\":\"")?;
                SystemTime.format_time(&mut line)?;
                let level = level.as_str().to_ascii_lowercase();
                write!(line, "\",\"level\":\"{level}\"")?;
                json_line(&mut line, target, &found)
            }
        }
    }
}

fn text_line(line: &mut Writer<'_>, target: &str, found: &Found) -> fmt::Result {
    if let Some(name) = &found.name {
        return writeln!(line, "{name}{}", found.fields);
    }
    if target == TARGET {
        // Of ours, such as the findings in a policy: may have several lines.
        return writeln!(line, "{}", found.message);
    }
    // A library's may quote a peer, who must not be able to write lines of his own.
    write!(line, "{target}: {}", found.message.escape_debug())?;
    for (name, value) in &found.others {
        write!(line, " {name}={}", value.escape_debug())?;
    }
    writeln!(line)
}

fn json_line(line: &mut Writer<'_>, target: &str, found: &Found) -> fmt::Result {
    if let Some(name) = &found.name {
        return writeln!(line, ",\"event\":{}{}}}", json_text(name), found.fields);
    }
    let (target, message) = (json_text(target), json_text(&found.message));
    write!(line, ",\"event\":\"log.message\",\"target\":{target},\"message\":{message}")?;
    if !found.others.is_empty() {
        let others: serde_json::Map<String, serde_json::Value> = found
            .others
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json_text(value)))
            .collect();
        write!(line, ",\"fields\":{}", serde_json::Value::from(others))?;
    }
    writeln!(line, "}}")
}

#[cfg(test)]
#[path = "log_tests.rs"]
pub(crate) mod tests;
