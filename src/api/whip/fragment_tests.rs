use proptest::prelude::*;

use super::*;

const OFFER: &str = "v=0\r\no=- 1 7 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    a=ice-options:trickle\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n\
    a=ice-ufrag:old1\r\na=ice-pwd:oldoldoldoldoldoldoldold\r\n\
    a=candidate:9 1 udp 1 192.0.2.1 1 typ host\r\n\
    a=rtpmap:111 opus/48000/2\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\n\
    a=ice-ufrag:old1\r\na=ice-pwd:oldoldoldoldoldoldoldold\r\na=rtpmap:96 VP8/90000\r\n";

const NEW: &str = "a=ice-ufrag:new+\r\na=ice-pwd:newnewnewnewnewnewnewnew\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
    a=candidate:1 1 udp 2122260223 3f2b.local 5000 typ host generation 0 ufrag new+\r\n\
    a=end-of-candidates\r\n";

fn offer() -> Session {
    Session::parse(OFFER.as_bytes()).unwrap()
}

#[test]
fn a_fragment_is_read_wherever_its_credentials_stand() {
    let read = Fragment::parse(NEW).unwrap();
    assert_eq!((&*read.ufrag, &*read.password), ("new+", "newnewnewnewnewnewnewnew"));
    assert_eq!((read.candidates.len(), read.is_last), (1, true));
    assert!(!read.is_of(&offer()));
    let below =
        "m=audio 9 RTP/AVP 0\na=mid:0\na=ice-pwd:oldoldoldoldoldoldoldold\na=ice-ufrag:old1\n";
    let read = Fragment::parse(below).unwrap();
    assert!(read.is_of(&offer()) && !read.is_last);
}

#[test]
fn what_is_no_fragment_names_its_line() {
    let long = "a=x\r\n".repeat(limit::API_FRAGMENT_LINES.get()) + NEW;
    for (text, line) in [
        ("", 1),
        ("a=ice-ufrag:abcd\r\n", 2),
        ("hello\r\n", 1),
        ("a=mid:0\r\nv=0\r\n", 2),
        ("a=ice-ufrag:abc\r\n", 1),
        ("a=ice-ufrag:ab cd\r\n", 1),
        ("a=ice-pwd:short\r\n", 1),
        ("a=ice-ufrag:abcd\r\na=ice-ufrag:efgh\r\n", 2),
        ("a=ice-ufrag:abcd\rx\r\n", 1),
        (&long, limit::API_FRAGMENT_LINES.get() + 1),
    ] {
        assert_eq!(Fragment::parse(text), Err(BadFragment(line)), "{text:?}");
    }
}

#[test]
fn a_restart_offers_what_was_offered_with_other_credentials() {
    let next = Fragment::parse(NEW).unwrap().restarting(&offer());
    assert_eq!(next.origin.version, "8");
    for media in &next.media {
        assert_eq!(media.attribute("ice-ufrag"), Some("new+"));
        assert_eq!(media.attribute("ice-pwd"), Some("newnewnewnewnewnewnewnew"));
    }
    let candidates: Vec<_> = next.media.iter().map(|it| it.candidates().count()).collect();
    assert_eq!(candidates, [1, 0], "those of the bundle's first line, and no old ones");
    assert!(next.to_string().contains("3f2b.local"));
}

#[test]
fn our_side_is_told_as_a_fragment_that_can_be_read() {
    let text = written(&offer()).unwrap();
    let read = Fragment::parse(&text).unwrap();
    assert!(read.is_of(&offer()) && read.is_last);
    assert_eq!(read.candidates.len(), 1);
    assert!(text.starts_with("a=ice-options:trickle\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP"));
    let without = Session::parse(b"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n").unwrap();
    assert_eq!(written(&without), None);
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in ".{0,300}", lines in "([amv]=[a-z:-]{0,12}\r?\n){0,20}") {
        let _ = Fragment::parse(&text);
        if let Ok(read) = Fragment::parse(&(lines + NEW)) {
            let next = read.restarting(&offer());
            prop_assert!(Session::parse(next.to_string().as_bytes()).is_ok());
        }
    }
}
