//! `softnet check`: says what rules make of packets, without a VM, rights or a network.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use ipnet::Ipv4Net;
use softnet::direction::Direction;
use softnet::filter::policy::{HostBits, Mode, Peer, Place, Policy};

use super::exit_code::FAILURE;

/// What to check.
#[derive(Debug, Args)]
#[command(
    after_help = "For example: softnet check --block 0.0.0.0/0 --allow 0.0.0.0/0:443 --to 1.2.3.4:443 --to 1.2.3.4:25"
)]
pub(crate) struct CheckArgs {
    /// A machine that the VM sends to: ADDRESS[:PORT][/tcp|/udp|/icmp]; may be repeated
    #[arg(long, value_name = "PEER", required_unless_present = "from")]
    to: Vec<Peer>,

    /// A machine that opens a connection to the VM; the port is the VM's
    #[arg(long, value_name = "PEER")]
    from: Vec<Peer>,

    /// Rules that allow, as for the forwarding itself
    #[arg(long, value_name = "LIST")]
    allow: Vec<String>,

    /// Rules that block, likewise
    #[arg(long, value_name = "LIST")]
    block: Vec<String>,

    /// The gateway's address, with the length of the VM's network
    #[arg(long, value_name = "ADDR/LENGTH", default_value = "192.168.64.1/24")]
    gateway: Ipv4Net,

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
    place: Place,
    peers: Vec<(Direction, Peer)>,
    expect_no_drops: bool,
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
            place: Place {
                gateway: self.gateway.addr(),
                subnet: Some(self.gateway.trunc()),
                mode: if self.host_only {
                    Mode::Host
                } else {
                    Mode::Nat
                },
            },
            peers: to.chain(from).collect(),
            expect_no_drops: self.expect_no_drops,
        })
    }
}

/// Prints a line for each peer.
///
/// # Errors
/// When nobody takes what is printed.
pub(crate) fn check(check: &Check) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for warning in &check.warnings {
        writeln!(out, "note: {warning}")?;
    }
    if check.policy.depends_on_lease() {
        let note = "note: @dns stands for the name servers of a lease, of which there is none here";
        writeln!(out, "{note}")?;
    }
    let mut drops = 0;
    for (direction, peer) in &check.peers {
        let explanation = check.policy.explain(&check.place, *direction, peer);
        drops += usize::from(explanation.dropped.is_some());
        let word = match direction {
            Direction::Outbound => "to",
            Direction::Inbound => "from",
        };
        writeln!(out, "{word} {peer}: {explanation}")?;
    }
    Ok(if check.expect_no_drops && drops > 0 {
        ExitCode::from(FAILURE)
    } else {
        ExitCode::SUCCESS
    })
}
