//! Implements `--hand-over load` ([`HandOver::Load`](super::HandOver::Load)): the two threads of a
//! direction alternate. The writer handles every other batch itself, from the source to the sink,
//! while frames are small, arrive faster than one thread can handle, and a core is free.
//!
//! ```text
//!   reader   | receive 1 | send 1    | receive 3 | send 3    |
//!   writer               | receive 2 | send 2    | receive 4 | send 4
//! ```
//!
//! One *round* consists of two batches: the reader lends its receive stage to the writer and sends
//! its own batch meanwhile. The writer gives the stage back as soon as it has received, and sends
//! its batch once the reader's has been sent. So only one thread receives at a time and only one
//! sends, and frames keep their order. A frame stays on the core that received it. In a pipeline it
//! moves to the other core, which costs half of what the second core gains (docs/performance.md).
//!
//! The threads wait for each other in a busy loop, but not for long. If one is late, the other
//! probably has no core of its own, and the reader goes on alone: for a number of batches that
//! grows with each failure, because a single failure may be chance.
//!
//! Without load the threads work as in `reader.rs` and `writer.rs`.

use std::hint;
use std::mem;
use std::time::{Duration, Instant};

use super::channel::{Receiver, Sender, bounded};
use super::receive::ReceiveStage;
use super::ring;
use super::send::SendStage;
use crate::batch::Batch;
use crate::endpoint::{Sink, Source};
use crate::filter::Filter;
use crate::sys::affinity::ThreadAffinity;

/// The reader's side of the ring, with everything else that a round needs. `R` is the direction's
/// receive stage.
#[derive(Debug)]
pub(super) struct ReaderSide<R> {
    ring: ring::ReaderSide<Job<R>>,
    /// On which the stage comes back.
    stages: Receiver<Box<R>>,
    /// Signals that the reader's batch has been sent.
    sent: Sender<()>,
    started: Receiver<ThreadAffinity>,
    /// The writer's thread, once it has started.
    writer: Option<ThreadAffinity>,
    /// Whether the last round succeeded: then the writer is awake, and may still be sending.
    is_on: bool,
    /// For how many more batches under load the reader goes on alone.
    alone: u32,
    backoff: Backoff,
}

/// The writer's side.
#[derive(Debug)]
pub(super) struct WriterSide<R> {
    ring: ring::WriterSide<Job<R>>,
    stages: Sender<Box<R>>,
    sent: Receiver<()>,
    started: Sender<ThreadAffinity>,
}

/// A job for the writer.
#[derive(Debug)]
enum Job<R> {
    /// Send this batch.
    Send(Box<Batch>),
    /// Receive a batch, leave the spare in its place, give the stage back, and send the batch.
    ReceiveAndSend(Box<R>, Box<Batch>),
}

impl<R> From<Box<Batch>> for Job<R> {
    fn from(batch: Box<Batch>) -> Self {
        Self::Send(batch)
    }
}

/// Creates the ring and the channels.
pub(super) fn new<R>(max_frame: usize) -> (ReaderSide<R>, WriterSide<R>) {
    let (reader_ring, writer_ring) = ring::new(max_frame);
    let (give_back, stages) = bounded(1);
    let (say_sent, sent) = bounded(1);
    let (say_started, started) = bounded(1);
    let reader_side = ReaderSide {
        ring: reader_ring,
        stages,
        sent: say_sent,
        started,
        writer: None,
        is_on: false,
        alone: 0,
        backoff: Backoff(0),
    };
    let writer_side = WriterSide {
        ring: writer_ring,
        stages: give_back,
        sent,
        started: say_started,
    };
    (reader_side, writer_side)
}

/// The reader's thread: forwards until it must stop.
pub(super) fn run_reader<Src: Source, F: Filter>(
    receive: ReceiveStage<Src, F>,
    mut send: SendStage<impl Sink>,
    mut side: ReaderSide<ReceiveStage<Src, F>>,
) {
    let mut receive = Box::new(receive);
    side.warm_up();
    while receive.fill() {
        if receive.batch.pending().len() == 0 {
            continue;
        }
        if side.may_send() {
            if side.is_worthwhile(&receive) {
                match side.round(receive, &mut send) {
                    Some(back) => receive = back,
                    None => return,
                }
                continue;
            }
            if send.send_now(&mut receive.batch) {
                continue;
            }
        }
        send.lane.stats.add_handed_over();
        if !side.ring.hand_over(&mut receive.batch) {
            return;
        }
        receive.forget_pace();
    }
}

impl<Src: Source, F: Filter> ReaderSide<ReceiveStage<Src, F>> {
    /// Waits for the writer to start; see also [`ring::ReaderSide::warm_up`].
    fn warm_up(&mut self) {
        self.writer = self.started.recv().ok();
        self.ring.warm_up();
        let _ = self.stages.recv_timeout(WARM_UP);
    }

    /// Whether the writer has nothing left to send. If it is sending its batch of a round, waits
    /// for that.
    fn may_send(&mut self) -> bool {
        if self.ring.writer_is_idle() {
            return true;
        }
        if !self.is_on {
            return false;
        }
        let in_time = soon(MOMENT, || self.ring.writer_is_idle().then_some(())).is_some();
        if !in_time {
            self.fail();
        }
        in_time
    }

    /// Whether to begin a round with the batch that was just received.
    fn is_worthwhile(&mut self, receive: &ReceiveStage<Src, F>) -> bool {
        if !receive.is_loaded() {
            self.is_on = false;
            return false;
        }
        let alone = self.alone;
        self.alone = alone.saturating_sub(1);
        alone == 0
    }

