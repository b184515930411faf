//! Any records in a query; the body is `lapwing_tests::targets::query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::query(data));
