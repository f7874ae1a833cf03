#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    everpack::testing::fuzz::lz4_walk(bytes);
});
