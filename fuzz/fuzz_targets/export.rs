//! Any records in a export; the body is `lapwing_tests::targets::export`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::export(data));
