//! A browser's end of a call: an offer posted to a WHIP endpoint (RFC 9725), checks, a handshake,
//! media, and the end of it.
//!
//! Not here: trickle and ICE restarts; the offer has its one candidate, as after gathering.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock as _, Instant, Random as _};
use hyper::Method;
use sdp::{Attribute, Media as Line, Session};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::Shared;
use super::leg::{self, LegEnd};
use crate::browser::{
    Certificate, Checks, Credentials, Fingerprint, Peer, Secured, Upkeep, connect,
};
use crate::config::{Protection, Target};
use crate::engine::Media;
use crate::engine::stamp::Role;
use crate::http::{Reply, Web};
use crate::line::Far;
use crate::load::Cancelled;
use crate::os::{OsClock, OsRandom, wake_at};
use crate::report::{CallReport, Ending, millis};
use crate::scenario::CallerKind;
use crate::talk;
use crate::user_agent::{Agreed, Description, End, Keys};

/// How long hanging up may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// Of a host candidate (RFC 8445 section 5.1.2.1).
const PRIORITY: u32 = (126 << 24) | (65_535 << 8) | 255;

/// See the module.
struct Browser<'a> {
    shared: Arc<Shared>,
    kind: CallerKind,
    far: Far,
    target: &'a Target,
    token: u32,
    web: Option<Web>,
    /// Where the call is hung up.
    location: Option<String>,
    media: Option<Media>,
    /// What the script asks for, where the media threads run one.
    acts: Option<mpsc::Receiver<talk::Act>>,
    left: Arc<Notify>,
    answered: Option<Instant>,
    report: CallReport,
}

/// Places a call of this kind and follows it to its end.
pub(super) async fn call(
    shared: Arc<Shared>,
    (index, kind): (usize, CallerKind),
    report: CallReport,
    far: Far,
    target: &Target,
    mut cancelled: Cancelled,
) -> LegEnd {
    let token = report.index;
    let random = &mut shared.random(token, Role::Caller);
    let talk = kind.talk.draw(random);
    let patience = shared.scenario.limits.setup_timeout;
    let mut it = Browser {
        shared: Arc::clone(&shared),
        kind,
        far,
        target,
        token,
        web: None,
        location: None,
        media: None,
        acts: None,
        left: Arc::new(Notify::new()),
        answered: None,
        report,
    };
    let set_up = tokio::select! {
        done = timeout(patience, it.set_up()) => done.unwrap_or(Err("setup.timeout")),
        () = cancelled.wait() => Err(CANCELLED),
    };
    let end = match set_up {
        Ok(()) => End::Over(it.talk(talk, &mut cancelled).await),
        Err(CANCELLED) => End::Cancelled,
        Err(reason) => End::Failed { status: it.report.status, reason: it.why(reason) },
    };
    it.finish(index, end).await
}

/// In place of a reason.
const CANCELLED: &str = "";

