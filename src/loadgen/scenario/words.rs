//! Values that are written as words: times, distributions, codecs, lists of closed sets.

use std::time::Duration;

use base::diagnostic::suggest;

use super::Times;

/// A value that is not what it should be: what is wrong, and what to write.
pub(super) type Wrong = (String, Option<String>);

pub(super) fn wrong(message: impl Into<String>, help: impl Into<String>) -> Wrong {
    (message.into(), Some(help.into()))
}

/// `250ms`, `30s`, `2m`, `1h`.
fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.find(|it: char| !it.is_ascii_digit() && it != '.')?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number * seconds).ok()
}

pub(super) fn time(text: &str) -> Result<Duration, Wrong> {
    parse_time(text).ok_or_else(|| {
        wrong(format!("`{text}` is no time"), "write it as in \"250ms\", \"30s\", \"2m\" or \"1h\"")
    })
}

/// `30s`, `uniform 10s 60s`, `exponential 30s`.
pub(super) fn times(text: &str) -> Result<Times, Wrong> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [one] => time(one).map(Times::Fixed),
        ["uniform", least, most] => {
            let (least, most) = (time(least)?, time(most)?);
            if least > most {
                let message = format!("`{text}`: the first time is longer than the second");
                return Err(wrong(message, "write the shorter one first"));
            }
            Ok(Times::Uniform(least, most))
        }
        ["exponential", mean] => time(mean).map(Times::Exponential),
        [first, ..] => {
            let help = suggest(first, &["uniform", "exponential"]);
            let form = "write \"30s\", \"uniform 10s 60s\" or \"exponential 30s\"".to_owned();
            Err((format!("`{text}` says no times"), help.or(Some(form))))
        }
        [] => Err(wrong("a time is missing", "write it as in \"30s\"")),
    }
}

/// One of a closed set.
pub(super) fn word<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, Wrong> {
    match known.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            Err((format!("unknown word `{text}`"), suggest(text, &words)))
        }
    }
}
