//! The connections of one VM, as far as its packets show them: which flows are open, who opened
//! them, and under which policy they were allowed.
//!
//! ```text
//!   key (protocol, the VM's port, the peer's address and port)
//!     │ keyed hash
//!     ▼
//!   sets of 8 places of 32 bytes each (set.rs)
//!   | key | control word | last seen, both ways | lease, opened |
//!                │
//!                └ state (state.rs) · protocol · opener · version · policy
//! ```
//!
//! The threads of both directions look up, open and change flows without a lock and without memory
//! of their own. A flow changes only in its control word. To change it, a thread compares and
//! exchanges the word. After reading a flow, a thread reads the word again, so a flow that is being
//! replaced is never taken for another. Two threads that open the same flow at the same time may
//! leave it in two places; then the first of them is found, and the other expires.
//!
//! Flows end by timeout, which is checked when a flow is looked up and by a sweep around the table;
//! or to make room, but never if both sides have confirmed them.

pub(super) mod fragments;
pub(super) mod list;
mod servers;
mod set;
mod state;

use std::hash::{BuildHasher, RandomState};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use self::servers::Servers;
use self::set::{Control, PLACES, Set};
pub(super) use self::state::Kind;
use self::state::{EvictionPriority, State};
use super::atomic::{AtomicU32, Ordering};
use crate::clock::Tick;
use crate::direction::Direction;

/// What the packets of one flow have in common, in both directions. The VM's address is not part of
/// it: a flow belongs to the lease under which it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Key {
    /// The peer's address (bits 32 to 63), the VM's port (16 to 31), the peer's port (0 to 15). One
    /// word, made in a register: a key that is written in parts and read as a whole stalls the
    /// processor.
    word: u64,
    protocol: u8,
}

/// The circumstances in which a packet is judged, which are the same for a whole batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// The number of the policy.
    pub(super) policy: u32,
    /// The number of the lease, its tenure. Flows opened under another no longer belong to this VM.
    pub(super) lease: u32,
    pub(super) now: Tick,
}

/// The result of looking up a packet's flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It belongs to a flow that this policy allows.
    Flow,
    /// It belongs to a flow that another policy allowed. Whether the flow goes on depends on the
    /// rules for its opener; the caller then calls [`Flows::confirm`] or [`Flows::cut`].
    Stale { opener: Direction },
    /// It belongs to none, and may open one if the rules allow that: [`Flows::open`].
    Opens,
    /// It belongs to none, and cannot open one.
    Untracked,
}

/// Why another flow is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Neither the table nor the packet's set has a place that may be reused.
    Table,
    /// The VM has too many flows to this server.
    Server,
}

/// All flows of one VM.
#[derive(Debug)]
pub(super) struct Flows {
    /// Their number is a power of two. Memory that no flow has used is never touched.
    sets: Box<[Set]>,
    hasher: SeedableRandomState,
    /// Places in use, including those of expired flows until they are found.
    live: AtomicU32,
    /// Of these, TCP that both sides have not confirmed.
    embryonic: AtomicU32,
    /// Of these, flows that the VM did not open.
    foreign: AtomicU32,
    /// Of those that the VM opened, how many at each server.
    servers: Servers,
    /// The next set to sweep.
    hand: AtomicU32,
}

/// How many flows may be open at once.
const FLOWS_MAX: u32 = 65_536;
/// There are twice as many places, so that few sets fill up before the table does: with 65,536
/// flows one in fifty finds its set full, with half as many one in five thousand.
const SETS: usize = if cfg!(loom) {
    1
} else {
    2 * FLOWS_MAX as usize / PLACES
};
/// How many flows may be open whose other side has not answered: the rest of the table is safe from
/// a flood of SYNs.
const EMBRYONIC_MAX: u32 = FLOWS_MAX / 4;
/// How many flows may be open that others opened: whoever forges senders to a service that answers
/// them must not leave the VM without connections of its own.
const FOREIGN_MAX: u32 = FLOWS_MAX / 4 * 3;
/// How many sets are swept for expired flows each sixteenth of a second: all of them in ten
/// seconds.
const SWEPT: u32 = 102;
/// How often a change is retried that lost against the other thread's.
const ATTEMPTS: u32 = 4;

impl Flows {
    pub(super) fn new() -> Self {
        Self::with_sets(SETS)
    }

