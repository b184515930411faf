//! Any records in a certificate; the body is `lapwing_tests::targets::certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::certificate(data));
