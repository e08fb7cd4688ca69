//! The host's side on macOS: what is opened, and what is done about it while frames flow.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use softnet::clock::Tick;
use softnet::endpoint::Endpoint;
use softnet::endpoint::vm_socket;
use softnet::endpoint::vmnet::{self, ToVmnet, Vmnet, VmnetError};
use softnet::filter::policy::Mode;
use softnet::filter::{LeaseCell, Rules};
use softnet::host::HostError;
use softnet::host::addresses::HostAddresses;
use softnet::host::gateway::Gateway;
use softnet::host::macos::bootpd;
use softnet::host::macos::escalation::Start;
use softnet::host::macos::port_forward::{Exposed, PortForward};
use softnet::host::privileges::Identity;
use softnet::host::release;
use softnet::host::signals::Signals;
use softnet::wire::Mac;
use tracing::{debug, warn};

use super::flags::HostFlags;
use crate::app::service::TICK;

/// The endpoint for frames.
pub(crate) type Interface = Vmnet;

/// Returns what the caller has opened, because a vmnet interface cannot be passed to another
/// process.
pub(crate) fn inherit(descriptor: OwnedFd, _offload: bool) -> Result<Interface, OwnedFd> {
    Err(descriptor)
}

/// Whether `--tap` is required.
pub(crate) const NEEDS_TAP: bool = false;

/// The flags about the host's side.
#[derive(Debug)]
pub(crate) struct Config {
    expose: Vec<Exposed>,
    lease_time: Option<u32>,
}

impl Config {
    /// Takes the flags for macOS, and rejects the others.
    pub(crate) fn new(flags: HostFlags) -> Result<Self, String> {
        if flags.tap.is_some() {
            return Err("--tap is for Linux: on macOS, vmnet is the host's side".to_owned());
        }
        if flags.gateway.is_some() {
            return Err("--gateway is for Linux: on macOS, vmnet says which it is".to_owned());
        }
        if flags.offload.is_some() {
            return Err("--offload is for Linux: vmnet moves segments as they are".to_owned());
        }
        let ports = flags.expose.into_iter().map(|exposed| Exposed {
            external: exposed.external,
            internal: exposed.internal,
        });
        Ok(Self {
            expose: ports.collect(),
            lease_time: flags.lease_time,
        })
    }
}

/// How to get the privileges that vmnet needs.
pub(crate) struct Privileges(Start);

impl Privileges {
    /// Becomes root if vmnet needs that and sudo permits it. `named` says whether the command line
    /// names a user, and whether it names a group.
    pub(crate) fn get(
        vm_fd: RawFd,
        control_fd: Option<RawFd>,
        escalated: bool,
        named: [bool; 2],
    ) -> anyhow::Result<Self> {
        let start = Start {
            fds: [Some(vm_fd), control_fd].into_iter().flatten().collect(),
            named,
            escalated,
        };
        start.become_root_if_needed()?;
        Ok(Self(start))
    }
}

/// An interface of vmnet.
pub(crate) struct Uplink {
    vmnet: Vmnet,
    ports: PortForward,
}

impl Uplink {
    /// Starts an interface. Returns None if a signal came first.
    pub(crate) fn open(
        config: &Config,
        mode: Mode,
        isolated: bool,
        identity: &Identity,
        signals: &mut Signals,
        rights: Option<&Privileges>,
    ) -> anyhow::Result<Option<Self>> {
        let Config { expose, lease_time } = config;
        bootpd::check_lease_time(*lease_time, identity.are_borrowed())?;
        let is_root = geteuid().is_root();
        if is_root {
            // The DHCP server is configured again when an interface starts.
            bootpd::set_lease_time(*lease_time);
        }
        let vmnet = match Vmnet::open(mode, isolated, || signals.stop().is_some()) {
            Err(VmnetError::Interrupted) => return Ok(None),
            Err(error) => {
                if let (VmnetError::NotAuthorized { .. }, Some(Privileges(start))) =
                    (&error, rights)
                {
                    match start.become_root(|| signals.stop().is_some()) {
                        Ok(()) => return Ok(None),
                        Err(why) => debug!("nor as root: {why}"),
                    }
                }
                return Err(error.into());
            }
            Ok(vmnet) => vmnet,
        };
        if lease_time.is_some() && !is_root {
            warn!("--bootpd-lease-time is left out: only root may set it");
        }
        Ok(Some(Self {
            ports: PortForward::new(vmnet.port_rules(), expose),
            vmnet,
        }))
    }

    #[allow(clippy::unused_self)] // As on Linux.
    pub(crate) fn name(&self) -> String {
        "vmnet".to_owned()
    }

    pub(crate) fn gateway(&self) -> Gateway {
        Gateway {
            address: self.vmnet.gateway(),
            subnet: self.vmnet.subnet(),
            // Learned with the lease.
            mac: None,
        }
    }

    pub(crate) fn max_frame(&self) -> usize {
        self.vmnet.max_frame()
    }

    /// Separates the endpoint for the forwarder from the part that looks after the interface
    /// meanwhile.
    pub(crate) fn split(self) -> (Vmnet, UplinkControl) {
        let control = UplinkControl {
            sink: self.vmnet.sink(),
            ports: self.ports,
            host: HostAddresses::new(),
        };
        (self.vmnet, control)
    }
}

/// Lets the host's ports follow the lease, and releases the lease at the end.
pub(crate) struct UplinkControl {
    sink: ToVmnet,
    ports: PortForward,
    host: HostAddresses,
}

impl UplinkControl {
    /// What wakes the main thread for [`poll`](Self::poll), besides the time.
    #[allow(clippy::unused_self)] // As on Linux.
    pub(crate) fn events(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The interval at which to look.
    pub(crate) fn tick(&self) -> Duration {
        if self.ports.is_settled() { TICK } else { SOON }
    }

    /// Tells the rules the host's addresses, before frames flow.
    pub(crate) fn begin(&mut self, rules: &Rules) -> Result<(), HostError> {
        self.host.update_rules(rules)
    }

    /// Lets the ports follow the lease, and the rules the host's addresses, whose changes do not
    /// wake the main thread.
    pub(crate) fn poll(&mut self, lease: &LeaseCell, rules: &Rules) {
        self.host.may_have_changed();
        if let Err(error) = self.host.update_rules(rules) {
            debug!("{error}");
        }
        let now = Tick::now();
        let lease = lease.lease().filter(|lease| now < lease.expires);
        self.ports.follow(lease.map(|lease| lease.address));
    }

    /// Cleans up; must be called when nothing is forwarded any more.
    pub(crate) fn close(&mut self, lease: &LeaseCell, rules: &Rules, vm: Mac) {
        let ports_until = Instant::now() + PORTS_PATIENCE;
        self.ports.follow(None);
        let given = release::give_back(&mut self.sink, lease, rules, vm);
        if let Some(address) = given {
            bootpd::await_release(address, || self.ports.follow(None));
        }
        self.ports.remove_all(ports_until);
        debug!(
            "events that vmnet did not announce: {}",
            vmnet::missed_events()
        );
        let slow = vm_socket::moved_one_by_one();
        debug!(
            "frames of the VM that took a system call each, as this version of macOS requires: {slow}"
        );
    }
}

/// Often enough to follow pending requests, and too rare to matter.
const SOON: Duration = Duration::from_millis(50);
/// How long to wait for port rules to be removed. They are removed with the interface anyway.
const PORTS_PATIENCE: Duration = Duration::from_millis(250);
