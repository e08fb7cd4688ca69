//! What may pass between the VM and the host, and what is learned from it.
//!
//! Deciding is pure and total: no clock, no input or output, no counting, no panic on any
//! bytes. The caller ([`crate::forward`]) counts and acts.

pub mod verdict;

pub use verdict::{DropReason, Verdict};

/// Seconds of a clock that never goes back and goes on while the machine sleeps.
///
/// Read once per batch by the caller, so that deciding needs no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u32);

/// One direction's filter, as the forwarder sees it.
pub trait Check: Send {
    /// Decides about one frame. On the path of every frame.
    fn check(&self, frame: &[u8], now: Seconds) -> Verdict;

    /// Decides about a frame for which [`check`](Self::check) answered [`Verdict::Dhcp`],
    /// and may rewrite it: the frame is `slot[..len]`, and the rest of `slot` is room to
    /// grow into. Returns the frame's length after that. Rare, so it may be slow.
    ///
    /// # Errors
    /// The reason for which the frame must be dropped.
    fn dhcp(&mut self, slot: &mut [u8], len: usize, now: Seconds) -> Result<usize, DropReason>;
}
