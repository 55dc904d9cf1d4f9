#![no_main]

libfuzzer_sys::fuzz_target!(|changes: &[u8]| {
    ogive_crash::hostile::open(changes);
});
