//! Any bytes as any message; the body is `lapwing_tests::targets::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::message(data));
