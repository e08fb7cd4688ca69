//! Tests the ring against a simple model: in one thread with operations in any order, and under
//! loom (`make loom`) with the steps of two threads in every order.

use super::*;

/// The operations of the two sides. Under loom the writer has a thread of its own, which does its
/// two operations as long as there are jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// The reader checks whether the writer is idle.
    Look,
    /// The reader fills its batch and hands it over, unless it would have to wait.
    HandOver,
    /// The reader takes a spare and keeps it, if there is one.
    TakeAndKeep,
    /// The writer takes the next job, if it has none and there is one.
    #[cfg(not(loom))]
    Take,
    /// The writer gives back the batch that it has.
    #[cfg(not(loom))]
    GiveBack,
}

/// A batch with `number` frames, which distinguishes it from others.
fn numbered(mut batch: Box<Batch>, number: usize) -> Box<Batch> {
    let _ = batch.fill(number);
    batch.set_received(number);
    batch
}

#[cfg(not(loom))]
mod model {
    use std::collections::VecDeque;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// Both sides, and where each batch should be.
    struct Model {
        reader: ReaderSide<Box<Batch>>,
        writer: WriterSide<Box<Batch>>,
        reader_hand: Box<Batch>,
        writer_hand: Option<Box<Batch>>,
        /// The numbers of the batches that were handed over and not yet taken.
        jobs: VecDeque<usize>,
        given_back: usize,
        spares: usize,
        handed_over: usize,
    }

    impl Model {
        fn new() -> Self {
            let (reader, writer) = new(MAX_FRAME);
            Self {
                reader,
                writer,
                reader_hand: Box::new(Batch::new(MAX_FRAME)),
                writer_hand: None,
                jobs: VecDeque::new(),
                given_back: 0,
                spares: SPARES,
                handed_over: 0,
            }
        }

        fn apply(&mut self, operation: Operation) {
            match operation {
                Operation::Look => self.look(),
                Operation::HandOver => {
                    self.look();
                    if self.spares > 0 {
                        self.handed_over += 1;
                        // As many as a batch can hold, repeating.
                        let number = self.handed_over % 64;
                        let hand = mem::replace(&mut self.reader_hand, empty());
                        self.reader_hand = numbered(hand, number);
                        assert!(self.reader.hand_over(&mut self.reader_hand));
                        self.jobs.push_back(number);
                        self.spares -= 1;
                    }
                }
                Operation::TakeAndKeep => {
                    self.look();
                    if self.spares > 0 {
                        let spare = self.reader.take_spare().unwrap();
                        self.reader.keep(spare);
                    }
                }
                Operation::Take => {
                    if self.writer_hand.is_none() {
                        self.writer_hand = self.writer.next_now();
                        let number = self.writer_hand.as_ref().map(|batch| batch.received());
                        assert_eq!(number, self.jobs.pop_front(), "out of order, or lost");
                    }
                }
                Operation::GiveBack => {
                    if let Some(batch) = self.writer_hand.take() {
                        self.writer.give_back(batch);
                        self.given_back += 1;
                    }
                }
            }
            let away = self.jobs.len() + usize::from(self.writer_hand.is_some());
            assert_eq!(self.spares + self.given_back + away, SPARES);
        }

        fn look(&mut self) {
            self.spares += mem::take(&mut self.given_back);
            let is_idle = self.jobs.is_empty() && self.writer_hand.is_none();
            assert_eq!(self.reader.writer_is_idle(), is_idle);
        }
    }

    fn empty() -> Box<Batch> {
        Box::new(Batch::new(MAX_FRAME))
    }

    fn operation() -> impl Strategy<Value = Operation> {
        use Operation::{GiveBack, HandOver, Look, Take, TakeAndKeep};
        prop::sample::select(vec![Look, HandOver, TakeAndKeep, Take, GiveBack])
    }

    proptest! {
        #[test]
        fn batches_go_round_in_order_and_none_is_lost(
            operations in prop::collection::vec(operation(), 1..200),
        ) {
            let mut model = Model::new();
            for operation in operations {
                model.apply(operation);
            }
        }
    }

    #[test]
    fn the_reader_waits_for_a_spare_and_gives_up_only_with_the_writer() {
        let (mut reader, writer) = new::<Box<Batch>>(MAX_FRAME);
        let mut hand = empty();
        for _ in 0..SPARES {
            assert!(reader.hand_over(&mut hand));
        }
        let waiting = thread::spawn(move || {
            let handed_over = reader.hand_over(&mut hand);
            let spare = reader.take_spare();
            (handed_over, spare.is_some(), reader.take_spare().is_none())
        });
        for _ in 0..2 {
            writer.give_back(writer.next().unwrap());
        }
        drop(writer);
        assert_eq!(waiting.join().unwrap(), (true, true, true));
    }

    const MAX_FRAME: usize = 100;
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test --release --lib loom`.
#[cfg(loom)]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    use super::*;

    /// The reader does the operations in this thread. The writer sends in another thread until the
    /// reader has ended.
    fn run(operations: &'static [Operation]) {
        let mut model = loom::model::Builder::new();
        // All orders with this many preemptions. Without a limit a test takes over a minute.
        model.preemption_bound = Some(3);
        model.check(move || {
            let (mut reader, writer) = new::<Box<Batch>>(0);
            // The sink: how many batches have been sent. Relaxed, so that only the ring makes one
            // thread see what the other has sent.
            let sent = Arc::new(AtomicUsize::new(0));
            let writing = thread::spawn({
                let sent = Arc::clone(&sent);
                move || {
                    while let Some(batch) = writer.next() {
                        let before = sent.load(Ordering::Relaxed);
                        assert_eq!(batch.received(), before + 1, "out of order, or lost");
                        sent.store(before + 1, Ordering::Relaxed);
                        writer.give_back(batch);
                    }
                }
            });
            let mut handed_over = 0;
            let mut hand = Box::new(Batch::new(0));
            for operation in operations {
                match operation {
                    Operation::Look => {
                        if reader.writer_is_idle() {
                            // So the reader may send the next batch itself, and does.
                            assert_eq!(sent.load(Ordering::Relaxed), handed_over);
                            handed_over += 1;
                            sent.store(handed_over, Ordering::Relaxed);
                        }
                    }
                    Operation::HandOver => {
                        handed_over += 1;
                        hand = numbered(hand, handed_over);
                        assert!(reader.hand_over(&mut hand), "the writer is there");
                    }
                    Operation::TakeAndKeep => {
                        let spare = reader.take_spare().unwrap();
                        reader.keep(spare);
                    }
                }
            }
            drop(reader);
            writing.join().unwrap();
            assert_eq!(sent.load(Ordering::Relaxed), handed_over, "all were sent");
        });
    }

    #[test]
    fn loom_the_writer_sends_all_in_order_even_those_that_are_left() {
        use Operation::HandOver;
        run(&[HandOver, HandOver, HandOver]);
    }

    #[test]
    fn loom_the_reader_sends_by_itself_only_after_the_writer() {
        use Operation::{HandOver, Look};
        run(&[HandOver, Look, HandOver, Look]);
    }

    #[test]
    fn loom_a_spare_that_the_reader_keeps_changes_nothing() {
        use Operation::{HandOver, Look, TakeAndKeep};
        run(&[HandOver, TakeAndKeep, Look, HandOver]);
    }
}
