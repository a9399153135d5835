//! Many random calls.
