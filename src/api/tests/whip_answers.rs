//! What a WHIP endpoint answers, status by status.

use std::time::Duration;

use api::auth::TokenScope;
use base::{Personal, limit};
use sip::{Method, Name};

use crate::calls::OFFER;
use crate::support::{Edge, Reply, now, request};

const KEY: &str = "Authorization: Bearer key-write";
const SDP: &str = "Content-Type: application/sdp";

async fn post(edge: &Edge, called: &str, fields: &[&str], body: &str) -> Reply {
    edge.ask("POST", &format!("/whip/{called}"), fields, body).await
}

async fn refused(edge: &Edge, called: &str, fields: &[&str], body: &str) -> (u16, String) {
    let reply = post(edge, called, fields, body).await;
    (reply.status, reply.code())
}

#[tokio::test]
async fn an_offer_is_answered_with_a_session() {
    let edge = Edge::start().await;
    let reply = post(&edge, "agent", &[KEY, SDP, "User-Agent: Browser/1"], OFFER).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(reply.field("content-type"), Some("application/sdp"));
    assert!(reply.body.contains("a=ice-ufrag:edge1") && reply.body.contains("a=sendrecv"));
    let location = reply.field("location").unwrap();
    assert!(location.starts_with("/whip/agent/") && location.len() == 12 + 32);
    let tag = reply.field("etag").unwrap();
    assert!(tag.starts_with('"') && tag.ends_with('"'));
    assert_eq!(
        reply.all("link"),
        [
            "<stun:stun.example>; rel=\"ice-server\"",
            "<turns:turn.example?transport=tcp>; rel=\"ice-server\"; username=\"u\"; \
             credential=\"p\\\"w\"; credential-type=\"password\"",
        ]
    );
    let (flow, invite) = edge.calls.request(&Method::Invite).await;
    assert_eq!(flow.transport, transport::Transport::Whip);
    assert!(flow.certificates.is_empty());
    assert_eq!(invite.uri.as_str(), "sip:agent@edge.example");
    let from = invite.headers.from().unwrap();
    assert_eq!(from.uri.as_str(), "sip:key_0011223344556677@browser.invalid");
    assert_eq!(invite.headers.text(Name::UserAgent), Some("callgate-whip"));
    assert!(!invite.headers.has_token(Name::Supported, "100rel"));
    assert_eq!(sdp::Session::parse(&invite.body), sdp::Session::parse(OFFER.as_bytes()));
}

#[tokio::test]
async fn sendonly_is_answered_with_recvonly() {
    let edge = Edge::start().await;
    let reply = post(&edge, "agent", &[KEY, SDP], &OFFER.replace("sendrecv", "sendonly")).await;
    assert_eq!(reply.status, 201);
    assert!(reply.body.contains("a=recvonly"));
}

#[tokio::test]
async fn who_shows_no_good_key_is_not_let_in() {
    let edge = Edge::start().await;
    for fields in
        [&[SDP][..], &[SDP, "Authorization: Bearer wrong"], &[SDP, "Authorization: Basic a2V5"]]
    {
        let reply = post(&edge, "agent", fields, OFFER).await;
        assert_eq!((reply.status, &*reply.code()), (401, "api.unauthorized"));
        assert_eq!(reply.field("www-authenticate"), Some("Bearer realm=\"callgate\""));
    }
    let read_only = refused(&edge, "agent", &[SDP, "Authorization: Bearer key-read"], OFFER).await;
    assert_eq!(read_only, (403, "api.read_only".to_owned()));
    let in_url = edge.ask("POST", "/whip/agent?token=key-write", &[SDP], OFFER).await;
    assert_eq!(in_url.status, 401, "never in a URL");
    assert!(edge.calls.has_heard_nothing());
}

