//! A stand-in at a socket or at vmnet: everything over endpoints.

use std::io;
use std::os::fd::OwnedFd;

use super::{End, Setup, Subject, find_place, laboratory, run_engine, slowed};
use crate::bench::network::{Slowed, VMNET_MAC, filters};
use crate::bench::{traffic, yardstick};
use crate::endpoint::Endpoint;
use crate::endpoint::synthetic::SyntheticHost;
use crate::endpoint::vm_socket::VmSocket;
use crate::endpoint::vmnet::Vmnet;
use crate::filter::{self, CONNECTION_RATE, Config, Inbound, Mode, Outbound};
use crate::host::privileges::Identity;

pub(super) fn run(
    setup: &Setup,
    caller: &Identity,
    vm: OwnedFd,
    host: OwnedFd,
    end: &mut End,
) -> io::Result<()> {
    if !setup.vmnet {
        let host = SyntheticHost::new(host.into(), setup.max_frame);
        return run_at(setup, vm, host, laboratory(setup)?, end);
    }
    let open = Vmnet::open(Mode::Nat, true, || end.signals.stop().is_some());
    let vmnet = open.map_err(io::Error::other)?;
    caller.become_caller().map_err(io::Error::other)?;
    // What vmnet does not say is learned with the lease, as by the program itself.
    let filters = filters(&traffic::rules(setup.rules), |policy| Config {
        vm_mac: VMNET_MAC,
        gateway: vmnet.gateway(),
        gateway_mac: None,
        subnet: vmnet.subnet(),
        mode: Mode::Nat,
        isolation: true,
        max_frame: vmnet.max_frame(),
        policy,
        connection_rate: CONNECTION_RATE,
        names: filter::Names::default(),
    })?;
    run_at(setup, vm, vmnet, slowed(setup, filters), end)
}

/// The same at any endpoint.
fn run_at(
    setup: &Setup,
    vm: OwnedFd,
    host: impl Endpoint,
    filters: (Slowed<Outbound>, Slowed<Inbound>),
    end: &mut End,
) -> io::Result<()> {
    if !matches!(setup.subject, Subject::Bare | Subject::OneFrame) {
        return run_engine(setup, vm, host, filters, end);
    }
    let vm = VmSocket::new(vm, setup.max_frame).map_err(io::Error::other)?;
    let running = if setup.subject == Subject::Bare {
        yardstick::bare(vm, host, find_place)?
    } else {
        yardstick::one_frame(vm, host, filters.0, filters.1, find_place)?
    };
    end.wait();
    running.finish();
    Ok(())
}
