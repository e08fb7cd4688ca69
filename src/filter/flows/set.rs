//! Eight places for flows whose keys share a hash.
//!
//! A place is read as if under a sequence lock: control word, key, control word again. The word
//! contains a version, so it changes with every new flow in the place.

use super::Key;
use super::state::{Kind, State};
use crate::direction::Direction;
use crate::filter::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub(super) const PLACES: usize = 8;

/// 256 bytes. It is not aligned to cache lines: Rust's allocator gets zeroed memory from calloc,
/// which leaves it untouched, only for alignments up to 16 bytes, and otherwise writes to all of it
/// (std, sys/alloc/unix.rs).
#[derive(Debug)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
#[repr(C)]
pub(super) struct Set([Place; PLACES]);

/// All of a flow in 32 bytes, so that a look-up touches one cache line, or two.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
#[repr(C)]
struct Place {
    /// The peer's address and port, and the VM's port.
    key: AtomicU64,
    control: AtomicU64,
    /// When the last packet came, outbound and inbound. Each is written by its own thread.
    seen: [AtomicU32; 2],
    lease: AtomicU32,
    opened: AtomicU32,
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
    let place = |_| Place {
        key: AtomicU64::new(0),
        control: AtomicU64::new(0),
        seen: from_fn(|_| AtomicU32::new(0)),
        lease: AtomicU32::new(0),
        opened: AtomicU32::new(0),
    };
    (0..sets).map(|_| Set(from_fn(place))).collect()
}

impl Set {
    /// The place and the control word of a flow.
    #[inline]
    pub(super) fn find(&self, key: Key, lease: u32) -> Option<(usize, Control)> {
        for place in 0..PLACES {
            if self.0[place].key.load(Ordering::Relaxed) == key.word
                && let Some((found, under, control)) = self.read(place)
                && (found, under) == (key, lease)
            {
                return Some((place, control));
            }
        }
        None
    }

    /// A place that probably is this flow's.
    #[inline(always)]
    pub(super) fn place(&self, key: Key) -> Option<usize> {
        (0..PLACES).find(|place| self.0[*place].key.load(Ordering::Relaxed) == key.word)
    }

    /// If this place is the flow's and in the expected state: whether a packet in this direction has
    /// come at this time, so that nothing is left to do for another one.
    #[inline(always)]
    pub(super) fn goes_on(
        &self,
        place: usize,
        key: Key,
        lease: u32,
        expected: Control,
        from: Direction,
        now: u32,
    ) -> Option<bool> {
        let place = &self.0[place];
        let control = place.control.load(Ordering::Acquire);
        let is_same = place.key.load(Ordering::Relaxed) == key.word
            && place.lease.load(Ordering::Relaxed) == lease
            && (control ^ expected.0) & Control::GOING_ON == 0;
        let is_seen = place.seen[from as usize].load(Ordering::Relaxed) == now;
        fence(Ordering::Acquire);
        let is_same = is_same && place.control.load(Ordering::Relaxed) == control;
        is_same.then_some(is_seen)
    }

    /// The flow in a place, and the lease under which it was opened, unless the place is empty or
    /// being written.
    #[inline]
    pub(super) fn read(&self, place: usize) -> Option<(Key, u32, Control)> {
        let control = self.control(place);
        if !control.is_live() {
            return None;
        }
        let place = &self.0[place];
        let word = place.key.load(Ordering::Relaxed);
        let lease = place.lease.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let again = Control(place.control.load(Ordering::Relaxed));
        let protocol = control.protocol();
        let is_same = again.version() == control.version() && again.is_live();
        is_same.then_some((Key { word, protocol }, lease, control))
    }

    #[inline]
    pub(super) fn control(&self, place: usize) -> Control {
        Control(self.0[place].control.load(Ordering::Acquire))
    }

    /// When the last packet of either direction came.
    #[inline]
    pub(super) fn seen(&self, place: usize) -> u32 {
        let [out, back] = &self.0[place].seen;
        let (out, back) = (out.load(Ordering::Relaxed), back.load(Ordering::Relaxed));
        if out.wrapping_sub(back) < u32::MAX / 2 {
            out
        } else {
            back
        }
    }

    /// When the flow was opened.
    pub(super) fn opened(&self, place: usize) -> u32 {
        self.0[place].opened.load(Ordering::Relaxed)
    }

    /// Records a packet in this direction. The place may contain another flow by now, which then
    /// lives a little longer.
    #[inline]
    pub(super) fn touch(&self, place: usize, from: Direction, now: u32) {
        let seen = &self.0[place].seen[from as usize];
        // Written once every sixteenth of a second, so that the cache line stays shared.
        if seen.load(Ordering::Relaxed) != now {
            seen.store(now, Ordering::Relaxed);
        }
    }

    pub(super) fn exchange(&self, place: usize, before: Control, after: Control) -> bool {
        let word = &self.0[place].control;
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
        Key {
            word: self.0[place].key.load(Ordering::Relaxed),
            protocol: before.protocol(),
        }
    }

    pub(super) fn fill(&self, place: usize, key: Key, lease: u32, now: u32) {
        let place = &self.0[place];
        place.key.store(key.word, Ordering::Relaxed);
        place.lease.store(lease, Ordering::Relaxed);
        place.opened.store(now, Ordering::Relaxed);
        for seen in &place.seen {
            seen.store(now, Ordering::Relaxed);
        }
    }

    pub(super) fn publish(&self, place: usize, control: Control) {
        self.0[place].control.store(control.0, Ordering::Release);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
impl Key {
    /// Without ports both are 0; an ICMP echo has its identifier for the VM's.
    #[inline(always)]
    pub(in super::super) const fn new(
        protocol: u8,
        vm_port: u16,
        peer: u32,
        peer_port: u16,
    ) -> Self {
        let word = (peer as u64) << 32 | (vm_port as u64) << 16 | peer_port as u64;
        Self { word, protocol }
    }

    /// The VM's port.
    pub(super) const fn vm_port(self) -> u16 {
        (self.word >> 16) as u16
    }

    /// The protocol, and the peer's address and port.
    pub(super) const fn server(self) -> (u8, u32, u16) {
        (self.protocol, (self.word >> 32) as u32, self.word as u16)
    }
}

/// State (bits 0 to 7), protocol (8 to 15), opener (16), version (17 to 31), policy (32 to 63).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Control(u64);

#[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
impl Control {
    /// What must be the same for [`going_on`](Self::going_on): all but opener and version.
    const GOING_ON: u64 = !0 << 32 | 0xffff;

    /// The control word of a flow in which a packet of this kind changes nothing.
    #[inline(always)]
    pub(super) const fn going_on(protocol: u8, kind: Kind, policy: u32) -> Option<Self> {
        match State::going_on(kind) {
            Some(state) => Some(Self(
                (policy as u64) << 32 | (protocol as u64) << 8 | state.0 as u64,
            )),
            None => None,
        }
    }

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
