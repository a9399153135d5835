//! What goes into [`crate::Calls`] and what comes out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{CallId, Event, Instant, LegId, Personal, Reason, TrunkName, VoiceAgentName, WallTime};
use bytes::Bytes;
use media::{LegPlan, MediaEvent, Need, Quality};
use policy::{Attempt, Decision, Observed, Policy, Transport};
use sip::digest::Login;
use sip::transaction::FlowId;

use crate::across::Crossing;

/// Where a message came from: a connection, or the peer of a UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Names the flow, for answers.
    pub flow: FlowId,
    /// What carries it.
    pub transport: Transport,
    /// The peer's address.
    pub source: SocketAddr,
    /// Our address of the flow.
    pub local: SocketAddr,
    /// Verified identities of the peer's certificate.
    pub certificates: Arc<[String]>,
    /// Whether the peer may use it for requests of its own, although we opened it (RFC 5923).
    pub alias: bool,
}

/// What the shard's calls are told.
#[derive(Debug)]
pub enum Input {
    /// A message that the front door let in.
    Message {
        /// Where it came from.
        peer: Arc<Peer>,
        /// The trunk that the peer was admitted as.
        trunk: TrunkName,
        /// The message.
        message: Box<sip::Message>,
    },
    /// A flow is gone.
    FlowClosed(FlowId),
    /// Who was at the other end of a flow has gone for good; [`Input::FlowClosed`] follows.
    PartyGone(FlowId),
    /// The answer to [`Output::Connect`].
    Connected {
        /// For which leg.
        leg: LegId,
        /// The new flow.
        peer: Arc<Peer>,
        /// The Contact that an account is registered under, which its INVITE is addressed to.
        contact: Option<Personal<String>>,
    },
    /// The other answer to [`Output::Connect`]: the name leads nowhere, or nowhere else.
    Unreachable {
        /// For which leg.
        leg: LegId,
        /// Why.
        reason: Reason,
    },
    /// Something happened to a leg's media.
    Media {
        /// Which leg.
        leg: LegId,
        /// What.
        event: MediaEvent,
    },
    /// A call is to end: its voice agent or an operator says so.
    HangUp {
        /// Which.
        call: CallId,
        /// Why.
        reason: Reason,
    },
    /// A voice agent carries its caller to somebody else.
    Transfer {
        /// Which call.
        call: CallId,
        /// A SIP URI or a number, which routes are asked for as if the caller had dialled it.
        to: Personal<String>,
        /// Whether the voice agent speaks with the new party first ([`Output::TargetReached`]).
        is_announced: bool,
    },
    /// What the new party says to an announced transfer.
    TransferAnswer {
        /// Which call.
        call: CallId,
        /// Whether it takes the caller; else it is let go and the voice agent is back.
        is_accepted: bool,
    },
    /// Every call is to end: the edge stops.
    HangUpAll {
        /// Why.
        reason: Reason,
    },
    /// What another shard's calls tell ([`Output::Cross`]).
    Crossed(Box<Crossing>),
    /// What could not be brought to another shard comes back.
    NotCrossed(Box<Crossing>),
    /// A new policy or new voice agents.
    Reload(Arc<Setup>),
}

