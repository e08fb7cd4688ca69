//! Fuzzes the filter against the naive one of tests/oracle: both must always agree.
#![no_main]

#[path = "../../oracle/choices.rs"]
mod choices;
#[path = "../../oracle/generate/mod.rs"]
mod generate;
#[path = "../../oracle/naive/mod.rs"]
mod naive;
#[path = "../../oracle/play.rs"]
mod play;
#[path = "../../oracle/scene.rs"]
mod scene;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(disagreement) = play::play(bytes, |_, _| {}) {
        panic!("{disagreement}");
    }
});
