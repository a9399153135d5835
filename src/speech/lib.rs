//! Tier 3, speech: the program `callgate-speech` hears and speaks for many calls in a process of
//! its own, and this library holds the [frames](protocol) that `providers` exchanges with it.
//!
//! The library is pure. The program (`main.rs`) links pocketsphinx and flite, which is why it is
//! a process: a fault of theirs ends neither the edge nor a call. Their licences are in
//! `deploy/LICENCES-speech.md`.

#![forbid(unsafe_code)]

pub mod protocol;
