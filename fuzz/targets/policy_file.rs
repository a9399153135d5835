//! The fuzzer's entry: see [`fuzz::policy_file`].

#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::policy_file(data));
