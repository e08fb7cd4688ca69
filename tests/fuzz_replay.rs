//! Tries every input that a fuzzer found worth keeping, without a fuzzer.
//!
//! tests/corpus has a folder for each fuzz target. An input that reaches other code than the
//! rest has the name of its outcome, message by message for DHCP; one that once broke
//! something has a name that says what. `make fuzz` leaves new ones there. Those of `connections`
//! are tried by tests/oracle, which has the other filter.

mod frames;
#[path = "fuzz/input.rs"]
mod input;

use std::fs;
use std::path::Path;

#[test]
fn kept_inputs_for_outbound_frames_hold() {
    replay("outbound", input::outbound);
}

#[test]
fn kept_inputs_for_inbound_frames_hold() {
    replay("inbound", input::inbound);
}

#[test]
fn kept_inputs_for_dhcp_hold() {
    replay("dhcp", input::dhcp);
}

fn replay(target: &str, target_fn: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // Shown when the next line panics.
        println!("{}", path.display());
        target_fn(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 20, "only {count} inputs in {}", folder.display());
}
