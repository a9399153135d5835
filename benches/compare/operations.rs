//! Each SRTP operation beside the bare cryptography of the same packet.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use benches::rig::cpu;
use benches::rig::ratio::interleave;
use relay::srtp::{Receiver, Sender};
use rtp::sdes::Suite;

use crate::crypto::{Floor, PACKET, keys, packets};
use crate::figure::{Bar, Figure};
use crate::media::{Bench, TESTED_CORE};

const SUITES: [(&str, Suite); 3] = [
    ("AES-CM, HMAC-SHA1-80", Suite::AesCm128HmacSha1_80),
    ("AES-128-GCM", Suite::AeadAes128Gcm),
    ("AES-256-GCM", Suite::AeadAes256Gcm),
];
/// Packets that are made, and then worked on at one go.
const BATCH: usize = 2_000;
/// Batches of each turn.
const BATCHES: usize = 25;

impl Bench {
    /// Protecting and unprotecting, for each suite.
    pub(crate) fn operations(&self) -> anyhow::Result<Vec<Figure>> {
        eprintln!("SRTP operations");
        // A thread of its own, since this one belongs on the generator's core.
        let work = || {
            cpu::pin(None, TESTED_CORE)?;
            let mut found = Vec::new();
            for (name, suite) in SUITES {
                found.push(self.protecting(name, suite)?);
                found.push(self.unprotecting(name, suite)?);
            }
            anyhow::Ok(found)
        };
        let done = std::thread::scope(|scope| scope.spawn(work).join());
        done.ok().context("the thread of the operations has panicked")?
    }

    fn protecting(&self, name: &str, suite: Suite) -> anyhow::Result<Figure> {
        let mut sender = Sender::new(suite, &keys(suite))?;
        let mut next = packets();
        self.over_floor(name, "protect", suite, || {
            timed(&mut next, |packet| sender.protect_rtp(&mut packet[..], PACKET).is_ok())
        })
    }

    fn unprotecting(&self, name: &str, suite: Suite) -> anyhow::Result<Figure> {
        let keys = keys(suite);
        let (mut sender, mut receiver) = (Sender::new(suite, &keys)?, Receiver::new(suite, &keys)?);
        let mut next = packets();
        let mut protected = move || {
            let mut packet = next();
            let length = sender.protect_rtp(&mut packet, PACKET).unwrap_or(0);
            (packet, length)
        };
        self.over_floor(name, "unprotect", suite, || {
            timed(&mut protected, |(packet, length)| {
                receiver.unprotect_rtp(&mut packet[..*length]).is_ok()
            })
        })
    }

    fn over_floor(
        &self,
        name: &str,
        what: &str,
        suite: Suite,
        ours: impl FnMut() -> anyhow::Result<f64>,
    ) -> anyhow::Result<Figure> {
        let floor = Floor::new(suite).context("the floor refuses its key")?;
        let mut next = packets();
        let bare = || {
            timed(&mut next, |packet| {
                floor.work(packet);
                true
            })
        };
        let pairs = interleave(self.pairs, ours, bare)?;
        let what = format!("SRTP {what}, {name} over its floor");
        Ok(Figure::ratio(what, "ns", Bar::AtMost(1.3), "floor", &pairs))
    }
}

/// Nanoseconds of this thread for each packet; making them is not counted.
fn timed<T>(
    make: &mut impl FnMut() -> T,
    mut work: impl FnMut(&mut T) -> bool,
) -> anyhow::Result<f64> {
    let (mut spent, mut done) = (Duration::ZERO, 0);
    for _ in 0..BATCHES {
        let mut packets: Vec<T> = (0..BATCH).map(|_| make()).collect();
        let began = cpu::own_thread();
        for packet in &mut packets {
            done += usize::from(black_box(work(black_box(packet))));
        }
        spent += cpu::own_thread() - began;
    }
    ensure!(done == BATCH * BATCHES, "a packet was refused");
    Ok(spent.as_secs_f64() * 1e9 / done as f64)
}
