//! What is measured: a forwarder in a process of its own, so that CPU time, context switches
//! and memory are its alone. It is the program as a VM's host starts it, or what that
//! is compared with (`baseline`).
//!
//! Standard input is the VM's socket, as Tart does it, and standard output the host's side.

use std::fmt;
use std::str::FromStr;

use super::HostSide;
use super::network::{LAB, Network, VMNET_MAC};
use super::traffic;
use crate::wire::ethernet::Ethernet;

/// A way to forward.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Batches without a filter: the limit.
    Bare,
    /// The program as it ships; at a TAP frame by frame, as the others are.
    Auto,
    /// The program as it ships at a TAP, with large segments.
    Offload,
    /// The program with a rule for a direction, so that it tracks connections.
    Tracked,
    /// The program with threads that alternate under load.
    Load,
    /// The program as a pure pipeline.
    Always,
    /// The same, with readers and writers on different cores. Not on macOS.
    Spread,
    /// The program without writer threads.
    Never,
    /// Its engine with a filter that lets everything pass: what the filter costs is missing.
    Unfiltered,
    /// One thread, frame by frame.
    OneFrame,
    /// [`Auto`](Self::Auto) of another build: [`Options::other`](super::Options::other).
    Other,
}

impl Subject {
    /// All of them, the bare loop first.
    pub const ALL: [Self; 11] = [
        Self::Bare,
        Self::Auto,
        Self::Offload,
        Self::Tracked,
        Self::OneFrame,
        Self::Load,
        Self::Always,
        Self::Spread,
        Self::Never,
        Self::Unfiltered,
        Self::Other,
    ];

    /// Those that a run measures unless told otherwise.
    pub const USUAL: [Self; 4] = [Self::Bare, Self::Auto, Self::OneFrame, Self::Always];

    /// Whether it lets everything pass.
    #[must_use]
    pub const fn is_unfiltered(self) -> bool {
        matches!(self, Self::Bare | Self::Unfiltered)
    }

    /// How it hands frames over, if it is the program itself.
    pub(super) const fn hand_over(self) -> Option<&'static str> {
        match self {
            Self::Auto | Self::Offload | Self::Tracked => Some("auto"),
            Self::Load => Some("load"),
            Self::Always | Self::Spread => Some("always"),
            Self::Never => Some("never"),
            Self::Bare | Self::Unfiltered | Self::OneFrame | Self::Other => None,
        }
    }

    /// Whether it is one only where threads can be put on cores.
    pub(super) const fn needs_cores(self) -> bool {
        matches!(self, Self::Spread)
    }

    /// Its name on the command line and in results; it stays the same over releases.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Auto => "auto",
            Self::Offload => "offload",
            Self::Tracked => "tracked",
            Self::Load => "load",
            Self::Always => "always",
            Self::Spread => "spread",
            Self::Never => "never",
            Self::Unfiltered => "unfiltered",
            Self::OneFrame => "one-frame",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL
            .into_iter()
            .find(|subject| subject.label() == text);
        known.ok_or_else(|| {
            let labels = Self::ALL.map(Self::label).join(", ");
            format!("{text:?} is not one of {labels}")
        })
    }
}

/// How to set a subject up.
#[derive(Debug, Clone)]
pub(super) struct Setup<'a> {
    /// Which one.
    pub(super) subject: Subject,
    /// The longest frame to expect, in bytes.
    pub(super) max_frame: usize,
    /// How many rules the filter has.
    pub(super) rules: usize,
    /// What takes the host's place.
    pub(super) host: &'a HostSide,
    /// See [`Options::slow_filter`](super::Options::slow_filter).
    pub(super) slow_filter: u32,
}

impl Setup<'_> {
    /// The arguments to start the subject with.
    pub(super) fn arguments(&self) -> Vec<String> {
        match self.subject.hand_over() {
            Some(hand_over) if self.slow_filter == 0 => self.of_program(hand_over),
            _ => self.of_baseline(),
        }
    }

    fn of_program(&self, hand_over: &str) -> Vec<String> {
        let is_given = !matches!(self.host, HostSide::Vmnet);
        let vm_mac = if is_given { LAB.vm_mac } else { VMNET_MAC };
        let (allow, mut block) = traffic::rules(self.rules);
        if self.subject == Subject::Tracked {
            block += ",in 5.6.7.8";
        }
        let mut arguments = vec![
            "--vm-fd=0".to_owned(),
            format!("--vm-mac-address={vm_mac}"),
            format!("--hand-over={hand_over}"),
            format!("--allow={allow}"),
            format!("--block={block}"),
            // Many at once are one and the same VM.
            "--no-registry".to_owned(),
        ];
        if is_given {
            let (gateway, len) = (LAB.gateway, Network::PREFIX_LEN);
            arguments.push("--host-fd=1".to_owned());
            arguments.push(format!("--host-mtu={}", self.max_frame - Ethernet::LEN));
            arguments.push(format!("--gateway={gateway}/{len}"));
        }
        arguments
    }

    /// As [`baseline::run`](super::baseline::run) wants them back.
    fn of_baseline(&self) -> Vec<String> {
        let mut arguments = vec![
            SUBCOMMAND.to_owned(),
            self.subject.label().to_owned(),
            format!("--max-frame={}", self.max_frame),
            format!("--rules={}", self.rules),
            format!("--slow-filter={}", self.slow_filter),
        ];
        if matches!(self.host, HostSide::Vmnet) {
            arguments.push("--vmnet".to_owned());
        }
        arguments
    }
}

/// What a subject tells about its frames when it ends. The loops count nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Report {
    pub(super) dropped: u64,
    pub(super) hand_overs: u64,
}

impl Report {
    /// Reads it from all that the subject said: `3 dropped (...)` and `5 hand-overs`, a line for
    /// each direction.
    pub(super) fn read(text: &str) -> Self {
        let mut report = Self::default();
        let words: Vec<_> = text.split([' ', ',', '\n']).collect();
        for pair in words.windows(2) {
            let count: u64 = pair[0].parse().unwrap_or(0);
            match pair[1] {
                "dropped" => report.dropped += count,
                "hand-overs" => report.hand_overs += count,
                _ => {}
            }
        }
        report
    }
}

/// The hidden subcommand of the program that is what it is compared with.
pub const SUBCOMMAND: &str = "bench-subject";

/// What a subject says once it forwards, with more behind it.
pub(super) const FORWARDING: &str = "softnet: forwarding ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_subject_counted_is_found_in_what_it_said() {
        let text = "softnet: [vm->host] dropped a frame: runt\n\
            softnet: [vm->host] 9 frames of 540 bytes: 6 forwarded, 3 dropped (runt 2, udp 1)\n\
            softnet: [vm->host] 5 hand-overs\n\
            softnet: [host->vm] 1 frames of 60 bytes: 0 forwarded, 1 dropped (runt 1)\n\
            softnet: [host->vm] 2 hand-overs\n";
        let report = Report {
            dropped: 4,
            hand_overs: 7,
        };
        assert_eq!(Report::read(text), report);
        assert_eq!(Report::read(""), Report::default());
    }
}
