//! Minutes of load in which calls come and go: what is left of them afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::anchor::Anchor as _;
use crate::figure::{Bar, Figure, Window};
use crate::media::Bench;
use crate::ours::Callgate;
use crate::process::Holding;
use crate::traffic::{Traffic, Work, window};

/// The share of the core that the load takes.
const SHARE: f64 = 0.7;
/// Most calls tried.
const MOST: u32 = 1_600;
/// The share of the calls that stand throughout; the others live for some seconds.
const STANDING: f64 = 0.8;
/// What a call's coming and going may leave behind for good, in KB: less than any object of one.
const LEFT_KB: f64 = 0.05;
/// Ports rest for five seconds (limit `relay.quarantine_ms`) before they count as given back.
const REST: Duration = Duration::from_secs(7);

/// Runs for so long at 70 % of a core with SRTP calls, a fifth of which comes and goes.
pub(crate) fn relay(bench: &Bench, minutes: f64) -> anyhow::Result<Vec<Figure>> {
    eprintln!("soak, {minutes} minutes");
    let mut ours = bench.relay()?;
    let process = ours.process();
    let before = Holding::of(process)?;
    let calls = calls_at(bench, &mut ours, SHARE)?;
    let standing = (f64::from(calls) * STANDING) as u32;
    let coming = calls - standing;
    let mut traffic = Traffic::open(&mut ours, &bench.speech, Work::SrtpToPlain, 0..standing)?;
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let is_over = AtomicBool::new(false);
    let (mut windows, mut held) = (Vec::new(), Vec::new());
    let churned = std::thread::scope(|scope| {
        let churner = scope.spawn(|| churn(bench, &mut ours, coming, &is_over));
        let standing = (|| {
            while Instant::now() < end {
                let seen = traffic.run(standing, &window(8.0))?;
                windows.push(Window::of("callgate", standing, &seen));
                held.push(Holding::of(process)?);
                say(windows.last(), held.last());
            }
            anyhow::Ok(())
        })();
        is_over.store(true, Ordering::Relaxed);
        let churned = churner.join().ok().context("the churning thread has panicked")??;
        standing.map(|()| churned)
    })?;
    traffic.close(&mut ours)?;
    std::thread::sleep(REST);
    let after = Holding::of(process)?;
    let said = format!(
        "{minutes} minutes, {standing} calls standing, {churned} came and went, core {:.0} % at \
         the end",
        windows.last().map_or(0.0, |it| it.cpu_share * 100.0)
    );
    let none = Bar::AtMost(0.0);
    let descriptors = after.descriptors.saturating_sub(before.descriptors);
    // The first third fills what is kept for reuse.
    let settled = held.get(held.len() / 3).map_or(0, |it| it.pss);
    let last = held.last().map_or(0, |it| it.pss);
    let growth = last.saturating_sub(settled) as f64 / 1024.0;
    let grown = growth / (f64::from(churned) * 2.0 / 3.0).max(1.0);
    let worst = windows.iter().map(|it| it.p99_ms).fold(0.0, f64::max);
    let lost = windows.iter().map(|it| it.loss).fold(0.0, f64::max) * 100.0;
    Ok(vec![
        Figure::exact("soak: sessions left", "", none, ours.sessions()? as f64).note(said),
        Figure::exact("soak: descriptors left", "", none, descriptors as f64),
        Figure::exact("soak: ports left open", "", none, ours.open_ports()? as f64),
        Figure::exact("soak: memory left by a call", "KB", Bar::AtMost(LEFT_KB), grown).note(
            format!(
                "proportional set size: {:.1} MB at first, {:.1} MB after a third, {:.1} MB at \
                 the end under load, {:.1} MB after all calls had gone",
                mb(before.pss),
                mb(settled),
                mb(last),
                mb(after.pss)
            ),
        ),
        Figure::exact("soak: worst window's p99 latency", "ms", Bar::None, worst),
        Figure::exact("soak: worst window's loss", "%", Bar::None, lost).windows(windows),
    ])
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

fn say(window: Option<&Window>, held: Option<&Holding>) {
    if let (Some(window), Some(held)) = (window, held) {
        eprintln!(
            "  core {:.0} %, loss {:.3} %, p99 {:.2} ms, {:.1} MB, {} descriptors",
            window.cpu_share * 100.0,
            window.loss * 100.0,
            window.p99_ms,
            mb(held.pss),
            held.descriptors
        );
    }
}

/// How many calls take that share of the core.
fn calls_at(bench: &Bench, ours: &mut Callgate, share: f64) -> anyhow::Result<u32> {
    let numbers = 1_000_000..1_000_000 + MOST;
    let mut traffic = Traffic::open(ours, &bench.speech, Work::SrtpToPlain, numbers)?;
    let mut calls = 500;
    for _ in 0..4 {
        let seen = traffic.run(calls, &window(1.5))?;
        let used = Window::of("callgate", calls, &seen).cpu_share;
        calls = ((f64::from(calls) * share / used.max(0.01)) as u32).clamp(50, MOST);
    }
    traffic.close(ours)?;
    std::thread::sleep(REST);
    Ok(calls)
}

/// Sets calls up, speaks through them for some seconds and tears them down, over and over; how
/// many there were.
fn churn(
    bench: &Bench,
    ours: &mut Callgate,
    calls: u32,
    is_over: &AtomicBool,
) -> anyhow::Result<u32> {
    let mut next = 2_000_000;
    while !is_over.load(Ordering::Relaxed) {
        let numbers = next..next + calls;
        next = numbers.end;
        let mut traffic = Traffic::open(ours, &bench.speech, Work::SrtpToPlain, numbers)?;
        traffic.run(calls, &window(3.0))?;
        traffic.close(ours)?;
    }
    Ok(next - 2_000_000)
}
