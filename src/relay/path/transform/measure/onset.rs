//! From the onset of speech to the stop of the agent, and stops for nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use audio::{Codec, SampleRate, level, mix};

use super::corpus::{self, PROSE, Recording};
use super::sounds::{self, Noise, Noises};
use super::{carried, heard, measures_all};

/// Silence or noise before the recording, in milliseconds: the noise floor is known from it, and
/// the agent, who speaks all the time, is known to make no echo.
const LEAD_MS: usize = 1500;
/// The same where that is not yet so: the agent's first word is not over.
const SHORT_LEAD_MS: usize = 450;
/// What was never decided.
const ENDLESS: i64 = 9999;
/// How long after an onset a decision still counts.
const PATIENCE_MS: usize = 1200;

/// One way in which a recording is said.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Condition {
    codec: Codec,
    dbfs: f32,
    noise: Option<(Noise, u8)>,
}

/// What was measured of one recording in one condition.
struct Row {
    condition: Condition,
    name: String,
    /// Milliseconds from the onset to the stop; `None` where there was none.
    latency: Option<i64>,
    /// How much earlier the onset at 40 dB is.
    earlier: i64,
    /// How much later the first 10 ms are that are louder than the noise laid under them.
    later: i64,
}

/// The start of the first 10 ms within `db` of the loudest, in milliseconds.
pub(super) fn onset_ms(pcm: &[i16], rate: SampleRate, db: f32) -> usize {
    let levels: Vec<f32> = pcm.chunks(rate.samples(10)).map(level::dbfs).collect();
    let loudest = levels.iter().copied().fold(f32::MIN, f32::max);
    levels.iter().position(|it| *it >= loudest - db).unwrap() * 10
}

/// The level of the stretches of 10 ms within 25 dB of the loudest, in dBFS.
pub(super) fn active_dbfs(pcm: &[i16], rate: SampleRate) -> f32 {
    let chunks = || pcm.chunks_exact(rate.samples(10));
    let loudest = chunks().map(level::dbfs).fold(f32::MIN, f32::max);
    let active = chunks().filter(|it| level::dbfs(it) >= loudest - 25.0);
    level::dbfs(&active.flatten().copied().collect::<Vec<_>>())
}

fn conditions() -> Vec<Condition> {
    let noises = [Noise::White, Noise::Pink, Noise::Babble];
    let noisy = noises.into_iter().flat_map(|it| [30, 20, 15].map(|snr| Some((it, snr))));
    let noises: Vec<_> = std::iter::once(None).chain(noisy).collect();
    let levels = [-15.0, -25.0, -35.0];
    Codec::ALL
        .into_iter()
        .flat_map(|codec| levels.map(|dbfs| (codec, dbfs)))
        .flat_map(|(codec, dbfs)| noises.iter().map(move |&noise| Condition { codec, dbfs, noise }))
        .collect()
}

fn measure(
    recording: &Recording,
    condition: Condition,
    lead: usize,
    noises: &Noises,
    agent: &[i16],
) -> Row {
    let Condition { codec, dbfs, noise } = condition;
    let narrow = matches!(codec, Codec::Pcmu | Codec::Pcma);
    let rate = if narrow { SampleRate::Hz8000 } else { SampleRate::Hz16000 };
    let clean = recording.at(rate);
    let onset = onset_ms(clean, rate, 30.0);
    let earlier = onset - onset_ms(clean, rate, 40.0);
    let noise_dbfs = noise.map_or(f32::MIN, |(_, snr)| active_dbfs(clean, rate) - f32::from(snr));
    let tens = clean[rate.samples(onset as u32)..].chunks(rate.samples(10));
    let later = 10 * tens.map(level::dbfs).take_while(|it| *it < noise_dbfs).count();
    let gain = level::from_db(dbfs - active_dbfs(clean, rate));
    // The recordings start at any place within the frames of codec and network.
    let lead = lead + recording.name.bytes().map(usize::from).sum::<usize>() * 7 % 40;
    let length = rate.samples((lead + onset + PATIENCE_MS) as u32);
    let mut pcm = vec![0; length];
    if let Some((noise, snr)) = noise {
        let raw = noises.of(noise, rate);
        let gain = level::from_db(dbfs - f32::from(snr)) * 32.768;
        let shift = lead * 997 % (raw.len() / 2);
        for (sample, raw) in pcm.iter_mut().zip(raw.iter().cycle().skip(shift)) {
            *sample = (f32::from(*raw) * gain) as i16;
        }
    }
    let start = rate.samples(lead as u32);
    let voice: Vec<i16> = sounds::scaled(clean, gain);
    let count = voice.len().min(length - start);
    mix::add(&mut pcm[start..start + count], &voice[..count]);
    let outcome = heard(&carried(codec, &pcm), agent, true);
    let latency = outcome.stops.first().map(|at| at - (lead + onset) as i64);
    Row {
        condition,
        name: recording.name.clone(),
        latency,
        earlier: earlier as i64,
        later: later as i64,
    }
}

