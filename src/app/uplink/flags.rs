//! The flags about the host's side. Each system uses some of them.

use std::num::NonZeroU16;
use std::os::fd::RawFd;

use softnet::host::gateway::GatewayArg;

/// The values of all flags about the host's side.
#[derive(Debug)]
pub(crate) struct HostFlags {
    pub(crate) tap: Option<String>,
    pub(crate) gateway: Option<GatewayArg>,
    pub(crate) expose: Vec<Exposed>,
    pub(crate) lease_time: Option<u32>,
    /// Whether a TAP's segments may be large, if that was said.
    pub(crate) offload: Option<bool>,
    /// A descriptor that the caller has opened, and its MTU.
    pub(crate) given: Option<(RawFd, u16)>,
}

/// A port of the host that is forwarded to a port of the VM: `EXTERNAL:INTERNAL`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exposed {
    pub(crate) external: NonZeroU16,
    #[cfg_attr(tap, expect(dead_code))]
    pub(crate) internal: NonZeroU16,
}
