//! Parses the command line ([`RawArgs`]) into what is to be done ([`Invocation`]).
//!
//! Nothing in here touches the system, so `--help` or a mistyped flag changes nothing, even as
//! root.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::RawFd;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, value_parser};
use softnet::filter::CONNECTION_RATE;
use softnet::filter::policy::{HostBits, Mode, Policy};
use softnet::forward::HandOver;
use softnet::host::files::NamedFile;
use softnet::host::gateway::GatewayArg;
use softnet::host::placement::{Pin, Placement};
use softnet::wire::Mac;

use super::ask::{Ask, AskArgs};
use super::check::{Check, CheckArgs};
use super::config::{Config, Given};
use super::uplink::{self, Exposed, HostFlags};
use super::values::{HAND_OVERS, exposed, gateway, interface, station, word};
use crate::benchmark::{BenchArgs, SubjectArgs};

/// The result of parsing the command line.
pub(crate) enum Parsed {
    /// A valid command line.
    Invocation(Box<Invocation>),
    /// Text to print on standard output, for `--help` or `--version`.
    Print(String),
    /// A usage error, in one line.
    Usage(String),
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Nothing: softnet was started only to find out whether sudo would start it.
    Probe,
    /// Forward for a VM that somebody else has started.
    Forward {
        vm_fd: RawFd,
        control_fd: Option<RawFd>,
        /// Whether softnet itself has started this process, through sudo.
        escalated: bool,
        config: Config,
    },
    /// Start a command that is a VM, and forward for it.
    Run {
        command: Vec<OsString>,
        config: Config,
    },
    /// Say what rules do with packets.
    Check(Check),
    /// Ask a running softnet.
    Ask(Ask),
    /// Measure.
    Bench(BenchArgs),
    /// Be the process that is measured.
    BenchSubject(SubjectArgs),
}

/// Parses a command line, which begins with the program's name.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Parsed {
    let low = match RawArgs::try_parse_from(words) {
        Ok(low) => low,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    Parsed::Print(error.render().to_string())
                }
                _ => Parsed::Usage(one_line(&error)),
            };
        }
    };
    match low.validate() {
        Ok(invocation) => Parsed::Invocation(Box::new(invocation)),
        Err(line) => Parsed::Usage(line),
    }
}

/// Filters and forwards the network traffic of one virtual machine.
///
/// softnet moves Ethernet frames between the VM's end of a unix datagram socketpair and an
/// interface of the host. Frames from the VM must have its MAC address and the IP address that
/// DHCP gave it. They may go to the public internet, to the gateway, and to whatever --allow
/// opens. Frames to the VM must be addressed to it.
#[derive(Debug, Parser)]
#[command(name = "softnet", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(disable_help_subcommand = true)]
#[command(
    after_help = "SOFTNET_LOG sets what is logged to standard error: off, error, warn, \
    info (default), debug or trace."
)]
struct RawArgs {
    /// Descriptor of the VM's socket: connected, AF_UNIX, SOCK_DGRAM, one frame per datagram
    #[arg(long, value_name = "N", required = true)]
    #[arg(allow_negative_numbers = true, value_parser = value_parser!(RawFd).range(0..))]
    vm_fd: Option<RawFd>,

    /// Descriptor of a unix stream socket over which a client reads and changes the rules
    #[arg(long, value_name = "N")]
    #[arg(allow_negative_numbers = true, value_parser = value_parser!(RawFd).range(0..))]
    #[arg(conflicts_with = "host_fd")]
    control_fd: Option<RawFd>,

    #[command(flatten)]
    forwarding: ForwardingArgs,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a command that is a VM, such as QEMU, and forward for it until it ends
    ///
    /// COMMAND inherits the VM's end of a socketpair, and `{fd}` in its arguments is replaced by
    /// the number of that descriptor. It runs as the calling user, and softnet exits with its
    /// exit code.
    #[command(max_term_width = 100)]
    Run {
        #[command(flatten)]
        forwarding: ForwardingArgs,

        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Say what rules do with packets, and which rule decides; needs neither a VM nor root
    #[command(max_term_width = 100)]
    Check(CheckArgs),
    #[command(flatten)]
    Ask(AskArgs),
    /// Measure how fast this machine forwards frames; needs neither a VM nor root
    #[command(max_term_width = 100)]
    Bench(BenchArgs),
    /// Be the process that a bench measures
    #[command(hide = true)]
    BenchSubject(SubjectArgs),
}

#[derive(Debug, Args)]
struct ForwardingArgs {
    /// The only MAC address that the VM may use
    #[arg(long, value_name = "MAC", required = true, value_parser = station)]
    vm_mac_address: Option<Mac>,