/// Every recording in those conditions that `wanted` takes, on two threads.
fn rows(
    recordings: &[Recording],
    lead: usize,
    wanted: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<Row> {
    let (noises, agent) = (Noises::new(), corpus::flite("slt", PROSE));
    let conditions = conditions();
    let jobs: Vec<_> = (0..recordings.len())
        .flat_map(|r| (0..conditions.len()).map(move |c| (r, c)))
        .filter(|&(r, c)| wanted(r, c))
        .collect();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&(r, c)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = measure(&recordings[r], conditions[c], lead, &noises, &agent);
                    rows.lock().unwrap().push(row);
                }
            });
        }
    });
    rows.into_inner().unwrap()
}

/// Which onset a latency is counted from.
#[derive(Clone, Copy)]
enum From {
    /// The first 10 ms within 30 dB of the loudest.
    Within30,
    /// Within 40 dB.
    Within40,
    /// Within 30 dB, and no quieter than the noise laid under.
    Audible,
}

/// Latencies of a group, sorted; what was never decided is endless.
struct Summary {
    sorted: Vec<i64>,
    early: usize,
}

impl Summary {
    fn of<'a>(rows: impl Iterator<Item = &'a Row>, from: From) -> Self {
        let (mut sorted, mut early) = (Vec::new(), 0);
        for row in rows {
            let latency = row.latency.unwrap_or(ENDLESS);
            if latency + row.earlier < 0 {
                early += 1; // for the noise, not for the voice
                continue;
            }
            sorted.push(match from {
                From::Within30 => latency,
                From::Within40 => latency + row.earlier,
                From::Audible => latency - row.later,
            });
        }
        sorted.sort_unstable();
        Self { sorted, early }
    }

    fn at(&self, share: f64) -> i64 {
        let index = (self.sorted.len() as f64 * share).ceil() as usize;
        self.sorted.get(index.saturating_sub(1)).copied().unwrap_or(0)
    }

    fn over(&self, millis: i64) -> usize {
        self.sorted.iter().filter(|it| **it > millis).count()
    }
}

fn print_line(rows: &[Row], name: &str, of: &dyn Fn(&Row) -> bool) {
    let summary = |from| Summary::of(rows.iter().filter(|it| of(it)), from);
    let (main, strict, audible) =
        (summary(From::Within30), summary(From::Within40), summary(From::Audible));
    println!(
        "{name:26} n {:5} p50 {:3} p90 {:3} p99 {:3} worst {:4} over 200 {:4} | audible p99 {:3} \
         worst {:4} over {:3} | 40 dB p50 {:3} p99 {:3} worst {:4} | before {}",
        main.sorted.len(),
        main.at(0.5),
        main.at(0.9),
        main.at(0.99),
        main.at(1.0),
        main.over(200),
        audible.at(0.99),
        audible.at(1.0),
        audible.over(200),
        strict.at(0.5),
        strict.at(0.99),
        strict.at(1.0),
        main.early,
    );
}

fn snr(row: &Row) -> u8 {
    row.condition.noise.map_or(99, |it| it.1)
}

