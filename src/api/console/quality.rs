//! *Media quality* of the page of a call: the figures of each leg, and how they were over time.
//!
//! The plots are SVG without words, so that they fit a telephone's width as well; what they show is
//! said beside them, and a table has every value.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base::CallId;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use vault::{CallDetail, CallState};

use super::call::{at, id_of, parsed};
use super::html::{Html, Tenths, put};
use super::{Console, page};
use crate::problem::Problem;
use crate::series::{Figure, Series, Summary};

/// What is plotted.
const PLOTS: [Plot; 4] = [
    Plot { figure: Figure::Mos, name: "MOS", unit: "", from: 1.0, least: 4.5, limit: Some(3.6) },
    Plot {
        figure: Figure::Loss,
        name: "Lost or late",
        unit: " %",
        from: 0.0,
        least: 5.0,
        limit: None,
    },
    Plot {
        figure: Figure::Jitter,
        name: "Jitter",
        unit: " ms",
        from: 0.0,
        least: 20.0,
        limit: None,
    },
    Plot {
        figure: Figure::RoundTrip,
        name: "Round trip",
        unit: " ms",
        from: 0.0,
        least: 100.0,
        limit: None,
    },
];

struct Plot {
    figure: Figure,
    name: &'static str,
    unit: &'static str,
    /// The value at the foot.
    from: f64,
    /// The value at the top, unless something is higher.
    least: f64,
    /// Where it begins to be bad.
    limit: Option<f64>,
}

/// The part of a call's page.
pub(super) fn section(main: &mut Html, console: &Console, detail: &CallDetail) {
    let is_live = detail.summary.state == CallState::InProgress;
    let present = is_live.then(|| present(console, detail.summary.id)).flatten();
    let stored = detail.personal.as_ref().map(|personal| parsed(&personal.quality));
    let Some(quality) = present.or(stored) else { return };
    put!(
        main,
        "<section id=\"measured\" class=\"part\" aria-labelledby=\"quality\">\
         <h2 id=\"quality\">Media quality</h2>\
         <div id=\"media\">",
    );
    let mut inner = Html::default();
    if legs(&mut inner, &quality) {
        put!(main, "{}", inner);
    } else {
        let yet = if is_live { " yet" } else { "" };
        put!(main, "<p class=\"hint\">There are no figures of its media{}.</p>", yet);
    }
    put!(main, "</div></section>");
}

fn present(console: &Console, call: CallId) -> Option<Value> {
    console.backstage.quality(call).map(|text| parsed(&text))
}

/// The inside of that part, for the page of a call that goes on.
pub(crate) async fn show(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    console.asker(&headers)?;
    let missing = || {
        let detail = "there is no such call in progress, or it has no media yet";
        Problem::new(StatusCode::NOT_FOUND, "api.not_found", detail)
    };
    let quality = present(&console, id_of(&id)?).ok_or_else(missing)?;
    let mut inner = Html::default();
    if !legs(&mut inner, &quality) {
        return Err(missing());
    }
    let mut response = inner.into_string().into_response();
    page::guard(response.headers_mut());
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, html);
    Ok(response)
}

/// Each leg; whether there is any.
fn legs(main: &mut Html, quality: &Value) -> bool {
    let others = quality["legs"].as_object().into_iter().flatten();
    let others = others.map(|(number, leg)| (format!("Leg {number}"), leg));
    let all: Vec<_> = std::iter::once(("Caller".to_owned(), quality))
        .chain(others)
        .filter(|(_, leg)| leg["received"].is_u64())
        .map(|(name, leg)| (name, leg, Series::read(leg)))
        .collect();
    // One axis of time for all legs, so that they can be compared.
    let end = all.iter().filter_map(|(_, _, series)| Some(series.as_ref()?.end())).max();
    for (name, figures, series) in &all {
        put!(main, "<div class=\"card leg\"><h3>{}</h3>", name);
        whole(main, name, figures);
        if let (Some(series), Some(end)) = (series, end) {
            over_time(main, name, series, end.max(1));
        }
        put!(main, "</div>");
    }
    !all.is_empty()
}

