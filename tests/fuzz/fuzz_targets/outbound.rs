//! Fuzzes the filter: a frame leaves the VM. See ../input.rs for what an input means.
#![no_main]

#[path = "../../frames/mod.rs"]
mod frames;
#[path = "../input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| input::outbound(bytes));
