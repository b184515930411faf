//! Any byte stream through the deframer; the body is `lapwing_tests::targets::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::frame(data));
