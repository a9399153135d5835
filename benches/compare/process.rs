//! A process under test: kept on its core, measured, ended with us.

use std::collections::HashSet;
use std::process::Child;
use std::time::Duration;

use anyhow::Context as _;

use benches::rig::cpu;
use rustix::thread::CpuSet;

/// A child that is ended when this is dropped.
pub(crate) struct Process {
    child: Child,
    name: &'static str,
    core: Option<usize>,
}

impl Process {
    /// Takes a child over and pins it.
    pub(crate) fn new(
        child: Child,
        name: &'static str,
        core: Option<usize>,
    ) -> anyhow::Result<Self> {
        let it = Self { child, name, core };
        it.pin()?;
        Ok(it)
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Keeps every thread that it has now on its core; later ones inherit that.
    pub(crate) fn pin(&self) -> anyhow::Result<()> {
        let Some(core) = self.core else { return Ok(()) };
        for (thread, _) in cpu::threads(self.id())? {
            // A thread may end while we look.
            let _ = cpu::pin(Some(thread), core);
        }
        Ok(())
    }

    /// Its standard input and output, once.
    pub(crate) fn pipes(
        &mut self,
    ) -> anyhow::Result<(std::process::ChildStdin, std::process::ChildStdout)> {
        let input = self.child.stdin.take().context("no pipe to the process")?;
        Ok((input, self.child.stdout.take().context("no pipe from the process")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let number = rustix::process::Pid::from_child(&self.child);
        // It may have ended by itself; whatever is left of it is killed after five seconds.
        let _ = rustix::process::kill_process(number, rustix::process::Signal::TERM);
        for _ in 0..500 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} does not end by itself", self.name);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the calling thread use every core again.
pub(crate) fn unpin() -> anyhow::Result<()> {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|core| all.set(core));
    Ok(rustix::thread::sched_setaffinity(None, &all)?)
}

/// What a process holds of memory, descriptors and ports.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Holding {
    /// Proportional set size, in bytes.
    pub(crate) pss: u64,
    /// Memory that is nobody's file, in bytes: heap and stacks.
    pub(crate) anonymous: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
    /// UDP ports that it has bound itself; several sockets may share one.
    pub(crate) ports: u64,
}

impl Holding {
    /// Of a process.
    pub(crate) fn of(process: u32) -> anyhow::Result<Self> {
        let (mut descriptors, mut sockets) = (0, HashSet::new());
        for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
            descriptors += 1;
            // One that has just been closed has no target.
            let Ok(target) = std::fs::read_link(entry?.path()) else { continue };
            sockets.extend(target.to_str().and_then(inode));
        }
        let mut ports = HashSet::new();
        for table in ["udp", "udp6"] {
            let text = std::fs::read_to_string(format!("/proc/{process}/net/{table}"))?;
            let fields = |line: &str| {
                let mut fields = line.split_whitespace();
                let port = fields.nth(1)?.rsplit_once(':')?.1.to_owned();
                Some((port, fields.nth(7)?.parse::<u64>().ok()?))
            };
            let bound = text.lines().skip(1).filter_map(fields);
            ports.extend(bound.filter(|it| sockets.contains(&it.1)).map(|it| it.0));
        }
        Ok(Self { descriptors, ports: ports.len() as u64, ..Self::memory_of(process)? })
    }

    /// Its memory alone, which is soon looked at, even of a process with thousands of sockets.
    pub(crate) fn memory_of(process: u32) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let bytes = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let kilobytes = line.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
            kilobytes.unwrap_or(0) * 1024
        };
        Ok(Self { pss: bytes("Pss"), anonymous: bytes("Anonymous"), ..Self::default() })
    }

    /// Of several together.
    pub(crate) fn sum(held: impl Iterator<Item = Self>) -> Self {
        held.fold(Self::default(), |sum, it| Self {
            pss: sum.pss + it.pss,
            anonymous: sum.anonymous + it.anonymous,
            descriptors: sum.descriptors + it.descriptors,
            ports: sum.ports + it.ports,
        })
    }
}

/// The inode of a descriptor that is a socket, from `socket:[12345]`.
fn inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
