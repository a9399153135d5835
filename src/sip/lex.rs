//! Character classes and the small scanners that the grammar of RFC 3261 section 25 shares:
//! tokens, quoted strings, comma lists. Pure functions over text.

/// Whether `bytes` is a non-empty token (RFC 3261 section 25.1).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// Whether `byte` may stand in a token.
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

/// Linear white space within an unfolded value.
pub(crate) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `text` without linear white space at either end.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// `bytes` without linear white space at either end.
pub(crate) const fn trim_bytes(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

/// Walks `text` outside quoted strings and angle brackets and returns the offset of the first
/// byte that `stop` accepts. A quote or bracket that never closes hides the rest.
pub(crate) fn find_outside(text: &str, stop: impl Fn(u8) -> bool) -> Option<usize> {
    let (mut quoted, mut escaped, mut angle) = (false, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            // RFC 3261 section 25.1: a quote within angle brackets is no part of any URI, so that
            // an unbalanced one there cannot hide the closing bracket.
            b'"' if !angle => quoted = !quoted,
            _ if quoted => {}
            b'>' if angle => angle = false,
            _ if angle => {}
            _ if stop(byte) => return Some(at),
            b'<' => angle = true,
            _ => {}
        }
    }
    None
}

/// The values of a comma list (RFC 3261 section 7.3.1), trimmed, empty ones left out.
pub(crate) fn split_list(text: &str) -> impl Iterator<Item = &str> {
    Split { rest: Some(text), separator: b',' }.map(trim).filter(|value| !value.is_empty())
}

/// The parts between `separator`s outside quotes and brackets, untrimmed.
pub(crate) const fn split_on(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    Split { rest: Some(text), separator }
}

struct Split<'a> {
    rest: Option<&'a str>,
    separator: u8,
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a str;
    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest?;
        // Separators are ASCII, so that both sides of one are whole characters.
        match find_outside(text, |byte| byte == self.separator) {
            Some(at) => {
                self.rest = Some(&text[at + 1..]);
                Some(&text[..at])
            }
            None => self.rest.take(),
        }
    }
}

/// Splits `"quoted" rest` into the unescaped content and the rest; `None` where `text` does not
/// begin with a quote or the quote never closes.
pub(crate) fn take_quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut content = String::new();
    let mut escaped = false;
    for (at, character) in inner.char_indices() {
        match character {
            _ if escaped => {
                content.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((content, &inner[at + 1..])),
            _ => content.push(character),
        }
    }
    None
}

/// `text` as a quoted string, with what must be escaped escaped and line breaks taken out.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\r' | '\n' | '\0' => quoted.push(' '),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// A decimal number without sign or white space; `None` on anything else or on overflow.
pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Room that most values of a header field fit in.
const VALUE_BYTES: usize = 120;

/// What `value` looks like, in one allocation where it is of ordinary size.
pub(crate) fn written(value: &impl std::fmt::Display) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(VALUE_BYTES);
    // Writing to a String cannot fail.
    let _ = write!(text, "{value}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_inside_quotes_and_brackets_do_not_split() {
        let text = r#" "A, \"B" <sip:a,b@h> ,, <sip:c@d>;x="1,2" , "#;
        let values: Vec<_> = split_list(text).collect();
        assert_eq!(values, [r#""A, \"B" <sip:a,b@h>"#, r#"<sip:c@d>;x="1,2""#]);
    }

    #[test]
    fn an_unclosed_quote_hides_the_rest() {
        assert_eq!(split_list(r#"a, "b, c"#).count(), 2);
    }

    #[test]
    fn quoting_survives_the_round_trip_and_cannot_break_the_line() {
        let quoted = quote("a\"b\\c\r\nVia: x");
        let (content, rest) = take_quoted(&quoted).unwrap();
        assert_eq!(content, "a\"b\\c  Via: x");
        assert_eq!(rest, "");
        assert!(take_quoted("\"open").is_none());
    }

    #[test]
    fn numbers_have_no_sign_and_do_not_overflow() {
        assert_eq!(number::<u16>("65535"), Some(65_535));
        for wrong in ["", "+1", "-1", " 1", "65536", "1e3", "٣"] {
            assert_eq!(number::<u16>(wrong), None, "{wrong}");
        }
    }
}
