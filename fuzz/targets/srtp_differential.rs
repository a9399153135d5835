//! The fuzzer's entry: see [`fuzz::srtp_differential`].

#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::srtp_differential(data));