    /// What the VM can reach: nat, whatever the rules allow; host, only the gateway
    #[arg(long, value_name = "TYPE", default_value = "nat")]
    #[arg(value_parser = word(&[("nat", Mode::Nat), ("host", Mode::Host)]))]
    vm_net_type: Mode,

    /// TAP device on the host's side; created and brought up if it does not exist
    #[arg(long, value_name = "NAME", required = uplink::NEEDS_TAP, value_parser = interface)]
    tap: Option<String>,

    /// Descriptor of the host's side, which the caller has opened: a TAP, or a socket as of --vm-fd
    #[arg(long, value_name = "N", hide = true, requires = "gateway")]
    #[arg(conflicts_with_all = ["tap", "expose", "bootpd_lease_time"])]
    #[arg(allow_negative_numbers = true, value_parser = value_parser!(RawFd).range(0..))]
    host_fd: Option<RawFd>,

    /// Bytes that a packet may have where --host-fd is a socket
    #[arg(
        long,
        value_name = "BYTES",
        hide = true,
        requires = "host_fd",
        default_value = "1500"
    )]
    #[arg(value_parser = value_parser!(u16).range(68..))]
    host_mtu: u16,

    /// Whether TCP segments cross the TAP as large ones, which takes a third of the time: auto, if
    /// the kernel can; off, never (Linux)
    #[arg(long, value_name = "WHEN")]
    #[arg(value_parser = word(&[("auto", true), ("off", false)]), action = ArgAction::Set)]
    offload: Option<bool>,

    /// The gateway's address [default: that of the TAP's bridge, or of the TAP]
    ///
    /// With a prefix length, as in 192.168.64.1/24, it also gives the VM's network, which is used
    /// if that interface has no address in it.
    #[arg(long, value_name = "ADDR", value_parser = gateway)]
    gateway: Option<GatewayArg>,

    /// Rules that allow, such as 10.0.0.0/8, 1.2.3.4:443, "tcp 1.2.3.4" or @host (the gateway)
    ///
    /// Separate rules with commas; the flag may be repeated. Rules with ports come before those
    /// without. Then the longest prefix that matches wins, and of two equal ones --block.
    /// docs/rules.md has the grammar.
    #[arg(long, value_name = "LIST")]
    allow: Vec<String>,

    /// Rules that block, in the same form
    #[arg(long, value_name = "LIST")]
    block: Vec<String>,

    /// File of more rules, and of limits (TOML); the rules are added to those of --allow and --block
    ///
    /// It is read with the caller's rights, once. docs/rules.md has its keys.
    #[arg(long, value_name = "FILE")]
    policy: Option<NamedFile>,

    /// Let pass what the rules would drop, and only count it; isolation, and what keeps the VM from
    /// posing as another, stay enforced
    #[arg(long)]
    audit: bool,

    /// Let programs of the user that softnet runs as change the rules: softnet policy
    ///
    /// Without this flag they may only read. Whoever escapes from the VM into its hypervisor is
    /// one of them.
    #[arg(long)]
    steer: bool,

    /// What the VM sees of a packet that its policy refuses: drop, nothing; reject, a TCP reset or
    /// an ICMP error, at most 100 a second [default: drop, or reject with a command]
    #[arg(long, value_name = "HOW")]
    #[arg(value_parser = word(&[("drop", false), ("reject", true)]), action = ArgAction::Set)]
    on_deny: Option<bool>,

    /// New TCP connections that the VM may open per second, after 8192 at once; 0 for no limit
    /// [default: 1000]
    #[arg(long, value_name = "N")]
    #[arg(allow_negative_numbers = true)]
    connection_rate: Option<u32>,

    /// TCP ports of the host to forward to the VM, EXTERNAL:INTERNAL,... (macOS)
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = exposed)]
    expose: Vec<Exposed>,

    /// Lease time of macOS' DHCP server, in seconds; 60 to 86400 through SUID (macOS)
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..))]
    bootpd_lease_time: Option<u32>,

    /// User to drop privileges to; only root may name another [default: the caller]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// Group to drop privileges to; only root may name another [default: that of the user]
    #[arg(long, value_name = "NAME")]
    group: Option<String>,

    /// Turn off the registry, which keeps two VMs of a host from sharing a MAC or IP address
    #[arg(long)]
    no_registry: bool,

    /// Whether the VM's host name reaches the DHCP server: pass, if it is a single label and no
    /// other VM's; strip, never
    #[arg(long, value_name = "WHAT", default_value = "pass")]
    #[arg(value_parser = word(&[("pass", false), ("strip", true)]), action = ArgAction::Set)]
    dhcp_name: bool,

    /// When the second thread of a direction helps: auto, if sending would block; load, also if
    /// small frames queue up and a core is free; always; never
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    #[arg(value_parser = word(&HAND_OVERS))]
    hand_over: HandOver,

    /// Which processors threads run on: auto, those of one last-level cache; none, any; or two
    /// numbers, as in 2,3: for the threads that move frames from the VM, and to it
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    pin: Pin,

    /// Only find out whether softnet can be started this way
    #[arg(long, hide = true)]
    sudo_escalation_probing: bool,

    /// Softnet has restarted itself through sudo
    #[arg(long, hide = true)]
    sudo_escalation_done: bool,
}

