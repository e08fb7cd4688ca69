//! The scenarios, by name.

use std::time::Duration;

use super::subject::Subject;
use super::traffic::Traffic;
use crate::direction::Direction;

/// A situation to measure forwarders in.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// How it is called on the command line and in results, as in `outbound/64`.
    pub name: String,
    /// In one line, what is measured.
    pub about: String,
    pub(super) work: Work,
    /// It takes part in every so many-th round, counted from the first: long ones in few.
    pub(super) every: usize,
}

/// Those that a run has unless told otherwise: seven rounds of them take less than 30 s.
pub const USUAL: [&str; 13] = [
    "outbound/64",
    "outbound/1514",
    "outbound/16384",
    "inbound/64",
    "inbound/1514",
    "both/1514",
    "load/outbound/1k",
    "load/outbound/10k",
    "load/outbound/100k",
    "drops/outbound",
    "rules/4096",
    "slow-vm",
    "density/24",
];

impl Scenario {
    /// Whether a name on the command line means this scenario: it, or a group that it is in.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        let rest = self.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) || name == "all"
    }

    /// Whether it can be measured at a TAP with an MTU of 1500.
    pub(super) fn suits_a_tap(&self) -> bool {
        match self.work {
            Work::Drain { traffic, .. } => traffic.max_len() <= 1514,
            Work::Paced { .. } | Work::Bursts { .. } => true,
            Work::Density { .. } | Work::SlowVm => false,
        }
    }

    /// Whether it can be measured at vmnet, where the host itself is on the other side: all
    /// traffic is between the VM and the host, none of whose frames are forged.
    pub(super) fn suits_vmnet(&self) -> bool {
        let is_with_the_host = match self.work {
            Work::Drain {
                traffic,
                directions,
                ..
            } => match traffic {
                Traffic::Flow(_) | Traffic::Imix => true,
                Traffic::Stream(_) => false,
                Traffic::Spoofed => directions == [Direction::Outbound],
                Traffic::Mixed | Traffic::Flows(_) | Traffic::Flood => false,
            },
            _ => true,
        };
        self.suits_a_tap() && is_with_the_host
    }

    /// Whom to measure of those asked for. That of many at once takes long, and tells more of
    /// what ships than of loops.
    pub(super) fn subjects(&self, asked: &[Subject]) -> Vec<Subject> {
        let is_wanted = |subject: &Subject| match self.work {
            Work::Density { .. } => {
                matches!(subject, Subject::Bare | Subject::Auto | Subject::Other)
            }
            _ => true,
        };
        asked.iter().copied().filter(is_wanted).collect()
    }
}

/// What happens in a scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Work {
    /// A full queue is worked off, so that every batch is full.
    Drain {
        traffic: Traffic,
        directions: &'static [Direction],
        rules: usize,
    },
    /// Frames come at a fixed rate, for the length of a window.
    Paced {
        direction: Direction,
        frames_per_second: u32,
    },
    /// Sixteen frames come at once, with a pause after.
    Bursts { direction: Direction },
    /// Many forwarders at once with next to nothing to do.
    Density { instances: usize },
    /// The VM reads slowly what the host sends fast, and goes on sending.
    SlowVm,
}

