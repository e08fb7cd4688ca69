//! The host's side on Linux: what is opened, and what is done about it while frames flow.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use softnet::endpoint::Endpoint;
use softnet::endpoint::tap::{Offload, Tap, ToTap};
use softnet::filter::policy::Mode;
use softnet::filter::{LeaseCell, Rules};
use softnet::host::HostError;
use softnet::host::addresses::HostAddresses;
use softnet::host::gateway::linux::{Watch, find_with_warning};
use softnet::host::gateway::{Gateway, GatewayArg};
use softnet::host::privileges::Identity;
use softnet::host::release;
use softnet::host::signals::Signals;
use softnet::wire::Mac;
use tracing::{debug, info, warn};

use super::flags::HostFlags;
use crate::app::service::TICK;

/// The endpoint for frames.
pub(crate) type Interface = Tap;

/// Takes over what the caller has opened, or returns it if it is not a TAP.
pub(crate) fn inherit(descriptor: OwnedFd, offload: bool) -> Result<Interface, OwnedFd> {
    Tap::inherit(descriptor, wanted(offload))
}

const fn wanted(offload: bool) -> Offload {
    if offload { Offload::Auto } else { Offload::Off }
}

/// Whether `--tap` is required.
pub(crate) const NEEDS_TAP: bool = true;

/// The flags about the TAP.
#[derive(Debug)]
pub(crate) struct Config {
    tap: String,
    gateway: Option<GatewayArg>,
    offload: Offload,
}

impl Config {
    /// Takes the flags for Linux, and rejects the others.
    pub(crate) fn new(flags: HostFlags) -> Result<Self, String> {
        if !flags.expose.is_empty() {
            return Err(
                "--expose is for macOS: on Linux, let the firewall forward ports \
                        (nftables, dnat)"
                    .to_owned(),
            );
        }
        if flags.lease_time.is_some() {
            return Err(
                "--bootpd-lease-time is for macOS: on Linux, the DHCP server that you \
                        run has such a setting"
                    .to_owned(),
            );
        }
        Ok(Self {
            tap: flags.tap.ok_or("--tap is missing")?,
            gateway: flags.gateway,
            offload: wanted(flags.offload.unwrap_or(true)),
        })
    }
}

/// On Linux, getting privileges is up to the caller.
pub(crate) struct Privileges;

impl Privileges {
    #[allow(clippy::unnecessary_wraps)] // As on macOS.
    pub(crate) fn get(
        _vm_fd: RawFd,
        _control_fd: Option<RawFd>,
        _escalated: bool,
        _named: [bool; 2],
    ) -> anyhow::Result<Self> {
        Ok(Self)
    }
}

/// The TAP, and the gateway behind it.
pub(crate) struct Uplink {
    tap: Tap,
    name: String,
    gateway: Gateway,
    /// A probable mistake, to be logged once the start can no longer fail: a failure is a single
    /// line.
    warning: Option<String>,
    watch: Watch,
}

impl Uplink {
    /// Opens what the command line names. Returns None, on other systems, if a signal came first.
    pub(crate) fn open(
        config: &Config,
        _mode: Mode,
        _isolated: bool,
        identity: &Identity,
        _signals: &mut Signals,
        _rights: Option<&Privileges>,
    ) -> anyhow::Result<Option<Self>> {
        // CAP_NET_ADMIN can open anybody's TAP, and here a caller without it chooses the TAP.
        if identity.are_borrowed() {
            identity.drop_to()?;
        }
        let tap = Tap::open(&config.tap, config.offload)?;
        let (gateway, warning) = find_with_warning(&config.tap, config.gateway, tap.is_new())?;
        Ok(Some(Self {
            tap,
            name: config.tap.clone(),
            gateway,
            warning,
            watch: Watch::new(&config.tap, gateway)?,
        }))
    }

    pub(crate) fn name(&self) -> String {
        self.name.clone()
    }

    pub(crate) fn gateway(&self) -> Gateway {
        self.gateway
    }

    pub(crate) fn max_frame(&self) -> usize {
        self.tap.max_frame()
    }

    /// Separates the endpoint for the forwarder from the part that looks after the interface
    /// meanwhile.
    pub(crate) fn split(self) -> (Tap, UplinkControl) {
        if let Some(warning) = self.warning {
            warn!("{warning}");
        }
        if let Some(error) = self.tap.refused() {
            info!("--offload: {} takes no large segments: {error}", self.name);
        }
        let sink = self.tap.sink();
        let control = UplinkControl {
            watch: self.watch,
            takes_large: sink.takes_large(),
            sink,
            host: HostAddresses::new(),
        };
        (self.tap, control)
    }
}

/// Follows the gateway, and releases the lease at the end.
pub(crate) struct UplinkControl {
    watch: Watch,
    sink: ToTap,
    /// Whether it took large segments when this was last looked at.
    takes_large: bool,
    host: HostAddresses,
}

impl UplinkControl {
    /// What wakes the main thread for [`poll`](Self::poll), besides the time.
    pub(crate) fn events(&self) -> Option<BorrowedFd<'_>> {
        Some(self.watch.as_fd())
    }

    /// The interval at which to look.
    pub(crate) fn tick(&self) -> Duration {
        TICK
    }

    /// Tells the rules the host's addresses, before frames flow.
    pub(crate) fn begin(&mut self, rules: &Rules) -> Result<(), HostError> {
        self.host.update_rules(rules)
    }

    /// Tells the filter if the gateway's MAC or the host's addresses have changed.
    pub(crate) fn poll(&mut self, _lease: &LeaseCell, rules: &Rules) {
        if self.watch.take_event() {
            self.host.may_have_changed();
        }
        if let Err(error) = self.host.update_rules(rules) {
            debug!("{error}");
        }
        if self.takes_large && !self.sink.takes_large() {
            self.takes_large = false;
            warn!(
                "--offload: the TAP has refused a large segment, which it took before: softnet \
                 sends frame by frame from now on"
            );
        }
        match self.watch.new_mac() {
            Ok(Some(mac)) => {
                rules.set_gateway_mac(mac);
                // Only now it is so: whoever reads this may send at once.
                info!("the gateway's MAC address has changed to {mac}");
            }
            Ok(None) => (),
            Err(error) => debug!("cannot look at the gateway: {error}"),
        }
    }

    /// Cleans up; must be called when nothing is forwarded any more.
    pub(crate) fn close(&mut self, lease: &LeaseCell, rules: &Rules, vm: Mac) {
        release::give_back(&mut self.sink, lease, rules, vm);
    }
}
