//! softnet: a packet filter between one virtual machine and its host's network.
//!
//! The way of a frame, and where each station is. *Outbound* always means leaving the VM.
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
//! `endpoint::datagrams` is where frames of the VM's socket are received and sent. On macOS
//! `endpoint::vmnet` is in the place of `endpoint::tap`.
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

pub mod control;

pub mod host;

pub mod capture;

pub mod bench;
