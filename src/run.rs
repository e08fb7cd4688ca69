//! The story of the program: open, give up rights, forward, wait, report.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd;
use softnet::clock::Tick;
use softnet::direction::Direction;
use softnet::endpoint::vm_socket::VmSocket;
use softnet::filter::{self, Claims, LeaseCell, Names, NoClaims, Rules};
use softnet::forward::{self, Forwarding, Options};
use softnet::host::descriptors::{self, ForCommand, Inherited};
use softnet::host::liveness::{Parent, Vm};
use softnet::host::log;
#[cfg(target_os = "linux")]
use softnet::host::memory::SeldomCode;
use softnet::host::placement::Placement;
use softnet::host::privileges::Identity;
use softnet::host::registry::{Registry, Scope};
use softnet::host::signals::Signals;
use softnet::host::spawn::{self, Command};
use softnet::stop::Stop;
use softnet::wire::Mac;
use tracing::{debug, error, info, warn};

use crate::benchmark;
use crate::cli::{Config, Invocation};
use crate::report::Reporter;
use crate::uplink::{Attendant, Rights, Uplink};

/// Does what the command line said, to the end.
pub(crate) fn run(invocation: Invocation) -> anyhow::Result<ExitCode> {
    match invocation {
        Invocation::Probe => Ok(ExitCode::SUCCESS),
        Invocation::Forward {
            vm_fd,
            control_fd,
            escalated,
            config,
        } => {
            let rights = Rights::get(vm_fd, control_fd, escalated, &config)?;
            let Inherited { vm, control } = descriptors::inherit(Some(vm_fd), control_fd)?;
            let socket = vm.context("no descriptor")?;
            // Early, for whoever started softnet may be gone any moment.
            let parent = Parent::watch();
            log::start();
            if control.is_some() {
                warn!(
                    "--control-fd: rules cannot be changed at run time yet; those of the command line hold"
                );
            }
            if let Some(session) = Session::open(&config, socket, Some(&rights))? {
                session.forward(&config, None)?.wait(parent.as_ref())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Invocation::Run { command, config } => {
            let passed = ForCommand::inherit()?;
            log::start();
            let (ours, vms) = spawn::socket()?;
            let Some(session) = Session::open(&config, ours, None)? else {
                return Ok(ExitCode::SUCCESS);
            };
            let command = (command, vms, passed);
            let code = session.forward(&config, Some(command))?.wait(None)?;
            Ok(ExitCode::from(code.unwrap_or_default()))
        }
        Invocation::Bench(args) => benchmark::run(&args),
        Invocation::BenchSubject(args) => benchmark::run_subject(&args),
    }
}

/// All that needs rights, opened.
struct Session {
    identity: Identity,
    registry: Option<Arc<Registry>>,
    vm: VmSocket,
    vm_watch: Option<Vm>,
    uplink: Uplink,
    signals: Signals,
}

impl Session {
    /// Opens it all; None if a signal said stop before it was there.
    fn open(
        config: &Config,
        socket: OwnedFd,
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
        let Some(uplink) = Uplink::open(config, &identity, &mut signals, rights)? else {
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

    /// Starts the command, if there is one, gives up rights, and starts forwarding.
    fn forward(
        self,
        config: &Config,
        command: Option<(Vec<OsString>, OwnedFd, ForCommand)>,
    ) -> anyhow::Result<Control> {
        let start = |(words, socket, _passed): (Vec<_>, _, _)| {
            Command::start(&words, socket, &self.identity)
        };
        let command = command.map(start).transpose()?;
        self.identity.drop_to()?;
        if self.identity.is_unnamed_root() {
            warn!("running as root, though without capabilities: name a user with --user");
        }
        let placement = Placement::plan(config.pin).unwrap_or_else(|text| {
            info!("--pin auto: {text}");
            Placement::Anywhere
        });
        let options = Options {
            hand_over: config.hand_over,
            on_thread_start: Arc::new(move |direction| {
                if let Err(text) = placement.apply(direction) {
                    warn!("[{direction}] --pin: {text}");
                }
            }),
        };
        let stop = Stop::new().context("cannot make a pipe")?;
        let gateway = self.uplink.gateway();
        tell_scope(self.registry.as_deref());
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
            isolation: !config.policy.wants_isolation_off(),
            max_frame: self.uplink.max_frame(),
            policy: &config.policy,
            connection_rate: config.connection_rate,
            names,
        };
        let (outbound, inbound, lease, rules) = filter::pair_claiming(&filter, claims);
        info!(
            "forwarding for {} over {}, gateway {}",
            config.mac,
            self.uplink.name(),
            gateway.address
        );
        let name = self.uplink.name().to_owned();
        let (host, mut attendant) = self.uplink.split();
        attendant.begin(&rules)?;
        let forwarding = forward::start(self.vm, host, outbound, inbound, &options, &stop)
            .context("cannot start threads")?;
        Ok(Control {
            signals: self.signals,
            vm: self.vm_watch,
            attendant,
            registry: self.registry,
            mac: config.mac,
            host: name,
            lease,
            rules,
            command,
            failed: false,
            forwarding: Some((forwarding, Reporter::new(config.mac))),
            stop,
            kill_at: None,
            #[cfg(target_os = "linux")]
            seldom_code: SeldomCode::after_start(),
        })
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

/// The main thread, once frames flow: it sleeps, and looks around once a second.
struct Control {
    signals: Signals,
    vm: Option<Vm>,
    attendant: Attendant,
    registry: Option<Arc<Registry>>,
    mac: Mac,
    /// The interface's name.
    host: String,
    lease: Arc<LeaseCell>,
    rules: Arc<Rules>,
    command: Option<Command>,
    /// Whether the command was asked to end by a failure of softnet's.
    failed: bool,
    /// None once it has ended, which a command may outlive.
    forwarding: Option<(Forwarding, Reporter)>,
    stop: Stop,
    /// When the command, which was asked to end, will be made to.
    kill_at: Option<Instant>,
    #[cfg(target_os = "linux")]
    seldom_code: SeldomCode,
}

impl Control {
    /// Waits until there is nobody left to forward for, or a signal says stop. With a command,
    /// waits until that ends, and returns its code.
    fn wait(mut self, parent: Option<&Parent>) -> anyhow::Result<Option<u8>> {
        let code = loop {
            self.sleep(parent)?;
            let signal = self.signals.stop();
            if let Some(command) = &mut self.command {
                if let Some(code) = command.ended()? {
                    info!("the command ended with code {code}");
                    break Some(code);
                }
                self.press(signal);
            } else if let Some(signal) = signal {
                info!("stopped by {signal}");
                break None;
            }
            if parent.is_some_and(Parent::is_gone) {
                info!("stopping: the process that started softnet is gone");
                break None;
            }
            if self.host_gone() {
                let failure = format!(
                    "{} is gone, somebody has deleted it: start softnet again once it is there",
                    self.host
                );
                self.end_forwarding();
                ensure!(self.command.is_some(), failure);
                error!("{failure}; asking the command to end");
                self.press(Some(Signal::SIGTERM));
                self.failed = true;
            }
            if self.vm_gone() {
                info!("the VM is gone");
                self.end_forwarding();
                if self.command.is_none() {
                    break None;
                }
            }
            self.attendant.look(&self.lease, &self.rules);
            self.follow_lease();
            if let Some((forwarding, reporter)) = &mut self.forwarding {
                reporter.look(|| Direction::ALL.map(|direction| forwarding.counts(direction)));
            }
            #[cfg(target_os = "linux")]
            self.seldom_code.look();
        };
        self.end_forwarding();
        Ok(if self.failed {
            Some(crate::FAILURE)
        } else {
            code
        })
    }

    /// Sleeps until something happens, for a second at most.
    fn sleep(&self, parent: Option<&Parent>) -> anyhow::Result<()> {
        let event = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![event(self.signals.as_fd())];
        fds.extend(self.attendant.events().map(event));
        fds.extend(parent.and_then(Parent::event).map(event));
        // Set for good, and of no interest any more, when forwarding has ended.
        fds.extend(self.forwarding.as_ref().map(|_| event(self.stop.as_fd())));
        let timeout = PollTimeout::try_from(self.attendant.tick()).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for events"),
        }
    }

    /// Passes a signal on to the command. SIGINT and SIGQUIT are left at that, since they come
    /// from a terminal, which gives them to the command too, and they may have a meaning there
    /// that softnet does not know; the others are followed by SIGKILL if they do not help.
    fn press(&mut self, signal: Option<Signal>) {
        let Some(command) = &self.command else { return };
        if let Some(signal) = signal {
            let signal = match signal {
                Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP => signal,
                // What is about this process, such as its limit, means no more than that.
                _ => Signal::SIGTERM,
            };
            debug!("passing {signal} on to the command");
            command.signal(signal);
            if !matches!(signal, Signal::SIGINT | Signal::SIGQUIT) {
                self.kill_at
                    .get_or_insert_with(|| Instant::now() + PATIENCE);
            }
        }
        if self.kill_at.is_some_and(|at| Instant::now() >= at) {
            warn!("the command has not ended in {PATIENCE:?}: killing it");
            command.signal(Signal::SIGKILL);
        }
    }

    /// Whether the interface on the host's side is gone, which a thread has found out.
    fn host_gone(&self) -> bool {
        let forwarding = self.forwarding.as_ref();
        forwarding.is_some_and(|(forwarding, _)| forwarding.host_gone())
    }

    /// Whether the VM is gone: a sender may have found out, which sets the stop flag.
    fn vm_gone(&mut self) -> bool {
        if self.forwarding.is_none() {
            return false;
        }
        self.stop.is_set() || self.vm.as_mut().is_some_and(Vm::is_gone)
    }

    /// Leaves the VM's address to others once its lease has run out, and tells when another
    /// VM has the one that it was granted.
    fn follow_lease(&self) {
        let Some(registry) = &self.registry else {
            return;
        };
        registry.settle(&|| self.lease.address_at(Tick::now()));
        if let Some(refusal) = registry.new_refusal() {
            warn!("{refusal}");
        }
    }

    fn end_forwarding(&mut self) {
        if let Some((forwarding, reporter)) = self.forwarding.take() {
            let counts = forwarding.finish();
            if let Some(registry) = &self.registry {
                // First, for the server may give it to another VM as soon as it has it back.
                registry.settle(&|| None);
            }
            self.attendant.leave(&self.lease, self.mac);
            reporter.finish(counts);
        }
    }
}

/// How often the main thread looks around without being woken: less than once a second, and
/// often enough to notice within two that the VM is gone.
pub(crate) const TICK: Duration = Duration::from_millis(1100);
/// How long a command may take to end when asked to.
const PATIENCE: Duration = Duration::from_secs(10);
