//! Lists the flows that are open, for people: a page at a time, while they change.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::set::{Control, PLACES, Set};
use super::state::EvictionPriority;
use super::{Flows, Key, sixteenths};
use crate::clock::Tick;
use crate::direction::Direction;
use crate::filter::lease::LeaseCell;

/// The connections of one VM.
#[derive(Debug, Clone)]
pub struct Connections {
    pub(in crate::filter) flows: Arc<Flows>,
    pub(in crate::filter) lease: Arc<LeaseCell>,
}

/// A connection that was open when it was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The number of its protocol, as in the IPv4 header.
    pub protocol: u8,
    /// The VM's port, or the identifier of an ICMP echo; 0 if there is neither.
    pub vm_port: u16,
    /// The other machine.
    pub peer: Ipv4Addr,
    /// The other machine's port; 0 if there is none.
    pub peer_port: u16,
    /// The direction of its first packet.
    pub opener: Direction,
    /// How far it has got.
    pub stage: Stage,
    /// Seconds since its first packet.
    pub age: u32,
    /// Seconds since its last packet.
    pub idle: u32,
}

/// How far a connection has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// TCP that both sides have not confirmed.
    Opening,
    /// TCP that both sides have confirmed, or packets both ways.
    Open,
    /// Packets one way only.
    OneWay,
    /// TCP with a FIN or a reset.
    Closing,
}

impl Connections {
    /// The connections in the next part of the table from `start` on, at least `count` if there are
    /// as many, and where the part after it starts. The first part starts at 0.
    #[must_use]
    pub fn page(&self, start: usize, count: usize, now: Tick) -> (Vec<Connection>, Option<usize>) {
        let mut found = Vec::new();
        // Memory that no flow has used stays untouched.
        let is_empty = self.flows.counts().0 == 0 || !self.lease.packed().is_valid(now);
        let used = if is_empty { 0 } else { self.flows.sets.len() };
        for index in start..used {
            let set = &self.flows.sets[index];
            found.extend((0..PLACES).filter_map(|place| self.connection(set, place, now)));
            if found.len() >= count {
                return (found, Some(index + 1));
            }
        }
        (found, None)
    }

    fn connection(&self, set: &Set, place: usize, now: Tick) -> Option<Connection> {
        let (key, lease, control) = set.read(place)?;
        let now = sixteenths(now);
        let is_ours = lease == self.lease.tenure();
        if !is_ours || self.flows.is_expired(set, place, control, key, now) {
            return None;
        }
        // One thread may be ahead of the other, and of this one.
        let seconds =
            |since: u32| now.wrapping_sub(since).cast_signed().max(0).cast_unsigned() / 16;
        let (protocol, peer, peer_port) = key.server();
        Some(Connection {
            protocol,
            vm_port: key.vm_port(),
            peer: peer.into(),
            peer_port,
            opener: control.opener(),
            stage: stage(key, control),
            age: seconds(set.opened(place)),
            idle: seconds(set.seen(place)),
        })
    }
}

fn stage(key: Key, control: Control) -> Stage {
    match control.state().class(key.protocol) {
        EvictionPriority::Closing => Stage::Closing,
        EvictionPriority::Embryonic => Stage::Opening,
        EvictionPriority::OneWay => Stage::OneWay,
        EvictionPriority::Assured | EvictionPriority::Expired | EvictionPriority::Free => {
            Stage::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Context, Kind};
    use super::*;
    use crate::filter::Lease;

    fn connections() -> Connections {
        let lease = Arc::new(LeaseCell::default());
        let granted = Lease {
            address: Ipv4Addr::new(192, 168, 64, 2),
            expires: Tick::from_secs(10_000),
        };
        lease.bind(&granted, Tick::ZERO);
        let flows = Arc::new(Flows::new());
        Connections { flows, lease }
    }

    impl Connections {
        fn open(&self, from: Direction, key: Key, kind: Kind, second: u32) {
            let context = Context {
                policy: 1,
                lease: self.lease.tenure(),
                now: Tick::from_secs(second),
            };
            self.flows.open(from, key, kind, context).unwrap();
        }
    }

    fn key(protocol: u8, number: u16) -> Key {
        Key::new(protocol, 40_000 + number, 0x0102_0304, 443)
    }

    #[test]
    fn every_open_connection_is_on_one_page() {
        let connections = connections();
        for number in 0..1000 {
            connections.open(Direction::Outbound, key(6, number), Kind::Tcp(2), 100);
        }
        let (mut ports, mut start) = (Vec::new(), Some(0));
        while let Some(at) = start {
            let (page, next) = connections.page(at, 100, Tick::from_secs(103));
            assert!(page.len() < 100 + PLACES && (page.len() >= 100 || next.is_none()));
            ports.extend(page.iter().map(|it| it.vm_port));
            start = next;
        }
        ports.sort_unstable();
        assert_eq!(ports, (40_000..41_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_connection_is_told_as_it_is() {
        let connections = connections();
        assert_eq!(connections.page(0, 100, Tick::ZERO), (vec![], None));
        connections.open(Direction::Inbound, key(17, 1), Kind::Udp, 100);
        let told = Connection {
            protocol: 17,
            vm_port: 40_001,
            peer: [1, 2, 3, 4].into(),
            peer_port: 443,
            opener: Direction::Inbound,
            stage: Stage::OneWay,
            age: 20,
            idle: 20,
        };
        let at = |second| connections.page(0, 100, Tick::from_secs(second)).0;
        assert_eq!(at(120), [told]);
        // The clock of the thread that opened it may be ahead.
        assert_eq!(at(99)[0].age, 0);
        // It has expired.
        assert_eq!(at(140), []);
        connections.lease.clear();
        assert_eq!(at(120), []);
    }
}
