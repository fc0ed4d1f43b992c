//! See `zmailer_fuzz::bdat`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zmailer_fuzz::bdat(data));
