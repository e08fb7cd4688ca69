//! `softnet policy`, `softnet flows` and `softnet denied`: ask a running softnet over its VM's
//! control socket, and print what it answers.

mod print;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use softnet::control::{Client, DeniedPackets, DeniedResult, Flow, FlowsResult, PolicyResult};
use softnet::filter::policy::Policy;
use softnet::host::control_socket;
use softnet::host::privileges::Identity;
use softnet::wire::Mac;

use super::values::station;

/// What to ask.
#[derive(Debug, Subcommand)]
pub(crate) enum AskArgs {
    /// Show or change the rules of a running VM
    #[command(
        max_term_width = 100,
        subcommand_required = true,
        disable_help_subcommand = true
    )]
    Policy {
        #[command(subcommand)]
        action: PolicyAction,
    },
    /// List the connections of a running VM that are tracked, which takes a rule with a direction
    #[command(max_term_width = 100)]
    Flows {
        #[command(flatten)]
        vm: VmArgs,
    },
    /// List what the policy of a running VM has denied lately, with the rules that would allow it
    ///
    /// For example, to write a policy: start softnet with --block 0.0.0.0/0 --allow @host --audit,
    /// use the VM, and add the rules that this command lists.
    #[command(max_term_width = 100)]
    Denied {
        #[command(flatten)]
        vm: VmArgs,

        /// Go on, and print what is denied from now on
        #[arg(long)]
        follow: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyAction {
    /// Print the rules
    #[command(max_term_width = 100)]
    Get {
        #[command(flatten)]
        vm: VmArgs,
    },
    /// Replace all rules; softnet must have been started with --steer
    #[command(max_term_width = 100)]
    Set(ChangeArgs),
    /// Add rules; softnet must have been started with --steer
    #[command(max_term_width = 100)]
    Add(ChangeArgs),
    /// Remove rules; softnet must have been started with --steer
    #[command(max_term_width = 100)]
    Remove(ChangeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VmArgs {
    /// The VM's MAC address
    #[arg(long = "vm", value_name = "MAC", value_parser = station)]
    mac: Mac,

    /// Print JSON, as it comes from softnet
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    vm: VmArgs,

    /// Rules that allow, as softnet itself takes them
    #[arg(long, value_name = "LIST")]
    allow: Vec<String>,

    /// Rules that block, in the same form
    #[arg(long, value_name = "LIST")]
    block: Vec<String>,
}

/// What to ask, read.
#[derive(Debug)]
pub(crate) struct Ask {
    vm: VmArgs,
    what: What,
}

#[derive(Debug)]
enum What {
    Rules,
    /// By this method, with these rules.
    Change(&'static str, Policy),
    Flows,
    Denied {
        follow: bool,
    },
}

impl AskArgs {
    /// Reads the rules.
    ///
    /// # Errors
    /// What is wrong with one of them, in one line.
    pub(crate) fn read(self) -> Result<Ask, String> {
        let (vm, what) = match self {
            Self::Policy { action } => return action.read(),
            Self::Flows { vm } => (vm, What::Flows),
            Self::Denied { vm, follow } => (vm, What::Denied { follow }),
        };
        Ok(Ask { vm, what })
    }
}

impl PolicyAction {
    fn read(self) -> Result<Ask, String> {
        let (method, args) = match self {
            Self::Get { vm } => {
                let what = What::Rules;
                return Ok(Ask { vm, what });
            }
            Self::Set(args) => ("softnet.policy.set", args),
            Self::Add(args) => ("softnet.policy.add", args),
            Self::Remove(args) => ("softnet.policy.remove", args),
        };
        let ChangeArgs { vm, allow, block } = args;
        if allow.is_empty() && block.is_empty() && method != "softnet.policy.set" {
            return Err("name rules with --allow or --block".to_owned());
        }
        let parsed = Policy::parse(&allow.join(","), &block.join(","));
        let (policy, _) = parsed.map_err(|error| error.to_string())?;
        let what = What::Change(method, policy);
        Ok(Ask { vm, what })
    }
}

/// Asks, and prints the answer.
///
/// # Errors
/// When there is no softnet that answers, or it refuses, or nobody takes what is printed.
pub(crate) fn ask(Ask { vm, what }: Ask) -> anyhow::Result<ExitCode> {
    let rights = Identity::find(None, None)?.become_caller()?;
    let mut client = Client::new(control_socket::connect(vm.mac, &rights)?)?;
    let out = &mut io::stdout().lock();
    match what {
        What::Rules => {
            let rules: PolicyResult = client.call("softnet.policy.get", json!({}))?;
            print::rules(&rules, vm.json, out)?;
        }
        What::Change(method, policy) => {
            let [allow, block] = policy.normal_form();
            let lists = json!({ "allow": allow, "block": block });
            let rules: PolicyResult = client.call(method, lists)?;
            print::rules(&rules, vm.json, out)?;
        }
        What::Flows => print::flows(&all_flows(&mut client)?, vm.json, out)?,
        What::Denied { follow } => denied(&mut client, follow, vm.json, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn all_flows(client: &mut Client) -> anyhow::Result<Vec<Flow>> {
    let mut flows = Vec::new();
    let mut start = Some(0);
    while let Some(at) = start {
        let page: FlowsResult = client.call("softnet.flows.list", json!({ "start": at }))?;
        flows.extend(page.flows);
        // Whatever it says, pages come to an end.
        start = page.next.filter(|next| *next > at);
    }
    Ok(flows)
}

fn denied(
    client: &mut Client,
    follow: bool,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut before: Vec<DeniedPackets> = Vec::new();
    let mut is_first = true;
    loop {
        let now: DeniedResult = client.call("softnet.denied.list", json!({}))?;
        let is_new = |row: &&DeniedPackets| !before.contains(row);
        let news: Vec<_> = now.denied.iter().filter(is_new).cloned().collect();
        if follow {
            // The last at the foot, where the next will be.
            let news: Vec<_> = news.into_iter().rev().collect();
            print::denied(&news, 0, json, is_first, out)?;
        } else {
            print::denied(&news, now.missed, json, true, out)?;
            return Ok(());
        }
        before = now.denied;
        is_first = false;
        thread::sleep(PAUSE);
    }
}

/// Between two looks at what is denied.
const PAUSE: Duration = Duration::from_secs(1);
