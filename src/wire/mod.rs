//! Views of the headers of a frame: a length is checked once, and after that getters cannot fail.
//!
//! Each file is one protocol. A header is a struct with the layout of the wire (zerocopy checks
//! that at compile time), borrowed from the frame. `None` means that the bytes are too short for
//! it, or that a length in them is wrong. Nothing here allocates, and the lints below forbid
//! whatever could panic. Only rewrite.rs and segment.rs change frames, and only
//! request.rs and answer.rs create them.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

pub mod answer;
pub mod arp;
pub(crate) mod checksum;
pub mod dhcp;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod request;
pub mod rewrite;
pub mod segment;
pub mod tcp;
pub mod udp;
pub mod virtio;

pub use ethernet::Mac;
