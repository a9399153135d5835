//! How much of the machine the load tester itself needed, and what it missed.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::Shared;
use super::board::Reading;
use crate::os::process_time;
use std::sync::atomic::Ordering::Relaxed;

/// Reads what the system says about us.
#[derive(Default)]
pub(super) struct Own {
    /// Datagrams that the system dropped for want of room, all processes', when last read.
    system: Option<u64>,
    /// Drops of each of our sockets (by port), as last seen.
    by_port: BTreeMap<u16, u64>,
    /// Of sockets that are gone.
    gone: u64,
    cores: Vec<(u64, u64)>,
}

impl Own {
    /// What the threads and the system say now.
    pub(super) fn read(&mut self, shared: &Shared) -> Reading {
        let mut reading = Reading { process: process_time(), ..Reading::default() };
        for gauges in shared.engine.gauges() {
            reading.sent += gauges.sent.load(Relaxed);
            reading.received += gauges.received.load(Relaxed);
            reading.ticks += gauges.ticks.load(Relaxed);
            reading.behind += gauges.behind.load(Relaxed);
            reading.threads.push(Duration::from_micros(gauges.cpu_us.load(Relaxed)));
        }
        self.look_for_drops();
        reading.drops = self.gone + self.by_port.values().sum::<u64>();
        reading
    }

    /// Counts drops of our sockets. The list of all sockets is long, so that it is read only where
    /// the system dropped anything at all.
    fn look_for_drops(&mut self) {
        let system = fs::read_to_string("/proc/self/net/snmp").ok().and_then(|it| dropped(&it));
        let is_new = system != self.system;
        self.system = system;
        if !is_new {
            return;
        }
        let inodes = inodes();
        let mut seen = BTreeMap::new();
        for file in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
            let Ok(text) = fs::read_to_string(file) else { continue };
            for (port, inode, drops) in text.lines().skip(1).filter_map(socket) {
                if inodes.contains(&inode) {
                    *seen.entry(port).or_insert(0) += drops;
                }
            }
        }
        let gone = self
            .by_port
            .iter()
            .filter(|(port, drops)| seen.get(*port).is_none_or(|now: &u64| now < *drops));
        self.gone += gone.map(|(_, drops)| drops).sum::<u64>();
        self.by_port = seen;
    }

    /// How busy each core of the machine was since the last question, in percent.
    pub(super) fn cores(&mut self) -> Vec<f64> {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let now: Vec<(u64, u64)> = text.lines().filter_map(core).collect();
        let busy = now.iter().enumerate().map(|(index, (busy, all))| {
            let (was, before) = self.cores.get(index).copied().unwrap_or_default();
            let all = all.saturating_sub(before).max(1);
            busy.saturating_sub(was) as f64 * 100.0 / all as f64
        });
        let busy = busy.collect();
        self.cores = now;
        busy
    }
}

/// The sockets of this process.
fn inodes() -> std::collections::BTreeSet<u64> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Default::default() };
    let link = |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
    entries
        .filter_map(link)
        .filter_map(|it| it.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// `RcvbufErrors` of `/proc/net/snmp`.
fn dropped(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|it| it == "RcvbufErrors")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

/// Port, inode and drops of a line of `/proc/net/udp`.
fn socket(line: &str) -> Option<(u16, u64, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = words.get(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((port, words.get(9)?.parse().ok()?, words.get(12)?.parse().ok()?))
}

/// Busy and all time of a core, of a line of `/proc/stat`.
fn core(line: &str) -> Option<(u64, u64)> {
    let (name, rest) = line.split_once(' ')?;
    let number = name.strip_prefix("cpu")?;
    if number.is_empty() {
        return None;
    }
    let times: Vec<u64> =
        rest.split_whitespace().filter_map(|it| it.parse().ok()).take(8).collect();
    let all: u64 = times.iter().sum();
    // The fourth and fifth are idle time and waiting for a disk.
    let idle = times.get(3).copied().unwrap_or(0) + times.get(4).copied().unwrap_or(0);
    Some((all.saturating_sub(idle), all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_tables_are_read() {
        let snmp = "Tcp: a\nTcp: 1\nUdp: InDatagrams InErrors RcvbufErrors\nUdp: 7 8 9\n";
        assert_eq!(dropped(snmp), Some(9));
        assert_eq!(dropped("Udp: x\n"), None);
        let line = "  99: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000 \
                     0        0 4711 2 0000000000000000 5";
        assert_eq!(socket(line), Some((8080, 4711, 5)));
        assert_eq!(socket("sl local_address"), None);
        assert_eq!(core("cpu1 10 0 5 80 5 0 0 0 0 0"), Some((15, 100)));
        assert_eq!(core("cpu  10 0 5 80 5 0 0 0 0 0"), None);
    }

    #[test]
    fn this_process_has_sockets_and_cores() {
        let _socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!inodes().is_empty());
        assert!(!Own::default().cores().is_empty());
    }
}
