#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    everpack::testing::fuzz::scrub(bytes);
});
