//! Stage: SRTP of what we send.

use media::Protection;
use rtp::sdes::{KeySalt, Suite};

use super::counters::DropReason;
use crate::driver::ahead::{Depth, prefetch};
use crate::srtp::{Sender, SrtpError};

/// The sending side of one leg.
pub(crate) enum Protect {
    Srtp { suite: Suite, keys: KeySalt, sender: Box<Sender> },
    Plain,
}

impl Protect {
    pub(crate) fn new(protection: &Protection) -> Result<Self, SrtpError> {
        Ok(match protection {
            Protection::Srtp { suite, send, .. } => Self::Srtp {
                suite: *suite,
                keys: send.clone(),
                sender: Box::new(Sender::new(*suite, send)?),
            },
            Protection::Plain { .. } => Self::Plain,
            Protection::Dtls(_) => return Err(SrtpError::BadKey), // not before its keys are there
        })
    }

    /// Takes a new plan's protection; the same key goes on with the same state, or a nonce would
    /// be used twice.
    pub(crate) fn update(&mut self, to: &Protection) -> Result<(), SrtpError> {
        let goes_on = match (&*self, to) {
            (Self::Srtp { suite, keys, .. }, Protection::Srtp { suite: new, send, .. }) => {
                suite == new && keys == send
            }
            (Self::Plain, Protection::Plain { .. }) => true,
            _ => false,
        };
        if !goes_on {
            *self = Self::new(to)?;
        }
        Ok(())
    }

    /// Asks for the keys that the next packet needs.
    pub(crate) fn prefetch(&self, depth: Depth) {
        match (self, depth) {
            (Self::Srtp { sender, .. }, Depth::Keys) => prefetch(&**sender),
            (Self::Srtp { sender, .. }, Depth::Schedule) => sender.prefetch(),
            _ => {}
        }
    }

    /// Protects `buffer[..length]` in place and returns the new length.
    pub(crate) fn rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, DropReason> {
        match self {
            Self::Srtp { sender, .. } => {
                sender.protect_rtp(buffer, length).map_err(|error| match error {
                    // What goes on from another leg may come twice, or late.
                    SrtpError::Replayed => DropReason::Late,
                    _ => DropReason::Unprotected,
                })
            }
            Self::Plain => Ok(length),
        }
    }

    /// Protects `buffer[..length]` in place and returns the new length.
    pub(crate) fn rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, DropReason> {
        match self {
            Self::Srtp { sender, .. } => {
                sender.protect_rtcp(buffer, length).map_err(|_| DropReason::Unprotected)
            }
            Self::Plain => Ok(length),
        }
    }
}
