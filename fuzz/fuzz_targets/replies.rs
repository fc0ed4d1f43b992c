//! See `zmailer_fuzz::replies`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zmailer_fuzz::replies(data));
