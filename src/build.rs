//! Names the two kinds of host interface that a build can have, for `cfg`.

use cfg_aliases::cfg_aliases;

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    cfg_aliases! {
        // Apple's vmnet, or on Linux its simulation, for tests.
        vmnet: { any(target_os = "macos", feature = "vmnet-sim") },
        // A TAP device.
        tap: { not(any(target_os = "macos", feature = "vmnet-sim")) },
    }
}
