//! What machine a run was on, and how quiet it was.

use std::fs::read_to_string;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base::WallTime;
use serde::Serialize;

use crate::ng::Rtpengine;

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) began: String,
    pub(crate) ended: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) hypervisor: String,
    pub(crate) governor: String,
    pub(crate) load_before: String,
    pub(crate) load_after: String,
    /// The share of all cores that the hypervisor gave to others meanwhile, 0 to 1.
    pub(crate) stolen: f64,
    /// The share of all cores that was busy before anything was measured, 0 to 1.
    pub(crate) busy_before: f64,
    pub(crate) callgate: &'static str,
    pub(crate) rtpengine: String,
    pub(crate) kamailio: String,
    /// Cores' ticks at the beginning: stolen, and all.
    #[serde(skip)]
    ticks: (u64, u64),
}

fn said(command: &mut Command) -> Option<String> {
    let said = command.output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned())
}

fn file(path: &str) -> String {
    read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

fn cpuinfo(key: &str) -> Option<String> {
    let text = read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':'))?;
    Some(line.1.trim().to_owned())
}

/// `(idle, stolen, all)` ticks of all cores.
fn ticks() -> (u64, u64, u64) {
    let text = read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let numbers: Vec<u64> =
        first.split_whitespace().skip(1).filter_map(|it| it.parse().ok()).collect();
    let at = |index| numbers.get(index).copied().unwrap_or(0);
    // Guest time is within user time.
    (at(3) + at(4), at(7), numbers.iter().take(8).sum())
}

fn date() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(0)).to_string()
}

impl Machine {
    /// Looks at it, and watches for a second how busy others keep it.
    pub(crate) fn look() -> Self {
        let first = ticks();
        std::thread::sleep(std::time::Duration::from_secs(1));
        let then = ticks();
        let all = (then.2 - first.2).max(1) as f64;
        let governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
        let hypervisor = cpuinfo("flags").is_some_and(|flags| flags.contains(" hypervisor"));
        Self {
            began: date(),
            ended: String::new(),
            cpu: cpuinfo("model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: file("/proc/sys/kernel/osrelease"),
            hypervisor: if hypervisor { "virtual machine" } else { "none" }.into(),
            governor: file(governor),
            load_before: file("/proc/loadavg"),
            load_after: String::new(),
            stolen: 0.0,
            busy_before: 1.0 - (then.0 - first.0) as f64 / all,
            callgate: env!("CARGO_PKG_VERSION"),
            rtpengine: Rtpengine::version().unwrap_or_else(|| "not installed".into()),
            kamailio: said(Command::new("kamailio").arg("-v"))
                .unwrap_or_else(|| "not installed".into()),
            ticks: (then.1, then.2),
        }
    }

    /// Notes how it was meanwhile.
    pub(crate) fn finish(&mut self) {
        let now = ticks();
        let all = now.2.saturating_sub(self.ticks.1).max(1) as f64;
        self.stolen = now.1.saturating_sub(self.ticks.0) as f64 / all;
        (self.ended, self.load_after) = (date(), file("/proc/loadavg"));
    }
}
