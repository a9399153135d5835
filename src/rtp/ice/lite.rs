//! The ICE-lite agent of one leg: proves who asks, remembers the routes on which the peer was
//! heard, and follows its choice among them.
//!
//! An agent that is always controlled and sends no checks needs none of the peer's candidates:
//! every route comes from a check that carried the right password (peer-reflexive candidates, RFC
//! 8445 section 7.3.1.3). mDNS names and a trickle that stops half-way therefore do no harm.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use base::{Instant, Random, Secret, limit};

use super::stun::{Class, Message, Role, Writer};

/// A user name fragment and its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`.
    pub pwd: Secret<String>,
}

/// Credentials that RFC 8839 section 5.4 does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed ICE credentials")]
pub struct MalformedCredentials;

impl Credentials {
    /// Fresh ones: 48 random bits to be told from other legs by, 144 to be proved with (RFC 8445
    /// section 5.3 wants 24 and 128).
    #[must_use]
    pub fn random(random: &mut dyn Random) -> Self {
        Self { ufrag: word(random, 8), pwd: Secret::new(word(random, 24)) }
    }

    /// The peer's, as its description has them.
    ///
    /// # Errors
    /// [`MalformedCredentials`] where a length or a character is outside of RFC 8839 section 5.4.
    pub fn parse(ufrag: &str, pwd: &str) -> Result<Self, MalformedCredentials> {
        let is_word = |text: &str, least: usize| {
            (least..=256).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        };
        if is_word(ufrag, 4) && is_word(pwd, 22) {
            Ok(Self { ufrag: ufrag.into(), pwd: Secret::new(pwd.into()) })
        } else {
            Err(MalformedCredentials)
        }
    }
}

/// So many characters of six random bits.
fn word(random: &mut dyn Random, length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = alloc::vec![0; length];
    random.fill(&mut bytes);
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect()
}

/// A way to the peer: one of our sockets and an address of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which socket or connection; its owner numbers them.
    pub socket: u32,
    /// The peer's address as seen there.
    pub remote: SocketAddr,
}

/// Something that is not answered. Silence, not an error answer: whoever cannot prove that it is
/// the peer learns nothing, and we are no reflector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not a binding message, or broken.
    Malformed,
    /// A user name of another session, or a wrong password.
    Credentials,
    /// An answer or an indication: we ask nothing, and an indication proves nothing.
    NotRequest,
}

/// What changed with a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The peer was heard on a route for the first time.
    Heard,
    /// Media goes there from now on.
    Selected(Route),
}

/// A check that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the answer.
    pub answer: usize,
    /// What changed.
    pub change: Option<Change>,
}

/// A route on which the peer has proved itself.
#[derive(Clone, Copy, Debug)]
struct Pair {
    route: Route,
    /// Of the peer's candidate.
    priority: u32,
    heard: Instant,
    /// When it was nominated the latest time.
    nominated: Option<Instant>,
    /// No check of the present credentials has come on it.
    is_former: bool,
}

/// One generation of credentials; a restart begins another (RFC 8445 section 9).
#[derive(Clone, Debug)]
struct Generation {
    local: Credentials,
    /// The peer's fragment; its password would sign our checks, of which there are none.
    remote: String,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Lite {
    present: Generation,
    /// Still answered until a check of the present one nominates a route.
    former: Option<Generation>,
    pairs: Vec<Pair>,
    selected: Option<Route>,
    /// When selections began to be counted, and how many there were.
    selections: (Instant, u64),
    heard: Option<Instant>,
}

impl Lite {
    /// An agent that has heard nothing yet.
    #[must_use]
    pub fn new(local: Credentials, remote: &Credentials) -> Self {
        Self {
            present: Generation { local, remote: remote.ufrag.clone() },
            former: None,
            pairs: Vec::new(),
            selected: None,
            selections: (Instant::ZERO, 0),
            heard: None,
        }
    }

