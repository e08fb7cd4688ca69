//! Moves frames between the VM and the host. Each direction has a reader thread, which does
//! everything while the other side keeps up, and a writer thread, which takes over the batches that
//! must wait for room.
//!
//! The files, in the order in which a frame meets them:
//!
//! | file | does |
//! |---|---|
//! | `reader.rs` | the loop of the reader's thread, over the next three |
//! | `receive.rs` | waits for frames and receives a batch |
//! | `judge.rs` | has the filter decide about each frame, and queues those that may pass |
//! | `send.rs` | sends the queue, after which nearly all frames are done |
//! | `ring.rs` | if there is no room: passes the batch to the writer, and back when it is empty |
//! | `writer.rs` | the loop of the writer's thread: waits for room, and sends |
//! | `alternate.rs` | only with `--hand-over load`: both threads receive and send, alternately |
//!
//! `lane.rs` has what the threads of a direction share, and `channel.rs` selects the channels. The
//! two directions share only the stop flag, the state inside the filters, and the counters.

mod alternate;
mod answers;
mod channel;
mod judge;
mod lane;
mod reader;
mod receive;
mod ring;
mod send;
mod writer;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

use crate::direction::Direction;
use crate::endpoint::{Endpoint, Sink, Source};
use crate::filter::Filter;
use crate::stats::{Counts, Stats};
use crate::stop::Stop;
use crate::sys::thread as waiting;

use self::answers::Answers;
use self::lane::Lane;
use self::receive::ReceiveStage;
use self::send::SendStage;

/// When a batch goes to the writer's thread instead of being sent by the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HandOver {
    /// When the other side has no room, until it has caught up.
    #[default]
    Auto,
    /// Always, as in a pipeline. At low load this costs twice the wake-ups and so twice the CPU
    /// time; it gains throughput if two cores are free.
    Always,
    /// As [`Auto`](Self::Auto), but under a load of small frames the two threads alternate: each
    /// handles every other batch, if it has a core of its own. This gains at least a third in
    /// throughput for half as much CPU time again per frame, and costs nothing without load.
    Load,
    /// Never: the reader itself waits for room.
    Never,
}

/// Options of the forwarder.
pub struct Options {
    /// When to use the writers' threads.
    pub hand_over: HandOver,
    /// Whether the VM is told about frames that its policy refuses ([`Filter::answer`]).
    pub answers: bool,
    /// Called by each thread with its direction before it does anything else, for example to choose
    /// the processor that it runs on.
    pub on_thread_start: Arc<dyn Fn(Direction) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hand_over: HandOver::default(),
            answers: false,
            on_thread_start: Arc::new(|_| ()),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("hand_over", &self.hand_over)
            .field("answers", &self.answers)
            .finish_non_exhaustive()
    }
}

/// A running forwarder.
#[derive(Debug)]
pub struct Forwarding {
    stop: Stop,
    gone: Arc<Gone>,
    stats: [Arc<Stats>; 2],
    threads: Vec<JoinHandle<()>>,
}

/// Which ends are gone for good. The stop flag is set after one of these.
#[derive(Debug, Default)]
struct Gone {
    vm: AtomicBool,
    host: AtomicBool,
}

/// Starts to forward the frames between `vm` and `host` that the two filters pass, until
/// [`Forwarding::finish`]. That sets `stop`; before that, the forwarder sets it itself if the VM's
/// end of its socket or the host's interface is gone. Anyone else who sets it must also call
/// `finish`, because a thread that sleeps in a system call may not see the flag.
///
/// Buffers are allocated here, for frames as long as the host's interface allows. No memory is
/// allocated once frames flow.
///
/// # Errors
/// If a thread cannot be started. Those that were started have ended by then.
pub fn start<V: Endpoint, H: Endpoint>(
    vm: V,
    host: H,
    outbound: impl Filter + 'static,
    inbound: impl Filter + 'static,
    options: &Options,
    stop: &Stop,
) -> io::Result<Forwarding> {
    waiting::prepare()?;
    let max_frame = host.max_frame().max(vm.max_frame());
    let (from_vm, to_vm) = vm.split();
    let (from_host, to_host) = host.split();
    let mut forwarding = Forwarding {
        stop: stop.clone(),
        gone: Arc::default(),
        stats: [Arc::new(Stats::new()), Arc::new(Stats::new())],
        threads: Vec::with_capacity(4),
    };
    let (give, take, inbound_stop) = if options.answers {
        answers::new(stop)?
    } else {
        (Answers::None, Answers::None, stop.clone())
    };
    let lane = forwarding.lane(Direction::Outbound, stop.clone());
    let receive = ReceiveStage::new(lane.clone(), from_vm, outbound, give, max_frame);
    forwarding.spawn_lane(lane, receive, to_host, max_frame, options)?;
    let lane = forwarding.lane(Direction::Inbound, inbound_stop);
    let receive = ReceiveStage::new(lane.clone(), from_host, inbound, take, max_frame);
    forwarding.spawn_lane(lane, receive, to_vm, max_frame, options)?;
    Ok(forwarding)
}

