//! See `zmailer_fuzz::message`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zmailer_fuzz::message(data));