impl RawArgs {
    fn validate(self) -> Result<Invocation, String> {
        let (args, rejects, invocation): (_, _, Box<dyn FnOnce(Config) -> Invocation>) =
            match self.command {
                Some(Command::Run {
                    forwarding,
                    command,
                }) => (
                    forwarding.with_command()?,
                    // Who types a command wants to see what is refused.
                    true,
                    Box::new(|config| Invocation::Run { command, config }),
                ),
                Some(Command::Check(args)) => return args.read().map(Invocation::Check),
                Some(Command::Ask(args)) => return args.read().map(Invocation::Ask),
                Some(Command::Bench(args)) => return Ok(Invocation::Bench(args)),
                Some(Command::BenchSubject(args)) => return Ok(Invocation::BenchSubject(args)),
                None => {
                    let vm_fd = self.vm_fd.ok_or("--vm-fd is missing")?;
                    let control_fd = self.control_fd;
                    let escalated = self.forwarding.sudo_escalation_done;
                    check_descriptors(vm_fd, control_fd, self.forwarding.host_fd)?;
                    if self.forwarding.audit && control_fd.is_some() {
                        return Err(
                            "--audit does not go with --control-fd: its client would believe \
                                that the rules hold"
                                .to_owned(),
                        );
                    }
                    if self.forwarding.steer && control_fd.is_some() {
                        return Err(
                            "--steer does not go with --control-fd: two would change the rules"
                                .to_owned(),
                        );
                    }
                    (
                        self.forwarding,
                        false,
                        Box::new(move |config| Invocation::Forward {
                            vm_fd,
                            control_fd,
                            escalated,
                            config,
                        }),
                    )
                }
            };
        if args.sudo_escalation_probing {
            return Ok(Invocation::Probe);
        }
        args.validate(rejects).map(invocation)
    }
}

/// Checks that the descriptors may be used, and that none is given twice.
fn check_descriptors(vm: RawFd, control: Option<RawFd>, host: Option<RawFd>) -> Result<(), String> {
    for (flag, number, what) in [
        ("--vm-fd", Some(vm), "VM's socket"),
        ("--control-fd", control, "socket"),
        ("--host-fd", host, "host's side"),
    ] {
        if number == Some(libc::STDERR_FILENO) {
            return Err(format!(
                "{flag} 2 is standard error, which softnet logs to: pass the {what} under \
                 another number"
            ));
        }
    }
    for (flag, number) in [("--control-fd", control), ("--host-fd", host)] {
        if number == Some(vm) {
            return Err(format!(
                "{flag} {vm} is the VM's socket: pass another descriptor"
            ));
        }
    }
    Ok(())
}

impl ForwardingArgs {
    /// Checks that the flags go with a command.
    fn with_command(self) -> Result<Self, String> {
        match self.host_fd {
            Some(_) => Err("--host-fd goes with --vm-fd, not with a command".to_owned()),
            None => Ok(self),
        }
    }

    /// Checks the flags. `rejects` is what --on-deny means if it is left out.
    fn validate(self, rejects: bool) -> Result<Config, String> {
        let mut ports = HashSet::new();
        if let Some(twice) = self
            .expose
            .iter()
            .find(|exposed| !ports.insert(exposed.external))
        {
            return Err(format!(
                "--expose names the external port {} twice",
                twice.external
            ));
        }
        if matches!(self.pin, Pin::Cpus { .. }) && !Placement::CAN_PIN {
            return Err("--pin: this system cannot pin threads to processors".to_owned());
        }
        let uplink = uplink::Config::new(HostFlags {
            tap: self.tap,
            gateway: self.gateway,
            expose: self.expose,
            lease_time: self.bootpd_lease_time,
            offload: self.offload,
            given: self.host_fd.map(|fd| (fd, self.host_mtu)),
        })?;
        let (policy, warnings) = policy(&self.allow, &self.block)?;
        Ok(Config {
            mac: self.vm_mac_address.ok_or("--vm-mac-address is missing")?,
            mode: self.vm_net_type,
            policy,
            policy_file: self.policy,
            audit: self.audit,
            steer: self.steer,
            connection_rate: self.connection_rate.unwrap_or(CONNECTION_RATE),
            rejects: self.on_deny.unwrap_or(rejects),
            given: Given {
                connection_rate: self.connection_rate.is_some(),
                on_deny: self.on_deny.is_some(),
            },
            warnings,
            user: self.user,
            group: self.group,
            // Who has opened the host's side could claim the MACs and addresses of other VMs.
            registry: !self.no_registry && uplink.host_fd().is_none(),
            uplink,
            strips_names: self.dhcp_name,
            hand_over: self.hand_over,
            pin: self.pin,
        })
    }
}

