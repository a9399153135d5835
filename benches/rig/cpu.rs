//! CPU time and memory of threads and processes, ours or others'.

use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::thread::{CpuSet, Pid};
use rustix::time::ClockId;

/// CPU time of the calling thread, to the nanosecond.
#[must_use]
pub fn own_thread() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of one thread. The kernel brings a running thread's figure up to date at each timer
/// tick (4 ms), so measure for a second at least.
///
/// # Errors
/// Where there is no such thread.
pub fn of_thread(process: u32, thread: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat"))?;
    let nanos = text.split_whitespace().next().and_then(|it| it.parse().ok());
    Ok(Duration::from_nanos(nanos.ok_or(io::ErrorKind::InvalidData)?))
}

/// CPU time of all threads that a process has now; those that have ended are not in it.
///
/// # Errors
/// Where there is no such process.
pub fn of_process(process: u32) -> io::Result<Duration> {
    let mut sum = Duration::ZERO;
    for (thread, _) in threads(process)? {
        // A thread that has just ended has no figure.
        sum += of_thread(process, thread).unwrap_or_default();
    }
    Ok(sum)
}

/// The threads of a process and their names.
///
/// # Errors
/// Where there is no such process.
pub fn threads(process: u32) -> io::Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let name = entry?.file_name();
        let Some(thread) = name.to_str().and_then(|it| it.parse().ok()) else { continue };
        let name = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm"));
        found.push((thread, name.unwrap_or_default().trim().to_owned()));
    }
    Ok(found)
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// Where there is no such process.
pub fn resident(process: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|it| it * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The calling thread goes before all ordinary ones, and what it starts does not, for as long as
/// this lives. Where the system does not permit it, nothing changes.
#[derive(Debug)]
pub struct Urgent(Option<String>);

impl Urgent {
    /// From now on.
    #[must_use]
    pub fn begin() -> Self {
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        let is_permitted =
            chrt(&["--fifo", "--reset-on-fork", "--pid", &PRIORITY.to_string(), &thread]);
        Self(is_permitted.then_some(thread))
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Some(thread) = &self.0 {
            chrt(&["--other", "--pid", "0", thread]);
        }
    }
}

/// Above the ordinary, below the kernel's own threads.
const PRIORITY: u8 = 20;

/// Asks util-linux: the system call needs unsafe code.
fn chrt(arguments: &[&str]) -> bool {
    let quiet =
        Command::new("chrt").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Keeps a thread (its number; `None`: the calling one) on one core. With the generator on one
/// core and what is measured on the other, neither takes the other's time.
///
/// # Errors
/// Where the core or the thread does not exist.
pub fn pin(thread: Option<u32>, core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    let pid = thread.and_then(|it| Pid::from_raw(i32::try_from(it).ok()?));
    Ok(rustix::thread::sched_setaffinity(pid, &set)?)
}
