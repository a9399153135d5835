//! The fuzzer's entry: see [`fuzz::sip_message`].

#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::sip_message(data));
