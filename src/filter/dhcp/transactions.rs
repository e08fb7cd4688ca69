//! What the VM has asked the DHCP server and waits for, so that nothing else is taken for an
//! answer.
//!
//! The outbound side opens a transaction with each question, before the question leaves; the
//! inbound side looks for it with each answer, and closes it with the last. Neither waits for
//! the other:
//!
//! ```text
//!   outbound:  open()  -> slot: transaction, identifier, under a sequence lock
//!   inbound:   find()  <- slot;   close() -> slot: the count of what is answered
//!   outbound:  give_back() -> generation, which voids all that was asked before
//! ```
//!
//! Each question has a new count, so that a late close() cannot close the next one.

use arrayvec::ArrayVec;

use crate::clock::Tick;
use crate::filter::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The last questions of one VM.
#[derive(Debug)]
pub(in crate::filter) struct Transactions {
    slots: [Slot; SLOTS],
    /// How often the VM gave an address back.
    generation: AtomicU32,
}

/// Which questions are void: those before the last time that the VM gave an address back. An
/// answer that the server sent before it knew would bind an address that is free again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u32);

/// What a message asks for, and so what may answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// DISCOVER: an offer.
    Offer,
    /// DISCOVER with rapid commit (RFC 4039): an offer, or a lease at once.
    OfferOrLease,
    /// REQUEST: a lease, or a refusal.
    Lease,
    /// INFORM: what goes with an address that the VM has already.
    Information,
}

/// A question that waits for its answer, as it was found.
#[derive(Debug)]
pub(super) struct Open<'a> {
    pub(super) asked: Asked,
    /// The client identifier that the VM sent; none if it sent none.
    pub(super) identifier: ArrayVec<u8, IDENTIFIER_MAX>,
    pub(super) generation: Generation,
    slot: &'a Slot,
    count: u32,
}

impl Transactions {
    pub(in crate::filter) fn new() -> Self {
        Self {
            slots: std::array::from_fn(|_| Slot::new()),
            generation: AtomicU32::new(0),
        }
    }

    /// Remembers a question, in the place of an earlier one of the same transaction, or of
    /// the oldest. For the outbound side only: one writer at a time.
    pub(super) fn open(&self, xid: u32, asked: Asked, identifier: &[u8], now: Tick) {
        let head = |slot: &Slot| Head(slot.words[0].load(Ordering::Relaxed));
        let same = self.slots.iter().find(|slot| head(slot).xid() == xid);
        let oldest = || self.slots.iter().min_by_key(|slot| head(slot).deadline());
        if let Some(slot) = same.or_else(oldest) {
            let generation = self.generation.load(Ordering::Relaxed);
            let kind = Kind::new(asked, identifier, Generation(generation));
            slot.write(Head::new(xid, now), kind, identifier);
        }
    }

    /// Voids all that was asked. For the outbound side, before it forgets the lease.
    pub(super) fn give_back(&self) {
        let generation = self.generation.load(Ordering::Relaxed);
        self.generation
            .store(generation.wrapping_add(1), Ordering::Relaxed);
        // With the fence of `is_void`: one of the two sides sees the other.
        fence(Ordering::SeqCst);
    }

    /// Whether what was asked in this generation is void by now. For the inbound side, after
    /// it bound the lease.
    pub(super) fn is_void(&self, generation: Generation) -> bool {
        fence(Ordering::SeqCst);
        generation.0 != self.generation.load(Ordering::Relaxed)
    }

    /// Looks for an open question. A slot that is being written this moment is passed over:
    /// its question has not left yet, so that nobody can have answered it.
    pub(super) fn find(&self, xid: u32, now: Tick) -> Option<Open<'_>> {
        self.slots.iter().find_map(|slot| {
            let (count, words) = slot.read()?;
            let (head, kind) = (Head(words[0]), Kind(words[1]));
            let is_open = head.xid() == xid
                && now.as_secs() < u64::from(head.deadline())
                && count != slot.answered.load(Ordering::Relaxed)
                && kind.generation().0 == self.generation.load(Ordering::Relaxed);
            is_open.then(|| {
                let bytes = words[2..].iter().flat_map(|word| word.to_ne_bytes());
                Open {
                    asked: kind.asked(),
                    identifier: bytes.take(kind.identifier_len()).collect(),
                    generation: kind.generation(),
                    slot,
                    count,
                }
            })
        })
    }
}

impl Open<'_> {
    /// It is answered for good. For the inbound side only: one closes at a time.
    pub(super) fn close(&self) {
        self.slot.answered.store(self.count, Ordering::Relaxed);
    }
}

