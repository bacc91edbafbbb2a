//! Hands `bus` what libFuzzer thinks of.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flipside_fuzz::bus(data));
