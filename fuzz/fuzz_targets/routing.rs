//! See `zmailer_fuzz::routing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zmailer_fuzz::routing(data));
