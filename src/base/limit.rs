//! Every size, count, rate and time that an outsider controls (DESIGN invariant 10): each has a
//! name, a number and the reason for the number.

use core::time::Duration;

/// A named bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The name in configuration, metrics and messages, `member.what`.
    pub name: &'static str,
    /// The number; its unit is in the name (`_bytes`, `_ms`, `_per_second`) or it is a count.
    pub value: u64,
    /// Why this number.
    pub why: &'static str,
}

impl Limit {
    /// The number as a size or count.
    #[must_use]
    pub const fn get(&self) -> usize {
        self.value as usize
    }

    /// The number, of a limit in milliseconds, as a duration.
    #[must_use]
    pub const fn millis(&self) -> Duration {
        Duration::from_millis(self.value)
    }
}

macro_rules! limits {
    ($($(#[$doc:meta])* $constant:ident $name:literal $value:literal $why:literal,)*) => {
        $($(#[$doc])* pub const $constant: Limit = Limit { name: $name, value: $value, why: $why };)*
        /// Every limit of the edge.
        pub const ALL: &[&Limit] = &[$(&$constant,)*];
    };
}

limits! {
    // sip
    /// Largest SIP message.
    SIP_MESSAGE_BYTES "sip.message_bytes" 65_535 "one UDP datagram; carriers' largest INVITEs with STIR and multipart bodies stay below 16 KB",
    /// Largest body.
    SIP_BODY_BYTES "sip.body_bytes" 32_768 "a browser's SDP with many candidates is below 16 KB",
    /// Longest single header line, unfolded.
    SIP_HEADER_BYTES "sip.header_bytes" 8_192 "an Identity header with an x5u is below 2 KB",
    /// Most header lines.
    SIP_HEADERS "sip.headers" 128 "an INVITE through six proxies carries about 60",
    /// Longest Request-URI.
    SIP_URI_BYTES "sip.uri_bytes" 1_024 "numbers and parameters are far below; RFC 3261 asks for 414 above what we take",
    /// Most values in one comma list.
    SIP_LIST_VALUES "sip.list_values" 64 "Max-Forwards starts at 70, so no honest Via list is longer",
    /// Transactions held by one shard.
    SIP_TRANSACTIONS "sip.transactions" 65_536 "a minute of the fastest machine's new calls (timers hold each for 32 s)",

    // sdp
    /// Largest session description.
    SDP_BYTES "sdp.bytes" 32_768 "equal to sip.body_bytes",
    /// Most media lines.
    SDP_MEDIA_LINES "sdp.media_lines" 16 "a browser bundles at most a handful; more is hostile",
    /// Most attributes in one section.
    SDP_ATTRIBUTES "sdp.attributes" 256 "a browser's audio section has about 60",
    /// Most payload types in one media line.
    SDP_FORMATS "sdp.formats" 64 "RTP has 128 payload types; dynamic ones are 32",

    // rtp and relay
    /// Largest media datagram.
    RTP_PACKET_BYTES "rtp.packet_bytes" 1_500 "Ethernet's MTU; audio is below 400 bytes",
    /// New SSRCs accepted in one session.
    RTP_SSRCS "rtp.ssrcs" 8 "re-INVITEs and transfers behind one peer change it a few times",
    /// Most packets that a jitter buffer holds.
    RTP_JITTER_PACKETS "rtp.jitter_packets" 50 "one second at 20 ms; older audio is of no use in a conversation",
    /// Most samples of an agent's speech queued at the relay, in milliseconds.
    RELAY_PLAYOUT_MS "relay.playout_ms" 120_000 "two minutes of one utterance; longer answers are fed as they play",
    /// Sessions on one relay worker.
    RELAY_SESSIONS "relay.sessions" 4_000 "sockets and ports of one process allow no more by default",
    /// How long a media port stays unused after a call, in milliseconds.
    RELAY_QUARANTINE_MS "relay.quarantine_ms" 5_000 "late audio of the old call is gone by then",
    /// Packets sent to an address that has not yet proved to be the peer.
    RELAY_UNLATCHED_PACKETS "relay.unlatched_packets" 1_500 "30 s at 20 ms: a peer that is only listening hears the greeting, a victim of reflection gets 30 s of 64 kb/s at most",
    /// Packets handled in one tick of one socket before the others get their turn.
    RELAY_BATCH "relay.batch" 64 "a flood at one port costs the others at most this many packets",
    /// Tap frames waiting for the recorder or the recogniser of one session.
    RELAY_TAP_FRAMES "relay.tap_frames" 256 "five seconds at 20 ms",

    // transport
    /// Open signalling connections.
    TRANSPORT_CONNECTIONS "transport.connections" 8_192 "below half of the files that a process may open by default here",
    /// Open signalling connections from one address.
    TRANSPORT_CONNECTIONS_PER_SOURCE "transport.connections_per_source" 256 "a carrier's edge opens a few; a NAT full of phones some hundred",
    /// Connections of one address whose TLS handshake is not done.
    TRANSPORT_HANDSHAKES_PER_SOURCE "transport.handshakes_per_source" 32 "honest handshakes take milliseconds",
    /// Longest TLS handshake, in milliseconds.
    TRANSPORT_HANDSHAKE_MS "transport.handshake_ms" 5_000 "a slow mobile link needs about two seconds",
    /// Longest time from the first byte of a message to its last, in milliseconds.
    TRANSPORT_MESSAGE_MS "transport.message_ms" 10_000 "a message of 64 KB at 100 kb/s takes five seconds",
    /// Longest silence of a connection, in milliseconds.
    TRANSPORT_IDLE_MS "transport.idle_ms" 900_000 "RFC 5626 keep-alives come every two minutes; calls without them may be silent for long",
    /// Requests from one source per second before the rest is refused.
    TRANSPORT_REQUESTS_PER_SECOND "transport.requests_per_second" 400 "a busy trunk's peak; a trunk's own limits apply after this",
    /// Refusals sent in plaintext per source and second.
    TRANSPORT_REFUSALS_PER_SECOND "transport.refusals_per_second" 5 "enough to be seen by an engineer, too few to reflect",
    /// Messages waiting to be written to one connection.
    TRANSPORT_QUEUE "transport.queue" 256 "more means that the peer has stopped reading",

    // call
    /// Calls at one time on one edge.
    CALL_CONCURRENT "call.concurrent" 2_000 "four media ports each fit the default range",
    /// Longest call, in milliseconds.
    CALL_DURATION_MS "call.duration_ms" 14_400_000 "four hours; a forgotten handset must not bill for days",
    /// Longest time without authenticated media, in milliseconds.
    CALL_MEDIA_INACTIVE_MS "call.media_inactive_ms" 60_000 "covers an elevator; RTCP still arrives on hold",
    /// Smallest session interval accepted, in milliseconds.
    CALL_MIN_SESSION_MS "call.min_session_ms" 90_000 "RFC 4028 section 4 asks for at least 90 s",
    /// DTMF digits held for a voice agent.
    CALL_DTMF_DIGITS "call.dtmf_digits" 64 "the longest entry, a card with expiry and code, has 23",
    /// Ladder entries kept per call.
    CALL_LADDER "call.ladder" 200 "a call with hourly refreshes and a transfer has below 60",

    // agent and providers
    /// Longest utterance, in milliseconds.
    AGENT_UTTERANCE_MS "agent.utterance_ms" 30_000 "after this the turn is taken",
    /// Largest text that an agent says in one go, in bytes.
    AGENT_TEXT_BYTES "agent.text_bytes" 4_096 "about four minutes of speech",
    /// Largest grammar, in phrases.
    AGENT_GRAMMAR_PHRASES "agent.grammar_phrases" 512 "a menu has below twenty; a directory some hundred",
    /// Steps of one flow.
    AGENT_FLOW_STEPS "agent.flow_steps" 512 "a flow that a person can read",
    /// Flow steps without hearing or saying anything.
    AGENT_FLOW_SPIN "agent.flow_spin" 64 "a loop in a flow file must end",
    /// Longest answer of a speech helper, in milliseconds.
    PROVIDER_REPLY_MS "provider.reply_ms" 10_000 "after this the helper is taken for dead and restarted",
    /// Most memory of one speech helper, in bytes.
    PROVIDER_HELPER_BYTES "provider.helper_bytes" 1_073_741_824 "the acoustic model and ten recognisers need about 300 MB",

    // vault
    /// Rows written in one transaction.
    VAULT_BATCH "vault.batch" 256 "amortises the fsync, delays the first writer by about a millisecond",
    /// Audit records per source and minute of one kind; the rest is one summary record.
    VAULT_AUDIT_PER_SOURCE_MINUTE "vault.audit_per_source_minute" 6 "a scanner must not fill the log",
    /// Records waiting for the vault.
    VAULT_QUEUE "vault.queue" 4_096 "at 300 calls/s about two seconds of a stalled disk",

    // policy
    /// Largest policy file.
    POLICY_FILE_BYTES "policy.file_bytes" 4_194_304 "ten thousand routes",
    /// Trunks in one policy.
    POLICY_TRUNKS "policy.trunks" 4_096 "a large wholesale carrier has some hundred",
    /// Routes in one policy.
    POLICY_ROUTES "policy.routes" 16_384 "prefix routing per country and carrier",
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn every_limit_has_its_own_name_and_a_reason() {
        let names: BTreeSet<_> = ALL.iter().map(|limit| limit.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|limit| limit.why.len() > 10 && limit.name.contains('.')));
    }
}
