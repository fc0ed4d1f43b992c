//! See `zmailer_fuzz::addresses`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zmailer_fuzz::addresses(data));
