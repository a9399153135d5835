//! Waking a worker that waits, from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::EventfdFlags;
use rustix::io::Result;

/// Wakes one worker. Whoever wakes it for what it is being woken for already makes no system call.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: OwnedFd,
    /// A wake is under way that the worker has not heard.
    is_waking: AtomicBool,
}

impl Waker {
    pub(super) fn new() -> Result<Self> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let file = rustix::event::eventfd(0, flags)?;
        Ok(Self(Arc::new(Inner { file, is_waking: AtomicBool::new(false) })))
    }

    /// Ends its wait, or its next one.
    pub fn wake(&self) {
        // What was left for the worker before this is seen after it has heard the wake.
        if !self.0.is_waking.swap(true, Ordering::AcqRel) {
            // It fails only where the counter is full, and then the worker is awake.
            let _ = rustix::io::write(&self.0.file, &1u64.to_ne_bytes());
        }
    }

    /// The worker is awake, and looks at what was left for it after this.
    pub(super) fn heard(&self) {
        self.0.is_waking.swap(false, Ordering::AcqRel);
    }

    /// The same, and forgets the wakes so far.
    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&self.0.file, &mut [0; 8]);
        self.heard();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}
