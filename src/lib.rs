//! softnet: a packet filter between one virtual machine and its host's network.
//!
//! The way of a frame, and where each station is. *Outbound* always means leaving the VM.
//!
//! ```text
//!             endpoint::vm_socket                            endpoint::tap
//!                    |                                             ^
//!   outbound:   recv | batch    forward::reader     nonblocking    | send
//!                    +--------> filter::outbound ------------------+
//!                                     | would block                |
//!                                     +--> forward::writer --------+
//!
//!   inbound: the same two files, from the host's endpoint to the VM's socket, with
//!   filter::inbound between them; what DHCP granted passes back through filter::lease.
//! ```
//!
//! Modules are listed in the order of their layers; each imports only from those above it
//! (`tests/layers.rs` holds that).

pub mod clock;

pub mod direction;

pub mod wire;

pub mod batch;

mod sys;

pub mod filter;

pub mod stop;

pub mod endpoint;

pub mod stats;

pub mod forward;

pub mod host;

pub mod bench;
