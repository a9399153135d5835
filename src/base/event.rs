//! What happened, as typed structs declared once; telemetry derives logs and metrics from them.
//!
//! A field's type must implement [`EventField`]; [`crate::Personal`], [`crate::Secret`] and
//! free strings do not, so that an event cannot carry what a log must not hold. Call ids are
//! random and lead to a person only through the sealed store.

use core::time::Duration;

use crate::id::{CallId, LegId, SessionId, TrunkName, VoiceAgentName};
use crate::outcome::Reason;

/// A field as a renderer sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A count, a size or an id.
    Unsigned(u64),
    /// A duration, in microseconds.
    Micros(u64),
    /// A claim.
    Bool(bool),
    /// A word from a closed set (a reason code, a state, a configured name).
    Word(&'a str),
    /// A call.
    Call(CallId),
    /// How many such things the event stands for: its counter grows by this.
    Times(u64),
}

/// How many things of its kind one event stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times(pub u64);

/// What may stand in an event.
pub trait EventField {
    /// The field as a renderer sees it.
    fn value(&self) -> Value<'_>;
}

macro_rules! event_field {
    ($($type:ty => |$self_:ident| $value:expr;)*) => {
        $(impl EventField for $type {
            fn value(&self) -> Value<'_> {
                let $self_ = self;
                $value
            }
        })*
    };
}

event_field! {
    u16 => |it| Value::Unsigned(u64::from(*it));
    u32 => |it| Value::Unsigned(u64::from(*it));
    u64 => |it| Value::Unsigned(*it);
    bool => |it| Value::Bool(*it);
    Duration => |it| Value::Micros(u64::try_from(it.as_micros()).unwrap_or(u64::MAX));
    &'static str => |it| Value::Word(it);
    Times => |it| Value::Times(it.0);
    Reason => |it| Value::Word(it.code());
    CallId => |it| Value::Call(*it);
    LegId => |it| Value::Call(it.call);
    SessionId => |it| Value::Unsigned(it.number());
    TrunkName => |it| Value::Word(it.as_str());
    VoiceAgentName => |it| Value::Word(it.as_str());
}

/// How much an operator should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Only when looking into one call.
    Debug,
    /// The course of things.
    Info,
    /// Something was refused, dropped or nearly full.
    Warn,
    /// Something failed that should not.
    Error,
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident $word:literal $severity:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        /// Something that happened.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Event { $($(#[$doc])* $name { $($(#[$fdoc])* $field: $type),* },)* }

        impl Event {
            /// The event's name, `member.thing.verb`.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name { .. } => $word,)* }
            }

            /// How much an operator should care.
            #[must_use]
            pub const fn severity(&self) -> Severity {
                match self { $(Self::$name { .. } => Severity::$severity,)* }
            }

            /// Shows every field, in the order of declaration.
            pub fn visit(&self, see: &mut dyn FnMut(&'static str, Value<'_>)) {
                match self {
                    $(Self::$name { $($field),* } => { $(see(stringify!($field), $field.value());)* })*
                }
            }

            /// Every event's name.
            pub const NAMES: &[&'static str] = &[$($word,)*];
        }
    };
}