    /// With this many sets, a power of two.
    fn with_sets(sets: usize) -> Self {
        // Random, so that no guest can choose keys that share a set. And of the hash's two
        // kinds the better one: with the faster, one seed in six put a quarter of all keys that count
        // up, as ports and addresses do, into sets that were full.
        let seed = RandomState::new().hash_one(0);
        Self {
            sets: set::zeroed(sets),
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_random()),
            live: AtomicU32::new(0),
            embryonic: AtomicU32::new(0),
            foreign: AtomicU32::new(0),
            servers: Servers::new(),
            hand: AtomicU32::new(0),
        }
    }

    /// Looks up a packet's flow, and updates the flow's state.
    #[inline(never)]
    pub(super) fn find(&self, from: Direction, key: Key, kind: Kind, context: Context) -> Found {
        let set = self.set(key);
        let now = sixteenths(context.now);
        for _ in 0..ATTEMPTS {
            let Some((place, control)) = set.find(key, context.lease) else {
                break;
            };
            let from_opener = control.opener() == from;
            let is_asked_anew = match kind {
                Kind::Echo { is_request } => is_request && !from_opener,
                kind => kind.is_syn() && !control.state().takes_syn(from_opener),
            };
            if is_asked_anew {
                return Found::Opens;
            }
            if self.is_expired(set, place, control, key, now) {
                break;
            }
            if control.policy() != context.policy {
                let opener = control.opener();
                return Found::Stale { opener };
            }
            let state = control.state().after(kind, from_opener);
            if state == control.state()
                || self.exchange(set, place, key, control, control.with(state))
            {
                set.touch(place, from, now);
                return Found::Flow;
            }
        }
        if kind.opens(from) {
            Found::Opens
        } else {
            Found::Untracked
        }
    }

    /// A fast path of [`find`](Self::find) for a packet of a connection that both sides have
    /// confirmed, if it changes nothing but the time. `false` says nothing about the packet.
    #[inline(always)]
    pub(super) fn goes_on(&self, from: Direction, key: Key, kind: Kind, context: &Context) -> bool {
        let Some(expected) = Control::going_on(key.protocol, kind, context.policy) else {
            return false;
        };
        let set = self.set(key);
        let Some(place) = set.place(key) else {
            return false;
        };
        let now = sixteenths(context.now);
        match set.goes_on(place, key, context.lease, expected, from, now) {
            Some(true) => true,
            // Its first packet in this sixteenth of a second.
            Some(false) => self.find(from, key, kind, *context) == Found::Flow,
            None => false,
        }
    }

    /// Opens the flow of a packet that the rules allow, or reopens it. A flow that both sides have
    /// confirmed stays as it is: a SYN on it may be forged, and the machine that receives it asks
    /// the other whether it is right (RFC 5961, section 4), which a reset then says.
    ///
    /// # Errors
    /// Why it is not opened.
    pub(super) fn open(
        &self,
        from: Direction,
        key: Key,
        kind: Kind,
        context: Context,
    ) -> Result<(), NoRoom> {
        let set = self.set(key);
        let now = sixteenths(context.now);
        let state = State::opened_by(kind);
        for _ in 0..ATTEMPTS {
            let same = set.find(key, context.lease);
            let alive =
                same.filter(|(place, control)| !self.is_expired(set, *place, *control, key, now));
            if alive.is_some_and(|(_, control)| control.state().outlives_syn()) {
                return Ok(());
            }
            // Only this thread opens such flows, so none takes the room meanwhile.
            let is_another = !alive.is_some_and(|(_, control)| control.is_own());
            if from == Direction::Outbound
                && is_another
                && !self.servers.has_room(&self.hasher, key, now)
            {
                return Err(NoRoom::Server);
            }
            let victim = || self.victim(set, state, from, context.lease, now);
            let (place, before) = same.or_else(victim).ok_or(NoRoom::Table)?;
            let control = before.next(state, key.protocol, from, context.policy);
            if !set.claim(place, before) {
                continue;
            }
            self.count(before, control);
            let old = (set.key(place, before), before);
            let is_again = alive.is_some_and(|(_, control)| control.is_unanswered());
            (self.servers).replace(&self.hasher, old, (key, control), is_again, now);
            set.fill(place, key, context.lease, now);
            set.publish(place, control);
            return Ok(());
        }
        Err(NoRoom::Table)
    }

    /// Lets a flow go on under the context's policy, if it still exists.
    pub(super) fn confirm(&self, key: Key, context: Context) {
        let set = self.set(key);
        for _ in 0..ATTEMPTS {
            match set.find(key, context.lease) {
                Some((place, control))
                    if !self.exchange(set, place, key, control, control.under(context.policy)) => {}
                _ => return,
            }
        }
    }

    /// Ends a flow.
    pub(super) fn cut(&self, key: Key, context: Context) {
        let set = self.set(key);
        for _ in 0..ATTEMPTS {
            match set.find(key, context.lease) {
                Some((place, control))
                    if !self.exchange(set, place, key, control, control.ended()) => {}
                _ => return,
            }
        }
    }

    /// Whether an ICMP error is about a packet of a flow that is open under this policy. An error
    /// does not refresh the flow. Nor does it have a flow of another policy judged, which takes the
    /// flow's own ports: an error answers a packet of the flow, which has done that before.
    pub(super) fn is_related(&self, key: Key, context: Context) -> bool {
        let set = self.set(key);
        let found = set.find(key, context.lease);
        found.is_some_and(|(place, control)| {
            control.policy() == context.policy
                && !self.is_expired(set, place, control, key, sixteenths(context.now))
        })
    }

    /// Frees the places of some expired flows: those in the next part of the table, if it is time.
    pub(super) fn sweep(&self, now: Tick) {
        let now = sixteenths(now);
        if self.live.load(Ordering::Relaxed) == 0 {
            return;
        }
        let first = self.hand.load(Ordering::Relaxed);
        self.hand
            .store(first.wrapping_add(SWEPT), Ordering::Relaxed);
        for step in 0..SWEPT {
            let index = first.wrapping_add(step) as usize;
            let set = &self.sets[index & (self.sets.len() - 1)];
            for place in 0..PLACES {
                let Some((key, _, control)) = set.read(place) else {
                    continue;
                };
                if self.is_expired(set, place, control, key, now) {
                    self.exchange(set, place, key, control, control.ended());
                }
            }
        }
    }

    /// The number of places in use, and of those that are TCP not confirmed by both sides.
    pub(super) fn counts(&self) -> (u32, u32) {
        let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        (count(&self.live), count(&self.embryonic))
    }

    #[inline]
    fn set(&self, key: Key) -> &Set {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "of the hash's bits any will do"
        )]
        let hash = self.hasher.hash_one((key.word, key.protocol)) as usize;
        &self.sets[hash & (self.sets.len() - 1)]
    }

    /// A place for a new flow: a free one, or else that of the flow with the lowest priority.
    fn victim(
        &self,
        set: &Set,
        state: State,
        from: Direction,
        lease: u32,
        now: u32,
    ) -> Option<(usize, Control)> {
        let (live, embryonic) = self.counts();
        let foreign = self.foreign.load(Ordering::Relaxed);
        let only_foreign = from == Direction::Inbound && foreign >= FOREIGN_MAX;
        let is_full = live >= FLOWS_MAX;
        let only_embryonic = state.is_embryonic() && embryonic >= EMBRYONIC_MAX;
        let mut best: Option<(EvictionPriority, u32, usize, Control)> = None;
        for place in 0..PLACES {
            let control = set.control(place);
            if control.is_busy() || only_foreign && !control.is_foreign() {
                continue;
            }
            let class = match set.read(place) {
                None if is_full || only_embryonic => continue,
                None => EvictionPriority::Free,
                Some((key, under, _))
                    if under != lease || self.is_expired(set, place, control, key, now) =>
                {
                    EvictionPriority::Expired
                }
                Some(_) => control.state().class(control.protocol()),
            };
            let may_go = match class {
                EvictionPriority::Assured => false,
                EvictionPriority::Embryonic
                | EvictionPriority::Expired
                | EvictionPriority::Free => true,
                EvictionPriority::Closing | EvictionPriority::OneWay => !only_embryonic,
            };
            let age = now.wrapping_sub(set.seen(place));
            let is_better = best
                .is_none_or(|(worst, oldest, ..)| class < worst || class == worst && age > oldest);
            if may_go && is_better {
                best = Some((class, age, place, control));
            }
        }
        best.map(|(_, _, place, control)| (place, control))
    }

    #[inline]
    fn is_expired(&self, set: &Set, place: usize, control: Control, key: Key, now: u32) -> bool {
        let idle = now.wrapping_sub(set.seen(place));
        // The other thread's batch may be slightly later than this one's.
        let idle = if idle > u32::MAX / 2 { 0 } else { idle };
        // Most packets closely follow the previous one.
        idle >= state::IDLE_LEAST
            && idle
                >= control.state().idle_max(key, || {
                    self.live.load(Ordering::Relaxed) > FLOWS_MAX / 4 * 3
                })
    }

    /// Changes a flow, unless the other thread has changed it meanwhile.
    fn exchange(&self, set: &Set, place: usize, key: Key, before: Control, after: Control) -> bool {
        let changed = set.exchange(place, before, after);
        if changed {
            self.count(before, after);
            self.servers.change(&self.hasher, key, before, after);
        }
        changed
    }

    fn count(&self, before: Control, after: Control) {
        let adjust = |counter: &AtomicU32, before: bool, after: bool| match (before, after) {
            (false, true) => {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            (true, false) => {
                counter.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        };
        adjust(&self.live, before.is_live(), after.is_live());
        adjust(&self.embryonic, before.is_embryonic(), after.is_embryonic());
        adjust(&self.foreign, before.is_foreign(), after.is_foreign());
    }
}

/// Time in flows: in sixteenths of a second, which wrap around after eight years.
#[expect(clippy::cast_possible_truncation, reason = "it comes around")]
fn sixteenths(now: Tick) -> u32 {
    now.in_sixteenths() as u32
}

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(all(test, not(loom)))]
mod fast_tests;

#[cfg(all(test, not(loom)))]
mod model;

#[cfg(all(test, not(loom)))]
mod server_tests;

#[cfg(all(test, not(loom)))]
mod tests;