/// One question: [`Head`], [`Kind`], and the words of the identifier.
#[derive(Debug)]
struct Slot {
    /// Odd while the outbound side writes.
    count: AtomicU32,
    words: [AtomicU64; WORDS],
    /// The count of the last question that is answered; the inbound side's own.
    answered: AtomicU32,
}

impl Slot {
    fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            answered: AtomicU32::new(0),
        }
    }

    /// As in [`LeaseCell`](crate::filter::LeaseCell): the odd count must be seen before
    /// anything that follows it.
    fn write(&self, head: Head, kind: Kind, identifier: &[u8]) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.words[0].store(head.0, Ordering::Relaxed);
        self.words[1].store(kind.0, Ordering::Relaxed);
        for (word, bytes) in self.words[2..].iter().zip(identifier.chunks(WORD)) {
            let mut padded = [0; WORD];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
        }
        self.count.store(count.wrapping_add(2), Ordering::Release);
    }

    /// All words of one question, and its count.
    fn read(&self) -> Option<(u32, [u64; WORDS])> {
        (0..ATTEMPTS_MAX).find_map(|_| {
            let before = self.count.load(Ordering::Acquire);
            let words = self
                .words
                .each_ref()
                .map(|word| word.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            let after = self.count.load(Ordering::Relaxed);
            (before == after && before.is_multiple_of(2)).then_some((before, words))
        })
    }
}

/// Transaction and deadline in one word.
#[derive(Clone, Copy)]
struct Head(u64);

impl Head {
    /// A question that is asked now.
    fn new(xid: u32, now: Tick) -> Self {
        let deadline = now
            .as_secs()
            .saturating_add(PATIENCE)
            .min(u64::from(u32::MAX));
        Self(u64::from(xid) << 32 | deadline)
    }

    fn xid(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half of the word is meant"
    )]
    fn deadline(self) -> u32 {
        self.0 as u32
    }
}

/// What was asked, by whom, and when, in one word: generation, [`Asked`], and the length of
/// the identifier.
#[derive(Clone, Copy)]
struct Kind(u64);

impl Kind {
    fn new(asked: Asked, identifier: &[u8], generation: Generation) -> Self {
        let len = identifier.len().min(IDENTIFIER_MAX);
        Self(u64::from(generation.0) << 32 | (asked as u64) << 8 | len as u64)
    }

    fn generation(self) -> Generation {
        Generation((self.0 >> 32) as u32)
    }

    fn asked(self) -> Asked {
        match self.0 >> 8 & 0xff {
            0 => Asked::Offer,
            1 => Asked::OfferOrLease,
            2 => Asked::Lease,
            _ => Asked::Information,
        }
    }

    fn identifier_len(self) -> usize {
        usize::from(self.0.to_le_bytes()[0])
    }
}

/// A client has one transaction at a time; after a reboot or with an INFORM between, two or
/// three may be waiting.
const SLOTS: usize = if cfg!(loom) { 1 } else { 8 };

/// How long a question waits, in seconds. A client asks again after 64 at most, and opens it
/// anew (RFC 2131, 4.1).
const PATIENCE: u64 = 64;

/// The greatest length of an option.
pub(super) const IDENTIFIER_MAX: usize = u8::MAX as usize;

const WORD: usize = size_of::<u64>();
/// Loom follows every word through every order, so that it gets few.
const WORDS: usize = 2 + if cfg!(loom) {
    1
} else {
    IDENTIFIER_MAX.div_ceil(WORD)
};

