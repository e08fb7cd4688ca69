//! Decides which frames may pass between the VM and the host, and learns the lease from them.
//!
//! A decision has no side effects, and any frame gets one: the filter reads no clock, does no input
//! or output, counts nothing, and panics on no bytes. The caller ([`crate::forward`]) counts and
//! acts.
//!
//! ```text
//!   rules as written -> policy/ -> prefix (a table) -> rules (those in force now)
//!                                   |
//!   VM ------------------------> outbound ------------------------> host
//!                                   | reads the lease       \
//!                                 lease                      tracking, over flows/
//!                                   ^ writes it             /
//!   VM <------------------------ inbound  <------------------------ host
//! ```
//!
//! Both directions leave DHCP messages to the guard in dhcp/, which knows what a client may request
//! and what a server may answer. docs/filtering.md lists every rule.

mod arp;
mod atomic;
mod audit;
mod bucket;
mod claims;
mod denied;
mod dhcp;
mod facts;
mod flows;
mod inbound;
mod lease;
mod outbound;
pub mod policy;
mod prefix;
mod roles;
mod rules;
mod subnet;
mod tracking;
mod validate;
pub mod verdict;

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

pub use audit::Audit;
pub use claims::{Claims, NoClaims};
pub use denied::{Denied, Row as DeniedRow};
pub use flows::list::{Connection, Connections, Stage};
pub use inbound::Inbound;
pub use lease::{Lease, LeaseCell};
pub use outbound::Outbound;
pub use policy::{Mode, Policy};
pub use roles::NameServers;
pub use rules::{HOST_ADDRESSES_MAX, Rules};
pub use verdict::{DropReason, Step, Verdict};

use crate::batch::Slot;
use crate::clock::Tick;
use crate::wire::Mac;
use crate::wire::answer::Answer;

/// One direction's filter, as the forwarder sees it.
///
/// ```text
///   begin(now)                 once per batch
///   judge(frame) -> Step       every frame: a verdict, or what to inspect it for
///   inspect(slot, why)         only those frames; it alone may rewrite them
///   dropped(frame, reason)     only dropped frames
///   answer(frame, reason)      only dropped frames, where senders are told
/// ```
pub trait Filter: Send {
    /// Begins a batch: all of its frames are judged as of this moment.
    fn begin(&mut self, now: Tick);

    /// Decides about a frame as it is. On the path of every frame.
    fn judge(&mut self, frame: &[u8]) -> Step;

    /// Decides about a frame by what [`judge`](Self::judge) has found in it, and may rewrite it.
    /// Such frames are rare, so this may be slow. It is never called with [`Step::Trailer`].
    ///
    /// # Errors
    /// Why the frame is dropped.
    fn examine(&mut self, slot: &mut Slot<'_>, why: Step) -> Result<(), DropReason>;

    /// Decides about a frame for which [`judge`](Self::judge) returned anything but [`Step::Done`];
    /// `why` is what it returned.
    fn inspect(&mut self, slot: &mut Slot<'_>, why: Step) -> Verdict {
        let why = if why == Step::Trailer {
            validate::cut_trailer(slot);
            match self.judge(slot.frame()) {
                Step::Done(verdict) => return verdict,
                // There is nothing left to cut off.
                Step::Trailer => return Verdict::Drop(DropReason::Ipv4Malformed),
                why => why,
            }
        } else {
            why
        };
        self.examine(slot, why).into()
    }

    /// Takes note of a frame that was dropped for this reason. A filter that keeps no record of
    /// them has no use for this.
    fn dropped(&mut self, _frame: &[u8], _reason: DropReason) {}

    /// What to tell the sender of a frame that was dropped for this reason, if anything. A filter
    /// whose sender is told nothing has no use for this.
    fn answer(&mut self, _frame: &[u8], _reason: DropReason) -> Option<Answer> {
        None
    }

    /// Makes the final decision about a frame. A frame that needs inspection cannot get a verdict
    /// without it.
    #[inline]
    fn decide(&mut self, slot: &mut Slot<'_>) -> Verdict {
        match self.judge(slot.frame()) {
            Step::Done(verdict) => verdict,
            why => self.inspect(slot, why),
        }
    }

    /// Makes the final decision about a frame that is in no batch. It may grow, like one in a slot.
    fn decide_alone(&mut self, mut frame: Vec<u8>) -> Verdict {
        let Ok(mut len) = u32::try_from(frame.len()) else {
            return Verdict::Drop(DropReason::Oversize);
        };
        frame.resize(frame.len() + ROOM, 0);
        self.decide(&mut Slot::new(&mut frame, &mut len))
    }
}

/// Bytes that a frame may grow by when it is rewritten: a DHCP message by its client identifier.
const ROOM: usize = 64;

/// What the two filters of a VM need to know.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    /// The only MAC address that the VM may use.
    pub vm_mac: Mac,
    /// The host's address on the VM's network, which is also its DHCP server.
    pub gateway: Ipv4Addr,
    /// The gateway's MAC address, if the system knows it. Otherwise it is learned from the reply
    /// that grants the lease, and again after a lease has expired.
    pub gateway_mac: Option<Mac>,
    /// The network of the interface, if the system knows it. Otherwise it is learned from the DHCP
    /// server.
    pub subnet: Option<Ipv4Net>,
    /// NAT or host-only.
    pub mode: Mode,
    /// Whether VMs are isolated from each other. In host-only mode they always are.
    pub isolation: bool,
    /// The longest frame that the interface takes, in bytes with the Ethernet header.
    pub max_frame: usize,
    /// The initial rules.
    pub policy: &'a Policy,
    /// How many TCP connections the VM may open per second, after 8192 at once; 0 for no limit. No
    /// ordinary use comes near [`CONNECTION_RATE`].
    pub connection_rate: u32,
    /// Which host names of the VM reach the DHCP server.
    pub names: Names<'a>,
}

