#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tanggul_fuzz::mqtt(data));
