use base::SeededRandom;
use proptest::prelude::*;

use super::*;

fn login(user: &str, password: &str) -> Login {
    Login { user: user.to_owned(), password: Secret::new(password.to_owned()), realm: None }
}

fn headers(fields: &[(Name, &str)]) -> Headers {
    fields.iter().map(|(name, value)| Header::new(*name, value)).collect()
}

fn challenges(fields: &[&str]) -> Vec<Challenge> {
    let fields: Vec<_> = fields.iter().map(|it| (Name::WwwAuthenticate, *it)).collect();
    Challenge::all(&headers(&fields))
}

/// The parameters of a credentials field.
fn param(header: &Header, name: &str) -> Option<String> {
    let text = header.text().unwrap().strip_prefix("Digest ").unwrap();
    let mut parts = split_list(text).filter_map(|part| part.split_once('='));
    parts.find(|(it, _)| *it == name).map(|(_, value)| unquoted(value).to_owned())
}

fn answer(challenge: &str, who: &Login, ours: &str, method: &Method, uri: &str) -> Header {
    let challenge = challenges(&[challenge]).remove(0);
    Session::with_nonce(challenge, who, ours.to_owned()).authorize(method, uri)
}

/// A method that SIP lacks; the published vectors are of HTTP.
fn get() -> Method {
    Method::parse("GET").unwrap()
}

#[test]
fn the_vectors_of_rfc_7616_come_out() {
    // RFC 7616 section 3.9.1.
    let who = login("Mufasa", "Circle of Life");
    let ours = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
    for (algorithm, response) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ] {
        let challenge = format!(
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", \
             algorithm={algorithm}, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
             opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        );
        let header = answer(&challenge, &who, ours, &get(), "/dir/index.html");
        assert_eq!(header.name(), Some(Name::Authorization));
        assert_eq!(param(&header, "response").as_deref(), Some(response));
        assert_eq!(param(&header, "algorithm").as_deref(), Some(algorithm));
        assert_eq!(param(&header, "nc").as_deref(), Some("00000001"));
        assert_eq!(param(&header, "cnonce").as_deref(), Some(ours));
        let opaque = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS";
        assert_eq!(param(&header, "opaque").as_deref(), Some(opaque));
    }
}

#[test]
fn the_vector_of_rfc_2617_comes_out() {
    // RFC 2617 section 3.5.
    let challenge = "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
                     nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
                     opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
    let who = login("Mufasa", "Circle Of Life");
    let header = answer(challenge, &who, "0a4f113b", &get(), "/dir/index.html");
    assert_eq!(param(&header, "response").unwrap(), "6629fae49393a05397450978507c4ef1");
    assert_eq!(param(&header, "algorithm"), None, "none was named");
}

#[test]
fn sha_512_256_is_the_truncated_one_and_not_a_cut_sha_512() {
    // FIPS 180-4, one block: "abc".
    let hash = Algorithm::Sha512_256.hash(&["abc"]);
    assert_eq!(hash, "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23");
}

#[test]
fn a_challenge_without_qop_is_answered_as_of_old() {
    let challenge = "Digest realm=\"r\", nonce=\"n\"";
    let header = answer(challenge, &login("u", "p"), "c", &Method::Invite, "sip:b@h");
    let request = Algorithm::Md5.hash(&["INVITE", "sip:b@h"]);
    let key = Algorithm::Md5.hash(&["u", "r", "p"]);
    assert_eq!(param(&header, "response").unwrap(), Algorithm::Md5.hash(&[&key, "n", &request]));
    for absent in ["qop", "nc", "cnonce"] {
        assert_eq!(param(&header, absent), None);
    }
}

#[test]
fn the_strongest_known_algorithm_wins_and_unknown_ones_are_skipped() {
    let one = |algorithm: &str| {
        format!("Digest realm=\"r\", nonce=\"{algorithm}\", qop=\"auth\", algorithm={algorithm}")
    };
    for (offered, wins) in [
        (&["MD5", "SHA-256", "SHA-512-256"][..], "SHA-512-256"),
        (&["SHA3-512", "sha-256", "MD5"], "sha-256"),
        (&["SHA-999", "MD5"], "MD5"),
    ] {
        let fields: Vec<String> = offered.iter().map(|it| one(it)).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let found = challenges(&fields);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].nonce, wins);
    }
    assert!(challenges(&[&one("SHA3-512"), "Basic realm=\"r\"", "Negotiate"]).is_empty());
}

#[test]
fn each_place_is_answered_on_its_own() {
    let fields = headers(&[
        (Name::ProxyAuthenticate, "Digest realm=\"a\", nonce=\"1\""),
        (Name::WwwAuthenticate, "Digest realm=\"a\", nonce=\"2\""),
        (Name::WwwAuthenticate, "Digest realm=\"b\", nonce=\"3\""),
    ]);
    let found = Challenge::all(&fields);
    assert_eq!(found.len(), 3);
    let mut random = SeededRandom::new(1);
    let proxy = found.into_iter().find(|it| it.place.is_proxy).unwrap();
    let mut session = Session::new(proxy, &login("u", "p"), &mut random);
    let header = session.authorize(&Method::Bye, "sip:x");
    assert_eq!(header.name(), Some(Name::ProxyAuthorization));
    assert_eq!(param(&header, "nonce").as_deref(), Some("1"));
}

