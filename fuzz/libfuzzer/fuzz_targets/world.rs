#![no_main]

#[path = "../symbols.rs"]
mod symbols;

libfuzzer_sys::fuzz_target!(|data: &[u8]| memkv_fuzz::world::run(data));
