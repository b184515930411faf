//! Any records in a journal; the body is `lapwing_tests::targets::journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::journal(data));