#[tokio::test]
async fn too_many_wrong_keys_hold_a_source_back_even_with_the_right_one() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    let wrong = request("POST", "/whip/agent", &[SDP, "Authorization: Bearer wrong"], OFFER);
    for _ in 0..limit::API_WRONG_TRIES.value {
        client.send(&wrong).await;
        assert_eq!(client.reply().await.status, 401);
    }
    let reply = post(&edge, "agent", &[KEY, SDP], OFFER).await;
    assert_eq!((reply.status, &*reply.code()), (429, "api.held_back"));
    assert!(reply.field("retry-after").unwrap().parse::<u32>().unwrap() <= 60);
}

#[tokio::test]
async fn what_is_no_offer_is_refused_before_any_call() {
    let edge = Edge::start().await;
    let json = "Content-Type: application/json";
    let nowhere = OFFER.replace("m=audio 9", "m=audio 0");
    let receiving = OFFER.replace("a=sendrecv", "a=recvonly");
    let accept = "Accept: text/html, application/json";
    for (fields, body, expected) in [
        (&[KEY, json][..], OFFER, (415, "http.unsupported_type")),
        (&[KEY], OFFER, (415, "http.unsupported_type")),
        (&[KEY, SDP, accept], OFFER, (406, "http.not_acceptable")),
        (&[KEY, SDP, "Accept: application/sdp;q=0"], OFFER, (406, "http.not_acceptable")),
        (&[KEY, SDP], "hello", (400, "whip.malformed")),
        (&[KEY, SDP], "", (400, "whip.malformed")),
        (&[KEY, SDP], &nowhere, (422, "media.no_audio")),
        (&[KEY, SDP], &receiving, (422, "whip.direction")),
    ] {
        let (status, code) = refused(&edge, "agent", fields, body).await;
        assert_eq!((status, &*code), expected);
    }
    let large = format!("{OFFER}a=x:{}\r\n", "x".repeat(limit::SDP_BYTES.get()));
    let (status, code) = refused(&edge, "agent", &[KEY, SDP], &large).await;
    assert_eq!((status, &*code), (413, "http.too_large"));
    let long = "x".repeat(200);
    assert_eq!(refused(&edge, &long, &[KEY, SDP], OFFER).await.0, 400);
    assert_eq!(refused(&edge, "a%0d%0ab", &[KEY, SDP], OFFER).await.0, 400);
    assert!(edge.calls.has_heard_nothing());
    let any = post(&edge, "agent", &[KEY, SDP, "Accept: */*;q=0.8"], OFFER).await;
    assert_eq!(any.status, 201);
}

#[tokio::test]
async fn what_the_calls_refuse_has_a_status_and_their_code() {
    let edge = Edge::start().await;
    for (called, expected) in [
        ("nowhere", (404, "policy.no_route")),
        ("plain", (404, "call.no_such_callee")),
        ("busy", (409, "trunk.busy")),
        ("codecs", (422, "media.no_common_codec")),
        ("forbidden", (403, "policy.refused")),
        ("full", (503, "policy.trunk_call_limit")),
        ("mute", (502, "call.refused")),
    ] {
        let reply = post(&edge, called, &[KEY, SDP], OFFER).await;
        assert_eq!((reply.status, &*reply.code()), expected, "{called}");
        let retry = (called == "full").then_some("7");
        assert_eq!(reply.field("retry-after"), retry);
    }
}

#[tokio::test]
async fn a_fault_behind_the_door_ends_one_session() {
    let edge = Edge::start().await;
    let reply = post(&edge, "fault", &[KEY, SDP], OFFER).await;
    assert_eq!(reply.status, 503);
    assert_eq!(post(&edge, "agent", &[KEY, SDP], OFFER).await.status, 201);
}

#[tokio::test]
async fn only_listed_pages_may_call_and_see_the_answer() {
    let edge = Edge::start().await;
    let foreign = [KEY, SDP, "Origin: https://evil.example"];
    let reply = post(&edge, "agent", &foreign, OFFER).await;
    assert_eq!((reply.status, &*reply.code()), (403, "api.foreign_origin"));
    assert_eq!(reply.field("access-control-allow-origin"), None);
    assert!(edge.calls.has_heard_nothing());
    for origin in ["https://app.example", "https://localhost:8443"] {
        let own = format!("Origin: {origin}");
        for (called, status) in [("agent", 201), ("busy", 409)] {
            let reply = post(&edge, called, &[KEY, SDP, &own], OFFER).await;
            assert_eq!(reply.status, status);
            assert_eq!(reply.field("access-control-allow-origin"), Some(origin));
            let exposed = reply.field("access-control-expose-headers");
            assert_eq!(exposed, Some("Location, ETag, Link"));
            assert_eq!(reply.field("vary"), Some("Origin"));
        }
    }
}

