//! The system's own calls: the only folder with unsafe code, and the one place that
//! chooses by platform.
//!
//! Files here turn a call into a safe function that takes slices and descriptors that the
//! caller owns, and reports what the system answered. They decide nothing.
//!
//! The feature `vmnet-sim` puts macOS' way of moving frames in the place of Linux', for tests.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
#[path = "apart_linux.rs"]
pub(crate) mod apart;

#[cfg(target_os = "macos")]
#[path = "apart_darwin.rs"]
pub(crate) mod apart;

#[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
#[path = "arrival_linux.rs"]
pub(crate) mod arrival;

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
#[path = "arrival_darwin.rs"]
pub(crate) mod arrival;

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
mod block;

#[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
#[path = "bare_linux.rs"]
pub(crate) mod bare;

#[cfg(target_os = "linux")]
#[path = "child_linux.rs"]
pub(crate) mod child;

#[cfg(target_os = "macos")]
#[path = "child_darwin.rs"]
pub(crate) mod child;

#[cfg(target_os = "linux")]
#[path = "code_linux.rs"]
pub(crate) mod code;

#[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
#[path = "cores_linux.rs"]
pub(crate) mod cores;

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
#[path = "cores_darwin.rs"]
pub(crate) mod cores;

#[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
#[path = "datagram_linux.rs"]
pub(crate) mod datagram;

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
#[path = "datagram_darwin.rs"]
pub(crate) mod datagram;

pub(crate) mod descriptor;

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
mod dispatch;

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
pub(crate) mod dynamic;

pub(crate) mod identity;

pub(crate) mod lock;

#[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
#[path = "machine_linux.rs"]
pub(crate) mod machine;

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
#[path = "machine_darwin.rs"]
pub(crate) mod machine;

#[cfg(target_os = "linux")]
#[path = "nowait_linux.rs"]
pub(crate) mod nowait;

#[cfg(target_os = "macos")]
#[path = "nowait_darwin.rs"]
pub(crate) mod nowait;

#[cfg(not(any(target_os = "macos", feature = "vmnet-sim")))]
#[path = "packet_linux.rs"]
pub(crate) mod packet;

#[cfg(target_os = "linux")]
#[path = "unix_diag_linux.rs"]
pub(crate) mod peer;

#[cfg(target_os = "macos")]
#[path = "peer_darwin.rs"]
pub(crate) mod peer;

#[cfg(target_os = "linux")]
#[path = "pidfd_linux.rs"]
pub(crate) mod pidfd;

#[cfg(target_os = "macos")]
#[path = "pidfd_darwin.rs"]
pub(crate) mod pidfd;

#[cfg(target_os = "macos")]
#[path = "placement_darwin.rs"]
pub(crate) mod placement;

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
pub(crate) mod preferences;

#[cfg(target_os = "linux")]
#[path = "privileges_linux.rs"]
pub(crate) mod privileges;

#[cfg(target_os = "macos")]
#[path = "privileges_darwin.rs"]
pub(crate) mod privileges;

#[cfg(target_os = "macos")]
#[path = "syslog_darwin.rs"]
pub(crate) mod syslog;

#[cfg(target_os = "linux")]
#[path = "interrupt_linux.rs"]
pub(crate) mod interrupt;

pub(crate) mod runtime;

#[cfg(target_os = "linux")]
#[path = "tap_linux.rs"]
pub(crate) mod tap;

#[cfg(any(target_os = "macos", test))]
mod ticks;

#[cfg(target_os = "linux")]
#[path = "usage_linux.rs"]
pub(crate) mod usage;

#[cfg(target_os = "macos")]
#[path = "usage_darwin.rs"]
pub(crate) mod usage;

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
pub(crate) mod vmnet;

#[cfg(any(target_os = "macos", feature = "vmnet-sim"))]
mod xpc;

use std::io;

/// Turns the -1 of a system call into the error that it left in `errno`.
fn cvt(result: impl Into<i64>) -> io::Result<usize> {
    usize::try_from(result.into()).map_err(|_| io::Error::last_os_error())
}