/// What the shard's calls want.
#[derive(Debug)]
pub enum Output {
    /// Send these bytes.
    Send {
        /// Where.
        flow: FlowId,
        /// What.
        bytes: Bytes,
    },
    /// Find a flow to a place (RFC 3263), for a leg that begins or whose flow is gone; answered
    /// by [`Input::Connected`] or [`Input::Unreachable`]. Over WSS nobody is dialled and no name
    /// resolved: the place is an account (host [`policy::ACCOUNTS_HOST`]), whose registrations are
    /// the addresses, or else the Contact of one, whose present flow is wanted.
    Connect {
        /// For which leg.
        leg: LegId,
        /// Whose place it is: its TLS terms count.
        trunk: TrunkName,
        /// The place: a SIP URI, whose user is not looked at.
        uri: Personal<String>,
        /// Over this.
        transport: Transport,
        /// Names that the peer's certificate has proved before, within the leg's dialog.
        proved: Arc<[String]>,
        /// The leg that tried the place's last address in vain, and how that went: the next one
        /// is wanted.
        after: Option<(LegId, Unserved)>,
    },
    /// The flow that [`Output::Connect`] found serves: something has answered over it.
    Served {
        /// Whose.
        leg: LegId,
    },
    /// Find ports; answered by [`MediaEvent::Reserved`] or [`MediaEvent::ReserveFailed`].
    Reserve {
        /// For which leg.
        leg: LegId,
        /// What is needed.
        need: Need,
    },
    /// Media flows like this from now on.
    Apply {
        /// The plan; names its leg.
        plan: Box<LegPlan>,
    },
    /// A leg has taken another one's place: the media session of `from` is that of `to` from now
    /// on, and a voice agent that talks there goes on.
    HandOver {
        /// The leg that goes.
        from: LegId,
        /// The leg that is there instead.
        to: LegId,
    },
    /// The leg's media is over.
    Release {
        /// Which leg.
        leg: LegId,
    },
    /// The call is confirmed: its voice agent begins to speak.
    StartAgent {
        /// The call.
        call: CallId,
        /// The leg that it talks to.
        leg: LegId,
        /// Which voice agent.
        agent: VoiceAgentName,
        /// What may be kept.
        keep: Keep,
    },
    /// The caller talks with somebody else from now on: its voice agent is done.
    StopAgent {
        /// The call.
        call: CallId,
    },
    /// The new party of an announced transfer is there: the voice agent may speak on its leg, and
    /// answers with [`Input::TransferAnswer`]. The caller waits.
    TargetReached {
        /// Its leg.
        leg: LegId,
    },
    /// The voice agent's transfer came to nothing; its caller is still there.
    TransferFailed {
        /// The call.
        call: CallId,
        /// Why.
        reason: Reason,
    },
    /// A leg's peer hears that somebody's telephone rings, or no longer.
    Ring {
        /// Whose.
        leg: LegId,
        /// Which of both.
        on: bool,
    },
    /// Two legs that talk with each other are recorded from now on.
    Tape {
        /// The call.
        call: CallId,
        /// Who is on the left.
        caller: LegId,
        /// Who is on the right.
        callee: LegId,
    },
    /// They are recorded no more.
    StopTape {
        /// The call.
        call: CallId,
    },
    /// The peer put the call on hold, or took it back.
    Held {
        /// The call.
        call: CallId,
        /// Which of both.
        held: bool,
    },
    /// A key came by signalling (INFO) rather than media.
    Digit {
        /// Whose.
        leg: LegId,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
    },
    /// Press a key on a leg's media.
    Press {
        /// Which leg hears it.
        leg: LegId,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
    },
    /// Tell the calls of another shard; answered by [`Input::NotCrossed`] where that cannot be.
    Cross {
        /// Its number, which may be none that there is.
        shard: u8,
        /// What.
        crossing: Box<Crossing>,
    },
    /// Something to store.
    Record(Box<Record>),
    /// Something to tell the operator.
    Event(Event),
}

/// How an address that took a connection did not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// Nothing came back, or the flow was lost.
    Silent,
    /// It answered 503, with this `Retry-After`.
    Unavailable(Option<Duration>),
}

/// What of a call may be kept, after the switches of trunk and voice agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Audio.
    pub recording: bool,
    /// Words.
    pub transcript: bool,
}

/// Why a call is not recorded although its route or its voice agent wants that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrecorded {
    /// This edge records nothing.
    Edge,
    /// The terms of a trunk forbid it.
    Trunk,
    /// Nobody here can decode what is spoken.
    Codec,
}

impl Unrecorded {
    /// The word for it that is stored.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Trunk => "trunk",
            Self::Codec => "codec",
        }
    }
}

