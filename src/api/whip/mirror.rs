//! A WHIP browser cannot be asked anything once its session stands (RFC 9725 section 4.4): when
//! the calls offer anew, we answer for it, with what it has said, where it need not know of what
//! has changed. That is so for hold and resume, which change who is to send, and for an offer that
//! only keeps the session alive. Anything else it would have to know of, and is refused with 488,
//! which leaves the session as it was (RFC 3261 section 14.2).

use sdp::{Direction, Media, Session};

/// What `offer` is answered with, where the browser offered `ours` and was answered `theirs`.
pub(crate) fn answer(ours: &Session, theirs: &Session, offer: &Session) -> Option<Session> {
    let is_same_shape =
        ours.media.len() == theirs.media.len() && theirs.media.len() == offer.media.len();
    if !is_same_shape || !offer.media.iter().any(Media::is_open_audio) {
        return None;
    }
    let mut answer = ours.clone();
    for (index, offered) in offer.media.iter().enumerate() {
        let (was, media) = (theirs.media.get(index)?, answer.media.get_mut(index)?);
        if offered.port == 0 || was.port == 0 {
            // RFC 3264 section 6: what one side has switched off stays so.
            media.port = 0;
            if offered.port != 0 {
                return None;
            }
            continue;
        }
        if !is_same_line((theirs, was), (offer, offered)) {
            return None;
        }
        keep_formats(media, |format| was.formats.iter().any(|it| it == format));
        set(media, "setup", role(theirs.attribute_of(was, "setup")));
        let wanted = mirrored(offer.direction_of(offered));
        let direction = both(wanted, ours.direction_of(ours.media.get(index)?));
        answer = direct(answer, index, direction);
    }
    Some(sdp::follow(ours, answer))
}

/// Whether the browser would notice nothing: the same transport, keys, codecs.
fn is_same_line(was: (&Session, &Media), offered: (&Session, &Media)) -> bool {
    let said = |(session, media): (&Session, &Media), name: &str| {
        session.attribute_of(media, name).map(str::to_owned)
    };
    let place = |(session, media): (&Session, &Media)| {
        (media.port, session.connection_of(media).map(|it| it.host.clone()))
    };
    let is_same = |name: &str| said(was, name) == said(offered, name);
    ["ice-ufrag", "ice-pwd", "fingerprint", "mid"].iter().all(|name| is_same(name))
        && place(was) == place(offered)
        && was.1.kind == offered.1.kind
        && was.1.formats.iter().all(|format| offered.1.formats.contains(format))
}

/// Our DTLS role where the answer to our offer had `theirs` (RFC 8842 section 5.5: it stays).
fn role(theirs: Option<&str>) -> &'static str {
    if theirs == Some("active") { "passive" } else { "active" }
}

/// Leaves these formats only, with what is said of them.
fn keep_formats(media: &mut Media, keeps: impl Fn(&str) -> bool) {
    media.formats.retain(|format| keeps(format));
    media.attributes.retain(|attribute| {
        let of_format = matches!(attribute.name.as_str(), "rtpmap" | "fmtp" | "rtcp-fb");
        let format = attribute.value.as_deref().and_then(|it| it.split(' ').next());
        !of_format || format.is_none_or(|format| format == "*" || keeps(format))
    });
}

fn set(media: &mut Media, name: &str, value: &str) {
    if let Some(attribute) = media.attributes.iter_mut().find(|it| it.name == name) {
        attribute.value = Some(value.to_owned());
    }
}

/// Puts a direction on one line.
fn direct(mut session: Session, index: usize, direction: Direction) -> Session {
    if let Some(media) = session.media.get_mut(index) {
        media
            .attributes
            .retain(|it| it.value.is_some() || Direction::from_name(&it.name).is_none());
        media.attributes.push(sdp::Attribute::flag(direction.name()));
    }
    session
}

/// What the other side sees of a direction.
const fn mirrored(direction: Direction) -> Direction {
    match direction {
        Direction::SendOnly => Direction::RecvOnly,
        Direction::RecvOnly => Direction::SendOnly,
        Direction::SendRecv | Direction::Inactive => direction,
    }
}

/// What two directions have in common.
fn both(one: Direction, other: Direction) -> Direction {
    let sends = |it| matches!(it, Direction::SendRecv | Direction::SendOnly);
    let receives = |it| matches!(it, Direction::SendRecv | Direction::RecvOnly);
    match (sends(one) && sends(other), receives(one) && receives(other)) {
        (true, true) => Direction::SendRecv,
        (true, false) => Direction::SendOnly,
        (false, true) => Direction::RecvOnly,
        (false, false) => Direction::Inactive,
    }
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
