//! How full queues are measured: CPU time per frame and frames a second, where every batch is
//! full.
//!
//! CPU time is what a full queue takes more than a quarter of one. So neither being held and
//! released counts, which costs a process with more threads more, nor starting with cold caches.
//!
//! Frames a second come from the kernel's times of when frames came out. Where there
//! are none, they are the frames by the time until the subject is seen to have done all, which
//! includes waking it up.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::time::Duration;

use super::HostSide;
use super::figure::{Figure, Figures};
use super::measure::{Bench, USUAL_MAX_FRAME, nanoseconds, number, whole};
use super::statistics::median;
use super::subject::Subject;
use super::testbed::{self, Counted, Received, Testbed};
use super::traffic::{STREAM_HEADERS, Traffic};
use crate::batch::FRAMES_MAX;
use crate::direction::Direction;
use crate::sys::{timestamp, usage};

impl Bench<'_> {
    /// The subject is held, its queue filled, and the subject released, again and again: all
    /// batches are full, nobody else works meanwhile, and nothing depends on how fast the bench is.
    pub(super) fn drain(
        &self,
        subject: Subject,
        traffic: Traffic,
        directions: &[Direction],
        rules: usize,
    ) -> io::Result<Figures> {
        let mut testbed = self.testbed(subject, traffic.max_len(), rules)?;
        let capacity =
            testbed::capacity(traffic.max_len(), traffic.max_len().max(USUAL_MAX_FRAME))?;
        let at_interface = !matches!(self.host, HostSide::Socket);
        let most = if at_interface && directions.contains(&Direction::Inbound) {
            INTERFACE_PRELOAD_MAX
        } else {
            PRELOAD_MAX
        };
        let count = (capacity * 3 / 4).clamp(1, most);
        testbed.unwatch()?;
        // Under a load of small frames this one needs two cores, and finds them itself.
        let alternates = subject == Subject::Load
            && traffic != Traffic::Spoofed
            && traffic.max_len() <= USUAL_MAX_FRAME;
        let needs_two = alternates || directions.len() > 1;
        let _placed = if needs_two {
            None
        } else {
            Self::place(&testbed, subject, self.core)?
        };
        let drains = (DRAIN_FRAMES / count).clamp(3, 10);
        let queue = Queue {
            subject,
            traffic,
            frames: directions
                .iter()
                .map(|&direction| (direction, testbed.frames(traffic, direction)))
                .collect(),
            next: Cell::new(0),
        };
        while queue.next.get() < traffic.warm_up() {
            queue.drain(&mut testbed, count, Duration::ZERO)?;
        }
        let (mut cpu, mut rates) = (Vec::new(), Vec::new());
        let mut part = queue.drain(&mut testbed, count / 4, Duration::ZERO)?;
        let mut full = queue.drain(&mut testbed, count, Duration::ZERO)?;
        for _ in 0..drains {
            part = queue.drain(&mut testbed, count / 4, part.busy())?;
            full = queue.drain(&mut testbed, count, full.busy())?;
            rates.push(full.frames_per_second);
            // Where frames can be lost, both may bring about as many as a queue holds.
            if full.frames >= 2 * part.frames {
                let took = nanoseconds(full.cpu) - nanoseconds(part.cpu);
                cpu.push(took / number(full.frames - part.frames));
            }
        }
        let memory = usage::memory(testbed.pid)?;
        let report = testbed.finish()?;
        let mut figures = Figures::new();
        if !cpu.is_empty() {
            figures.insert(Figure::CpuPerFrame, median(&cpu));
        }
        let rate = median(&rates);
        if rate > 0.0 && traffic != Traffic::Spoofed {
            figures.insert(Figure::FramesPerSecond, rate);
            figures.insert(Figure::GbitPerSecond, rate * traffic.mean_len() * 8.0 / 1e9);
        }
        figures.insert(Figure::HandOvers, whole(report.hand_overs));
        figures.insert(Figure::Drops, whole(report.dropped));
        figures.insert(Figure::Anonymous, whole(memory.anonymous));
        Ok(figures)
    }
}

/// What a queue is filled with, and for whom.
struct Queue {
    subject: Subject,
    traffic: Traffic,
    /// Of each direction, to be sent round and round.
    frames: Vec<(Direction, Vec<Vec<u8>>)>,
    /// The frame that comes next.
    next: Cell<usize>,
}

/// What it took to empty a queue.
struct Drained {
    cpu: Duration,
    frames: usize,
    frames_per_second: f64,
}

