//! See `zmailer_fuzz::commands`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zmailer_fuzz::commands(data));
