//! What softnet uses of macOS' C interfaces, simulated on Linux: blocks, XPC dictionaries,
//! dispatch queues, vmnet, recvmsg_x and sendmsg_x, and the preferences.
//!
//! Linked into softnet by its feature `vmnet-sim`, so that the very code that calls Apple's
//! functions on a Mac runs in tests on Linux. The simulation is strict where the real thing
//! is documented, and misbehaves on demand where it is not: see [`script`].
//!
//! A test that starts an interface in its own process installs a [`Script`] and gets the
//! [`Host`] that the interface leads to. A process that was started otherwise finds both in
//! its environment: see [`outside`].

mod block;
mod datagram;
mod dispatch;
mod frames;
mod keys;
pub mod outside;
mod ports;
pub mod preferences;
pub mod script;
mod vmnet;
mod xpc;

use std::sync::atomic::{AtomicI64, Ordering};

pub use datagram::{Call, dlsym, fail_next, lose_next, set_macos_version, sysctlbyname};
pub use frames::REFUSED;
pub use script::Script;
pub use vmnet::{Host, Rule};

/// What was made and has not been freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Copies of blocks.
    pub blocks: i64,
    /// XPC objects.
    pub objects: i64,
    /// Objects of CoreFoundation.
    pub preferences: i64,
    /// Dispatch queues.
    pub queues: i64,
    /// Interfaces.
    pub interfaces: i64,
}

/// Counts what is alive in this process.
#[must_use]
pub fn live() -> Live {
    Live {
        blocks: block::LIVE.get(),
        objects: xpc::LIVE.get(),
        preferences: preferences::LIVE.get(),
        queues: dispatch::LIVE.get(),
        interfaces: vmnet::LIVE.get(),
    }
}

pub(crate) struct Counter(AtomicI64);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    pub(crate) fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::SeqCst);
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}
