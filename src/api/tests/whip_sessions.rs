//! What becomes of a WHIP session once it stands.

use std::sync::Arc;

use sip::{FlowId, Message, Method, Name, NameAddr, Request, Status, Uri, Via};
use transport::Flow;

use crate::calls::{OFFER, answer};
use crate::support::{Edge, Reply};

const KEY: &str = "Authorization: Bearer key-write";
const FRAGMENT: &str = "Content-Type: application/trickle-ice-sdpfrag";

/// A session that stands.
struct Standing {
    edge: Edge,
    location: String,
    tag: String,
    flow: Arc<Flow>,
    invite: Request,
}

impl Standing {
    async fn open() -> Self {
        let edge = Edge::start().await;
        let reply =
            edge.ask("POST", "/whip/agent", &[KEY, "Content-Type: application/sdp"], OFFER).await;
        assert_eq!(reply.status, 201);
        let location = reply.field("location").unwrap().to_owned();
        let tag = reply.field("etag").unwrap().to_owned();
        let (flow, invite) = edge.calls.request(&Method::Invite).await;
        let ack = edge.calls.next().await.1;
        assert!(matches!(ack, Message::Request(it) if it.method == Method::Ack));
        Self { edge, location, tag, flow, invite }
    }

    async fn patch(&self, condition: &[&str], body: &str) -> Reply {
        let fields = [&[KEY, FRAGMENT][..], condition].concat();
        self.edge.ask("PATCH", &self.location, &fields, body).await
    }

    /// A request of the calls within the dialog.
    fn asks(&self, method: Method, cseq: u32) -> Request {
        let contact = self.invite.headers.contact().unwrap().uri;
        let mut request = Request::new(method, contact);
        let host = sip::Host::parse("127.0.0.1").unwrap();
        let branch = format!("z9hG4bK00-{cseq:024x}");
        request.headers.push_via(&Via::new("WSS", host, None, &branch));
        request.headers.push(Name::MaxForwards, "70");
        let to = NameAddr::new(Uri::parse("sip:agent@edge.example").unwrap());
        let from = to.with_param("tag", Some("00-edgeedge00000000"));
        request.headers.push(Name::From, from.to_string());
        request.headers.push(Name::To, self.invite.headers.text(Name::From).unwrap());
        request.headers.push(Name::CallId, self.invite.headers.call_id().unwrap());
        request.headers.push(Name::CSeq, format!("{cseq} {}", request.method));
        request.headers.push(Name::Contact, "<sip:edge@127.0.0.1>");
        request
    }

    async fn answered(&self, request: Request) -> sip::Response {
        self.edge.calls.send(self.flow.id, request);
        self.edge.calls.response().await
    }

    fn id(&self) -> FlowId {
        self.flow.id
    }
}

fn fragment(ufrag: &str, password: &str) -> String {
    format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
         a=candidate:1 1 udp 1 192.0.2.7 5000 typ host\r\na=end-of-candidates\r\n"
    )
}

#[tokio::test]
async fn candidates_are_taken_for_the_session_that_if_match_names() {
    let standing = Standing::open().await;
    let candidates = fragment("brow", "browserbrowserbrowser00");
    let named = format!("If-Match: {}", standing.tag);
    let reply = standing.patch(&[&named], &candidates).await;
    assert_eq!((reply.status, &*reply.body), (204, ""));
    let reply = standing.patch(&[], &candidates).await;
    assert_eq!((reply.status, &*reply.code()), (428, "whip.condition_required"));
    let reply = standing.patch(&["If-Match: \"other\""], &candidates).await;
    assert_eq!((reply.status, &*reply.code()), (412, "whip.other_session"));
    let reply = standing.patch(&[&named], &fragment("else", "elseelseelseelseelseelse")).await;
    assert_eq!((reply.status, &*reply.code()), (422, "whip.other_credentials"));
    let reply = standing.patch(&[&named], "a=ice-ufrag:brow\r\n").await;
    assert_eq!((reply.status, &*reply.code()), (400, "whip.malformed"));
    let wrong = [KEY, &named, "Content-Type: application/sdp"];
    let reply = standing.edge.ask("PATCH", &standing.location, &wrong, &candidates).await;
    assert_eq!(reply.status, 415);
    let large = candidates + &"a=x\r\n".repeat(8_000);
    assert_eq!(standing.patch(&[&named], &large).await.status, 413);
}

#[tokio::test]
async fn a_restart_offers_the_new_credentials_and_answers_with_ours() {
    let standing = Standing::open().await;
    let restart = fragment("new1", "newnewnewnewnewnewnewnew");
    let reply = standing.patch(&["If-Match: *"], &restart).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.field("content-type"), Some("application/trickle-ice-sdpfrag"));
    for line in ["a=ice-ufrag:edge2", "a=ice-lite", "a=mid:0", "a=candidate:1 ", "m=audio 9 "] {
        assert!(reply.body.contains(line), "{line}: {}", reply.body);
    }
    let tag = reply.field("etag").unwrap().to_owned();
    assert_ne!(tag, standing.tag);
    let (_, invite) = standing.edge.calls.request(&Method::Invite).await;
    let offer = String::from_utf8_lossy(&invite.body).into_owned();
    assert!(offer.contains("a=ice-ufrag:new1") && !offer.contains("a=ice-ufrag:brow"));
    assert!(offer.contains("o=- 4611 3 IN"), "{offer}");
    let (_, ack) = standing.edge.calls.next().await;
    assert!(matches!(ack, Message::Request(it) if it.method == Method::Ack));
    let old = format!("If-Match: {}", standing.tag);
    assert_eq!(standing.patch(&[&old], &restart).await.status, 412);
    let new = format!("If-Match: {tag}");
    assert_eq!(standing.patch(&[&new], &restart).await.status, 204);
    assert_eq!(standing.patch(&["If-Match: *"], &restart).await.status, 204, "nothing is new");
}

