//! Datagrams that arrive in fragments: the decision about the first fragment, which has the ports,
//! also holds for the rest, as long as the policy and the lease are the same.
//!
//! Each direction has a table of its own, of fixed size. For outbound datagrams it is also a limit:
//! a receiver keeps incomplete datagrams for up to 30 seconds, in memory that all senders share,
//! and 3,500 fragments from one VM left none for a neighbour. Inbound the oldest makes room, or else
//! anybody's 256 first fragments would keep out all others for those 30 seconds.

use std::cell::Cell;

use super::Context;
use crate::clock::Tick;

/// One fragment of a datagram.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Part {
    pub(in super::super) peer: u32,
    pub(in super::super) protocol: u8,
    pub(in super::super) identification: u16,
    /// Its offset in the datagram's payload, in bytes.
    pub(in super::super) offset: usize,
    pub(in super::super) len: usize,
    pub(in super::super) is_last: bool,
}

/// The incomplete datagrams.
#[derive(Debug)]
pub(in super::super) struct Fragments {
    slots: Box<[Cell<Slot>]>,
    /// Whether a new datagram takes the place of the oldest if there is no other.
    evicts: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Peer, protocol and identification; 0 for an unused place.
    name: u64,
    /// The policy by which the first fragment was judged, and the lease.
    under: (u32, u32),
    until: Tick,
    /// The number of bytes that have passed.
    passed: usize,
    /// The datagram's length, once its last fragment has passed.
    total: Option<usize>,
}

/// How long the rest of a datagram may take, the same as in Linux (ipfrag_time).
const SECONDS: u32 = 30;

impl Fragments {
    /// A table for this many datagrams at a time, of which more are refused.
    pub(in super::super) fn limited(slots: usize) -> Self {
        Self {
            slots: vec![Cell::default(); slots].into(),
            evicts: false,
        }
    }

    /// A table for this many, in which the oldest makes room for another.
    pub(in super::super) fn evicting(slots: usize) -> Self {
        Self {
            evicts: true,
            ..Self::limited(slots)
        }
    }

    /// Records that a first fragment was allowed. Returns whether there is room for its datagram.
    pub(in super::super) fn begin(&self, part: &Part, context: Context) -> bool {
        let slot = self
            .find(part, context)
            .or_else(|| self.free(context.now))
            .or_else(|| self.oldest());
        let Some(slot) = slot else {
            return false;
        };
        slot.set(Slot {
            name: part.name(),
            under: (context.policy, context.lease),
            until: context.now.after(SECONDS),
            passed: part.len,
            total: None,
        });
        true
    }

    /// Whether a later fragment belongs to a datagram that was allowed.
    pub(in super::super) fn go_on(&self, part: &Part, context: Context) -> bool {
        let Some(slot) = self.find(part, context) else {
            return false;
        };
        let mut datagram = slot.get();
        datagram.passed += part.len;
        if part.is_last {
            datagram.total = Some(part.offset + part.len);
        }
        let is_complete = datagram.total.is_some_and(|total| datagram.passed >= total);
        slot.set(if is_complete {
            Slot::default()
        } else {
            datagram
        });
        true
    }

    fn find(&self, part: &Part, context: Context) -> Option<&Cell<Slot>> {
        let (name, under) = (part.name(), (context.policy, context.lease));
        self.slots.iter().find(|slot| {
            let slot = slot.get();
            slot.name == name && slot.under == under && slot.until > context.now
        })
    }

    fn oldest(&self) -> Option<&Cell<Slot>> {
        let slots = self.slots.iter().filter(|_| self.evicts);
        slots.min_by_key(|slot| slot.get().until)
    }

    fn free(&self, now: Tick) -> Option<&Cell<Slot>> {
        self.slots.iter().find(|slot| {
            let slot = slot.get();
            slot.name == 0 || slot.until <= now
        })
    }
}

impl Part {
    fn name(&self) -> u64 {
        let Self {
            peer,
            protocol,
            identification,
            ..
        } = *self;
        1 << 63 | u64::from(peer) << 24 | u64::from(identification) << 8 | u64::from(protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(identification: u16, offset: usize, is_last: bool) -> Part {
        Part {
            peer: 1,
            protocol: 17,
            identification,
            offset,
            len: 1480,
            is_last,
        }
    }

    fn at(second: u32) -> Context {
        Context {
            policy: 1,
            lease: 7,
            now: Tick::from_secs(second),
        }
    }

    #[test]
    fn later_parts_follow_the_first_in_any_order_until_all_is_there() {
        let fragments = Fragments::limited(2);
        let now = at(1);
        assert!(
            !fragments.go_on(&part(7, 1480, false), now),
            "the first is missing"
        );
        assert!(fragments.begin(&part(7, 0, false), now));
        assert!(!fragments.go_on(&part(8, 1480, false), now));
        assert!(fragments.go_on(&part(7, 2960, true), now));
        assert!(fragments.go_on(&part(7, 1480, false), now));
        assert!(
            !fragments.go_on(&part(7, 1480, false), now),
            "all of it was there"
        );
    }

    #[test]
    fn another_policy_and_another_lease_need_another_first_part() {
        let now = at(1);
        for later in [Context { policy: 2, ..now }, Context { lease: 8, ..now }] {
            let fragments = Fragments::limited(2);
            assert!(fragments.begin(&part(7, 0, false), now));
            assert!(!fragments.go_on(&part(7, 1480, false), later));
            assert!(fragments.go_on(&part(7, 1480, false), now));
        }
    }

    #[test]
    fn the_oldest_makes_room_where_more_are_not_refused() {
        let fragments = Fragments::evicting(2);
        for (second, identification) in [(1, 1), (2, 2), (3, 3)] {
            assert!(fragments.begin(&part(identification, 0, false), at(second)));
        }
        for (identification, is_there) in [(1, false), (2, true), (3, true)] {
            let rest = part(identification, 1480, true);
            assert_eq!(fragments.go_on(&rest, at(3)), is_there, "{identification}");
        }
    }

    #[test]
    fn there_are_only_so_many_at_once() {
        let fragments = Fragments::limited(2);
        let now = at(1);
        for (identification, has_room) in [(1, true), (2, true), (3, false), (2, true)] {
            assert_eq!(
                fragments.begin(&part(identification, 0, false), now),
                has_room
            );
        }
        assert!(fragments.go_on(&part(1, 1480, true), now));
        assert!(fragments.begin(&part(3, 0, false), now), "one is complete");
        assert!(!fragments.begin(&part(4, 0, false), at(30)));
        assert!(fragments.begin(&part(4, 0, false), at(31)));
    }
}
