//! A subject at a socket or at vmnet: everything over endpoints.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use ipnet::Ipv4Net;

use super::{End, Setup, Subject, find_place, laboratory, run_engine, slowed};
use crate::bench::network::filters;
use crate::bench::side::HostSide;
use crate::bench::{traffic, yardstick};
use crate::endpoint::Endpoint;
use crate::endpoint::synthetic::SyntheticHost;
use crate::endpoint::vm_socket::VmSocket;
use crate::endpoint::vmnet::Vmnet;
use crate::filter::{self, CONNECTION_RATE, Config, Inbound, Mode, Outbound};
use crate::host::privileges::Identity;
use crate::stats::Counts;
use crate::wire::Mac;

/// The VM's MAC address at vmnet, where others may have the usual ones: always the same, so that
/// the host's DHCP server has one lease for all measurements.
pub(in crate::bench) const VMNET_MAC: Mac = Mac([0x02, b's', b'o', b'f', b't', 0]);

/// There is no such signal on macOS: [`End`] notices.
#[allow(clippy::unnecessary_wraps)] // As on Linux.
pub(super) fn die_with_bench() -> io::Result<()> {
    Ok(())
}

/// Everything over endpoints, at a socket.
pub(super) fn run_between(
    setup: &Setup,
    caller: &Identity,
    vm: OwnedFd,
    host: OwnedFd,
    end: &mut End,
) -> io::Result<Option<[Counts; 2]>> {
    if setup.host != HostSide::Vmnet {
        let host = SyntheticHost::new(UnixDatagram::from(host), setup.max_frame);
        return run_at(setup, vm, host, || laboratory(setup), end);
    }
    let open = Vmnet::open(Mode::Nat, true, || end.signals.stop().is_some());
    let vmnet = open.map_err(io::Error::other)?;
    caller.become_caller().map_err(io::Error::other)?;
    let (gateway, subnet, max_frame) = (vmnet.gateway(), vmnet.subnet(), vmnet.max_frame());
    let filters = || filters_at_vmnet(gateway, subnet, setup.rules, max_frame);
    run_at(setup, vm, vmnet, filters, end)
}

/// The same at any endpoint.
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

/// The filters at vmnet, which says of its network what the arguments are; the rest is learned
/// with the lease, as by the program itself.
fn filters_at_vmnet(
    gateway: Ipv4Addr,
    subnet: Option<Ipv4Net>,
    rules: usize,
    max_frame: usize,
) -> io::Result<(Outbound, Inbound)> {
    filters(&traffic::rules(rules), |policy| Config {
        vm_mac: VMNET_MAC,
        gateway,
        gateway_mac: None,
        subnet,
        mode: Mode::Nat,
        isolation: true,
        max_frame,
        policy,
        connection_rate: CONNECTION_RATE,
        names: filter::Names::default(),
    })
}
