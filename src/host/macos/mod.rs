//! What the host has to do on macOS alone, or in its simulation: set DHCP's lease time, ask sudo for
//! root, forward ports.
#![cfg(vmnet)]

pub mod bootpd;
pub mod escalation;
pub mod port_forward;
