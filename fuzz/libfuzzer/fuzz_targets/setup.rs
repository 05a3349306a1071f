#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memkv_fuzz::setup::run(data));
