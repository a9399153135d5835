//! The report of a scenario as one page: tables and plots (SVG made here), no script, nothing from
//! anywhere else, for a light screen and for a dark one.

mod plot;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use self::plot::{Line, Plot, bars};
use crate::report::{Report, Spread};
use crate::run::{ActorReport, RunReport, Sample, Verdict};

const STYLE: &str = include_str!("style.css");

/// A text with what HTML would read as its own made harmless.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            it if base::diagnostic::is_unprintable(it) => out.push(' '),
            it => out.push(it),
        }
    }
    out
}

/// A number as people read it: no more digits than say something.
fn figure(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".to_owned(),
        size if size >= 100.0 || value.fract() == 0.0 => grouped(value),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("\u{2212}{out}") } else { out }
}

/// The page.
#[must_use]
pub fn html(report: &RunReport) -> String {
    let mut out = String::new();
    let title = escape(&report.scenario.name);
    let _ = writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title} - callgate load</title>\n\
         <style>{STYLE}</style></head>\n<body><main>"
    );
    head(&mut out, report);
    verdicts(&mut out, report);
    out.push_str("<section class=\"plots\">\n");
    plots(&mut out, report);
    out.push_str("</section>\n");
    times(&mut out, report);
    counts(&mut out, report);
    if !report.actors.is_empty() {
        actors(&mut out, &report.actors);
    }
    own(&mut out, report);
    out.push_str("</main></body></html>\n");
    out
}

fn head(out: &mut String, report: &RunReport) {
    let (class, word) = match (report.verdict, report.is_valid) {
        (Verdict::Passed, true) => ("good", "passed"),
        (Verdict::Passed, false) => ("doubt", "passed, not valid"),
        // What a late load tester cannot be the cause of.
        (Verdict::Failed, _) => ("bad", "failed"),
        (Verdict::NotJudged, _) => ("doubt", "not judged"),
    };
    let seconds = report.elapsed_ms as f64 / 1000.0;
    let cut = if report.is_cut_short { ", cut short" } else { "" };
    let ways = [("calls", &report.target), ("answers at", &report.listen)];
    let ways: Vec<String> = ways
        .iter()
        .filter_map(|(word, at)| Some(format!("{word} <code>{}</code>", escape(at.as_ref()?))))
        .collect();
    let _ = writeln!(
        out,
        "<header><div><h1>{}</h1><p>{}</p><p class=\"small\">{} &middot; {} s{cut} &middot; {} \
         &middot; seed {}</p></div><strong class=\"badge {class}\">{word}</strong></header>",
        escape(&report.scenario.name),
        escape(&report.scenario.description),
        escape(&report.started_at),
        figure(seconds),
        ways.join(", "),
        report.scenario.seed
    );
    saturation(out, report);
    tiles(out, report);
}

/// Whether the load tester kept up: what all the figures hang on.
fn saturation(out: &mut String, report: &RunReport) {
    if !report.is_valid {
        let _ = writeln!(
            out,
            "<p class=\"note\">The load tester did not keep up, so these figures measure it too: \
             {}.</p>",
            escape(&report.invalid_because.join("; "))
        );
    } else if report.own.ticks > 0 || report.callers.is_some() {
        let late = |part: u64, all: u64| part as f64 * 100.0 / all.max(1) as f64;
        let placed = report.callers.as_ref().map_or(0, |it| it.placed.into());
        let _ = writeln!(
            out,
            "<p class=\"note kept\">The load tester kept up: {} % of its media ticks and {} % \
             of its \
             calls came late, and it dropped nothing. The figures are the edge's.</p>",
            figure(late(report.own.behind, report.own.ticks)),
            figure(late(report.own.late_starts, placed))
        );
    }
}

