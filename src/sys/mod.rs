//! System calls: the only folder with unsafe code, and the table that selects a file for each
//! system.
//!
//! The files turn system calls into safe functions that take slices and descriptors owned by the
//! caller, and return what the system answered. They make no decisions. `linux/` and `darwin/` are
//! for one system, `unix/` is for all, and `measure/` is what only the bench needs.
//!
//! The feature `vmnet-sim` replaces Linux' way of moving frames by that of macOS, for tests;
//! `src/build.rs` says which of the two a build has (`tap`, `vmnet`).
#![allow(unsafe_code)]

// --- for all systems ---

#[path = "unix/aside.rs"]
pub(crate) mod aside;

#[path = "unix/descriptor.rs"]
pub(crate) mod descriptor;

#[path = "unix/identity.rs"]
pub(crate) mod identity;

#[path = "unix/lock.rs"]
pub(crate) mod lock;

#[path = "unix/runtime.rs"]
pub(crate) mod runtime;

// --- one file for each system, with the same functions ---

#[cfg(target_os = "linux")]
#[path = "linux/affinity.rs"]
pub(crate) mod affinity;

#[cfg(target_os = "macos")]
#[path = "darwin/affinity.rs"]
pub(crate) mod affinity;

#[cfg(target_os = "linux")]
#[path = "linux/child.rs"]
pub(crate) mod child;

#[cfg(target_os = "macos")]
#[path = "darwin/child.rs"]
pub(crate) mod child;

#[cfg(target_os = "linux")]
#[path = "linux/clock.rs"]
pub(crate) mod clock;

#[cfg(target_os = "macos")]
#[path = "darwin/clock.rs"]
pub(crate) mod clock;

#[cfg(tap)]
#[path = "linux/datagram.rs"]
pub(crate) mod datagram;

#[cfg(vmnet)]
#[path = "darwin/datagram.rs"]
pub(crate) mod datagram;

#[cfg(target_os = "linux")]
#[path = "linux/nowait.rs"]
pub(crate) mod nowait;

#[cfg(target_os = "macos")]
#[path = "darwin/nowait.rs"]
pub(crate) mod nowait;

#[cfg(target_os = "linux")]
#[path = "linux/unix_diag.rs"]
pub(crate) mod peer;

#[cfg(target_os = "macos")]
#[path = "darwin/peer.rs"]
pub(crate) mod peer;

#[cfg(target_os = "linux")]
#[path = "linux/pidfd.rs"]
pub(crate) mod pidfd;

#[cfg(target_os = "macos")]
#[path = "darwin/kqueue.rs"]
pub(crate) mod pidfd;

#[cfg(target_os = "linux")]
#[path = "linux/privileges.rs"]
pub(crate) mod privileges;

#[cfg(target_os = "macos")]
#[path = "darwin/privileges.rs"]
pub(crate) mod privileges;

#[cfg(target_os = "linux")]
#[path = "linux/signal.rs"]
pub(crate) mod signal;

#[cfg(target_os = "macos")]
#[path = "darwin/signal.rs"]
pub(crate) mod signal;

#[cfg(target_os = "linux")]
#[path = "linux/syslog.rs"]
pub(crate) mod syslog;

#[cfg(target_os = "macos")]
#[path = "darwin/syslog.rs"]
pub(crate) mod syslog;

#[cfg(target_os = "linux")]
#[path = "linux/thread.rs"]
pub(crate) mod thread;

#[cfg(target_os = "macos")]
#[path = "darwin/thread.rs"]
pub(crate) mod thread;

// --- only Linux ---

#[cfg(target_os = "linux")]
#[path = "linux/tap.rs"]
pub(crate) mod tap;

// --- only macOS, and those parts of it that the simulation has ---

#[cfg(vmnet)]
#[path = "darwin/block.rs"]
mod block;

#[cfg(vmnet)]
#[path = "darwin/dispatch.rs"]
mod dispatch;

#[cfg(vmnet)]
#[path = "darwin/dynamic.rs"]
pub(crate) mod dynamic;

#[cfg(any(target_os = "macos", test))]
#[path = "darwin/mach_time.rs"]
mod mach_time;

#[cfg(target_os = "macos")]
#[path = "darwin/placement.rs"]
pub(crate) mod placement;

#[cfg(vmnet)]
#[path = "darwin/preferences.rs"]
pub(crate) mod preferences;

#[cfg(vmnet)]
#[path = "darwin/vmnet.rs"]
pub(crate) mod vmnet;

#[cfg(vmnet)]
#[path = "darwin/xpc.rs"]
mod xpc;

// --- only for `bench` ---

#[cfg(tap)]
#[path = "measure/cores_linux.rs"]
pub(crate) mod cores;

#[cfg(vmnet)]
#[path = "measure/cores_darwin.rs"]
pub(crate) mod cores;

#[cfg(tap)]
#[path = "measure/packet_linux.rs"]
pub(crate) mod packet;

#[cfg(tap)]
#[path = "measure/raw_batch_linux.rs"]
pub(crate) mod raw_batch;

#[cfg(tap)]
#[path = "measure/system_info_linux.rs"]
pub(crate) mod system_info;

#[cfg(vmnet)]
#[path = "measure/system_info_darwin.rs"]
pub(crate) mod system_info;

#[cfg(tap)]
#[path = "measure/timestamp_linux.rs"]
pub(crate) mod timestamp;

#[cfg(vmnet)]
#[path = "measure/timestamp_darwin.rs"]
pub(crate) mod timestamp;

#[cfg(target_os = "linux")]
#[path = "measure/usage_linux.rs"]
pub(crate) mod usage;

#[cfg(target_os = "macos")]
#[path = "measure/usage_darwin.rs"]
pub(crate) mod usage;

use std::io;

/// Converts the -1 of a system call into the error in `errno`.
fn cvt(result: impl Into<i64>) -> io::Result<usize> {
    usize::try_from(result.into()).map_err(|_| io::Error::last_os_error())
}
