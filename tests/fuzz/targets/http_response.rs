#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| tabi_fuzz::hold("http_response", octets));
