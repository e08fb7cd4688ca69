//! How to forward: what the flags say, and the policy file.

use softnet::filter::policy::{HostBits, Mode, Policy};
use softnet::forward::HandOver;
use softnet::host::HostError;
use softnet::host::files::NamedFile;
use softnet::host::placement::Pin;
use softnet::wire::Mac;

use super::policy_file::PolicyFile;
use super::uplink;

/// How to forward.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) mac: Mac,
    pub(crate) mode: Mode,
    /// The rules of the flags, to which those of the file are added.
    pub(crate) policy: Policy,
    pub(crate) policy_file: Option<NamedFile>,
    pub(crate) connection_rate: u32,
    /// Whether what the policy refuses passes, and is only counted.
    pub(crate) audit: bool,
    /// Whether clients of the control socket may change the rules.
    pub(crate) steer: bool,
    /// Whether the VM is told about packets that the policy refuses.
    pub(crate) rejects: bool,
    pub(crate) given: Given,
    /// Rules whose host bits were cleared, to be logged as warnings.
    pub(crate) warnings: Vec<HostBits>,
    pub(crate) uplink: uplink::Config,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) registry: bool,
    /// Whether the VM's host names are removed from its DHCP messages.
    pub(crate) strips_names: bool,
    pub(crate) hand_over: HandOver,
    pub(crate) pin: Pin,
}

/// Which flags were given that have a key in the policy file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    pub(crate) connection_rate: bool,
    pub(crate) on_deny: bool,
}

impl Config {
    /// Reads the policy file, if one is named, in a process that has no rights but the caller's.
    /// Must be called before any other thread starts.
    pub(crate) fn with_policy_file(mut self) -> anyhow::Result<Self> {
        let Some(file) = &self.policy_file else {
            return Ok(self);
        };
        let read = PolicyFile::read_as_caller(file)?;
        let set_by = |flag, line| {
            let place = format!("{file}:{line}");
            Err(HostError::FlagAndKey { flag, place }.into())
        };
        match read.connection_rate {
            Some((line, _)) if self.given.connection_rate => {
                return set_by("--connection-rate", line);
            }
            Some((_, rate)) => self.connection_rate = rate,
            None => (),
        }
        match read.rejects {
            Some((line, _)) if self.given.on_deny => return set_by("--on-deny", line),
            Some((_, rejects)) => self.rejects = rejects,
            None => (),
        }
        read.add_to(file, &mut self.policy, &mut self.warnings)?;
        Ok(self)
    }

    /// Whether the VM is isolated from the other VMs of its network.
    pub(crate) fn isolated(&self) -> bool {
        !self.policy.wants_isolation_off()
    }
}
