//! Any conversation with a sensor; the body is `lapwing_tests::targets::sensor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::sensor(data));