/// All scenarios, in the order in which they run.
///
/// Long because it is a list: one entry for each scenario.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |name: String, about: String, every, work| {
        all.push(Scenario {
            name,
            about,
            work,
            every,
        });
    };
    let [outbound, inbound] = ONE_WAY;
    for directions in [outbound, inbound, &Direction::ALL] {
        let way = match directions {
            [one] => way(*one),
            _ => "both",
        };
        let lens = LENGTHS.map(|len| (len.to_string(), Traffic::Flow(len)));
        let mut kinds = lens.to_vec();
        kinds.insert(3, ("imix".to_owned(), Traffic::Imix));
        for (kind, traffic) in kinds {
            let about = format!("full batches, {way}, {}", describe(traffic));
            add(
                format!("{way}/{kind}"),
                about,
                1,
                drain(traffic, directions),
            );
        }
    }
    let stream = Traffic::Stream(1514);
    let about = format!("full batches, outbound, {}", describe(stream));
    add(
        "outbound/stream".to_owned(),
        about,
        1,
        drain(stream, outbound),
    );
    for direction in Direction::ALL {
        for (rate, frames_per_second) in [("1k", 1_000), ("10k", 10_000), ("100k", 100_000)] {
            let way = way(direction);
            let about = format!("{frames_per_second} frames a second, {way}, 200 bytes");
            let work = Work::Paced {
                direction,
                frames_per_second,
            };
            add(format!("load/{way}/{rate}"), about, 1, work);
        }
    }
    for direction in Direction::ALL {
        let way = way(direction);
        let about = format!("bursts of {BURST} frames every 2 ms, {way}, 200 bytes");
        let work = Work::Bursts { direction };
        add(format!("burst/{way}"), about, 1, work);
    }
    for directions in ONE_WAY {
        let way = way(directions[0]);
        let about = format!("full batches of spoofed frames, {way}: none may pass");
        let work = drain(Traffic::Spoofed, directions);
        add(format!("drops/{way}"), about, 1, work);
    }
    for rules in [0, 32, 4096] {
        let about = format!("full batches, outbound, mixed destinations, {rules} rules");
        let work = Work::Drain {
            traffic: Traffic::Mixed,
            directions: outbound,
            rules,
        };
        add(format!("rules/{rules}"), about, 1, work);
    }
    for (name, traffic, directions) in [
        ("flows/both", Traffic::Flows(10_000), &Direction::ALL[..]),
        ("flood/outbound", Traffic::Flood, outbound),
    ] {
        let about = format!("full batches, {}", describe(traffic));
        add(name.to_owned(), about, 1, drain(traffic, directions));
    }
    let about = "the host floods a VM that reads slowly; latency is that of the VM's own frames";
    add("slow-vm".to_owned(), about.to_owned(), 8, Work::SlowVm);
    for instances in [24, 50] {
        let about = format!("{instances} forwarders, idle, then with 20 frames a second each way");
        let work = Work::Density { instances };
        add(format!("density/{instances}"), about, 64, work);
    }
    all
}

const fn drain(traffic: Traffic, directions: &'static [Direction]) -> Work {
    Work::Drain {
        traffic,
        directions,
        rules: 32,
    }
}

/// How `direction` is called in names.
pub(super) const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    }
}

fn describe(traffic: Traffic) -> String {
    match traffic {
        Traffic::Flow(len) => format!("{len} bytes"),
        Traffic::Stream(len) => format!("one TCP connection, {len} bytes"),
        Traffic::Imix => "IMIX (7 x 64, 4 x 594, 1 x 1514 bytes)".to_owned(),
        Traffic::Mixed => "mixed".to_owned(),
        Traffic::Flows(count) => format!("64 bytes, {count} connections"),
        Traffic::Flood => "64 bytes, every second one opens a connection".to_owned(),
        Traffic::Spoofed => "spoofed".to_owned(),
    }
}

const ONE_WAY: [&[Direction]; 2] = [&[Direction::Outbound], &[Direction::Inbound]];
const LENGTHS: [usize; 6] = [64, 256, 1514, 9014, 16_384, 65_000];
pub(super) const BURST: u32 = 16;
pub(super) const BURST_EVERY: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let all = all();
        let names: HashSet<_> = all.iter().map(|scenario| &scenario.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(USUAL.iter().all(|name| names.contains(&(*name).to_owned())));
    }

    #[test]
    fn at_vmnet_no_frame_is_for_anybody_but_the_host() {
        let suit: Vec<_> = all().into_iter().filter(Scenario::suits_vmnet).collect();
        let names: HashSet<_> = suit.iter().map(|scenario| &*scenario.name).collect();
        for name in [
            "outbound/64",
            "both/imix",
            "load/inbound/1k",
            "drops/outbound",
        ] {
            assert!(names.contains(name), "{name}");
        }
        for name in [
            "rules/32",
            "drops/inbound",
            "inbound/9014",
            "density/24",
            "slow-vm",
        ] {
            assert!(!names.contains(name), "{name}");
        }
    }

    #[test]
    fn a_name_means_a_scenario_or_a_whole_group() {
        let called = |name: &str| all().iter().filter(|one| one.is_called(name)).count();
        assert_eq!(called("outbound/64"), 1);
        assert_eq!(called("outbound"), 8);
        assert_eq!(called("load/inbound"), 3);
        assert_eq!((called("out"), called("rules/3")), (0, 0));
        assert_eq!(called("all"), all().len());
    }
}
