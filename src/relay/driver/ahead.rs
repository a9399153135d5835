//! Asks for memory before it is used, so that the misses of several sessions overlap instead of
//! following each other.

#![allow(unsafe_code, reason = "a prefetch is an instruction of the machine")]

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// How far into a session memory is asked for; each step needs what the one before has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The session's state.
    State,
    /// The state of its keys.
    Keys,
    /// The expanded keys and the sources.
    Schedule,
}

/// Asks for what a value holds itself. It changes nothing; other machines than x86-64 need not.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = core::ptr::from_ref(value).cast::<i8>();
        for at in (0..size_of::<T>()).step_by(LINE) {
            // SAFETY: the address is inside the value; a prefetch hands nothing to the program
            // and faults nowhere.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(at)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