impl Forwarding {
    /// The counters of a direction.
    #[must_use]
    pub fn counts(&self, direction: Direction) -> Counts {
        self.stats[direction as usize].counts()
    }

    /// Whether the VM's end of its socket is gone. The stop flag is set in that case.
    #[must_use]
    pub fn vm_gone(&self) -> bool {
        self.gone.vm.load(Ordering::Acquire)
    }

    /// Whether the host's interface is gone. The stop flag is set in that case.
    #[must_use]
    pub fn host_gone(&self) -> bool {
        self.gone.host.load(Ordering::Acquire)
    }

    /// Stops, waits for the threads to end, and returns the final counts, outbound first. Frames in
    /// flight are sent if there is room, and otherwise counted as dropped.
    #[must_use]
    pub fn finish(mut self) -> [Counts; 2] {
        self.end();
        Direction::ALL.map(|direction| self.counts(direction))
    }

    fn lane(&self, direction: Direction, stop: Stop) -> Lane {
        Lane {
            stop,
            stats: Arc::clone(&self.stats[direction as usize]),
            gone: Arc::clone(&self.gone),
            direction,
        }
    }

    fn spawn_lane<Src, F, Snk>(
        &mut self,
        lane: Lane,
        receive: ReceiveStage<Src, F>,
        sink: Snk,
        max_frame: usize,
        options: &Options,
    ) -> io::Result<()>
    where
        Src: Source + 'static,
        F: Filter + 'static,
        Snk: Sink + Clone + 'static,
    {
        let direction = lane.direction;
        let writer_send = SendStage::new(lane.clone(), sink.clone());
        let send = SendStage::new(lane, sink);
        match options.hand_over {
            HandOver::Never => self.spawn(direction, "reader", options, move || {
                reader::run_alone(receive, send);
            }),
            hand_over @ (HandOver::Auto | HandOver::Always) => {
                let always = hand_over == HandOver::Always;
                let (reader_side, writer_side) = ring::new(max_frame);
                self.spawn(direction, "writer", options, move || {
                    writer::run(writer_send, &writer_side);
                })?;
                self.spawn(direction, "reader", options, move || {
                    reader::run(receive, send, reader_side, always);
                })
            }
            HandOver::Load => {
                let (reader_side, writer_side) = alternate::new(max_frame);
                self.spawn(direction, "writer", options, move || {
                    alternate::run_writer(writer_send, &writer_side);
                })?;
                self.spawn(direction, "reader", options, move || {
                    alternate::run_reader(receive, send, reader_side);
                })
            }
        }
    }

    fn spawn(
        &mut self,
        direction: Direction,
        role: &str,
        options: &Options,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let on_start = Arc::clone(&options.on_thread_start);
        let thread = Builder::new()
            .name(format!("{direction} {role}"))
            .stack_size(waiting::STACK_SIZE)
            .spawn(move || {
                waiting::allow();
                on_start(direction);
                work();
            })?;
        self.threads.push(thread);
        Ok(())
    }

    fn end(&mut self) {
        self.stop.set();
        while !self.threads.iter().all(JoinHandle::is_finished) {
            self.threads.iter().for_each(waiting::interrupt);
            thread::sleep(INTERRUPT_AGAIN);
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended the process, unless panics unwind, as in tests.
            let _ = thread.join();
        }
    }
}

impl Drop for Forwarding {
    /// Stops, so that no thread outlives the forwarder.
    fn drop(&mut self) {
        self.end();
    }
}

/// The time between two attempts to wake a thread that may have missed the first.
const INTERRUPT_AGAIN: Duration = Duration::from_micros(500);
