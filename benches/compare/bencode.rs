//! Bencoding, as rtpengine's control protocol speaks it: byte strings, whole numbers, lists and
//! dictionaries.

use std::collections::BTreeMap;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
    List(Vec<Self>),
    Map(BTreeMap<String, Self>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Value {
    /// A list of words.
    pub(crate) fn words(words: &[&str]) -> Self {
        Self::List(words.iter().map(|word| Self::from(*word)).collect())
    }

    /// A dictionary.
    pub(crate) fn map<'a>(rows: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Map(rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// The text under a key of a dictionary.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self {
            Self::Map(rows) => match rows.get(key)? {
                Self::Text(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(&format!("{}:{text}", text.len())),
            Self::Number(number) => out.push_str(&format!("i{number}e")),
            Self::List(values) => {
                out.push('l');
                values.iter().for_each(|value| value.write(out));
                out.push('e');
            }
            Self::Map(rows) => {
                out.push('d');
                for (key, value) in rows {
                    out.push_str(&format!("{}:{key}", key.len()));
                    value.write(out);
                }
                out.push('e');
            }
        }
    }

    /// Reads one value that takes up the whole text; `None` where it is malformed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (value, rest) = parse(text, 0)?;
        rest.is_empty().then_some(value)
    }
}

/// Nothing that rtpengine says is nested deeper.
const DEPTH_MAX: usize = 16;

fn parse(text: &str, depth: usize) -> Option<(Value, &str)> {
    if depth > DEPTH_MAX {
        return None;
    }
    match text.as_bytes().first()? {
        b'i' => {
            let (number, rest) = text[1..].split_once('e')?;
            Some((Value::Number(number.parse().ok()?), rest))
        }
        b'l' => {
            let (mut values, mut rest) = (Vec::new(), &text[1..]);
            while !rest.starts_with('e') {
                let (value, after) = parse(rest, depth + 1)?;
                values.push(value);
                rest = after;
            }
            Some((Value::List(values), &rest[1..]))
        }
        b'd' => {
            let (mut rows, mut rest) = (BTreeMap::new(), &text[1..]);
            while !rest.starts_with('e') {
                let (Value::Text(key), after) = parse(rest, depth + 1)? else { return None };
                let (value, after) = parse(after, depth + 1)?;
                rows.insert(key, value);
                rest = after;
            }
            Some((Value::Map(rows), &rest[1..]))
        }
        _ => {
            let (length, rest) = text.split_once(':')?;
            let length = length.parse().ok()?;
            Some((Value::Text(rest.get(..length)?.to_owned()), rest.get(length..)?))
        }
    }
}
