//! Eight places for flows whose keys share a hash.
//!
//! A place is read as if under a sequence lock: control word, key, control word again. The word
//! contains a version, so it changes with every new flow in the place.

use super::Key;
use super::state::State;
use crate::direction::Direction;
use crate::filter::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub(super) const PLACES: usize = 8;

/// 256 bytes. A look-up reads the keys, a control word, and one or two words of the rest. It is not
/// aligned to cache lines: Rust's allocator gets zeroed memory from calloc, which leaves it
/// untouched, only for alignments up to 16 bytes, and otherwise writes to all of it (std,
/// sys/alloc/unix.rs).
#[derive(Debug)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
#[repr(C)]
pub(super) struct Set {
    /// The peer's address and port, and the VM's port.
    keys: [AtomicU64; PLACES],
    controls: [AtomicU64; PLACES],
    /// When the last packet came, outbound and inbound. Each is written by its own thread.
    seen: [[AtomicU32; 2]; PLACES],
    leases: [AtomicU32; PLACES],
    opened: [AtomicU32; PLACES],
}

/// Sets without flows, in untouched memory.
#[cfg(not(loom))]
pub(super) fn zeroed(sets: usize) -> Box<[Set]> {
    use zerocopy::FromZeros;
    <[Set]>::new_box_zeroed_with_elems(sets).expect("4 MiB of addresses")
}

/// Loom's atomics must be created one by one.
#[cfg(loom)]
pub(super) fn zeroed(sets: usize) -> Box<[Set]> {
    use std::array::from_fn;
    let set = |_| Set {
        keys: from_fn(|_| AtomicU64::new(0)),
        controls: from_fn(|_| AtomicU64::new(0)),
        seen: from_fn(|_| from_fn(|_| AtomicU32::new(0))),
        leases: from_fn(|_| AtomicU32::new(0)),
        opened: from_fn(|_| AtomicU32::new(0)),
    };
    (0..sets).map(set).collect()
}

impl Set {
    /// The place and the control word of a flow.
    #[inline]
    pub(super) fn find(&self, key: Key, lease: u32) -> Option<(usize, Control)> {
        let word = key.word();
        for place in 0..PLACES {
            if self.keys[place].load(Ordering::Relaxed) == word
                && let Some((found, under, control)) = self.read(place)
                && (found, under) == (key, lease)
            {
                return Some((place, control));
            }
        }
        None
    }

    /// The flow in a place, and the lease under which it was opened, unless the place is empty or
    /// being written.
    #[inline]
    pub(super) fn read(&self, place: usize) -> Option<(Key, u32, Control)> {
        let control = self.control(place);
        if !control.is_live() {
            return None;
        }
        let word = self.keys[place].load(Ordering::Relaxed);
        let lease = self.leases[place].load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let again = Control(self.controls[place].load(Ordering::Relaxed));
        let key = Key::from_word(word, control.protocol());
        let is_same = again.version() == control.version() && again.is_live();
        is_same.then_some((key, lease, control))
    }

    #[inline]
    pub(super) fn control(&self, place: usize) -> Control {
        Control(self.controls[place].load(Ordering::Acquire))
    }

    /// When the last packet of either direction came.
    #[inline]
    pub(super) fn seen(&self, place: usize) -> u32 {
        let [out, back] = &self.seen[place];
        let (out, back) = (out.load(Ordering::Relaxed), back.load(Ordering::Relaxed));
        if out.wrapping_sub(back) < u32::MAX / 2 {
            out
        } else {
            back
        }
    }

    /// When the flow was opened.
    pub(super) fn opened(&self, place: usize) -> u32 {
        self.opened[place].load(Ordering::Relaxed)
    }

    /// Records a packet in this direction. The place may contain another flow by now, which then
    /// lives a little longer.
    #[inline]
    pub(super) fn touch(&self, place: usize, from: Direction, now: u32) {
        let seen = &self.seen[place][from as usize];
        // Written once every sixteenth of a second, so that the cache line stays shared.
        if seen.load(Ordering::Relaxed) != now {
            seen.store(now, Ordering::Relaxed);
        }
    }

    pub(super) fn exchange(&self, place: usize, before: Control, after: Control) -> bool {
        let word = &self.controls[place];
        let exchanged =
            word.compare_exchange(before.0, after.0, Ordering::AcqRel, Ordering::Relaxed);
        exchanged.is_ok()
    }

