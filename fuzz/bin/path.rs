#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gomodcache_fuzz::path::run(data));