events! {
    /// A request was refused before it became a call.
    RequestRefused "sip.request.refused" Warn {
        /// Why.
        reason: Reason,
        /// `udp`, `tcp`, `tls`, `ws` or `wss`.
        transport: &'static str,
        /// The status sent, 0 where nothing was.
        status: u16,
    }
    /// A message was dropped without an answer.
    MessageDropped "sip.message.dropped" Warn {
        /// Why.
        reason: Reason,
        /// The transport.
        transport: &'static str,
    }
    /// A connection was opened or accepted.
    ConnectionOpened "transport.connection.opened" Debug {
        /// The transport.
        transport: &'static str,
        /// Whether we opened it.
        outgoing: bool,
    }
    /// A connection ended.
    ConnectionClosed "transport.connection.closed" Debug {
        /// The transport.
        transport: &'static str,
        /// `peer`, `idle`, `no_pong`, `handshake_timeout`, `handshake_failed`, `untrusted`,
        /// `slow_message`, `malformed`, `limit`, `error`, `local`, `panic` or `drain`.
        cause: &'static str,
    }
    /// A call arrived and was given an id.
    CallArrived "call.arrived" Info {
        /// The call.
        call: CallId,
        /// The trunk it came from.
        trunk: TrunkName,
        /// The transport.
        transport: &'static str,
    }
    /// A party of a call is being carried to somebody else.
    TransferBegan "transfer.began" Info {
        /// The call.
        call: CallId,
    }
    /// It talks with somebody else.
    TransferDone "transfer.done" Info {
        /// The call.
        call: CallId,
    }
    /// It came to nothing; the call goes on as it was.
    TransferFailed "transfer.failed" Info {
        /// The call.
        call: CallId,
        /// Why.
        reason: Reason,
    }
    /// A leg has taken another one's place (RFC 3891).
    LegReplaced "leg.replaced" Info {
        /// The one that had to go.
        leg: LegId,
        /// The one that is there instead.
        by: LegId,
        /// The trunk that it came from.
        trunk: TrunkName,
    }
    /// A callee's leg began.
    LegDialled "leg.dialled" Info {
        /// The leg.
        leg: LegId,
        /// The trunk that it goes to.
        trunk: TrunkName,
    }
    /// A callee's leg came to nothing; the next target may follow.
    LegFailed "leg.failed" Info {
        /// The leg.
        leg: LegId,
        /// Why.
        reason: Reason,
    }
    /// A call was answered.
    CallAnswered "call.answered" Info {
        /// The call.
        call: CallId,
        /// From the INVITE's arrival to our 200.
        setup: Duration,
        /// The codec's name.
        codec: &'static str,
        /// The SRTP suite's name, `none` for exempted plain RTP.
        protection: &'static str,
    }
    /// A call ended; also for calls that were never answered.
    CallEnded "call.ended" Info {
        /// The call.
        call: CallId,
        /// Why.
        reason: Reason,
        /// From the answer to the end; zero where there was no answer.
        talked: Duration,
    }
    /// A leg's SDES keys crossed exempted plaintext signalling.
    KeysExposed "call.keys.exposed" Warn {
        /// The call.
        call: CallId,
    }
    /// A fault ended one call so that the others go on.
    CallPanicked "call.panicked" Error {
        /// The call.
        call: CallId,
    }
    /// How the relay reaches its sockets, said once at the start.
    RelayDriver "relay.driver.chosen" Info {
        /// `io_uring` or `epoll`.
        driver: &'static str,
        /// Why not io_uring: `forbidden`, `missing`, `memory`, `too_old`, `failed`, or
        /// `not_wanted`; `none` where it is used.
        refused: &'static str,
    }
    /// A leg's media source was learnt (or learnt anew).
    MediaLatched "relay.session.latched" Debug {
        /// The leg.
        leg: LegId,
        /// Whether it differs from an earlier one.
        moved: bool,
    }
    /// A leg's DTLS handshake has failed: it can never be heard.
    MediaUnsecured "media.unsecured" Warn {
        /// The leg.
        leg: LegId,
        /// What failed, as in `dtls.fingerprint`.
        code: &'static str,
    }
    /// A leg's DTLS handshake is complete: its media flows from now on.
    MediaSecured "media.secured" Info {
        /// The leg.
        leg: LegId,
        /// The SRTP suite that was agreed on.
        suite: &'static str,
    }
    /// A leg's quality so far or at the end.
    MediaReported "relay.session.reported" Debug {
        /// The leg.
        leg: LegId,
        /// Packets accepted.
        received: u64,
        /// Packets missing.
        lost: u64,
        /// Interarrival jitter.
        jitter: Duration,
        /// Packets sent.
        sent: u64,
    }
    /// A voice agent finished a turn.
    AgentTurn "agent.turn.finished" Debug {
        /// The call.
        call: CallId,
        /// From the end of the caller's speech to the first audio of the answer.
        latency: Duration,
        /// Whether the caller interrupted.
        interrupted: bool,
    }
    /// A provider failed and was restarted or given up.
    ProviderFailed "provider.failed" Error {
        /// Which.
        provider: &'static str,
    }
    /// The policy was loaded.
    PolicyLoaded "policy.loaded" Info {
        /// Its version, counted from 1 at the start.
        version: u64,
        /// Trunks.
        trunks: u32,
        /// Routes.
        routes: u32,
    }
    /// A policy did not load; the old one stays.
    PolicyRejected "policy.rejected" Error {
        /// How many errors `callgate check` would print.
        errors: u32,
    }
    /// An exemption ends soon.
    ExemptionEnding "policy.exemption.ending" Warn {
        /// The trunk.
        trunk: TrunkName,
        /// Days left.
        days: u32,
    }
    /// A trunk cannot be reached any more, or can again.
    TrunkHealth "transport.trunk.health" Warn {
        /// The trunk.
        trunk: TrunkName,
        /// Whether some URI that leads to it is thought to work.
        is_up: bool,
    }
    /// A listener that the policy or the configuration names could not be opened; it is tried
    /// again.
    ListenerFailed "transport.listener.failed" Error {
        /// The transport.
        transport: &'static str,
    }
    /// Certificates were loaded anew.
    CertificatesReloaded "transport.certificates.reloaded" Info {}
    /// Certificates did not load; the old ones stay.
    CertificatesRejected "transport.certificates.rejected" Error {}
    /// The store refused a write.
    VaultFailed "vault.write.failed" Error {
        /// What was to be written: `call`, `turn`, `recording`, `token` or `audit`.
        what: &'static str,
    }
    /// A fault between calls; the shard goes on.
    ShardPanicked "edge.shard.panicked" Error {}
    /// The store takes writes again.
    VaultRecovered "vault.write.recovered" Warn {
        /// Records that found no room meanwhile.
        records: u64,
        /// Recordings that were cut short or not begun.
        recordings: u64,
        /// For how long it took none.
        unavailable: Duration,
    }
    /// An operator erased a call.
    CallErased "vault.call.erased" Info {
        /// The call.
        call: CallId,
    }
    /// What was older than `[retention]` allows is gone.
    RetentionSwept "vault.retention.swept" Info {
        /// Recordings.
        recordings: u64,
        /// Transcripts.
        transcripts: u64,
        /// Calls with all that was kept of them.
        calls: u64,
    }
    /// Refused calls that were counted and not stored: a few per trunk, reason and minute are.
    CallsRefused "call.refused.more" Warn {
        /// The trunk that they came from.
        trunk: TrunkName,
        /// Why they were refused.
        reason: Reason,
        /// How many.
        calls: Times,
    }
    /// Log lines that were left out, since many of their kind came within a minute.
    LinesOmitted "log.lines.omitted" Warn {
        /// The name of the event that they told.
        of: &'static str,
        /// How many.
        lines: Times,
    }
    /// The server certificate expires soon.
    CertificateEnding "transport.certificate.ending" Warn {
        /// Days left; 0 once it has expired.
        days: u32,
    }
    /// A certificate was made or got anew.
    CertificateRenewed "transport.certificate.renewed" Info {}
    /// The authority of ACME gave no certificate; the log says why.
    CertificateRefused "transport.certificate.refused" Warn {}
    /// A trunk sends faster than its messages are handled: its connection is not read for a while.
    TrunkHeldBack "edge.trunk.held_back" Warn {
        /// The trunk.
        trunk: TrunkName,
    }
    /// A key or token was sent in plaintext, to the port that only redirects: it is to be revoked.
    KeyExposed "api.key_exposed" Warn {}
    /// Somebody showed a key, a token or a password that does not hold.
    LoginRefused "api.login.refused" Warn {
        /// `bearer` or `digest`.
        how: &'static str,
        /// Whether it was not looked at, after too many wrong ones of its source.
        is_held_back: bool,
    }
    /// A WebSocket of SIP ended for a reason of ours.
    WebSocketClosed "api.websocket.closed" Info {
        /// `unproved`, `flood`, `malformed`, `too_large`, `idle`, `expired`, `replaced`, `slow`,
        /// `drain` or `local`.
        cause: &'static str,
    }
    /// A queue was full and something was left out.
    QueueFull "edge.queue.full" Warn {
        /// Which queue.
        queue: &'static str,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn an_event_shows_its_fields_in_order() {
        let event =
            Event::RequestRefused { reason: Reason::UnknownPeer, transport: "tls", status: 403 };
        let mut seen = Vec::new();
        event.visit(&mut |name, value| {
            seen.push((name, if let Value::Word(word) = value { word.len() } else { 0 }));
        });
        assert_eq!(seen, [("reason", 19), ("transport", 3), ("status", 0)]);
        assert_eq!(event.name(), "sip.request.refused");
    }
}
