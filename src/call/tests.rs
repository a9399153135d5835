//! Stories of the call: a peer that speaks SIP as text on one side, media answered by hand on the
//! other, a manual clock, and randomness from a seed.

mod answering;
mod any_order;
mod bridging;
mod browsers;
mod browsers_called;
mod browsers_reconnecting;
mod browsers_transferring;
mod causes;
mod changing;
mod changing_codecs;
mod credentials;
mod crossing;
mod ending;
mod enlisting;
mod failing_over;
mod keeping;
mod media_terms;
mod passing_codecs;
mod presenting;
mod racing;
mod refreshing;
mod refusing;
mod ringing;
mod taping;
mod transferring;
mod transferring_across;
mod transferring_announced;
mod transferring_by_pass;
mod transferring_by_replaces;
mod transferring_races;
mod world;
