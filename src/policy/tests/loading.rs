//! What loads, what does not, and how it is said: DESIGN invariant 4.9.

use super::world::*;
use crate::{Errors, load};

fn load_two(one: &str, two: &str) -> Result<(), Errors> {
    load(&[("a.toml", one), ("b.toml", two)], None).map(|_| ())
}

const FROM: &str = "from = { networks = [\"10.0.0.0/8\"] }\n";

/// The only error of a trunk with these lines below `from`, which is line 2.
fn trunk_error(lines: &str) -> String {
    let all = errors(&format!("[trunk.a]\n{FROM}{lines}"));
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].1.clone()
}

#[test]
fn an_unknown_key_names_its_line_column_and_what_was_meant() {
    let text = format!("[trunk.a]\n{FROM}transprots = [\"tls\"]\n");
    let errors = load(&[("policies/a.toml", &text)], None).unwrap_err();
    let expected = "policies/a.toml:3:1: error: unknown key `transprots`\n   |\n \
                    3 | transprots = [\"tls\"]\n   | ^^^^^^^^^^ \
                    did you mean `transports`?\n\n1 error";
    assert_eq!(errors.to_string(), expected);
}

#[test]
fn an_unknown_word_names_what_was_meant() {
    let table = [
        ("transports = [\"tsl\"]", "unknown word `tsl`", "did you mean `tls`?"),
        ("srtp = { inbound = \"requierd\" }", "unknown word `requierd`", "`required`"),
        ("recording = \"newer\"", "unknown word `newer`", "`never`"),
        ("dtls_library = \"webrtc\"", "unknown word `webrtc`", "`webrtc-dtls`"),
        ("codecs = [\"pcna\"]", "unknown word `pcna`", "did you mean"),
        ("suites = [\"AES_CM_128_HMAC_SHA1_8\"]", "unknown word", "AES_CM_128_HMAC_SHA1_80"),
    ];
    for (line, message, help) in table {
        let text = format!("[trunk.a]\n{FROM}{line}\n");
        let errors = load(&[("a.toml", &text)], None).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert!(errors.0[0].message.contains(message), "{errors}");
        assert!(errors.0[0].help.as_ref().is_some_and(|it| it.contains(help)), "{errors}");
        assert_eq!(errors.0[0].line, 3);
    }
}

#[test]
fn every_error_of_every_file_is_reported_at_once() {
    let one = "[trunk.a]\nform = 1\ntransports = [\"tsl\", \"tls\"]\ncodecs = [\"opsu\"]\n\
               [[route]]\nwhen = { calld = 1 }\n";
    let two = "[zone.z]\nlisten = \"here\"\n[rout]\n";
    let errors = load_two(one, two).unwrap_err();
    let places: Vec<_> = errors.0.iter().map(|it| (it.file.as_str(), it.line)).collect();
    let expected =
        [("a.toml", 2), ("a.toml", 3), ("a.toml", 4), ("a.toml", 6), ("b.toml", 2), ("b.toml", 3)];
    assert_eq!(places, expected, "{errors}");
    assert!(errors.to_string().ends_with("6 errors"));
}

