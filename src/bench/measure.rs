//! How each scenario is measured, for one subject in one round. docs/performance.md says why
//! so.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::HostSide;
use super::figure::{Figure, Figures};
use super::scenario::{BURST, BURST_EVERY, Scenario, Work};
use super::statistics::{quantile, sorted};
use super::subject::{Setup, Subject};
use super::testbed::{Received, Testbed};
use super::traffic::stamp;
use crate::direction::Direction;
use crate::host::privileges::SavedPrivileges;
use crate::sys::cores::{self, Pinned};
use crate::sys::usage::{self, Memory};

/// What all measurements of a run have in common.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    /// The program that the subjects are run by.
    pub(super) program: &'a Path,
    /// The one that runs [`Subject::Other`].
    pub(super) other: Option<&'a Path>,
    /// What takes the host's place.
    pub(super) host: &'a HostSide,
    /// The rights that a subject needs for vmnet.
    pub(super) saved: Option<&'a SavedPrivileges>,
    /// See [`Options::slow_filter`](super::Options::slow_filter).
    pub(super) slow_filter: u32,
    /// For how long frames come at a fixed rate, and how long an idle phase is.
    pub(super) window: Duration,
    /// Which core the subjects of this round run on, by number, where one is enough for them.
    pub(super) core: usize,
}