    /// The reader's part of a round: lends the stage to the writer, which is idle, sends the batch
    /// that was in it, and takes the stage back. `None` means that the writer has ended, which only
    /// a panic can cause.
    fn round(
        &mut self,
        mut receive: Box<ReceiveStage<Src, F>>,
        send: &mut SendStage<impl Sink>,
    ) -> Option<Box<ReceiveStage<Src, F>>> {
        let (next, spare) = (self.ring.take_spare()?, self.ring.take_spare()?);
        let mut batch = mem::replace(&mut receive.batch, next);
        let moment = if self.is_on { MOMENT } else { WAKING };
        if let Some(writer) = &mut self.writer {
            writer.keep_off_this_core();
        }
        self.ring.give(Job::ReceiveAndSend(receive, spare));
        let waited = send.send_patiently(&mut batch);
        self.ring.keep(batch);
        let _ = self.sent.send(());
        let back = soon(moment, || self.stages.try_recv().ok());
        // If the sink is full, a second thread does not help either.
        if back.is_some() && !waited {
            self.is_on = true;
            self.backoff.ease();
        } else {
            self.fail();
        }
        let mut receive = back.or_else(|| self.stages.recv().ok())?;
        if waited {
            receive.forget_pace();
        }
        Some(receive)
    }

    fn fail(&mut self) {
        self.is_on = false;
        self.alone = self.backoff.grow();
    }
}

/// The writer's thread: does the reader's jobs, in order, until the reader ends.
pub(super) fn run_writer<Src: Source, F: Filter>(
    mut send: SendStage<impl Sink>,
    side: &WriterSide<ReceiveStage<Src, F>>,
) {
    side.warm_up();
    let mut job = side.ring.next();
    while let Some(next) = job {
        job = match next {
            Job::Send(mut batch) => {
                send.send_patiently(&mut batch);
                side.ring.give_back(batch);
                None
            }
            Job::ReceiveAndSend(receive, spare) => {
                let Some(mut batch) = side.receive(receive, spare) else {
                    return;
                };
                if batch.received() > 0 {
                    send.lane.stats.add_handed_over();
                }
                send.send_patiently(&mut batch);
                side.ring.give_back(batch);
                // The next round probably begins at once.
                soon(MOMENT, || side.ring.next_now())
            }
        }
        .or_else(|| side.ring.next());
    }
}

impl<Src: Source, F: Filter> WriterSide<ReceiveStage<Src, F>> {
    /// See [`ReaderSide::warm_up`]. At the end it tells the reader which thread this is; from then
    /// on the reader may use `sent`.
    fn warm_up(&self) {
        let _ = self.sent.recv_timeout(WARM_UP);
        let _ = self.started.send(ThreadAffinity::of_this_thread());
    }

    /// Receives the writer's batch of a round, and waits until it may be sent. `None` means that
    /// the reader has ended, which only a panic can cause.
    fn receive(
        &self,
        mut receive: Box<ReceiveStage<Src, F>>,
        spare: Box<Batch>,
    ) -> Option<Box<Batch>> {
        receive.fill_now();
        let batch = mem::replace(&mut receive.batch, spare);
        self.stages.send(receive).ok()?;
        soon(MOMENT, || self.sent.try_recv().ok()).or_else(|| self.sent.recv().ok())?;
        Some(batch)
    }
}

/// For how many batches the reader goes on alone after a failed round.
///
/// A failure costs about as much as 16 rounds gain. So the number doubles with each failure and
/// shrinks by one with each round that succeeds. It grows if there are fewer than 16 rounds between
/// two failures, until attempts cost next to nothing.
#[derive(Debug)]
struct Backoff(u32);

impl Backoff {
    fn grow(&mut self) -> u32 {
        self.0 = (2 * self.0).clamp(ALONE_MIN, ALONE_MAX);
        self.0
    }

    fn ease(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }
}

/// Waits in a busy loop for something that another thread is about to give, for at most `moment`.
fn soon<T>(moment: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut start = None;
    loop {
        for _ in 0..LOOKS {
            if let Some(found) = look() {
                return Some(found);
            }
            hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > moment {
            return None;
        }
    }
}

/// Receiving or sending a batch takes 20 to 60 microseconds.
const MOMENT: Duration = Duration::from_micros(100);
/// Waking a thread on a sleeping core may take longer, especially in a virtual machine.
const WAKING: Duration = Duration::from_micros(500);
/// How often to look before reading the time again.
const LOOKS: u32 = 32;
/// About the number of batches in one or two milliseconds under load.
const ALONE_MIN: u32 = 32;
/// About the number of batches in 50 ms under load. A failed attempt costs [`MOMENT`] of that.
const ALONE_MAX: u32 = 1024;
/// How long a thread waits on each empty channel before frames flow.
const WARM_UP: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many batches the reader goes on alone after each of 100 failures, with this many
    /// successful rounds before each.
    fn alone(good_rounds: u32) -> [u32; 100] {
        let mut backoff = Backoff(0);
        [(); 100].map(|()| {
            for _ in 0..good_rounds {
                backoff.ease();
            }
            backoff.grow()
        })
    }

    #[test]
    fn attempts_in_vain_become_rare() {
        assert_eq!(alone(0)[..7], [32, 64, 128, 256, 512, 1024, 1024]);
        assert_eq!(
            alone(15)[99],
            ALONE_MAX,
            "a failure costs more than they gain"
        );
    }

    #[test]
    fn failures_by_chance_hardly_interrupt() {
        assert_eq!(alone(16), [ALONE_MIN; 100]);
        let mut backoff = Backoff(ALONE_MAX);
        for _ in 0..ALONE_MAX {
            backoff.ease();
        }
        assert_eq!(backoff.grow(), ALONE_MIN, "all is forgiven");
    }
}
