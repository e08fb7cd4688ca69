//! What may pass between the VM and the host, and what is learned from it.
//!
//! Deciding is pure and total: no clock, no input or output, no counting, no panic on any
//! bytes. The caller ([`crate::forward`]) counts and acts.
//!
//! ```text
//!   rules as written -> policy/ -> prefix (a table) -> rules (which of them holds now)
//!                                   |
//!   VM ------------------------> outbound ------------------------> host
//!                                   | reads the lease       \
//!                                 lease                      tracking, over flows/
//!                                   ^ writes it             /
//!   VM <------------------------ inbound  <------------------------ host
//! ```
//!
//! Both directions leave DHCP messages to the guard in dhcp/, which says what a client may
//! ask and what a server may answer. docs/filtering.md lists every rule.

mod arp;
mod atomic;
mod bucket;
mod claims;
mod dhcp;
mod facts;
mod flows;
mod inbound;
mod lease;
mod outbound;
pub mod policy;
mod prefix;
mod rules;
mod shape;
mod subnet;
mod tracking;
pub mod verdict;

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

pub use claims::{Claims, NoClaims};
pub use inbound::Inbound;
pub use lease::{Lease, LeaseCell, NameServers};
pub use outbound::Outbound;
pub use policy::{Mode, Policy};
pub use rules::{HOST_ADDRESSES_MAX, Rules};
pub use verdict::{DropReason, Step, Verdict};

use crate::batch::Slot;
use crate::clock::Tick;
use crate::wire::Mac;

/// One direction's filter, as the forwarder sees it.
///
/// ```text
///   begin(now)                 once a batch
///   judge(frame) -> Step       every frame: the whole answer, or that what takes a closer look
///   inspect(slot, why)         the few that do; it alone may rewrite the frame
/// ```
pub trait Filter: Send {
    /// Begins a batch: all of its frames are judged as of this moment.
    fn begin(&mut self, now: Tick);

    /// Decides about a frame as it is. On the path of every frame.
    fn judge(&mut self, frame: &[u8]) -> Step;

    /// Decides about a frame by what [`judge`](Self::judge) has found in it, and may rewrite
    /// it. Rare, so that it may be slow. Of [`Step::Trailer`] it is never asked.
    ///
    /// # Errors
    /// Why the frame is dropped.
    fn examine(&mut self, slot: &mut Slot<'_>, why: Step) -> Result<(), DropReason>;

    /// Decides about a frame for which [`judge`](Self::judge) answered anything but
    /// [`Step::Done`], which says why.
    fn inspect(&mut self, slot: &mut Slot<'_>, why: Step) -> Verdict {
        let why = if why == Step::Trailer {
            shape::cut_trailer(slot);
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

    /// Decides about a frame for good. A frame that needs inspection can get no verdict
    /// without it.
    #[inline]
    fn decide(&mut self, slot: &mut Slot<'_>) -> Verdict {
        match self.judge(slot.frame()) {
            Step::Done(verdict) => verdict,
            why => self.inspect(slot, why),
        }
    }
}

/// What the two filters of a VM need to know.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    /// The only MAC address that the VM may have.
    pub vm_mac: Mac,
    /// The host's address on the VM's network, which is its DHCP server too.
    pub gateway: Ipv4Addr,
    /// The MAC address of the gateway, if the system tells. Otherwise it is learned from the
    /// reply that grants the lease, and learned anew when a lease has run out.
    pub gateway_mac: Option<Mac>,
    /// The network of the interface, if the system tells. Otherwise the DHCP server does.
    pub subnet: Option<Ipv4Net>,
    /// NAT or host-only.
    pub mode: Mode,
    /// Whether VMs are kept from each other. Host-only mode always does.
    pub isolation: bool,
    /// The longest frame that the interface takes, in bytes with the Ethernet header.
    pub max_frame: usize,
    /// Where the VM may send to, to begin with.
    pub policy: &'a Policy,
    /// How many TCP connections a second it may open, once it has opened 8192; 0 for any
    /// number. [`CONNECTION_RATE`] is what no ordinary use comes near to.
    pub connection_rate: u32,
    /// What the VM may call itself.
    pub names: Names<'a>,
}

/// Which of the names that a VM gives itself by DHCP (options 12 and 81) pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names<'a> {
    /// One plain label that no other VM of the host has claimed, and that is not the first of
    /// the host's own name.
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

/// How many TCP connections a VM may open in a second, in the long run, if nobody says
/// otherwise.
pub const CONNECTION_RATE: u32 = 1000;

/// Makes the filters of one VM, and the cell that they share, which tells what the VM was
/// granted. It starts without a lease: only DHCP passes until the server grants one.
#[must_use]
pub fn pair(config: &Config<'_>) -> (Outbound, Inbound, Arc<LeaseCell>) {
    let (outbound, inbound, lease, _) = pair_claiming(config, Arc::new(NoClaims));
    (outbound, inbound, lease)
}

/// The same, for one VM of many: an address that is granted to it is claimed first. With the
/// handle by which the rules are changed while frames flow.
#[must_use]
pub fn pair_claiming(
    config: &Config<'_>,
    claims: Arc<dyn Claims>,
) -> (Outbound, Inbound, Arc<LeaseCell>, Arc<Rules>) {
    let lease = Arc::new(LeaseCell::new(config.gateway_mac));
    let rules = Arc::new(Rules::new(config));
    let asked = Arc::new(dhcp::Transactions::default());
    let unanswered = Arc::new(arp::Unanswered::default());
    let flows = Arc::new(flows::Flows::new());
    let outbound = Outbound::new(
        config,
        rules.view(),
        Arc::clone(&flows),
        Arc::clone(&lease),
        Arc::clone(&asked),
        Arc::clone(&claims),
        Arc::clone(&unanswered),
    );
    let inbound = Inbound::new(
        config,
        Arc::clone(&rules),
        flows,
        Arc::clone(&lease),
        asked,
        claims,
        unanswered,
    );
    (outbound, inbound, lease, rules)
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
    lease.bind(&Lease {
        address: Ipv4Addr::new(192, 168, 64, 2),
        expires: Tick::from_secs(600),
        name_servers: Default::default(),
    });
    (outbound, inbound)
}