fn tiles(out: &mut String, report: &RunReport) {
    out.push_str("<section class=\"tiles\">\n");
    let mut tile = |value: String, unit: &str, name: &str| {
        let _ = writeln!(
            out,
            "<div><b>{value}<i>{}</i></b><span>{}</span></div>",
            escape(unit),
            escape(name)
        );
    };
    if let Some(callers) = &report.callers {
        tile(figure(callers.placed.into()), "", "calls placed");
        tile(figure(callers.answered.into()), "", "answered");
        tile(figure(callers.failed.into()), "", "failed");
        if let Some(setup) = callers.setup_ms {
            tile(figure(setup.p99), "ms", "set-up, p99");
        }
    }
    if let Some(callees) = report.callees.as_ref().filter(|_| report.callers.is_none()) {
        tile(figure(callees.placed.into()), "", "calls taken");
        tile(figure(callees.answered.into()), "", "answered");
    }
    if let Some(delay) = report.through.as_ref().and_then(|it| it.delay_ms) {
        tile(figure(delay.p99), "ms", "one way through, p99");
    }
    let peak = report.series.iter().map(|it| it.talking).max().unwrap_or(0);
    tile(figure(peak.into()), "", "talking at once");
    let packets = report.series.iter().map(|it| it.sent + it.received).fold(0.0, f64::max);
    tile(figure(packets.round()), "", "packets/s at most");
    out.push_str("</section>\n");
}

fn verdicts(out: &mut String, report: &RunReport) {
    if report.expectations.is_empty() {
        return;
    }
    out.push_str("<h2>Expectations</h2><table class=\"verdicts\"><tbody>\n");
    for judged in &report.expectations {
        let (class, word) = if judged.holds { ("good", "holds") } else { ("bad", "failed") };
        let found = match judged.found {
            Some(found) => format!("{} {}", figure(found), judged.expectation.measure.unit()),
            None => "nothing measured".to_owned(),
        };
        let _ = writeln!(
            out,
            "<tr><td><span class=\"badge {class}\">{word}</span></td><td>{}</td><td class=\"n\">{}\
             </td></tr>",
            escape(&judged.expectation.to_string()),
            escape(&found)
        );
    }
    out.push_str("</tbody></table>\n");
}

/// A series of the samples.
fn series(samples: &[Sample], of: impl Fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
    samples.iter().filter_map(|it| Some((it.at_s, of(it)?))).collect()
}

fn plots(out: &mut String, report: &RunReport) {
    let all = &report.series;
    let of = |of: fn(&Sample) -> f64| series(all, |it| Some(of(it)));
    // All of them show the whole run.
    let end = all.last().map_or(0.0, |it| it.at_s);
    if report.callers.is_some() {
        Plot::new("Rate", "calls/s")
            .line(Line::new("offered", of(|it| it.offered)).faint())
            .line(Line::new("answered", of(|it| it.answered)))
            .line(Line::new("failed", of(|it| it.failed)))
            .write(out, end);
        Plot::new("Calls that talk", "calls")
            .line(Line::new("talking", of(|it| f64::from(it.talking))))
            .write(out, end);
        Plot::new("Set-up time", "ms")
            .line(Line::new("p50", series(all, |it| it.setup_p50_ms)))
            .line(Line::new("p99", series(all, |it| it.setup_p99_ms)))
            .write(out, end);
    }
    Plot::new("RTP packets", "packets/s")
        .line(Line::new("sent", of(|it| it.sent)))
        .line(Line::new("received", of(|it| it.received)))
        .write(out, end);
    Plot::new("The load tester itself", "%")
        .line(Line::new("busiest media thread", of(|it| it.media_thread_percent)))
        .line(Line::new("ticks behind", of(|it| it.behind_percent)))
        .write(out, end);
    let ends: Vec<&Report> = [&report.callers, &report.callees].into_iter().flatten().collect();
    let values = |of: fn(&crate::CallReport) -> Option<f64>| -> Vec<f64> {
        ends.iter().flat_map(|it| &it.calls).filter_map(of).collect()
    };
    bars(out, "Jitter by call", "ms", &values(|it| it.jitter_ms));
    bars(out, "Loss by call", "%", &values(|it| it.loss_percent));
    bars(out, "Set-up by call", "ms", &values(|it| it.setup_ms));
    let of = |lists: &mut dyn Iterator<Item = &BTreeMap<String, u32>>| -> Vec<(String, u32)> {
        lists.flatten().map(|(name, count)| (name.clone(), *count)).collect()
    };
    ranked(out, "Failures by reason", true, of(&mut ends.iter().map(|it| &it.failures)));
    for (title, part) in [("callers", &report.callers), ("callees", &report.callees)] {
        let title = format!("How calls of {title} were ended, and with which cause");
        ranked(out, &title, false, of(&mut part.iter().map(|it| &it.farewells)));
    }
}