/// Which of the host names that a VM sends by DHCP (options 12 and 81) pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names<'a> {
    /// A single plain label that no other VM of the host has claimed, and that is not the first
    /// label of the host's own name.
    Pass {
        /// The host's name.
        host: &'a str,
    },
    /// None.
    Strip,
}

impl Default for Names<'_> {
    /// As on a host without a name.
    fn default() -> Self {
        Self::Pass { host: "" }
    }
}

/// How many TCP connections a VM may open per second in the long run, by default.
pub const CONNECTION_RATE: u32 = 1000;

/// Creates the filters of one VM, and the cell with the VM's lease, which they share. At first
/// there is no lease: only DHCP passes until the server grants one.
#[must_use]
pub fn pair(config: &Config<'_>) -> (Outbound, Inbound, Arc<LeaseCell>) {
    let (outbound, inbound, lease, _) = pair_claiming(config, Arc::new(NoClaims));
    (outbound, inbound, lease)
}

/// The same for one VM of several: an address that is granted to it is claimed first. Also returns
/// the handle through which the rules are changed while frames flow.
#[must_use]
pub fn pair_claiming(
    config: &Config<'_>,
    claims: Arc<dyn Claims>,
) -> (Outbound, Inbound, Arc<LeaseCell>, Arc<Rules>) {
    let rules = Arc::new(Rules::new(config));
    let shared = Shared {
        lease: Arc::default(),
        transactions: Arc::default(),
        claims,
        unanswered: Arc::default(),
        flows: Arc::new(flows::Flows::new()),
        denied: Arc::default(),
    };
    let lease = Arc::clone(&shared.lease);
    let outbound = Outbound::new(config, rules.view(), shared.clone());
    let inbound = Inbound::new(config, Arc::clone(&rules), shared);
    (outbound, inbound, lease, rules)
}

/// What both directions of one VM read and write.
#[derive(Debug, Clone)]
struct Shared {
    lease: Arc<LeaseCell>,
    transactions: Arc<dhcp::Transactions>,
    claims: Arc<dyn Claims>,
    unanswered: Arc<arp::Unanswered>,
    flows: Arc<flows::Flows>,
    denied: Arc<Denied>,
}

/// The filters of a VM that has 192.168.64.2 until second 600.
#[cfg(test)]
fn leased_pair() -> (Outbound, Inbound) {
    let policy = Policy::default();
    let (outbound, inbound, lease) = pair(&Config {
        vm_mac: Mac([0x52, 0x54, 0, 0, 0, 2]),
        gateway: Ipv4Addr::new(192, 168, 64, 1),
        gateway_mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        subnet: None,
        mode: Mode::Nat,
        isolation: true,
        max_frame: 1514,
        policy: &policy,
        connection_rate: CONNECTION_RATE,
        names: Names::default(),
    });
    let granted = Lease {
        address: Ipv4Addr::new(192, 168, 64, 2),
        expires: Tick::from_secs(600),
    };
    lease.bind(&granted, Tick::ZERO);
    (outbound, inbound)
}
