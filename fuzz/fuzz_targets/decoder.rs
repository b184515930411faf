//! Any chunks for a decoder; the body is `lapwing_tests::targets::decoder`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::decoder(data));