impl Bench<'_> {
    /// Measures a subject once.
    pub(super) fn measure(&self, scenario: &Scenario, subject: Subject) -> io::Result<Figures> {
        match scenario.work {
            Work::Drain {
                traffic,
                directions,
                rules,
            } => self.drain(subject, traffic, directions, rules),
            Work::Paced {
                direction,
                frames_per_second,
            } => self.paced(subject, direction, frames_per_second),
            Work::Bursts { direction } => self.bursts(subject, direction),
            Work::Density { instances } => self.density(subject, instances),
            Work::SlowVm => self.slow_vm(subject),
        }
    }

    pub(super) fn testbed(
        &self,
        subject: Subject,
        max_frame: usize,
        rules: usize,
    ) -> io::Result<Testbed> {
        let (program, subject) = match (subject, self.other) {
            (Subject::Other, Some(other)) => (other, Subject::Auto),
            _ => (self.program, subject),
        };
        let setup = Setup {
            subject,
            max_frame: max_frame.max(USUAL_MAX_FRAME),
            rules,
            host: self.host,
            slow_filter: self.slow_filter,
        };
        Testbed::new(program, &setup, self.saved)
    }

    /// Puts the subject on a core by its number and the bench on the first one, until what is
    /// returned goes; `None` for a subject that needs two, and where that cannot be done.
    ///
    /// A frame's memory is freed a sixth dearer on another core than on the one that took it,
    /// and to wake somebody there takes an interrupt. Where the scheduler puts a thread
    /// depends on how many others there are. All subjects of a round are to meet the same.
    pub(super) fn place(
        testbed: &Testbed,
        subject: Subject,
        core: usize,
    ) -> io::Result<Option<Pinned>> {
        if !cores::CAN_PIN || matches!(subject, Subject::Always | Subject::Spread) {
            return Ok(None);
        }
        cores::pin(testbed.pid, "", core)?;
        Pinned::to(0).map(Some)
    }

    /// Frames come one after the other, and each wakes the subject unless the last one still
    /// keeps it awake.
    fn paced(&self, subject: Subject, direction: Direction, rate: u32) -> io::Result<Figures> {
        let mut testbed = self.testbed(subject, USUAL_MAX_FRAME, 32)?;
        let mut frame = testbed.frame(200, direction);
        let gap = Duration::from_secs(1) / rate;
        let seconds = self
            .window
            .as_secs_f64()
            .max(f64::from(PACED_MIN) / f64::from(rate));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Positive, small.
        let count = (seconds * f64::from(rate)).min(f64::from(PACED_MAX)) as u32;
        // Who sends without a pause needs a core of its own.
        let core = if rate < BUSY { self.core } else { OTHER_CORE };
        let _placed = Self::place(&testbed, subject, core)?;
        let mut received = Vec::new();
        for _ in 0..WARM_UP {
            testbed.send(direction, &frame)?;
            testbed.quiesce()?;
        }
        testbed.take_received(direction)?;
        let before = used([&testbed])?;
        let start = Instant::now();
        for index in 0..count {
            testbed.wait_until(start + gap * index, &[direction], &mut received)?;
            stamp(&mut frame, index, now());
            testbed.send_patiently(direction, &frame, &mut received)?;
            if index % EMPTY_EVERY == 0 {
                received.extend(testbed.take_received(direction)?);
            }
        }
        testbed.quiesce_and_take(&[direction], &mut received)?;
        let frames = moved(&testbed, direction, count, &received)?;
        let after = used([&testbed])?;
        let mut figures = Figures::new();
        figures.insert(Figure::CpuPerFrame, (after.0 - before.0) / frames);
        figures.insert(Figure::SwitchesPerFrame, (after.1 - before.1) / frames);
        insert_latency(&mut figures, &received);
        let report = testbed.finish()?;
        figures.insert(Figure::Drops, whole(report.dropped));
        Ok(figures)
    }

    fn bursts(&self, subject: Subject, direction: Direction) -> io::Result<Figures> {
        let mut testbed = self.testbed(subject, USUAL_MAX_FRAME, 32)?;
        let mut frame = testbed.frame(200, direction);
        let _placed = Self::place(&testbed, subject, OTHER_CORE)?;
        let before = used([&testbed])?;
        let mut received = Vec::new();
        let start = Instant::now();
        for index in 0..BURSTS {
            testbed.wait_until(start + BURST_EVERY * index, &[direction], &mut received)?;
            for _ in 0..BURST {
                stamp(&mut frame, index, now());
                testbed.send_patiently(direction, &frame, &mut received)?;
            }
        }
        testbed.quiesce_and_take(&[direction], &mut received)?;
        let after = used([&testbed])?;
        let bursts = f64::from(BURSTS);
        let frames = moved(&testbed, direction, BURSTS * BURST, &received)?;
        let mut figures = Figures::new();
        let cpu = after.0 - before.0;
        figures.insert(Figure::CpuPerFrame, cpu / frames);
        figures.insert(Figure::SwitchesPerBurst, (after.1 - before.1) / bursts);
        insert_latency(&mut figures, &received);
        Ok(figures)
    }

    fn density(&self, subject: Subject, instances: usize) -> io::Result<Figures> {
        let testbeds: io::Result<Vec<_>> = (0..instances)
            .map(|_| self.testbed(subject, USUAL_MAX_FRAME, 32))
            .collect();
        let mut testbeds = testbeds?;
        let mut figures = Figures::new();

        let window = self.window * IDLE_WINDOWS;
        let idle = window.max(IDLE_MIN);
        let of_first = || -> Option<u64> {
            let testbeds = testbeds.iter();
            testbeds
                .map(|testbed| usage::switches_of_first(testbed.pid))
                .sum()
        };
        let (before, first_before) = (used(&testbeds)?, of_first());
        thread::sleep(idle);
        let (after, first_after) = (used(&testbeds)?, of_first());
        let in_10_s = 10.0 / idle.as_secs_f64() / number(instances);
        figures.insert(Figure::IdleCpu, (after.0 - before.0) * in_10_s / 1e6);
        let switches = after.1 - before.1;
        figures.insert(Figure::IdleSwitches, switches * in_10_s);
        if let (Some(before), Some(after)) = (first_before, first_after) {
            let of_others = switches - whole(after - before);
            figures.insert(Figure::IdleDataSwitches, of_others * in_10_s);
        }

        let before = used(&testbeds)?;
        let mut received = Vec::new();
        let start = Instant::now();
        let mut frames = Direction::ALL.map(|way| testbeds[0].frame(1514, way));
        let gap = Duration::from_secs(1) / DENSITY_RATE / u32::try_from(instances).unwrap_or(1);
        let mut count = 0;
        let mut last = 0;
        while start.elapsed() < window {
            for index in 0..testbeds.len() {
                testbeds[last].wait_until(start + gap * count, &Direction::ALL, &mut received)?;
                for (direction, frame) in Direction::ALL.into_iter().zip(&mut frames) {
                    stamp(frame, count, now());
                    testbeds[index].send_patiently(direction, frame, &mut received)?;
                }
                count += 1;
                last = index;
            }
        }
        let mut memory = Vec::with_capacity(instances);
        // From the one that has frames under way still.
        testbeds.rotate_left(last);
        for testbed in &mut testbeds {
            testbed.quiesce_and_take(&Direction::ALL, &mut received)?;
            memory.push(usage::memory(testbed.pid)?);
        }
        let after = used(&testbeds)?;
        let sent = f64::from(count) * 2.0;
        figures.insert(Figure::CpuPerFrame, (after.0 - before.0) / sent);
        figures.insert(Figure::SwitchesPerFrame, (after.1 - before.1) / sent);
        insert_latency(&mut figures, &received);
        insert_memory(&mut figures, &memory);
        Ok(figures)
    }

    fn slow_vm(&self, subject: Subject) -> io::Result<Figures> {
        let mut testbed = self.testbed(subject, USUAL_MAX_FRAME, 32)?;
        let flood = testbed.frame(1514, Direction::Inbound);
        let mut probe = testbed.frame(200, Direction::Outbound);
        let cpu = usage::cpu(testbed.pid)?;
        let mut read = 0;
        let mut probes = Vec::new();
        let start = Instant::now();
        for step in 0..SLOW_STEPS {
            testbed.wait_until(
                start + SLOW_STEP * step,
                &[Direction::Outbound],
                &mut probes,
            )?;
            // As many as fit: what the subject does not take, the host's kernel would drop.
            while testbed.send(Direction::Inbound, &flood).is_ok() {}
            stamp(&mut probe, step, now());
            testbed.send_patiently(Direction::Outbound, &probe, &mut probes)?;
            for _ in 0..SLOW_READ {
                read += usize::from(testbed.next_received(Direction::Inbound)?.is_some());
            }
            probes.extend(testbed.take_received(Direction::Outbound)?);
        }
        let elapsed = start.elapsed().as_secs_f64();
        let cpu = usage::cpu(testbed.pid)? - cpu;
        let memory = usage::memory(testbed.pid)?;
        probes.extend(testbed.take_received(Direction::Outbound)?);
        let report = testbed.finish()?;
        let mut figures = Figures::new();
        figures.insert(Figure::FramesPerSecond, number(read) / elapsed);
        figures.insert(Figure::CpuPerFrame, nanoseconds(cpu) / number(read));
        insert_latency(&mut figures, &probes);
        figures.insert(Figure::HandOvers, whole(report.hand_overs));
        figures.insert(Figure::Drops, whole(report.dropped));
        figures.insert(Figure::Anonymous, whole(memory.anonymous));
        Ok(figures)
    }
}

