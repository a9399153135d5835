//! The fields of a JSON body, each looked at by name: what is wrong is told all at once, and an
//! unknown one is refused. Null is as good as absent (REST contract 1.1, row 9).

use std::ops::RangeInclusive;

use axum::body::Body;
use base::limit;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::problem::{Invalid, Problem};

/// Fields that are still to be read, and what was wrong with those that were.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    left: Map<String, Value>,
    wrong: Vec<Invalid>,
}

impl Fields {
    /// Reads a body, at most limit `api.json_bytes` in at most limit `api.body_ms`. An empty one
    /// has no fields.
    pub(crate) async fn read(body: Body) -> Result<Self, Problem> {
        let bytes = axum::body::to_bytes(body, limit::API_JSON_BYTES.get());
        let bytes = tokio::time::timeout(limit::API_BODY_MS.millis(), bytes).await;
        let slow = || {
            let detail = "the body took too long";
            Problem::new(StatusCode::REQUEST_TIMEOUT, "api.body_late", detail).closing()
        };
        let large = || {
            let detail = format!("the body is over {} bytes", limit::API_JSON_BYTES.value);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "api.body_too_large", detail).closing()
        };
        let bytes = bytes.map_err(|_| slow())?.map_err(|_| large())?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let whole = |kind, message: String| {
            let field = String::new();
            Err(Problem::invalid(vec![Invalid { place: "body", field, kind, message }]))
        };
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(left)) => Ok(Self { left, wrong: Vec::new() }),
            Ok(_) => whole("dict_type", "must be a JSON object".to_owned()),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                whole("json_invalid", format!("not JSON: line {line} column {column}"))
            }
        }
    }

    /// Notes that a field is not as it must be.
    pub(crate) fn wrong(&mut self, field: &str, kind: &'static str, message: impl Into<String>) {
        let (field, message) = (field.to_owned(), message.into());
        self.wrong.push(Invalid { place: "body", field, kind, message });
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|value| !value.is_null())
    }

    /// A text.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => {
                self.wrong(name, "string_type", "must be a string");
                None
            }
        }
    }

    /// Yes or no.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.wrong(name, "bool_type", "must be true or false");
                None
            }
        }
    }

    /// A whole number.
    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.take(name)?;
        let found = value.as_u64().filter(|number| range.contains(number));
        if found.is_none() {
            let (least, most) = range.into_inner();
            let message = format!("must be a whole number from {least} to {most}");
            self.wrong(name, "int_range", message);
        }
        found
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            _ => None,
        };
        let texts = match self.take(name)? {
            Value::Array(values) => values.into_iter().map(text).collect(),
            _ => None,
        };
        if texts.is_none() {
            self.wrong(name, "list_type", "must be a list of strings");
        }
        texts
    }

    /// A list that must be empty where it is there.
    pub(crate) fn empty_list(&mut self, name: &str, message: &str) {
        let is_empty = |value: Value| value.as_array().is_some_and(Vec::is_empty);
        if self.take(name).is_some_and(|value| !is_empty(value)) {
            self.wrong(name, "list_empty", message);
        }
    }

    /// The end: nothing was wrong, and nothing is left.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        for (name, value) in std::mem::take(&mut self.left) {
            if !value.is_null() {
                // What a stranger calls a field is told back to a certain length only.
                let name: String = name.chars().take(64).collect();
                self.wrong(&name, "extra_forbidden", "there is no such field");
            }
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(self.wrong)) }
    }
}