    /// Takes new credentials; media goes on where it went until the peer nominates anew.
    pub fn restart(&mut self, local: Credentials, remote: &Credentials) {
        let fresh = Generation { local, remote: remote.ufrag.clone() };
        self.former = Some(core::mem::replace(&mut self.present, fresh));
        self.pairs.iter_mut().for_each(|pair| pair.is_former = true);
    }

    /// Takes what came on a route, which looked like STUN, and writes the answer, of at most
    /// [`super::stun::ANSWER_BYTES`].
    ///
    /// # Errors
    /// [`Refused`]: nothing is to be sent.
    pub fn handle(
        &mut self,
        now: Instant,
        route: Route,
        datagram: &[u8],
        answer: &mut [u8],
    ) -> Result<Taken, Refused> {
        let (message, is_present, generation) = self.read(datagram)?;
        let key = generation.local.pwd.expose().as_bytes();
        let id = message.transaction();
        let fault = match (message.unknown(), message.role()) {
            // RFC 8489 section 6.3.1.
            (Some(kind), _) => Some((420, Some(kind))),
            // RFC 8445 section 7.3.1.1: we stay controlled, so the other one has to change.
            (None, Some(Role::Controlled(_))) => Some((487, None)),
            (None, _) => None,
        };
        let mut writer =
            Writer::new(answer, if fault.is_some() { Class::Error } else { Class::Success }, id);
        match fault {
            Some((code, unknown)) => {
                writer.error_code(code);
                unknown.into_iter().for_each(|kind| writer.unknown_attribute(kind));
            }
            // On a socket of both families an IPv4 peer looks like IPv6.
            None => writer.mapped_address(SocketAddr::new(
                route.remote.ip().to_canonical(),
                route.remote.port(),
            )),
        }
        let answer = writer.finish(Some(key)).ok_or(Refused::Malformed)?;
        let change = match fault {
            Some(_) => None,
            None => self.hear(now, route, &message, is_present),
        };
        Ok(Taken { answer, change })
    }

    /// Whether this is a check of the peer's, which [`Self::handle`] would answer.
    #[must_use]
    pub fn is_authentic(&self, datagram: &[u8]) -> bool {
        self.read(datagram).is_ok()
    }

    /// Whether what comes on this route may be the peer's: a check has proved it.
    #[must_use]
    pub fn knows(&self, route: Route) -> bool {
        self.pairs.iter().any(|pair| pair.route == route)
    }

    /// When the latest check came on this route, be it of the present credentials or the former.
    #[must_use]
    pub fn heard(&self, route: Route) -> Option<Instant> {
        self.pairs.iter().find(|pair| pair.route == route).map(|pair| pair.heard)
    }

    /// Whether a check of the present credentials has come on this route.
    #[must_use]
    pub fn proves(&self, route: Route) -> bool {
        self.pairs.iter().any(|pair| pair.route == route && !pair.is_former)
    }

    /// Whether a check of the present credentials has come at all.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.pairs.iter().any(|pair| !pair.is_former)
    }

    /// Where media goes: what the peer nominated, or before that the route of the best check.
    #[must_use]
    pub fn selected(&self) -> Option<Route> {
        self.selected
    }

    /// When the path is taken as lost unless another check comes; `None` before the first.
    #[must_use]
    pub fn expires(&self) -> Option<Instant> {
        // RFC 7675 section 5.1 gives consent for 30 s; an agent that sends no checks of its own
        // sees the peer's stop.
        self.heard.map(|heard| heard + limit::ICE_CONSENT_MS.millis())
    }

    /// Forgets the routes of a connection that is closed.
    pub fn close(&mut self, socket: u32) {
        self.pairs.retain(|pair| pair.route.socket != socket);
        if self.selected.is_some_and(|route| route.socket == socket) {
            let latest = self.pairs.iter().max_by_key(|pair| (pair.nominated, pair.heard));
            self.selected = latest.map(|pair| pair.route);
        }
    }

