//! ICE and DTLS-SRTP in the descriptions of a leg: what the peer's line says of both, and what
//! ours does. No check and no handshake is done here; both are the relay's.
//!
//! This side is always ICE-lite, so that the peer's candidates do not matter: names (mDNS), a
//! trickle that stops half-way and none at all are the same.

use std::net::{IpAddr, SocketAddr};

use base::Reason;
use media::{DtlsRole, Fingerprint, FingerprintError, Reserved, SourceIdentity};
use rtp::ice::Credentials;
use sdp::{Attribute, Media, Session};

/// What a line of the peer's says.
#[derive(Debug)]
pub(crate) struct Theirs {
    /// Its certificate.
    pub(crate) fingerprint: Fingerprint,
    /// Its credentials.
    pub(crate) credentials: Credentials,
    setup: Option<Setup>,
}

/// `a=setup` as its owner means it (RFC 8842 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    Active,
    Passive,
    Either,
}

/// Reads a line that DTLS-SRTP is to be spoken on.
///
/// # Errors
/// Why it cannot be.
pub(crate) fn read(session: &Session, line: &Media) -> Result<Theirs, Reason> {
    let fingerprint = fingerprint(session, line)?;
    let ufrag = session.attribute_of(line, "ice-ufrag").ok_or(Reason::NoIce)?;
    let pwd = session.attribute_of(line, "ice-pwd").ok_or(Reason::NoIce)?;
    // RFC 8445 section 6.1.1: two that wait to be found would wait for ever.
    if session.attribute("ice-lite").is_some() {
        return Err(Reason::NoIce);
    }
    let credentials = Credentials::parse(ufrag.trim(), pwd.trim());
    let credentials = credentials.map_err(|_| Reason::SdpMalformed)?;
    if !line.has_rtcp_mux() {
        return Err(Reason::NoRtcpMux);
    }
    let setup = match session.attribute_of(line, "setup").map(str::trim) {
        None => None,
        Some("active") => Some(Setup::Active),
        Some("passive") => Some(Setup::Passive),
        Some("actpass") => Some(Setup::Either),
        // RFC 5763 section 5 forbids `holdconn`.
        Some(_) => return Err(Reason::SdpMalformed),
    };
    Ok(Theirs { fingerprint, credentials, setup })
}

/// The first certificate's hash that proves something.
fn fingerprint(session: &Session, line: &Media) -> Result<Fingerprint, Reason> {
    let mut problem = Reason::SdpMalformed;
    for (hash, value) in session.fingerprints_of(line) {
        match Fingerprint::parse(hash, value) {
            Ok(fingerprint) => return Ok(fingerprint),
            Err(FingerprintError::Hash) => problem = Reason::WeakFingerprint,
            Err(FingerprintError::Malformed) => {}
        }
    }
    Err(problem)
}

/// Whether a line of an offer is to be answered with DTLS-SRTP: keys in it go before that, unless a
/// browser is there.
pub(crate) fn is_offered(session: &Session, line: &Media, is_browsers: bool) -> bool {
    let is_keyed_so = is_browsers || line.protocol.is_dtls() || line.crypto().next().is_none();
    line.is_open_audio() && is_keyed_so && session.attribute_of(line, "fingerprint").is_some()
}

impl Theirs {
    /// Our role where the peer offers; an association that there is goes on with `before`.
    pub(crate) fn role_to_answer(&self, before: Option<DtlsRole>) -> DtlsRole {
        match self.setup {
            Some(Setup::Active) => DtlsRole::Passive,
            Some(Setup::Passive) => DtlsRole::Active,
            // RFC 8842 section 5.3: passive lets the peer begin, which knows first that a path
            // works.
            Some(Setup::Either) | None => before.unwrap_or(DtlsRole::Passive),
        }
    }

    /// Our role where the peer answers.
    ///
    /// # Errors
    /// It does not say which it has (RFC 8842 section 5.3).
    pub(crate) const fn role_by_answer(&self) -> Result<DtlsRole, Reason> {
        match self.setup {
            Some(Setup::Active) => Ok(DtlsRole::Passive),
            Some(Setup::Passive) => Ok(DtlsRole::Active),
            Some(Setup::Either) | None => Err(Reason::SdpMalformed),
        }
    }
}

