//! Every RFC that is cited is one that we use: a slip of a digit cites another document.

use super::scan::line_of;
use super::{none, tree};

/// The documents that the code obeys or mentions. Look the title up before adding a row.
const RFCS: &[(u32, &str)] = &[
    (1034, "Domain Names: Concepts and Facilities"),
    (1035, "Domain Names: Implementation and Specification"),
    (2046, "Multipurpose Internet Mail Extensions Part Two: Media Types"),
    (2069, "An Extension to HTTP: Digest Access Authentication"),
    (2104, "HMAC: Keyed-Hashing for Message Authentication"),
    (2308, "Negative Caching of DNS Queries"),
    (2543, "SIP, the first version"),
    (2606, "Reserved Top Level DNS Names"),
    (2617, "HTTP Authentication: Basic and Digest Access Authentication"),
    (2782, "A DNS RR for specifying the location of services (DNS SRV)"),
    (3246, "An Expedited Forwarding PHB"),
    (3261, "SIP: Session Initiation Protocol"),
    (3262, "Reliability of Provisional Responses in SIP"),
    (3263, "SIP: Locating SIP Servers"),
    (3264, "An Offer/Answer Model with SDP"),
    (3311, "The SIP UPDATE Method"),
    (3323, "A Privacy Mechanism for SIP"),
    (3325, "Private Extensions to SIP for Asserted Identity within Trusted Networks"),
    (3326, "The Reason Header Field for SIP"),
    (3339, "Date and Time on the Internet: Timestamps"),
    (3389, "RTP Payload for Comfort Noise"),
    (3398, "ISUP to SIP Mapping"),
    (3420, "Internet Media Type message/sipfrag"),
    (3428, "SIP Extension for Instant Messaging"),
    (3515, "The SIP Refer Method"),
    (3542, "Advanced Sockets Application Program Interface (API) for IPv6"),
    (3548, "The Base16, Base32, and Base64 Data Encodings (as RFC 4568 cites it)"),
    (3550, "RTP: A Transport Protocol for Real-Time Applications"),
    (3551, "RTP Profile for Audio and Video Conferences with Minimal Control"),
    (3581, "An Extension to SIP for Symmetric Response Routing"),
    (3605, "RTCP attribute in SDP"),
    (3711, "The Secure Real-time Transport Protocol"),
    (3891, "The SIP Replaces Header"),
    (3903, "SIP Extension for Event State Publication"),
    (3952, "RTP Payload Format for iLBC Speech"),
    (3966, "The tel URI for Telephone Numbers"),
    (4028, "Session Timers in SIP"),
    (4231, "Test Vectors for HMAC-SHA-224, HMAC-SHA-256 and others"),
    (4320, "Actions Addressing Issues with the SIP Non-INVITE Transaction"),
    (4475, "SIP Torture Test Messages"),
    (4488, "Suppression of SIP REFER Method Implicit Subscription"),
    (4567, "Key Management Extensions for SDP and RTSP"),
    (4568, "SDP Security Descriptions for Media Streams"),
    (4571, "Framing RTP and RTCP Packets over Connection-Oriented Transport"),
    (4585, "Extended RTP Profile for RTCP-Based Feedback"),
    (4594, "Configuration Guidelines for DiffServ Service Classes"),
    (4648, "The Base16, Base32, and Base64 Data Encodings"),
    (4730, "A SIP Event Package for Key Press Stimulus"),
    (4733, "RTP Payload for DTMF Digits, Telephony Tones, and Telephony Signals"),
    (4855, "Media Type Registration of RTP Payload Formats"),
    (4856, "Media Type Registration of Payload Formats in the RTP Profile for Audio"),
    (4867, "RTP Payload Format and File Storage Format for AMR and AMR-WB"),
    (5031, "A URN for Emergency and Other Well-Known Services"),
    (5124, "Extended Secure RTP Profile for RTCP-Based Feedback"),
    (5246, "The Transport Layer Security (TLS) Protocol Version 1.2"),
    (5288, "AES Galois Counter Mode (GCM) Cipher Suites for TLS"),
    (5452, "Measures for Making DNS More Resilient against Forged Answers"),
    (5506, "Support for Reduced-Size RTCP"),
    (5574, "RTP Payload Format for the Speex Codec"),
    (5589, "SIP Call Control: Transfer"),
    (5621, "Message Body Handling in SIP"),
    (5626, "Managing Client-Initiated Connections in SIP"),
    (5627, "Obtaining and Using Globally Routable User Agent URIs (GRUUs) in SIP"),
    (5761, "Multiplexing RTP Data and Control Packets on a Single Port"),
    (5763, "Framework for Establishing a SRTP Security Context Using DTLS"),
    (5764, "DTLS Extension to Establish Keys for SRTP"),
    (5769, "Test Vectors for STUN"),
    (5888, "The SDP Grouping Framework"),
    (5922, "Domain Certificates in SIP"),
    (5923, "Connection Reuse in the Session Initiation Protocol"),
    (6026, "Correct Transaction Handling for 2xx Responses to SIP INVITE Requests"),
    (6086, "SIP INFO Method and Package Framework"),
    (6141, "Re-INVITE and Target-Refresh Request Handling in SIP"),
    (6188, "The Use of AES-192 and AES-256 in Secure RTP"),
    (6337, "SIP Usage of the Offer/Answer Model"),
    (6347, "Datagram Transport Layer Security Version 1.2"),
    (6432, "Carrying Q.850 Codes in Reason Header Fields in SIP Responses"),
    (6454, "The Web Origin Concept"),
    (6455, "The WebSocket Protocol"),
    (6464, "A RTP Header Extension for Client-to-Mixer Audio Level Indication"),
    (6544, "TCP Candidates with Interactive Connectivity Establishment (ICE)"),
    (6665, "SIP-Specific Event Notification"),
    (6716, "Definition of the Opus Audio Codec"),
    (6749, "The OAuth 2.0 Authorization Framework"),
    (6750, "The OAuth 2.0 Authorization Framework: Bearer Token Usage"),
    (6761, "Special-Use Domain Names"),
    (6891, "Extension Mechanisms for DNS (EDNS(0))"),
    (7022, "Guidelines for Choosing RTCP Canonical Names"),
    (7064, "URI Scheme for STUN"),
    (7065, "TURN Uniform Resource Identifiers"),
    (7118, "The WebSocket Protocol as a Transport for SIP"),
    (7160, "Support for Multiple Clock Rates in an RTP Session"),
    (7261, "Offer/Answer Considerations for G723 Annex A and G729 Annex B"),
    (7301, "TLS Application-Layer Protocol Negotiation"),
    (7587, "RTP Payload Format for the Opus Speech and Audio Codec"),
    (7615, "HTTP Authentication-Info and Proxy-Authentication-Info"),
    (7616, "HTTP Digest Access Authentication"),
    (7675, "STUN Usage for Consent Freshness"),
    (7714, "AES-GCM Authenticated Encryption in SRTP"),
    (7845, "Ogg Encapsulation for the Opus Audio Codec"),
    (7905, "ChaCha20-Poly1305 Cipher Suites for TLS"),
    (7983, "Multiplexing Scheme Updates for SRTP Extension for DTLS"),
    (8122, "Connection-Oriented Media Transport over TLS in SDP"),
    (8197, "A SIP Response Code for Unwanted Calls"),
    (8285, "A General Mechanism for RTP Header Extensions"),
    (8305, "Happy Eyeballs Version 2"),
    (8422, "Elliptic Curve Cryptography Cipher Suites for TLS 1.2 and Earlier"),
    (8445, "Interactive Connectivity Establishment (ICE)"),
    (8446, "The Transport Layer Security (TLS) Protocol Version 1.3"),
    (8489, "Session Traversal Utilities for NAT (STUN)"),
    (8555, "Automatic Certificate Management Environment (ACME)"),
    (8643, "An Opportunistic Approach for SRTP"),
    (8688, "A SIP Response Code for Rejected Calls"),
    (8760, "The SIP Digest Access Authentication Scheme"),
    (8767, "Serving Stale Data to Improve DNS Resiliency"),
    (8839, "SDP Offer/Answer Procedures for ICE"),
    (8840, "A SIP Usage for Incremental Provisioning of Candidates (Trickle ICE)"),
    (8842, "SDP Offer/Answer Considerations for DTLS and TLS"),
    (8858, "Indicating Exclusive Support of RTP and RTCP Multiplexing Using SDP"),
    (8859, "A Framework for SDP Attributes When Multiplexing"),
    (8866, "SDP: Session Description Protocol"),
    (9110, "HTTP Semantics"),
    (9112, "HTTP/1.1: message syntax and connections"),
    (9143, "Negotiating Media Multiplexing Using SDP"),
    (9147, "The DTLS Protocol Version 1.3"),
    (9429, "JavaScript Session Establishment Protocol"),
    (9457, "Problem Details for HTTP APIs"),
    (9562, "Universally Unique IDentifiers (UUIDs)"),
    (9725, "WebRTC-HTTP Ingestion Protocol (WHIP)"),
];