    /// Takes a place for the calling thread, until [`publish`](Self::publish).
    pub(super) fn claim(&self, place: usize, before: Control) -> bool {
        let claimed = self.exchange(place, before, before.claimed());
        // What is written from here on is not visible before the claim.
        fence(Ordering::Release);
        claimed
    }

    /// The key in a place that the calling thread has claimed, from the flow with this control word.
    pub(super) fn key(&self, place: usize, before: Control) -> Key {
        let word = self.keys[place].load(Ordering::Relaxed);
        Key::from_word(word, before.protocol())
    }

    pub(super) fn fill(&self, place: usize, key: Key, lease: u32, now: u32) {
        self.keys[place].store(key.word(), Ordering::Relaxed);
        self.leases[place].store(lease, Ordering::Relaxed);
        self.opened[place].store(now, Ordering::Relaxed);
        for seen in &self.seen[place] {
            seen.store(now, Ordering::Relaxed);
        }
    }

    pub(super) fn publish(&self, place: usize, control: Control) {
        self.controls[place].store(control.0, Ordering::Release);
    }
}

impl Key {
    pub(super) const fn word(self) -> u64 {
        (self.peer as u64) << 32 | (self.vm_port as u64) << 16 | self.peer_port as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
    const fn from_word(word: u64, protocol: u8) -> Self {
        Self {
            protocol,
            vm_port: (word >> 16) as u16,
            peer: (word >> 32) as u32,
            peer_port: word as u16,
        }
    }
}

/// State (bits 0 to 7), protocol (8 to 15), opener (16), version (17 to 31), policy (32 to 63).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Control(u64);

#[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
impl Control {
    pub(super) const fn state(self) -> State {
        State(self.0 as u8)
    }

    pub(super) const fn is_live(self) -> bool {
        self.state().is_live() && !self.is_busy()
    }

    pub(super) const fn is_busy(self) -> bool {
        self.state().is_busy()
    }

    pub(super) const fn protocol(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Whether it is TCP that both sides have not confirmed.
    pub(super) const fn is_embryonic(self) -> bool {
        self.is_live()
            && self.state().is_embryonic()
            && self.protocol() == crate::wire::ipv4::protocol::TCP
    }

    /// Whether it is a flow that the VM did not open.
    pub(super) const fn is_foreign(self) -> bool {
        self.is_live() && matches!(self.opener(), Direction::Inbound)
    }

    /// Whether it is a flow that the VM opened.
    pub(super) const fn is_own(self) -> bool {
        self.is_live() && matches!(self.opener(), Direction::Outbound)
    }

    /// Whether it is a flow that the VM opened and whose other side has not answered; for TCP, or
    /// whose opener has not confirmed that.
    pub(super) const fn is_unanswered(self) -> bool {
        let is_tcp = self.protocol() == crate::wire::ipv4::protocol::TCP;
        self.is_own() && !self.state().is_answered(is_tcp)
    }

    pub(super) const fn opener(self) -> Direction {
        if self.0 >> 16 & 1 == 0 {
            Direction::Outbound
        } else {
            Direction::Inbound
        }
    }

    pub(super) const fn policy(self) -> u32 {
        (self.0 >> 32) as u32
    }

    const fn version(self) -> u64 {
        self.0 >> 17 & 0x7fff
    }

    pub(super) const fn with(self, state: State) -> Self {
        Self(self.0 & !0xff | state.0 as u64)
    }

    pub(super) const fn under(self, policy: u32) -> Self {
        Self(self.0 & 0xffff_ffff | (policy as u64) << 32)
    }

    pub(super) const fn ended(self) -> Self {
        self.with(State::FREE)
    }

    const fn claimed(self) -> Self {
        self.with(State::WRITTEN)
    }

    /// The control word of the next flow in this place.
    pub(super) const fn next(
        self,
        state: State,
        protocol: u8,
        opener: Direction,
        policy: u32,
    ) -> Self {
        let version = (self.version() + 1) & 0x7fff;
        let opener = matches!(opener, Direction::Inbound) as u64;
        Self(
            (policy as u64) << 32
                | version << 17
                | opener << 16
                | (protocol as u64) << 8
                | state.0 as u64,
        )
    }
}
