//! What the program is compared with, in a process of its own that the bench starts over a hidden
//! subcommand: two loops, and the engine with another filter. The loops count nothing, and drop
//! nothing that the other side has no room for.
//!
//! - The *bare loop*: a thread per direction receives a batch and sends it. No filter. What
//!   the kernel asks for moving frames this way, and so the limit.
//! - The *one-frame loop*: receives, filters and sends frame by frame, as simple forwarders
//!   do; on Linux one thread for both directions.
//!
//! On Linux they are made of system calls and share nothing with softnet. On macOS they are
//! over the endpoints: there is no shorter way to a call that has to be looked up, or to
//! vmnet, than the one that these take.
//!
//! Standard input is the VM's socket, and standard output the host's side.

#[cfg(tap)]
#[path = "linux.rs"]
mod system;

#[cfg(vmnet)]
#[path = "darwin.rs"]
mod system;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::network::{LAB, Slowed};
use super::subject::{FORWARDING, Subject};
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

/// How to set one up.
#[derive(Debug)]
pub struct Setup {
    /// Which one. Those that are the program are its engine with a slow filter.
    pub subject: Subject,
    /// The longest frame to expect, in bytes.
    pub max_frame: usize,
    /// How many rules the filter has.
    pub rules: usize,
    /// See [`Options::slow_filter`](super::Options::slow_filter).
    pub slow_filter: u32,
    /// Whether the host's side is an interface of vmnet, to be started here.
    pub vmnet: bool,
}

/// Forwards until SIGTERM, or until the bench is gone, and says then what it counted. `caller`
/// gets no more than its own rights.
///
/// # Errors
/// When the descriptors are not what they should be, or the system has no room.
pub fn run(setup: &Setup, caller: &Identity) -> io::Result<()> {
    if !setup.vmnet {
        caller.become_caller().map_err(io::Error::other)?;
    }
    let mut end = End {
        signals: Signals::catch().map_err(io::Error::other)?,
        bench: Parent::watch(),
    };
    let vm = io::stdin().as_fd().try_clone_to_owned()?;
    let host = io::stdout().as_fd().try_clone_to_owned()?;
    system::run(setup, caller, vm, host, &mut end)?;
    say(OLD_REPORT);
    Ok(())
}

/// When to end: when asked to, or when the bench is no more, which may be killed at any time.
struct End {
    signals: Signals,
    bench: Option<Parent>,
}

impl End {
    /// Says that frames flow, and waits without waking up in between, which would be counted.
    fn wait(&mut self) {
        say(&format!("{FORWARDING}for the bench"));
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

fn say(line: &str) {
    console::to_stderr(format!("{line}\n").as_bytes(), PATIENCE);
}

/// The engine, with a filter that lets everything pass, or a slow one.
fn run_engine(
    setup: &Setup,
    vm: OwnedFd,
    host: impl Endpoint,
    filters: (Slowed<Outbound>, Slowed<Inbound>),
    end: &mut End,
) -> io::Result<()> {
    let vm = VmSocket::new(vm, setup.max_frame).map_err(io::Error::other)?;
    let options = Options {
        hand_over: match setup.subject {
            Subject::Always | Subject::Spread => HandOver::Always,
            Subject::Load => HandOver::Load,
            Subject::Never => HandOver::Never,
            _ => HandOver::Auto,
        },
        on_thread_start: Arc::new(find_place),
        ..Options::default()
    };
    let stop = Stop::new()?;
    let forwarding = if setup.subject == Subject::Unfiltered {
        forward::start(vm, host, Pass, Pass, &options, &stop)?
    } else {
        forward::start(vm, host, filters.0, filters.1, &options, &stop)?
    };
    end.wait();
    for counts in forwarding.finish() {
        let Counts {
            dropped,
            handed_over,
            ..
        } = counts;
        let dropped: u64 = dropped.iter().sum();
        say(&format!("{dropped} dropped, {handed_over} hand-overs"));
    }
    Ok(())
}

/// Where the bench cannot put threads on a core, each asks for a good one as the program's
/// do: on macOS, for those that are fast.
pub(super) fn find_place(direction: Direction) {
    if !cores::CAN_PIN {
        let _ = Placement::plan(Pin::Auto).and_then(|placement| placement.apply(direction));
    }
}

/// The filters of the laboratory.
fn laboratory(setup: &Setup) -> io::Result<(Slowed<Outbound>, Slowed<Inbound>)> {
    Ok(slowed(setup, LAB.filters(setup.rules, setup.max_frame)?))
}

fn slowed(setup: &Setup, filters: (Outbound, Inbound)) -> (Slowed<Outbound>, Slowed<Inbound>) {
    let iterations = setup.slow_filter;
    let (outbound, inbound) = filters;
    (
        Slowed::new(outbound, iterations),
        Slowed::new(inbound, iterations),
    )
}

/// How many frames to ask for next, where they have so many bytes on average.
fn limit_for(mean_len: usize) -> usize {
    (BATCH_BYTES / mean_len.max(1)).clamp(FRAMES_MIN, FRAMES_MAX)
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

/// How long what is said waits for room: the bench reads it at once.
const PATIENCE: Duration = Duration::from_secs(1);

// The limits of the forwarder when it began, which were the best that were measured for a
// bare loop on average. They stay as they are, so that figures of different years compare.
const FRAMES_MAX: usize = 32;
const FRAMES_MIN: usize = 4;
const BATCH_BYTES: usize = 128 << 10;

/// What a bench reads at the end whose build is older than `--host-fd`: so that its `--against`
/// takes this program, where this one's does not take that. It counts nothing.
const OLD_REPORT: &str = "{\"received\":0,\"forwarded\":0,\"dropped\":0,\"hand_overs\":0,\
    \"waits\":0,\"errors\":0}";
