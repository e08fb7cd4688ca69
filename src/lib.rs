//! softnet: a packet filter between one virtual machine and its host's network.
//!
//! The path of a frame through the modules. *Outbound* always means leaving the VM.
//!
//! ```text
//!              forward::reader, in one thread:
//!   outbound:  forward::receive ----> forward::judge -----> forward::send ---> host
//!              endpoint::vm_socket    filter::outbound      endpoint::tap
//!              endpoint::datagrams                               | no room
//!                                                                v
//!                                     forward::ring ---> forward::writer ----> host
//!
//!   inbound:   the same files of forward, with the endpoints exchanged and filter::inbound
//!              between them; what DHCP granted passes back through filter::lease.
//! ```
//!
//! Frames on the VM's socket are received and sent in `endpoint::datagrams`. On macOS
//! `endpoint::vmnet` takes the place of `endpoint::tap`.
//!
//! Modules are listed in the order of their layers. Each imports only from those above it
//! (`tests/layers.rs` enforces this).

pub mod direction;

pub mod wire;

pub mod batch;

mod sys;

pub mod clock;

pub mod filter;

pub mod stop;

pub mod endpoint;

pub mod stats;

pub mod forward;

pub mod control;

pub mod host;

pub mod capture;

pub mod bench;
