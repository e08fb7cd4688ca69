//! The control channel: a client's requests over a stream socket, by which the rules of a running
//! softnet are read and changed.
//!
//! ```text
//!   bytes ──▶ frames.rs ──▶ request.rs ──▶ methods.rs ──▶ filter::Rules
//!             lines         JSON-RPC 2.0   what is asked
//!   bytes ◀──────────────── channel.rs ◀──────┘
//! ```
//!
//! docs/control.md has the protocol. The peer is trusted with the rules, but not with memory or
//! time: a request has at most 1 MiB, and none is read as long as the answer to the last one
//! waits to be taken.

mod channel;
mod frames;
mod methods;
mod request;

pub use channel::{Channel, NotAControlSocket, State};

/// Other rules hold now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// How many rules allow, in normal form.
    pub allow: usize,
    /// How many block.
    pub block: usize,
    /// Whether the rules ask to end the isolation from other VMs, which is settled at the start.
    pub isolation: bool,
}
