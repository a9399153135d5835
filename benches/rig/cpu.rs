//! CPU time and memory of threads and processes, ours or others'.

use std::fs;
use std::io;
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
