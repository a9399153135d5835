//! Structured log lines. What is logged is an event; there is no free text to leak into.

use std::fmt::Write as _;

use base::Event;
use base::event::{Severity, Value};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
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
    let filter = EnvFilter::new(format!("warn,callgate={level}"));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    }
}

pub(crate) fn write(event: &Event) {
    let mut fields = String::new();
    event.visit(&mut |name, value| {
        // Writing to a String cannot fail.
        let _ = match value {
            Value::Unsigned(number) => write!(fields, " {name}={number}"),
            Value::Micros(micros) => write!(fields, " {name}_us={micros}"),
            Value::Bool(is) => write!(fields, " {name}={is}"),
            Value::Word(word) => write!(fields, " {name}={word}"),
            Value::Call(call) => write!(fields, " {name}={call}"),
        };
    });
    let name = event.name();
    match event.severity() {
        Severity::Debug => tracing::debug!(target: "callgate", "{name}{fields}"),
        Severity::Info => tracing::info!(target: "callgate", "{name}{fields}"),
        Severity::Warn => tracing::warn!(target: "callgate", "{name}{fields}"),
        Severity::Error => tracing::error!(target: "callgate", "{name}{fields}"),
    }
}
