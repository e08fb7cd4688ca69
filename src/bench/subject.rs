//! What is measured: a forwarder in a process of its own, so that CPU time, context switches
//! and memory are its alone. The bench starts its own program anew for each, and
//! `perf/measure.py` the bare loop.
//!
//! Standard input is the VM's socket and standard output the host's, as Tart does it with the
//! first; what the process says when it is asked to end (SIGTERM) is one line of JSON on
//! standard error with its counters.

#[cfg(tap)]
#[path = "subject/tap.rs"]
mod system;

#[cfg(vmnet)]
#[path = "subject/vmnet.rs"]
pub(super) mod system;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::network::{LAB, Slowed};
use super::side::HostSide;
use crate::batch::Slot;
use crate::clock::Tick;
use crate::direction::Direction;
use crate::endpoint::Endpoint;
use crate::endpoint::vm_socket::VmSocket;
use crate::filter::{DropReason, Filter, Inbound, Outbound, Step, Verdict};
use crate::forward::{self, HandOver, Options};
use crate::host::console;
use crate::host::liveness::Parent;
use crate::host::placement::{Pin, Placement};
use crate::host::privileges::Identity;
use crate::host::signals::Signals;
use crate::stats::Counts;
use crate::stop::Stop;
use crate::sys::cores;

/// A way to forward.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Batches without a filter: the limit.
    Bare,
    /// The engine as it ships.
    Auto,
    /// The engine with threads that take turns under load.
    Load,
    /// The engine as a pure pipeline.
    Always,
    /// The same, with readers and writers on different cores. Not on macOS.
    Spread,
    /// The engine without writer threads.
    Never,
    /// The engine with a filter that lets everything pass: what the filter costs is missing.
    Unfiltered,
    /// One thread, frame by frame.
    OneFrame,
    /// [`Auto`](Self::Auto) of another build: [`Options::other`](super::Options::other).
    Other,
}

impl Subject {
    /// All of them, the yardstick first.
    pub const ALL: [Self; 9] = [
        Self::Bare,
        Self::Auto,
        Self::OneFrame,
        Self::Load,
        Self::Always,
        Self::Spread,
        Self::Never,
        Self::Unfiltered,
        Self::Other,
    ];

    /// Those that a run measures unless told otherwise.
    pub const USUAL: [Self; 4] = [Self::Bare, Self::Auto, Self::OneFrame, Self::Always];

    /// Whether it lets everything pass.
    #[must_use]
    pub const fn is_unfiltered(self) -> bool {
        matches!(self, Self::Bare | Self::Unfiltered)
    }

    /// Whether it is one only where threads can be put on cores.
    pub(super) const fn needs_cores(self) -> bool {
        matches!(self, Self::Spread)
    }

    /// Its name on the command line and in results; it stays the same over releases.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Auto => "auto",
            Self::Load => "load",
            Self::Always => "always",
            Self::Spread => "spread",
            Self::Never => "never",
            Self::Unfiltered => "unfiltered",
            Self::OneFrame => "one-frame",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL
            .into_iter()
            .find(|subject| subject.label() == text);
        known.ok_or_else(|| {
            let labels = Self::ALL.map(Self::label).join(", ");
            format!("{text:?} is not one of {labels}")
        })
    }
}

/// How to set a subject up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Which one.
    pub subject: Subject,
    /// The longest frame to expect, in bytes.
    pub max_frame: usize,
    /// How many rules the filter has.
    pub rules: usize,
    /// What takes the host's place: standard output, or what is opened here.
    pub host: HostSide<String>,
    /// How many turns of an empty loop the filter takes longer for each frame, or the bare loop,
    /// about a quarter of a nanosecond each. For showing that a measurement would notice.
    pub slow_filter: u32,
}

impl Setup {
    /// The arguments after the name of the hidden subcommand, as [`run`] wants them back.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            self.subject.label().to_owned(),
            format!("--max-frame={}", self.max_frame),
            format!("--rules={}", self.rules),
            format!("--slow-filter={}", self.slow_filter),
        ];
        match &self.host {
            HostSide::Socket => {}
            HostSide::Tap(name) => arguments.push(format!("--tap={name}")),
            HostSide::Vmnet => arguments.push("--vmnet".to_owned()),
        }
        arguments
    }
}