/// Writing takes some nanoseconds.
const ATTEMPTS_MAX: usize = if cfg!(loom) { 1 } else { 16 };

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NOW: Tick = Tick::from_secs(1000);

    fn is_open(table: &Transactions, xid: u32, second: u32) -> bool {
        table.find(xid, Tick::from_secs(second)).is_some()
    }

    #[test]
    fn a_question_is_found_as_it_was_asked_until_it_is_answered() {
        let table = Transactions::new();
        assert!(!is_open(&table, 7, 0));
        assert!(!is_open(&table, 0, 0));
        let identifiers = [vec![], vec![0, 1], vec![9; 8], (0..255).collect()];
        let questions = [
            Asked::Offer,
            Asked::OfferOrLease,
            Asked::Lease,
            Asked::Information,
        ];
        for (asked, identifier) in questions.into_iter().zip(identifiers) {
            table.open(7, asked, &identifier, NOW);
            let open = table.find(7, NOW).unwrap();
            assert_eq!(open.asked, asked);
            assert_eq!(open.identifier[..], identifier);
            assert!(!is_open(&table, 8, 1000));
            open.close();
            assert!(!is_open(&table, 7, 1000));
        }
    }

    #[test]
    fn a_question_waits_for_64_seconds() {
        let table = Transactions::new();
        table.open(7, Asked::Offer, &[], NOW);
        assert!(is_open(&table, 7, 1063));
        assert!(!is_open(&table, 7, 1064));
        table.open(7, Asked::Offer, &[], Tick::from_secs(1064));
        assert!(is_open(&table, 7, 1127));
    }

    #[test]
    fn a_late_answer_to_one_question_leaves_the_next_open() {
        let table = Transactions::new();
        table.open(7, Asked::Offer, &[], NOW);
        let first = table.find(7, NOW).unwrap();
        table.open(7, Asked::Lease, &[], NOW);
        first.close();
        assert_eq!(table.find(7, NOW).unwrap().asked, Asked::Lease);
    }

    #[test]
    fn giving_back_voids_what_was_asked_before() {
        let table = Transactions::new();
        table.open(7, Asked::Lease, &[], NOW);
        let before = table.find(7, NOW).unwrap().generation;
        assert!(!table.is_void(before));
        table.give_back();
        assert!(table.is_void(before));
        assert!(!is_open(&table, 7, 1000));
        table.open(7, Asked::Lease, &[], NOW);
        assert!(is_open(&table, 7, 1000));
    }

    #[test]
    fn the_oldest_of_too_many_is_forgotten() {
        let table = Transactions::new();
        for xid in 1..=8 {
            table.open(xid, Asked::Offer, &[], Tick::from_secs(1000 + xid));
        }
        // Asked again, the first is the youngest.
        table.open(1, Asked::Lease, &[], Tick::from_secs(1009));
        table.open(9, Asked::Offer, &[], Tick::from_secs(1010));
        let open: Vec<u32> = (0..20).filter(|xid| is_open(&table, *xid, 1010)).collect();
        assert_eq!(open, [1, 3, 4, 5, 6, 7, 8, 9]);
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test --release --lib loom`.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::filter::lease::{Lease, LeaseCell};

    const NOW: Tick = Tick::from_secs(0);

    #[test]
    fn loom_an_answer_never_finds_halves_of_two_questions() {
        loom::model(|| {
            let table = Arc::new(Transactions::new());
            table.open(1, Asked::Offer, &[1; 2], NOW);
            let writer = thread::spawn({
                let table = Arc::clone(&table);
                move || table.open(2, Asked::Lease, &[2; 4], NOW)
            });
            if let Some(open) = table.find(1, NOW) {
                assert_eq!(
                    (open.asked, &open.identifier[..]),
                    (Asked::Offer, &[1; 2][..])
                );
            }
            if let Some(open) = table.find(2, NOW) {
                assert_eq!(
                    (open.asked, &open.identifier[..]),
                    (Asked::Lease, &[2; 4][..])
                );
            }
            writer.join().unwrap();
            assert!(table.find(1, NOW).is_none());
            assert!(table.find(2, NOW).is_some());
        });
    }

    #[test]
    fn loom_closing_one_question_never_closes_the_next() {
        loom::model(|| {
            let table = Arc::new(Transactions::new());
            table.open(1, Asked::Offer, &[], NOW);
            let writer = thread::spawn({
                let table = Arc::clone(&table);
                move || table.open(1, Asked::Lease, &[], NOW)
            });
            let closed = table
                .find(1, NOW)
                .inspect(Open::close)
                .map(|open| open.asked);
            writer.join().unwrap();
            let left = table.find(1, NOW).map(|open| open.asked);
            let expected = (closed != Some(Asked::Lease)).then_some(Asked::Lease);
            assert_eq!(left, expected);
        });
    }

    #[test]
    fn loom_what_the_vm_gave_back_is_never_bound_by_an_answer_on_its_way() {
        give_back_while_answered(true);
    }

    #[test]
    fn loom_what_the_vm_declines_is_never_bound_by_an_answer_on_its_way() {
        // Without a lease the outbound side writes nothing, and the fences alone decide.
        give_back_while_answered(false);
    }

    fn give_back_while_answered(has_lease: bool) {
        loom::model(move || {
            let table = Arc::new(Transactions::new());
            let cell = Arc::new(LeaseCell::new(None));
            let lease = |expires| Lease {
                address: [10, 0, 0, 2].into(),
                expires: Tick::from_secs(expires),
                name_servers: Default::default(),
            };
            if has_lease {
                cell.bind(&lease(1));
            }
            table.open(1, Asked::Lease, &[], NOW);
            let outbound = thread::spawn({
                let (table, cell) = (Arc::clone(&table), Arc::clone(&cell));
                move || {
                    table.give_back();
                    cell.give_up(0x0a00_0002);
                }
            });
            if let Some(open) = table.find(1, NOW) {
                cell.bind(&lease(2));
                if table.is_void(open.generation) {
                    cell.clear();
                }
            }
            outbound.join().unwrap();
            assert_eq!(cell.lease(), None);
        });
    }
}
