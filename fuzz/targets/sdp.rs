//! The fuzzer's entry: see [`fuzz::sdp`].

#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::sdp(data));
