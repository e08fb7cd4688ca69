//! How many connections the VM has open to one server: a host's NAT has some 64,000 ports for each,
//! which all its VMs share.
//!
//! Counted in places that servers share by a keyed hash, so a server costs no memory of its own.
//! Two servers in one place may have as many together as one alone.

use foldhash::quality::SeedableRandomState;

use super::Key;
use super::set::Control;
use crate::filter::atomic::{AtomicU32, Ordering};
use crate::wire::ipv4::protocol;

/// What is open to the servers of each place.
#[derive(Debug)]
pub(super) struct Servers {
    /// Their number is a power of two. Memory that no flow has used is never touched.
    places: Box<[Place]>,
    hasher: SeedableRandomState,
}

#[derive(Debug)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
#[repr(C)]
struct Place {
    /// Flows that the VM has opened.
    open: AtomicU32,
    /// Of these, those without an answer.
    unanswered: AtomicU32,
}

impl Servers {
    #[cfg(not(loom))]
    pub(super) fn new(hasher: SeedableRandomState) -> Self {
        use zerocopy::FromZeros;
        let places = <[Place]>::new_box_zeroed_with_elems(PLACES).expect("32 KiB of addresses");
        Self { places, hasher }
    }

    /// Loom's atomics must be created one by one.
    #[cfg(loom)]
    pub(super) fn new(hasher: SeedableRandomState) -> Self {
        let place = Place {
            open: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
        };
        Self {
            places: Box::new([place]),
            hasher,
        }
    }

    /// Whether the VM may open one more to the server of this flow.
    pub(super) fn may_open(&self, key: Key) -> bool {
        let place = self.place(key);
        let open_max = match key.protocol {
            protocol::TCP => OPEN_TCP_MAX,
            _ => OPEN_MAX,
        };
        place.open.load(Ordering::Relaxed) < open_max
            && place.unanswered.load(Ordering::Relaxed) < UNANSWERED_MAX
    }

    /// Counts a change of the flow with this key.
    #[inline]
    pub(super) fn count(&self, key: Key, before: Control, after: Control) {
        let change = |is: fn(Control) -> bool| match (is(before), is(after)) {
            (false, true) => 1_u32,
            // Wrapping, that is one less.
            (true, false) => u32::MAX,
            _ => 0,
        };
        let (open, unanswered) = (change(Control::is_own), change(Control::is_unanswered));
        if (open, unanswered) != (0, 0) {
            let place = self.place(key);
            place.open.fetch_add(open, Ordering::Relaxed);
            place.unanswered.fetch_add(unanswered, Ordering::Relaxed);
        }
    }

    /// What is open to all servers, and what of it is unanswered.
    #[cfg(test)]
    pub(super) fn totals(&self) -> (u32, u32) {
        let total = |counter: fn(&Place) -> &AtomicU32| {
            let counts = self.places.iter().map(counter);
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        (total(|place| &place.open), total(|place| &place.unanswered))
    }

    fn place(&self, key: Key) -> &Place {
        let server = Key { vm_port: 0, ..key };
        &self.places[server.hash(&self.hasher) & (self.places.len() - 1)]
    }
}

/// More than any system has ports to open connections from by default (Linux 28,232, macOS 16,384),
/// and half of what a NAT has.
const OPEN_TCP_MAX: u32 = 32_768;
/// A NAT remembers other flows up to three times as long as the table does: an answered DNS query 30
/// seconds and not 10 (nf_conntrack_udp_timeout).
const OPEN_MAX: u32 = 16_384;
/// Who opens more at once gets no answers, or wants none.
const UNANSWERED_MAX: u32 = 4096;

/// Many enough that a crawler's servers rarely share one.
#[cfg(not(loom))]
const PLACES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::super::tests::{World, key};
    use super::super::{Found, Full, Kind};
    use crate::direction::Direction::{Inbound, Outbound};

    #[test]
    fn one_server_gets_a_part_of_what_a_nat_has_and_another_the_same() {
        let mut world = World::new();
        let open = |world: &World, key| world.flows.open(Outbound, key, Kind::Udp, world.context);
        for port in 0..4096 {
            assert_eq!(open(&world, key(17, port, 53)), Ok(()), "{port}");
        }
        assert_eq!(open(&world, key(17, 5000, 53)), Err(Full::Server));
        assert_eq!(open(&world, key(17, 5000, 54)), Ok(()));
        // Whom somebody else has asked, the VM may answer.
        let foreign = key(17, 5001, 53);
        let opened = world.flows.open(Inbound, foreign, Kind::Udp, world.context);
        assert_eq!(opened, Ok(()));
        // An answer makes room for another question, up to a limit.
        let nth = |number: u16| key(17, if number < 4096 { number } else { 6000 + number }, 53);
        let refused = (0..30_000).find(|number| {
            assert_eq!(world.find(Inbound, nth(*number), Kind::Udp), Found::Flow);
            open(&world, nth(4096 + number)) == Err(Full::Server)
        });
        assert_eq!(refused, Some(16_384 - 4096));
        // What has expired makes room.
        world.wait(181);
        for _ in 0..170 {
            world.flows.sweep(world.context.now);
        }
        assert_eq!(world.flows.servers.totals(), (0, 0));
        assert_eq!(open(&world, key(17, 9000, 53)), Ok(()));
    }
}
