//! Fuzzes connection tracking against the naive filter of tests/oracle: packets both ways, waits and
//! changes of policy.
#![no_main]
#![allow(dead_code, reason = "it takes a part of what tests/oracle has")]

#[path = "../../oracle/choices.rs"]
mod choices;
#[path = "../../oracle/generate/mod.rs"]
mod generate;
#[path = "../../oracle/naive/mod.rs"]
mod naive;
#[path = "../../oracle/scene.rs"]
mod scene;
#[path = "../../oracle/sequences.rs"]
mod sequences;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(disagreement) = sequences::play(bytes, |_, _| {}) {
        panic!("{disagreement}");
    }
});
