//! A host's side that the caller has opened: a TAP, or a socket in its place. `softnet bench` uses
//! this to measure the program itself. It needs no privileges.

use std::os::fd::{OwnedFd, RawFd};

use anyhow::Context;
use softnet::endpoint::Endpoint;
use softnet::endpoint::synthetic::SyntheticHost;
use softnet::endpoint::vm_socket::VmSocket;
use softnet::host::gateway::{Gateway, GatewayArg};
use softnet::host::privileges::Identity;
use softnet::wire::ethernet::Ethernet;

use super::flags::HostFlags;
use super::{Host, system};

/// The flags about it.
#[derive(Debug)]
pub(crate) struct Config {
    pub(super) fd: RawFd,
    mtu: u16,
    gateway: GatewayArg,
    /// Whether a TAP's segments may be large.
    offload: bool,
}

impl Config {
    pub(super) fn new(fd: RawFd, mtu: u16, flags: &HostFlags) -> Result<Self, String> {
        let gateway = flags.gateway.ok_or("--host-fd needs --gateway")?;
        Ok(Self {
            fd,
            mtu,
            gateway,
            offload: flags.offload.unwrap_or(true),
        })
    }
}

/// The host's side, and the gateway behind it.
pub(crate) struct InheritedUplink {
    pub(super) host: Host,
    pub(super) gateway: Gateway,
}

impl InheritedUplink {
    /// Takes the descriptor, with no privileges but the caller's own.
    pub(super) fn take(
        config: &Config,
        descriptor: Option<OwnedFd>,
        identity: &Identity,
    ) -> anyhow::Result<Self> {
        identity.become_caller()?;
        let host = match system::inherit(descriptor.context("no descriptor")?, config.offload) {
            Ok(interface) => Host::Interface(interface),
            Err(socket) => {
                VmSocket::check(&socket)?;
                let max_frame = usize::from(config.mtu) + Ethernet::LEN;
                Host::Socket(SyntheticHost::new(socket.into(), max_frame))
            }
        };
        let GatewayArg { address, subnet } = config.gateway;
        // Its MAC is learned with the lease.
        let gateway = Gateway {
            address,
            subnet,
            mac: None,
        };
        Ok(Self { host, gateway })
    }

    pub(super) fn max_frame(&self) -> usize {
        match &self.host {
            Host::Interface(interface) => interface.max_frame(),
            Host::Socket(socket) => socket.max_frame(),
        }
    }
}
