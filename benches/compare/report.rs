//! A run as JSON, Markdown, HTML and a plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::figure::{Bar, Figure, Verdict};
use crate::machine::Machine;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// Pairs of each figure, and seconds of each window.
    pub(crate) pairs: usize,
    pub(crate) seconds: f64,
    /// Whether windows without headroom were taken: then the figures are worth nothing.
    pub(crate) is_tolerant: bool,
    pub(crate) figures: Vec<Figure>,
    /// What the issue asks for and this run did not measure, and why.
    pub(crate) not_measured: Vec<String>,
}

const METHOD: &str = "\
Interleaved windows, ours first in every other pair, through calls that stand for the whole \
figure. CPU is the summed time of all threads of the process (schedstat), per packet that came \
out of it. Both run on core 1 alone, with one thread for media; the generator has core 0: one \
thread, one packet of 20 ms per stream in an even phase, sent at its own time with 50 us slack. \
Every leg has an RTCP port of its own. Latency is from the send call to when the generator saw \
the packet, so the loopback device is in it. A figure is met when the 95 % bound of the median \
(an order statistic, which assumes nothing about the noise) passes the bar. Pairs in which the \
generator had no headroom (anything unsent, more than 1 % sent more than 1 ms late, or over 90 % \
of its core used) are thrown away. It has real-time priority where the system permits it, and \
protects its packets before a window. Most calls: steps of 5 %; a step is well if one window of \
three is, and not if two say no while the generator had headroom. Whole calls: one caller and one \
callee thread place calls at a fixed rate whatever comes of them, over TLS without resumption \
(X25519), offering SRTP, held for half a second; no RTP flows. Both cores are everybody's; CPU is \
that of all processes of what stands between, per call placed. The direct call goes from the same \
caller to the same callee. Soaks: the load is steered to 73 % of one core and its share is told \
over the whole time, without a gap; what is held (sessions, descriptors, UDP ports that the \
process has bound itself) is compared before the first call and after the last; memory is heap \
and stacks, and its growth the median slope (Theil and Sen) of the second half, per call that came \
and went.";

impl Report {
    /// Writes the files into a folder of this run and returns the text.
    pub(crate) fn save(&self, folder: &Path) -> anyhow::Result<String> {
        let began: String = self.machine.began.chars().take(19).collect();
        let folder = folder.join(began.replace(':', "-"));
        std::fs::create_dir_all(&folder)?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let text = self.markdown();
        write("compare.json", &serde_json::to_string_pretty(self)?)?;
        write("compare.md", &text)?;
        write("table.md", &self.table())?;
        write("compare.svg", &self.plot())?;
        write("compare.html", &self.html())?;
        eprintln!("saved in {}", folder.display());
        Ok(text)
    }

    fn posture(&self) -> Vec<(&'static str, String)> {
        let it = &self.machine;
        vec![
            ("date", format!("{} to {}", it.began, it.ended)),
            ("machine", format!("{}, {} cores, {}", it.cpu, it.cores, it.hypervisor)),
            ("kernel", it.kernel.clone()),
            ("frequency governor", it.governor.clone()),
            ("load before / after", format!("{} / {}", it.load_before, it.load_after)),
            ("busy before", format!("{:.0} % of all cores", it.busy_before * 100.0)),
            ("stolen meanwhile", format!("{:.1} % of all cores", it.stolen * 100.0)),
            ("callgate", it.callgate.to_owned()),
            ("rtpengine", it.rtpengine.clone()),
            ("kamailio", it.kamailio.clone()),
            ("pairs, window", format!("{}, {} s", self.pairs, self.seconds)),
        ]
    }

    /// The table of the README: what was measured, in short.
    fn table(&self) -> String {
        let mut text =
            String::from("| what | callgate | peer | ratio | bar |\n|---|---|---|---|---|\n");
        let measured = |it: &&Figure| !matches!(it.verdict, Verdict::NotMeasured(_));
        for it in self.figures.iter().filter(measured) {
            let peer = if it.theirs.is_nan() {
                String::new()
            } else {
                format!("{} ({})", amount(it.theirs, it.unit), it.peer)
            };
            let ratio = if it.is_ratio { number(it.median) } else { String::new() };
            let bar = match (bar(it), verdict(it)) {
                (bar, _) if bar.is_empty() => bar,
                (bar, verdict) => format!("{bar}, {}", verdict.to_lowercase()),
            };
            let ours = amount(it.ours, it.unit);
            let _ = writeln!(text, "| {} | {ours} | {peer} | {ratio} | {bar} |", it.what);
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# callgate and its peers\n\n");
        for (key, value) in self.posture() {
            let _ = writeln!(text, "- {key}: {value}");
        }
        if self.is_tolerant {
            text.push_str("\n**Windows without headroom were taken: this run proves nothing.**\n");
        }
        text.push_str("\n| figure | ours | theirs | median | 95 % bound | bar | |\n");
        text.push_str("|---|---|---|---|---|---|---|\n");
        for it in &self.figures {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                it.what,
                amount(it.ours, it.unit),
                if it.theirs.is_nan() {
                    String::new()
                } else {
                    format!("{} ({})", amount(it.theirs, it.unit), it.peer)
                },
                value(it, it.median),
                value(it, it.bound),
                bar(it),
                verdict(it)
            );
        }
        text.push_str("\n## Remarks\n\n");
        for it in self.figures.iter().filter(|it| !it.notes.is_empty()) {
            let _ = writeln!(text, "- {}: {}", it.what, it.notes.join("; "));
        }
        text.push_str("\n## Not measured\n\n");
        for it in &self.figures {
            if let Verdict::NotMeasured(why) = &it.verdict {
                let _ = writeln!(text, "- {}: {why}", it.what);
            }
        }
        for what in &self.not_measured {
            let _ = writeln!(text, "- {what}");
        }
        let _ = write!(text, "\n## Method\n\n{METHOD}\n");
        text
    }

