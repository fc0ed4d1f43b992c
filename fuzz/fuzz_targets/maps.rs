//! See `zmailer_fuzz::maps`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zmailer_fuzz::maps(data));
