//! The fuzzer's entry: see [`fuzz::stun`].

#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::stun(data));
