//! What the process gives up before it reads its first command.
//!
//! Not done: a filter of system calls. The process runs as the edge's user and could open a
//! socket; it cannot gain rights, write a file, dump core or outlive the edge.

use std::io;

use base::limit;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::set_no_new_privs;

/// Files that stay open or are opened for a moment: the three streams, the two projected
/// parameter files, and a few for the C library.
const FILES: u64 = 16;

/// Gives up what is not needed from the start.
pub(crate) fn enter() -> io::Result<()> {
    // The edge's end is ours, even where it could not close the pipe.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_no_new_privs(true)?;
    set(Resource::As, limit::PROVIDER_HELPER_BYTES.value)?;
    set(Resource::Core, 0)?;
    set(Resource::Nofile, FILES)?;
    Ok(())
}

/// Gives up writing files, now that the models are loaded, and being read by other processes.
pub(crate) fn seal() -> io::Result<()> {
    set(Resource::Fsize, 0)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn set(resource: Resource, most: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}