/// The whole life of the process that is measured: forwards between standard input and
/// standard output until SIGTERM, then reports. The latter may be the TAP; where it is not, that
/// is opened by its name. `caller` gets no more than its own rights.
///
/// # Errors
/// When the descriptors are not what they should be, or the system has no room.
pub fn run(setup: &Setup, caller: &Identity) -> io::Result<()> {
    if setup.host != HostSide::Vmnet {
        caller.become_caller().map_err(io::Error::other)?;
    }
    let mut end = End::watch()?;
    let vm = io::stdin().as_fd().try_clone_to_owned()?;
    let host = io::stdout().as_fd().try_clone_to_owned()?;
    let counts = system::run_between(setup, caller, vm, host, &mut end)?;
    let report = counts.map_or_else(Report::default, |counts| Report::from(&counts));
    let line = serde_json::to_string(&report).map_err(io::Error::other)?;
    console::to_stderr(format!("{line}\n").as_bytes(), PATIENCE);
    Ok(())
}

/// When to end: when asked to, or when the bench is no more, which may be killed at any time.
struct End {
    signals: Signals,
    bench: Option<Parent>,
}

impl End {
    fn watch() -> io::Result<Self> {
        system::die_with_bench()?;
        Ok(Self {
            signals: Signals::catch().map_err(io::Error::other)?,
            bench: Parent::watch(),
        })
    }

    /// Waits without waking up in between, which would be counted.
    fn wait(&mut self) {
        while self.signals.stop().is_none() && !self.bench.as_ref().is_some_and(Parent::is_gone) {
            let signals = self.signals.as_fd();
            let bench = self.bench.as_ref().and_then(Parent::event);
            let mut fds: Vec<_> = [Some(signals), bench]
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            let _ = poll(&mut fds, PollTimeout::NONE);
        }
    }
}

/// What a subject tells about its frames when it ends. A yardstick tells nothing.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Report {
    pub(super) received: u64,
    pub(super) forwarded: u64,
    pub(super) dropped: u64,
    pub(super) hand_overs: u64,
    pub(super) waits: u64,
    pub(super) errors: u64,
}

impl From<&[Counts; 2]> for Report {
    fn from(counts: &[Counts; 2]) -> Self {
        let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum();
        Self {
            received: sum(|counts| counts.received),
            forwarded: sum(|counts| counts.forwarded),
            dropped: sum(|counts| counts.dropped.iter().sum()),
            hand_overs: sum(|counts| counts.handed_over),
            waits: sum(|counts| counts.waits),
            errors: sum(|counts| counts.errors),
        }
    }
}

fn run_engine(
    setup: &Setup,
    vm: OwnedFd,
    host: impl Endpoint,
    filters: impl FnOnce() -> io::Result<(Outbound, Inbound)>,
    end: &mut End,
) -> io::Result<[Counts; 2]> {
    let vm = VmSocket::new(vm, setup.max_frame).map_err(io::Error::other)?;
    let options = Options {
        hand_over: match setup.subject {
            Subject::Always | Subject::Spread => HandOver::Always,
            Subject::Load => HandOver::Load,
            Subject::Never => HandOver::Never,
            _ => HandOver::Auto,
        },
        on_thread_start: Arc::new(find_place),
    };
    let stop = Stop::new()?;
    let forwarding = if setup.subject == Subject::Unfiltered {
        forward::start(vm, host, Pass, Pass, &options, &stop)?
    } else {
        let (outbound, inbound) = slowed(setup, filters()?);
        forward::start(vm, host, outbound, inbound, &options, &stop)?
    };
    end.wait();
    Ok(forwarding.finish())
}

/// Where the bench cannot put threads on a core, each asks for a good one as the program's
/// do: on macOS, for those that are fast.
pub(super) fn find_place(direction: Direction) {
    if !cores::CAN_PIN {
        let _ = Placement::plan(Pin::Auto).and_then(|placement| placement.apply(direction));
    }
}

fn laboratory(setup: &Setup) -> io::Result<(Outbound, Inbound)> {
    LAB.filters(setup.rules, setup.max_frame)
}

fn slowed(setup: &Setup, filters: (Outbound, Inbound)) -> (Slowed<Outbound>, Slowed<Inbound>) {
    let turns = setup.slow_filter;
    (Slowed::new(filters.0, turns), Slowed::new(filters.1, turns))
}

/// Lets everything pass.
struct Pass;

impl Filter for Pass {
    fn begin(&mut self, _: Tick) {}

    fn judge(&mut self, _: &[u8]) -> Step {
        Step::Done(Verdict::Forward)
    }

    fn examine(&mut self, _: &mut Slot<'_>, _: Step) -> Result<(), DropReason> {
        Ok(())
    }
}

/// How long the report waits for room: the bench reads it at once.
const PATIENCE: Duration = Duration::from_secs(1);
