//! Any records in a manifest; the body is `lapwing_tests::targets::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::manifest(data));