    /// A check of the peer's, whether its credentials are the present ones, and these.
    fn read<'a>(&self, datagram: &'a [u8]) -> Result<(Message<'a>, bool, &Generation), Refused> {
        let message = Message::parse(datagram).map_err(|_| Refused::Malformed)?;
        if message.class() != Class::Request {
            return Err(Refused::NotRequest);
        }
        let (is_present, generation) = self.generation(&message).ok_or(Refused::Credentials)?;
        if !message.is_signed_with(generation.local.pwd.expose().as_bytes()) {
            return Err(Refused::Credentials);
        }
        Ok((message, is_present, generation))
    }

    fn generation(&self, message: &Message<'_>) -> Option<(bool, &Generation)> {
        // RFC 8445 section 7.2.2: who is asked, a colon, who asks.
        let (asked, asking) = message.username()?.split_once(':')?;
        let is_of = |it: &&Generation| it.local.ufrag == asked && it.remote == asking;
        let present = Some(&self.present).filter(is_of).map(|it| (true, it));
        present.or_else(|| self.former.as_ref().filter(is_of).map(|it| (false, it)))
    }

    fn hear(
        &mut self,
        now: Instant,
        route: Route,
        message: &Message<'_>,
        is_present: bool,
    ) -> Option<Change> {
        self.heard = Some(now);
        let is_new = !self.knows(route);
        let priority = message.priority().unwrap_or(0);
        let is_nominated = message.uses_candidate();
        let pair = self.pair(now, route);
        (pair.heard, pair.priority) = (now, priority);
        pair.is_former &= !is_present;
        if is_nominated {
            pair.nominated = Some(now);
        }
        if is_nominated && is_present {
            // The restart is complete: the former credentials are worth nothing any more.
            self.former = None;
        }
        if self.selected != Some(route)
            && self.prefers(now, route, is_nominated, priority)
            && self.may_select(now)
        {
            self.selected = Some(route);
            return Some(Change::Selected(route));
        }
        is_new.then_some(Change::Heard)
    }

    /// Whether a route just heard is better than the selected one.
    fn prefers(&self, now: Instant, route: Route, is_nominated: bool, priority: u32) -> bool {
        let selected = self.pairs.iter().find(|pair| Some(pair.route) == self.selected);
        let Some(selected) = selected.filter(|pair| pair.route != route) else { return true };
        match (is_nominated, selected.nominated) {
            // Routes of the former credentials give way to what the peer chooses now.
            (true, _) if selected.is_former && self.proves(route) => true,
            // Until the peer has chosen, any proved route will do.
            (true, None) => true,
            (false, None) => priority > selected.priority,
            (false, Some(_)) => false,
            // Who nominates each route that it checks means the best one (RFC 8445 section
            // 8.1.1); who has changed its network means the latest, whatever its priority.
            (true, Some(at)) => {
                priority >= selected.priority || now.since(at) > limit::ICE_RENOMINATION_MS.millis()
            }
        }
    }

    /// Whether the peer has not changed its mind too often: each time costs us and our owner.
    fn may_select(&mut self, now: Instant) -> bool {
        let (began, count) = self.selections;
        let is_present = now.since(began) < Duration::from_secs(1);
        self.selections = if is_present { (began, count + 1) } else { (now, 1) };
        self.selections.1 <= limit::ICE_SELECTIONS_PER_SECOND.value
    }

    fn pair(&mut self, now: Instant, route: Route) -> &mut Pair {
        let known = self.pairs.iter().position(|pair| pair.route == route);
        let at = known.unwrap_or_else(|| {
            if self.pairs.len() >= limit::ICE_PAIRS.get() {
                let selected = self.selected;
                let others = self.pairs.iter().enumerate();
                let oldest = others
                    .filter(|(_, pair)| Some(pair.route) != selected)
                    .min_by_key(|(_, pair)| pair.heard)
                    .map(|(at, _)| at);
                self.pairs.swap_remove(oldest.unwrap_or(0));
            }
            let pair = Pair { route, priority: 0, heard: now, nominated: None, is_former: true };
            self.pairs.push(pair);
            self.pairs.len() - 1
        });
        &mut self.pairs[at]
    }
}

#[cfg(test)]
#[path = "lite_tests.rs"]
mod tests;
