//! callgate against its peers, on this machine, in interleaved pairs: the figures of the README.
//!
//! `cargo bench -p callgate-benches --bench compare -- relay srtp` measures some of them,
//! `make compare` all; without a word it says what there is. The peers come from Debian packages
//! (`deploy/compare.sh`). This program starts and ends what it measures, keeps to loopback, and
//! saves what it found in `data/compare`.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod anchor;
mod bencode;
mod browser;
mod calls;
#[path = "../crypto.rs"]
mod crypto;
mod figure;
mod floor;
mod handshake;
mod handshakes;
mod machine;
mod media;
mod ng;
mod operations;
mod ours;
mod overhead;
mod overload;
mod process;
mod report;
mod server;
mod soak;
mod traffic;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use clap::{Parser, ValueEnum};
use rtp::sdes::Suite;

use crate::calls::Stage;
use crate::figure::{Bar, Figure};
use crate::machine::Machine;
use crate::media::Bench;
use crate::report::Report;
use crate::traffic::{Speech, Work};

/// Measures callgate against rtpengine and Kamailio.
#[derive(Parser)]
struct Options {
    /// What to measure.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Pairs of each figure.
    #[arg(long, default_value_t = 9)]
    pairs: usize,
    /// Seconds of each window.
    #[arg(long, default_value_t = 2.5)]
    seconds: f64,
    /// Minutes of a soak.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Take windows in which the generator had no headroom, to check the harness.
    #[arg(long)]
    tolerant: bool,
    /// Put a second rtpengine in callgate's place: every ratio must then be about 1.
    #[arg(long)]
    self_check: bool,
    /// Where to save the report.
    #[arg(long, default_value = "data/compare")]
    out: PathBuf,
    /// The program whose whole calls are measured; by default the one that cargo builds.
    #[arg(long, value_name = "PROGRAM")]
    callgate: Option<PathBuf>,
    /// Relay workers of `relay-server`.
    #[arg(long, default_value_t = 1, hide = true)]
    workers: usize,
    /// Cargo says so; it means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything but the soak.
    All,
    /// CPU per packet of the plain relay.
    Relay,
    /// CPU per packet of SRTP.
    Srtp,
    /// CPU per packet of G.711 into G.711.
    Recode,
    /// CPU per packet of Opus, and calls per core.
    Opus,
    /// CPU per packet of Opus over libopus alone.
    Overhead,
    /// Most calls on one core, plain and SRTP.
    Capacity,
    /// Latency at half a core.
    Latency,
    /// Age of what comes out where a core has too many calls.
    Overload,
    /// Our relay over a bare forwarder on the same driver, and under a flood.
    Floor,
    /// SRTP operations over the bare cryptography.
    Operations,
    /// CPU per DTLS handshake, against OpenSSL.
    Handshake,
    /// Calls that stand beside DTLS handshakes.
    Handshakes,
    /// CPU per packet between DTLS-SRTP and SRTP with keys in SDP.
    Dtls,
    /// Memory of a call.
    Memory,
    /// Calls that come and go beside calls that stand.
    Churn,
    /// Whole calls over connections that stand: CPU, set-up, memory.
    Calls,
    /// Whole calls with a TLS connection for each.
    Connections,
    /// Memory of people who are registered over WSS.
    Registrations,
    /// Minutes of the relay with calls that come and go; not part of `all`.
    Soak,
    /// The same with whole calls; not part of `all`.
    SoakCalls,
    /// The relay alone, driven by lines; this program starts it for itself.
    #[value(hide = true)]
    RelayServer,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.what.contains(&What::RelayServer) {
        return server::serve(options.workers);
    }
    if options.what.is_empty() {
        // `cargo bench` without a word comes here: it has minutes, not half an hour.
        println!("compare: say what to measure (--help), or run `make compare`");
        return Ok(());
    }
    // Cargo starts a bench in its package's folder.
    std::env::set_current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))?;
    let bench = Bench {
        pairs: options.pairs,
        seconds: options.seconds,
        minutes: options.minutes,
        is_tolerant: options.tolerant,
        is_self_check: options.self_check,
        program: options.callgate.map_or_else(beside, Ok)?,
        speech: Speech::new()?,
    };
    let mut report = Report {
        machine: Machine::look(),
        pairs: options.pairs,
        seconds: options.seconds,
        is_tolerant: options.tolerant,
        figures: Vec::new(),
        not_measured: Vec::new(),
    };
    let all = options.what.contains(&What::All);
    for (what, measure) in MEASURES {
        let is_soak = matches!(what, What::Soak | What::SoakCalls);
        if !options.what.contains(what) && (!all || is_soak) {
            let told = format!("{what:?}: not asked for");
            if report.not_measured.last() != Some(&told) {
                report.not_measured.push(told);
            }
            continue;
        }
        match measure(&bench) {
            Ok(found) => report.figures.extend(found),
            Err(error) => {
                eprintln!("{what:?}: {error:#}");
                report.not_measured.push(format!("{what:?}: {error:#}"));
            }
        }
        // After each, so that a run which is broken off has lost nothing.
        report.machine.finish();
        report.save(&options.out)?;
    }
    println!("{}", report.save(&options.out)?);
    Ok(())
}

