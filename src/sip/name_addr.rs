//! `name-addr` and `addr-spec` with their parameters: From, To, Contact, Route and the like.

use std::fmt;

use crate::lex::{find_outside, is_token, quote, take_quoted, trim};
use crate::params::Params;
use crate::uri::{Uri, UriError};

/// A display name, a URI and parameters. It prints with angle brackets always (RFC 3261 section
/// 20.10 needs them for most URIs), so it prints what it means, not what was written.
#[derive(Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// The display name without quotes and escapes; `None` where there is none or it is empty.
    pub display: Option<String>,
    /// The URI.
    pub uri: Uri,
    /// The header parameters after it, `tag` for instance.
    pub params: Params,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameAddrError {
    /// A quote or an angle bracket does not close, or something stands where nothing may.
    #[error("the quotes or angle brackets do not balance")]
    Shape,
    /// The URI is malformed.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The parameters are malformed.
    #[error("the parameters are malformed")]
    Params,
}

impl NameAddr {
    /// An address without display name and parameters.
    #[must_use]
    pub const fn new(uri: Uri) -> Self {
        Self { display: None, uri, params: Params::new() }
    }

    /// The same with a display name.
    #[must_use]
    pub fn with_display(mut self, display: &str) -> Self {
        self.display = Some(display.to_owned()).filter(|display| !display.is_empty());
        self
    }

    /// The same with this parameter set.
    #[must_use]
    pub fn with_param(mut self, name: &str, value: Option<&str>) -> Self {
        self.params.set(name, value);
        self
    }

    /// Parses one value (not a comma list).
    ///
    /// # Errors
    /// Says what is malformed.
    pub fn parse(text: &str) -> Result<Self, NameAddrError> {
        let text = trim(text);
        if let Some((display, rest)) = take_quoted(text) {
            let rest = trim(rest).strip_prefix('<').ok_or(NameAddrError::Shape)?;
            return Self::after_bracket(display, rest);
        }
        if text.starts_with('"') {
            return Err(NameAddrError::Shape);
        }
        if let Some((display, rest)) = text.split_once('<') {
            let display = trim(display);
            // An unquoted display name is tokens (RFC 3261 section 25.1). Letters outside ASCII
            // are common in practice and harm nobody; separators would be ambiguous.
            let word = |it: &str| it.bytes().all(|b| b >= 0x80 || is_token(&[b]));
            if !display.split([' ', '\t']).all(word) {
                return Err(NameAddrError::Shape);
            }
            return Self::after_bracket(display.to_owned(), rest);
        }
        // RFC 3261 section 20.10: without brackets, parameters belong to the header.
        let end = find_outside(text, |byte| byte == b';').unwrap_or(text.len());
        let params = Params::parse(&text[end..]).ok_or(NameAddrError::Params)?;
        Ok(Self { display: None, uri: Uri::parse(trim(&text[..end]))?, params })
    }

    fn after_bracket(display: String, rest: &str) -> Result<Self, NameAddrError> {
        let (uri, params) = rest.split_once('>').ok_or(NameAddrError::Shape)?;
        Ok(Self {
            display: Some(display).filter(|display| !display.is_empty()),
            uri: Uri::parse(trim(uri))?,
            params: Params::parse(params).ok_or(NameAddrError::Params)?,
        })
    }

    /// The `tag` parameter.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.params.value("tag").filter(|tag| !tag.is_empty())
    }
}

impl fmt::Debug for NameAddr {
    /// Leaves the display name out: it identifies a person, as the URI's user does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{:?}>{}", self.uri, self.params)
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = &self.display {
            write!(f, "{} ", quote(display))?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> NameAddr {
        NameAddr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_quoted_display_name_may_hold_brackets_semicolons_and_quotes() {
        let it = parsed(r#""A <b>; \"c\", d" <sip:a@h;lr>;tag=1;x="<;>""#);
        assert_eq!(it.display.as_deref(), Some("A <b>; \"c\", d"));
        assert_eq!(it.uri.as_str(), "sip:a@h;lr");
        assert_eq!(it.tag(), Some("1"));
        assert_eq!(NameAddr::parse(&it.to_string()), Ok(it));
    }

    #[test]
    fn without_brackets_the_parameters_are_the_headers() {
        let it = parsed("sip:a@h ; tag = 88");
        assert_eq!(it.uri.as_str(), "sip:a@h");
        assert_eq!(it.tag(), Some("88"));
        assert_eq!(parsed("Bob  Smith <tel:+1555>").display.as_deref(), Some("Bob  Smith"));
        assert_eq!(parsed("<sip:a@h>").display, None);
        assert_eq!(parsed("\"\"<sip:a@h>").display, None);
        assert_eq!(parsed("Jürgen <sip:a@h>").display.as_deref(), Some("Jürgen"));
    }

    #[test]
    fn unbalanced_addresses_are_refused() {
        for wrong in [
            "\"open <sip:a@h>",
            "<sip:a@h",
            "\"a\" sip:a@h",
            "a, b <sip:a@h>",
            "a \"b\" <sip:a@h>",
            "*",
            "",
            "<sip:a@h>>",
            "<sip:a@h>;;tag=1",
            "< sip:a@h><sip:b@h>",
        ] {
            assert!(NameAddr::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rsip_reads_what_we_print() {
        use rsip::prelude::*;
        let ours = parsed("Bob <sip:bob@biloxi.example.com>;tag=a73kszlfl");
        let theirs = rsip::headers::From::new(ours.to_string()).typed().unwrap();
        assert_eq!(theirs.tag().map(|tag| tag.to_string()).as_deref(), ours.tag());
        assert_eq!(theirs.uri.to_string(), ours.uri.to_string());
    }
}
