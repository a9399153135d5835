//! `callgate-speech`, the helper process that hears and speaks for the edge's voice agents.
//!
//! Commands come on the standard input, answers go to the standard output, both as
//! `speech::protocol` says. No arguments, no files but the models, no audio and no word of a
//! caller anywhere but in these pipes and in memory. The path of an utterance: [`serve`] ->
//! [`hearing`] -> [`mel`] -> [`cepstra`] -> [`recogniser`] (whose model for telephone lines is
//! made by [`band`]); of a text: [`serve`] -> [`sentence`] -> [`voice`].

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the library beside this program is the pure part; the program reads models and pipes"
)]

mod band;
mod cepstra;
mod hearing;
mod lexicon;
mod mel;
mod recogniser;
mod sandbox;
mod sentence;
mod serve;
mod voice;

use std::io;
use std::process::ExitCode;

use hearing::{LoadError, Models};
use serve::ServeError;

/// Exit codes, since the log of this process would hold what callers say.
const NO_SANDBOX: u8 = 10;
const NO_MODEL: u8 = 11;
const BROKEN_PIPE: u8 = 12;
const BAD_FRAME: u8 = 13;
const WORN_OUT: u8 = 14;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => ExitCode::from(code),
    }
}

fn run() -> Result<(), u8> {
    sandbox::enter().map_err(|_| NO_SANDBOX)?;
    let models = Models::load().map_err(|_: LoadError| NO_MODEL)?;
    sandbox::seal().map_err(|_| NO_SANDBOX)?;
    serve::serve(models, io::stdin(), io::stdout().lock()).map_err(|error| match error {
        ServeError::Pipe(_) => BROKEN_PIPE,
        ServeError::Protocol(_) => BAD_FRAME,
        ServeError::WornOut => WORN_OUT,
    })
}