impl Browser<'_> {
    /// From nothing to media that flows.
    async fn set_up(&mut self) -> Result<(), &'static str> {
        let started = OsClock.now();
        let authority = format!("{}:{}", self.target.host, self.target.port);
        let web = Web::open(&self.far, authority).await?;
        let address = self.shared.media_address().unwrap_or(web.local().ip());
        self.web = Some(web);
        let (rtp, rtcp) = leg::media_ports(address).map_err(|_| "load.no_media_port")?;
        let ports = [&rtp, &rtcp].map(|it| it.local_addr().map_or(0, |it| it.port()));
        let certificate = Certificate::generate().map_err(|error| error.code())?;
        let ours = Credentials::random(&mut OsRandom);
        let voice = &self.kind.voice;
        let mut description = Description::new(
            address,
            (ports[0], ports[1]),
            &voice.codecs,
            Protection::Dtls,
            &[],
            &mut OsRandom,
        )
        .with_ptime(voice.ptime_ms)
        .with_dtls(attributes(&ours, &certificate, SocketAddr::new(address, ports[0])));
        let offer = description.offer(&mut OsRandom).to_text();
        let reply = self.request(Method::POST, &self.target.path, Some(offer)).await?;
        self.report.status = Some(reply.status);
        self.location.clone_from(&reply.location);
        if reply.status != 201 {
            self.report.reason = reply.code();
            return Err("http.refused");
        }
        let location = self.location.clone().ok_or("http.no_location")?;
        self.report.call_id = location;
        let mut agreed = description.accept(&reply.body)?;
        let answered = OsClock.now();
        let setup = answered.since(started);
        (self.answered, self.report.setup_ms) = (Some(answered), Some(millis(setup)));
        self.shared.board.answered(true, setup);
        let peer = peer(&reply.body, agreed.negotiated.media_index, address)?;
        let socket = rtp.try_clone().and_then(UdpSocket::from_std);
        let socket = Arc::new(socket.map_err(|_| "load.no_media_port")?);
        let suites = &self.kind.voice.suites;
        let secured = connect(&socket, &ours, &certificate, suites, &peer).await;
        drop(socket);
        let Secured { send, receive, early } = secured.map_err(|error| error.code())?;
        let now = OsClock.now();
        self.report.secured_ms = Some(millis(now.since(answered)));
        agreed.keys = Some(Keys { send, receive });
        agreed.negotiated.remote = Some(peer.address);
        let checks = peer.credentials.map(|theirs| Checks::new(now, ours, theirs));
        let upkeep = Upkeep { checks, early, left: Arc::clone(&self.left) };
        self.flow(now, agreed, upkeep, (rtp, rtcp)).await
    }

    async fn flow(
        &mut self,
        now: Instant,
        agreed: Agreed,
        upkeep: Upkeep,
        sockets: (std::net::UdpSocket, std::net::UdpSocket),
    ) -> Result<(), &'static str> {
        let voice = &self.kind.voice;
        let mut terms = leg::terms(&self.shared, voice, now, Box::new(agreed))?;
        terms.upkeep = Some(Box::new(upkeep));
        let (media, acts) = leg::open(&self.shared, voice, self.token, Role::Caller, sockets).await;
        media.flow(terms).await;
        (self.media, self.acts) = (Some(media), acts);
        Ok(())
    }

    /// Until somebody has had enough; how it ended.
    async fn talk(&mut self, talk: Duration, cancelled: &mut Cancelled) -> Ending {
        let answered = self.answered.unwrap_or(OsClock.now());
        let enough = if self.kind.waits { Ending::Hold } else { Ending::Script };
        let mut keys = self.kind.keys.as_ref().map(|keys| answered + keys.after);
        let end = answered + talk;
        loop {
            let wake = keys.map_or(end, |at| at.min(end));
            tokio::select! {
                Some(act) = leg::next_act(&mut self.acts) => {
                    if act == talk::Act::Hangup {
                        return Ending::Script;
                    }
                }
                () = self.left.notified() => return Ending::FarEnd,
                () = tokio::time::sleep_until(wake_at(wake)) => {
                    if OsClock.now() >= end {
                        return enough;
                    }
                    keys = None;
                    if let (Some(keys), Some(media)) = (&self.kind.keys, &self.media) {
                        media.press(&keys.digits).await;
                    }
                }
                () = cancelled.wait() => return Ending::Cancelled,
            }
        }
    }

    async fn finish(mut self, index: usize, end: End) -> LegEnd {
        if let Some(answered) = self.answered {
            self.report.duration_ms = Some(millis(OsClock.now().since(answered)));
        }
        if let Some(media) = &self.media {
            media.release().await;
        }
        let mut hung_up = Ok(());
        if let Some(location) = self.location.take() {
            hung_up = self.hang_up(&location, &end).await;
        }
        let media = match self.media.take() {
            Some(media) => {
                let outcome = media.close().await;
                outcome.report(self.answered, &mut self.report);
                outcome
            }
            None => Default::default(),
        };
        let end = match (end, hung_up) {
            (End::Over(_), Err(reason)) => {
                End::Failed { status: self.report.status, reason: reason.to_owned() }
            }
            (end, _) => end,
        };
        end.tell(&mut self.report);
        let (token, report) = (self.token, self.report);
        LegEnd { role: Role::Caller, kind: index, token, report, media, is_planned: false }
    }

    /// The far end of a call that it has ended itself may have forgotten it.
    async fn hang_up(&mut self, location: &str, end: &End) -> Result<(), &'static str> {
        let path = path_of(location).to_owned();
        let asking = timeout(FAREWELL, self.request(Method::DELETE, &path, None));
        let reply = asking.await.unwrap_or(Err("http.timeout"))?;
        let is_gone = *end == End::Over(Ending::FarEnd) && matches!(reply.status, 404 | 410);
        let is_well = (200..300).contains(&reply.status) || is_gone;
        is_well.then_some(()).ok_or("http.no_hangup")
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        description: Option<String>,
    ) -> Result<Reply, &'static str> {
        let mut web = match self.web.take().filter(Web::is_open) {
            Some(web) => web,
            None => {
                let authority = format!("{}:{}", self.target.host, self.target.port);
                Web::open(&self.far, authority).await?
            }
        };
        let token = self.shared.token().map(|it| it.expose().as_str());
        let reply = web.request(method, path, token, description).await;
        self.web = Some(web);
        reply
    }

    /// The stable code of the far end, where it said one.
    fn why(&mut self, reason: &str) -> String {
        self.report.reason.take().unwrap_or_else(|| reason.to_owned())
    }
}