/// The numbers cited in `text`, with their places; one that cannot be read is 0.
fn citations(text: &str) -> impl Iterator<Item = (usize, u32)> + '_ {
    text.match_indices("RFC").filter_map(|(at, word)| {
        let rest = text[at + word.len()..].trim_start_matches('s');
        let rest = rest.trim_start_matches([' ', '-', '_', '\u{a0}']);
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        (!digits.is_empty()).then(|| (at, digits.parse().unwrap_or(0)))
    })
}

#[test]
fn cited_rfcs_are_the_ones_we_use() {
    let mut found = Vec::new();
    for path in tree::tracked() {
        let Some(text) = tree::text(&path) else { continue };
        for (at, number) in citations(&text) {
            if RFCS.iter().all(|(known, _)| *known != number) {
                found.push(format!("{path}:{}: RFC {number}", line_of(&text, at)));
            }
        }
    }
    none(&found, "Mistyped? If not, add number and title to RFCS in src/sim/tidy/citations.rs:");
}

#[test]
fn the_list_is_in_order_and_names_each_once() {
    assert!(RFCS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(RFCS.iter().all(|(_, title)| title.len() > 10));
}

#[test]
fn a_citation_is_found_however_it_is_written() {
    let text =
        concat!("RF", "C 3261, RF", "C-3550; RF", "C8866 RF", "Cs 4028 and others, RF", "C x");
    assert_eq!(
        citations(text).map(|(_, number)| number).collect::<Vec<_>>(),
        [3261, 3550, 8866, 4028]
    );
}