/// The figures of all of the leg's time, with the score as a bar.
fn whole(main: &mut Html, name: &str, quality: &Value) {
    let figure = |name: &str| quality[name].as_f64().unwrap_or_default();
    let (received, lost) = (figure("received"), figure("lost"));
    let percent = |part: f64, whole: f64| if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
    if let Some(mos) = quality["mos"].as_f64() {
        let word = match mos {
            mos if mos >= 4.0 => "good",
            mos if mos >= 3.6 => "fair",
            _ => "poor",
        };
        put!(
            main,
            "<p class=\"mos\"><label>MOS {} ({}) <meter min=\"1\" max=\"5\" low=\"3.6\" high=\"4\" \
             optimum=\"5\" value=\"{}\"></meter></label></p>",
            Tenths(mos),
            word,
            Tenths(mos),
        );
    }
    // What the peer does not tell is no figure.
    let told = |name: &str, times: f64| quality[name].as_f64().map(|figure| figure * times);
    let lost = percent(lost, received + lost);
    let late = percent(figure("late") + figure("dropped"), received);
    let rows = [
        ("Lost", Some(lost), "%", 10.0),
        ("Late or dropped", Some(late), "%", 10.0),
        ("Concealed", told("concealed", 20.0), "ms", 2_000.0),
        ("Jitter", told("jitter_ms", 1.0), "ms", 60.0),
        ("Jitter buffer", told("delay_ms", 1.0), "ms", 200.0),
        ("Lost on the way to it", told("remote_loss", 100.0), "%", 10.0),
        ("Jitter on the way to it", told("remote_jitter_ms", 1.0), "ms", 60.0),
        ("Round trip", told("round_trip_ms", 1.0), "ms", 400.0),
    ];
    put!(
        main,
        "<table class=\"bars\"><caption class=\"hidden\">Media of {}</caption><tbody>",
        name
    );
    for (what, value, unit, full) in rows {
        let Some(value) = value else { continue };
        let length = (value / full).clamp(0.0, 1.0) * 100.0;
        put!(
            main,
            "<tr><th scope=\"row\">{}</th><td>{} {}</td><td class=\"bar\">\
             <svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
             <rect class=\"ground\" width=\"100\" \
             height=\"8\"/><rect class=\"fill\" width=\"{}\" height=\"8\"/></svg></td></tr>",
            what,
            Tenths(value),
            unit,
            Tenths(length),
        );
    }
    let whole = |name: &str| quality[name].as_u64().unwrap_or_default();
    put!(
        main,
        "</tbody></table><p class=\"hint\">{} packets heard, {} sent.</p>",
        whole("received"),
        whole("sent"),
    );
}

/// A leg's plots, one below the other, on an axis of time that ends at `end` milliseconds.
fn over_time(main: &mut Html, name: &str, series: &Series, end: u64) {
    put!(
        main,
        "<figure class=\"curves\"><figcaption>Over time, from the answer; the dashed line is a MOS \
         of 3.6, below which people complain</figcaption>"
    );
    for plot in &PLOTS {
        strip(main, plot, series, end);
    }
    put!(main, "<div class=\"ticks\" aria-hidden=\"true\">");
    for tick in 0..=4_u64 {
        put!(main, "<span>{}</span>", at(end.saturating_mul(tick) / 4));
    }
    put!(main, "</div></figure>");
    table(main, name, series);
}

fn strip(main: &mut Html, plot: &Plot, series: &Series, end: u64) {
    let Some(summary) = series.summary(plot.figure) else { return };
    let top = if summary.worst > plot.least { round_up(summary.worst) } else { plot.least };
    put!(
        main,
        "<div class=\"strip\"><p><b>{}</b> <span class=\"said\">{}</span></p>\
         <div class=\"plot\"><span class=\"scale\" aria-hidden=\"true\"><span>{}{}</span>\
         <span>{}</span></span>\
         <svg viewBox=\"0 -4 1000 108\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
        plot.name,
        said(plot, &summary),
        short(top),
        plot.unit,
        short(plot.from),
    );
    let height = |value: f64| 100.0 - (value - plot.from) / (top - plot.from) * 100.0;
    if let Some(limit) = plot.limit {
        let y = Tenths(height(limit));
        put!(main, "<line class=\"bound\" x1=\"0\" x2=\"1000\" y1=\"{}\" y2=\"{}\"/>", y, y);
    }
    let (area, line) = paths(plot.figure, series, end, height);
    put!(
        main,
        "<path class=\"area\" d=\"{}\"/><path class=\"line\" d=\"{}\"/></svg></div></div>",
        area,
        line,
    );
}

/// What a plot shows, in words.
fn said(plot: &Plot, summary: &Summary) -> String {
    let unit = plot.unit;
    let [median, worst] = [summary.median, summary.worst].map(|value| format!("{value:.1}{unit}"));
    if median == worst {
        return format!("{worst} throughout");
    }
    format!("median {median}, worst {worst} at {}", at(summary.worst_at))
}