/// How many of `sent` frames the subject has had to do with: all, but for those that were lost
/// before they came to it.
fn moved(
    testbed: &Testbed,
    direction: Direction,
    sent: u32,
    received: &[Received],
) -> io::Result<f64> {
    if received.is_empty() {
        let words = format!("none of {sent} frames came out");
        return Err(io::Error::other(words));
    }
    Ok(match direction {
        Direction::Inbound if testbed.is_lossy() => number(received.len()),
        _ => f64::from(sent),
    })
}

/// What the subjects have used so far: CPU time in nanoseconds, and context switches.
fn used<'a>(testbeds: impl IntoIterator<Item = &'a Testbed>) -> io::Result<(f64, f64)> {
    let mut sum = (0.0, 0.0);
    for testbed in testbeds {
        sum.0 += nanoseconds(usage::cpu(testbed.pid)?);
        sum.1 += whole(usage::switches(testbed.pid)?);
    }
    Ok(sum)
}

fn insert_latency(figures: &mut Figures, received: &[Received]) {
    let took: Vec<f64> = received
        .iter()
        .filter(|frame| frame.stamp.1 > 0)
        .map(|frame| (frame.at, Duration::from_nanos(frame.stamp.1)))
        .map(|(at, sent)| nanoseconds(at.saturating_sub(sent)))
        .collect();
    if let Some(took) = sorted(&took) {
        figures.insert(Figure::LatencyP50, quantile(&took, 0.5) / 1000.0);
        figures.insert(Figure::LatencyP99, quantile(&took, 0.99) / 1000.0);
    }
}

/// The mean of what each has, as far as the system tells.
fn insert_memory(figures: &mut Figures, memory: &[Memory]) {
    let mean = |of: fn(&Memory) -> Option<u64>| {
        let total: Option<u64> = memory.iter().map(of).sum();
        total.map(|total| whole(total) / number(memory.len()))
    };
    let means = [
        (Figure::Anonymous, mean(|memory| Some(memory.anonymous))),
        (Figure::Resident, mean(|memory| Some(memory.resident))),
        (Figure::Proportional, mean(|memory| memory.proportional)),
    ];
    figures.extend(
        means
            .into_iter()
            .filter_map(|(figure, mean)| Some((figure, mean?))),
    );
}

/// The time by the clock that the kernel stamps frames with.
fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}

pub(super) fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

#[allow(clippy::cast_precision_loss)] // Far below 2^52.
pub(super) fn number(count: usize) -> f64 {
    count as f64
}

#[allow(clippy::cast_precision_loss)] // Below 2^61 ns, to the microsecond that matters.
pub(super) fn whole(count: u64) -> f64 {
    count as f64
}

/// An MTU of 1500 and the Ethernet header.
pub(super) const USUAL_MAX_FRAME: usize = 1514;

/// Frames before those that are measured: the first few bring back what the start gave away.
const WARM_UP: u32 = 20;
/// Frames a second from which on the bench is hardly ever asleep.
const BUSY: u32 = 50_000;
const OTHER_CORE: usize = 1;
const PACED_MIN: u16 = 50;
const PACED_MAX: u16 = 20_000;
/// Well before a queue is full.
const EMPTY_EVERY: u32 = 256;
const BURSTS: u32 = 50;
/// An idle phase lasts so many windows.
const IDLE_WINDOWS: u32 = 5;
/// And at least so long, in which the program's first thread looks twice.
const IDLE_MIN: Duration = Duration::from_millis(2200);
/// Frames a second for each of many forwarders, in each direction.
const DENSITY_RATE: u32 = 20;

/// The slow VM reads 100 frames every 5 ms, and sends one.
const SLOW_STEP: Duration = Duration::from_millis(5);
const SLOW_STEPS: u32 = 60;
const SLOW_READ: usize = 100;