    fn html(&self) -> String {
        let mut rows = String::new();
        for it in &self.figures {
            let class = match it.verdict {
                Verdict::Met => "met",
                Verdict::Missed => "missed",
                Verdict::Unsure => "unsure",
                Verdict::Shown | Verdict::NotMeasured(_) => "",
            };
            let peer = if it.theirs.is_nan() { String::new() } else { amount(it.theirs, it.unit) };
            let _ = writeln!(
                rows,
                "<tr class=\"{class}\"><td>{}<small>{}</small></td><td>{}</td><td>{peer} \
                 {}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&it.what),
                escape(&it.notes.join("; ")),
                amount(it.ours, it.unit),
                it.peer,
                value(it, it.median),
                value(it, it.bound),
                bar(it),
                escape(&verdict(it))
            );
        }
        let posture: String = self
            .posture()
            .iter()
            .map(|(key, value)| format!("<tr><th>{key}</th><td>{}</td></tr>\n", escape(value)))
            .collect();
        let missing: String =
            self.not_measured.iter().map(|it| format!("<li>{}</li>\n", escape(it))).collect();
        let warning = if self.is_tolerant {
            "<p class=\"missed\">Windows without headroom were taken: this run proves nothing.</p>"
        } else {
            ""
        };
        let plot = self.plot();
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n\
             <title>callgate and its peers</title>\n<style>{STYLE}</style>\n\
             <h1>callgate and its peers</h1>{warning}\n<table>{posture}</table>\n{plot}\n\
             <table><tr><th>figure</th><th>ours</th><th>theirs</th><th>median</th>\
             <th>95 % bound</th><th>bar</th><th></th></tr>\n{rows}</table>\n\
             <h2>Not measured</h2><ul>{missing}</ul>\n<h2>Method</h2><p>{METHOD}</p></html>\n"
        )
    }

    /// The ratios on a logarithmic axis, each with its bound and its bar.
    fn plot(&self) -> String {
        let shown: Vec<&Figure> =
            self.figures.iter().filter(|it| it.is_ratio && it.median.is_finite()).collect();
        let (left, width, row) = (500.0, 420.0, 24.0);
        let height = row * (shown.len() as f64 + 2.0);
        // From a tenth to ten times.
        let x = |ratio: f64| left + width * (ratio.clamp(0.1, 10.0).log10() + 1.0) / 2.0;
        let mut body = String::new();
        for tick in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] {
            let (at, colour) = (x(tick), if tick == 1.0 { "#888" } else { "#ddd" });
            let _ = writeln!(
                body,
                "<line x1=\"{at:.1}\" y1=\"{row}\" x2=\"{at:.1}\" y2=\"{height}\" \
                 stroke=\"{colour}\"/><text x=\"{at:.1}\" y=\"16\" \
                 text-anchor=\"middle\">{tick} x</text>"
            );
        }
        for (index, it) in shown.iter().enumerate() {
            let y = row * (index as f64 + 1.7);
            let colour = match it.verdict {
                Verdict::Met => "#1a7f37",
                Verdict::Missed => "#cf222e",
                Verdict::Unsure => "#bf8700",
                Verdict::Shown | Verdict::NotMeasured(_) => "#57606a",
            };
            let (median, bound) = (x(it.median), x(it.bound));
            let _ = writeln!(
                body,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <line x1=\"{median:.1}\" y1=\"{y:.1}\" x2=\"{bound:.1}\" y2=\"{y:.1}\" \
                 stroke=\"{colour}\" stroke-width=\"3\"/>\
                 <circle cx=\"{median:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"/>",
                left - 10.0,
                y + 4.0,
                escape(&it.what)
            );
            if let Bar::AtMost(bar) | Bar::AtLeast(bar) = it.bar {
                let at = x(bar);
                let _ = writeln!(
                    body,
                    "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\" \
                     stroke=\"#0969da\" stroke-width=\"2\"/>",
                    y - 8.0,
                    y + 8.0
                );
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{height:.0}\" \
             font-family=\"sans-serif\" font-size=\"12\"><rect width=\"100%\" height=\"100%\" \
             fill=\"white\"/>\n{body}</svg>",
            left + width + 30.0
        )
    }
}

const STYLE: &str = "body{font:15px sans-serif;max-width:70em;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ddd;padding:.3em .6em;\
text-align:left;vertical-align:top}small{display:block;color:#666}\
.met td:last-child{color:#1a7f37}.missed,.missed td:last-child{color:#cf222e}";

fn amount(value: f64, unit: &str) -> String {
    if value.is_nan() { String::new() } else { format!("{} {unit}", number(value)) }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn value(figure: &Figure, value: f64) -> String {
    match value {
        value if value.is_nan() => String::new(),
        value if value.is_infinite() => "unknown".into(),
        value if figure.is_ratio => format!("{value:.3} x"),
        value => amount(value, figure.unit),
    }
}

fn bar(figure: &Figure) -> String {
    let unit = if figure.is_ratio { "x" } else { figure.unit };
    match figure.bar {
        Bar::AtMost(bar) => format!("at most {bar} {unit}"),
        Bar::AtLeast(bar) => format!("at least {bar} {unit}"),
        Bar::None => String::new(),
    }
}

fn verdict(figure: &Figure) -> String {
    match &figure.verdict {
        Verdict::Met => "met".into(),
        Verdict::Missed => "MISSED".into(),
        Verdict::Unsure => "too few pairs".into(),
        Verdict::Shown => String::new(),
        Verdict::NotMeasured(_) => "not measured".into(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