#[test]
fn two_files_make_one_policy_in_their_order() {
    let one = "[trunk.a]\nfrom = { networks = [\"10.0.0.1\"] }\nzone = \"z\"\n\
               [[route]]\nwhen = { trunk = \"b\" }\nrefuse = {}\n";
    let two = "[trunk.b]\nfrom = { networks = [\"10.0.0.2\"] }\n[zone.z]\n\
               listen.tls = [\"10.0.0.9:5061\"]\n\
               [[route]]\nsend_to = { agent = \"x\" }\n";
    let (policy, _) = load(&[("a.toml", one), ("b.toml", two)], None).unwrap();
    assert_eq!(policy.trunks().map(|it| it.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(policy.routes(), 2);
    assert_eq!(policy.zone("z").unwrap().advertise.as_deref(), Some("10.0.0.9"));
    assert_eq!(policy.agents().len(), 1);
}

#[test]
fn a_name_that_is_there_twice_names_both_places() {
    let trunk = format!("# a comment\n[trunk.acme]\n{FROM}");
    let errors = load_two(&trunk, &trunk).unwrap_err();
    assert_eq!(errors.0.len(), 1);
    assert_eq!((errors.0[0].file.as_str(), errors.0[0].line), ("b.toml", 2));
    assert_eq!(errors.0[0].message, "trunk `acme` is already defined at a.toml:2");

    let same = format!("[zone.acme]\n{trunk}[trunk.acme]\n{FROM}");
    let errors = load(&[("a.toml", &same)], None).unwrap_err();
    assert!(errors.0[0].message.contains("`acme` is already defined at a.toml:3"), "{errors}");
    assert_eq!(errors.0[0].line, 5);

    let twice = format!("[trunk.a]\n{FROM}codecs = [\"opus\"]\ncodecs = [\"pcma\"]\n");
    let errors = load(&[("a.toml", &twice)], None).unwrap_err();
    assert!(errors.0[0].message.contains("`codecs` is already defined at a.toml:3"), "{errors}");

    let errors = load_two("[defaults]\n", "\n[defaults]\n").unwrap_err();
    assert_eq!(errors.0[0].message, "[defaults] already stands at a.toml:1");
}

#[test]
fn broken_toml_is_reported_with_its_place() {
    let errors = errors("a = 1 2\nb = = 3\n");
    assert!(errors.iter().any(|(line, _)| *line == 1), "{errors:?}");
    assert!(errors.iter().any(|(line, _)| *line == 2), "{errors:?}");
}

#[test]
fn a_plaintext_transport_needs_an_exemption() {
    for word in ["udp", "tcp", "ws"] {
        let error = trunk_error(&format!("transports = [\"tls\", \"{word}\"]"));
        assert_eq!(error, format!("`{word}` is plaintext and this trunk is not exempted"));
    }
    let error = trunk_error("send_to = [\"sip:a.example;transport=udp\"]");
    assert_eq!(error, "`udp` is plaintext and this trunk is not exempted");
}

#[test]
fn optional_srtp_needs_an_exemption_in_its_direction() {
    for direction in ["inbound", "outbound"] {
        let error = trunk_error(&format!("srtp = {{ {direction} = \"optional\" }}"));
        assert_eq!(error, "plain RTP is not exempted on this trunk");
    }
    let inbound_only = "exempt.media = { reason = \"x\", expires = 2027-01-31, inbound = true }\n\
                        srtp = { inbound = \"optional\", outbound = \"optional\" }";
    assert_eq!(trunk_error(inbound_only), "plain RTP is not exempted on this trunk");
}

#[test]
fn an_exemption_needs_a_reason_a_day_and_a_direction() {
    let table = [
        ("exempt.signalling = { expires = 2027-01-31 }", "`reason` is missing"),
        ("exempt.signalling = { reason = \"x\" }", "`expires` is missing"),
        ("exempt.signalling = { reason = \" \", expires = 2027-01-31 }", "needs a reason"),
        ("exempt.signalling = { reason = \"x\", expires = \"2027-01-31\" }", "not a day"),
        ("exempt.signalling = { reason = \"x\", expires = 2027-01-31T10:00:00Z }", "not a day"),
        ("exempt.signalling = { reason = \"x\", expires = 1969-01-31 }", "not a day"),
        ("exempt.media = { reason = \"x\", expires = 2027-01-31 }", "names no direction"),
    ];
    for (line, expected) in table {
        let error = trunk_error(line);
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn plain_rtp_needs_networks_to_come_from() {
    let text = "[trunk.a]\nfrom = { certificates = [\"a.example\"] }\n\
                exempt.media = { reason = \"x\", expires = 2027-01-31, inbound = true }\n";
    assert!(errors(text)[0].1.contains("needs networks to come from"));
    policy(&format!("{text}media_from = [\"10.0.0.0/8\"]\n"));
}

#[test]
fn contradictions_within_a_trunk_are_errors() {
    let table = [
        ("zone = \"nowhere\"", "there is no zone `nowhere`"),
        ("codecs = []", "the list is empty"),
        ("transports = []", "the list is empty"),
        ("codecs = [\"opus\", \"opus\"]", "`opus` is listed twice"),
        ("transports = [\"tls\", \"tls\"]", "`tls` is listed twice"),
        ("max_duration = \"5h\"", "the time is out of range"),
        ("max_duration = \"0s\"", "the time is out of range"),
        ("ring = \"4m\"", "the time is out of range"),
        ("first_response = \"33s\"", "the time is out of range"),
        ("first_response = \"0s\"", "the time is out of range"),
        ("digest = { user = \"a\" }", "`password_file` is missing"),
        ("digest = { user = \"a\", password = \"b\" }", "unknown key `password`"),
        ("digest = { user = \"a:b\", password_file = \"p\" }", "this is no user name"),
        ("digest = { user = \"a\", password_file = \"\" }", "no file is named"),
        ("digest = { user = \"a\", password_file = \"p\", realm = '\"' }", "this is no realm"),
        ("max_duration = \"5 hours\"", "not a time"),
        ("max_duration = \"99999999999h\"", "not a time"),
        ("media_from = [\"10.0.0.1/8\"]", "has bits set after its prefix"),
        ("media_from = [\"example.org\"]", "not a network"),
        ("send_to = [\"acme.example\"]", "the URI must begin with"),
        ("limits = { calls = -1 }", "invalid value"),
        ("numbers = { country = \"1\" }", "not a country code"),
        ("numbers = { national = \"0\" }", "national numbers without a country"),
        ("numbers = { bare = \"national\" }", "national numbers without a country"),
        ("numbers = { international = \"0x\" }", "not a dialling prefix"),
    ];
    for (line, expected) in table {
        let error = trunk_error(line);
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn no_route_goes_on_after_the_last_word_of_the_called_party() {
    let with = |to: &str, list: &str| {
        format!(
            "[trunk.a]\n{FROM}send_to = [\"sip:a.example\"]\n[[route]]\nsend_to = {{ {to} }}\n\
             failover = [{list}]\n"
        )
    };
    for never in ["486", "603", "\"6xx\"", "\"603\"", "401", "407", "487", "302", "200"] {
        let found = errors(&with("trunk = \"a\"", never));
        assert!(found[0].1.contains("no other trunk is tried after"), "{never}: {found:?}");
    }
    for wrong in ["\"busy\"", "true", "99", "\"7xx\"", "-503"] {
        assert!(!errors(&with("trunk = \"a\"", wrong)).is_empty(), "{wrong}");
    }
    let found = errors(&with("agent = \"x\"", "503"));
    assert!(found[0].1.contains("no trunk to go on from"), "{found:?}");
    policy(&with("trunk = \"a\"", "403, 404, \"480\", \"5xx\", \"4xx\""));
    policy(&with("trunks = [{ name = \"a\" }]", ""));
}

#[test]
fn a_password_over_plaintext_is_warned_of() {
    let text = |to: &str| {
        format!(
            "[trunk.a]\n{FROM}send_to = [\"sip:a.example{to}\"]\n\
             digest = {{ user = \"u\", password_file = \"/etc/p\" }}\n\
             exempt.signalling = {{ reason = \"x\", expires = 2027-01-31 }}\n\
             [[route]]\nrefuse = {{}}\n"
        )
    };
    let warns = |to: &str| {
        let found = warnings(&text(to), &[]);
        found.iter().any(|it| it.0.message.contains("hashes of this password"))
    };
    assert!(warns(";transport=udp") && !warns(";transport=tls"));
}

#[test]
fn a_bad_network_is_marked_alone_and_not_its_whole_list() {
    let text = "[trunk.a]\nfrom = { networks = [\"10.0.0.0/8\", \"10.0.0.300\"] }\n";
    let errors = load(&[("a.toml", text)], None).unwrap_err();
    assert_eq!((errors.0[0].column, errors.0[0].width), (36, 12), "{errors}");
}

#[test]
fn a_trunk_must_be_somebody_or_somewhere() {
    assert!(errors("[trunk.a]\n")[0].1.contains("neither `from` nor `send_to`"));
    assert!(errors("[trunk.a]\nfrom = {}\n")[0].1.contains("names nobody"));
    assert!(errors("[trunk.a]\nfrom = { networks = [] }\n")[0].1.contains("names nobody"));
    let wildcard = "[trunk.a]\nfrom = { certificates = [\"*.example\"] }\n";
    assert!(errors(wildcard)[0].1.contains("names no peer"));
    assert!(
        errors("[trunk.\"a b\"]\nsend_to = [\"sip:a\"]\n")[0].1.contains("cannot name a trunk")
    );
}

#[test]
fn a_route_does_exactly_one_thing_with_trunks_that_exist() {
    let table = [
        ("", "the route does nothing"),
        ("send_to = { agent = \"x\" }\nrefuse = {}", "either sends or refuses"),
        ("send_to = {}", "where does the call go?"),
        ("send_to = { agent = \"x\", trunk = \"out\" }", "where does the call go?"),
        ("send_to = { trunk = \"otu\" }", "there is no trunk `otu`"),
        ("send_to = { trunk = \"in\" }", "trunk `in` has no `send_to`"),
        ("send_to = { trunks = [] }", "the list is empty"),
        ("send_to = { trunks = [{ name = \"out\", weight = 0 }] }", "out of range"),
        ("send_to = { trunks = [{ name = \"out\" }, { name = \"out\" }] }", "listed twice"),
        ("refuse = { status = 200 }", "cannot refuse with 200"),
        ("when = { trunk = \"inn\" }\nrefuse = {}", "there is no trunk `inn`"),
        ("when = { called = {} }\nrefuse = {}", "the condition is empty"),
        ("when = { called = { prefix = \"\" } }\nrefuse = {}", "matches nothing sensible"),
    ];
    let head = format!("[trunk.in]\n{FROM}[trunk.out]\nsend_to = [\"sip:a.example\"]\n[[route]]\n");
    for (lines, expected) in table {
        let all = errors(&format!("{head}{lines}\n"));
        assert_eq!(all.len(), 1, "{lines}: {all:?}");
        assert!(all[0].1.contains(expected), "{lines}: {all:?}");
    }
}

#[test]
fn a_trunk_with_errors_still_counts_as_known_to_routes() {
    let text = "[trunk.a]\nform = {}\n[[route]]\nwhen = { trunk = \"a\" }\nrefuse = {}\n";
    assert_eq!(errors(text).len(), 1);
}

#[test]
fn defaults_hold_where_a_trunk_says_nothing_and_cannot_loosen_security() {
    let text = "[defaults]\ncodecs = [\"pcmu\"]\nlimits = { calls = 1, calls_per_second = 9 }\n\
                max_duration = \"10m\"\nrecording = \"allowed\"\n\
                [trunk.a]\nfrom = { networks = [\"198.51.100.0/24\"] }\nlimits = { calls = 2 }\n\
                [[route]]\nsend_to = { agent = \"x\" }\n";
    let mut call = good_call();
    call.offer.codecs = vec!["PCMU".to_owned()];
    let decide = |calls, rate| crate::decide(&policy(text), &call, &busy("a", calls, rate));
    let decision = decide(1, 8);
    let terms = &decision.accepted().unwrap().terms;
    assert_eq!(terms.max_duration.as_secs(), 600);
    assert_eq!(terms.recording, crate::Keep::Allowed);
    assert!(decide(2, 0).refusal().is_some() && decide(0, 9).refusal().is_some());
    for key in ["transports = [\"udp\"]", "from = {}", "srtp = {}", "exempt = {}"] {
        assert!(errors(&format!("[defaults]\n{key}\n"))[0].1.contains("unknown key"), "{key}");
    }
}

#[test]
fn what_loads_but_is_odd_is_warned_of() {
    let agent = "[[route]]\nsend_to = { agent = \"reception\" }\n";
    let signalling = "exempt.signalling = { reason = \"x\", expires = 2027-01-31 }\n";
    let media = "exempt.media = { reason = \"x\", expires = 2027-01-31, inbound = true }\n";
    let table = [
        (
            format!("[trunk.a]\n{FROM}transports = [\"udp\"]\n{signalling}{agent}"),
            "cross plaintext",
        ),
        (format!("[trunk.a]\n{FROM}{signalling}{agent}"), "this exemption has no effect"),
        (
            format!("[trunk.a]\n{FROM}srtp.inbound = \"required\"\n{media}{agent}"),
            "`inbound` of this exemption has no effect",
        ),
        (format!("[trunk.a]\nfrom.networks = [\"0.0.0.0/0\"]\n{agent}"), "is every address"),
        (format!("[trunk.a]\nfrom.networks = [\"::/0\"]\n{agent}"), "is every address"),
        (format!("[trunk.a]\n{FROM}"), "no route takes calls from trunk `a`"),
        (format!("[trunk.a]\nsend_to = [\"sip:a.example\"]\n{agent}"), "no call comes from trunk"),
        (format!("[trunk.a]\n{FROM}{agent}{agent}"), "no call reaches this route"),
        (
            format!("[trunk.a]\n{FROM}{agent}[[route]]\nwhen = {{ trunk = \"a\" }}\nrefuse = {{}}"),
            "at policy.toml:3 takes them all",
        ),
        (
            format!(
                "[trunk.a]\n{FROM}[[route]]\nwhen = {{ trunk = \"a\", transport = \"wss\" }}\n\
                 refuse = {{}}\n{agent}"
            ),
            "does not use `wss`",
        ),
        (
            format!("[trunk.a]\n{FROM}[[route]]\nsend_to = {{ agent = \"recepton\" }}\n"),
            "there is no voice agent `recepton`",
        ),
        (format!("[trunk.a]\n{FROM}[trunk.b]\n{FROM}{agent}"), "may be `a` at policy.toml:1"),
        (
            format!("[trunk.a]\n{FROM}[trunk.b]\nfrom.networks = [\"10.1.0.0/16\"]\n{agent}"),
            "10.1.0.0/16 may be `a`",
        ),
        (
            format!(
                "[trunk.a]\nfrom.certificates = [\"x.example\"]\ntransports = [\"tcp\"]\n\
                 {signalling}{agent}"
            ),
            "no transport of this trunk carries one",
        ),
        (
            format!(
                "[trunk.a]\nfrom.certificates = [\"x.example\"]\n\
                 transports = [\"tls\", \"tcp\"]\n{signalling}{agent}"
            ),
            "no certificate comes over tcp",
        ),
    ];
    for (text, expected) in table {
        let found = warnings(&text, &["reception"]);
        assert!(found.iter().any(|it| it.0.message.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn a_good_policy_gives_no_warning() {
    let narrow_first = "[trunk.a]\nfrom.networks = [\"10.1.0.0/16\"]\n\
                        [trunk.b]\nfrom.networks = [\"10.0.0.0/8\"]\n\
                        [trunk.c]\nfrom = { certificates = [\"c.example\"] }\n\
                        [[route]]\nwhen = { called = { prefix = \"+1800\" } }\nrefuse = {}\n\
                        [[route]]\nwhen = { called = { prefix = \"+1\" } }\n\
                        send_to = { agent = \"reception\" }\n";
    assert_eq!(warnings(narrow_first, &["reception"]), []);
}

#[test]
fn a_policy_over_a_limit_does_not_load() {
    let big = "#".repeat(base::limit::POLICY_FILE_BYTES.get() + 1);
    assert!(errors(&big)[0].1.contains("policy.file_bytes"));
    let many = "[[route]]\nrefuse = {}\n".repeat(base::limit::POLICY_ROUTES.get() + 1);
    assert!(errors(&many)[0].1.contains("policy.routes"));
}

#[test]
fn a_large_policy_loads_and_its_shadowed_route_is_found() {
    let mut text = format!("[trunk.a]\n{FROM}");
    for number in 0..base::limit::POLICY_ROUTES.get() - 1 {
        let prefix = format!("+1{number:05}");
        text += &format!(
            "[[route]]\nwhen = {{ called = {{ prefix = \"{prefix}\" }} }}\nrefuse = {{}}\n"
        );
    }
    text += "[[route]]\nwhen = { called = { exact = \"+1000426\" } }\nrefuse = {}\n";
    let found = warnings(&text, &[]);
    assert_eq!(found.len(), 1);
    assert!(found[0].0.message.contains("at policy.toml:129 takes them all"), "{found:?}");
}

#[test]
fn no_more_errors_are_reported_than_a_person_reads() {
    let many: String = (0..1000).map(|number| format!("wrong_{number} = 1\n")).collect();
    let errors = load(&[("a.toml", &format!("[trunk.a]\n{many}"))], None).unwrap_err();
    assert_eq!(errors.0.len(), base::limit::POLICY_FINDINGS.get());
}

#[test]
fn a_transport_that_nothing_listens_for_is_warned_of() {
    let text = POLICY.replace("[\"tls\", \"udp\"]", "[\"tls\", \"udp\", \"ws\"]");
    let told: Vec<_> =
        warnings(&text, &["reception", "echo"]).into_iter().map(|it| it.0.message).collect();
    assert!(told.contains(&"nothing listens for ws of trunk `lab`".to_owned()), "{told:?}");
}

#[test]
fn a_trunk_that_is_called_over_udp_and_comes_from_nowhere_is_warned_of() {
    let trunk = |from: &str| {
        format!(
            "[trunk.beta]\n{from}send_to = [\"sip:192.0.2.7;transport=udp\"]\n\
             transports = [\"udp\"]\n\
             exempt.signalling = {{ reason = \"NET-4711\", expires = 2027-01-31 }}\n\
             [[route]]\nsend_to = {{ trunk = \"beta\" }}\n"
        )
    };
    let told = |from: &str| {
        let warnings = warnings(&format!("{POLICY}{}", trunk(from)), &["reception", "echo"]);
        warnings.iter().filter(|it| it.0.message.contains("BYE will be refused")).count()
    };
    assert_eq!(told(""), 1);
    assert_eq!(told("from = { networks = [\"192.0.2.7/32\"] }\n"), 0);
}
