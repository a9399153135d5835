use super::*;

fn session(text: &str) -> Session {
    Session::parse(text.as_bytes()).unwrap()
}

fn browser(direction: &str) -> Session {
    session(&format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111 63 0\r\n\
         c=IN IP4 0.0.0.0\r\na=mid:0\r\na=setup:actpass\r\na=ice-ufrag:brow\r\n\
         a=ice-pwd:browserbrowserbrowser00\r\na=fingerprint:sha-256 AA:BB\r\na={direction}\r\n\
         a=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\n\
         a=fmtp:63 111/111\r\na=rtcp-fb:* nack\r\n"
    ))
}

fn edge(setup: &str, direction: &str) -> String {
    format!(
        "v=0\r\no=cg 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=audio 10000 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=setup:{setup}\r\na=ice-ufrag:edge\r\n\
         a=ice-pwd:edgeedgeedgeedgeedgeedge\r\na=fingerprint:sha-256 CC:DD\r\n\
         a=rtpmap:111 opus/48000/2\r\na={direction}\r\n"
    )
}

fn said(ours: &str, theirs: &str, offer: &str) -> Option<String> {
    answer(&browser(ours), &session(theirs), &session(offer)).map(|it| it.to_string())
}

#[test]
fn hold_and_resume_are_answered_with_what_both_do() {
    let theirs = edge("passive", "sendrecv");
    for (ours, offered, expected) in [
        ("sendrecv", "sendonly", "recvonly"),
        ("sendrecv", "inactive", "inactive"),
        ("sendrecv", "recvonly", "sendonly"),
        ("sendrecv", "sendrecv", "sendrecv"),
        ("sendonly", "sendrecv", "sendonly"),
        ("sendonly", "sendonly", "inactive"),
    ] {
        let said = said(ours, &theirs, &edge("actpass", offered)).unwrap();
        assert!(said.contains(&format!("\r\na={expected}\r\n")), "{offered}: {said}");
        assert!(said.contains("a=setup:active\r\n"), "the roles stay: {said}");
        assert!(said.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"), "{said}");
        assert!(!said.contains(":63 ") && said.contains("a=rtcp-fb:* nack"), "{said}");
        assert!(said.contains("a=ice-ufrag:brow"));
        assert!(said.contains("o=- 1 3 IN"), "{said}");
    }
    let active = edge("active", "recvonly");
    let said = said("sendonly", &active, &edge("actpass", "recvonly")).unwrap();
    assert!(said.contains("a=setup:passive\r\n"));
}

#[test]
fn what_the_browser_would_have_to_know_is_not_answered_for_it() {
    let theirs = edge("passive", "sendrecv");
    for (from, to) in [
        ("10000", "10002"),
        ("IN IP4 192.0.2.1\r\nt=", "IN IP4 192.0.2.2\r\nt="),
        ("ice-ufrag:edge", "ice-ufrag:edg2"),
        ("edgeedgeedgeedgeedgeedge", "otherotherotherotherother"),
        ("CC:DD", "CC:DE"),
        ("SAVPF 111", "SAVPF 0"),
        ("a=mid:0", "a=mid:1"),
        ("m=audio 10000", "m=audio 0"),
    ] {
        let offer = theirs.replace(from, to);
        assert_ne!(offer, theirs);
        assert_eq!(said("sendrecv", &theirs, &offer), None, "{to}");
    }
    let video = theirs.clone() + "m=video 10002 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n";
    assert_eq!(said("sendrecv", &theirs, &video), None);
    let more = theirs.replace("SAVPF 111", "SAVPF 111 0");
    assert!(said("sendrecv", &theirs, &more).is_some(), "more codecs change nothing");
}
