//! Any conversation with a server's session; the body is `lapwing_tests::targets::server`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lapwing_tests::targets::server(data));
