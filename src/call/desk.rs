//! What a call works with while it handles one input: the time, the shard's transactions and the
//! outputs. Requests and responses get their last header fields and their place in the ladder
//! here, so that no call file builds them by hand.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use base::{Event, Instant, LegId, Personal, Random, Reason, TrunkName, WallTime, limit};
use policy::Transport;
use sip::transaction::{ClientKey, FlowId, ServerKey, Transactions};
use sip::{
    Dialog, DialogId, Host, Message, Method, Name, NameAddr, Request, Response, Status, Uri, Via,
    ids,
};

use crate::admit;
use crate::contract::{Ledger, Output, Peer, Record, Setup};

const PRODUCT: &str = concat!("callgate/", env!("CARGO_PKG_VERSION"));

/// Methods that are answered with more than 405 (RFC 3261 section 20.5).
pub(crate) const ALLOW: [Method; 10] = [
    Method::Invite,
    Method::Ack,
    Method::Cancel,
    Method::Bye,
    Method::Options,
    Method::Update,
    Method::Info,
    Method::Prack,
    Method::Refer,
    Method::Notify,
];

/// See the module's documentation.
pub(crate) struct Desk<'a> {
    pub(crate) now: Instant,
    pub(crate) wall: WallTime,
    pub(crate) shard: u8,
    pub(crate) setup: &'a Arc<Setup>,
    pub(crate) ledger: &'a dyn Ledger,
    pub(crate) random: &'a mut dyn Random,
    pub(crate) transactions: &'a mut Transactions,
    pub(crate) outputs: &'a mut VecDeque<Output>,
    pub(crate) joins: &'a mut VecDeque<Join>,
}

/// A leg of one call has to do with another call.
#[derive(Debug)]
pub(crate) struct Join {
    /// The leg.
    pub(crate) leg: LegId,
    /// Who asks: only its own calls may be joined.
    pub(crate) trunk: TrunkName,
    /// The leg of the other call that is replaced.
    pub(crate) dialog: DialogId,
    /// Whether it is to be replaced only while nobody has answered (RFC 3891 section 4).
    pub(crate) early_only: bool,
    /// By whom.
    pub(crate) how: Joined,
}

/// How the leg of another call is replaced.
#[derive(Debug)]
pub(crate) enum Joined {
    /// The leg talks with the other call's far end.
    Here,
    /// Somebody of this trunk is to replace it, under a name that we give it.
    Named {
        /// The trunk.
        to: TrunkName,
    },
}

/// A leg's ladder: how many messages it may still take.
#[derive(Debug)]
pub(crate) struct Ladder {
    leg: LegId,
    left: usize,
}

impl Ladder {
    pub(crate) const fn new(leg: LegId) -> Self {
        Self { leg, left: limit::CALL_LADDER.get() }
    }

    pub(crate) const fn leg(&self) -> LegId {
        self.leg
    }

    /// Its leg has got another name.
    pub(crate) const fn belongs_to(&mut self, leg: LegId) {
        self.leg = leg;
    }

    /// Stores one message with its secrets removed.
    pub(crate) fn note(&mut self, desk: &mut Desk<'_>, received: bool, message: &Message) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let text = Personal::new(sip::redact(message));
        desk.record(Record::Ladder { leg: self.leg, wall: desk.wall, received, text });
    }
}

