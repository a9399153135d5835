//! The edge's source of randomness, for many tasks at a time.

use std::sync::{Arc, Mutex, PoisonError};

use base::Random;

/// Fit for keys where what it was made of is.
#[derive(Clone)]
pub(crate) struct SharedRandom(Arc<Source>);

struct Source(Mutex<Box<dyn Random + Send>>);

impl SharedRandom {
    pub(crate) fn new(random: Box<dyn Random + Send>) -> Self {
        Self(Arc::new(Source(Mutex::new(random))))
    }
}

impl Random for SharedRandom {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).fill(out);
    }
}
