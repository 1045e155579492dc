//! Any frame, for the parser.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pcap_tests::fuzz::parse(input));
