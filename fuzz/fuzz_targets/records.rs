//! See `zmailer_fuzz::records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zmailer_fuzz::records(data));
