//! Hands `api` what libFuzzer thinks of.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flipside_fuzz::api(data));
