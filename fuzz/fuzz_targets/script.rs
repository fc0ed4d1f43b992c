//! See `zmailer_fuzz::script`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zmailer_fuzz::script(data));
