//! Session timers (RFC 4028): who refreshes the session and when it counts as dead. Pure
//! decisions over header fields; the refresh itself is a re-INVITE or UPDATE of the owner.

use std::time::Duration;

use base::Instant;
use base::limit::CALL_MIN_SESSION_MS;

use crate::fields::{HeaderError, HeaderFault};
use crate::header::{Headers, Name};
use crate::lex::number;
use crate::params::Params;

/// The option tag (RFC 4028 section 7).
pub const OPTION_TAG: &str = "timer";

/// What this end wants, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTerms {
    /// The interval that we ask for and do not go above.
    pub interval: u32,
    /// The smallest interval that we take; at least limit `call.min_session_ms`.
    pub min: u32,
}

impl Default for SessionTerms {
    /// Half an hour as RFC 4028 section 4 recommends, and the smallest interval allowed.
    fn default() -> Self {
        Self { interval: 1800, min: floor() }
    }
}

fn floor() -> u32 {
    u32::try_from(CALL_MIN_SESSION_MS.value / 1000).unwrap_or(u32::MAX)
}

/// Why the terms of a request are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionTermsError {
    /// Answer 422 with Min-SE set to this many seconds ([`base::Reason::SessionIntervalTooSmall`]).
    #[error("the session interval is below {min} s")]
    TooSmall {
        /// The smallest interval taken here.
        min: u32,
    },
    /// Answer 400.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// What both ends agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionAgreement {
    /// The interval, in seconds.
    pub seconds: u32,
    /// Whether the refreshes are ours to send.
    pub we_refresh: bool,
    /// Whether the peer knows session timers.
    pub peer_supports: bool,
}

impl SessionAgreement {
    /// Writes it into the 2xx of the request that it answers (RFC 4028 section 9).
    pub fn write_answer(&self, headers: &mut Headers) {
        let refresher = if self.we_refresh { "uas" } else { "uac" };
        headers.set(Name::SessionExpires, format!("{};refresher={refresher}", self.seconds));
        if self.peer_supports && !headers.has_token(Name::Require, OPTION_TAG) {
            headers.push(Name::Require, OPTION_TAG);
        }
    }
}

impl SessionTerms {
    /// Decides on a request (INVITE, re-INVITE, UPDATE) that arrived. `None` where neither end
    /// asks for a timer: a peer that does not know them and did not ask is left alone.
    ///
    /// # Errors
    /// The interval is too small: 422; or Session-Expires is malformed: 400.
    pub fn answer(&self, request: &Headers) -> Result<Option<SessionAgreement>, SessionTermsError> {
        let peer_supports = request.has_token(Name::Supported, OPTION_TAG)
            || request.has_token(Name::Require, OPTION_TAG);
        let peer_min = request.seconds(Name::MinSe)?.unwrap_or(0);
        let min = self.min.max(floor());
        match session_expires(request)? {
            // Also where the peer does not list the option: what it asks for would have us
            // refresh more often than we are willing to.
            Some((seconds, _)) if seconds < min => Err(SessionTermsError::TooSmall { min }),
            Some((seconds, refresher)) => {
                // RFC 4028 section 9: the interval may be lowered, but not below the peer's Min-SE.
                let seconds = seconds.min(self.interval.max(peer_min).max(min));
                // Table 2 of section 9: a peer without support cannot refresh. Where the choice is
                // ours we take the work, since a peer that forgets it costs the call.
                let we_refresh = !(peer_supports && refresher == Some(Refresher::Uac));
                Ok(Some(SessionAgreement { seconds, we_refresh, peer_supports }))
            }
            None if peer_supports => {
                let seconds = self.interval.max(peer_min).max(min);
                Ok(Some(SessionAgreement { seconds, we_refresh: true, peer_supports }))
            }
            None => Ok(None),
        }
    }

    /// Writes what we ask for into a request of ours; `current` keeps the roles in a refresh
    /// (RFC 4028 section 7.4). Supported must list the option tag, which stays the owner's work.
    pub fn write_request(&self, current: Option<&SessionTimer>, headers: &mut Headers) {
        let seconds = self.interval.max(self.min).max(floor());
        let role = match current.map(|timer| timer.agreement.we_refresh) {
            None => "",
            Some(true) => ";refresher=uac",
            Some(false) => ";refresher=uas",
        };
        headers.set(Name::SessionExpires, format!("{seconds}{role}"));
        headers.set(Name::MinSe, self.min.max(floor()).to_string());
    }

    /// Reads the 2xx of a request of ours (RFC 4028 section 7.2); `None` where the peer set no
    /// timer.
    ///
    /// # Errors
    /// Session-Expires is malformed.
    pub fn accept(&self, response: &Headers) -> Result<Option<SessionAgreement>, HeaderError> {
        Ok(session_expires(response)?.map(|(seconds, refresher)| SessionAgreement {
            // A peer that lowers the interval below our Min-SE breaks RFC 4028 section 9.
            seconds: seconds.max(self.min).max(floor()),
            we_refresh: refresher != Some(Refresher::Uas),
            peer_supports: true,
        }))
    }

