//! A stand-in at a socket or a TAP: a yardstick by raw calls, or the engine.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::{End, Setup, Subject, laboratory, run_engine};
use crate::bench::yardstick::{self, Side};
use crate::endpoint::synthetic::SyntheticHost;
use crate::endpoint::tap::Tap;
use crate::host::privileges::Identity;

pub(super) fn run(
    setup: &Setup,
    _caller: &Identity,
    vm: OwnedFd,
    host: OwnedFd,
    end: &mut End,
) -> io::Result<()> {
    if setup.vmnet {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let tap = Tap::inherit(host);
    if !matches!(setup.subject, Subject::Bare | Subject::OneFrame) {
        let filters = laboratory(setup)?;
        return match tap {
            Ok(tap) => run_engine(setup, vm, tap, filters, end),
            Err(socket) => {
                let socket = SyntheticHost::new(socket.into(), setup.max_frame);
                run_engine(setup, vm, socket, filters, end)
            }
        };
    }
    let vm = Side::Socket(vm);
    let host = match tap {
        Ok(tap) => Side::Tap(tap.as_fd().try_clone_to_owned()?),
        Err(socket) => Side::Socket(socket),
    };
    if setup.subject == Subject::Bare {
        yardstick::bare(vm, host, setup.max_frame)?;
    } else {
        let (outbound, inbound) = laboratory(setup)?;
        yardstick::one_frame(vm, host, outbound, inbound, setup.max_frame)?;
    }
    end.wait();
    Ok(())
}
