//! Any packets, batches, ticks and reloads, for the gateway.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    pcap_tests::fuzz::process(input);
});