impl Desk<'_> {
    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.output(Output::Event(event));
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.output(Output::Record(Box::new(record)));
    }

    /// The host that we are for a peer.
    pub(crate) fn host(&self, peer: &Peer, zone: Option<&str>) -> Host {
        let zone = zone.and_then(|name| self.setup.policy.zone(name));
        // What the edge advertises is the name of its own listeners, not of a zone's.
        let edge = self.setup.advertise.as_ref();
        let edge = edge.filter(|_| zone.is_none_or(|zone| zone.listen.is_empty()));
        let named = zone.and_then(|zone| zone.advertise.as_ref()).or(edge);
        let local = || match peer.local.ip() {
            IpAddr::V4(address) => Host::V4(address),
            IpAddr::V6(address) => Host::V6(address),
        };
        named.and_then(|host| Host::parse(host)).unwrap_or_else(local)
    }

    /// Our Contact on a flow (RFC 3261 section 8.1.1.8).
    pub(crate) fn contact(&self, peer: &Peer, zone: Option<&str>) -> String {
        NameAddr::new(self.place(peer, zone, None)).to_string()
    }

    /// Where we are for a peer, or where it reaches `user` by us.
    pub(crate) fn place(&self, peer: &Peer, zone: Option<&str>, user: Option<&str>) -> Uri {
        let uri = Uri::sip(user, &self.host(peer, zone), Some(peer.local.port()));
        match peer.transport {
            Transport::Udp => uri,
            transport => uri.with_param("transport", Some(on_the_wire(transport))),
        }
    }

    /// Answers a request; a final answer outside a dialog gets a fresh tag of ours.
    pub(crate) fn answer(&mut self, key: ServerKey, response: &Response) {
        // A transaction that is gone or already answered has nobody waiting.
        let _ = self.transactions.respond(self.now, key, response);
    }

    /// Repeats a 2xx, also after its transaction is gone (RFC 3261 section 13.3.1.4).
    pub(crate) fn answer_again(&mut self, key: ServerKey, flow: FlowId, response: &Response) {
        if self.transactions.respond(self.now, key, response).is_err() {
            self.transactions.send(flow, &Message::Response(response.clone()));
        }
    }

    /// The response to `request` with what every response of ours carries.
    pub(crate) fn response(&mut self, request: &Request, status: Status) -> Response {
        let tag = ids::new_tag(self.shard, self.random);
        self.response_tagged(request, status, &tag)
    }

    /// The same with the tag of a dialog.
    pub(crate) fn response_tagged(
        &mut self,
        request: &Request,
        status: Status,
        tag: &str,
    ) -> Response {
        let mut response = Response::to(request, status, Some(tag));
        response.headers.push(Name::Server, PRODUCT);
        response
    }

    /// The refusal of `request`, with the fields that its status asks for. The reason is told
    /// only to a peer that policy says may know it.
    pub(crate) fn refusal(&mut self, request: &Request, reason: Reason, tell: bool) -> Response {
        self.refusal_with(request, Status::of(reason), reason, tell, None)
    }

    pub(crate) fn refusal_with(
        &mut self,
        request: &Request,
        status: Status,
        reason: Reason,
        tell: bool,
        retry_after: Option<u32>,
    ) -> Response {
        let tag = ids::new_tag(self.shard, self.random);
        self.refusal_tagged(request, (status, &tag), reason, tell, retry_after)
    }

    /// The same with the tag of what was said before (RFC 3261 section 8.2.6.2).
    pub(crate) fn refusal_tagged(
        &mut self,
        request: &Request,
        (status, tag): (Status, &str),
        reason: Reason,
        tell: bool,
        retry_after: Option<u32>,
    ) -> Response {
        let mut response = self.response_tagged(request, status, tag);
        let headers = &mut response.headers;
        match reason {
            // RFC 3261 sections 21.4.6, 21.4.13 and 21.4.15.
            Reason::MethodNotAllowed | Reason::MethodUnknown => {
                headers.push_tokens(Name::Allow, ALLOW.iter().map(Method::as_str));
            }
            Reason::UnsupportedBody => {
                headers.push(Name::Accept, admit::accepted_by(&request.method));
            }
            Reason::BadExtension => {
                let tags: Vec<&str> = admit::unsupported(request).collect();
                headers.push_tokens(Name::Unsupported, tags);
            }
            _ => {}
        }
        let retry = retry_after.or_else(|| (status.code() == 503).then_some(5));
        if let Some(seconds) = retry {
            headers.set_retry_after(seconds);
        }
        if tell {
            headers.push_warning("callgate", reason.code());
        }
        response
    }

    /// Sends a request within a dialog over `peer`'s flow; the answer comes by its key.
    pub(crate) fn request(
        &mut self,
        peer: &Peer,
        zone: Option<&str>,
        dialog: &mut Dialog,
        method: Method,
        finish: impl FnOnce(&mut Request),
    ) -> Option<(ClientKey, Message)> {
        let mut request = dialog.request(method);
        let via = self.via(peer, zone);
        request.headers.push_via(&via);
        if request.method.refreshes_target() {
            let contact = self.contact(peer, zone);
            request.headers.push(Name::Contact, contact);
        }
        request.headers.push(Name::UserAgent, PRODUCT);
        finish(&mut request);
        let message = Message::Request(request.clone());
        let reliable = peer.transport != Transport::Udp;
        let key = self.transactions.request(self.now, peer.flow, reliable, request).ok()?;
        Some((key, message))
    }

    /// Sends an INVITE that begins a dialog; it comes back as it was sent.
    pub(crate) fn call(
        &mut self,
        peer: &Peer,
        zone: Option<&str>,
        mut invite: Request,
    ) -> Option<(ClientKey, Request)> {
        let via = self.via(peer, zone);
        invite.headers.push_via(&via);
        invite.headers.push(Name::Contact, self.contact(peer, zone));
        invite.headers.push(Name::UserAgent, PRODUCT);
        let reliable = peer.transport != Transport::Udp;
        let sent = self.transactions.request(self.now, peer.flow, reliable, invite.clone());
        Some((sent.ok()?, invite))
    }

    /// Sends a request once more in another transaction; it comes back as it was sent.
    pub(crate) fn repeat(
        &mut self,
        peer: &Peer,
        zone: Option<&str>,
        mut request: Request,
    ) -> Option<(ClientKey, Request)> {
        let via = self.via(peer, zone);
        request.headers.set(Name::Via, via.to_string());
        let reliable = peer.transport != Transport::Udp;
        let sent = self.transactions.request(self.now, peer.flow, reliable, request.clone());
        Some((sent.ok()?, request))
    }

    /// Sends the ACK of a 2xx, which has no transaction.
    pub(crate) fn send_ack(
        &mut self,
        peer: &Peer,
        zone: Option<&str>,
        mut ack: Request,
    ) -> Request {
        let via = self.via(peer, zone);
        ack.headers.push_via(&via);
        self.transactions.send(peer.flow, &Message::Request(ack.clone()));
        ack
    }

    fn via(&mut self, peer: &Peer, zone: Option<&str>) -> Via {
        let branch = ids::new_branch(self.shard, self.random);
        let transport = on_the_wire(peer.transport).to_ascii_uppercase();
        let host = self.host(peer, zone);
        let mut via = Via::new(&transport, host, Some(peer.local.port()), &branch);
        via.params.set("rport", None); // RFC 3581 section 3
        if peer.alias {
            via.params.set("alias", None); // RFC 5923 section 5
        }
        via
    }
}

/// A transport as messages name it; to one that comes by WHIP a message is SIP over WSS (RFC 7118
/// section 5).
const fn on_the_wire(transport: Transport) -> &'static str {
    match transport {
        Transport::Whip => Transport::Wss.word(),
        other => other.word(),
    }
}
