//! One peer's DTLS, from the first datagram to the last, without a socket.

use std::collections::VecDeque;
use std::fmt;

use base::{Instant, Secret, limit};
use media::{DtlsBackend, DtlsRole, Fingerprint};
use rtp::sdes::Suite;

use super::Failure;
use super::by_dimpl::{Dimpl, DimplConfigs};
use super::by_webrtc::{Wake, WebrtcDtls};
use super::guard::{Guard, GuardForm, Heard, Refusal};
use super::identity::{Identity, is_of};
use super::keys::{Keys, PREFERENCE, profile};
use super::record::{ALERT, write_record};

/// What a library makes of what the guard lets through.
pub(crate) trait Backend: Send {
    /// What the guard has to know of it.
    fn form(&self) -> GuardForm;

    /// The suite that shall be agreed on, of those that the peer's ClientHello offers. Told before
    /// the datagram that holds it.
    fn prefer(&mut self, choice: Choice);

    /// A datagram of the peer.
    fn handle_datagram(&mut self, now: Instant, datagram: &[u8]);

    /// Time has passed.
    fn handle_timeout(&mut self, now: Instant);

    /// When to call [`Backend::handle_timeout`].
    fn poll_timeout(&self) -> Option<Instant>;

    /// What it has made.
    fn poll_made(&mut self) -> Option<Made>;

    /// Says goodbye, where there is somebody to say it to; ends with [`Made::Closed`].
    fn close(&mut self);

    /// A goodbye in place of all that it has made: a client of DTLS 1.3 is done before we know who
    /// it is, and hears only what is under its keys.
    fn refuse(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// Of what a peer's ClientHello offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// The best suite that is allowed.
    pub(crate) best: Suite,
    /// Whether the first suite in the peer's own order is allowed too, and as good: of the AEAD
    /// kind, or none is.
    pub(crate) is_first_as_good: bool,
}

/// What a library makes.
pub(crate) enum Made {
    /// To be sent to the peer.
    Datagram(Vec<u8>),
    /// The peer's certificate in DER; comes before whatever the peer could take for our consent.
    Certificate(Vec<u8>),
    /// The handshake is complete.
    Complete {
        /// The profile agreed on.
        suite: Suite,
        /// What the exporter gives.
        material: Secret<Vec<u8>>,
        /// Whether DTLS 1.3 is spoken, or else 1.2.
        is_13: bool,
    },
    /// The handshake is over.
    Failed(Failure),
    /// The peer has said goodbye, or we have.
    Closed,
}

/// What a handshake needs to begin.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which implementation.
    pub backend: DtlsBackend,
    /// Our side.
    pub role: DtlsRole,
    /// The certificate that we show.
    pub identity: Identity,
    /// Of the peer's certificate.
    pub fingerprint: Fingerprint,
    /// The suites that are allowed. The best that both sides have is chosen, whatever the order,
    /// but in DTLS 1.3 the first of the peer's order, where that is as good. `dimpl` offers and
    /// chooses among all three, so a list that leaves out a better one than it has refuses peers
    /// that have the better one.
    pub suites: Vec<Suite>,
    /// As server, ask for a cookie round trip first. Not needed where an authenticated ICE check
    /// has come from the peer's address; `webrtc-dtls` always asks.
    pub has_cookie: bool,
    /// Speak DTLS 1.3 with those that can (`dimpl` only) and whose order of suites allows it.
    pub has_13: bool,
}

/// The libraries, set up once for all handshakes.
pub struct Backends {
    dimpl: DimplConfigs,
}

impl Backends {
    /// Sets the libraries up; takes some milliseconds, for `dimpl` tests its cryptography.
    ///
    /// # Errors
    /// [`Failure::Fault`] where that fails.
    pub fn new() -> Result<Self, Failure> {
        // `webrtc-dtls` asks rustls for the process's provider, and two are built in. An error
        // means that there is one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Ok(Self { dimpl: DimplConfigs::new().map_err(|_| Failure::Fault)? })
    }

    /// Begins a handshake. `webrtc-dtls` has to be begun and driven within a tokio runtime, and
    /// calls `wake` when [`Association::handle_timeout`] would find something.
    ///
    /// # Errors
    /// [`Failure::Fault`] where a library does not take our key or finds no runtime.
    pub fn begin(&self, now: Instant, setup: Setup, wake: Wake) -> Result<Association, Failure> {
        let backend: Box<dyn Backend> = match setup.backend {
            DtlsBackend::Dimpl => Box::new(Dimpl::new(&self.dimpl, now, &setup)),
            DtlsBackend::WebrtcDtls => Box::new(WebrtcDtls::new(&setup, wake)?),
        };
        let mut association = Association::new(now, backend, setup);
        association.handle_timeout(now);
        Ok(association)
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backends")
    }
}

/// What an association has for its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be sent to the peer.
    Datagram(Vec<u8>),
    /// The handshake is complete, and the peer is who it should be.
    Keys(Keys),
    /// The handshake is over; nothing follows.
    Failed(Failure),
    /// The peer has said goodbye after the handshake, or we have.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshaking,
    /// The peer's certificate is the right one.
    Certified,
    Complete,
    Over,
}

/// One peer's DTLS. The four verbs of a state machine: outputs are to be drained after each.
pub struct Association {
    backend: Box<dyn Backend>,
    guard: Guard,
    role: DtlsRole,
    fingerprint: Fingerprint,
    suites: Vec<Suite>,
    state: State,
    deadline: Instant,
    is_13: bool,
    outputs: VecDeque<Output>,
}

