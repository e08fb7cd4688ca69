//! `softnet check`: says what rules do with packets, or the filter with the frames of a capture,
//! without a VM, root or a network.

mod capture;

use std::io::{self, BufWriter, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;

use clap::Args;
use ipnet::Ipv4Net;
use softnet::direction::Direction;
use softnet::filter::CONNECTION_RATE;
use softnet::filter::policy::{HostBits, Mode, Peer, Place, Policy};
use softnet::host::files::NamedFile;
use softnet::host::privileges::{CallersRights, Identity};
use softnet::wire::Mac;

use super::exit_code::FAILURE;
use super::policy_file::PolicyFile;

/// What to check.
#[derive(Debug, Args)]
#[command(
    after_help = "For example: softnet check --block 0.0.0.0/0 --allow 0.0.0.0/0:443 --to 1.2.3.4:443 --to 1.2.3.4:25"
)]
pub(crate) struct CheckArgs {
    /// A machine that the VM sends to: ADDRESS[:PORT][/tcp|/udp|/icmp]; may be repeated
    #[arg(long, value_name = "PEER", required_unless_present_any = ["from", "pcap"])]
    to: Vec<Peer>,

    /// A machine that opens a connection to the VM; the port is the VM's
    #[arg(long, value_name = "PEER")]
    from: Vec<Peer>,

    /// Instead, judge each frame of a capture (pcap or pcapng) as softnet would have
    #[arg(long, value_name = "CAPTURE", conflicts_with_all = ["to", "from"])]
    pcap: Option<NamedFile>,

    /// The VM in the capture [default: the station that sent most]
    #[arg(long, value_name = "MAC", requires = "pcap")]
    vm_mac_address: Option<Mac>,

    /// Rules that allow, as softnet itself takes them
    #[arg(long, value_name = "LIST")]
    allow: Vec<String>,

    /// Rules that block, in the same form
    #[arg(long, value_name = "LIST")]
    block: Vec<String>,

    /// File of more rules, as softnet itself takes it
    #[arg(long, value_name = "FILE")]
    policy: Option<NamedFile>,

    /// The gateway's address, with the prefix length of the VM's network [default:
    /// 192.168.64.1/24; with --pcap the first address of the VM's /24]
    #[arg(long, value_name = "ADDR/LENGTH")]
    gateway: Option<Ipv4Net>,

    /// Whether the VM is in host-only mode
    #[arg(long)]
    host_only: bool,

    /// Exit with 1 if anything is dropped
    #[arg(long)]
    expect_no_drops: bool,
}

/// What to check, read.
#[derive(Debug)]
pub(crate) struct Check {
    policy: Policy,
    warnings: Vec<HostBits>,
    policy_file: Option<NamedFile>,
    connection_rate: u32,
    gateway: Option<Ipv4Net>,
    mode: Mode,
    what: What,
    expect_no_drops: bool,
}

/// Whose fate is asked for.
#[derive(Debug)]
enum What {
    Peers(Vec<(Direction, Peer)>),
    Capture(NamedFile, Option<Mac>),
}

impl CheckArgs {
    /// Reads the rules.
    ///
    /// # Errors
    /// What is wrong with one of them, in one line.
    pub(crate) fn read(self) -> Result<Check, String> {
        let join = |lists: &[String]| {
            let lists = lists.iter().filter(|list| !list.is_empty());
            lists.cloned().collect::<Vec<_>>().join(",")
        };
        let parsed = Policy::parse(&join(&self.allow), &join(&self.block));
        let (policy, warnings) = parsed.map_err(|error| error.to_string())?;
        let to = self.to.into_iter().map(|peer| (Direction::Outbound, peer));
        let from = self.from.into_iter().map(|peer| (Direction::Inbound, peer));
        Ok(Check {
            policy,
            warnings,
            policy_file: self.policy,
            connection_rate: CONNECTION_RATE,
            gateway: self.gateway,
            mode: if self.host_only {
                Mode::Host
            } else {
                Mode::Nat
            },
            what: match self.pcap {
                Some(file) => What::Capture(file, self.vm_mac_address),
                None => What::Peers(to.chain(from).collect()),
            },
            expect_no_drops: self.expect_no_drops,
        })
    }
}

impl Check {
    /// Adds what the policy file says, if one is named. Returns it, too.
    fn add_file(&mut self, rights: &CallersRights) -> anyhow::Result<PolicyFile> {
        let Some(file) = &self.policy_file else {
            return Ok(PolicyFile::default());
        };
        let read = PolicyFile::read(file, rights)?;
        read.add_to(file, &mut self.policy, &mut self.warnings)?;
        if let Some((_, rate)) = read.connection_rate {
            self.connection_rate = rate;
        }
        Ok(read)
    }
}

/// Prints a line for each peer or frame.
///
/// # Errors
/// When the policy file or the capture cannot be read, or nobody takes what is printed.
pub(crate) fn check(mut check: Check) -> anyhow::Result<ExitCode> {
    // Nothing here takes more rights than the caller has.
    let rights = Identity::find(None, None)?.become_caller()?;
    let from_file = check.add_file(&rights)?;
    let check = &check;
    let mut out = BufWriter::new(io::stdout().lock());
    for warning in &check.warnings {
        writeln!(out, "note: {warning}")?;
    }
    let drops = match &check.what {
        What::Peers(peers) => explain(check, &from_file, peers, &mut out)?,
        What::Capture(file, vm_mac) => capture::judge(check, file, *vm_mac, &rights, &mut out)?,
    };
    out.flush()?;
    Ok(if check.expect_no_drops && drops > 0 {
        ExitCode::from(FAILURE)
    } else {
        ExitCode::SUCCESS
    })
}

/// Says what becomes of packets from and to each peer, and how many are dropped.
fn explain(
    check: &Check,
    from_file: &PolicyFile,
    peers: &[(Direction, Peer)],
    out: &mut impl Write,
) -> anyhow::Result<usize> {
    if check.policy.depends_on_lease() {
        let note = "note: @dns stands for the name servers of a lease, of which there is none here";
        writeln!(out, "{note}")?;
    }
    let net = check.gateway.unwrap_or(GATEWAY);
    let place = Place {
        gateway: net.addr(),
        subnet: Some(net.trunc()),
        mode: check.mode,
    };
    let mut drops = 0;
    for (direction, peer) in peers {
        let explanation = check.policy.explain(&place, *direction, peer);
        drops += usize::from(explanation.dropped.is_some());
        let word = match direction {
            Direction::Outbound => "to",
            Direction::Inbound => "from",
        };
        write!(out, "{word} {peer}: {explanation}")?;
        let decider = explanation.rule.as_ref();
        let line = decider.and_then(|(rule, allows)| from_file.line_of(rule, *allows));
        match (&check.policy_file, line) {
            (Some(file), Some(line)) => writeln!(out, " in {file}:{line}")?,
            _ => writeln!(out)?,
        }
    }
    Ok(drops)
}

/// Where vmnet begins to look for a free network.
const GATEWAY: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 64, 1), 24);
