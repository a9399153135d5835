//! Stage: what becomes of sound: heard and answered by a voice agent ([`agent`]), or handed to the
//! leg that is talked with ([`bridge`]), as it is or made anew ([`transcode`]).

pub(crate) mod agent;
pub(crate) mod bridge;
pub(crate) mod playout;

mod ear;
mod echo;
mod hear;
mod keys;
mod packets;
mod press;
mod presses;
mod speak;
mod transcode;

pub(crate) use hear::Hear;
