//! A subject at a socket or a TAP: a yardstick by raw calls, or the engine.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::{End, Setup, Subject, laboratory, run_engine, slowed};
use crate::bench::side::HostSide;
use crate::bench::yardstick::{self, Side};
use crate::endpoint::synthetic::SyntheticHost;
use crate::endpoint::tap::Tap;
use crate::host::privileges::Identity;
use crate::stats::Counts;

/// The surest way to end with the bench: for a subject that is held, too.
pub(super) fn die_with_bench() -> io::Result<()> {
    Ok(set_pdeathsig(Signal::SIGKILL)?)
}

/// By raw calls or by the engine, at a socket or a TAP.
pub(super) fn run_between(
    setup: &Setup,
    _caller: &Identity,
    vm: OwnedFd,
    host: OwnedFd,
    end: &mut End,
) -> io::Result<Option<[Counts; 2]>> {
    let is_yardstick = matches!(setup.subject, Subject::Bare | Subject::OneFrame);
    match &setup.host {
        HostSide::Socket if is_yardstick => run_yardstick(setup, vm, Side::Socket(host), end),
        HostSide::Socket => {
            let host = SyntheticHost::new(UnixDatagram::from(host), setup.max_frame);
            run_engine(setup, vm, host, || laboratory(setup), end).map(Some)
        }
        HostSide::Tap(name) => {
            let tap = Tap::inherit(host.into(), name).or_else(|_| Tap::open(name));
            let tap = tap.map_err(io::Error::other)?;
            if is_yardstick {
                let host = Side::Tap(tap.as_fd().try_clone_to_owned()?);
                return run_yardstick(setup, vm, host, end);
            }
            run_engine(setup, vm, tap, || laboratory(setup), end).map(Some)
        }
        HostSide::Vmnet => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// A yardstick counts nothing.
fn run_yardstick(
    setup: &Setup,
    vm: OwnedFd,
    host: Side,
    end: &mut End,
) -> io::Result<Option<[Counts; 2]>> {
    let vm = Side::Socket(vm);
    if setup.subject == Subject::Bare {
        yardstick::bare(vm, host, setup.max_frame, setup.slow_filter)?;
    } else {
        let (outbound, inbound) = slowed(setup, laboratory(setup)?);
        yardstick::one_frame(vm, host, outbound, inbound, setup.max_frame)?;
    }
    end.wait();
    Ok(None)
}
