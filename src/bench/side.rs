//! What takes the host's place before a subject.

use std::sync::Arc;

use super::bed::TapHost;

/// One of the three.
#[derive(Debug, Clone)]
pub enum HostSide {
    /// A socket, whose other end the bench has.
    Socket,
    /// A TAP, on Linux. Scenarios that it does not suit are left out.
    Tap(Arc<TapHost>),
    /// An interface of vmnet, with the host itself behind it, on macOS. Scenarios whose frames
    /// would leave the host, or that need more than vmnet's queues are known to hold, are left
    /// out.
    Vmnet,
}
