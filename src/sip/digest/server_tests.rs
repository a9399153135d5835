use base::SeededRandom;
use proptest::prelude::*;

use super::*;
use crate::digest::{Challenge, Login, Session};
use crate::header::{Header, Headers, Name};

const NOW: Instant = Instant::from_nanos(5_000_000_000);
const LIFE: Duration = Duration::from_secs(300);

fn nonces(seed: u64) -> Nonces {
    Nonces::new(&mut SeededRandom::new(seed), LIFE)
}

fn key(user: &str, realm: &str, password: &str) -> Secret<String> {
    md5_key(user, realm, &Secret::new(password.to_owned()))
}

/// A method that SIP lacks; the published vectors are of HTTP.
fn get() -> Method {
    Method::parse("GET").unwrap()
}

#[test]
fn the_published_answers_are_right_and_others_are_not() {
    // RFC 7616 section 3.9.1, both algorithms; RFC 2617 section 3.5.
    let common = "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
         uri=\"/dir/index.html\", nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
         nc=00000001, cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
         opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
    let old = "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
         nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"/dir/index.html\", qop=auth, \
         nc=00000001, cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\"";
    let md5 = format!("{common}, algorithm=MD5, response=\"8ca523f5e9506fed4657c9700eebdbec\"");
    let sha = format!(
        "{common}, algorithm=SHA-256, \
         response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\""
    );
    let sha_key = |password| {
        Secret::new(Algorithm::Sha256.hash(&["Mufasa", "http-auth@example.org", password]))
    };
    let (realm, password) = ("http-auth@example.org", "Circle of Life");
    for (text, key, wrong) in [
        (&*md5, key("Mufasa", realm, password), key("Mufasa", realm, "circle of life")),
        (&*sha, sha_key(password), sha_key("circle of life")),
        (
            old,
            key("Mufasa", "testrealm@host.com", "Circle Of Life"),
            key("Mufasa", "testrealm@host.com", ""),
        ),
    ] {
        let answer = Answer::parse(text).unwrap();
        assert!(answer.is_by(&key, &get()), "{text}");
        assert!(!answer.is_by(&wrong, &get()) && !answer.is_by(&key, &Method::Register));
        let other = Answer::parse(&text.replace("index.html", "index.htm")).unwrap();
        assert!(!other.is_by(&key, &get()), "another URI");
    }
}

#[test]
fn our_own_client_answers_our_challenge() {
    let sha_key = |realm: &str| Secret::new(Algorithm::Sha256.hash(&["alice", realm, "s3cret"]));
    let all = [Asked::Md5, Asked::Sha256];
    for asks in all {
        let nonce = nonces(1).issue(NOW, 7);
        let field = asks.challenge("edge \"one\"", &nonce, false);
        let headers: Headers = [Header::new(Name::WwwAuthenticate, &field)].into_iter().collect();
        let asked = Challenge::all(&headers).remove(0);
        let password = Secret::new("s3cret".to_owned());
        let login = Login { user: "alice".to_owned(), password, realm: None };
        let mut session = Session::new(asked, &login, &mut SeededRandom::new(2));
        for count in 1..3 {
            let header = session.authorize(&Method::Register, "sip:edge.example");
            let answer = Answer::parse(header.text().unwrap()).unwrap();
            assert_eq!((answer.count, &*answer.user, &*answer.nonce), (count, "alice", &*nonce));
            assert_eq!(answer.algorithm(), Some(asks));
            let keys = [key("alice", &answer.realm, "s3cret"), sha_key(&answer.realm)];
            let fits = keys.map(|key| answer.is_by(&key, &Method::Register));
            assert_eq!(fits, all.map(|it| it == asks), "the hash of its algorithm alone");
        }
    }
}

#[test]
fn a_nonce_is_known_again_for_its_place_and_its_time_only() {
    let ours = nonces(1);
    let nonce = ours.issue(NOW, 7);
    assert_eq!(ours.look(&nonce, NOW + LIFE, 7), Nonce::Fresh);
    assert_eq!(ours.look(&nonce, NOW + LIFE + Duration::from_secs(1), 7), Nonce::Stale);
    assert_eq!(ours.look(&nonce, NOW, 8), Nonce::Foreign);
    assert_eq!(nonces(2).look(&nonce, NOW, 7), Nonce::Foreign);
    for at in 0..nonce.len() {
        let mut forged = nonce.clone().into_bytes();
        forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
        let forged = String::from_utf8(forged).unwrap();
        assert_eq!(ours.look(&forged, NOW, 7), Nonce::Foreign);
    }
    assert_eq!(ours.look("", NOW, 7), Nonce::Foreign);
}

#[test]
fn the_keyed_hash_is_that_of_rfc_4231() {
    // Section 4.2 has a key of 20 bytes, which zeros fill up to the block as they do 32.
    let mut key = [0; 32];
    key[..20].fill(0x0b);
    let hash = keyed_hash(&key, &[b"Hi ", b"There"]);
    let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
    assert_eq!(hex::encode(hash), expected);
}

#[test]
fn what_is_no_answer_of_ours_is_refused() {
    let good = "Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"sip:h\", qop=auth, \
                nc=00000001, cnonce=\"c\", response=\"00\"";
    assert!(Answer::parse(good).is_some());
    for (from, to) in [
        ("Digest ", "Basic "),
        ("qop=auth", "qop=auth-int"),
        ("qop=auth, ", ""),
        ("nc=00000001", "nc=1"),
        ("nc=00000001", "nc=0000000g"),
        ("cnonce=\"c\"", "cnonce=\"\""),
        ("nonce=\"n\", ", ""),
        ("username=\"a\"", "username=\"a\", username=\"b\""),
        ("response", "algorithm=MD5-sess, response"),
        ("response", "algorithm=SHA-3, response"),
        ("uri=\"sip:h\"", "uri"),
    ] {
        assert!(Answer::parse(&good.replacen(from, to, 1)).is_none(), "{to}");
    }
    let long = "x".repeat(limit::SIP_DIGEST_BYTES.get() + 1);
    assert!(Answer::parse(&good.replace("sip:h", &long)).is_none());
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in ".{0,200}", name in "[a-z]{1,9}", value in ".{0,30}") {
        let _ = Answer::parse(&text);
        let _ = Answer::parse(&format!("Digest {name}=\"{value}\", {text}"));
        let _ = nonces(1).look(&text, NOW, 1);
    }
}
