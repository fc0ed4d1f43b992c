//! See `zmailer_fuzz::dot`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zmailer_fuzz::dot(data));
