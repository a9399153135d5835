//! Embedded speech as a whole: with the helper process, the models and human voices that
//! `deploy/setup.sh test` installs.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells what it measured"
)]

mod human_voices;
mod life;
mod scene;
