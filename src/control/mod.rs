//! The control channel: a client's requests over a stream socket, by which the rules of a running
//! softnet are read and changed.
//!
//! ```text
//!   bytes ──▶ frames.rs ──▶ request.rs ──▶ methods.rs ──▶ filter::Rules, listings.rs
//!             lines         JSON-RPC 2.0   what is asked
//!   bytes ◀──────────────── channel.rs ◀──────┘
//! ```
//!
//! client.rs is the other end, for softnet's own commands. docs/control.md has the protocol. The
//! peer is trusted with the rules, if it may change them, but not with memory or time: a request has at most 1 MiB, and none is read as long as the answer to the last one
//! waits to be taken.

mod channel;
mod client;
mod frames;
mod listings;
mod methods;
mod request;

use std::sync::Arc;

pub use channel::{Channel, NotAControlSocket, State};
pub use client::{Client, ClientError};
pub use listings::{DeniedPackets, DeniedResult, Flow, FlowsResult};
pub use methods::PolicyResult;

use crate::filter::{Connections, Denied, Rules};

/// A VM, as far as clients reach it.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Its rules.
    pub rules: Arc<Rules>,
    /// Its connections.
    pub connections: Connections,
    /// What its policy denied.
    pub denied: Arc<Denied>,
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Ask.
    Read,
    /// Ask, and change the rules.
    Steer,
}

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
