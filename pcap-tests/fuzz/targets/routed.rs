//! Any packets from both sides, for gateways in routed mode.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    pcap_tests::fuzz::routed(input);
});