    /// The terms to try again with after a 422 (RFC 4028 section 7.3); `None` where its Min-SE is
    /// missing or asks for nothing more.
    #[must_use]
    pub fn raised(&self, response: &Headers) -> Option<Self> {
        let min = response.seconds(Name::MinSe).ok().flatten()?;
        let asked = self.interval.max(self.min).max(floor());
        (min > asked).then(|| Self { interval: min, min: self.min.max(min) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresher {
    Uac,
    Uas,
}

fn session_expires(headers: &Headers) -> Result<Option<(u32, Option<Refresher>)>, HeaderError> {
    let malformed = HeaderError { name: Name::SessionExpires, fault: HeaderFault::Malformed };
    let Some(header) = headers.first(Name::SessionExpires) else { return Ok(None) };
    let text = header.text().ok_or(malformed)?;
    let end = text.find(';').unwrap_or(text.len());
    let seconds = number(crate::lex::trim(&text[..end])).ok_or(malformed)?;
    let params = Params::parse(&text[end..]).ok_or(malformed)?;
    let refresher = match params.value("refresher") {
        Some(role) if role.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
        Some(role) if role.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
        Some(_) => return Err(malformed),
        None => None,
    };
    Ok(Some((seconds, refresher)))
}

/// What a running session timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStep {
    /// Nothing yet.
    Wait,
    /// Send a refresh; asked once until [`SessionTimer::refreshed`].
    Refresh,
    /// No refresh succeeded in time: end the call with BYE ([`base::Reason::SessionExpired`]).
    Expired,
}

/// The timer of one dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTimer {
    agreement: SessionAgreement,
    two_thirds: Instant,
    refresh_at: Option<Instant>,
    expires_at: Instant,
}

impl SessionTimer {
    /// Starts at the 2xx that agreed on it.
    #[must_use]
    pub fn new(now: Instant, agreement: SessionAgreement) -> Self {
        let whole = Duration::from_secs(u64::from(agreement.seconds));
        // RFC 4028 section 10: refresh at half the interval; the BYE goes out the smaller of 32 s
        // and a third of the interval before the end.
        let margin = Duration::from_secs(32).min(whole / 3);
        Self {
            agreement,
            two_thirds: now + whole.saturating_mul(2) / 3,
            refresh_at: agreement.we_refresh.then(|| now + whole / 2),
            expires_at: now + whole.saturating_sub(margin),
        }
    }

    /// Starts over at the 2xx of a refresh, sent or received.
    pub fn refreshed(&mut self, now: Instant, agreement: SessionAgreement) {
        *self = Self::new(now, agreement);
    }

    /// What was agreed on.
    #[must_use]
    pub const fn agreement(&self) -> SessionAgreement {
        self.agreement
    }

    /// When to try a refresh again that was refused at `now`: after as long as the peer `asked`
    /// for (at least a second), else after two thirds of the interval, and from then on halfway to
    /// the end. `None` where that comes too late or in less than five seconds: then the end comes.
    #[must_use]
    pub fn retry_at(&self, now: Instant, asked: Option<Duration>) -> Option<Instant> {
        const LEAST: Duration = Duration::from_secs(5);
        let at = match asked {
            Some(asked) => now + asked.max(Duration::from_secs(1)),
            None if self.two_thirds < self.expires_at && now + LEAST <= self.two_thirds => {
                self.two_thirds
            }
            None => {
                let half = self.expires_at.since(now) / 2;
                if half < LEAST {
                    return None;
                }
                now + half
            }
        };
        (at < self.expires_at).then_some(at)
    }

    /// When [`SessionTimer::handle_timeout`] is next to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.refresh_at.map_or(self.expires_at, |at| at.min(self.expires_at))
    }

    /// Says what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) -> SessionStep {
        if now >= self.expires_at {
            return SessionStep::Expired;
        }
        if self.refresh_at.is_some_and(|at| now >= at) {
            self.refresh_at = None;
            return SessionStep::Refresh;
        }
        SessionStep::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Header;

    fn headers(fields: &[(Name, &str)]) -> Headers {
        fields.iter().map(|(name, value)| Header::new(*name, value)).collect()
    }

    fn terms() -> SessionTerms {
        SessionTerms { interval: 1800, min: 120 }
    }

    #[test]
    fn an_interval_below_ours_is_refused_with_our_minimum() {
        let request = headers(&[(Name::SessionExpires, "60"), (Name::Supported, "timer")]);
        assert_eq!(terms().answer(&request), Err(SessionTermsError::TooSmall { min: 120 }));
        let lax = SessionTerms { interval: 1800, min: 1 };
        assert_eq!(lax.answer(&request), Err(SessionTermsError::TooSmall { min: 90 }));
    }

    #[test]
    fn the_roles_follow_table_2_of_rfc_4028() {
        for (fields, expected) in [
            (&[(Name::SessionExpires, "600;refresher=uac"), (Name::Supported, "timer")][..], false),
            (&[(Name::SessionExpires, "600;refresher=uas"), (Name::Supported, "timer")], true),
            (&[(Name::SessionExpires, "600"), (Name::Supported, "100rel, Timer")], true),
            (&[(Name::SessionExpires, "600;refresher=uac")], true),
        ] {
            let agreed = terms().answer(&headers(fields)).unwrap().unwrap();
            assert_eq!((agreed.seconds, agreed.we_refresh), (600, expected), "{fields:?}");
        }
        assert_eq!(terms().answer(&Headers::new()), Ok(None));
        let offered = terms().answer(&headers(&[(Name::Supported, "timer")])).unwrap().unwrap();
        assert_eq!((offered.seconds, offered.we_refresh), (1800, true));
    }

    #[test]
    fn the_interval_is_lowered_but_not_below_the_peers_minimum() {
        let request = headers(&[(Name::SessionExpires, "7200"), (Name::MinSe, "3600")]);
        assert_eq!(terms().answer(&request).unwrap().unwrap().seconds, 3600);
        let malformed = headers(&[(Name::SessionExpires, "7200;refresher=me")]);
        assert!(matches!(terms().answer(&malformed), Err(SessionTermsError::Header(_))));
    }

    #[test]
    fn the_answer_names_the_refresher_and_requires_the_timer() {
        let request =
            headers(&[(Name::SessionExpires, "600;refresher=uac"), (Name::Supported, "timer")]);
        let mut response = Headers::new();
        terms().answer(&request).unwrap().unwrap().write_answer(&mut response);
        assert_eq!(response.text(Name::SessionExpires), Some("600;refresher=uac"));
        assert!(response.has_token(Name::Require, "timer"));
        let theirs = terms().accept(&response).unwrap().unwrap();
        assert!(theirs.we_refresh);
    }

    #[test]
    fn a_422_raises_the_terms_once() {
        let response = headers(&[(Name::MinSe, "3600")]);
        let raised = terms().raised(&response).unwrap();
        let mut request = Headers::new();
        raised.write_request(None, &mut request);
        assert_eq!(request.text(Name::SessionExpires), Some("3600"));
        assert_eq!(request.text(Name::MinSe), Some("3600"));
        assert_eq!(raised.raised(&response), None);
    }

    #[test]
    fn the_refresh_is_due_at_half_time_and_the_end_comes_before_the_interval() {
        let agreement = SessionAgreement { seconds: 90, we_refresh: true, peer_supports: true };
        let mut timer = SessionTimer::new(Instant::ZERO, agreement);
        let mut request = Headers::new();
        terms().write_request(Some(&timer), &mut request);
        assert_eq!(request.text(Name::SessionExpires), Some("1800;refresher=uac"));
        let half = timer.poll_timeout();
        assert_eq!(half, Instant::ZERO + Duration::from_secs(45));
        assert_eq!(timer.handle_timeout(half), SessionStep::Refresh);
        assert_eq!(timer.handle_timeout(half), SessionStep::Wait);
        let end = timer.poll_timeout();
        assert_eq!(end, Instant::ZERO + Duration::from_secs(60));
        assert_eq!(timer.handle_timeout(end), SessionStep::Expired);
        timer.refreshed(end, SessionAgreement { we_refresh: false, ..agreement });
        assert_eq!(timer.handle_timeout(end + Duration::from_secs(45)), SessionStep::Wait);
    }

    #[test]
    fn a_refused_refresh_is_tried_less_and_less_often_until_the_end() {
        let tries = |seconds, asked: Option<u64>| {
            let agreement = SessionAgreement { seconds, we_refresh: true, peer_supports: true };
            let timer = SessionTimer::new(Instant::ZERO, agreement);
            let mut now = timer.poll_timeout();
            let mut times = Vec::new();
            while let Some(at) = timer.retry_at(now, asked.map(Duration::from_secs)) {
                times.push(at.since(Instant::ZERO).as_secs());
                now = at;
            }
            times
        };
        assert_eq!(tries(600, None), [400, 484, 526, 547, 557, 562]);
        assert_eq!(tries(90, None), [52], "the end is at 60");
        assert_eq!(tries(600, Some(100)), [400, 500], "as the peer asks");
        assert_eq!(tries(600, Some(300)), [0_u64; 0], "which may be too late");
        assert_eq!(tries(90, Some(0)).len(), 14, "a second at least");
    }
}
