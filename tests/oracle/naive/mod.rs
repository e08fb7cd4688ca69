//! A second filter, for the tests alone: slow and plain, one `if` after another.
//!
//! It is written from docs/filtering.md, not from the filter, and parses with etherparse,
//! so that a mistake in one of the two is no mistake of the other. It names every fault of
//! the first step of the documented order in which there is one: within a step the order is
//! not promised.

mod connections;
mod dhcp;
mod guard;
mod inbound;
mod names;
mod outbound;
mod packet;
mod question;
mod rules;

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

pub(crate) use self::connections::{Connection, Datagram};
pub(crate) use self::guard::{Allowance, Asked, NotedWish, udp_sum};
pub(crate) use self::question::Question;
pub(crate) use self::rules::Rule;

/// What a VM and its network are, and what has been learned so far.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) vm: [u8; 6],
    pub(crate) gateway: Ipv4Addr,
    /// Told by the system or pinned by a reply.
    pub(crate) gateway_mac: Option<[u8; 6]>,
    pub(crate) is_gateway_mac_told: bool,
    /// Told by the system or by DHCP.
    pub(crate) network: Option<Ipv4Net>,
    pub(crate) host_only: bool,
    pub(crate) isolation: bool,
    pub(crate) max_frame: usize,
    pub(crate) rules: Vec<Rule>,
    /// How many policies there were before this one.
    pub(crate) policy: u32,
    pub(crate) tracked: Vec<Connection>,
    pub(crate) datagrams: Vec<Datagram>,
    /// What each server may still leave unanswered.
    pub(crate) unanswered_by: HashMap<(u8, Ipv4Addr, u16), Allowance>,
    /// The host's addresses besides the gateway's.
    pub(crate) host_addresses: Vec<Ipv4Addr>,
    /// Addresses that other VMs of the host have.
    pub(crate) taken: Vec<Ipv4Addr>,
    /// Names that they have, in lower case.
    pub(crate) taken_names: Vec<String>,
    /// The first label of the host's name.
    pub(crate) host_name: String,
    pub(crate) strips_names: bool,
    /// The name that the VM has.
    pub(crate) claimed_name: Option<String>,
    /// What softnet has asked last by itself.
    pub(crate) question: Option<Question>,
    /// From when on it may ask again.
    pub(crate) may_ask_at: u64,
    pub(crate) lease: Option<Lease>,
    /// What was offered last, and until when that counts.
    pub(crate) offered: Option<(Ipv4Addr, u64)>,
    pub(crate) asked: Vec<Asked>,
    /// Under which xid the VM has asked for a lease, and which.
    pub(crate) wishes: Vec<NotedWish>,
    /// What the last reply answered.
    pub(crate) answered: Option<Asked>,
    pub(crate) messages: Allowance,
    pub(crate) declines: Allowance,
    pub(crate) connections: Allowance,
    pub(crate) broadcast_arp: Allowance,
    /// Requests for the gateway's MAC that went to it alone since it answered one.
    pub(crate) unanswered: u32,
    pub(crate) now: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    /// `None` for ever.
    pub(crate) expires: Option<u32>,
    pub(crate) name_servers: Vec<Ipv4Addr>,
}

/// How a frame goes on that passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Passed {
    /// As these bytes.
    As(Vec<u8>),
    /// As the same DHCP message, but for what is rewritten in it.
    Message,
    /// As softnet's own question, whether the VM has this address.
    Question(Ipv4Addr),
}

/// Labels of reasons, of which the filter may name any.
pub(crate) type Faults = Vec<&'static str>;

impl Facts {
    pub(crate) fn valid_lease(&self) -> Option<&Lease> {
        let lease = self.lease.as_ref()?;
        let is_over = lease.expires.is_some_and(|second| self.now >= second);
        (!is_over).then_some(lease)
    }

    fn is_offered(&self, address: Ipv4Addr) -> bool {
        self.offered
            .is_some_and(|(offered, until)| offered == address && u64::from(self.now) < until)
    }

    fn is_gateway(&self, mac: [u8; 6]) -> bool {
        self.gateway_mac == Some(mac)
    }

    fn is_isolated(&self) -> bool {
        self.isolation || self.host_only
    }

    fn check_length(&self, frame: &[u8]) -> Result<(), Faults> {
        if frame.len() < 14 {
            return Err(vec!["runt"]);
        }
        if frame.len() > self.max_frame {
            return Err(vec!["oversize"]);
        }
        Ok(())
    }
}

fn check_ethertype(number: u16) -> Result<(), Faults> {
    match number {
        0x0800 | 0x0806 => Ok(()),
        0x86dd => Err(vec!["ipv6"]),
        0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => Err(vec!["vlan"]),
        0x888e => Err(vec!["eapol"]),
        0..=1500 => Err(vec!["llc"]),
        _ => Err(vec!["ethertype"]),
    }
}

fn none(faults: Faults) -> Result<(), Faults> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

/// The MAC address that packets for several stations go to.
fn group_mac(address: Ipv4Addr, network: Option<Ipv4Net>) -> Option<[u8; 6]> {
    let of_network = network.is_some_and(|net| net.prefix_len() < 31 && net.broadcast() == address);
    if address.is_broadcast() || of_network {
        return Some(BROADCAST);
    }
    let [_, b, c, d] = address.octets();
    address
        .is_multicast()
        .then_some([0x01, 0x00, 0x5e, b & 0x7f, c, d])
}

fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 1
}

const BROADCAST: [u8; 6] = [0xff; 6];
