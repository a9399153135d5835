//! The trunk of browsers, and calls to accounts.

use base::{Reason, TrunkName};

use super::world::*;
use crate::{
    Admission, Attempt, Destination, DtlsLibrary, Observed, Protection, Target, Transport, admit,
    decide, load,
};

const BROWSERS: &str = "[trunk.browsers]\nfrom = { browsers = true }\n";

fn with_route(send_to: &str) -> String {
    format!("{BROWSERS}[[route]]\nsend_to = {send_to}\n{POLICY}")
}

fn admitted(text: &str, source: &str, transport: Transport) -> Result<String, Reason> {
    let local = "10.0.0.1:8443".parse().unwrap();
    let at = idle().wall;
    match admit(&policy(text), source.parse().unwrap(), local, transport, &[], at) {
        Admission::Trunk(trunk) => Ok(trunk.to_string()),
        Admission::Refused { reason, .. } => Err(reason),
    }
}

fn target(text: &str, call: &Attempt, observed: &Observed) -> Result<Target, Reason> {
    let decision = decide(&policy(text), call, observed);
    let Some(accepted) = decision.accepted() else { return Err(refusal(&decision)) };
    let Destination::Trunk { targets } = &accepted.destination else { panic!("{decision:?}") };
    assert_eq!(targets.len(), 1);
    Ok(targets[0].clone())
}

#[test]
fn whoever_comes_over_the_port_of_browsers_is_their_trunk() {
    let text = with_route("{ agent = \"reception\" }");
    for transport in [Transport::Wss, Transport::Whip] {
        assert_eq!(admitted(&text, "192.0.2.77", transport).as_deref(), Ok("browsers"));
    }
    assert_eq!(admitted(&text, "192.0.2.77", Transport::Tls), Err(Reason::UnknownPeer));
    let ws = admitted(&text, "192.0.2.77", Transport::Ws);
    assert_eq!(ws, Err(Reason::PlaintextSignalling));
    // A carrier's network makes nobody a carrier there.
    assert_eq!(admitted(&text, "198.51.100.9", Transport::Wss).as_deref(), Ok("browsers"));
    assert_eq!(admitted(&text, "198.51.100.9", Transport::Tls).as_deref(), Ok("acme"));
}

#[test]
fn what_a_browsers_trunk_presents_names_a_caller_and_no_other_trunk_has_it() {
    let with = |present: &str| format!("{BROWSERS}present = \"{present}\"\n{POLICY}");
    let trunk = TrunkName::new("browsers");
    assert_eq!(policy(&with("+498912345678")).present(&trunk), Some("+498912345678"));
    assert_eq!(policy(&with("reception")).present(&trunk), Some("reception"));
    assert_eq!(policy(&with_route("{ agent = \"reception\" }")).present(&trunk), None);
    for wrong in ["", "+49 89", "a@b"] {
        let found = errors(&format!("{BROWSERS}present = \"{wrong}\"\n"));
        assert!(found.iter().any(|(_, it)| it.contains("names no caller")), "{found:?}");
    }
    let found =
        errors("[trunk.a]\nfrom = { networks = [\"192.0.2.0/24\"] }\npresent = \"+4989\"\n");
    assert!(found.iter().any(|(_, it)| it.contains("only the callers of browsers")), "{found:?}");
}

#[test]
fn networks_and_transports_narrow_the_browsers() {
    let text = format!(
        "[trunk.browsers]\nfrom = {{ browsers = true, networks = [\"192.0.2.0/24\"] }}\n\
         transports = [\"whip\"]\n{POLICY}"
    );
    assert_eq!(admitted(&text, "192.0.2.77", Transport::Whip).as_deref(), Ok("browsers"));
    assert_eq!(admitted(&text, "203.0.113.77", Transport::Whip), Err(Reason::UnknownPeer));
    assert_eq!(admitted(&text, "192.0.2.77", Transport::Wss), Err(Reason::TransportNotAllowed));
}

#[test]
fn a_zone_gives_browsers_its_media_and_not_its_listeners() {
    let text = format!(
        "[zone.inside]\nlisten.tls = [\"10.0.0.9:5061\"]\nmedia = \"10.0.0.9\"\n\
         {BROWSERS}zone = \"inside\"\n[trunk.b]\nfrom = {{ networks = [\"10.1.0.0/16\"] }}\n\
         zone = \"inside\"\n[[route]]\nsend_to = {{ agent = \"x\" }}\n"
    );
    assert_eq!(admitted(&text, "192.0.2.77", Transport::Wss).as_deref(), Ok("browsers"));
    let call = Attempt { transport: Transport::Wss, ..good_call() };
    let decision = decide(&policy(&text), &call, &idle());
    assert_eq!(decision.accepted().unwrap().terms.zone.as_deref(), Some("inside"));
}

#[test]
fn a_route_sends_calls_to_an_account_on_the_browsers_terms() {
    let text = with_route("{ account = \"alice\" }");
    let target = target(&text, &good_call(), &idle()).unwrap();
    assert_eq!(target.trunk.as_str(), "browsers");
    assert_eq!(target.send_to, ["sip:alice@accounts.invalid;transport=wss"]);
    assert!(!target.plaintext && target.terms.plain_media_from.is_empty());
    assert_eq!(target.terms.srtp_outbound, Protection::Required);
    let decision = decide(&policy(&text), &good_call(), &idle());
    assert!(!format!("{decision:?}").contains("alice"), "a person's name in a log");
}

