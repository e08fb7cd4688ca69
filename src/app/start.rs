//! The start of forwarding: opens everything that needs rights, gives the rights up, and starts
//! the threads and the services.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::Context;
use nix::unistd;
use softnet::control::Channel;
use softnet::endpoint::vm_socket::VmSocket;
use softnet::filter::{self, Claims, Inbound, LeaseCell, Names, NoClaims, Outbound, Rules};
use softnet::forward::{self, Options};
use softnet::host::descriptors::ForCommand;
use softnet::host::liveness::{Parent, Vm};
use softnet::host::placement::Placement;
use softnet::host::privileges::Identity;
use softnet::host::registry::{Registry, Scope};
use softnet::host::signals::Signals;
use softnet::host::spawn::Command;
use softnet::stop::Stop;
use tracing::{info, warn};

use super::cli::Config;
use super::service::Frames;
use super::services::{control, parent, registry, report, signals, uplink, vm};
use super::supervise::Services;
use super::uplink::{Host, Rights, Uplink};

/// All that needs rights, opened.
pub(crate) struct Session {
    identity: Identity,
    registry: Option<Arc<Registry>>,
    vm: VmSocket,
    vm_watch: Option<Vm>,
    uplink: Uplink,
    signals: Signals,
}

impl Session {
    /// Opens it all; None if a signal said stop before it was there.
    pub(crate) fn open(
        config: &Config,
        socket: OwnedFd,
        host: Option<OwnedFd>,
        rights: Option<&Rights>,
    ) -> anyhow::Result<Option<Self>> {
        config
            .warnings
            .iter()
            .for_each(|warning| warn!("{warning}"));
        let identity = Identity::find(config.user.as_deref(), config.group.as_deref())?;
        // From here on a stop waits for its turn; looking up users might take its time.
        let mut signals = Signals::catch()?;
        VmSocket::check(&socket)?;
        let registry = config.registry.then(Registry::open).transpose()?;
        let (mode, isolated) = (config.mode, config.isolated());
        let uplink = Uplink::open(
            &config.uplink,
            host,
            mode,
            isolated,
            &identity,
            &mut signals,
            rights,
        )?;
        let Some(uplink) = uplink else {
            return Ok(None);
        };
        // Not before there is an interface: see `Opened::enter`.
        let registry = registry.map(|registry| registry.enter(config.mac));
        let registry = registry.transpose()?.map(Arc::new);
        let vm_watch = Vm::watch(socket.as_fd());
        let vm_watch = vm_watch.map_err(|error| {
            info!("that the VM is gone will show only when a frame is sent to it: {error}");
        });
        let vm = VmSocket::new(socket, uplink.max_frame())?;
        let vm_watch = vm_watch.ok();
        Ok(Some(Self {
            identity,
            registry,
            vm,
            vm_watch,
            uplink,
            signals,
        }))
    }

    /// Starts the command, if there is one, gives up rights, and starts forwarding. Returns what
    /// the main thread has to attend to from then on.
    pub(crate) fn forward(
        self,
        config: &Config,
        parent: Option<Parent>,
        control: Option<Channel>,
        command: Option<(Vec<OsString>, OwnedFd, ForCommand)>,
    ) -> anyhow::Result<(Services, Frames)> {
        let start = |(words, socket, _passed): (Vec<_>, _, _)| {
            Command::start(&words, socket, &self.identity)
        };
        let command = command.map(start).transpose()?;
        self.identity.drop_to()?;
        if self.identity.is_unnamed_root() {
            warn!("running as root, though without capabilities: name a user with --user");
        }
        let options = options(config);
        let stop = Stop::new().context("cannot make a pipe")?;
        tell_scope(self.registry.as_deref());
        let (outbound, inbound, lease, rules) = self.filters(config);
        let name = self.uplink.name();
        let gateway = self.uplink.gateway().address;
        let (host, mut attendant) = self.uplink.split();
        attendant.begin(&rules)?;
        info!(
            "forwarding for {} over {name}, gateway {gateway}",
            config.mac
        );
        let forwarding = match host {
            Host::Interface(host) => {
                forward::start(self.vm, host, outbound, inbound, &options, &stop)
            }
            Host::Socket(host) => forward::start(self.vm, host, outbound, inbound, &options, &stop),
        };
        let forwarding = forwarding.context("cannot start threads")?;
        let mac = config.mac;
        // Polled in this order, and closed in the reverse order.
        let services: Services = vec![
            // First, as somebody waits for softnet or the command to end. Closed last: a command
            // that is asked to end finds everything else closed.
            signals::service(self.signals, command),
            parent::service(parent),
            vm::service(self.vm_watch, stop),
            control::service(control, Arc::clone(&rules)),
            uplink::service(attendant, name, mac, Arc::clone(&lease), rules),
            // Closed before the uplink gives the lease back: as soon as the server has that, it
            // may grant the address to another VM, which then finds it free.
            registry::service(self.registry, lease),
            report::service(mac),
        ];
        Ok((services, Frames::flowing(forwarding)))
    }

    /// Makes the filters of both directions, and the lease and the rules that they share with the
    /// services.
    fn filters(&self, config: &Config) -> (Outbound, Inbound, Arc<LeaseCell>, Arc<Rules>) {
        let gateway = self.uplink.gateway();
        let claims: Arc<dyn Claims> = match &self.registry {
            Some(registry) => Arc::<Registry>::clone(registry),
            None => Arc::new(NoClaims),
        };
        let host = unistd::gethostname().unwrap_or_default();
        let host = host.to_string_lossy();
        let names = if config.strips_names {
            Names::Strip
        } else {
            Names::Pass { host: &host }
        };
        let filter = filter::Config {
            vm_mac: config.mac,
            gateway: gateway.address,
            gateway_mac: gateway.mac,
            subnet: gateway.subnet,
            mode: config.mode,
            isolation: config.isolated(),
            max_frame: self.uplink.max_frame(),
            policy: &config.policy,
            connection_rate: config.connection_rate,
            names,
        };
        filter::pair_claiming(&filter, claims)
    }
}

/// How the data threads hand frames over, and where they run.
fn options(config: &Config) -> Options {
    let placement = Placement::plan(config.pin).unwrap_or_else(|text| {
        info!("--pin auto: {text}");
        Placement::Anywhere
    });
    Options {
        hand_over: config.hand_over,
        on_thread_start: Arc::new(move |direction| {
            if let Err(text) = placement.apply(direction) {
                warn!("[{direction}] --pin: {text}");
            }
        }),
    }
}

/// Tells whom the registry keeps from having this VM's MAC or address, if not all others.
fn tell_scope(registry: Option<&Registry>) {
    match registry.map(|registry| (registry.scope(), registry.path().display())) {
        Some((Scope::Host, _)) => (),
        Some((Scope::User, path)) => info!(
            "the registry of VMs, {path}, guards only this user's VMs from each other, as \
             softnet was not started by root"
        ),
        None => warn!("--no-registry: another VM may have this one's MAC or address"),
    }
}
