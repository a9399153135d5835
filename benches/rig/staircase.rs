//! Where the edge of what is well lies: the most calls, by steps.

/// Tries of one climb; more means that what is measured has no edge.
const TRIES: usize = 12;
/// The first steps, until something was well and something was not.
const COARSE: f64 = 1.25;
const FINE: f64 = 1.05;

/// Finds the largest number that is well, by steps of 5 % from where it was last; at first by
/// steps of a quarter.
pub struct Staircase {
    start: u32,
    at: u32,
    most: u32,
    step: f64,
}

impl Staircase {
    /// Begins at `start` and goes no higher than `most`.
    pub fn new(start: u32, most: u32) -> Self {
        let start = start.min(most);
        Self { start, at: start, most, step: COARSE }
    }

    /// The largest number found well; 0 where none was.
    ///
    /// # Errors
    /// The first of `is_well`.
    pub fn climb<E>(&mut self, mut is_well: impl FnMut(u32) -> Result<bool, E>) -> Result<u32, E> {
        let (mut best, mut worst) = (0, u32::MAX);
        for _ in 0..TRIES {
            if is_well(self.at)? {
                best = best.max(self.at);
            } else {
                worst = worst.min(self.at);
            }
            if best > 0 && worst < u32::MAX {
                self.step = FINE;
            }
            let up = (f64::from(best) * self.step) as u32;
            let next = match best {
                0 => (f64::from(worst) / self.step) as u32,
                _ => up.max(best + 1).min(self.most),
            };
            if next >= worst || next == best || next == 0 {
                break;
            }
            self.at = next;
        }
        // One that found nothing says nothing about where to look next.
        (self.at, self.step) = if best > 0 { (best, FINE) } else { (self.start, COARSE) };
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn climb(start: u32, edge: u32) -> (u32, usize) {
        let mut tries = 0;
        let mut well = |calls| {
            tries += 1;
            Ok::<_, ()>(calls <= edge)
        };
        let found = Staircase::new(start, 10_000).climb(&mut well).unwrap();
        (found, tries)
    }

    #[test]
    fn the_edge_is_found_within_a_step_from_below_and_from_above() {
        for (start, edge) in [(500, 1_000), (2_000, 1_000), (990, 1_000)] {
            let (found, tries) = climb(start, edge);
            assert!(found <= edge && found * 106 / 100 + 1 >= edge, "{start}: {found}");
            assert!(tries <= TRIES);
        }
    }

    #[test]
    fn a_climb_that_finds_nothing_begins_anew() {
        let mut stairs = Staircase::new(100, 10_000);
        assert_eq!(stairs.climb(|_| Ok::<_, ()>(false)), Ok(0));
        let found = stairs.climb(|calls| Ok::<_, ()>(calls <= 120)).unwrap();
        assert!((100..=120).contains(&found), "{found}");
    }

    #[test]
    fn nothing_well_is_none_and_no_edge_ends_at_the_most() {
        assert_eq!(climb(4, 0).0, 0);
        assert_eq!(climb(5_000, 20_000).0, 10_000);
    }
}