/// Who we are on a line.
pub(crate) struct Ours<'a> {
    /// The ports, with the certificate.
    pub(crate) reserved: &'a Reserved,
    /// The address that peers of its family reach them at, where it is not the local one.
    pub(crate) advertise: Option<IpAddr>,
    /// What its checks are signed with.
    pub(crate) credentials: &'a Credentials,
    /// Whose media it is.
    pub(crate) source: &'a SourceIdentity,
    /// Our role; `None` in an offer, where the peer chooses.
    pub(crate) role: Option<DtlsRole>,
}

impl Ours<'_> {
    /// The attributes of our line; `None` where no certificate was reserved.
    pub(crate) fn attributes(&self) -> Option<Vec<Attribute>> {
        let fingerprint = self.reserved.fingerprint.as_ref()?;
        let setup = match self.role {
            Some(DtlsRole::Active) => "active",
            Some(DtlsRole::Passive) => "passive",
            None => "actpass",
        };
        let Credentials { ufrag, pwd } = self.credentials;
        let mut attributes = vec![
            Attribute::new("fingerprint", fingerprint.to_string()),
            Attribute::new("setup", setup),
            Attribute::new("ice-ufrag", ufrag.as_str()),
            Attribute::new("ice-pwd", pwd.expose().as_str()),
            Attribute::new("ice-options", "ice2"), // RFC 8445 section 10
        ];
        attributes.extend(self.candidates().map(|it| Attribute::new("candidate", it)));
        attributes.push(Attribute::flag("end-of-candidates"));
        let SourceIdentity { ssrc, cname, .. } = self.source;
        let cname = String::from_utf8_lossy(cname);
        // Without it a page gets a track that belongs to no stream (RFC 9429 section 5.2.1).
        attributes.push(Attribute::new("msid", "callgate audio"));
        attributes.push(Attribute::new("ssrc", format!("{ssrc} cname:{cname}")));
        Some(attributes)
    }

    /// Where we are over UDP and then over TCP, in the family of our first address and then in the
    /// other: the peer's signalling came in the first.
    fn candidates(&self) -> impl Iterator<Item = String> {
        let Reserved { rtp, beside, ice_tcp, .. } = self.reserved;
        let hosts: Vec<SocketAddr> = [Some(*rtp), *beside].into_iter().flatten().collect();
        let at = |local: IpAddr| advertised(self.advertise, local);
        let udp = hosts.iter().map(|host| (at(host.ip()), host.port()));
        let listener = |host: &SocketAddr| {
            let of = |it: &&SocketAddr| is_for(it.ip(), host.ip());
            let listener = ice_tcp.iter().find(of)?;
            let local = Some(listener.ip()).filter(|it| !it.is_unspecified());
            Some((at(local.unwrap_or(host.ip())), listener.port()))
        };
        let tcp: Vec<_> = hosts.iter().filter_map(listener).collect();
        let udp: Vec<_> = udp.collect();
        // RFC 6544 section 4.2: 4 is the preference of passive ones among hosts, and every way over
        // TCP comes after all over UDP.
        let each = [("UDP", 126, 0xffff, "", udp), ("TCP", 90, 0x9fff, " tcptype passive", tcp)];
        let ways = each.into_iter().flat_map(|(transport, kind, most, more, at)| {
            let falling = (0..=most).rev();
            at.into_iter().zip(falling).map(move |it| (transport, kind, more, it))
        });
        (1..).zip(ways).map(|(foundation, (transport, kind, more, ((address, port), local)))| {
            candidate(foundation, transport, kind, local, address, port) + more
        })
    }
}

/// What peers are told in place of a local address: what is advertised, in its family.
pub(crate) fn advertised(advertise: Option<IpAddr>, local: IpAddr) -> IpAddr {
    advertise.filter(|it| it.is_ipv4() == local.is_ipv4()).unwrap_or(local)
}

