//! Telephone numbers to E.164, before any route looks at them. A trunk says how its numbers are
//! written (`numbers`); what is no number (`reception`) passes unchanged.

use crate::file::Bare;

/// Digits below which a number is a short code, an extension or an emergency number, which must
/// not grow a country code.
const SHORT_NUMBER_DIGITS: usize = 7;

/// E.164 allows no more; what would be longer is left as it came.
const E164_DIGITS: usize = 15;

/// How a trunk writes numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Numbers {
    /// `+` and the country code.
    pub(crate) country: Option<String>,
    /// What stands before an international number.
    pub(crate) international: Option<String>,
    /// What stands before a national number.
    pub(crate) national: Option<String>,
    /// What is taken off before anything else.
    pub(crate) strip: Option<String>,
    /// What a number without any of these is.
    pub(crate) bare: Bare,
}

impl Numbers {
    /// The number or user in the form that routes match: E.164 with `+` where it can be told.
    pub(crate) fn normalise(&self, user: &str) -> String {
        let stripped = match &self.strip {
            Some(strip) => user.strip_prefix(strip.as_str()).unwrap_or(user),
            None => user,
        };
        // Parameters of a telephone-subscriber, as in `+15550100;npdi` (RFC 3966 section 3).
        let subscriber = stripped.split(';').next().unwrap_or(stripped);
        let Some(digits) = digits_of(subscriber) else { return stripped.to_owned() };
        let written = self.e164(&digits).unwrap_or_else(|| digits.clone());
        let count = written.bytes().filter(u8::is_ascii_digit).count();
        if count <= E164_DIGITS { written } else { digits }
    }

    fn e164(&self, digits: &str) -> Option<String> {
        if digits.starts_with('+') || digits.len() < SHORT_NUMBER_DIGITS {
            return None;
        }
        let rest_after = |prefix: &Option<String>| {
            prefix.as_deref().and_then(|prefix| digits.strip_prefix(prefix))
        };
        if let Some(rest) = rest_after(&self.international) {
            return Some(format!("+{rest}"));
        }
        if let (Some(rest), Some(country)) = (rest_after(&self.national), &self.country) {
            return Some(format!("{country}{rest}"));
        }
        match (self.bare, &self.country) {
            (Bare::International, _) => Some(format!("+{digits}")),
            (Bare::National, Some(country)) => Some(format!("{country}{digits}")),
            (Bare::National, None) | (Bare::Keep, _) => None,
        }
    }
}

/// The digits of a written number, with its `+`, without visual separators (RFC 3966 section
/// 5.1.1); `None` for what is no number.
fn digits_of(text: &str) -> Option<String> {
    let (plus, rest) = match text.strip_prefix('+') {
        Some(rest) => ("+", rest),
        None => ("", text),
    };
    let all = rest.bytes().all(|byte| byte.is_ascii_digit() || b"-.() ".contains(&byte));
    let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
    (all && !digits.is_empty()).then(|| format!("{plus}{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(bare: Bare) -> Numbers {
        let word = |it: &str| Some(it.to_owned());
        Numbers {
            country: word("+49"),
            international: word("00"),
            national: word("0"),
            strip: word("88#"),
            bare,
        }
    }

    #[test]
    fn numbers_become_e164_whatever_way_they_are_written() {
        let numbers = numbers(Bare::Keep);
        for written in [
            "+493012345678",
            "00493012345678",
            "03012345678",
            "+49 (30) 1234-5678",
            "88#03012345678",
            "+49.30.12345678;npdi;rn=+4930",
        ] {
            assert_eq!(numbers.normalise(written), "+493012345678", "{written}");
        }
    }

    #[test]
    fn a_bare_number_is_what_the_trunk_says_it_is() {
        assert_eq!(numbers(Bare::Keep).normalise("3012345678"), "3012345678");
        assert_eq!(numbers(Bare::National).normalise("3012345678"), "+493012345678");
        assert_eq!(numbers(Bare::International).normalise("493012345678"), "+493012345678");
    }

    #[test]
    fn emergency_numbers_and_extensions_keep_their_form() {
        for short in ["112", "911", "0115", "4711", "110"] {
            assert_eq!(numbers(Bare::National).normalise(short), short);
        }
    }

    #[test]
    fn what_is_no_number_passes_unchanged() {
        for user in ["reception", "bob;x=1", "", "+", "--", "１２３", "a+1"] {
            assert_eq!(numbers(Bare::National).normalise(user), user);
        }
    }

    #[test]
    fn a_number_too_long_for_e164_is_not_touched() {
        assert_eq!(numbers(Bare::National).normalise("0123456789012345"), "0123456789012345");
    }
}
