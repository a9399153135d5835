//! The fuzzer's entry: see [`fuzz::websocket_sip`].

#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::websocket_sip(data));