#[tokio::test]
async fn preflights_and_other_methods_are_answered_as_the_rfc_says() {
    let edge = Edge::start().await;
    let origin = "Origin: https://app.example";
    for path in ["/whip/agent", "/whip/agent/0123"] {
        let reply = edge.ask("OPTIONS", path, &[origin], "").await;
        assert_eq!(reply.status, 204);
        let methods = reply.field("access-control-allow-methods").unwrap();
        assert_eq!(methods, "POST, PATCH, DELETE, OPTIONS");
        let headers = reply.field("access-control-allow-headers").unwrap();
        assert_eq!(headers, "Authorization, Content-Type, If-Match");
        let foreign = edge.ask("OPTIONS", path, &["Origin: https://evil.example"], "").await;
        assert_eq!(foreign.status, 403);
        assert_eq!(foreign.field("access-control-allow-methods"), None);
        for method in ["GET", "HEAD", "PUT"] {
            let mut client = edge.connect().await;
            client.send(&request(method, path, &[KEY], "")).await;
            let reply = match method {
                "HEAD" => {
                    client.send(&request("GET", "/health", &[], "")).await;
                    None
                }
                _ => Some(client.reply().await),
            };
            if let Some(reply) = reply {
                assert_eq!((reply.status, &*reply.code()), (405, "http.method_not_allowed"));
                assert!(reply.field("allow").unwrap().contains("OPTIONS"));
            }
        }
    }
    let endpoint = edge.ask("OPTIONS", "/whip/agent", &[], "").await;
    assert_eq!(endpoint.field("accept-post"), Some("application/sdp"));
    assert_eq!(endpoint.field("access-control-allow-origin"), None, "no page asked");
}

#[tokio::test]
async fn who_may_call_learns_the_servers_before_the_offer_and_nobody_else_does() {
    let edge = Edge::start().await;
    let origin = "Origin: https://app.example";
    let told = edge.ask("OPTIONS", "/whip/agent", &[KEY, origin], "").await;
    assert_eq!((told.status, told.all("link").len()), (204, 2));
    assert!(told.all("link")[1].contains("username=\"u\""), "{told:?}");
    assert_eq!(told.field("access-control-expose-headers"), Some("Location, ETag, Link"));
    assert_eq!(told.field("accept-post"), Some("application/sdp"));
    let preflight = [
        origin,
        "Access-Control-Request-Method: OPTIONS",
        "Access-Control-Request-Headers: authorization",
    ];
    let preflight = edge.ask("OPTIONS", "/whip/agent", &preflight, "").await;
    assert_eq!((preflight.status, preflight.all("link").len()), (204, 0));
    assert!(preflight.field("access-control-allow-methods").unwrap().contains("OPTIONS"));
    edge.add_token("tok-1", |token| token.called = Some("sales".to_owned()));
    for (fields, status) in [
        (&[][..], 204),
        (&["Authorization: Bearer wrong"], 401),
        (&["Authorization: Bearer key-read"], 403),
        (&["Authorization: Bearer tok-1"], 403),
        (&[KEY, "Origin: https://evil.example"], 403),
    ] {
        let reply = edge.ask("OPTIONS", "/whip/agent", fields, "").await;
        assert_eq!((reply.status, reply.all("link").len()), (status, 0), "{fields:?}");
    }
    assert!(edge.calls.has_heard_nothing());
}

