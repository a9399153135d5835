//! A fake in place of the front door and the calls: it answers by the name that is called, and
//! remembers what it was told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base::{Event, Reason};
use bytes::Bytes;
use sip::{FlowId, Message, Method, Name, ParseFailure, Request, Response, Status};
use tokio::sync::Notify;
use tokio::time::timeout;
use transport::{Flow, HandedOn, Inlet, Transport, TransportHandle};

use crate::support::PATIENCE;

/// What a browser offers.
pub(crate) const OFFER: &str = "v=0\r\no=- 4611 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    a=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\n\
    a=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:brow\r\na=ice-pwd:browserbrowserbrowser00\r\n\
    a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:\
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
    a=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
    a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:0 PCMU/8000\r\n";

/// What the edge answers; `ufrag` and version change with a restart.
pub(crate) fn answer(ufrag: &str, version: u32, direction: &str) -> String {
    format!(
        "v=0\r\no=callgate 77 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         a=ice-lite\r\na=group:BUNDLE 0\r\nm=audio 10000 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:edgeedgeedgeedgeedgeedge\r\n\
         a=fingerprint:sha-256 FF:EE:DD:CC:BB:AA:99:88:77:66:55:44:33:22:11:00:\
         FF:EE:DD:CC:BB:AA:99:88:77:66:55:44:33:22:11:00\r\n\
         a=setup:passive\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
         a=candidate:1 1 udp 2130706431 127.0.0.1 10000 typ host\r\na=end-of-candidates\r\n\
         a={direction}\r\n"
    )
}

#[derive(Default)]
pub(crate) struct Calls {
    handle: OnceLock<TransportHandle>,
    seen: Mutex<VecDeque<(Arc<Flow>, Message)>>,
    pub(crate) events: Mutex<Vec<Event>>,
    closed: Mutex<Vec<FlowId>>,
    left: Mutex<Vec<FlowId>>,
    changed: Notify,
}

impl Calls {
    pub(crate) fn connect(&self, handle: TransportHandle) {
        self.handle.set(handle).ok().unwrap();
    }

    pub(crate) fn send(&self, flow: FlowId, message: impl Into<Message>) {
        self.handle.get().unwrap().send(flow, message.into().to_bytes()).unwrap();
    }

    /// The next message that browsers sent.
    pub(crate) async fn next(&self) -> (Arc<Flow>, Message) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if let Some(seen) = self.seen.lock().unwrap().pop_front() {
                    return seen;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("a message")
    }

    /// The next request, of this method; ACKs are left out.
    pub(crate) async fn request(&self, method: &Method) -> (Arc<Flow>, Request) {
        loop {
            match self.next().await {
                (_, Message::Request(request)) if request.method == Method::Ack => {}
                (flow, Message::Request(request)) => {
                    assert_eq!(&request.method, method);
                    return (flow, request);
                }
                (_, Message::Response(response)) => panic!("{response:?}"),
            }
        }
    }

    pub(crate) async fn response(&self) -> Response {
        match self.next().await {
            (_, Message::Response(response)) => response,
            (_, other) => panic!("{other:?}"),
        }
    }

    pub(crate) async fn until_closed(&self, flow: FlowId) {
        let waiting = async {
            while !self.closed.lock().unwrap().contains(&flow) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("the flow to be closed");
    }

    /// Whether whoever was at a flow has said that it is gone for good.
    pub(crate) fn has_left(&self, flow: FlowId) -> bool {
        self.left.lock().unwrap().contains(&flow)
    }

    pub(crate) fn has_heard_nothing(&self) -> bool {
        self.seen.lock().unwrap().is_empty()
    }

    /// Answers as whoever is called would.
    fn play(&self, flow: &Flow, request: &Request) {
        let called = request.uri.user().unwrap_or_default();
        let is_within = request.headers.to_tag().is_some();
        let tag = Some("00-edgeedge00000000");
        let response = |status| Response::to(request, status, tag);
        let refused = |reason: Reason| {
            let mut it = response(Status::of(reason));
            it.headers.push_warning("callgate", reason.code());
            it
        };
        let offer = String::from_utf8_lossy(&request.body);
        let answered = |ufrag, version| {
            let sends = offer.contains("a=sendonly");
            let direction = if sends { "recvonly" } else { "sendrecv" };
            let mut it = response(Status::OK);
            it.headers.push(Name::Contact, format!("<sip:edge@127.0.0.1;call={}>", flow.id.0));
            it.with_body("application/sdp", answer(ufrag, version, direction))
        };
        let answer = match (&request.method, is_within) {
            (Method::Invite, true) if offer.contains("a=ice-ufrag:refused") => {
                refused(Reason::RequestPending)
            }
            (Method::Invite, true) => answered("edge2", 2),
            (Method::Invite, false) => match called {
                "silent" => response(Status::RINGING),
                "busy" => refused(Reason::Busy),
                "nowhere" => refused(Reason::NoRoute),
                "codecs" => refused(Reason::NoCommonCodec),
                "forbidden" => refused(Reason::RefusedByRoute),
                "plain" => response(Status::NOT_FOUND),
                "full" => {
                    let mut it = refused(Reason::TrunkCallLimit);
                    it.headers.set_retry_after(7);
                    it
                }
                "mute" => {
                    let mut it = response(Status::OK);
                    it.headers.push(Name::Contact, "<sip:edge@127.0.0.1>");
                    it
                }
                "fault" => panic!("the test said so"),
                _ => answered("edge1", 1),
            },
            (Method::Cancel, _) => {
                self.send(flow.id, response(Status::OK));
                let mut invite = request.clone();
                invite.method = Method::Invite;
                let number = request.headers.cseq().unwrap().number;
                invite.headers.set(Name::CSeq, format!("{number} INVITE"));
                Response::to(&invite, Status::REQUEST_TERMINATED, tag)
            }
            (Method::Ack, _) => return,
            _ => response(Status::OK),
        };
        self.send(flow.id, answer);
    }
}

impl Inlet for Calls {
    fn admits(&self, _source: SocketAddr, _local: SocketAddr, _transport: Transport) -> bool {
        true
    }
    fn message(&self, flow: &Arc<Flow>, message: Bytes) -> Option<HandedOn> {
        let message = sip::parse::stream(&message).expect("a whole message");
        if let Message::Request(request) = &message {
            self.play(flow, request);
        }
        self.seen.lock().unwrap().push_back((Arc::clone(flow), message));
        self.changed.notify_one();
        None
    }
    fn malformed(&self, _flow: &Arc<Flow>, _failure: &ParseFailure) -> Option<Bytes> {
        None
    }
    fn closed(&self, flow: FlowId) {
        self.closed.lock().unwrap().push(flow);
    }
    fn left(&self, flow: FlowId) {
        assert!(!self.closed.lock().unwrap().contains(&flow), "it is told before");
        self.left.lock().unwrap().push(flow);
    }
    fn event(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}