/// Steps of the values, once filled to the foot and once as a line, with a gap where there is none.
fn paths(
    figure: Figure,
    series: &Series,
    end: u64,
    height: impl Fn(f64) -> f64,
) -> (String, String) {
    let (mut area, mut line) = (String::new(), String::new());
    let place = |at: u64| at.min(end) as f64 * 1e3 / end as f64;
    let mut is_drawing = false;
    for spell in 0..series.len() {
        let value = series.value(figure, spell);
        let from = place(series.start(spell));
        // Writing to a string does not fail.
        match value.map(|value| height(value).clamp(0.0, 100.0)) {
            Some(y) => {
                let until = place(series.until_ms.get(spell).copied().unwrap_or_default());
                let (move_to, step) = if is_drawing { ('H', 'V') } else { ('M', ' ') };
                let _ = write!(line, "{move_to}{from:.1}{step}{y:.1}H{until:.1}");
                let foot = if is_drawing { String::new() } else { format!("M{from:.1} 100") };
                let _ = write!(area, "{foot}V{y:.1}H{until:.1}");
            }
            None if is_drawing => area.push_str("V100Z"),
            None => {}
        }
        is_drawing = value.is_some();
    }
    if is_drawing {
        area.push_str("V100Z");
    }
    (area, line)
}

/// Every value, for whoever does not see the plots or wants figures.
fn table(main: &mut Html, name: &str, series: &Series) {
    put!(
        main,
        "<details class=\"whole\"><summary>Over time as a table</summary>\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Media of {} over time\">\
         <table class=\"spells\"><caption class=\"hidden\">Media of {} over time</caption>\
         <thead><tr><th scope=\"col\">Until</th><th scope=\"col\">MOS</th>\
         <th scope=\"col\">Heard</th><th scope=\"col\">Lost</th><th scope=\"col\">Late</th>\
         <th scope=\"col\">Concealed</th><th scope=\"col\">Jitter</th>\
         <th scope=\"col\">Round trip</th></tr></thead><tbody>",
        name,
        name,
    );
    let count = |column: &[u32], spell: usize| column.get(spell).copied().unwrap_or_default();
    let told = |figure: Figure, spell: usize, unit: &str| {
        let value = series.value(figure, spell);
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}{unit}"))
    };
    for (spell, until) in series.until_ms.iter().enumerate() {
        put!(
            main,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{} ms</td><td>{}</td><td>{}</td></tr>",
            at(*until),
            told(Figure::Mos, spell, ""),
            count(&series.received, spell),
            count(&series.lost, spell),
            count(&series.late, spell),
            u64::from(count(&series.concealed, spell)) * 20,
            told(Figure::Jitter, spell, " ms"),
            told(Figure::RoundTrip, spell, " ms"),
        );
    }
    put!(main, "</tbody></table></div></details>");
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(value)
}

/// A number of a scale.
fn short(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn series(until: &[u64], mos: &[Option<f64>]) -> Series {
        let count = until.len();
        Series {
            from_ms: 0,
            until_ms: until.to_vec(),
            received: vec![250; count],
            lost: vec![0; count],
            late: vec![0; count],
            concealed: vec![0; count],
            jitter_ms: vec![1.0; count],
            round_trip_ms: vec![None; count],
            mos: mos.to_vec(),
        }
    }

    #[test]
    fn a_plot_has_steps_and_a_gap_where_nothing_was_heard() {
        let series =
            series(&[5_000, 10_000, 15_000, 20_000], &[Some(4.0), Some(2.0), None, Some(3.0)]);
        let (area, line) = paths(Figure::Mos, &series, 20_000, |mos| 100.0 - mos * 10.0);
        assert_eq!(line, "M0.0 60.0H250.0H250.0V80.0H500.0M750.0 70.0H1000.0");
        assert_eq!(area, "M0.0 100V60.0H250.0V80.0H500.0V100ZM750.0 100V70.0H1000.0V100Z");
    }

    #[test]
    fn a_scale_ends_at_a_number_that_people_read() {
        for (value, top) in [(0.3, 1.0), (31.0, 50.0), (50.0, 50.0), (101.0, 200.0), (9e5, 1e6)] {
            assert_eq!(round_up(value), top, "{value}");
        }
        assert_eq!((short(50.0), short(4.5)), ("50".to_owned(), "4.5".to_owned()));
    }

    #[test]
    fn both_legs_share_the_axis_of_time_and_a_call_without_a_curve_has_its_figures() {
        let (long, brief) = (series(&[20_000], &[Some(4.0)]), series(&[10_000], &[Some(4.0)]));
        let mut quality = json!({ "received": 9, "lost": 1, "mos": 4.3, "series": long });
        quality["legs"]["1"] = json!({ "received": 9, "series": brief });
        quality["legs"]["2"] = json!({ "received": 9 });
        quality["legs"]["3"] = json!({ "<nothing>": 9 });
        let mut page = Html::default();
        assert!(legs(&mut page, &quality));
        let text = page.into_string();
        assert_eq!(text.matches("class=\"curves\"").count(), 2);
        assert_eq!(text.matches("<h3>").count(), 3);
        assert!(text.contains("H500.0\"/>") && text.contains("H1000.0\"/>"), "{text}");
        assert!(text.contains("4.0 throughout"));
        assert!(!legs(&mut Html::default(), &json!({})));
    }
}