#[tokio::test]
async fn a_token_that_is_not_for_calls_opens_none() {
    let edge = Edge::start().await;
    edge.add_token("tok-1", |token| token.scopes = [TokenScope::Register].into());
    let bearer = "Authorization: Bearer tok-1";
    let out = refused(&edge, "agent", &[bearer, SDP], OFFER).await;
    assert_eq!(out, (403, "token.scope".to_owned()));
    assert_eq!(edge.ask("OPTIONS", "/whip/agent", &[bearer], "").await.status, 403);
    assert!(edge.calls.has_heard_nothing());
    edge.add_token("tok-2", |token| token.scopes = [TokenScope::Call].into());
    let reply = post(&edge, "agent", &["Authorization: Bearer tok-2", SDP], OFFER).await;
    assert_eq!(reply.status, 201);
}

#[tokio::test]
async fn a_token_calls_whom_it_names_from_its_page_once() {
    let edge = Edge::start().await;
    edge.add_token("tok-1", |token| {
        token.called = Some("agent".to_owned());
        token.origin = Some("https://app.example".to_owned());
        token.name = Some(Personal::new("Ann \"A\"".to_owned()));
    });
    let bearer = "Authorization: Bearer tok-1";
    let other = refused(&edge, "sales", &[bearer, SDP], OFFER).await;
    assert_eq!(other, (403, "token.other_callee".to_owned()));
    let own_page = "Origin: https://localhost:8443";
    let elsewhere = refused(&edge, "agent", &[bearer, SDP, own_page], OFFER).await;
    assert_eq!(elsewhere, (403, "token.other_origin".to_owned()));
    assert!(edge.calls.has_heard_nothing());
    let page = "Origin: https://app.example";
    let reply = post(&edge, "agent", &[bearer, SDP, page], OFFER).await;
    assert_eq!(reply.status, 201);
    let (_, invite) = edge.calls.request(&Method::Invite).await;
    let from = invite.headers.from().unwrap();
    assert_eq!(from.uri.as_str(), "sip:bt_0000000000000001@browser.invalid");
    assert_eq!(from.display.as_deref(), Some("Ann \"A\""));
    let again = refused(&edge, "agent", &[bearer, SDP, page], OFFER).await;
    assert_eq!(again, (403, "token.used".to_owned()), "replayed");
    let location = reply.field("location").unwrap();
    assert_eq!(edge.ask("DELETE", location, &[bearer, page], "").await.status, 200);
    assert_eq!(refused(&edge, "agent", &[bearer, SDP, page], OFFER).await.1, "token.used");
}

#[tokio::test]
async fn a_token_whose_call_failed_may_be_used_again_and_an_old_one_may_not() {
    let edge = Edge::start().await;
    edge.add_token("tok-1", |_| {});
    edge.add_token("tok-old", |token| token.expires = now());
    let bearer = "Authorization: Bearer tok-1";
    assert_eq!(refused(&edge, "busy", &[bearer, SDP], OFFER).await.0, 409);
    assert_eq!(post(&edge, "agent", &[bearer, SDP], OFFER).await.status, 201);
    let old = refused(&edge, "agent", &["Authorization: Bearer tok-old", SDP], OFFER).await;
    assert_eq!(old.0, 401);
}

#[tokio::test]
async fn who_leaves_before_the_answer_takes_the_call_along() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    client.send(&request("POST", "/whip/silent", &[KEY, SDP], OFFER)).await;
    let (flow, invite) = edge.calls.request(&Method::Invite).await;
    drop(client);
    let (_, cancel) = edge.calls.request(&Method::Cancel).await;
    assert_eq!(cancel.headers.call_id(), invite.headers.call_id());
    edge.calls.until_closed(flow.id).await;
}

#[tokio::test]
async fn nothing_new_begins_while_the_edge_drains() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    let reply = post(&edge, "agent", &[KEY, SDP], OFFER).await;
    assert_eq!(reply.status, 201);
    let (flow, _) = edge.calls.request(&Method::Invite).await;
    client.send("POST /whip/agent HTTP/1.1\r\nHost: a\r\n").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let draining = edge.api.drain(crate::support::PATIENCE);
    let rest = async {
        let (_, _bye) = edge.calls.request(&Method::Bye).await;
    };
    tokio::join!(draining, rest);
    edge.calls.until_closed(flow.id).await;
}
