//! The system's randomness.

use base::Random;

/// Fit for what an attacker must not guess, as the id of a DNS query.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) {
        if aws_lc_rs::rand::fill(out).is_err() {
            // Without randomness nothing here is safe; aws-lc aborts on its own account.
            std::process::abort();
        }
    }
}
