//! A small far end: answers over TLS, TCP or UDP, echoes media through `webrtc-srtp`, and tells
//! what it saw.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock as _, Random as _};
use bytes::Bytes;
use rtp::{
    Compound, CryptoLine, Datagram, DtmfEvent, DtmfReceiver, Packet, Report, ReportBlock, Rtcp,
    Suite, classify,
};
use rustls_pki_types::PrivateKeyDer;
use sdp::{Direction, Keying, Local, Negotiated, Session};
use sip::{Dialog, Frame, Framer, Message, Method, Name, Opened, Request, Response, Status, Via};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::os::{OsClock, OsRandom};
use crate::srtp::{Protect, Unprotect};

/// What the far end does with an INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Answers and echoes.
    Echo,
    /// Answers, and sends a re-INVITE as soon as the ACK is there.
    EchoAndReInvite,
    /// Answers, and hangs up this long after the ACK.
    HangUp(Duration),
    /// 486.
    Busy,
    /// 403 with a Warning.
    Refuse,
    /// 180 and no more.
    Ring,
    /// Answers with a description that is none.
    Nonsense,
    /// Closes the connection.
    Close,
}

/// What the far end saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Invite {
        has_offer: bool,
    },
    Ack {
        has_answer: bool,
    },
    Bye,
    Cancel,
    /// The status of our answer to its re-INVITE.
    ReInvite(u16),
    Digit(char),
    Rtcp {
        has_goodbye: bool,
    },
}

/// The far end.
pub(super) struct Uas {
    pub(super) address: SocketAddr,
    pub(super) authority: Vec<u8>,
    seen: mpsc::Receiver<Seen>,
    task: tokio::task::AbortHandle,
}