/// What is stored of a call.
#[expect(clippy::large_enum_variant, reason = "it travels in a box")]
#[derive(Debug)]
pub enum Record {
    /// A call arrived; written also for calls that are refused.
    Arrived {
        /// Its id.
        call: CallId,
        /// When.
        wall: WallTime,
        /// What the decision was made from.
        attempt: Attempt,
        /// How things stood.
        observed: Observed,
        /// The decision.
        decision: Decision,
    },
    /// It was answered.
    Answered {
        /// Its id.
        call: CallId,
        /// When.
        wall: WallTime,
        /// The codec's name.
        codec: &'static str,
        /// The SRTP suite's name, `none` for exempted plain RTP, or `DTLS-SRTP` (with the suite's
        /// name where the handshake is done).
        protection: &'static str,
        /// Whether its keys crossed exempted plaintext signalling.
        keys_exposed: bool,
        /// What may be kept.
        keep: Keep,
        /// Why it is not recorded, where that was wanted.
        unrecorded: Option<Unrecorded>,
    },
    /// Whether it is recorded is no longer what was said when it was answered.
    Recorded {
        /// Its id.
        call: CallId,
        /// Whether it is, or was at any time.
        recording: bool,
        /// Whether a transcript is kept, or was at any time.
        transcript: bool,
        /// Why it is not, at least from some time on, where that was wanted.
        unrecorded: Option<Unrecorded>,
    },
    /// A leg's DTLS handshake is complete.
    Secured {
        /// Which leg; that of the caller has the index 0.
        leg: LegId,
        /// The word for its protection from now on, with the suite.
        protection: &'static str,
    },
    /// It ended.
    Ended {
        /// Its id.
        call: CallId,
        /// When.
        wall: WallTime,
        /// Why.
        reason: Reason,
        /// From the answer to the end.
        talked: Duration,
    },
    /// How its media was, at the end.
    Media {
        /// Which leg.
        leg: LegId,
        /// The figures.
        quality: Quality,
    },
    /// One message of its ladder, secrets removed.
    Ladder {
        /// Between us and which leg.
        leg: LegId,
        /// When.
        wall: WallTime,
        /// Whether it came from the peer.
        received: bool,
        /// The message.
        text: Personal<String>,
    },
    /// A leg took another one's place in its call (RFC 3891).
    Replaced {
        /// The one that had to go.
        leg: LegId,
        /// The one that is there instead.
        by: LegId,
        /// The trunk that it came from.
        trunk: TrunkName,
        /// Who; seals with the record.
        source: Personal<SocketAddr>,
    },
    /// A refusal worth an audit record.
    Refused {
        /// Why.
        reason: Reason,
        /// Who; seals with the record.
        source: Personal<SocketAddr>,
        /// Over what.
        transport: Transport,
        /// As which trunk, where it is one.
        trunk: Option<TrunkName>,
    },
}

/// What a call needs to know about a voice agent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgentCard {
    /// Whether its calls may be recorded.
    pub recording: bool,
    /// Whether a transcript is kept.
    pub transcript: bool,
    /// When its speech stops for the caller's.
    pub barge_in: Option<media::BargeIn>,
}

/// What all calls share; replaced as a whole on reload.
#[derive(Debug)]
pub struct Setup {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The voice agents.
    pub agents: BTreeMap<String, AgentCard>,
    /// What we show trunks that ask for a user and a password.
    pub logins: BTreeMap<TrunkName, Login>,
    /// Whether this edge keeps recordings at all.
    pub recording: bool,
    /// Whether this edge keeps transcripts at all.
    pub transcript: bool,
    /// The host in Contact where a zone names none and the flow's local address will not do.
    pub advertise: Option<String>,
    /// The address in session descriptions where a zone names none.
    pub media_advertise: Option<std::net::IpAddr>,
    /// The addresses at which browsers' media is received.
    pub browser_media: Vec<std::net::IpAddr>,
}

/// What spans shards: counts of calls by trunk. Kept outside so that limits hold for the edge.
pub trait Ledger: Send {
    /// How things stand.
    fn observe(&self, now: Instant, wall: WallTime) -> Observed;
    /// A call attempt of `trunk` counts towards its rate.
    fn attempt(&self, now: Instant, trunk: &TrunkName);
    /// A call of `trunk` begins; `false` where the edge's own limit is reached meanwhile.
    fn begin(&self, trunk: &TrunkName) -> bool;
    /// It is over.
    fn end(&self, trunk: &TrunkName);
    /// A leg of ours to `trunk` begins.
    fn begin_leg(&self, trunk: &TrunkName);
    /// It is over.
    fn end_leg(&self, trunk: &TrunkName);
}