/// The most frequent of these.
fn ranked(out: &mut String, title: &str, is_bad: bool, mut counts: Vec<(String, u32)>) {
    if counts.is_empty() {
        return;
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(10);
    plot::ranked(out, title, is_bad, &counts);
}

fn row(out: &mut String, name: &str, unit: &str, spread: Option<Spread>) {
    let Some(Spread { count, p50, p95, p99, max }) = spread else { return };
    let _ = write!(out, "<tr><td>{}</td><td class=\"u\">{unit}</td>", escape(name));
    for value in [p50, p95, p99, max] {
        let _ = write!(out, "<td class=\"n\">{}</td>", figure(value));
    }
    let _ = writeln!(out, "<td class=\"n u\">{}</td></tr>", figure(count as f64));
}

fn times(out: &mut String, report: &RunReport) {
    out.push_str(
        "<h2>Times</h2><div class=\"wide times\"><table><thead><tr><th></th><th></th>\
         <th class=\"n\">p50</th><th class=\"n\">p95</th><th class=\"n\">p99</th>\
         <th class=\"n\">max</th><th class=\"n\">of</th></tr></thead><tbody>\n",
    );
    for (side, part) in [("callers", &report.callers), ("callees", &report.callees)] {
        let Some(part) = part else { continue };
        let what = if side == "callers" { "INVITE to 200" } else { "INVITE to our 200" };
        row(out, &format!("{side}: {what}"), "ms", part.setup_ms);
        row(out, &format!("{side}: 200 to first packet"), "ms", part.first_audio_ms);
        row(out, &format!("{side}: duration"), "ms", part.duration_ms);
        row(out, &format!("{side}: jitter"), "ms", part.jitter_ms);
        row(out, &format!("{side}: loss"), "%", part.loss_percent);
        row(out, &format!("{side}: round trip (RTCP)"), "ms", part.round_trip_ms);
    }
    if let Some(through) = &report.through {
        row(out, "through the edge: one way", "ms", through.delay_ms);
        row(out, "longest gap by end", "ms", through.gap_ms);
    }
    out.push_str("</tbody></table></div>\n");
}

fn counts(out: &mut String, report: &RunReport) {
    out.push_str(
        "<h2>Calls</h2><div class=\"wide kinds\"><table><thead><tr><th>side</th><th>kind</th>\
         <th class=\"n\">calls</th><th class=\"n\">answered</th>\
         <th class=\"n\">ended as planned</th><th class=\"n\">failed</th></tr></thead><tbody>\n",
    );
    for kind in &report.kinds {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            kind.role,
            escape(&kind.name),
            kind.calls,
            kind.answered,
            kind.planned,
            kind.failed
        );
    }
    out.push_str("</tbody></table></div>\n<div class=\"pairs\">");
    for (side, part) in [("Callers", &report.callers), ("Callees", &report.callees)] {
        let Some(part) = part else { continue };
        let media = &part.media;
        let lists = [
            ("failed", &part.failures),
            ("ended by", &part.endings),
            ("farewell", &part.farewells),
            ("media", &part.codecs),
        ];
        let _ = writeln!(out, "<div><h3>{side}</h3><table><tbody>");
        for (title, list) in lists {
            for (name, count) in list {
                let _ = writeln!(
                    out,
                    "<tr><td class=\"u\">{title}</td><td>{}</td><td class=\"n\">{count}</td></tr>",
                    escape(name)
                );
            }
        }
        for (name, count) in [
            ("RTP sent", media.packets_sent),
            ("RTP received", media.packets_received),
            ("RTP lost", media.packets_lost),
            ("datagrams rejected", media.packets_rejected),
            ("RTCP sent", media.rtcp_sent),
            ("RTCP received", media.rtcp_received),
        ] {
            let count = figure(count as f64);
            let _ = writeln!(
                out,
                "<tr><td class=\"u\">packets</td><td>{name}</td><td class=\"n\">{count}</td></tr>"
            );
        }
        out.push_str("</tbody></table></div>\n");
    }
    through(out, report);
    out.push_str("</div>\n");
}

