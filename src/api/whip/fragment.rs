//! The fragments of a WHIP session's PATCH (RFC 8840 section 9, RFC 9725 section 4.3): candidates
//! as they are found, and new credentials that restart ICE.

use base::limit;
use sdp::{Attribute, Session};

/// What a browser says of its side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// `a=ice-ufrag`.
    pub(crate) ufrag: String,
    /// `a=ice-pwd`.
    pub(crate) password: String,
    /// `a=candidate`, in order.
    pub(crate) candidates: Vec<String>,
    /// Whether no more follow.
    pub(crate) is_last: bool,
}

/// Why a fragment is none: the number of the line, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFragment(pub(crate) usize);

/// The types and lengths of RFC 8839 section 5.4: `ice-char` alone.
fn is_credential(text: &str, lengths: core::ops::RangeInclusive<usize>) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    lengths.contains(&text.len()) && text.bytes().all(is_char)
}

impl Fragment {
    /// Reads one; credentials may stand before the media line or after it.
    ///
    /// # Errors
    /// The line that is wrong: no `TYPE=VALUE`, a bad or contradicting credential, too many; or
    /// the one after the last where a credential is missing.
    pub(crate) fn parse(text: &str) -> Result<Self, BadFragment> {
        let (mut ufrag, mut password): (Option<&str>, Option<&str>) = (None, None);
        let (mut candidates, mut is_last, mut count) = (Vec::new(), false, 0);
        for line in text.lines() {
            count += 1;
            let bad = BadFragment(count);
            if count > limit::API_FRAGMENT_LINES.get() || line.contains(['\r', '\0']) {
                return Err(bad);
            }
            if line.is_empty() {
                continue;
            }
            let (kind, value) = line.split_once('=').ok_or(bad)?;
            match kind {
                "a" => {}
                "m" => continue,
                _ => return Err(bad),
            }
            let (name, value) = value.split_once(':').unwrap_or((value, ""));
            let (place, lengths) = match name {
                "ice-ufrag" => (&mut ufrag, 4..=256),
                "ice-pwd" => (&mut password, 22..=256),
                "candidate" => {
                    candidates.push(value.to_owned());
                    continue;
                }
                "end-of-candidates" => {
                    is_last = true;
                    continue;
                }
                _ => continue,
            };
            if !is_credential(value, lengths) || place.is_some_and(|known| known != value) {
                return Err(bad);
            }
            *place = Some(value);
        }
        let (Some(ufrag), Some(password)) = (ufrag, password) else {
            return Err(BadFragment(count + 1));
        };
        let (ufrag, password) = (ufrag.to_owned(), password.to_owned());
        Ok(Self { ufrag, password, candidates, is_last })
    }

    /// Whether its credentials are those of a description.
    pub(crate) fn is_of(&self, session: &Session) -> bool {
        session.media.iter().any(|media| {
            session.attribute_of(media, "ice-ufrag") == Some(&self.ufrag)
                && session.attribute_of(media, "ice-pwd") == Some(&self.password)
        })
    }

    /// The description with these credentials and candidates in place of its own, as the next
    /// offer.
    pub(crate) fn restarting(&self, previous: &Session) -> Session {
        let mut next = previous.clone();
        let all = next.media.iter_mut().map(|media| &mut media.attributes);
        for attributes in all.chain(core::iter::once(&mut next.attributes)) {
            attributes.retain(|it| !matches!(it.name.as_str(), "candidate" | "end-of-candidates"));
            for attribute in attributes {
                match attribute.name.as_str() {
                    "ice-ufrag" => attribute.value = Some(self.ufrag.clone()),
                    "ice-pwd" => attribute.value = Some(self.password.clone()),
                    _ => {}
                }
            }
        }
        // The transport of a bundle is that of its first line (RFC 9143 section 7.2).
        if let Some(first) = next.media.iter_mut().find(|media| media.port != 0) {
            let written = |value: &String| Attribute::new("candidate", value);
            first.attributes.extend(self.candidates.iter().map(written));
            if self.is_last {
                first.attributes.push(Attribute::flag("end-of-candidates"));
            }
        }
        sdp::follow(previous, next)
    }
}

/// The fragment that tells the browser of our side: the answer to its restart.
pub(crate) fn written(answer: &Session) -> Option<String> {
    let media = answer.media.iter().find(|media| media.port != 0)?;
    let mut text = String::new();
    let mut line = |name: &str, value: Option<&str>| {
        text += "a=";
        text += name;
        if let Some(value) = value {
            text += ":";
            text += value;
        }
        text += "\r\n";
    };
    for flag in ["ice-lite", "ice-options"] {
        let found = answer.attributes.iter().find(|it| it.name == flag);
        if let Some(found) = found {
            line(flag, found.value.as_deref());
        }
    }
    if let Some(group) = answer.attribute("group") {
        line("group", Some(group));
    }
    let ufrag = answer.attribute_of(media, "ice-ufrag")?;
    let password = answer.attribute_of(media, "ice-pwd")?;
    let format = media.formats.first().map_or("0", String::as_str);
    let kind = media.kind.name();
    let head = format!("m={kind} 9 {} {format}\r\n", media.protocol.name());
    let mut below = Vec::new();
    if let Some(mid) = media.mid() {
        below.push(("mid", Some(mid)));
    }
    below.push(("ice-ufrag", Some(ufrag)));
    below.push(("ice-pwd", Some(password)));
    below.extend(media.candidates().map(|it| ("candidate", Some(it))));
    below.push(("end-of-candidates", None));
    text += &head;
    for (name, value) in below {
        text += "a=";
        text += name;
        if let Some(value) = value {
            text += ":";
            text += value;
        }
        text += "\r\n";
    }
    Some(text)
}

#[cfg(test)]
#[path = "fragment_tests.rs"]
mod tests;
