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
    /// Most parts of one body, nested ones included.
    SIP_BODY_PARTS "sip.body_parts" 16 "a description, ISUP, a location and a text are four; alternatives of each are eight",
    /// Deepest nesting of parts within one body.
    SIP_BODY_NESTING "sip.body_nesting" 3 "mixed holds alternative holds related; nothing known goes deeper",
    /// Most challenges looked at in one response, and most that one leg answers.
    SIP_CHALLENGES "sip.challenges" 8 "a proxy and a server in four algorithms each",
    /// Longest realm, nonce and opaque value of a challenge that is answered.
    SIP_DIGEST_BYTES "sip.digest_bytes" 1_024 "sealed nonces of the largest proxies are below 300",
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
    /// Longest parameters of a codec that goes through undecoded.
    SDP_FMTP_BYTES "sdp.fmtp_bytes" 256 "all parameters of EVS at once are about 160",
    /// Most formats of one party that are offered on undecoded.
    SDP_OPAQUE_FORMATS "sdp.opaque_formats" 8 "a mobile network offers two layouts each of EVS, AMR-WB and AMR",

    // rtp and relay
    /// Largest media datagram.
    RTP_PACKET_BYTES "rtp.packet_bytes" 1_500 "Ethernet's MTU; audio is below 400 bytes",
    /// New SSRCs accepted in one session.
    RTP_SSRCS "rtp.ssrcs" 8 "re-INVITEs and transfers behind one peer change it a few times",
    /// Parts that a leg's media figures over time have.
    MEDIA_CURVE_SPELLS "media.curve_spells" 120 "ten minutes in parts of five seconds, hours in coarser ones; about 5 KB",
    /// Legs of one call whose media figures are kept over time.
    MEDIA_CURVES "media.curves" 8 "two talk at a time, and a transfer or two changes them; stored they are below 100 KB",
    /// Most packets that a jitter buffer holds.
    RTP_JITTER_PACKETS "rtp.jitter_packets" 50 "one second at 20 ms; older audio is of no use in a conversation",
    /// Most samples of an agent's speech queued at the relay, in milliseconds.
    RELAY_PLAYOUT_MS "relay.playout_ms" 120_000 "two minutes of one utterance; longer answers are fed as they play",
    /// Sessions on one relay worker.
    RELAY_SESSIONS "relay.sessions" 6_000 "sockets and ports of one process allow no more by default",
    /// How long a media port stays unused after a call, in milliseconds.
    RELAY_QUARANTINE_MS "relay.quarantine_ms" 5_000 "late audio of the old call is gone by then",
    /// Packets sent to an address that has not yet proved to be the peer.
    RELAY_UNLATCHED_PACKETS "relay.unlatched_packets" 1_500 "30 s at 20 ms: a peer that is only listening hears the greeting, a victim of reflection gets 30 s of 64 kb/s at most",
    /// Packets handled in one tick of one socket before the others get their turn.
    RELAY_BATCH "relay.batch" 64 "a flood at one port costs the others at most this many packets",
    /// Tap frames waiting for the recorder or the recogniser of one session.
    RELAY_TAP_FRAMES "relay.tap_frames" 256 "two and a half seconds of both voices at 20 ms",
    /// Packets of a leg that wait for its recording.
    RELAY_TAP_PACKETS "relay.tap_packets" 64 "more than a second at 20 ms; the ear looks each 10 ms",
    /// Listeners of one session.
    RELAY_TAPS "relay.taps" 4 "a recogniser and a recorder, and one of each anew while the old one ends",
    /// Commands waiting for one relay worker.
    RELAY_COMMANDS "relay.commands" 4_096 "one for each session that a worker may hold",
    /// Receive buffer of one media socket, in bytes.
    RELAY_SOCKET_BYTES "relay.socket_bytes" 65_536 "more than a second of one call, so that a late worker loses nothing and a flood fills no memory",
    /// Age from which received audio is dropped instead of passed on, in milliseconds.
    RELAY_STALE_MS "relay.stale_ms" 150 "ITU-T G.114 asks for at most 150 ms one way in all; a jitter buffer has no use for older packets",
    /// Descriptors of the process that media sockets may not take.
    RELAY_FILES_KEPT "relay.files_kept" 9_000 "transport.connections, and some hundred for the vault, the API and the providers",
    /// Packets, keys and reports that one step of a session hands to the session of another leg.
    RELAY_PARCELS "relay.parcels" 16 "three frames of a late worker in packets of 10 ms, and keys",
    /// Longest press of a key that is made anew for another leg, in milliseconds.
    RELAY_PRESS_MS "relay.press_ms" 10_000 "menus ask to hold a key for some seconds at most; whoever holds one may go without a word",
    /// DTLS datagrams of one session in a tenth of a second.
    RELAY_DTLS_DATAGRAMS "relay.dtls_datagrams" 32 "a flight of ten records, one to a datagram, repeated twice; the thread of handshakes is everybody's",
    /// Packets of one session that wait for the keys of its handshake.
    RELAY_EARLY_PACKETS "relay.early_packets" 16 "a third of a second at 20 ms: our thread of handshakes takes some milliseconds longer than the peer",
    /// Packets in order from another source, none from the latched one in between, that move a
    /// latch of plain RTP.
    RELAY_STEADY_PACKETS "relay.steady_packets" 20 "400 ms of a stream at 20 ms: strays and two strangers at a time never come to it",
    /// How long packets under the keys before a re-key are still taken, in milliseconds.
    RELAY_OLD_KEYS_MS "relay.old_keys_ms" 2_000 "they are in flight; a jitter buffer has no use for older ones",
    /// Ports tried before a reservation fails.
    RELAY_PORT_TRIES "relay.port_tries" 64 "taken ports stand alone; a worker may not scan for long",
    /// DTLS handshakes under way at one time.
    DTLS_HANDSHAKES "dtls.handshakes" 1_024 "five seconds of 200 a second; silent peers hold a place until dtls.handshake_ms",
    /// DTLS associations at one time.
    DTLS_ASSOCIATIONS "dtls.associations" 8_192 "more browser calls than one machine carries; each holds 15 to 40 KB",
    /// How long a DTLS handshake may take, in milliseconds.
    DTLS_HANDSHAKE_MS "dtls.handshake_ms" 10_000 "four lost flights; whoever waits longer for audio has hung up",
    /// Largest datagram of DTLS that we send.
    DTLS_DATAGRAM_BYTES "dtls.datagram_bytes" 1_200 "what browsers assume of any path; QUIC asks for as much",
    /// Largest datagram of DTLS that is looked at.
    DTLS_RECEIVED_BYTES "dtls.received_bytes" 2_048 "an Ethernet frame and some; nobody fragments IP for a handshake",
    /// Largest handshake message, put together.
    DTLS_MESSAGE_BYTES "dtls.message_bytes" 8_000 "a ClientHello with ML-KEM is below 2 KB, an RSA certificate too; webrtc-dtls reads 8,192 at most",
    /// DTLS records looked at in one datagram.
    DTLS_DATAGRAM_RECORDS "dtls.datagram_records" 8 "a flight of five messages and some; dimpl takes no more",
    /// Time in which one protected record of DTLS passes after the handshake, in milliseconds.
    DTLS_PASS_MS "dtls.pass_ms" 10 "a last flight that is repeated is few records, 200 ms apart or more",
    /// Handshake messages of DTLS that may be begun at one time.
    DTLS_MESSAGES "dtls.messages" 8 "a flight has five plaintext ones",
    /// Shortest piece of a handshake message that is not its end.
    DTLS_PIECE_BYTES "dtls.piece_bytes" 64 "honest peers fill their datagrams; shorter ones cost more memory than they bring",
    /// How often a flight is repeated unasked to a peer that is silent.
    DTLS_UNASKED_REPEATS "dtls.unasked_repeats" 5 "each after twice the time: the last one 8 s after the first, within dtls.handshake_ms",
    /// DTLS records, and pieces beyond the first in one, until a handshake is complete.
    DTLS_HANDSHAKE_RECORDS "dtls.handshake_records" 128 "two flights of ten records, repeated six times",
    /// Bytes of DTLS until a handshake is complete.
    DTLS_HANDSHAKE_BYTES "dtls.handshake_bytes" 32_768 "two flights of 3 KB, repeated five times",
    /// How often a last flight is repeated to a peer that has not heard it.
    DTLS_REPEATS "dtls.repeats" 8 "a peer that doubles its wait asks six times in a minute; a forger gets no more either",
    /// Least time between two repetitions of a flight, in milliseconds.
    DTLS_REPEAT_MS "dtls.repeat_ms" 200 "honest peers wait longer before they repeat themselves",
    /// Datagrams of a flight that are kept to be repeated.
    DTLS_FLIGHT_DATAGRAMS "dtls.flight_datagrams" 8 "our largest flight, with a certificate of P-256, is one or two",
    /// Commands and datagrams waiting for the thread of DTLS handshakes.
    DTLS_COMMANDS "dtls.commands" 4_096 "a second of 200 handshakes with ten datagrams each, twice; 8 MB at most",
    /// Datagrams waiting between a handshake's task and its thread, each way.
    DTLS_QUEUE "dtls.queue" 32 "two flights and what a peer repeats meanwhile",
    /// How long a DTLS certificate is given to new legs, in milliseconds.
    DTLS_IDENTITY_MS "dtls.identity_ms" 86_400_000 "a day: one stolen from memory is soon useless, and none is made per call but for a leg that moves",

    // transport
    /// Open signalling connections.
    TRANSPORT_CONNECTIONS "transport.connections" 8_192 "below half of the files that a process may open by default here",
    /// Most that an owner may raise `transport.connections` to.
    TRANSPORT_CONNECTIONS_MOST "transport.connections_most" 100_000 "at 30 KB each about 3 GB",
    /// Open signalling connections from one address.
    TRANSPORT_CONNECTIONS_PER_SOURCE "transport.connections_per_source" 256 "a carrier's edge opens a few; a NAT full of phones some hundred",
    /// Open connections and WHIP sessions of browsers from one address.
    TRANSPORT_BROWSERS_PER_SOURCE "transport.browsers_per_source" 1_024 "an office of 500 behind one address, each with a page's connection and its session",
    /// Connections of one address whose TLS handshake is not done.
    TRANSPORT_HANDSHAKES_PER_SOURCE "transport.handshakes_per_source" 32 "honest handshakes take milliseconds",
    /// TLS handshakes that one address may begin in a second.
    TRANSPORT_HANDSHAKES_PER_SECOND "transport.handshakes_per_second" 600 "twice the rate at which calls with a connection each are measured",
    /// Longest TLS handshake, in milliseconds.
    TRANSPORT_HANDSHAKE_MS "transport.handshake_ms" 5_000 "a slow mobile link needs about two seconds",
    /// Longest time from the first byte of a message to its last, in milliseconds.
    TRANSPORT_MESSAGE_MS "transport.message_ms" 10_000 "a message of 64 KB at 100 kb/s takes five seconds",
    /// Longest silence of a connection, in milliseconds.
    TRANSPORT_IDLE_MS "transport.idle_ms" 900_000 "RFC 5626 keep-alives come every two minutes; calls without them may be silent for long",
    /// Requests from one source per second before the rest is refused.
    TRANSPORT_REQUESTS_PER_SECOND "transport.requests_per_second" 400 "more than any single telephone or small exchange sends; whoever is no trunk gets no more answers",
    /// Messages per second and source that a known trunk may send.
    TRANSPORT_TRUNK_MESSAGES "transport.trunk_messages" 10_000 "a thousand calls a second of ten messages each; the trunk's own limits of calls apply after this",
    /// Refusals sent in plaintext per source and second.
    TRANSPORT_REFUSALS_PER_SECOND "transport.refusals_per_second" 5 "enough to be seen by an engineer, too few to reflect",
    /// Messages waiting to be written to one connection.
    TRANSPORT_QUEUE "transport.queue" 2_048 "two seconds of a carrier with 300 calls a second, whose connection had to wait; who does not read at all is cut off by transport.message_ms sooner",
    /// How long an ending connection may take to send what is queued and say goodbye, in milliseconds.
    TRANSPORT_LINGER_MS "transport.linger_ms" 1_000 "a few round trips of a slow link; whoever does not read loses the answer",
    /// Bytes read and thrown away of a peer that is being told why its connection ends.
    TRANSPORT_LINGER_BYTES "transport.linger_bytes" 262_144 "a reset would overtake the answer while a peer still sends; four messages are enough patience",
    /// Longest time that sent bytes may stay unacknowledged, in milliseconds.
    TRANSPORT_UNACKNOWLEDGED_MS "transport.unacknowledged_ms" 30_000 "RFC 3261 timers B and F give up after 32 s; a dead connection must be known by then",
    /// Waiting connections of one listener.
    TRANSPORT_BACKLOG "transport.backlog" 1_024 "what is accepted in some milliseconds; the kernel may allow less",
    /// Open listeners.
    TRANSPORT_LISTENERS "transport.listeners" 64 "three transports on a handful of zones and addresses",
    /// Addresses of this machine that one UDP socket on every address answers from.
    TRANSPORT_UDP_ADDRESSES "transport.udp_addresses" 63 "a host of many networks has a dozen; the rest is answered from where the kernel chooses",
    /// IPv6 peers remembered by one UDP socket (IPv4 peers need no memory).
    TRANSPORT_UDP_PEERS "transport.udp_peers" 16_384 "about one megabyte",
    /// IPv6 peers remembered of one network.
    TRANSPORT_UDP_PEERS_PER_NETWORK "transport.udp_peers_per_network" 64 "a flood from one /64 forgets its own peers only (and those that share its hash)",
    /// Names taken from one certificate.
    TRANSPORT_CERTIFICATE_NAMES "transport.certificate_names" 64 "a carrier's certificate names some; matching is linear",

    /// Addresses that one dial tries.
    TRANSPORT_TARGETS "transport.targets" 16 "a large carrier names eight servers; whoever waits for more has hung up",
    /// Longest wait for one outgoing connection, TLS included, before the next address is tried, in milliseconds.
    TRANSPORT_CONNECT_MS "transport.connect_ms" 4_000 "three SYNs and a slow handshake; a caller hears silence meanwhile",
    /// How long one address of a host is tried alone before the next is tried beside it, in milliseconds.
    TRANSPORT_HAPPY_EYEBALLS_MS "transport.happy_eyeballs_ms" 250 "RFC 8305 section 5 recommends it",
    /// Open outgoing connections of one trunk.
    TRANSPORT_CONNECTIONS_PER_TRUNK "transport.connections_per_trunk" 64 "one for each server of a large carrier, and as many again for the targets of calls in progress",
    /// Between our keep-alives on a connection that we opened, in milliseconds; each waits for 80 to 100 % of it.
    TRANSPORT_PING_MS "transport.ping_ms" 120_000 "RFC 5626 section 4.4.1 for connections without a server's word",
    /// Longest wait for the answer to a keep-alive of a peer that has answered one before, in milliseconds.
    TRANSPORT_PONG_MS "transport.pong_ms" 10_000 "RFC 5626 section 4.4.1",
    /// How long a target that failed is left alone, in milliseconds; it doubles with each failure.
    TRANSPORT_DOWN_MS "transport.down_ms" 10_000 "long enough to spare callers, short enough that a restart is soon used again",
    /// Longest time that a target that failed is left alone, in milliseconds, whatever it asks for.
    TRANSPORT_DOWN_MS_MAX "transport.down_ms_max" 300_000 "a peer must not lock itself out for longer by a Retry-After of years",
    /// Between two calls to a trunk all of whose targets have asked to be left alone, in milliseconds.
    TRANSPORT_TRICKLE_MS "transport.trickle_ms" 1_000 "one call a second overloads nobody and finds out at once that a trunk is back",
    /// How long a target that is tried again after a failure counts as being tried, in milliseconds.
    TRANSPORT_PROBE_MS "transport.probe_ms" 35_000 "RFC 3261 timer B gives up after 32 s",
    /// Targets whose state is remembered.
    TRANSPORT_HEALTH "transport.health" 16_384 "four servers of every trunk that a policy may hold",
    /// Incoming connections that may serve for requests of ours.
    TRANSPORT_ALIASES "transport.aliases" 8_192 "equal to transport.connections",
    /// How long no certificate is asked for after a failure, in milliseconds.
    ACME_RETRY_MS "acme.retry_ms" 3_600_000 "authorities allow about five failures an hour",
    /// Answers kept by the resolver.
    TRANSPORT_DNS_CACHE "transport.dns_cache" 8_192 "NAPTR, SRV and addresses of every trunk's servers; a few hundred bytes each",
    /// Records taken from one DNS answer.
    TRANSPORT_DNS_RECORDS "transport.dns_records" 64 "sixteen targets of several transports",
    /// Aliases (CNAME) followed for one name.
    TRANSPORT_DNS_ALIASES "transport.dns_aliases" 8 "honest chains have one or two",
    /// Longest time that a DNS answer is kept, in milliseconds.
    TRANSPORT_DNS_TTL_MS "transport.dns_ttl_ms" 86_400_000 "a day; a record's own time to live is usually shorter",
    /// Longest time that the absence of a record is kept, in milliseconds.
    TRANSPORT_DNS_NEGATIVE_MS "transport.dns_negative_ms" 300_000 "RFC 2308 section 5 allows hours; who adds a record wants it seen",
    /// How long a failure of the name servers is kept, in milliseconds.
    TRANSPORT_DNS_FAILURE_MS "transport.dns_failure_ms" 2_000 "calls must not queue up behind servers that are down",
    /// How long an answer may be used after its time where the name servers fail, in milliseconds.
    TRANSPORT_DNS_STALE_MS "transport.dns_stale_ms" 3_600_000 "RFC 8767: an hour without name servers must not be an hour without calls",
    /// Longest wait for a name server before the next is asked, in milliseconds.
    TRANSPORT_DNS_QUERY_MS "transport.dns_query_ms" 1_500 "a recursive server's own search takes up to a second",
    /// Longest search for one name, in milliseconds.
    TRANSPORT_DNS_SEARCH_MS "transport.dns_search_ms" 4_000 "two servers may be down; a caller hears silence meanwhile",
    /// Rounds through all name servers.
    TRANSPORT_DNS_ROUNDS "transport.dns_rounds" 2 "one for a lost datagram",
    /// Name servers asked.
    TRANSPORT_DNS_SERVERS "transport.dns_servers" 3 "as many as resolv.conf may name",
    /// DNS queries under way.
    TRANSPORT_DNS_QUERIES "transport.dns_queries" 256 "a socket each",
    /// Largest hosts file, in bytes.
    TRANSPORT_DNS_HOSTS_BYTES "transport.dns_hosts_bytes" 1_048_576 "ten thousand names",

    /// Sources whose rates are counted apart.
    TRANSPORT_RATED_SOURCES "transport.rated_sources" 65_536 "4 MB; the rest share one place, which a spoofing flood fills for itself",

    // api
    /// Largest head of an HTTP request.
    API_HEAD_BYTES "api.head_bytes" 16_384 "a browser with many cookies sends 4 KB; ours are told to send none",
    /// Most header lines of an HTTP request.
    API_HEADERS "api.headers" 64 "Chromium sends about 20",
    /// Longest wait for the head of the next HTTP request, in milliseconds.
    API_HEAD_MS "api.head_ms" 15_000 "a slow mobile link needs two seconds; whoever stays silent opens a new connection in one round trip",
    /// Longest wait for the body of an HTTP request, in milliseconds.
    API_BODY_MS "api.body_ms" 10_000 "32 KB at 100 kb/s take three seconds",
    /// Requests on one HTTP connection, after which it is closed.
    API_CONNECTION_REQUESTS "api.connection_requests" 1_000 "a page that asks each second opens a connection each quarter of an hour",
    /// Wrong keys, tokens and passwords of one source per minute, after which none is looked at.
    API_WRONG_TRIES "api.wrong_tries" 20 "a person mistypes a few; at this rate a password of eight letters lasts for ten thousand years",
    /// Sources whose wrong tries are counted.
    API_RATED_SOURCES "api.rated_sources" 16_384 "about one megabyte; the rest share one place",
    /// Longest origin in the list of those that may call.
    API_ORIGIN_BYTES "api.origin_bytes" 300 "a host name has 253 bytes at most",
    /// Largest JSON body of a request about keys, tokens and accounts.
    API_JSON_BYTES "api.json_bytes" 16_384 "their longest fields together are below 2 KB",
    /// Keys whose requests are counted.
    API_RATED_KEYS "api.rated_keys" 1_024 "more than vault.api_keys",
    /// People signed in at the console.
    API_CONSOLE_SESSIONS "api.console_sessions" 1_024 "everybody of a large owner, in several browsers",
    /// How long one stays signed in, in milliseconds.
    API_CONSOLE_SESSION_MS "api.console_session_ms" 43_200_000 "a working day of twelve hours",
    /// Largest form that the console takes.
    API_FORM_BYTES "api.form_bytes" 1_024 "an API key is 54 characters",
    /// Pages that follow calls at one time.
    API_LIVE_FOLLOWERS "api.live_followers" 512 "some people with several calls open each; one holds a connection",
    /// What happened in a call that waits for one page.
    API_LIVE_EVENTS "api.live_events" 64 "a minute of a lively conversation",
    /// How often a page that follows a call hears that the edge is there, in milliseconds.
    API_LIVE_ALIVE_MS "api.live_alive_ms" 15_000 "proxies close what is silent for 30 s or more",
    /// Recordings that are being unsealed for the console at one time.
    API_PLAYERS "api.players" 4 "an hour of recording is some 20 MB in memory and two seconds of CPU",
    /// How long a page of the console waits for the vault's queue, in milliseconds.
    API_SETTLE_MS "api.settle_ms" 1_000 "a batch takes some milliseconds; of a vault that fails, what is there is shown",
    /// Calls on one page of the console.
    API_CALLS_PER_PAGE "api.calls_per_page" 50 "what a person reads before looking for something else",
    /// WHIP sessions at one time.
    API_WHIP_SESSIONS "api.whip_sessions" 4_096 "more browser calls than one machine carries; each holds about 30 KB",
    /// How long a WHIP POST waits for the answer of who is called, in milliseconds.
    API_WHIP_ANSWER_MS "api.whip_answer_ms" 120_000 "browsers give a request up after five minutes, proxies after two; nobody lets it ring for longer",
    /// How long a WHIP PATCH or DELETE waits for the calls, in milliseconds.
    API_WHIP_STEP_MS "api.whip_step_ms" 10_000 "a step within the edge takes milliseconds",
    /// Largest fragment of candidates in a WHIP PATCH.
    API_FRAGMENT_BYTES "api.fragment_bytes" 16_384 "a hundred candidates of 120 bytes",
    /// Most lines of such a fragment.
    API_FRAGMENT_LINES "api.fragment_lines" 256 "a browser gathers some dozen candidates",
    /// How long a login at a TURN server with a shared secret is good, in milliseconds.
    API_ICE_LOGIN_MS "api.ice_login_ms" 43_200_000 "a TURN server asks again with each refresh: a call of twelve hours",
    /// Browser tokens whose use is remembered until they expire.
    API_TOKENS "api.tokens" 65_536 "about 10 MB; each belongs to a session that was opened",
    /// Open WebSockets of SIP.
    API_WEBSOCKETS "api.websockets" 8_192 "equal to transport.connections",
    /// Longest silence of a WebSocket, in milliseconds; half of it later we ask for a pong.
    API_WEBSOCKET_IDLE_MS "api.websocket_idle_ms" 120_000 "browsers cannot ping, but answer; NATs forget a silent TCP connection after some minutes",
    /// How long a WebSocket may stay without proof of who is there, in milliseconds.
    API_WEBSOCKET_PROOF_MS "api.websocket_proof_ms" 30_000 "SIP.js and JsSIP register at once",
    /// Read buffer of a WebSocket, in bytes.
    API_WEBSOCKET_BUFFER "api.websocket_buffer" 4_096 "a REGISTER is below 1 KB, an INVITE takes two reads; thousands are idle",
    /// Messages of one WebSocket per second, over ten seconds.
    API_WEBSOCKET_MESSAGES "api.websocket_messages" 50 "a person's client sends a dozen while a call begins",
    /// Messages that cannot be read, after which a WebSocket is closed.
    API_WEBSOCKET_FAULTS "api.websocket_faults" 8 "an honest client sends none",
    /// How long a nonce is good, in milliseconds.
    API_NONCE_MS "api.nonce_ms" 300_000 "a client that has one old registers in one round trip more",
    /// Addresses that one account is registered with at one time.
    API_BINDINGS_PER_ACCOUNT "api.bindings_per_account" 10 "a person has a few devices and tabs",
    /// Registered addresses of all accounts.
    API_BINDINGS "api.bindings" 16_384 "two for each WebSocket",
    /// Shortest registration, in seconds.
    API_REGISTER_MIN_S "api.register_min_s" 60 "the connection tells at once when the browser is gone; refreshes more often are load only",
    /// Longest registration, in seconds.
    API_REGISTER_MAX_S "api.register_max_s" 3_600 "RFC 3261 section 10.2.1.1 suggests an hour",
    /// Routes of one leg on which ICE checks were proved.
    ICE_PAIRS "ice.pairs" 16 "two families, UDP and TCP, before and after a change of network, twice",
    /// Longest wait for the first ICE check of a plan's credentials, in milliseconds.
    ICE_FIRST_CHECK_MS "ice.first_check_ms" 30_000 "a browser begins within a second of our answer; as long as ice.consent_ms",
    /// Longest time without an ICE check before the path is taken as lost, in milliseconds.
    ICE_CONSENT_MS "ice.consent_ms" 30_000 "RFC 7675 section 5.1",
    /// Changes of the route that media takes in a second.
    ICE_SELECTIONS_PER_SECOND "ice.selections_per_second" 8 "a browser that tries its candidates makes two or three; each costs a system call and an event",
    /// ICE checks of one session in a tenth of a second, from where some were proved; and as many
    /// from elsewhere.
    ICE_CHECKS_PER_SESSION "ice.checks_per_session" 50 "each costs an HMAC, of who knows the names; a browser checks a pair twice in this time at most, and has a dozen",
    /// Connections of ICE-TCP at one time.
    ICE_TCP_CONNECTIONS "ice.tcp_connections" 1_024 "a quarter of relay.sessions: few networks block UDP",
    /// Connections of ICE-TCP of one address, of IPv6 of one /64.
    ICE_TCP_CONNECTIONS_PER_SOURCE "ice.tcp_connections_per_source" 64 "an office behind one address, each browser with one or two",
    /// Connections of ICE-TCP of one session.
    ICE_TCP_CONNECTIONS_PER_SESSION "ice.tcp_connections_per_session" 4 "two families, before and after a change of network",
    /// Connections of ICE-TCP accepted in a second; more wait in the kernel.
    ICE_TCP_ACCEPTS_PER_SECOND "ice.tcp_accepts_per_second" 200 "as many as handshakes; each asks all workers once",
    /// Connections of ICE-TCP that wait in the kernel to be accepted, at each address.
    ICE_TCP_BACKLOG "ice.tcp_backlog" 128 "more than half a second of ice.tcp_accepts_per_second",
    /// How long a connection of ICE-TCP may take to prove whose it is, in milliseconds.
    ICE_TCP_FIRST_MS "ice.tcp_first_ms" 5_000 "a browser checks as soon as it is connected; a lost segment takes three seconds at most",
    /// Datagrams that wait to be sent on one connection of ICE-TCP.
    ICE_TCP_QUEUE "ice.tcp_queue" 50 "a second of sound at 20 ms; older is of no use in a conversation",
    /// Datagrams read from one connection of ICE-TCP in a tenth of a second.
    ICE_TCP_DATAGRAMS "ice.tcp_datagrams" 40 "sound at 10 ms is ten, and a second that waited is worked off in two",
    /// Datagrams read at the browsers' shared port, for each of its addresses, in 10 ms.
    ICE_PORT_DATAGRAMS "ice.port_datagrams" 200 "checks of a thousand browsers that are all connecting; 4 % of a core for whoever floods it",
    /// Checks taken at the browsers' shared port from one address, of IPv6 one /64, in 100 ms.
    ICE_PORT_CHECKS_PER_SOURCE "ice.port_checks_per_source" 200 "an office behind one address: a hundred browsers that connect at one time, each with twenty a second",
    /// Datagrams of one session that the browsers' shared port hands on in 100 ms.
    ICE_PORT_DATAGRAMS_PER_SESSION "ice.port_datagrams_per_session" 40 "sound at 10 ms is ten, checks and a handshake come on top",
    /// What workers may tell the thread of the browsers' shared port before it has listened.
    ICE_PORT_NOTES "ice.port_notes" 4_096 "one for each session; what finds no room waits at its worker",
    /// Local addresses at which the browsers' shared port is open.
    ICE_PORT_ADDRESSES "ice.port_addresses" 64 "zones of one machine; policy names them, so that an error there is bounded",
    /// Receive buffer of the browsers' shared port, in bytes.
    ICE_PORT_BYTES "ice.port_bytes" 1_048_576 "a thousand checks; the system may give less",
    /// How long a route at the browsers' shared port outlasts its latest check, in milliseconds.
    ICE_PORT_KEPT_MS "ice.port_kept_ms" 10_000 "browsers check each route that they use every three seconds; then another call may have the address",
    /// Time for which a worse route is not taken although it is nominated, in milliseconds.
    ICE_RENOMINATION_MS "ice.renomination_ms" 1_000 "who nominates all routes repeats that within 50 ms; who has moved repeats it for the new one alone",

    /// Inputs waiting for one shard.
    SHARD_INPUTS "shard.inputs" 8_192 "four seconds of the fastest machine's messages; more is answered 503",
    /// Messages of one trunk that wait to be handled.
    SHARD_INPUTS_PER_TRUNK "shard.inputs_per_trunk" 512 "delays the calls of others by a tenth of a second at most; the rest waits in the trunk's own connections",

    // call
    /// Calls at one time on one edge.
    CALL_CONCURRENT "call.concurrent" 2_000 "four media ports each fit the default range",
    /// Most that an owner may raise `call.concurrent` to.
    CALL_CONCURRENT_MOST "call.concurrent_most" 50_000 "about 3 GB, and all the UDP ports of four addresses",
    /// Longest call, in milliseconds.
    CALL_DURATION_MS "call.duration_ms" 14_400_000 "four hours; a forgotten handset must not bill for days",
    /// Longest time without authenticated media, in milliseconds.
    CALL_MEDIA_INACTIVE_MS "call.media_inactive_ms" 60_000 "covers an elevator; RTCP still arrives on hold",
    /// Longest wait for media ports, in milliseconds.
    CALL_RESERVE_MS "call.reserve_ms" 5_000 "a relay worker answers within milliseconds; one that does not must not keep a caller waiting",
    /// Longest wait for a peer whose connection was lost between our 200 and its ACK, in milliseconds.
    CALL_FLOW_RETURN_MS "call.flow_return_ms" 5_000 "a peer that is still there opens another connection within a second or two; one that crashed holds ports meanwhile",
    /// Longest wait of a BYE for a browser's connection that was lost, in milliseconds.
    CALL_FLOW_WAIT_MS "call.flow_wait_ms" 32_000 "as long as a BYE is repeated; SIP.js and JsSIP open another connection within 2 to 30 s",
    /// Pause between two looks for a browser's new connection, in milliseconds.
    CALL_FLOW_LOOK_MS "call.flow_look_ms" 1_000 "a look is a search in a table of this process; nobody notices a second of a BYE",
    /// Session refreshes refused in a row after which none follows at once.
    CALL_REFRESH_TRIES "call.refresh_tries" 8 "glare is over after one or two; a peer that refuses each would be asked in a loop",
    /// Smallest session interval accepted, in milliseconds.
    CALL_MIN_SESSION_MS "call.min_session_ms" 90_000 "RFC 4028 section 4 asks for at least 90 s",
    /// DTMF digits held for a voice agent.
    CALL_DTMF_DIGITS "call.dtmf_digits" 64 "the longest entry, a card with expiry and code, has 23",
    /// Requests of one leg that are remembered because they may be challenged.
    CALL_UNANSWERED "call.unanswered" 16 "ten keys a second, answered within a second; what is over it is not sent again",
    /// Ladder entries kept per call.
    CALL_LADDER "call.ladder" 200 "a call with hourly refreshes and a transfer has below 60",
    /// Places tried for one call: targets, their URIs and the addresses of each.
    CALL_ATTEMPTS "call.attempts" 12 "three trunks of two sites with two addresses each; a caller does not wait for more",
    /// Time for the first response to our INVITE, in milliseconds.
    CALL_RESPONSE_MS "call.response_ms" 4_000 "a live peer says 100 within 200 ms (RFC 3261 section 17.2.1); three repetitions over UDP fit",
    /// The same, at most: what a trunk may be given.
    CALL_RESPONSE_LONGEST_MS "call.response_longest_ms" 32_000 "timer B of RFC 3261 ends the transaction then",
    /// Names of dialogs given to trunks that may replace them.
    CALL_REFERRALS "call.referrals" 1_000 "five attended transfers begun each second, each good for three minutes",
    /// Longest wait for the other party's answer to a REFER that was passed on, in milliseconds.
    CALL_REFER_MS "call.refer_ms" 20_000 "the referrer gives its REFER up after 32 s (RFC 3261 section 17.1.2.2)",
    /// How long an offer waits for what the other party says to what follows from it, in
    /// milliseconds.
    CALL_CHANGE_MS "call.change_ms" 8_000 "the other side's machine answers an offer within a round trip or two; who asked waits no longer than its own timers",
    /// How long a leg may be busy before it goes to another shard, in milliseconds.
    CALL_CROSSING_MS "call.crossing_ms" 5_000 "a hold that went ahead of the REFER is over after a round trip or two",
    /// How long a REFER that was passed on is followed, and such a name is good, in milliseconds.
    CALL_REFERRAL_MS "call.referral_ms" 180_000 "the longest ringing",
    /// Longest ringing, in milliseconds.
    CALL_RING_MS "call.ring_ms" 180_000 "RFC 3261 section 13.3.1.1 has a proxy wait for three minutes",
    /// Early dialogs of one INVITE of ours.
    CALL_FORKS "call.forks" 8 "a hunt group rings six telephones",
    /// Contacts of one 3xx that are followed.
    CALL_REDIRECTS "call.redirects" 4 "a forwarding and its fallback are two",

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
    /// Largest text that the embedded reasoner answers from, in bytes.
    AGENT_KNOWLEDGE_BYTES "agent.knowledge_bytes" 65_536 "forty pages, searched in about a millisecond on a shard's thread",
    /// Longest phrase of a grammar, in bytes.
    AGENT_PHRASE_BYTES "agent.phrase_bytes" 120 "a sentence of twenty words; a whole grammar fits one frame to the helper",
    /// Largest frame between the edge and a speech helper, in bytes.
    PROVIDER_FRAME_BYTES "provider.frame_bytes" 65_536 "a pipe's buffer; two seconds of audio or the largest grammar",
    /// Frames waiting for one speech helper.
    PROVIDER_QUEUE "provider.queue" 2_048 "two seconds of twenty callers who speak at once, at 50 frames per second each",
    /// Calls that one speech helper listens to.
    PROVIDER_EARS "provider.ears" 64 "a core hears about twenty speakers at once; callers speak less than a third of the time",
    /// Texts that one speech helper is speaking.
    PROVIDER_SPEECHES "provider.speeches" 64 "equal to provider.ears",
    /// Different words in the grammars of one speech helper before it is worn out.
    PROVIDER_WORDS "provider.words" 8_192 "far above the words of all menus; its dictionary only grows",
    /// Most synthesised speech kept for the next time, in bytes.
    PROVIDER_CACHE_BYTES "provider.cache_bytes" 67_108_864 "thirty minutes of greetings and menus",
    /// Longest answer of a speech helper, in milliseconds.
    PROVIDER_REPLY_MS "provider.reply_ms" 10_000 "after this the helper is taken for dead and restarted",
    /// Most memory of one speech helper, in bytes.
    PROVIDER_HELPER_BYTES "provider.helper_bytes" 1_073_741_824 "the acoustic model and ten recognisers need about 300 MB",

    // vault
    /// Rows written in one transaction.
    VAULT_BATCH "vault.batch" 256 "amortises the fsync, a few milliseconds of work, and bounds what may follow the last head",
    /// How long records gather for one transaction; what was said never waits.
    VAULT_GATHER_MS "vault.gather_ms" 100 "at 300 calls/s a fsync for some hundred rows; what a crash loses of them is how calls went, not what was said",
    /// Audit records per source and minute of one kind; the rest is one summary record.
    VAULT_AUDIT_PER_SOURCE_MINUTE "vault.audit_per_source_minute" 6 "a scanner must not fill the log",
    /// Records waiting for the vault.
    VAULT_QUEUE "vault.queue" 4_096 "at 300 calls/s about two seconds of a stalled disk",
    /// Bytes of all records waiting for the vault.
    VAULT_QUEUE_BYTES "vault.queue_bytes" 67_108_864 "a full queue of ordinary records is far below; a queue of the largest would be 1 GB",
    /// Largest text of one record.
    VAULT_RECORD_BYTES "vault.record_bytes" 262_144 "a SIP message, a decision with every rule tried or a quality report is below 64 KB",
    /// Largest sealed chunk of a stream that is read back.
    VAULT_CHUNK_BYTES "vault.chunk_bytes" 262_144 "half a second of recording is below 8 KB; the rest is corruption",
    /// Audio waiting for the recorder in one recording, in milliseconds.
    VAULT_RECORDING_PENDING_MS "vault.recording_pending_ms" 10_000 "a stalled disk of ten seconds; both channels of 16 kHz are 640 KB",
    /// Masked spans kept for one recording.
    VAULT_MASKS "vault.masks" 64 "a pay flow masks one or two; beyond it everything is masked",
    /// Audit records after which a head is signed.
    VAULT_AUDIT_HEAD_RECORDS "vault.audit_head_records" 64 "bounds the tail that could be cut unseen under load",
    /// Longest time that an audit record waits for a signed head, in milliseconds.
    VAULT_AUDIT_HEAD_MS "vault.audit_head_ms" 10_000 "bounds the tail that could be cut unseen at rest",
    /// Sources whose audit rate is tracked at one time.
    VAULT_AUDIT_SOURCES "vault.audit_sources" 4_096 "beyond it a scanner with many addresses shares one bucket",

    /// Refused calls of one trunk and reason that are stored whole in one minute; the rest is counted.
    VAULT_REFUSED_CALLS_PER_MINUTE "vault.refused_calls_per_minute" 5 "examples enough to explain a refusal; a flood of 400 a second must not fill the store",
    /// Pairs of trunk and reason whose refused calls are counted apart.
    VAULT_REFUSED_KINDS "vault.refused_kinds" 4_096 "every trunk of one policy with one reason; about 400 KB",
    /// How long a call that is neither answered nor over waits to be stored, in milliseconds.
    VAULT_ARRIVAL_MS "vault.arrival_ms" 1_000 "a refusal is known by then; a ringing call shows in the list after a second",
    /// How long an ended call waits for the last figures of its media, in milliseconds.
    VAULT_LAST_FIGURES_MS "vault.last_figures_ms" 15_000 "a relay worker reports within milliseconds, and its session is given up after ten seconds",
    /// How long an ended call's record waits for its last figures, in milliseconds.
    VAULT_END_MS "vault.end_ms" 250 "a relay worker reports within milliseconds; until then the call shows as in progress",
    /// How long a call's signalling messages gather for one row, in milliseconds.
    VAULT_LADDER_MS "vault.ladder_ms" 1_000 "what a crash loses of a ladder; the messages of a call's answer and end do not wait",
    /// Messages of one row of a ladder.
    VAULT_LADDER_MESSAGES "vault.ladder_messages" 32 "a set-up on two legs is 12; with one more of the largest they stay below the largest record",
    /// Calls that one step of a retention sweep erases.
    VAULT_SWEEP_BATCH "vault.sweep_batch" 32 "some milliseconds of the writer's thread, far below what its queue absorbs",
    /// How often the vault looks for what has grown too old, in milliseconds.
    VAULT_SWEEP_MS "vault.sweep_ms" 3_600_000 "retention is in days; an hour late is little",

    /// API keys of one workspace, revoked ones included.
    VAULT_API_KEYS "vault.api_keys" 1_000 "one for each program of a large owner; all are compared in a few microseconds",
    /// Accounts of people with a password.
    VAULT_ACCOUNTS "vault.accounts" 16_384 "twice the browsers that stay signed in on one machine",
    /// Browser tokens that hold at one time.
    VAULT_TOKENS "vault.tokens" 16_384 "one for each browser of twice the calls of one machine",
    /// Longest time that a browser token holds, in milliseconds.
    VAULT_TOKEN_MS "vault.token_ms" 86_400_000 "a working day of a person at a page, and then the page asks anew",
    /// Most characters of the name of a key, an account or a token's bearer.
    VAULT_ACCESS_NAME "vault.access_name" 100 "what a list still shows in one line",
    /// Longest password of an account.
    VAULT_PASSWORD_BYTES "vault.password_bytes" 256 "several sentences",

    // telemetry
    /// Log lines of one event and its words in one minute; the rest is one line that counts them.
    TELEMETRY_LINES_PER_MINUTE "telemetry.lines_per_minute" 120 "two a second are more than a person reads; a flood must not fill the log's disk",
    /// Kinds of log lines that are counted apart.
    TELEMETRY_LINE_KINDS "telemetry.line_kinds" 1_024 "each event with each of its reasons and transports is below 300",

    // policy
    /// Largest policy file.
    POLICY_FILE_BYTES "policy.file_bytes" 4_194_304 "ten thousand routes",
    /// Trunks in one policy.
    POLICY_TRUNKS "policy.trunks" 4_096 "a large wholesale carrier has some hundred",
    /// Routes in one policy.
    POLICY_ROUTES "policy.routes" 16_384 "prefix routing per country and carrier",
    /// Longest number, user or pattern in a policy, in bytes.
    POLICY_PATTERN_BYTES "policy.pattern_bytes" 256 "a number has 15 digits, a user name rarely more than 64 characters",
    /// Errors and warnings that one load reports.
    POLICY_FINDINGS "policy.findings" 200 "more than a person reads before correcting the first ones",

    // load generator
    /// Most calls of one load.
    LOADGEN_CALLS "loadgen.calls" 1_000_000 "a day at 10 calls/s; more is a mistyped number",
    /// Most new calls per second.
    LOADGEN_CALLS_PER_SECOND "loadgen.calls_per_second" 2_000 "four times what one TLS connection carries; a larger load needs several machines",
    /// Most calls at one time.
    LOADGEN_CONCURRENT "loadgen.concurrent" 4_000 "two sockets each stay below half of the 20,000 files that a process may open",
    /// Most signalling connections.
    LOADGEN_CONNECTIONS "loadgen.connections" 1_024 "below transport.connections_per_source of four addresses; one connection carries some 400 calls/s",
    /// Longest time until the answer, in milliseconds.
    LOADGEN_SETUP_MS "loadgen.setup_ms" 180_000 "RFC 3261 timer C: a proxy lets no call ring for longer than three minutes",
    /// Most steps of one caller's script.
    LOADGEN_SCRIPT_STEPS "loadgen.script_steps" 1_024 "a conversation of several hundred turns",
    /// Most audio of one wav file or of one step, in milliseconds.
    LOADGEN_AUDIO_MS "loadgen.audio_ms" 1_800_000 "half an hour is 58 MB at 16 kHz",
    /// Signalling messages waiting for one call or one connection.
    LOADGEN_QUEUE "loadgen.queue" 1_024 "a second of the fastest load on one connection",
    /// Calls listed one by one in a report.
    LOADGEN_LISTED_CALLS "loadgen.listed_calls" 1_000 "a file that a person can still search; percentiles count every call",
    /// Largest scenario file, settings of the command line included.
    LOADGEN_SCENARIO_BYTES "loadgen.scenario_bytes" 1_048_576 "a hundred kinds of caller are below 50 KB",
    /// Most stages, kinds of caller, kinds of callee, and bad actors of a scenario, each.
    LOADGEN_KINDS "loadgen.kinds" 64 "more kinds than a table of a report can show",
    /// Longest run of a scenario, in milliseconds.
    LOADGEN_RUN_MS "loadgen.run_ms" 86_400_000 "a day; longer soaks are several runs",
    /// Most threads that carry media.
    LOADGEN_MEDIA_THREADS "loadgen.media_threads" 32 "a thread carries some thousand calls; loadgen.concurrent needs four",
    /// Points of a time series in a report.
    LOADGEN_SAMPLES "loadgen.samples" 1_200 "a point for each pixel of a plot; longer runs get coarser points",
    /// Most packets, calls or connections of one bad actor per second.
    LOADGEN_ACTOR_PER_SECOND "loadgen.actor_per_second" 10_000 "a flood that one thread can still send evenly",
    /// Most people registered over WSS at one time.
    LOADGEN_REGISTRATIONS "loadgen.registrations" 16_384 "a descriptor each stays below the 20,000 files that a process may open",
    /// Most attempts of one bad actor.
    LOADGEN_ATTEMPTS "loadgen.attempts" 100_000 "ten seconds of the fastest flood",
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
