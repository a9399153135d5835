//! The fuzzer's entry: see [`fuzz::dtls_guard`].

#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::dtls_guard(data));