/// Parses the rules. Each flag may have been given several times.
fn policy(allow: &[String], block: &[String]) -> Result<(Policy, Vec<HostBits>), String> {
    let join = |lists: &[String]| {
        let lists: Vec<_> = lists
            .iter()
            .map(String::as_str)
            .filter(|list| !list.is_empty())
            .collect();
        lists.join(",")
    };
    let (allow, block) = (join(allow), join(block));
    // First each flag alone, so that an error can name the flag.
    Policy::parse(&allow, "").map_err(|error| format!("--allow: {error}"))?;
    Policy::parse("", &block).map_err(|error| format!("--block: {error}"))?;
    Policy::parse(&allow, &block).map_err(|error| format!("--allow and --block: {error}"))
}

/// The first paragraph of clap's message, which says what is wrong.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{} (see --help)", line.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use std::any::TypeId;
    use std::path::PathBuf;

    use clap::{Arg, CommandFactory};

    use super::*;

    #[test]
    fn the_vm_is_told_what_is_refused_if_a_person_starts_it_or_asks_for_it() {
        let rejects = |words: &str| {
            let words = format!("softnet {words}");
            match parse(words.split_whitespace().map(OsString::from)) {
                Parsed::Invocation(invocation) => match *invocation {
                    Invocation::Forward { config, .. } | Invocation::Run { config, .. } => {
                        config.rejects
                    }
                    _ => panic!("{words} forwards nothing"),
                },
                Parsed::Usage(line) => panic!("{words}: {line}"),
                Parsed::Print(_) => panic!("{words} prints"),
            }
        };
        // The host's side differs between systems; a descriptor is one on all of them.
        let vm = "--vm-mac-address 02:00:00:00:00:02 --gateway 10.0.0.1";
        let tart = format!("--vm-fd 0 --host-fd 5 {vm}");
        assert!(!rejects(&tart));
        assert!(rejects(&format!("{tart} --on-deny reject")));
        let tap = if cfg!(tap) { "--tap tap9" } else { "" };
        let run =
            |flags: &str| format!("run {tap} --vm-mac-address 02:00:00:00:00:02 {flags} -- vm");
        assert!(rejects(&run("")));
        assert!(!rejects(&run("--on-deny drop")));
    }

    /// `tests/borrowed.rs` runs each of these flags for a caller who borrows root's privileges.
    #[test]
    fn every_flag_that_takes_a_path_opens_it_with_the_callers_rights() {
        let mut found = Vec::new();
        collect("", &RawArgs::command(), &mut found);
        found.sort();
        let listed: Vec<_> = include_str!("../../tests/expected/named-files.txt")
            .lines()
            .collect();
        assert_eq!(found, listed);
    }

    /// Adds the arguments of a command, and of its subcommands, that are paths.
    fn collect(name: &str, command: &clap::Command, found: &mut Vec<String>) {
        for arg in command.get_arguments() {
            let values = arg.get_value_names().unwrap_or_default().join(" ");
            let flag = arg.get_long().map(|long| format!("--{long}"));
            let flag = format!("{name}{}", flag.unwrap_or_else(|| values.clone()));
            if is_a(arg, TypeId::of::<NamedFile>()) {
                found.push(flag);
                continue;
            }
            // The command of `softnet run` runs as the caller.
            let is_command = flag == "run COMMAND";
            let is_path = is_a(arg, TypeId::of::<PathBuf>()) || is_a(arg, TypeId::of::<OsString>());
            let words = ["FILE", "PATH", "DIR", "PROGRAM", ".json"];
            let seems_one = words.iter().any(|word| values.contains(word));
            assert!(
                is_command || !is_path && !seems_one,
                "{flag} takes a path: let it be a NamedFile"
            );
        }
        for command in command.get_subcommands() {
            collect(&format!("{name}{} ", command.get_name()), command, found);
        }
    }

    fn is_a(arg: &Arg, kind: TypeId) -> bool {
        arg.get_value_parser().type_id() == kind
    }
}
