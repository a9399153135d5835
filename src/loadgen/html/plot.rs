//! Plots as SVG: lines over time, bars of a distribution, ranked counts. Colours are the page's.

use std::fmt::Write as _;

use super::{escape, figure};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 190.0;
/// Room for the numbers at the left and below, and for half a number at the right and above.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 8.0;
const BELOW: f64 = 20.0;
/// Bars of a distribution.
const BARS: usize = 24;

/// One line of a plot.
pub(super) struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
    is_faint: bool,
}

impl Line {
    pub(super) const fn new(name: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { name, points, is_faint: false }
    }

    /// What the others are compared with.
    pub(super) const fn faint(mut self) -> Self {
        self.is_faint = true;
        self
    }
}

/// Lines over time.
pub(super) struct Plot {
    title: &'static str,
    unit: &'static str,
    lines: Vec<Line>,
}

/// Numbers along an axis.
struct Axis {
    most: f64,
    step: f64,
}

impl Axis {
    /// From zero to a round number above `most`, in about so many round steps.
    fn upto(most: f64, steps: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let rough = most / steps;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|it| it * power).into_iter().find(|it| *it >= rough);
        let step = step.unwrap_or(rough);
        Self { most: (most / step).ceil() * step, step }
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let (step, most) = (self.step, self.most);
        (0..32).map(move |it| f64::from(it) * step).take_while(move |it| *it <= most * 1.0001)
    }
}

/// Seconds as people write them along an axis.
fn clock(seconds: f64) -> String {
    if seconds < 120.0 {
        return format!("{} s", figure(seconds));
    }
    format!("{}:{:02}", (seconds / 60.0).floor(), (seconds % 60.0).floor())
}

/// Time from zero: its last number need not be round.
fn time_axis(most: f64) -> Axis {
    let most = most.max(1.0);
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0];
    let step = steps.into_iter().find(|step| most / step <= 7.0).unwrap_or(most / 6.0);
    Axis { most, step }
}

fn x_of(axis: &Axis, value: f64) -> f64 {
    LEFT + value / axis.most * (WIDTH - LEFT - RIGHT)
}

fn y_of(axis: &Axis, value: f64) -> f64 {
    HEIGHT - BELOW - value.min(axis.most) / axis.most * (HEIGHT - BELOW - TOP)
}

fn open(out: &mut String, title: &str, note: &str, keys: &str) {
    let _ = writeln!(
        out,
        "<figure><figcaption>{} <span>{}{keys}</span></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(title),
        escape(note),
        escape(title)
    );
}

fn grid(out: &mut String, axis: &Axis) {
    for mark in axis.marks() {
        let y = y_of(axis, mark);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            figure(mark)
        );
    }
}

fn below(out: &mut String, x: f64, text: &str) {
    let y = HEIGHT - 5.0;
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>",
        escape(text)
    );
}

impl Plot {
    pub(super) const fn new(title: &'static str, unit: &'static str) -> Self {
        Self { title, unit, lines: Vec::new() }
    }

    pub(super) fn line(mut self, line: Line) -> Self {
        self.lines.push(line);
        self
    }

    /// Writes it, from the start to `end` at least (seconds); one without a point is left out.
    pub(super) fn write(self, out: &mut String, end: f64) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        if points().next().is_none() {
            return;
        }
        let x_axis = time_axis(points().map(|(x, _)| *x).fold(end, f64::max));
        let y_axis = Axis::upto(points().map(|(_, y)| *y).fold(0.0, f64::max), 4.0);
        let mut keys = String::new();
        // The first colour is the first line's that is not faint.
        let faint = self.lines.iter().filter(|line| line.is_faint).count();
        let drawn = || {
            let places = self.lines.iter().enumerate();
            let coloured = places.map(|(place, it)| (place.saturating_sub(faint), it));
            coloured.filter(|(_, it)| !it.points.is_empty())
        };
        for (index, line) in drawn() {
            let class = if line.is_faint { "faint".to_owned() } else { format!("l{}", index % 3) };
            let _ = write!(keys, "<span class=\"key {class}\">{}</span>", escape(line.name));
        }
        open(out, self.title, self.unit, &keys);
        grid(out, &y_axis);
        for mark in x_axis.marks() {
            below(out, x_of(&x_axis, mark), &clock(mark));
        }
        for (index, line) in drawn() {
            let class = if line.is_faint { "sfaint".to_owned() } else { format!("s{}", index % 3) };
            let at = |(x, y): &(f64, f64)| (x_of(&x_axis, *x), y_of(&y_axis, *y));
            if let [only] = line.points.as_slice() {
                let (x, y) = at(only);
                let _ = writeln!(
                    out,
                    "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
                );
                continue;
            }
            let mut path = String::new();
            for (place, point) in line.points.iter().enumerate() {
                let (x, y) = at(point);
                let _ = write!(path, "{}{x:.1} {y:.1}", if place == 0 { "M" } else { "L" });
            }
            let _ = writeln!(out, "<path class=\"{class}\" d=\"{path}\"/>");
        }
        out.push_str("</svg></figure>\n");
    }
}

/// The distribution of values, from zero to the 99.5th percentile; what is above stands in the last
/// bar.
pub(super) fn bars(out: &mut String, title: &str, unit: &str, values: &[f64]) {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|it| it.is_finite()).collect();
    if sorted.is_empty() {
        return;
    }
    sorted.sort_by(f64::total_cmp);
    let most = sorted[(sorted.len() * 995 / 1000).min(sorted.len() - 1)];
    let x_axis = Axis::upto(most, 6.0);
    let mut counts = [0u32; BARS];
    for value in &sorted {
        let at = (value / x_axis.most * BARS as f64) as usize;
        counts[at.min(BARS - 1)] += 1;
    }
    let highest = counts.iter().copied().max().unwrap_or(1);
    let y_axis = Axis::upto(f64::from(highest).max(4.0), 4.0);
    let note = format!("{unit}, {} ends of calls", sorted.len());
    open(out, title, &note, "");
    grid(out, &y_axis);
    for mark in x_axis.marks() {
        below(out, x_of(&x_axis, mark), &figure(mark));
    }
    let width = (WIDTH - LEFT - RIGHT) / BARS as f64;
    for (index, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (x, y) = (width.mul_add(index as f64, LEFT), y_of(&y_axis, f64::from(*count)));
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            x + 1.0,
            width - 2.0,
            (HEIGHT - BELOW - y).max(1.0)
        );
    }
    out.push_str("</svg></figure>\n");
}

/// Counts by name, the largest first.
pub(super) fn ranked(out: &mut String, title: &str, is_bad: bool, counts: &[(String, u32)]) {
    let class = if is_bad { "fail" } else { "count" };
    let most = f64::from(counts.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1));
    let height = 30.0 * counts.len() as f64 + 4.0;
    let _ = writeln!(
        out,
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{}\">",
        escape(title),
        escape(title)
    );
    for (index, (name, count)) in counts.iter().enumerate() {
        let y = 30.0 * index as f64;
        let width = (f64::from(*count) / most * (WIDTH - 60.0)).max(2.0);
        let _ = writeln!(
            out,
            "<text class=\"name\" x=\"0\" y=\"{:.1}\">{}</text>\
             <rect class=\"{class}\" x=\"0\" y=\"{:.1}\" width=\"{width:.1}\" height=\"7\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{count}</text>",
            y + 13.0,
            escape(name),
            y + 18.0,
            width + 6.0,
            y + 25.5
        );
    }
    out.push_str("</svg></figure>\n");
}