#[test]
fn commas_quotes_and_blanks_within_a_challenge_do_no_harm() {
    let text = "digest  Realm = \"a, \\\"b\\\"\" ,nonce=\"n,1\",\t stale=TRUE, domain=\"sip:x\",\
                qop=\"auth-int,auth\",junk,=,opaque=\"\"";
    let found = challenges(&[text]);
    assert_eq!(found.len(), 1, "{text}");
    assert_eq!(found[0].place.realm, "a, \\\"b\\\"");
    assert!(found[0].is_stale());
    let session = &mut Session::with_nonce(found[0].clone(), &login("u", "p"), "c".to_owned());
    let header = session.authorize(&Method::Invite, "sip:b@h");
    let text = header.text().unwrap();
    assert!(text.contains("realm=\"a, \\\"b\\\"\"") && text.contains("opaque=\"\""), "{text}");
}

#[test]
fn several_challenges_in_one_field_are_told_apart() {
    let text = "Basic realm=\"x\", Digest realm=\"r\", nonce=\"1\", algorithm=MD5, \
                Digest realm=\"r\", nonce=\"2\", algorithm=SHA-256";
    let found = challenges(&[text]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].nonce, "2");
}

#[test]
fn what_cannot_be_answered_is_left_out() {
    let long = "x".repeat(limit::SIP_DIGEST_BYTES.get() + 1);
    for text in [
        "Digest realm=\"r\"",
        "Digest nonce=\"n\"",
        "Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\"",
        "Digest realm=\"r\", nonce=\"n\", algorithm=MD5-sess",
        &format!("Digest realm=\"r\", nonce=\"{long}\""),
        "Digest realm=\"r, nonce=\"n\"",
        "realm=\"r\", nonce=\"n\"",
        "",
    ] {
        assert!(challenges(&[text]).is_empty(), "{text}");
    }
}

#[test]
fn a_session_variant_hashes_both_nonces_into_its_key_once() {
    let text = "Digest realm=\"r\", nonce=\"n\", algorithm=SHA-256-sess, qop=\"auth\"";
    let challenge = challenges(&[text]).remove(0);
    let mut session = Session::with_nonce(challenge, &login("u", "p"), "c".to_owned());
    let key = Algorithm::Sha256.hash(&["u", "r", "p"]);
    let key = Algorithm::Sha256.hash(&[&key, "n", "c"]);
    let request = Algorithm::Sha256.hash(&["INVITE", "sip:b@h"]);
    session.renew(&headers(&[(Name::AuthenticationInfo, "nextnonce=\"m\"")]));
    let header = session.authorize(&Method::Invite, "sip:b@h");
    let parts = [&key[..], "m", "00000001", "c", "auth", &request];
    assert_eq!(param(&header, "response").unwrap(), Algorithm::Sha256.hash(&parts));
    assert_eq!(param(&header, "algorithm").as_deref(), Some("SHA-256-sess"));
}

#[test]
fn the_count_goes_up_with_each_request_and_begins_anew_with_the_next_nonce() {
    let text = "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"";
    let mut random = SeededRandom::new(7);
    let mut session = Session::new(challenges(&[text]).remove(0), &login("u", "p"), &mut random);
    let mut next = |renewal: &str| {
        session.renew(&headers(&[(Name::AuthenticationInfo, renewal)]));
        let header = session.authorize(&Method::Invite, "sip:b@h");
        (param(&header, "nonce").unwrap(), param(&header, "nc").unwrap())
    };
    assert_eq!(next(""), ("n".to_owned(), "00000001".to_owned()));
    assert_eq!(next("qop=auth, rspauth=\"x\""), ("n".to_owned(), "00000002".to_owned()));
    assert_eq!(next("nextnonce=\"n\""), ("n".to_owned(), "00000003".to_owned()));
    assert_eq!(next("nc=1, nextnonce=\"m,m\""), ("m,m".to_owned(), "00000001".to_owned()));
    for _ in 0..8 {
        next("");
    }
    assert_eq!(next("").1, "0000000a");
}

#[test]
fn a_realm_that_was_named_is_the_only_one_answered() {
    let found = challenges(&["Digest realm=\"acme\", nonce=\"n\""]).remove(0);
    let only = |realm: &str| Login { realm: Some(realm.to_owned()), ..login("u", "p") };
    assert!(found.is_for(&login("u", "p")) && found.is_for(&only("acme")));
    assert!(!found.is_for(&only("Acme")));
}

#[test]
fn neither_the_password_nor_its_hash_is_printed() {
    let who = login("bob", "hunter2");
    let found = challenges(&["Digest realm=\"r\", nonce=\"n\""]).remove(0);
    let session = Session::with_nonce(found, &who, "c".to_owned());
    let printed = format!("{who:?} {session:?}");
    let key = Algorithm::Md5.hash(&["bob", "r", "hunter2"]);
    for secret in ["bob", "hunter2", &key] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

proptest! {
    #[test]
    fn whatever_a_peer_asks_is_answered_in_one_line_or_not_at_all(
        realm in "[ -~]{0,12}",
        rest in "\\PC{0,80}",
        uri in "[!-~]{0,20}",
    ) {
        let text = format!("Digest realm=\"{realm}\", nonce=\"n\", {rest}");
        for challenge in challenges(&[&text, &rest]) {
            let mut session = Session::new(challenge, &login("u", "p"), &mut SeededRandom::new(1));
            let header = session.authorize(&Method::Invite, &uri);
            prop_assert!(header.text().unwrap().starts_with("Digest username=\"u\", realm="));
            prop_assert!(!header.bytes().contains(&b'\n') && !header.bytes().contains(&b'\r'));
        }
    }
}