/// The path of a `Location`, which may be a whole URL.
fn path_of(location: &str) -> &str {
    let Some((_, rest)) = location.split_once("://") else { return location };
    rest.find('/').map_or("/", |at| &rest[at..])
}

/// What a browser says beyond codecs (RFC 8839, RFC 8842).
fn attributes(
    ours: &Credentials,
    certificate: &Certificate,
    address: SocketAddr,
) -> Vec<Attribute> {
    let (ip, port) = (address.ip(), address.port());
    let candidate = format!("{} 1 udp {PRIORITY} {ip} {port} typ host", OsRandom.u32());
    vec![
        Attribute::new("ice-ufrag", ours.ufrag.clone()),
        Attribute::new("ice-pwd", ours.pwd.expose().clone()),
        Attribute::new("fingerprint", certificate.fingerprint().to_string()),
        Attribute::new("setup", "actpass"),
        Attribute::new("candidate", candidate),
        Attribute::flag("end-of-candidates"),
    ]
}

/// The far end, as its answer describes it.
fn peer(answer: &[u8], line: usize, ours: IpAddr) -> Result<Peer, &'static str> {
    let session = Session::parse(answer).map_err(|_| "media.sdp_malformed")?;
    let line = session.media.get(line).ok_or("media.bad_answer")?;
    let of = |name: &str| session.attribute_of(line, name);
    let fingerprint = of("fingerprint").and_then(Fingerprint::parse);
    let credentials = match (of("ice-ufrag"), of("ice-pwd")) {
        (Some(ufrag), Some(pwd)) => {
            Some(Credentials::parse(ufrag, pwd).map_err(|_| "ice.bad_credentials")?)
        }
        _ => None,
    };
    Ok(Peer {
        address: address_of(&session, line, ours).ok_or("ice.no_candidate")?,
        credentials,
        fingerprint: fingerprint.ok_or("dtls.no_fingerprint")?,
        // RFC 8842 section 5.3: an answer says one of the two.
        is_passive: of("setup") != Some("active"),
    })
}

/// The first UDP candidate of our family, or where the line says that it receives.
fn address_of(session: &Session, line: &Line, ours: IpAddr) -> Option<SocketAddr> {
    let is_ours = |it: &SocketAddr| it.is_ipv4() == ours.is_ipv4();
    let candidate = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            [_, "1", protocol, _, ip, port, ..] if protocol.eq_ignore_ascii_case("udp") => {
                Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
            }
            _ => None,
        }
    };
    let mut candidates = line.candidates().filter_map(candidate);
    candidates.find(is_ours).or_else(|| {
        let ip = session.connection_of(line)?.host.ip()?;
        Some(SocketAddr::new(ip, line.port)).filter(is_ours)
    })
}
