//! Any damage to a spool; the body is `lapwing_tests::targets::spool`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::spool(data));
