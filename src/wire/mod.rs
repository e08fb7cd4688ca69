//! Views over the headers of a frame: a length is checked once, then getters cannot fail.
//!
//! Each file is one protocol. A header is a struct with the layout of the wire (zerocopy
//! checks that at compile time), borrowed from the frame; `None` means that the bytes are
//! too short for it, or that a length within them lies. Nothing here allocates, and the
//! lints below forbid what could panic. Frames are changed by rewrite.rs, and made by
//! request.rs, alone.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

pub mod arp;
mod checksum;
pub mod dhcp;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod request;
pub mod rewrite;
pub mod tcp;
pub mod udp;

pub use ethernet::Mac;