/// callgate, where cargo puts it: one folder above this program.
fn beside() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent);
    Ok(folder.context("this program has no folder")?.join("callgate"))
}

type Measure = fn(&Bench) -> anyhow::Result<Vec<Figure>>;

/// The figures and their bars; what fails takes no more than its own row along.
const MEASURES: &[(What, Measure)] = &[
    (What::Relay, |bench| {
        let steps = [(200, Bar::AtMost(0.35)), (650, Bar::AtMost(0.5))];
        bench.cpu("plain relay", Work::Plain, &steps)
    }),
    (What::Floor, Bench::floor),
    (What::Operations, Bench::operations),
    (What::Handshake, Bench::handshake),
    (What::Srtp, |bench| {
        let steps = [(200, Bar::AtMost(0.35)), (500, Bar::AtMost(0.5))];
        bench.cpu("SRTP <-> RTP", Work::SrtpToPlain, &steps)
    }),
    (What::Srtp, |bench| {
        let steps = [(200, Bar::AtMost(0.35)), (500, Bar::AtMost(0.5))];
        bench.cpu("SRTP <-> SRTP", Work::SrtpToSrtp, &steps)
    }),
    (What::Dtls, |bench| {
        let (name, steps) = ("DTLS-SRTP (AES-GCM) <-> SRTP", [(200, Bar::AtMost(0.35))]);
        bench.cpu(name, Work::DtlsToSrtp(Suite::AeadAes128Gcm), &steps)
    }),
    (What::Dtls, |bench| {
        let (name, steps) = ("DTLS-SRTP (AES-CM) <-> SRTP", [(200, Bar::AtMost(0.35))]);
        bench.cpu(name, Work::DtlsToSrtp(Suite::AesCm128HmacSha1_80), &steps)
    }),
    (What::Handshakes, |bench| Ok(vec![bench.handshakes(200, 200.0)?])),
    (What::Recode, |bench| bench.recode(150)),
    (What::Opus, |bench| bench.cpu("Opus <-> PCMU", Work::Opus, &[(16, Bar::None)])),
    (What::Opus, |bench| {
        let (name, bar) = ("Opus <-> PCMU, complexity 10 on both sides", Bar::AtLeast(2.0));
        Ok(vec![bench.capacity(name, Work::OpusAlike, [200, 80], [60, 28], bar)?])
    }),
    (What::Opus, |bench| {
        let (name, bar) = ("Opus <-> PCMU, each as it comes", Bar::AtLeast(5.0));
        Ok(vec![bench.capacity(name, Work::Opus, [420, 80], [240, 28], bar)?])
    }),
    (What::Overhead, |bench| bench.opus_overhead(200)),
    (What::Capacity, |bench| {
        let (name, bar) = ("plain relay", Bar::AtLeast(2.0));
        Ok(vec![bench.capacity(name, Work::Plain, [2_900, 1_700], [1_800, 900], bar)?])
    }),
    (What::Capacity, |bench| {
        let (name, bar) = ("SRTP <-> RTP", Bar::AtLeast(2.0));
        Ok(vec![bench.capacity(name, Work::SrtpToPlain, [2_900, 1_700], [1_500, 700], bar)?])
    }),
    (What::Latency, Bench::latency),
    (What::Overload, Bench::overload),
    (What::Memory, |bench| {
        let mut found = bench.memory("plain relay", Work::Plain, 400, 20.0)?;
        found.extend(bench.memory("SRTP <-> RTP", Work::SrtpToPlain, 400, 24.0)?);
        Ok(found)
    }),
    (What::Churn, |bench| Ok(vec![bench.churn(500, 20.0)?])),
    (What::Calls, |bench| Stage::set(bench)?.standing(300.0, Bar::AtMost(0.5))),
    (What::Calls, |bench| Stage::set(bench)?.standing(100.0, Bar::None)),
    (What::Calls, |bench| Ok(vec![Stage::set(bench)?.memory()?])),
    (What::Connections, |bench| Ok(vec![Stage::set(bench)?.fresh(100.0, Bar::AtMost(0.6))?])),
    (What::Connections, |bench| Ok(vec![Stage::set(bench)?.lost(300.0)?])),
    (What::Registrations, |bench| Ok(vec![bench.registrations(8_000)?])),
    (What::Soak, |bench| soak::relay(bench, bench.minutes)),
    (What::SoakCalls, |bench| Stage::set(bench)?.soak(bench.minutes)),
];
