#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tranship_fuzz::rails::stranger(bytes));