fn print_tables(rows: &[Row]) {
    let table = |name: &str, of: &dyn Fn(&Row) -> bool| print_line(rows, name, of);
    table("all", &|_| true);
    table("20 dB and more", &|it| snr(it) >= 20);
    for codec in Codec::ALL {
        table(codec.name(), &|it| it.condition.codec == codec && snr(it) >= 20);
    }
    for dbfs in [-15.0, -25.0, -35.0] {
        table(&format!("{dbfs} dBFS"), &|it| it.condition.dbfs == dbfs && snr(it) >= 20);
    }
    table("clean", &|it| it.condition.noise.is_none());
    for noise in [Noise::White, Noise::Pink, Noise::Babble] {
        for snr in [30, 20, 15] {
            let name = format!("{noise:?} {snr} dB");
            table(&name, &|it| it.condition.noise == Some((noise, snr)));
        }
    }
    table("human", &|it| !it.name.contains(": ") && snr(it) >= 20);
    table("flite", &|it| it.name.contains(": ") && snr(it) >= 20);
    let mut names: Vec<&str> = rows.iter().map(|it| it.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut late: Vec<(usize, i64, &str)> = Vec::new();
    for name in names {
        let of = |it: &&Row| it.name == name && snr(it) >= 20;
        let own = Summary::of(rows.iter().filter(of), From::Within30);
        late.push((own.over(200), own.at(1.0), name));
    }
    late.sort_unstable();
    for (over, worst, name) in late.iter().rev().filter(|it| it.0 > 0).take(40) {
        println!("{name:30} over 200 ms {over} worst {worst}");
    }
}

#[test]
fn speech_stops_the_agent_within_200_ms_of_its_onset() {
    let all = measures_all();
    let recordings = corpus::recordings(if all { 1 } else { 4 });
    let rows = rows(&recordings, LEAD_MS, |r, c| all || (r * 37 + c * 11) % 25 == 0);
    print_tables(&rows);
    let of = |from, wanted: &dyn Fn(&Row) -> bool| {
        Summary::of(rows.iter().filter(|it| wanted(it)), from)
    };
    let good = of(From::Within30, &|it| snr(it) >= 20);
    let audible = of(From::Audible, &|it| snr(it) >= 20);
    let clean = of(From::Within30, &|it| it.condition.noise.is_none());
    let (count, percent) = (good.sorted.len(), |share: usize| good.sorted.len() * share / 100);
    assert!(count > 150 && good.at(0.5) <= 90, "median {} of {count}", good.at(0.5));
    assert!(good.at(0.9) <= 165, "p90 {}", good.at(0.9));
    assert!(good.over(200) <= percent(2), "{} of {count} over 200 ms", good.over(200));
    assert!(audible.over(200) <= percent(2), "{} of {count} over 200 ms", audible.over(200));
    assert!(good.over(600) <= percent(1), "{} of {count} over 600 ms", good.over(600));
    let early = rows.iter().filter(|it| it.condition.noise.is_none_or(|it| it.0 != Noise::Babble));
    let early = Summary::of(early, From::Within30).early;
    assert_eq!(early, 0, "for noise that is nobody's voice");
    assert!(good.early <= percent(4), "{} of {count} for people beside the caller", good.early);
    assert!(clean.at(0.99) <= 200, "{} ms without noise", clean.at(0.99));
    let poor = of(From::Within30, &|it| snr(it) == 15);
    assert!(poor.at(0.9) <= 250, "p90 {} at 15 dB", poor.at(0.9));
}

#[test]
fn speech_into_the_agents_first_word_takes_no_more_than_100_ms_longer() {
    let all = measures_all();
    let recordings = corpus::recordings(if all { 1 } else { 4 });
    let share = if all { 20 } else { 75 };
    let rows = rows(&recordings, SHORT_LEAD_MS, |r, c| (r * 37 + c * 11) % share == 0);
    print_line(&rows, "first word, 20 dB and more", &|it| snr(it) >= 20);
    let good = Summary::of(rows.iter().filter(|it| snr(it) >= 20), From::Within30);
    let (count, late) = (good.sorted.len(), good.over(300));
    assert!(count > 50 && late * 100 <= count * 5, "{late} of {count} over 300 ms");
}

/// Stops at least a second apart: in a call the first one ends the speech.
fn events(stops: &[i64]) -> usize {
    let mut last = i64::MIN;
    let is_new = |at: &&i64| {
        let is_new = **at >= last.saturating_add(1000);
        last = if is_new { **at } else { last };
        is_new
    };
    stops.iter().filter(is_new).count()
}

/// The most stops in a minute, as measured over all; music has no bound.
const STOPS_PER_MINUTE: [(&str, f32); 14] = [
    ("silence", 0.0),
    ("comfort noise with steps", 0.0),
    ("white noise with steps", 0.0),
    ("pink noise with steps", 0.0),
    ("clicks", 0.0),
    ("knocks", 0.0),
    ("knocks over noise", 2.0),
    ("crackle", 4.0),
    ("breaths", 3.0),
    ("hisses", 1.0),
    ("keys", 0.0),
    ("call progress", 0.0),
    ("hum", 3.0),
    ("chords", 60.0),
];

#[test]
fn what_is_no_voice_seldom_stops_the_agent() {
    let all = measures_all();
    let (noises, agent) = (Noises::new(), corpus::flite("slt", PROSE));
    let mut total = 0.0;
    for (name, pcm) in sounds::no_speech(&noises) {
        let (_, most) = STOPS_PER_MINUTE.iter().find(|it| it.0 == name).unwrap();
        for codec in [Codec::Pcmu, Codec::Opus] {
            if codec == Codec::Opus && !all {
                continue;
            }
            let pcm = if all { &pcm } else { &pcm[..pcm.len().min(8000 * 30)] };
            let minutes = pcm.len() as f32 / 480_000.0;
            total += minutes;
            let wide = || corpus::resample(pcm, SampleRate::Hz8000, SampleRate::Hz16000);
            let pcm = if codec == Codec::Opus { wide() } else { pcm.to_vec() };
            let outcome = heard(&carried(codec, &pcm), &agent, false);
            let (stops, starts) = (events(&outcome.stops), outcome.started.len());
            println!(
                "{name:26} {:5} {minutes:.1} min: {stops} stops, {starts} starts",
                codec.name()
            );
            assert!(stops as f32 <= (most * minutes).ceil(), "{name}: {:?}", outcome.stops);
        }
    }
    println!("{total:.1} minutes");
}