impl Association {
    pub(super) fn new(now: Instant, backend: Box<dyn Backend>, setup: Setup) -> Self {
        Self {
            guard: Guard::new(backend.form()),
            backend,
            role: setup.role,
            fingerprint: setup.fingerprint,
            suites: setup.suites,
            state: State::Handshaking,
            deadline: now + limit::DTLS_HANDSHAKE_MS.millis(),
            is_13: false,
            outputs: VecDeque::new(),
        }
    }

    /// A datagram has come from the peer's address.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        if self.state == State::Over {
            return;
        }
        let mut admitted = Vec::new();
        let heard = self.guard.admit(now, datagram, &mut |it| admitted.push(it.to_vec()));
        match heard {
            Err(refusal) => self.fail(match refusal {
                Refusal::Flood => Failure::Flood,
                Refusal::Alert(description) => Failure::Alert(description),
                Refusal::NoProfile => Failure::Profile,
            }),
            Ok(Heard::Nothing) => {}
            Ok(Heard::Repetition) => {
                let again = self.guard.repeat(now).iter().cloned().map(Output::Datagram);
                self.outputs.extend(again);
            }
            Ok(Heard::News) => {
                if !self.choose() {
                    return self.fail(Failure::Profile);
                }
                admitted.iter().for_each(|it| self.backend.handle_datagram(now, it));
                self.settle(now);
            }
        }
    }

    /// Tells the back end which profile to agree on; whether there is one.
    fn choose(&mut self) -> bool {
        let Some(offered) = self.guard.offered_profiles() else { return true };
        let is_common = |it: &Suite| self.suites.contains(it) && offered.contains(&profile(*it));
        let Some(best) = PREFERENCE.into_iter().find(is_common) else { return false };
        let known = |it: &u16| PREFERENCE.into_iter().find(|suite| profile(*suite) == *it);
        let first = offered.iter().find_map(known);
        let is_as_good = |it: Suite| self.suites.contains(&it) && (it.is_aead() || !best.is_aead());
        let is_first_as_good = first.is_some_and(is_as_good);
        self.backend.prefer(Choice { best, is_first_as_good });
        true
    }

    /// Time has passed, or the back end wants attention.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_handshaking() && now >= self.deadline {
            return self.fail(Failure::Timeout);
        }
        if self.state != State::Over {
            self.backend.handle_timeout(now);
            self.settle(now);
        }
    }

    /// When to call [`Association::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Handshaking | State::Certified => {
                Some(self.backend.poll_timeout().map_or(self.deadline, |it| it.min(self.deadline)))
            }
            State::Complete => self.backend.poll_timeout(),
            State::Over => None,
        }
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Says goodbye. After it the association is of use for [`Output::Closed`] alone.
    pub fn close(&mut self, now: Instant) {
        if self.state == State::Complete {
            self.backend.close();
            self.settle(now);
        } else if self.state != State::Over {
            self.over(Output::Closed);
        }
    }

    /// Whether neither keys nor a failure have come yet.
    #[must_use]
    pub const fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshaking | State::Certified)
    }

    /// Whether the keys are of a handshake of DTLS 1.3, once they are there; else of 1.2.
    #[must_use]
    pub const fn is_13(&self) -> bool {
        self.is_13
    }

    /// Takes what the back end has made.
    fn settle(&mut self, now: Instant) {
        while self.state != State::Over {
            let Some(made) = self.backend.poll_made() else { return };
            match made {
                Made::Datagram(datagram) => {
                    self.guard.sent(now, &datagram);
                    self.outputs.push_back(Output::Datagram(datagram));
                }
                Made::Certificate(certificate) if is_of(&self.fingerprint, &certificate) => {
                    if self.state == State::Handshaking {
                        self.state = State::Certified;
                    }
                }
                Made::Certificate(_) => self.fail(Failure::Fingerprint),
                Made::Complete { suite, material, is_13 } => {
                    self.complete(suite, &material, is_13);
                }
                Made::Failed(failure) if self.is_handshaking() => self.fail(failure),
                Made::Failed(_) | Made::Closed => self.over(Output::Closed),
            }
        }
    }

    fn complete(&mut self, suite: Suite, material: &Secret<Vec<u8>>, is_13: bool) {
        if self.state != State::Certified {
            return self.fail(Failure::Fingerprint);
        }
        if !self.suites.contains(&suite) {
            return self.fail(Failure::Profile);
        }
        match Keys::cut(suite, self.role, material) {
            Some(keys) => {
                self.guard.complete(is_13);
                self.is_13 = is_13;
                self.state = State::Complete;
                self.outputs.push_back(Output::Keys(keys));
            }
            None => self.fail(Failure::Fault),
        }
    }

    /// Ends the handshake; the peer is told where that helps it to give up sooner.
    fn fail(&mut self, failure: Failure) {
        // RFC 5246 section 7.2: bad_certificate and handshake_failure.
        let description = match failure {
            Failure::Fingerprint => Some(42),
            Failure::Profile | Failure::Protocol => Some(40),
            _ => None,
        };
        if let Some(description) = description {
            let mut alert = Vec::new();
            write_record(&mut alert, ALERT, LAST_SEQUENCE, &[&[2, description]]);
            self.outputs.push_back(Output::Datagram(alert));
            self.outputs.extend(self.backend.refuse().map(Output::Datagram));
        }
        self.over(Output::Failed(failure));
    }

    fn over(&mut self, last: Output) {
        self.state = State::Over;
        self.outputs.push_back(last);
    }
}

/// Above what any back end has counted to within a handshake.
const LAST_SEQUENCE: u64 = 1 << 32;

impl fmt::Debug for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Association {{ {:?}, {:?} }}", self.role, self.state)
    }
}
