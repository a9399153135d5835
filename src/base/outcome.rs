//! The catalogue of call outcomes: one row per reason why a request was refused, a call ended
//! or a packet was dropped at call level. Codes are stable forever; `Display` is the code.

use core::fmt;

/// Who has to act for the outcome to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blame {
    /// Nobody: this is how a call ends well.
    Nobody,
    /// The far end sent what it must not, or what is not supported here.
    Peer,
    /// The operator's policy says so.
    Policy,
    /// This edge: a limit reached, a resource missing, a fault.
    Edge,
}

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident $code:literal $sip:literal $http:literal $blame:ident $hint:literal,)*) => {
        /// A catalogued outcome.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every row of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable code, `area.cause`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The SIP status that carries it (RFC 3261 section 21).
            #[must_use]
            pub const fn sip_status(self) -> u16 {
                match self { $(Self::$name => $sip,)* }
            }

            /// The HTTP status that carries it.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $http,)* }
            }

            /// Who has to act.
            #[must_use]
            pub const fn blame(self) -> Blame {
                match self { $(Self::$name => Blame::$blame,)* }
            }

            /// What an operator should look at first.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

outcomes! {
    // calls that end as they should
    /// The caller hung up.
    CallerHungUp "call.caller_hung_up" 200 200 Nobody "the caller sent BYE",
    /// The voice agent ended the call.
    AgentHungUp "call.agent_hung_up" 200 200 Nobody "the voice agent's flow ended the call",
    /// The caller gave up before the answer.
    Cancelled "call.cancelled" 487 499 Nobody "the caller sent CANCEL before the answer",
    /// The caller's side gave up because somebody else has answered.
    CompletedElsewhere "call.completed_elsewhere" 487 499 Nobody "the caller's CANCEL said that the call was answered elsewhere (RFC 3326): nobody has missed it",
    /// A transfer is not allowed, or points to nothing that can be called.
    TransferRefused "call.transfer_refused" 603 403 Policy "the trunk may not transfer, there is nobody to carry over, or Refer-To is no call; see `transfer` of the trunk",
    /// The callee hung up.
    CalleeHungUp "call.callee_hung_up" 200 200 Nobody "the callee sent BYE",
    /// The call was carried to another party.
    Transferred "call.transferred" 200 200 Nobody "the call was transferred away",
    /// An operator ended the call.
    OperatorHungUp "call.operator_hung_up" 200 200 Nobody "ended by an operator or by drain",

    // policy
    /// Plaintext signalling from a source that no trunk exempts.
    PlaintextSignalling "policy.plaintext_signalling" 403 403 Policy "the source may not use this transport; see exempt.signalling of its trunk",
    /// The exemption that allowed plaintext has ended.
    ExemptionExpired "policy.exemption_expired" 403 403 Policy "the trunk's exemption passed its expiry date; renew it or move the peer to TLS",
    /// No trunk matches the source.
    UnknownPeer "policy.unknown_peer" 403 403 Policy "no trunk's `from` matches this source address or certificate",
    /// The trunk does not list this transport.
    TransportNotAllowed "policy.transport_not_allowed" 403 403 Policy "add the transport to the trunk's `transports`",
    /// The offer has plain RTP only and the trunk does not exempt it.
    PlaintextMedia "policy.plaintext_media" 488 488 Policy "the offer has no SRTP; ask the peer to enable it or exempt media on the trunk",
    /// A route of the policy refuses the call.
    RefusedByRoute "policy.refused" 603 403 Policy "a route with `refuse` matched; run `callgate explain`",
    /// No route matches the call.
    NoRoute "policy.no_route" 404 404 Policy "no route matched; run `callgate explain` for the closest one",
    /// The trunk is at its limit of concurrent calls.
    TrunkCallLimit "policy.trunk_call_limit" 503 503 Policy "limits.calls of the trunk is reached",
    /// The trunk is over its rate of new calls.
    TrunkRateLimit "policy.trunk_rate_limit" 503 503 Policy "limits.calls_per_second of the trunk is exceeded",

    // what the peer sent
    /// The message could not be parsed.
    Malformed "sip.malformed" 400 400 Peer "the message breaks RFC 3261 grammar; see the phrase of the answer",
    /// The body is not of a type understood here.
    UnsupportedBody "sip.unsupported_body" 415 415 Peer "only application/sdp, alone or as a part of a multipart body (and DTMF bodies in INFO), is understood",
    /// The Request-URI's scheme is not understood.
    UnsupportedScheme "sip.unsupported_scheme" 416 416 Peer "only sip, sips and tel URIs are understood",
    /// A required extension is not supported.
    BadExtension "sip.bad_extension" 420 420 Peer "the peer requires an option tag listed in Unsupported",
    /// The method is not allowed here.
    MethodNotAllowed "sip.method_not_allowed" 405 405 Peer "see Allow in the answer",
    /// The method is not known.
    MethodUnknown "sip.method_unknown" 501 501 Peer "the method is not implemented",
    /// The request matches no dialog or transaction.
    NoDialog "sip.no_dialog" 481 404 Peer "the peer refers to a call that is gone or never was",
    /// The same request arrived by two paths.
    MergedRequest "sip.merged_request" 482 409 Peer "the request arrived twice; a proxy before us forks to one target",
    /// A loop: Max-Forwards is exhausted.
    TooManyHops "sip.too_many_hops" 483 483 Peer "Max-Forwards reached zero",
    /// The message is larger than a limit.
    MessageTooLarge "sip.message_too_large" 513 413 Peer "the message is over limit sip.message_bytes",
    /// The body is larger than a limit.
    BodyTooLarge "sip.body_too_large" 413 413 Peer "the body is over limit sip.body_bytes",
    /// The Request-URI is too long.
    UriTooLong "sip.uri_too_long" 414 414 Peer "the Request-URI is over limit sip.uri_bytes",
    /// Another version than SIP/2.0.
    VersionNotSupported "sip.version_not_supported" 505 505 Peer "only SIP/2.0 is understood",
    /// Two offers crossed.
    RequestPending "sip.request_pending" 491 409 Peer "an offer is outstanding; the peer retries (RFC 3261 section 14.1)",
    /// The session interval is too small.
    SessionIntervalTooSmall "sip.session_interval_too_small" 422 422 Peer "see Min-SE in the answer (RFC 4028)",
    /// An in-dialog request came out of order.
    OutOfOrder "sip.out_of_order" 500 500 Peer "CSeq is lower than one already seen",

    // media
    /// The SDP could not be parsed.
    SdpMalformed "media.sdp_malformed" 400 400 Peer "the session description breaks RFC 8866",
    /// No codec in common.
    NoCommonCodec "media.no_common_codec" 488 488 Peer "offer and trunk share no codec; compare the offer with the trunk's `codecs`",
    /// No usable audio line.
    NoAudio "media.no_audio" 488 488 Peer "the offer has no audio line that can be answered",
    /// No crypto suite in common.
    NoCommonCrypto "media.no_common_crypto" 488 488 Peer "the offer's a=crypto lines name no supported suite",
    /// No media arrived for too long.
    MediaTimeout "media.inactive" 408 408 Peer "no authenticated media arrived for the trunk's inactivity limit; look for NAT or a firewall",
    /// The DTLS handshake of the media path failed.
    Unsecured "media.unsecured" 488 488 Peer "the DTLS handshake on the media path failed; the event names its code (see dtls.*)",
    /// ICE lost the peer, or never found it.
    PathLost "media.path_lost" 408 408 Peer "no ICE check came for 30 s: the peer's network is gone or blocks the media ports",

    /// The peer's certificate is named by a hash function that does not prove it.
    WeakFingerprint "media.weak_fingerprint" 488 488 Peer "a=fingerprint must be SHA-256, -384 or -512 (RFC 8122)",
    /// A DTLS-SRTP line without ICE, or whose side waits to be found as this one does.
    NoIce "media.no_ice" 488 488 Peer "DTLS-SRTP is answered with ICE only, by a peer that sends checks: no a=ice-ufrag, or a=ice-lite",
    /// A DTLS-SRTP line that wants a port of its own for RTCP.
    NoRtcpMux "media.no_rtcp_mux" 488 488 Peer "DTLS-SRTP wants a=rtcp-mux, as every browser offers it",
    /// No browser or softphone of this account is there.
    AccountNotRegistered "account.not_registered" 480 404 Peer "nobody has signed in to this account by SIP over WSS, or their connection is gone",

    // ends of calls
    /// The ACK of our answer never came.
    NoAck "call.no_ack" 408 408 Peer "our 200 was never acknowledged (RFC 3261 section 13.3.1.4)",
    /// The PRACK of a provisional response of ours never came.
    NoPrack "call.no_prack" 504 504 Peer "the caller asked for reliable provisional responses and acknowledged none (RFC 3262)",
    /// The session was not refreshed.
    SessionExpired "call.session_expired" 408 408 Peer "the peer did not refresh the session in time (RFC 4028)",
    /// The call reached its maximum duration.
    MaximumDuration "call.maximum_duration" 200 200 Policy "the call reached the longest duration allowed",
    /// The caller stayed silent too long.
    CallerSilent "call.caller_silent" 200 200 Nobody "the voice agent's silence limit ended the call",
    /// A request of ours within the dialog was refused or timed out.
    PeerGone "call.peer_gone" 481 502 Peer "the peer answered 481/408 to a request within the call, or nothing",
    /// The connection to the peer cannot be re-established.
    FlowLost "transport.flow_lost" 503 502 Peer "the connection was lost before the call was up and the peer did not come back",

    // outgoing calls
    /// Nobody answered in time.
    NoAnswer "trunk.no_answer" 480 504 Peer "the far end rang but did not answer",
    /// The far end is busy.
    Busy "trunk.busy" 486 486 Peer "the far end is busy",
    /// The far end declined.
    Declined "trunk.declined" 603 403 Peer "the far end declined",
    /// No peer of the trunk could be reached.
    TrunkUnreachable "trunk.unreachable" 502 502 Peer "no address of the trunk accepts connections; see its health",
    /// The trunk has asked to be left alone for a while.
    TrunkUnavailable "trunk.unavailable" 502 502 Peer "every target of the trunk answered 503 with Retry-After: until then one call a second tries it (limit transport.trickle_ms), the others are refused at once",
    /// The trunk's name leads nowhere.
    TrunkUnresolved "trunk.unresolved" 503 502 Peer "the domain in the trunk's `send_to` has no address for this, or no name server answers; see [dns]",
    /// The trunk's certificate does not prove its domain.
    TrunkUntrusted "trunk.untrusted" 503 502 Peer "the certificate shown is not for the domain in `send_to`, or nobody vouches for it; see `tls` of the trunk",
    /// The trunk does not take our certificate.
    CertificateRefused "trunk.certificate_refused" 502 502 Policy "the trunk wants another client certificate than ours: see `certificate` and `key` of its `tls`, or its own list of authorities",
    /// The far end knows no such number.
    NumberUnknown "trunk.number_unknown" 404 404 Peer "the far end says that the number does not exist or is incomplete",
    /// The trunk asks for credentials that we do not have.
    CredentialsMissing "trunk.credentials_missing" 502 502 Policy "the trunk asks for a user and a password: add `digest` to it, or look at its realm, its algorithm and its transport",
    /// The trunk refuses our credentials.
    CredentialsRefused "trunk.credentials_refused" 502 502 Policy "the trunk does not take the user and password of its `digest`",
    /// The far end refuses us.
    TrunkRefused "trunk.refused" 502 502 Peer "the trunk refused our INVITE (rights, a feature); see the ladder of the callee's leg",

    // this edge
    /// The edge is at its limit of calls.
    EdgeCallLimit "edge.call_limit" 503 503 Edge "limit call.concurrent is reached",
    /// The edge is draining.
    Draining "edge.draining" 503 503 Edge "the edge is shutting down and takes no new calls",
    /// No media port is free.
    NoMediaPort "edge.no_media_port" 503 503 Edge "the media port range is used up",
    /// The relay cannot take another session.
    RelayFull "edge.relay_full" 503 503 Edge "a relay worker is at its limit of sessions",
    /// The voice agent is not configured or could not start.
    AgentUnavailable "agent.unavailable" 503 503 Edge "the voice agent named by the route did not start; see the log",
    /// The voice agent's providers failed.
    AgentFailed "agent.failed" 500 500 Edge "a provider of the voice agent failed; see provider events",
    /// The store could not be written; calls that must be recorded are refused.
    VaultUnavailable "vault.unavailable" 503 503 Edge "the store cannot be written; see disk space and the database",
    /// A fault of ours; the call was ended so that others go on.
    Internal "edge.internal" 500 500 Edge "a bug in callgate; the log has the place",
    /// A source holds more connections or unfinished handshakes than its share.
    ConnectionLimit "transport.connection_limit" 503 429 Peer "the source, or all together, reached limit transport.connections_per_source, transport.browsers_per_source, transport.handshakes_per_source, transport.handshakes_per_second or transport.connections",
    /// A TLS handshake failed or took too long.
    HandshakeFailed "transport.handshake_failed" 403 403 Peer "no TLS, another protocol, a half-open connection, or a certificate that [tls] client_ca does not vouch for",
    /// A source sends more than its share.
    Flood "edge.flood" 503 429 Peer "the source exceeded limit transport.requests_per_second; a trunk may raise its own",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_have_an_area() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(reason.code().split('.').count(), 2, "{reason}");
            assert!((200..=699).contains(&reason.sip_status()), "{reason}");
            assert!(!reason.hint().is_empty());
        }
    }
}