impl Drop for Uas {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Uas {
    pub(super) async fn tls(behaviour: Behaviour) -> Self {
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let authority = key.cert.pem().into_bytes();
        let secret = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], secret)
            .unwrap();
        Self::stream(behaviour, Some(TlsAcceptor::from(Arc::new(config))), authority).await
    }

    pub(super) async fn tcp(behaviour: Behaviour) -> Self {
        Self::stream(behaviour, None, Vec::new()).await
    }

    async fn stream(behaviour: Behaviour, tls: Option<TlsAcceptor>, authority: Vec<u8>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seer, seen) = mpsc::channel(4096);
        let task = tokio::spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                let (tls, seer) = (tls.clone(), seer.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, peer, behaviour, seer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(socket).await {
                                serve(stream, peer, behaviour, seer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, authority, seen, task: task.abort_handle() }
    }

    pub(super) async fn udp(behaviour: Behaviour) -> Self {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let address = socket.local_addr().unwrap();
        let (seer, seen) = mpsc::channel(4096);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            let mut desks = BTreeMap::new();
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let desk = desks.entry(peer).or_insert_with(|| {
                    let (out, mut outbox) = mpsc::channel::<Bytes>(1024);
                    let socket = Arc::clone(&socket);
                    tokio::spawn(async move {
                        while let Some(bytes) = outbox.recv().await {
                            socket.send_to(&bytes, peer).await.unwrap();
                        }
                    });
                    Desk::new(peer, behaviour, seer.clone(), out)
                });
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                desk.receive(sip::parse::datagram(&bytes).unwrap()).await;
            }
        });
        Self { address, authority: Vec::new(), seen, task: task.abort_handle() }
    }

    /// Everything seen so far, once the calls are over.
    pub(super) fn seen(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    peer: SocketAddr,
    behaviour: Behaviour,
    seen: mpsc::Sender<Seen>,
) {
    let (mut incoming, mut outgoing) = tokio::io::split(stream);
    let (out, mut outbox) = mpsc::channel::<Bytes>(1024);
    tokio::spawn(async move {
        while let Some(bytes) = outbox.recv().await {
            if outgoing.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut desk = Desk::new(peer, behaviour, seen, out);
    let mut framer = Framer::new(Opened::ByPeer);
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = incoming.read(&mut buffer).await {
        framer.push(&buffer[..length]);
        while let Some(frame) = framer.poll_message().unwrap() {
            if let Frame::Message(bytes) = frame {
                desk.receive(sip::parse::stream(&bytes).unwrap()).await;
            }
        }
        if desk.is_closed {
            return;
        }
    }
}

/// What answers one peer.
struct Desk {
    peer: SocketAddr,
    behaviour: Behaviour,
    seen: mpsc::Sender<Seen>,
    out: mpsc::Sender<Bytes>,
    calls: BTreeMap<String, Answered>,
    is_closed: bool,
}

struct Answered {
    invite: Request,
    dialog: Option<Dialog>,
    /// Our description; the offer where the INVITE had none.
    session: Session,
    socket: Option<UdpSocket>,
    agreed: Option<Negotiated>,
    has_acted: bool,
}

impl Desk {
    fn new(
        peer: SocketAddr,
        behaviour: Behaviour,
        seen: mpsc::Sender<Seen>,
        out: mpsc::Sender<Bytes>,
    ) -> Self {
        Self { peer, behaviour, seen, out, calls: BTreeMap::new(), is_closed: false }
    }

    async fn send(&self, message: Bytes) {
        let _ = self.out.send(message).await;
    }

    async fn receive(&mut self, message: Message) {
        match message {
            Message::Request(mut request) => {
                request.stamp_source(self.peer);
                self.on_request(request).await;
            }
            Message::Response(response) => {
                let method = response.headers.cseq().unwrap().method;
                if method == Method::Invite && response.status.is_final() {
                    let _ = self.seen.try_send(Seen::ReInvite(response.status.code()));
                    let call = &self.calls[response.headers.call_id().unwrap()];
                    let number = response.headers.cseq().unwrap().number;
                    let ack = with_via(call.dialog.as_ref().unwrap().ack(number));
                    self.send(ack.to_bytes()).await;
                }
            }
        }
    }

    async fn on_request(&mut self, request: Request) {
        let call_id = request.headers.call_id().unwrap().to_owned();
        let seen = match request.method {
            Method::Invite => Some(Seen::Invite { has_offer: !request.body.is_empty() }),
            Method::Bye => Some(Seen::Bye),
            Method::Cancel => Some(Seen::Cancel),
            Method::Ack => Some(Seen::Ack { has_answer: !request.body.is_empty() }),
            _ => None,
        };
        seen.into_iter().for_each(|seen| drop(self.seen.try_send(seen)));
        match request.method {
            Method::Invite => self.on_invite(call_id, request).await,
            Method::Ack => self.on_ack(&call_id, &request).await,
            Method::Cancel => {
                self.send(Response::to(&request, Status::OK, Some("far")).to_bytes()).await;
                let invite = &self.calls[&call_id].invite;
                let gone = Response::to(invite, Status::REQUEST_TERMINATED, Some("far"));
                self.send(gone.to_bytes()).await;
            }
            _ => self.send(Response::to(&request, Status::OK, Some("far")).to_bytes()).await,
        }
    }

    async fn on_invite(&mut self, call_id: String, invite: Request) {
        self.send(Response::to(&invite, Status::TRYING, None).to_bytes()).await;
        let refusal = match self.behaviour {
            Behaviour::Busy => Some(Response::to(&invite, Status::BUSY_HERE, Some("far"))),
            Behaviour::Refuse => {
                let mut refused = Response::to(&invite, Status::FORBIDDEN, Some("far"));
                refused.headers.push_warning("callgate", "policy.plaintext_signalling");
                Some(refused)
            }
            Behaviour::Close => {
                self.is_closed = true;
                return;
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            return self.send(refusal.to_bytes()).await;
        }
        self.send(Response::to(&invite, Status::RINGING, Some("far")).to_bytes()).await;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (session, agreed) = describe(&invite, socket.local_addr().unwrap().port());
        let mut ok = Response::to(&invite, Status::OK, Some("far"))
            .with_body("application/sdp", session.to_string());
        if self.behaviour == Behaviour::Nonsense {
            ok.body = Bytes::from_static(b"v=0\r\nnonsense\r\n");
        }
        ok.headers.push(Name::Contact, "<sip:far@127.0.0.1:5061>");
        let call = Answered {
            dialog: Dialog::uas(&invite, "far").ok(),
            invite,
            session,
            socket: Some(socket),
            agreed,
            has_acted: false,
        };
        self.calls.insert(call_id, call);
        if self.behaviour != Behaviour::Ring {
            self.send(ok.to_bytes()).await;
        }
    }

    async fn on_ack(&mut self, call_id: &str, ack: &Request) {
        let Some(call) = self.calls.get_mut(call_id) else { return };
        if call.agreed.is_none() && !ack.body.is_empty() {
            let answer = Session::parse(&ack.body).unwrap();
            call.agreed = Some(sdp::accept_answer(&call.session, &answer).unwrap());
        }
        if let (Some(agreed), Some(socket)) = (&call.agreed, call.socket.take()) {
            tokio::spawn(echo(socket, agreed.clone(), self.seen.clone()));
        }
        if std::mem::replace(&mut call.has_acted, true) {
            return;
        }
        let dialog = call.dialog.as_mut().unwrap();
        match self.behaviour {
            Behaviour::EchoAndReInvite => {
                let offer = sdp::with_direction(&call.session, Direction::SendRecv);
                let mut invite = with_via(dialog.request(Method::Invite))
                    .with_body("application/sdp", offer.to_string());
                invite.headers.push(Name::Contact, "<sip:far@127.0.0.1:5061>");
                self.send(invite.to_bytes()).await;
            }
            Behaviour::HangUp(after) => {
                let bye = with_via(dialog.request(Method::Bye)).to_bytes();
                let out = self.out.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    let _ = out.send(bye).await;
                });
            }
            _ => {}
        }
    }
}

fn with_via(mut request: Request) -> Request {
    let branch = sip::ids::new_branch(9, &mut OsRandom);
    let host = sip::Host::parse("127.0.0.1").unwrap();
    request.headers.push_via(&Via::new("TLS", host, Some(5061), &branch));
    request
}

/// Our answer, or our offer where the INVITE has none.
fn describe(invite: &Request, port: u16) -> (Session, Option<Negotiated>) {
    let mut local = Local {
        session_id: 1,
        version: 1,
        address: Ipv4Addr::LOCALHOST.into(),
        rtp_port: port,
        rtcp_port: port,
        codecs: vec![sdp::Codec::g722(), sdp::Codec::pcmu()],
        telephone_event: true,
        comfort_noise: false,
        direction: Direction::SendRecv,
        rtcp_mux: true,
        ptime: 20,
        plaintext: true,
        crypto: BTreeMap::new(),
        dtls: BTreeMap::new(),
        offer_protocol: sdp::Protocol::RtpSavp,
        offer_crypto: Vec::new(),
        offer_dtls: Vec::new(),
        ice_lite: true,
    };
    let key = |tag, suite| CryptoLine::generate(tag, suite, &mut OsRandom).to_attribute();
    if invite.body.is_empty() {
        local.offer_crypto = vec![key(1, Suite::AesCm128HmacSha1_80)];
        return (sdp::offer(&local), None);
    }
    let offer = Session::parse(&invite.body).unwrap();
    let values = offer.media[0].crypto();
    if let Some(line) = CryptoLine::choose(values, &Suite::PREFERENCE).chosen {
        local.crypto.insert(0, key(line.tag, line.key.suite()));
    }
    let answer = sdp::answer(&offer, &local).unwrap();
    (answer.session, Some(answer.negotiated))
}

/// Sends every audio packet back, reports on the stream, and hears key presses.
async fn echo(socket: UdpSocket, agreed: Negotiated, seen: mpsc::Sender<Seen>) {
    let mut keys = None;
    if let Keying::Sdes { remote, local } = &agreed.keying {
        let key = |line: &str| CryptoLine::parse(line).unwrap().key;
        let protect = Protect::new(&key(local.expose())).unwrap();
        keys = Some((protect, Unprotect::new(key(remote.expose()))));
    }
    let event = agreed.telephone_event.unwrap();
    let mut digits = DtmfReceiver::new(event.clock_rate);
    let mut buffer = [0; 1500];
    let idle = Duration::from_secs(5);
    while let Ok(Ok((length, from))) =
        tokio::time::timeout(idle, socket.recv_from(&mut buffer)).await
    {
        let datagram = &buffer[..length];
        let is_rtcp = classify(datagram) == Datagram::Rtcp;
        let plain = match (&mut keys, is_rtcp) {
            (None, _) => Bytes::copy_from_slice(datagram),
            (Some((_, unprotect)), true) => unprotect.rtcp(datagram).unwrap(),
            (Some((_, unprotect)), false) => unprotect.rtp(datagram).unwrap(),
        };
        let reply = if is_rtcp {
            let compound = Compound::parse(&plain).unwrap();
            let has_goodbye = compound.packets().any(|it| matches!(it, Rtcp::Goodbye(_)));
            let _ = seen.try_send(Seen::Rtcp { has_goodbye });
            report_on(&compound)
        } else {
            let packet = Packet::parse(&plain).unwrap();
            if packet.payload_type() == event.receive_payload_type {
                let events =
                    digits.handle_packet(OsClock.now(), packet.timestamp(), packet.payload());
                for event in events {
                    if let DtmfEvent::Started { digit } = event {
                        let _ = seen.try_send(Seen::Digit(digit.to_char()));
                    }
                }
            }
            plain.to_vec()
        };
        let reply = match (&mut keys, is_rtcp) {
            (None, _) => reply.into(),
            (Some((protect, _)), true) => protect.rtcp(&reply).unwrap(),
            (Some((protect, _)), false) => protect.rtp(&reply).unwrap(),
        };
        let _ = socket.send_to(&reply, from).await;
    }
}

/// A report about whoever sent this one; it came back at once.
fn report_on(compound: &Compound<'_>) -> Vec<u8> {
    let (ssrc, sender) = compound
        .packets()
        .find_map(|it| match it {
            Rtcp::Report { ssrc, sender, .. } => Some((ssrc, sender)),
            _ => None,
        })
        .unwrap();
    let block = ReportBlock {
        ssrc,
        fraction_lost: 0,
        lost: 0,
        highest_sequence: 0,
        jitter: 0,
        last_sender_report: sender.map_or(0, |it| it.ntp.middle()),
        delay_since_last: 0,
    };
    let report = Report {
        ssrc: OsRandom.u32(),
        sender: None,
        blocks: &[block],
        cname: "far",
        goodbye: false,
    };
    let mut out = vec![0; 200];
    let length = report.write(&mut out).unwrap();
    out.truncate(length);
    out
}
