//! The host's side: one file per system, with the same functions, and one for a descriptor that the
//! caller has opened. Each has its flags, what it opens, and what it does while frames flow and
//! afterwards.

mod flags;

mod given;

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
use given::Given;

pub(crate) use flags::{Exposed, HostFlags};
pub(crate) use system::{NEEDS_TAP, Rights};

/// The flags about the host's side.
#[derive(Debug)]
pub(crate) enum Config {
    System(system::Config),
    Given(given::Config),
}

impl Config {
    /// Takes the flags for this system, and rejects the others.
    pub(crate) fn new(flags: HostFlags) -> Result<Self, String> {
        match flags.given {
            Some((fd, mtu)) => given::Config::new(fd, mtu, flags.gateway).map(Self::Given),
            None => system::Config::new(flags).map(Self::System),
        }
    }

    /// The number of the descriptor that the caller has opened.
    pub(crate) fn host_fd(&self) -> Option<RawFd> {
        match self {
            Self::System(_) => None,
            Self::Given(config) => Some(config.fd),
        }
    }
}

/// The open host's side.
pub(crate) enum Uplink {
    System(system::Uplink),
    Given(Given),
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
        rights: Option<&Rights>,
    ) -> anyhow::Result<Option<Self>> {
        match config {
            Config::System(config) => {
                let open = system::Uplink::open(config, mode, isolated, identity, signals, rights);
                Ok(open?.map(Self::System))
            }
            Config::Given(config) => {
                Given::take(config, given, identity).map(|given| Some(Self::Given(given)))
            }
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::System(uplink) => uplink.name(),
            Self::Given(_) => "what the caller has opened".to_owned(),
        }
    }

    pub(crate) fn gateway(&self) -> Gateway {
        match self {
            Self::System(uplink) => uplink.gateway(),
            Self::Given(given) => given.gateway,
        }
    }

    pub(crate) fn max_frame(&self) -> usize {
        match self {
            Self::System(uplink) => uplink.max_frame(),
            Self::Given(given) => given.max_frame(),
        }
    }

    /// Separates the endpoint for the forwarder from the part that looks after the host's side
    /// meanwhile.
    pub(crate) fn split(self) -> (Host, Attendant) {
        match self {
            Self::System(uplink) => {
                let (interface, attendant) = uplink.split();
                (Host::Interface(interface), Attendant::System(attendant))
            }
            Self::Given(given) => (given.host, Attendant::Given(HostAddresses::new())),
        }
    }
}

/// Looks after the host's side while frames flow. If the caller has opened it, the caller looks
/// after it, and only the rules are told the host's addresses.
pub(crate) enum Attendant {
    System(system::Attendant),
    Given(HostAddresses),
}

impl Attendant {
    /// What wakes the main thread for [`look`](Self::look), besides the time.
    pub(crate) fn events(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::System(attendant) => attendant.events(),
            Self::Given(_) => None,
        }
    }

    /// The interval at which to look.
    pub(crate) fn tick(&self) -> Duration {
        match self {
            Self::System(attendant) => attendant.tick(),
            Self::Given(_) => TICK,
        }
    }

    /// Tells the rules the host's addresses, before frames flow.
    pub(crate) fn begin(&mut self, rules: &Rules) -> Result<(), HostError> {
        match self {
            Self::System(attendant) => attendant.begin(rules),
            Self::Given(addresses) => addresses.tell(rules),
        }
    }

    /// Tells the filter and the host what has changed.
    pub(crate) fn look(&mut self, lease: &LeaseCell, rules: &Rules) {
        if let Self::System(attendant) = self {
            attendant.look(lease, rules);
        }
    }

    /// Cleans up; must be called when nothing is forwarded any more.
    pub(crate) fn leave(&mut self, lease: &LeaseCell, vm: Mac) {
        if let Self::System(attendant) = self {
            attendant.leave(lease, vm);
        }
    }
}