#[test]
fn the_called_user_names_the_account_whatever_it_holds() {
    let text = with_route("{ accounts = true }");
    let to = |called: &str| {
        let call = Attempt { called: called.to_owned(), ..good_call() };
        target(&text, &call, &idle()).map(|it| it.send_to[0].clone())
    };
    assert_eq!(to("bob").as_deref(), Ok("sip:bob@accounts.invalid;transport=wss"));
    let odd = to("a b@c;d?e%\u{e9}");
    assert_eq!(odd.as_deref(), Ok("sip:a%20b%40c%3Bd%3Fe%25%C3%A9@accounts.invalid;transport=wss"));
    assert_eq!(to(""), Err(Reason::AccountNotRegistered));
}

#[test]
fn limits_of_the_browsers_hold_for_calls_to_accounts() {
    let text = with_route("{ account = \"alice\" }");
    let text = text.replace(BROWSERS, &format!("{BROWSERS}limits = {{ calls = 2 }}\n"));
    assert!(target(&text, &good_call(), &busy("browsers", 1, 0)).is_ok());
    let full = target(&text, &good_call(), &busy("browsers", 2, 0));
    assert_eq!(full, Err(Reason::TrunkCallLimit));
}

#[test]
fn what_cannot_be_true_of_browsers_is_an_error() {
    for (line, expected) in [
        ("transports = [\"wss\", \"tls\"]", "no browser comes over `tls`"),
        ("transports = []", "the list is empty"),
        ("send_to = [\"sip:a.example\"]", "browsers are called by their account"),
        ("srtp.inbound = \"optional\"", "plain RTP is not exempted on this trunk"),
        ("tls = { ca = \"a.pem\" }", "no connection is opened to browsers"),
        (
            "media_from = [\"10.0.0.0/8\"]\n\
             exempt.media = { reason = \"x\", expires = 2027-01-31, inbound = true }",
            "browsers have no plain RTP",
        ),
    ] {
        let found = errors(&format!("{BROWSERS}{line}\n"));
        assert!(found.iter().any(|(_, it)| it == expected), "{line}: {found:?}");
    }
    let certificates =
        errors("[trunk.b]\nfrom = { browsers = true, certificates = [\"a.example\"] }\n");
    assert_eq!(certificates[0].1, "browsers show no client certificate");
    let none = errors("[trunk.b]\nfrom = { browsers = false }\n");
    assert_eq!(none[0].1, "`from` names nobody");
}

#[test]
fn the_transports_of_browsers_are_theirs_alone() {
    for word in ["wss", "whip"] {
        let text = format!(
            "[trunk.a]\nfrom = {{ networks = [\"10.0.0.0/8\"] }}\ntransports = [\"{word}\"]\n"
        );
        let errors = load(&[("policy.toml", &text)], None).unwrap_err();
        assert_eq!(errors.0[0].message, format!("only browsers come over `{word}`"));
        assert!(errors.0[0].help.as_ref().unwrap().contains("from = { browsers = true }"));
    }
}

#[test]
fn there_is_one_trunk_of_browsers() {
    let text = format!("{BROWSERS}[trunk.more]\nfrom = {{ browsers = true }}\n");
    let found = errors(&text);
    assert_eq!(found, [(4, "browsers are trunk `browsers` already".to_owned())]);
}

#[test]
fn calls_to_accounts_need_the_trunk_of_browsers_and_a_name() {
    for (send_to, expected) in [
        ("{ account = \"alice\" }", "no trunk is for accounts"),
        ("{ accounts = true }", "no trunk is for accounts"),
        ("{ account = \"\" }", "this names no account"),
        ("{ account = \"a b\" }", "this names no account"),
        ("{ accounts = false }", "where does the call go?"),
        ("{ account = \"alice\", accounts = true }", "where does the call go?"),
        ("{ account = \"alice\", agent = \"x\" }", "where does the call go?"),
    ] {
        let found = errors(&format!("[[route]]\nsend_to = {send_to}\n{POLICY}"));
        assert_eq!(found[0].1, expected, "{send_to}");
    }
    let (known, _) =
        load(&[("policy.toml", &with_route("{ account = \"alice\" }"))], None).unwrap();
    assert!(known.accounts().eq(["alice"]));
}

#[test]
fn a_trunk_of_browsers_that_is_only_called_is_not_warned_of() {
    let text = format!(
        "{BROWSERS}[trunk.acme]\nfrom = {{ networks = [\"198.51.100.0/24\"] }}\n\
         [[route]]\nrecord = true\nsend_to = {{ accounts = true }}\n"
    );
    assert_eq!(warnings(&text, &[]), []);
}

#[test]
fn a_browser_that_is_refused_is_let_in_by_the_smallest_change() {
    let narrow = "[trunk.browsers]\nfrom = { browsers = true, networks = [\"192.0.2.0/24\"] }\n\
                  transports = [\"whip\"]\n[[route]]\nsend_to = { agent = \"x\" }\n";
    for (source, transport) in [("192.0.2.7", Transport::Wss), ("2001:db8::7", Transport::Whip)] {
        let call = Attempt { source: socket(source), transport, ..good_call() };
        let explanation = crate::explain(&policy(narrow), &call, &idle());
        assert!(explanation.decision.accepted().is_none());
        let change = explanation.change.expect("one is found");
        assert_eq!(change.len(), 1, "{change:#?}");
    }
}

#[test]
fn a_trunk_names_the_library_of_its_handshakes() {
    let text = |line: &str| {
        let from = "from = { browsers = true }\n";
        with_route("{ account = \"alice\" }").replace(from, &format!("{from}{line}\n"))
    };
    let library = |text: &str| target(text, &good_call(), &idle()).unwrap().terms.dtls_library;
    assert_eq!(library(&text("")), DtlsLibrary::Dimpl);
    assert_eq!(library(&text("dtls_library = \"dimpl\"")), DtlsLibrary::Dimpl);
    let other = text("dtls_library = \"webrtc-dtls\"");
    assert_eq!(library(&other), DtlsLibrary::WebrtcDtls);
}
