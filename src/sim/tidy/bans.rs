//! What is not written here, and what is written instead.

use super::scan::{Source, line_of, words};
use super::{members, none, tree};

/// Which text a ban looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    /// Code, without tests.
    Product,
    /// Code, with tests.
    Code,
    /// Code with tests of tiers 0-3.
    Pure,
    /// Comments and strings too.
    Text,
}

struct Ban {
    text: &'static str,
    within: In,
    instead: &'static str,
    /// Files or folders that may, and why.
    but: &'static [(&'static str, &'static str)],
}

const fn ban(text: &'static str, within: In, instead: &'static str) -> Ban {
    Ban { text, within, instead, but: &[] }
}

const PRINTS: &[(&str, &str)] =
    &[("src/main.rs", "a program talks to its user"), ("src/cli/", "a program talks to its user")];

/// The bans; put together where this file would find itself.
const BANS: &[Ban] = &[
    ban("unbounded_channel", In::Code, "a bounded channel with a full policy and a counter"),
    ban("unbounded()", In::Code, "a bounded channel with a full policy and a counter"),
    ban("mpsc::channel()", In::Code, "std::sync::mpsc::sync_channel with a limit of base::limit"),
    ban("todo!", In::Code, "the code, or leave the feature out"),
    ban("unimplemented!", In::Code, "the code, or leave the feature out"),
    ban("dbg!", In::Code, "a test or an event"),
    ban("assert!(true", In::Code, "a check that can fail"),
    ban("#[ignore", In::Code, "a test that runs, or none"),
    Ban {
        text: "Arc<Mutex<",
        within: In::Product,
        instead: "one owner and messages to it (DESIGN section 3)",
        but: &[(
            "src/loadgen/line.rs",
            "the calls of a connection; each step is one map operation",
        )],
    },
    ban("Arc<RwLock<", In::Product, "one owner and messages to it, or arc-swap for what is read"),
    ban(".unwrap()", In::Product, "`?`, a default, or a type that cannot fail"),
    ban("HashMap", In::Pure, "BTreeMap: the order of a HashMap is random"),
    ban("HashSet", In::Pure, "BTreeSet: the order of a HashSet is random"),
    ban("std::thread", In::Pure, "tiers 0-3 own no thread; edge does"),
    ban("async fn", In::Pure, "the four verbs of DESIGN section 2"),
    ban("tokio::spawn", In::Pure, "the four verbs of DESIGN section 2"),
    ban("fn get_", In::Code, "the noun alone, or a verb that says how (STYLE section 3)"),
    ban(concat!("FIX", "ME"), In::Text, "the fix, or an issue and no trace here"),
    ban(concat!("TO", "DO"), In::Text, "the work, or an issue and no trace here"),
    ban(concat!("X", "XX"), In::Text, "the fix, or an issue and no trace here"),
    Ban {
        text: "println!",
        within: In::Product,
        instead: "an event (base::event), or a value that cli prints",
        but: PRINTS,
    },
    Ban {
        text: "eprintln!",
        within: In::Product,
        instead: "an event (base::event), or a value that cli prints",
        but: PRINTS,
    },
    Ban {
        text: "print!",
        within: In::Product,
        instead: "an event (base::event), or a value that cli prints",
        but: PRINTS,
    },
];

/// Endings of type names that say nothing (STYLE section 3).
const EMPTY_ENDINGS: &[&str] =
    &["Manager", "Handler", "Helper", "Util", "Utils", "Info", "Data", "Service", "Processor"];

/// Types that may: another's word, taken over.
const NAMED_BY_OTHERS: &[(&str, &str)] = &[
    ("SenderInfo", "RFC 3550 section 6.4.1 calls it sender info"),
    ("Data", "what the trait of bodies of HTTP calls its pieces"),
];

fn text_of(source: &Source, within: In) -> String {
    match within {
        In::Product => source.product_code(),
        In::Code => source.code.clone(),
        In::Pure if members::tier_of_folder(source.member()).is_some_and(|it| it <= 3) => {
            source.code.clone()
        }
        In::Pure => String::new(),
        In::Text => source.text.clone(),
    }
}

#[test]
fn nothing_banned_is_used() {
    let mut found = Vec::new();
    for source in tree::sources() {
        for ban in BANS {
            if ban.but.iter().any(|(place, _)| source.path.starts_with(place)) {
                continue;
            }
            let text = text_of(&source, ban.within);
            found.extend(words(&text, ban.text).map(|at| {
                let line = line_of(&text, at);
                format!("{}:{line}: `{}` is banned; use {}", source.path, ban.text, ban.instead)
            }));
        }
    }
    none(&found, "Bans (src/sim/tidy/bans.rs):");
}

#[test]
fn type_names_say_what_the_type_is() {
    let mut found = Vec::new();
    for source in tree::sources() {
        for keyword in ["struct ", "enum ", "trait ", "type ", "union "] {
            for at in words(&source.code, keyword.trim_end()) {
                let rest = source.code[at..].strip_prefix(keyword).unwrap_or_default();
                let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
                let is_empty = EMPTY_ENDINGS.iter().any(|ending| name.ends_with(ending));
                if is_empty && NAMED_BY_OTHERS.iter().all(|(known, _)| *known != name) {
                    let line = line_of(&source.code, at);
                    found.push(format!("{}:{line}: {name}", source.path));
                }
            }
        }
    }
    none(&found, "A type is a noun that says what it holds or does (STYLE section 3):");
}
