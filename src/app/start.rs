//! Starts forwarding: opens everything that needs privileges, drops the privileges, and starts the
//! threads and the services.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::Context;
use nix::unistd;
use softnet::control::{self, Channel, Rights};
use softnet::endpoint::vm_socket::VmSocket;
use softnet::filter::{self, Audit, Claims, Inbound, LeaseCell, Names, NoClaims, Outbound, Rules};
use softnet::forward::{self, Options};
use softnet::host::control_socket::{Listener, Place};
use softnet::host::descriptors::ForCommand;
use softnet::host::liveness::{Parent, Vm};
use softnet::host::placement::Placement;
use softnet::host::privileges::Identity;
use softnet::host::registry::{Registry, Scope};
use softnet::host::signals::Signals;
use softnet::host::spawn::Command;
use softnet::stop::Stop;
use tracing::{info, warn};

use super::config::Config;
use super::service::Forwarder;
use super::services::{control as clients, parent, registry, report, signals, uplink, vm};
use super::supervise::Services;
use super::uplink::{Host, Privileges, Uplink};

/// Everything that needs privileges, open.
pub(crate) struct Session {
    identity: Identity,
    registry: Option<Arc<Registry>>,
    /// Where the control socket is to be.
    place: Option<Place>,
    vm: VmSocket,
    vm_watch: Option<Vm>,
    uplink: Uplink,
    signals: Signals,
}

impl Session {
    /// Opens everything. Returns None if a signal that means stop came first.
    pub(crate) fn open(
        config: &Config,
        socket: OwnedFd,
        host: Option<OwnedFd>,
        rights: Option<&Privileges>,
    ) -> anyhow::Result<Option<Self>> {
        config
            .warnings
            .iter()
            .for_each(|warning| warn!("{warning}"));
        let identity = Identity::find(config.user.as_deref(), config.group.as_deref())?;
        // From here on a stop signal is handled in its turn; looking up users may take some time.
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
        // Not before there is an interface: see `Opened::claim_mac`.
        let registry = registry.map(|registry| registry.claim_mac(config.mac));
        let registry = registry.transpose()?.map(Arc::new);
        // Only with the registry it is certain that nobody else serves the VM.
        let place = registry.as_ref().map(|_| Place::prepare(&identity));
        let place = place.transpose().unwrap_or_else(|error| {
            warn!("no control socket: {:#}", anyhow::Error::from(error));
            None
        });
        let vm_watch = Vm::watch(socket.as_fd());
        let vm_watch = vm_watch.map_err(|error| {
            info!(
                "cannot watch the VM's socket, so only sending a frame to it will show that the VM \
                 is gone: {error}"
            );
        });
        let vm = VmSocket::new(socket, uplink.max_frame())?;
        let vm_watch = vm_watch.ok();
        Ok(Some(Self {
            identity,
            registry,
            place,
            vm,
            vm_watch,
            uplink,
            signals,
        }))
    }

    /// Starts the command, if there is one, drops privileges, and starts forwarding. Returns what
    /// the main thread must look after from then on.
    pub(crate) fn forward(
        self,
        config: &Config,
        parent: Option<Parent>,
        control: Option<Channel>,
        command: Option<(Vec<OsString>, OwnedFd, ForCommand)>,
    ) -> anyhow::Result<(Services, Forwarder)> {
        let start = |(words, socket, _passed): (Vec<_>, _, _)| {
            Command::start(&words, socket, &self.identity)
        };
        let command = command.map(start).transpose()?;
        self.identity.drop_to()?;
        if self.identity.is_unnamed_root() {
            warn!("running as root, even if without capabilities: name another user with --user");
        }
        let options = options(config);
        let stop = Stop::new().context("cannot make a pipe")?;
        tell_scope(self.registry.as_deref());
        let (mut outbound, mut inbound, lease, rules) = self.filters(config);
        let audit = config.audit.then(Arc::<Audit>::default);
        if let Some(audit) = &audit {
            warn!(
                "--audit: the policy is NOT enforced: what it would drop is forwarded and only \
                 counted, even to private networks and metadata services"
            );
            outbound.audit(Arc::clone(audit));
            inbound.audit(Arc::clone(audit));
        }
        let socket = self.place.and_then(|place| listen(&place, config));
        let vm = control::Vm {
            rules: Arc::clone(&rules),
            connections: outbound.connections(),
            denied: outbound.denied(),
        };
        let name = self.uplink.name();
        let gateway = self.uplink.gateway().address;
        let (host, mut uplink_control) = self.uplink.split();
        uplink_control.begin(&rules)?;
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
        // Polled in this order, and closed in reverse order.
        let services: Services = vec![
            // First, because somebody waits for softnet or the command to end. Closed last, so that
            // everything else is closed when a command is asked to end.
            signals::service(self.signals, command),
            parent::service(parent),
            vm::service(self.vm_watch, stop),
            clients::service(vm, control, socket),
            uplink::service(uplink_control, name, mac, Arc::clone(&lease), rules),
            // Closed before the uplink releases the lease: as soon as the server has the lease
            // back, it may grant the address to another VM, for which the address must be free.
            registry::service(self.registry, lease),
            report::service(mac, audit),
        ];
        Ok((services, Forwarder::flowing(forwarding)))
    }

    /// Creates the filters of both directions, and the lease and the rules that they share with the
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

/// Listens for those who ask about the VM.
fn listen(place: &Place, config: &Config) -> Option<(Listener, Rights)> {
    let rights = if config.steer {
        Rights::Steer
    } else {
        Rights::Read
    };
    match place.listen(config.mac) {
        Ok(listener) => Some((listener, rights)),
        Err(error) => {
            warn!("no control socket: {error}");
            None
        }
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
        answers: config.rejects,
        on_thread_start: Arc::new(move |direction| {
            if let Err(text) = placement.apply(direction) {
                warn!("[{direction}] --pin: {text}");
            }
        }),
    }
}

/// Logs it if the registry protects the VM's MAC and address from only some VMs, or from none.
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
