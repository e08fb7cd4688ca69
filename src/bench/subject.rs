//! What is measured: a forwarder in a process of its own, so that CPU time, context switches
//! and memory are its alone. The bench starts its own program anew for each, and
//! `perf/measure.py` the bare loop.
//!
//! Standard input is the VM's socket and standard output the host's, as Tart does it with the
//! first; what the process says when it is asked to end (SIGTERM) is one line of JSON on
//! standard error with its counters.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::str::FromStr;

use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

use super::network::{LAB, Slowed};
use super::yardstick::{self, Side};
use crate::endpoint::Endpoint;
use crate::endpoint::synthetic::SyntheticHost;
use crate::endpoint::tap::Tap;
use crate::endpoint::vm_socket::VmSocket;
use crate::filter::{Check, DropReason, Inbound, Outbound, Seconds, Verdict};
use crate::forward::{self, HandOver, Options};
use crate::host::memory;
use crate::stats::Counts;
use crate::stop::Stop;
use crate::sys;

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
    /// The same, with readers and writers on different cores.
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
        arguments
    }
}

/// The whole life of the process that is measured: forwards between standard input and
/// standard output (or the TAP) until SIGTERM, then reports.
///
/// # Errors
/// When the descriptors are not what they should be, or the system has no room.
pub fn run(setup: &Setup) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let mut signals = Signals::new([SIGTERM])?;
    let vm = io::stdin().as_fd().try_clone_to_owned()?;
    let host = io::stdout().as_fd().try_clone_to_owned()?;
    let counts = match &setup.tap {
        Some(name) => match setup.subject {
            Subject::Bare | Subject::OneFrame => {
                let side = Side::Tap(sys::tap::attach(name)?);
                sys::tap::bring_up(name)?;
                run_yardstick(setup, vm, side, &mut signals)?
            }
            _ => {
                let tap = Tap::open(name).map_err(io::Error::other)?;
                Some(run_engine(setup, vm, tap, &mut signals)?)
            }
        },
        None => match setup.subject {
            Subject::Bare | Subject::OneFrame => {
                run_yardstick(setup, vm, Side::Socket(host), &mut signals)?
            }
            _ => {
                let host = SyntheticHost::new(UnixDatagram::from(host), setup.max_frame);
                Some(run_engine(setup, vm, host, &mut signals)?)
            }
        },
    };
    let report = counts.map_or_else(Report::default, |counts| Report::from(&counts));
    let line = serde_json::to_string(&report).map_err(io::Error::other)?;
    writeln!(io::stderr(), "{line}")
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

fn run_yardstick(
    setup: &Setup,
    vm: OwnedFd,
    host: Side,
    signals: &mut Signals,
) -> io::Result<Option<[Counts; 2]>> {
    let vm = Side::Socket(vm);
    if setup.subject == Subject::Bare {
        yardstick::bare(vm, host, setup.max_frame, setup.slow_filter)?;
    } else {
        let (outbound, inbound) = filters(setup)?;
        yardstick::one_frame(vm, host, outbound, inbound, setup.max_frame)?;
    }
    signals.forever().next();
    Ok(None)
}

fn run_engine(
    setup: &Setup,
    vm: OwnedFd,
    host: impl Endpoint,
    signals: &mut Signals,
) -> io::Result<[Counts; 2]> {
    let vm = VmSocket::new(vm, setup.max_frame).map_err(io::Error::other)?;
    let options = Options {
        hand_over: match setup.subject {
            Subject::Always | Subject::Spread => HandOver::Always,
            Subject::Load => HandOver::Load,
            Subject::Never => HandOver::Never,
            _ => HandOver::Auto,
        },
        ..Options::default()
    };
    let stop = Stop::new()?;
    let forwarding = if setup.subject == Subject::Unfiltered {
        forward::start(vm, host, Pass, Pass, &options, &stop)?
    } else {
        let (outbound, inbound) = filters(setup)?;
        forward::start(vm, host, outbound, inbound, &options, &stop)?
    };
    // As the program does it.
    memory::give_back_code();
    signals.forever().next();
    Ok(forwarding.finish())
}

fn filters(setup: &Setup) -> io::Result<(Slowed<Outbound>, Slowed<Inbound>)> {
    let (outbound, inbound) = LAB.filters(setup.rules, setup.max_frame)?;
    let turns = setup.slow_filter;
    Ok((Slowed::new(outbound, turns), Slowed::new(inbound, turns)))
}

/// Lets everything pass.
struct Pass;

impl Check for Pass {
    fn check(&self, _: &[u8], _: Seconds) -> Verdict {
        Verdict::Forward
    }

    fn dhcp(&mut self, _: &mut [u8], len: usize, _: Seconds) -> Result<usize, DropReason> {
        Ok(len)
    }
}
