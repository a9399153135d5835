//! The ladder of a call: its SIP messages in their order between the caller, the edge and whom the
//! edge called, each to be opened.

use vault::LadderEntry;

use super::html::{Html, put};

/// Where the lines of the three parties stand, of 100.
const LIFELINES: [u32; 3] = [17, 50, 83];

pub(super) fn section(main: &mut Html, entries: &[LadderEntry]) {
    put!(
        main,
        "<section id=\"ladder\" class=\"part\" aria-labelledby=\"sip\">\
         <h2 id=\"sip\">SIP ladder</h2>"
    );
    if entries.is_empty() {
        put!(main, "<p class=\"hint\">No messages are kept of this call.</p></section>");
        return;
    }
    let has_legs = entries.iter().any(|entry| entry.leg > 0);
    put!(
        main,
        "<div class=\"card ladder\"><p class=\"parties\" aria-hidden=\"true\"><span>Caller</span>\
         <span>Edge</span><span>{}</span></p><ol>",
        if has_legs { "Called" } else { "" },
    );
    for entry in entries {
        message(main, entry, has_legs);
    }
    put!(main, "</ol></div></section>");
}

fn message(main: &mut Html, entry: &LadderEntry, has_legs: bool) {
    let text = entry.message.expose();
    let peer = if entry.leg == 0 { "Caller".to_owned() } else { format!("Leg {}", entry.leg) };
    let (from, to) = if entry.sent { ("Edge", &*peer) } else { (&*peer, "Edge") };
    put!(
        main,
        "<li><details><summary><span class=\"when\">{}</span>{}<span class=\"way\">{} → {}</span>\
         <code class=\"line {}\">{}</code></summary><pre tabindex=\"0\">{}</pre></details></li>",
        at_ms(entry.at_ms),
        arrow(entry, has_legs),
        from,
        to,
        kind(text),
        text.lines().next().unwrap_or_default(),
        text,
    );
}

/// The message as an arrow between the lines of the parties; the words beside it say the same.
fn arrow(entry: &LadderEntry, has_legs: bool) -> Html {
    let [caller, edge, called] = LIFELINES;
    let (left, right) = if entry.leg == 0 { (caller, edge) } else { (edge, called) };
    let points_right = (entry.leg == 0) != entry.sent;
    let mut html = Html::default();
    put!(html, "<svg class=\"arrow\" viewBox=\"0 0 100 20\" aria-hidden=\"true\">");
    for x in LIFELINES.iter().take(if has_legs { 3 } else { 2 }) {
        put!(html, "<path class=\"lifeline\" d=\"M{} 0V20\"/>", *x);
    }
    let (tip, back) = if points_right { (right, right - 5) } else { (left, left + 5) };
    put!(html, "<path class=\"shaft\" d=\"M{} 10H{}\"/>", left, right);
    put!(html, "<path class=\"tip\" d=\"M{} 10L{} 6V14Z\"/></svg>", tip, back);
    html
}

/// Of an answer, how it went.
fn kind(message: &str) -> &'static str {
    match message.strip_prefix("SIP/2.0 ").and_then(|it| it.bytes().next()) {
        None => "request",
        Some(b'1' | b'2' | b'3') => "answer",
        Some(_) => "refusal",
    }
}

/// The `Call-ID` of each leg (RFC 3261 section 20.8), for whoever looks into a peer's logs.
pub(super) fn call_ids(entries: &[LadderEntry]) -> Vec<(String, &str)> {
    let mut found: Vec<(u32, &str)> = Vec::new();
    for entry in entries {
        let lines = entry.message.expose().lines().take_while(|line| !line.is_empty());
        let value = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
            let name = name.trim_end();
            let is_it = name.eq_ignore_ascii_case("call-id") || name.eq_ignore_ascii_case("i");
            is_it.then(|| value.trim())
        });
        let leg = u32::from(entry.leg);
        if let Some(value) = value.filter(|_| found.iter().all(|(known, _)| *known != leg)) {
            found.push((leg, value));
        }
    }
    let named = found.into_iter().map(|(leg, value)| match leg {
        0 => ("SIP Call-ID".to_owned(), value),
        leg => (format!("SIP Call-ID, leg {leg}"), value),
    });
    named.collect()
}

pub(super) fn at_ms(millis: u64) -> String {
    format!("{}.{:03} s", millis / 1_000, millis % 1_000)
}

#[cfg(test)]
mod tests {
    use base::Personal;

    use super::*;

    fn entry(leg: u8, sent: bool, message: &str) -> LadderEntry {
        let message = Personal::new(message.to_owned());
        LadderEntry { index: 0, at_ms: 12_007, leg, sent, message }
    }

    #[test]
    fn an_arrow_points_to_who_gets_the_message() {
        let tip = |leg, sent| {
            let text = arrow(&entry(leg, sent, ""), true).into_string();
            text.split("class=\"tip\" d=\"M").nth(1).unwrap().split(' ').next().unwrap().to_owned()
        };
        assert_eq!((tip(0, false), tip(0, true)), ("50".to_owned(), "17".to_owned()));
        assert_eq!((tip(1, true), tip(2, false)), ("83".to_owned(), "50".to_owned()));
        assert_eq!(at_ms(12_007), "12.007 s");
    }

    #[test]
    fn each_leg_has_the_call_id_of_its_first_message() {
        let entries = [
            entry(0, false, "INVITE sip:a SIP/2.0\r\nCALL-ID : one@peer\r\n\r\nCall-ID: body"),
            entry(0, true, "SIP/2.0 100 Trying\r\nCall-ID: other\r\n\r\n"),
            entry(1, true, "INVITE sip:b SIP/2.0\r\ni: two\r\n\r\n"),
            entry(2, true, "INVITE sip:b SIP/2.0\r\n\r\nCall-ID: body"),
        ];
        let found = call_ids(&entries);
        let wanted = [("SIP Call-ID", "one@peer"), ("SIP Call-ID, leg 1", "two")];
        assert_eq!(found, wanted.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn a_refusal_stands_out() {
        let all = ["SIP/2.0 200 OK", "SIP/2.0 486 Busy", "BYE sip:a SIP/2.0", "SIP/2.0 "];
        assert_eq!(all.map(kind), ["answer", "refusal", "request", "request"]);
    }
}
