//! The figures that are measured, with their units, and which way is better.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::subject::Subject;

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $unit:literal, $kind:ident;)*) => {
        /// One figure. Its label is its name in results, and stays the same over releases.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Figure {
            $($(#[$doc])* #[serde(rename = $label)] $name,)*
        }

        impl Figure {
            /// All of them, in the order in which they are shown.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$name),*];

            /// Its name in results.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// Its unit, as it is shown.
            #[must_use]
            pub const fn unit(self) -> &'static str {
                match self { $(Self::$name => $unit,)* }
            }

            /// What a reader may do with it.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

/// What a reader may do with a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Compare it with the bare loop's: less is better.
    Cost,
    /// Compare it with the bare loop's: more is better.
    Yield,
    /// Take it as it is: less is better.
    Count,
}

figures! {
    /// CPU time of the forwarder, of all its threads in user and kernel mode.
    CpuPerFrame = "cpu_ns_per_frame", "ns/frame", Cost;
    /// Frames that came out, by the kernel's times of those in the middle of a queue; on macOS,
    /// which has none, by the time until the forwarder slept again.
    FramesPerSecond = "frames_per_s", "frames/s", Yield;
    /// The bits of these frames, Ethernet header included.
    GbitPerSecond = "gbit_per_s", "Gbit/s", Yield;
    /// Time from before the sender's call to the receiver's queue, on macOS to the receiver;
    /// half of the frames took less.
    LatencyP50 = "latency_p50_us", "us p50", Cost;
    /// All but one of a hundred took less.
    LatencyP99 = "latency_p99_us", "us p99", Cost;
    /// Context switches of the forwarder.
    SwitchesPerFrame = "switches_per_frame", "switches/frame", Count;
    /// The same, for frames that come in bursts.
    SwitchesPerBurst = "switches_per_burst", "switches/burst", Count;
    /// Batches that went through a writer's thread, of all batches sent while measuring.
    HandOvers = "hand_overs", "hand-overs", Count;
    /// Frames dropped while measuring.
    Drops = "drops", "drops", Count;
    /// Memory that no file stands behind, after the work; on macOS what the kernel calls the
    /// footprint.
    Anonymous = "anonymous_kib", "KiB anonymous", Count;
    /// All memory, the program's own pages too.
    Resident = "resident_kib", "KiB resident", Count;
    /// The same, where pages that several processes have count a part for each. Not on macOS.
    Proportional = "proportional_kib", "KiB proportional", Count;
    /// CPU time of one forwarder to which nothing happens.
    IdleCpu = "idle_cpu_ms_per_10s", "ms/10s idle", Count;
    /// Its context switches.
    IdleSwitches = "idle_switches_per_10s", "switches/10s idle", Count;
    /// Those of its data threads, which no timer wakes. Not on macOS.
    IdleDataSwitches = "idle_data_switches_per_10s", "the data threads'", Count;
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.unit())
    }
}

/// What was measured of one subject in one round of a scenario.
pub type Figures = BTreeMap<Figure, f64>;

/// What was measured of all subjects in one round of a scenario.
pub type Round = BTreeMap<Subject, Figures>;

/// A figure of a subject.
#[must_use]
pub fn value(round: &Round, subject: Subject, figure: Figure) -> Option<f64> {
    round.get(&subject)?.get(&figure).copied()
}

/// The same as a ratio to the bare loop's in that round.
#[must_use]
pub fn to_bare(round: &Round, subject: Subject, figure: Figure) -> Option<f64> {
    Some(value(round, subject, figure)? / value(round, Subject::Bare, figure)?)
}
