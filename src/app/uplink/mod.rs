//! The host's side: one file per system, with the same functions, and one for a descriptor that the
//! caller has opened. Each has its flags, what it opens, and what it does while frames flow and
//! afterwards.

mod flags;

mod inherited;

#[cfg(tap)]
#[path = "linux.rs"]
mod system;

#[cfg(vmnet)]
#[path = "macos.rs"]
mod system;

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use softnet::endpoint::synthetic::SyntheticHost;
use softnet::filter::policy::Mode;
use softnet::filter::{LeaseCell, Rules};
use softnet::host::HostError;
use softnet::host::addresses::HostAddresses;
use softnet::host::gateway::Gateway;
use softnet::host::privileges::Identity;
use softnet::host::signals::Signals;
use softnet::wire::Mac;

use super::service::TICK;
use inherited::InheritedUplink;

pub(crate) use flags::{Exposed, HostFlags};
pub(crate) use system::{NEEDS_TAP, Privileges};

/// The flags about the host's side.
#[derive(Debug)]
pub(crate) enum Config {
    System(system::Config),
    Inherited(inherited::Config),
}

impl Config {
    /// Takes the flags for this system, and rejects the others.
    pub(crate) fn new(flags: HostFlags) -> Result<Self, String> {
        match flags.given {
            Some((fd, mtu)) => inherited::Config::new(fd, mtu, &flags).map(Self::Inherited),
            None => system::Config::new(flags).map(Self::System),
        }
    }

    /// The number of the descriptor that the caller has opened.
    pub(crate) fn host_fd(&self) -> Option<RawFd> {
        match self {
            Self::System(_) => None,
            Self::Inherited(config) => Some(config.fd),
        }
    }
}

/// The open host's side.
pub(crate) enum Uplink {
    System(system::Uplink),
    Inherited(InheritedUplink),
}

/// The endpoint for frames on the host's side.
pub(crate) enum Host {
    Interface(system::Interface),
    Socket(SyntheticHost),
}

impl Uplink {
    /// Opens what the command line names, or takes `given`. Returns None if a signal came first.
    pub(crate) fn open(
        config: &Config,
        given: Option<OwnedFd>,
        mode: Mode,
        isolated: bool,
        identity: &Identity,
        signals: &mut Signals,
        rights: Option<&Privileges>,
    ) -> anyhow::Result<Option<Self>> {
        match config {
            Config::System(config) => {
                let open = system::Uplink::open(config, mode, isolated, identity, signals, rights);
                Ok(open?.map(Self::System))
            }
            Config::Inherited(config) => InheritedUplink::take(config, given, identity)
                .map(|given| Some(Self::Inherited(given))),
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::System(uplink) => uplink.name(),
            Self::Inherited(_) => "what the caller has opened".to_owned(),
        }
    }

    pub(crate) fn gateway(&self) -> Gateway {
        match self {
            Self::System(uplink) => uplink.gateway(),
            Self::Inherited(given) => given.gateway,
        }
    }

    pub(crate) fn max_frame(&self) -> usize {
        match self {
            Self::System(uplink) => uplink.max_frame(),
            Self::Inherited(given) => given.max_frame(),
        }
    }

    /// Separates the endpoint for the forwarder from the part that looks after the host's side
    /// meanwhile.
    pub(crate) fn split(self) -> (Host, UplinkControl) {
        match self {
            Self::System(uplink) => {
                let (interface, control) = uplink.split();
                (Host::Interface(interface), UplinkControl::System(control))
            }
            Self::Inherited(given) => (given.host, UplinkControl::Inherited(HostAddresses::new())),
        }
    }
}

/// Looks after the host's side while frames flow. If the caller has opened it, the caller looks
/// after it, and only the rules are told the host's addresses.
pub(crate) enum UplinkControl {
    System(system::UplinkControl),
    Inherited(HostAddresses),
}

impl UplinkControl {
    /// What wakes the main thread for [`poll`](Self::poll), besides the time.
    pub(crate) fn events(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::System(control) => control.events(),
            Self::Inherited(_) => None,
        }
    }

    /// The interval at which to look.
    pub(crate) fn tick(&self) -> Duration {
        match self {
            Self::System(control) => control.tick(),
            Self::Inherited(_) => TICK,
        }
    }

    /// Tells the rules the host's addresses, before frames flow.
    pub(crate) fn begin(&mut self, rules: &Rules) -> Result<(), HostError> {
        match self {
            Self::System(control) => control.begin(rules),
            Self::Inherited(addresses) => addresses.update_rules(rules),
        }
    }

    /// Tells the filter and the host what has changed.
    pub(crate) fn poll(&mut self, lease: &LeaseCell, rules: &Rules) {
        if let Self::System(control) = self {
            control.poll(lease, rules);
        }
    }

    /// Cleans up; must be called when nothing is forwarded any more.
    pub(crate) fn close(&mut self, lease: &LeaseCell, rules: &Rules, vm: Mac) {
        if let Self::System(control) = self {
            control.close(lease, rules, vm);
        }
    }
}
