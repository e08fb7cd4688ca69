//! What is measured: a forwarder in a process of its own, so that CPU time, context switches
//! and memory are its alone. The bench starts its own program anew for each, and
//! `perf/measure.py` the bare loop.
//!
//! Standard input is the VM's socket and standard output the host's, as Tart does it with the
//! first; what the process says when it is asked to end (SIGTERM) is one line of JSON on
//! standard error with its counters.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

#[cfg(vmnet)]
use super::network;
use super::network::{LAB, Slowed};
use super::yardstick;
#[cfg(tap)]
use super::yardstick::Side;
use crate::batch::Slot;
use crate::clock::Tick;
use crate::direction::Direction;
use crate::endpoint::Endpoint;
use crate::endpoint::synthetic::SyntheticHost;
#[cfg(tap)]
use crate::endpoint::tap::Tap;
use crate::endpoint::vm_socket::VmSocket;
#[cfg(vmnet)]
use crate::endpoint::vmnet::Vmnet;
#[cfg(vmnet)]
use crate::filter::Mode;
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
    /// The TAP to use instead of standard output.
    pub tap: Option<String>,
    /// Whether to use an interface of vmnet instead, on macOS.
    pub vmnet: bool,
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
        arguments.extend(self.tap.iter().map(|name| format!("--tap={name}")));
        if self.vmnet {
            arguments.push("--vmnet".to_owned());
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
    if !setup.vmnet {
        caller.become_caller().map_err(io::Error::other)?;
    }
    let mut end = End::watch()?;
    let vm = io::stdin().as_fd().try_clone_to_owned()?;
    let host = io::stdout().as_fd().try_clone_to_owned()?;
    let counts = run_between(setup, caller, vm, host, &mut end)?;
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
        // The surest where there is such a thing: for a subject that is held, too.
        #[cfg(tap)]
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
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

/// By raw calls or by the engine, at a socket or a TAP.
#[cfg(tap)]
fn run_between(
    setup: &Setup,
    _caller: &Identity,
    vm: OwnedFd,
    host: OwnedFd,
    end: &mut End,
) -> io::Result<Option<[Counts; 2]>> {
    let is_yardstick = matches!(setup.subject, Subject::Bare | Subject::OneFrame);
    let tap = setup.tap.as_ref().map(|name| {
        Tap::inherit(host.try_clone()?.into(), name)
            .or_else(|_| Tap::open(name))
            .map_err(io::Error::other)
    });
    match tap.transpose()? {
        Some(tap) if is_yardstick => {
            let side = Side::Tap(tap.as_fd().try_clone_to_owned()?);
            run_yardstick(setup, vm, side, end)?;
            Ok(None)
        }
        None if is_yardstick => {
            run_yardstick(setup, vm, Side::Socket(host), end)?;
            Ok(None)
        }
        Some(tap) => run_engine(setup, vm, tap, || laboratory(setup), end).map(Some),
        None => {
            let host = SyntheticHost::new(UnixDatagram::from(host), setup.max_frame);
            run_engine(setup, vm, host, || laboratory(setup), end).map(Some)
        }
    }
}

#[cfg(tap)]
fn run_yardstick(setup: &Setup, vm: OwnedFd, host: Side, end: &mut End) -> io::Result<()> {
    let vm = Side::Socket(vm);
    if setup.subject == Subject::Bare {
        yardstick::bare(vm, host, setup.max_frame, setup.slow_filter)?;
    } else {
        let (outbound, inbound) = slowed(setup, laboratory(setup)?);
        yardstick::one_frame(vm, host, outbound, inbound, setup.max_frame)?;
    }
    end.wait();
    Ok(())
}

/// Everything over endpoints, at a socket.
#[cfg(vmnet)]
fn run_between(
    setup: &Setup,
    caller: &Identity,
    vm: OwnedFd,
    host: OwnedFd,
    end: &mut End,
) -> io::Result<Option<[Counts; 2]>> {
    if !setup.vmnet {
        let host = SyntheticHost::new(UnixDatagram::from(host), setup.max_frame);
        return run_at(setup, vm, host, || laboratory(setup), end);
    }
    let open = Vmnet::open(Mode::Nat, true, || end.signals.stop().is_some());
    let vmnet = open.map_err(io::Error::other)?;
    caller.become_caller().map_err(io::Error::other)?;
    let (gateway, subnet, max_frame) = (vmnet.gateway(), vmnet.subnet(), vmnet.max_frame());
    let filters = || network::filters_at_vmnet(gateway, subnet, setup.rules, max_frame);
    run_at(setup, vm, vmnet, filters, end)
}

/// The same at any endpoint.
#[cfg(vmnet)]
fn run_at(
    setup: &Setup,
    vm: OwnedFd,
    host: impl Endpoint,
    filters: impl FnOnce() -> io::Result<(Outbound, Inbound)>,
    end: &mut End,
) -> io::Result<Option<[Counts; 2]>> {
    if !matches!(setup.subject, Subject::Bare | Subject::OneFrame) {
        return run_engine(setup, vm, host, filters, end).map(Some);
    }
    let vm = VmSocket::new(vm, setup.max_frame).map_err(io::Error::other)?;
    let running = if setup.subject == Subject::Bare {
        yardstick::bare(vm, host, setup.slow_filter, find_place)?
    } else {
        let (outbound, inbound) = slowed(setup, filters()?);
        yardstick::one_frame(vm, host, outbound, inbound, find_place)?
    };
    end.wait();
    running.finish();
    Ok(None)
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