/// Whether what is listened at is of use to somebody whose media goes to `host`.
fn is_for(listener: IpAddr, host: IpAddr) -> bool {
    listener.is_ipv4() == host.is_ipv4()
        && (listener.is_unspecified() || listener.is_loopback() == host.is_loopback())
}

/// A browser's address and that of the other family, out of all that there are for browsers'
/// media, where it reached us at `local`.
pub(crate) fn addresses(local: IpAddr, all: &[IpAddr]) -> (Option<IpAddr>, Option<IpAddr>) {
    let mine = || all.iter().copied().filter(|it| it.is_ipv4() == local.is_ipv4());
    let bind = mine().find(|it| *it == local).or(mine().next()).unwrap_or(local);
    // Nobody who comes from elsewhere reaches the loopback.
    let is_beside =
        |it: &&IpAddr| it.is_ipv4() != bind.is_ipv4() && it.is_loopback() == bind.is_loopback();
    (Some(bind), all.iter().find(is_beside).copied())
}

/// A host candidate (RFC 8839 section 5.1), with its priority by RFC 8445 section 5.1.2.1.
fn candidate(
    foundation: u8,
    transport: &str,
    kind: u32,
    local: u32,
    address: IpAddr,
    port: u16,
) -> String {
    const RTP: u32 = 1;
    let priority = (kind << 24) | (local << 8) | (256 - RTP);
    format!("{foundation} {RTP} {transport} {priority} {address} {port} typ host")
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::SeededRandom;

    fn session(line: &str, attributes: &str) -> Session {
        let text = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{line}m=audio 9 \
             UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:111 opus/48000/2\r\n{attributes}"
        );
        Session::parse(text.as_bytes()).unwrap()
    }

    fn sha256() -> String {
        format!("a=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":"))
    }

    const ICE: &str = "a=ice-ufrag:aB3/\r\na=ice-pwd:0123456789abcdefghijkl\r\n";

    fn problem(line: &str, attributes: &str) -> Option<Reason> {
        let session = session(line, attributes);
        read(&session, &session.media[0]).err()
    }

    #[test]
    fn what_stands_in_the_session_counts_for_the_line() {
        let of_session = format!("{}a=setup:active\r\n{ICE}", sha256());
        let session = session(&of_session, "a=rtcp-mux\r\n");
        let theirs = read(&session, &session.media[0]).unwrap();
        assert_eq!(theirs.credentials.ufrag, "aB3/");
        assert_eq!(theirs.role_to_answer(None), DtlsRole::Passive);
        assert_eq!(theirs.role_by_answer(), Ok(DtlsRole::Passive));
    }

    #[test]
    fn the_peers_setup_decides_our_role_and_else_we_keep_ours() {
        let with = |setup: &str| {
            let session = session("", &format!("{}{ICE}a=rtcp-mux\r\n{setup}", sha256()));
            read(&session, &session.media[0])
        };
        let passive = with("a=setup:passive\r\n").unwrap();
        assert_eq!(passive.role_to_answer(Some(DtlsRole::Passive)), DtlsRole::Active);
        for either in ["a=setup:actpass\r\n", ""] {
            let either = with(either).unwrap();
            assert_eq!(either.role_to_answer(None), DtlsRole::Passive);
            assert_eq!(either.role_to_answer(Some(DtlsRole::Active)), DtlsRole::Active);
            assert_eq!(either.role_by_answer(), Err(Reason::SdpMalformed));
        }
        assert_eq!(with("a=setup:holdconn\r\n").err(), Some(Reason::SdpMalformed));
    }

    #[test]
    fn a_line_that_proves_nothing_or_cannot_be_found_is_refused_with_its_reason() {
        let mux = "a=rtcp-mux\r\n";
        let sha1 = format!("a=fingerprint:sha-1 {}\r\n", ["AB"; 20].join(":"));
        assert_eq!(problem("", &format!("{sha1}{ICE}{mux}")), Some(Reason::WeakFingerprint));
        let short = "a=fingerprint:sha-256 AB:CD\r\n";
        assert_eq!(problem("", &format!("{short}{ICE}{mux}")), Some(Reason::SdpMalformed));
        assert_eq!(problem("", &format!("{}{mux}", sha256())), Some(Reason::NoIce));
        assert_eq!(problem("", &format!("{}{ICE}", sha256())), Some(Reason::NoRtcpMux));
        let lite = problem("a=ice-lite\r\n", &format!("{}{ICE}{mux}", sha256()));
        assert_eq!(lite, Some(Reason::NoIce));
        let weak_pwd = "a=ice-ufrag:aB3/\r\na=ice-pwd:short\r\n";
        let weak_pwd = problem("", &format!("{}{weak_pwd}{mux}", sha256()));
        assert_eq!(weak_pwd, Some(Reason::SdpMalformed));
        // One good hash is enough.
        assert_eq!(problem("", &format!("{sha1}{}{ICE}{mux}", sha256())), None);
    }

    #[test]
    fn our_candidates_are_the_advertised_address_over_udp_and_then_tcp() {
        let mut random = SeededRandom::new(5);
        let fingerprint = Fingerprint::new(media::FingerprintHash::Sha256, vec![7; 32]);
        let reserved = Reserved {
            rtp: "10.0.0.5:20000".parse().unwrap(),
            rtcp: None,
            beside: None,
            ice_tcp: vec!["10.0.0.5:9443".parse().unwrap()],
            fingerprint,
        };
        let (credentials, source) =
            (Credentials::random(&mut random), SourceIdentity::random(&mut random));
        let ours = Ours {
            reserved: &reserved,
            advertise: Some([203, 0, 113, 5].into()),
            credentials: &credentials,
            source: &source,
            role: None,
        };
        let candidates = |reserved: &Reserved| {
            let attributes = Ours { reserved, ..ours }.attributes().unwrap();
            let found = attributes.into_iter().filter(|it| it.name == "candidate");
            found.filter_map(|it| it.value).collect::<Vec<_>>()
        };
        let first = [
            "1 1 UDP 2130706431 203.0.113.5 20000 typ host",
            "2 1 TCP 1520435199 203.0.113.5 9443 typ host tcptype passive",
        ];
        assert_eq!(candidates(&reserved), first);
        // Of the other family the local address counts; what listens on the loopback is of no use.
        let tcp = ["[::1]:9443", "0.0.0.0:9444", "[::]:9445"].map(|it| it.parse().unwrap());
        let beside = Some("[2001:db8::5]:20000".parse().unwrap());
        let both = Reserved { beside, ice_tcp: tcp.into(), ..reserved.clone() };
        let ways = [
            first[0],
            "2 1 UDP 2130706175 2001:db8::5 20000 typ host",
            "3 1 TCP 1520435199 203.0.113.5 9444 typ host tcptype passive",
            "4 1 TCP 1520434943 2001:db8::5 9445 typ host tcptype passive",
        ];
        assert_eq!(candidates(&both), ways);
        let bare = Reserved { fingerprint: None, ..reserved.clone() };
        assert!(Ours { reserved: &bare, ..ours }.attributes().is_none());
    }

    #[test]
    fn a_browser_gets_the_address_that_it_came_to_and_one_of_the_other_family() {
        let [v4, other, v6, home, home6] =
            ["203.0.113.5", "203.0.113.6", "2001:db8::5", "127.0.0.1", "::1"]
                .map(|it| it.parse::<IpAddr>().unwrap());
        assert_eq!(addresses(v4, &[]), (Some(v4), None));
        assert_eq!(addresses(v4, &[other, v4, v6]), (Some(v4), Some(v6)));
        assert_eq!(addresses(v6, &[other, v4, v6]), (Some(v6), Some(other)));
        assert_eq!(addresses(v6, &[v4]), (Some(v6), Some(v4)));
        // It came to a proxy's side, and media is elsewhere.
        assert_eq!(addresses("10.0.0.5".parse().unwrap(), &[v4, v6]), (Some(v4), Some(v6)));
        assert_eq!(addresses(v4, &[v4, home6]), (Some(v4), None));
        assert_eq!(addresses(home, &[v4, home, v6, home6]), (Some(home), Some(home6)));
    }
}
