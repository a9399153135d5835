//! Header parameters: `;name=value` lists of Via, From, To, Contact, Session-Expires and others.

use std::borrow::Cow;
use std::fmt;

use crate::lex::{is_token, quote, split_on, take_quoted, trim};

/// One parameter. The value is as written, quotes included.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Param {
    name: Box<str>,
    value: Option<Box<str>>,
}

/// An ordered list of parameters; names are compared without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<Param>);

impl Params {
    /// No parameters.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Parses `;a=b;c` (the text from the first semicolon on, or nothing).
    /// `None` where a name is missing or is no token, where a value is neither a quoted string nor
    /// free of white space, quotes, commas and brackets, or where something else stands before.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = trim(text);
        if text.is_empty() {
            return Some(Self::new());
        }
        let mut params = Vec::new();
        for part in split_on(text.strip_prefix(';')?, b';') {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (trim(name), Some(trim(value))),
                None => (trim(part), None),
            };
            if !is_token(name.as_bytes()) || !value.is_none_or(is_value) {
                return None;
            }
            params.push(Param { name: name.into(), value: value.map(Into::into) });
        }
        Some(Self(params))
    }

    /// Every parameter in order: name, and value as written where there is a `=`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|param| (&*param.name, param.value.as_deref()))
    }

    /// The value as written, empty for a flag.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, v)| v.unwrap_or(""))
    }

    /// The value without quotes and escapes.
    #[must_use]
    pub fn unquoted(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = self.value(name)?;
        Some(take_quoted(value).map_or(Cow::Borrowed(value), |(content, _)| Cow::Owned(content)))
    }

    /// Whether the parameter is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Sets a parameter in its place, or at the end. A value that is neither token nor address is
    /// quoted. A `name` that is no token changes nothing.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        if !is_token(name.as_bytes()) {
            return;
        }
        let plain = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| matches!(b, b'[' | b']' | b':') || is_token(&[b]))
        };
        let written = |text: &str| if plain(text) { text.into() } else { quote(text).into() };
        let value: Option<Box<str>> = value.map(written);
        match self.0.iter_mut().find(|param| param.name.eq_ignore_ascii_case(name)) {
            Some(param) => param.value = value,
            None => self.0.push(Param { name: name.into(), value }),
        }
    }

    /// Removes a parameter.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|param| !param.name.eq_ignore_ascii_case(name));
    }
}

/// More than RFC 3261's `gen-value` allows, but nothing that could be read as another value.
fn is_value(text: &str) -> bool {
    let plain = |b: u8| b > b' ' && !matches!(b, b'"' | b',' | b'<' | b'>' | 0x7f);
    take_quoted(text).map_or_else(|| text.bytes().all(plain), |(_, rest)| rest.is_empty())
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            write!(f, ";{name}")?;
            if let Some(value) = value {
                write!(f, "={value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_quotes_and_flags_are_understood() {
        let params = Params::parse(r#" ; a = b ;lr; Text="x;y=\"z\"" ;c="#).unwrap();
        assert_eq!(params.value("A"), Some("b"));
        assert_eq!(params.value("lr"), Some(""));
        assert_eq!(params.unquoted("text").as_deref(), Some("x;y=\"z\""));
        assert_eq!(params.to_string(), r#";a=b;lr;Text="x;y=\"z\"";c="#);
        assert!(!params.has("d"));
    }

    #[test]
    fn nameless_parameters_and_values_that_could_be_read_two_ways_are_refused() {
        for wrong in [
            ";",
            ";;a",
            ";=x",
            "a=b",
            ";a b=c",
            r#";"x"=1"#,
            ";a=b c",
            ";a=\"b",
            ";a=\"b\"c",
            ";a=<b>",
            ";a=b, c",
        ] {
            assert_eq!(Params::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Params::parse("  "), Some(Params::new()));
    }

    #[test]
    fn a_value_that_could_break_out_is_quoted() {
        let mut params = Params::parse(";tag=1").unwrap();
        params.set("TAG", Some("2;evil=1"));
        params.set("received", Some("[2001:db8::1]"));
        params.set("a b", Some("x"));
        assert_eq!(params.to_string(), r#";tag="2;evil=1";received=[2001:db8::1]"#);
        params.remove("tag");
        assert!(!params.has("tag"));
    }
}
