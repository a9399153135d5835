//! Stories of the call: a peer that speaks SIP as text on one side, media answered by hand on the
//! other, a manual clock, and randomness from a seed.

mod answering;
mod any_order;
mod bridging;
mod changing;
mod ending;
mod keeping;
mod media_terms;
mod refreshing;
mod refusing;
mod transferring;
mod world;