fn through(out: &mut String, report: &RunReport) {
    if let Some(through) = report.through.as_ref().filter(|_| report.callees.is_some()) {
        out.push_str("<div><h3>Through the edge</h3><table><tbody>\n");
        for (name, value) in [
            ("pairs", f64::from(through.paired)),
            ("packets that came", through.packets as f64),
            ("lost", through.lost as f64),
            ("injected", through.injected as f64),
            ("replayed", through.replayed as f64),
            ("without a stamp (transcoded)", through.unstamped as f64),
            ("cut off at the beginning, packets by end", through.clipped_per_end),
            ("causes told by one end", f64::from(through.causes_told)),
            ("of them heard by the other", f64::from(through.causes_kept)),
        ] {
            let _ = writeln!(out, "<tr><td>{name}</td><td class=\"n\">{}</td></tr>", figure(value));
        }
        out.push_str("</tbody></table></div>\n");
    }
}

fn actors(out: &mut String, actors: &[ActorReport]) {
    out.push_str("<h2>Bad actors</h2>\n<div class=\"pairs\">");
    for actor in actors {
        let (class, word) =
            if actor.has_passed { ("good", "withstood") } else { ("bad", "failed") };
        let _ = writeln!(
            out,
            "<div><h3>{} <span class=\"badge {class}\">{word}</span></h3><p class=\"small\">{}</p>\
             <table><tbody>",
            escape(&actor.name),
            escape(&actor.verdict)
        );
        for (outcome, count) in &actor.outcomes {
            let _ =
                writeln!(out, "<tr><td>{}</td><td class=\"n\">{count}</td></tr>", escape(outcome));
        }
        if actor.packets > 0 {
            let _ = writeln!(
                out,
                "<tr><td>packets sent at media ports</td><td class=\"n\">{}</td></tr>\n\
                 <tr><td>reached the other end</td><td class=\"n\">{}</td></tr>\n\
                 <tr><td>came to the stranger</td><td class=\"n\">{}</td></tr>",
                figure(actor.packets as f64),
                actor.injected + actor.replayed,
                actor.to_strangers
            );
        }
        out.push_str("</tbody></table></div>\n");
    }
    out.push_str("</div>\n");
}

fn own(out: &mut String, report: &RunReport) {
    let own = &report.own;
    let list =
        |values: &[f64]| values.iter().map(|it| format!("{it:.0} %")).collect::<Vec<_>>().join(" ");
    out.push_str("<h2>The load tester itself</h2><table class=\"own\"><tbody>\n");
    let ticks = format!(
        "{} of {} (worst {} ms), {} skipped",
        own.behind,
        figure(own.ticks as f64),
        figure(own.worst_ms),
        own.skipped
    );
    let late = format!("{} (worst {} ms)", own.late_starts, figure(own.latest_start_ms));
    let lag = own.signalling_lag_ms.map_or_else(
        || "not measured".to_owned(),
        |it| format!("{} ms (worst {} ms)", figure(it.p99), figure(it.max)),
    );
    for (name, value) in [
        ("media ticks more than 10 ms late", ticks),
        ("calls begun more than 10 ms late", late),
        ("signalling waited for its turn, p99", lag),
        ("datagrams that our sockets dropped", own.receive_drops.to_string()),
        ("cores used, on average", figure(own.cores)),
        ("media threads", list(&own.media_threads_percent)),
        ("cores of the machine, with all that ran", list(&own.machine_percent)),
    ] {
        let _ = writeln!(out, "<tr><td>{name}</td><td class=\"n\">{}</td></tr>", escape(&value));
    }
    out.push_str("</tbody></table>\n");
}

#[cfg(test)]
mod tests;
