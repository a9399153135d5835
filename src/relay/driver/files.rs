//! How many descriptors a worker's sockets may take. What signalling, the vault and the rest of
//! the process need is kept for them, so that a full relay cannot stop the process from taking the
//! next call's BYE.

use base::limit;
use rustix::process::{Resource, getrlimit, setrlimit};

/// One worker's descriptors.
#[derive(Clone, Debug)]
pub struct Files {
    used: usize,
    most: usize,
}

impl Files {
    /// The share of each of `workers`, out of what the process may open. The soft limit is raised
    /// to the hard one first.
    #[must_use]
    pub fn share(workers: usize) -> Self {
        let mut now = getrlimit(Resource::Nofile);
        if now.current != now.maximum {
            let raised = rustix::process::Rlimit { current: now.maximum, maximum: now.maximum };
            if setrlimit(Resource::Nofile, raised).is_ok() {
                now = getrlimit(Resource::Nofile);
            }
        }
        let most = now.current.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
        Self::out_of(most, workers)
    }

    fn out_of(limit: usize, workers: usize) -> Self {
        // A process that may open few keeps half.
        let kept = limit::RELAY_FILES_KEPT.get().min(limit / 2);
        Self { used: 0, most: (limit - kept) / workers.max(1) }
    }

    /// So many.
    #[must_use]
    pub const fn most(most: usize) -> Self {
        Self { used: 0, most }
    }

    /// How many there are in all.
    pub(super) const fn room(&self) -> usize {
        self.most
    }

    /// Takes one for a socket that a session cannot do without.
    pub(super) const fn take(&mut self) -> bool {
        let has_room = self.used < self.most;
        self.used += has_room as usize;
        has_room
    }

    /// Takes one for a socket that only saves time: a quarter is left for sessions to come.
    pub(super) const fn take_extra(&mut self) -> bool {
        self.used < self.most - self.most / 4 && self.take()
    }

    pub(super) const fn give_back(&mut self) {
        self.used = self.used.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_kept_for_the_rest_of_the_process() {
        let kept = limit::RELAY_FILES_KEPT.get();
        assert_eq!(Files::out_of(kept + 10_000, 2).most, 5_000);
        assert_eq!(Files::out_of(1_024, 1).most, 512);
    }

    #[test]
    fn extra_sockets_leave_a_quarter_for_new_sessions() {
        let mut files = Files { used: 0, most: 8 };
        assert_eq!((0..8).filter(|_| files.take_extra()).count(), 6);
        assert_eq!((0..8).filter(|_| files.take()).count(), 2);
        files.give_back();
        assert!(!files.take_extra() && files.take());
    }
}
