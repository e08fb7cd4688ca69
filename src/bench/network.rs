//! The network of the laboratory: one VM behind a gateway, and the real filters between them
//! with a lease that the gateway granted over DHCP.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::traffic;
use crate::batch::Slot;
use crate::clock::Tick;
use crate::direction::Direction;
use crate::filter::policy::{Mode, Policy};
use crate::filter::{
    self, CONNECTION_RATE, Config, DropReason, Filter, Inbound, Outbound, Step, Verdict,
};
use crate::wire::Mac;

/// Who is on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The VM's MAC address.
    pub vm_mac: Mac,
    /// The address that the gateway lends to the VM.
    pub vm: Ipv4Addr,
    /// The gateway's MAC address.
    pub gateway_mac: Mac,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
}

/// The one that all scenarios are in.
pub const LAB: Network = Network {
    vm_mac: Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
    vm: Ipv4Addr::new(192, 168, 64, 2),
    gateway_mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
    gateway: Ipv4Addr::new(192, 168, 64, 1),
};

/// The VM's MAC address at vmnet, where others may have the usual ones: always the same, so that
/// the host's DHCP server has one lease for all measurements.
pub(super) const VMNET_MAC: Mac = Mac([0x02, b's', b'o', b'f', b't', 0]);

/// Whom the frames of a measurement are between: the VM, and one peer at or behind the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    /// The network that the VM is in.
    pub network: Network,
    /// The peer's address.
    pub peer: Ipv4Addr,
    /// The VM's UDP port.
    pub vm_port: u16,
    /// The peer's UDP port.
    pub peer_port: u16,
}

impl Conversation {
    /// Of the VM of the laboratory with somebody on the internet.
    pub const LAB: Self = Self {
        network: LAB,
        peer: Ipv4Addr::new(20, 1, 2, 3),
        vm_port: 40_000,
        peer_port: 9,
    };
}

/// When the frames of [`Network::filters_with_lease`] come, well before the lease ends.
pub const NOW: Tick = Tick::from_secs(1000);

impl Network {
    /// The length of the prefix of its addresses.
    pub const PREFIX_LEN: u8 = 24;

    /// The two filters, with so many rules, and without a lease yet.
    ///
    /// # Errors
    /// When there are more rules than a policy may have.
    pub fn filters(&self, rules: usize, max_frame: usize) -> io::Result<(Outbound, Inbound)> {
        self.filters_by(&traffic::rules(rules), max_frame)
    }

    fn filters_by(
        &self,
        rules: &(String, String),
        max_frame: usize,
    ) -> io::Result<(Outbound, Inbound)> {
        let subnet = Ipv4Net::new(self.gateway, Self::PREFIX_LEN).map_err(io::Error::other)?;
        filters(rules, |policy| Config {
            vm_mac: self.vm_mac,
            gateway: self.gateway,
            gateway_mac: Some(self.gateway_mac),
            subnet: Some(subnet.trunc()),
            mode: Mode::Nat,
            isolation: true,
            max_frame,
            policy,
            connection_rate: CONNECTION_RATE,
            names: filter::Names::default(),
        })
    }

    /// The same after the VM was granted its lease, at [`NOW`].
    ///
    /// # Errors
    /// As above, and when the filters do not let DHCP through.
    pub fn filters_with_lease(
        &self,
        rules: usize,
        max_frame: usize,
    ) -> io::Result<(Outbound, Inbound)> {
        self.lease_to(self.filters(rules, max_frame)?)
    }

    /// The same with connections tracked, for one rule more names a direction.
    ///
    /// # Errors
    /// As above.
    pub fn tracking_filters_with_lease(
        &self,
        rules: usize,
        max_frame: usize,
    ) -> io::Result<(Outbound, Inbound)> {
        let (allow, block) = traffic::rules(rules);
        let rules = (allow, format!("{block},in 5.6.7.8/32"));
        self.lease_to(self.filters_by(&rules, max_frame)?)
    }

    fn lease_to(
        &self,
        (mut outbound, mut inbound): (Outbound, Inbound),
    ) -> io::Result<(Outbound, Inbound)> {
        for (direction, message) in traffic::lease_exchange(self) {
            match direction {
                Direction::Outbound => pass_dhcp(&mut outbound, message)?,
                Direction::Inbound => pass_dhcp(&mut inbound, message)?,
            }
        }
        Ok((outbound, inbound))
    }
}

/// Filters with these rules and whatever `config` says.
pub(super) fn filters(
    (allow, block): &(String, String),
    config: impl FnOnce(&Policy) -> Config<'_>,
) -> io::Result<(Outbound, Inbound)> {
    let (policy, _) = Policy::parse(allow, block).map_err(io::Error::other)?;
    let (mut outbound, mut inbound, _) = filter::pair(&config(&policy));
    outbound.begin(NOW);
    inbound.begin(NOW);
    Ok((outbound, inbound))
}

/// A filter that takes longer than it needs to, to see whether a measurement notices.
#[derive(Debug)]
pub struct Slowed<F> {
    filter: F,
    iterations: u32,
}

impl<F> Slowed<F> {
    /// Lets `filter` take so many iterations of a busy loop longer for each frame; 0 change
    /// nothing.
    pub const fn new(filter: F, iterations: u32) -> Self {
        Self { filter, iterations }
    }
}

impl<F: Filter> Filter for Slowed<F> {
    fn begin(&mut self, now: Tick) {
        self.filter.begin(now);
    }

    #[inline]
    fn judge(&mut self, frame: &[u8]) -> Step {
        for iteration in 0..self.iterations {
            std::hint::black_box(iteration);
        }
        self.filter.judge(frame)
    }

    fn examine(&mut self, slot: &mut Slot<'_>, why: Step) -> Result<(), DropReason> {
        self.filter.examine(slot, why)
    }
}

fn pass_dhcp(filter: &mut impl Filter, message: Vec<u8>) -> io::Result<()> {
    match filter.decide_alone(message) {
        Verdict::Forward => Ok(()),
        Verdict::Drop(reason) => Err(io::Error::other(format!("DHCP: {}", reason.label()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::traffic::Traffic;

    #[test]
    fn the_traffic_passes_the_filters_but_for_what_is_spoofed() {
        for rules in [0, 32, 4096] {
            let (mut outbound, mut inbound) = LAB.filters_with_lease(rules, 65_550).unwrap();
            for kind in [
                Traffic::Flow(64),
                Traffic::Flow(65_000),
                Traffic::Imix,
                Traffic::Mixed,
                Traffic::Flows(10_000),
                Traffic::Flood,
            ] {
                for frame in kind.frames(Direction::Outbound, &Conversation::LAB) {
                    let step = outbound.judge(&frame);
                    assert_eq!(step, Step::Done(Verdict::Forward), "{kind:?}");
                }
                for frame in kind.frames(Direction::Inbound, &Conversation::LAB) {
                    let step = inbound.judge(&frame);
                    assert_eq!(step, Step::Done(Verdict::Forward), "{kind:?}");
                }
            }
            for frame in Traffic::Spoofed.frames(Direction::Outbound, &Conversation::LAB) {
                let dropped = Verdict::Drop(DropReason::SourceAddress);
                assert_eq!(outbound.judge(&frame), Step::Done(dropped));
            }
            for frame in Traffic::Spoofed.frames(Direction::Inbound, &Conversation::LAB) {
                assert!(matches!(
                    inbound.judge(&frame),
                    Step::Done(Verdict::Drop(_))
                ));
            }
        }
    }
}