#[tokio::test]
async fn a_restart_that_the_calls_refuse_leaves_the_session_as_it_was() {
    let standing = Standing::open().await;
    let restart = fragment("refused", "newnewnewnewnewnewnewnew");
    let reply = standing.patch(&["If-Match: *"], &restart).await;
    assert_eq!((reply.status, &*reply.code()), (409, "sip.request_pending"));
    let named = format!("If-Match: {}", standing.tag);
    let candidates = fragment("brow", "browserbrowserbrowser00");
    assert_eq!(standing.patch(&[&named], &candidates).await.status, 204);
}

#[tokio::test]
async fn delete_hangs_up_and_the_session_is_gone() {
    let standing = Standing::open().await;
    let edge = &standing.edge;
    let reply = edge.ask("DELETE", &standing.location, &[KEY], "").await;
    assert_eq!(reply.status, 200);
    let (_, bye) = edge.calls.request(&Method::Bye).await;
    assert_eq!(bye.headers.call_id(), standing.invite.headers.call_id());
    edge.calls.until_closed(standing.id()).await;
    let reply = edge.ask("DELETE", &standing.location, &[KEY], "").await;
    assert_eq!((reply.status, &*reply.code()), (404, "whip.no_session"));
    let gone = standing.patch(&["If-Match: *"], &fragment("n", "n")).await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn a_session_is_its_owners_alone() {
    let standing = Standing::open().await;
    let edge = &standing.edge;
    edge.add_token("tok-1", |_| {});
    let other = ["Authorization: Bearer tok-1"];
    let reply = edge.ask("DELETE", &standing.location, &other, "").await;
    assert_eq!((reply.status, &*reply.code()), (403, "whip.foreign_session"));
    assert_eq!(edge.ask("DELETE", &standing.location, &[], "").await.status, 401);
    let elsewhere = standing.location.replace("agent", "sales");
    assert_eq!(edge.ask("DELETE", &elsewhere, &[KEY], "").await.status, 404);
}

#[tokio::test]
async fn the_calls_may_hang_up() {
    let standing = Standing::open().await;
    let response = standing.answered(standing.asks(Method::Bye, 1)).await;
    assert_eq!(response.status, Status::OK);
    let reply = standing.edge.ask("DELETE", &standing.location, &[KEY], "").await;
    assert_eq!(reply.status, 404);
    standing.edge.calls.until_closed(standing.id()).await;
}

#[tokio::test]
async fn hold_is_answered_for_the_browser_and_what_it_would_have_to_know_is_refused() {
    let standing = Standing::open().await;
    let offer =
        |text: String, cseq| standing.asks(Method::Invite, cseq).with_body("application/sdp", text);
    let hold = answer("edge1", 2, "sendonly").replace("setup:passive", "setup:actpass");
    let response = standing.answered(offer(hold, 1)).await;
    assert_eq!(response.status, Status::OK);
    let said = String::from_utf8_lossy(&response.body).into_owned();
    assert!(said.contains("a=recvonly") && said.contains("a=setup:active"), "{said}");
    assert!(said.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"), "{said}");
    let mut ack = standing.asks(Method::Ack, 1);
    ack.headers.edit_top_via(|via| {
        *via = Via::new("WSS", sip::Host::parse("127.0.0.1").unwrap(), None, "z9hG4bK00-ack");
    });
    standing.edge.calls.send(standing.id(), ack);
    let moved = answer("edge1", 3, "sendrecv").replace("10000", "10002");
    let response = standing.answered(offer(moved, 2)).await;
    assert_eq!(response.status, Status::NOT_ACCEPTABLE_HERE);
    let resume = answer("edge1", 3, "sendrecv");
    assert_eq!(standing.answered(offer(resume, 3)).await.status, Status::OK);
}

#[tokio::test]
async fn other_requests_of_the_calls_have_answers() {
    let standing = Standing::open().await;
    for (method, body, status) in [
        (Method::Options, "", Status::OK),
        (Method::Update, "", Status::OK),
        (Method::Info, "Signal=5", Status::UNSUPPORTED_MEDIA_TYPE),
        (Method::Refer, "", Status::METHOD_NOT_ALLOWED),
    ]
    .into_iter()
    .zip(1..)
    .map(|((method, body, status), cseq)| ((method, cseq), body, status))
    {
        let mut request = standing.asks(method.0, method.1);
        if !body.is_empty() {
            request = request.with_body("application/dtmf-relay", body);
        }
        assert_eq!(standing.answered(request).await.status, status);
    }
    let late = standing.answered(standing.asks(Method::Options, 1)).await;
    assert_eq!(late.status, Status::SERVER_INTERNAL_ERROR, "out of order");
    let mut stranger = standing.asks(Method::Bye, 9);
    stranger.headers.set(Name::CallId, "other");
    assert_eq!(standing.answered(stranger).await.status, Status::CALL_DOES_NOT_EXIST);
}