impl Drained {
    /// For how long a subject works that does the same again, or a little longer. An interrupt by
    /// the bench's timer costs it some 50 µs in a virtual machine if it comes first, or else none.
    fn busy(&self) -> Duration {
        // Where the time is taken by looking, it has to be from the beginning.
        if timestamp::BY_KERNEL {
            self.cpu.mul_f64(1.1)
        } else {
            Duration::ZERO
        }
    }
}

impl Queue {
    /// Holds the subject, fills its queue with so many frames a direction, and releases it, to be
    /// `busy` at least so long.
    fn drain(&self, testbed: &mut Testbed, count: usize, busy: Duration) -> io::Result<Drained> {
        testbed.hold()?;
        let first = self.next.get();
        self.next.set(first + count);
        for (direction, frames) in &self.frames {
            let first = first % frames.len();
            for frame in frames.iter().cycle().skip(first).take(count) {
                match testbed.send(*direction, frame) {
                    Err(error) if testbed.is_lossy() && testbed::is_full(&error) => break,
                    result => result?,
                }
            }
        }
        let sent_before = testbed.sent_to_host()?;
        let released = testbed.release(busy)?;
        let (mut frames, mut rate) = (0, 0.0);
        for &(direction, _) in &self.frames {
            let received = testbed.take_received(direction)?;
            let arrived = match (direction, sent_before) {
                (Direction::Outbound, Some(before)) => {
                    let now = testbed.sent_to_host()?.unwrap_or(before);
                    self.frames_between(before, now)
                }
                _ => received.len(),
            };
            self.check(testbed, arrived, count)?;
            // What the VM sends reaches the subject in any case.
            let moved = match direction {
                Direction::Inbound if testbed.is_lossy() => arrived,
                _ => count,
            };
            frames += moved;
            rate += if timestamp::BY_KERNEL {
                frames_per_second(&received).unwrap_or(0.0)
            } else {
                number(moved) / released.took.as_secs_f64()
            };
        }
        Ok(Drained {
            cpu: released.cpu,
            frames,
            frames_per_second: rate,
        })
    }

    /// How many frames an interface got, of which large segments count once there.
    fn frames_between(&self, before: Counted, now: Counted) -> usize {
        let frames = now.frames - before.frames;
        let Traffic::Stream(len) = self.traffic else {
            return frames;
        };
        // Each has the headers once, whatever its length is.
        let data = now.bytes - before.bytes - frames * STREAM_HEADERS;
        data / (len - STREAM_HEADERS)
    }

    /// Whether as many frames arrived as have to.
    fn check(&self, testbed: &Testbed, arrived: usize, count: usize) -> io::Result<()> {
        let passes = self.traffic != Traffic::Spoofed || self.subject.is_unfiltered();
        let expected = if passes { count } else { 0 };
        let is_well = match expected {
            1.. if testbed.is_lossy() => arrived > 0,
            _ => arrived == expected,
        };
        if is_well {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{}: {arrived} of {count} frames came out instead of {expected}",
            self.subject
        )))
    }
}

/// The rate of the frames in the middle.
fn frames_per_second(received: &[Received]) -> Option<f64> {
    let middle = middle(received.len());
    let begin = received.get(middle.start.checked_sub(1)?)?.at;
    let end = received.get(middle.end.checked_sub(1)?)?.at;
    let time = end.checked_sub(begin)?;
    (!time.is_zero()).then(|| number(middle.len()) / time.as_secs_f64())
}

/// Which frames of a queue say how fast it goes: not those of the first quarter, in which
/// threads wake up, nor the last, while which are sent a second thread has none to take in.
/// From the end of a batch to the end of another, since within one more frames are taken in
/// than sent, or less.
fn middle(frames: usize) -> Range<usize> {
    let batches = frames / FRAMES_MAX;
    if batches < 4 {
        return frames / 4..frames;
    }
    batches.div_ceil(4) * FRAMES_MAX..(batches - 1) * FRAMES_MAX
}

/// More frames than this before a drain make it longer, not better.
const PRELOAD_MAX: usize = 2000;
/// Towards the VM: a TAP's queue holds 1000 frames unless it is told otherwise (ip link set ...
/// txqueuelen). What the VM sends waits in its socket, whatever the host's side is.
const INTERFACE_PRELOAD_MAX: usize = 750;
/// About so many frames are measured in one round.
const DRAIN_FRAMES: usize = 6000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_whole_batches_if_there_are_some() {
        assert_eq!(middle(2000), 8 * 64..30 * 64);
        assert_eq!(middle(683), 3 * 64..9 * 64);
        assert_eq!(middle(256), 64..3 * 64);
        assert_eq!(middle(80), 20..80);
        assert_eq!(middle(1), 0..1, "no rate");
    }
}
