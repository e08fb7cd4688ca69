//! `softnet bench`: how fast this machine forwards frames, and how near that is to what its
//! kernel allows. Needs neither a VM nor root.
//!
//! ```text
//!   this process                     a process for each subject
//!   the VM    <- socketpair ->   softnet, or a baseline
//!   the host  <- socketpair ->      (or a TAP; or at vmnet, with the host itself)
//! ```
//!
//! A run goes in rounds. In each, every scenario measures every [`Subject`] one after the
//! other, in an order that rotates with the rounds; a figure is the median of the ratios to
//! the bare loop within a round. So whatever else the machine does meets all of them alike.

pub mod baseline;
pub mod capture;
pub mod compare;
mod drain;
pub mod figure;
pub mod limits;
mod measure;
pub mod network;
pub mod report;
pub mod scenario;
pub mod statistics;
pub mod subject;
mod testbed;
pub mod traffic;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use scenario::Scenario;
pub use subject::Subject;
pub use testbed::TapHost;

use figure::Round;
use measure::Bench;

use crate::direction::Direction;
use crate::host::privileges::SavedPrivileges;
use crate::sys::{cores, timestamp};

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// The program that is measured, and runs what it is compared with: this one, usually.
    pub program: PathBuf,
    /// Another build of it, for [`Subject::Other`].
    pub other: Option<PathBuf>,
    /// What takes the host's place.
    pub host: HostSide,
    /// The rights that it takes to start an interface of vmnet, if the caller has them through
    /// sudo alone. Then there must be no [`other`](Self::other), which would get them too.
    pub saved: Option<SavedPrivileges>,
    /// The scenarios to run.
    pub scenarios: Vec<Scenario>,
    /// Whom to measure in each.
    pub subjects: Vec<Subject>,
    /// When to stop.
    pub until: Until,
    /// For how long frames come at a fixed rate; an idle phase lasts five times that.
    pub window: Duration,
    /// How many iterations of a busy loop the filter takes longer for each frame, about a quarter of
    /// a nanosecond each, to see that a measurement notices. With any, no subject is the program
    /// itself, whose filter is what it is.
    pub slow_filter: u32,
}

/// What takes the host's place before a subject.
#[derive(Debug, Clone)]
pub enum HostSide {
    /// A socket, whose other end the bench has.
    Socket,
    /// A TAP, on Linux. Scenarios that it does not suit are left out.
    Tap(Arc<TapHost>),
    /// An interface of vmnet, with the host itself behind it, on macOS. Scenarios whose frames
    /// would leave the host, or that need more than vmnet's queues are known to hold, are left
    /// out.
    Vmnet,
}

/// When a run has enough rounds.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so many.
    Rounds(usize),
    /// When the next one would probably end later than this.
    Elapsed(Duration),
}

/// What was measured of one scenario in one round.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The scenario's name.
    pub scenario: String,
    /// Counted from 0.
    pub round: usize,
    /// By subject.
    pub figures: Round,
}

/// Looks whether this system can have all of these measured.
///
/// # Errors
/// Which one it cannot have measured.
pub fn check(subjects: &[Subject]) -> io::Result<()> {
    let asks_too_much = |subject: &&Subject| subject.needs_cores() && !cores::CAN_PIN;
    subjects
        .iter()
        .find(asks_too_much)
        .map_or(Ok(()), |subject| {
            let words = format!(
                "{subject} needs threads on certain cores, and this system puts none there"
            );
            Err(io::Error::new(io::ErrorKind::Unsupported, words))
        })
}

/// Runs the scenarios in rounds. `each` is called with every sample as it is there;
/// `progress` before each scenario, with the round and the scenario's name.
///
/// # Errors
/// When a forwarder cannot be started, or does not forward what it should, and when no scenario
/// suits the host's side.
pub fn run(
    options: &Options,
    mut progress: impl FnMut(usize, &str),
    mut each: impl FnMut(Sample) -> io::Result<()>,
) -> io::Result<()> {
    timestamp::wake_on_time()?;
    if matches!(options.host, HostSide::Vmnet) {
        testbed::check_vmnet(options.saved.as_ref())?;
    }
    // On time by the class of service, on macOS.
    baseline::find_place(Direction::Inbound);
    if !options.scenarios.iter().any(|one| options.suit(one)) {
        let words = "none of these scenarios can be measured there";
        return Err(io::Error::new(io::ErrorKind::Unsupported, words));
    }
    let mut bench = Bench {
        program: &options.program,
        other: options.other.as_deref(),
        host: &options.host,
        saved: options.saved.as_ref(),
        window: options.window,
        slow_filter: options.slow_filter,
        core: 0,
    };
    let start = Instant::now();
    let mut round = 0;
    let mut longest_round = Duration::ZERO;
    while options
        .until
        .has_room(round, start.elapsed(), longest_round)
    {
        let round_start = Instant::now();
        // Not with the order of the subjects, which rotates with every round.
        bench.core = round / 2 % 2;
        for (number, scenario) in options.scenarios.iter().enumerate() {
            if round % scenario.every != 0 || !options.suit(scenario) {
                continue;
            }
            progress(round, &scenario.name);
            let mut figures = Round::new();
            let subjects = scenario.subjects(&options.subjects);
            for subject in rotated(&subjects, round + number) {
                figures.insert(subject, bench.measure(scenario, subject)?);
            }
            each(Sample {
                scenario: scenario.name.clone(),
                round,
                figures,
            })?;
        }
        // The first round has scenarios that the others leave out, and tells little of them.
        if round != 0 || longest_round.is_zero() {
            longest_round = round_start.elapsed();
        }
        round += 1;
    }
    Ok(())
}

impl Options {
    /// Whether the host's side is one that this can be measured at.
    fn suit(&self, scenario: &Scenario) -> bool {
        match self.host {
            HostSide::Socket => true,
            HostSide::Tap(_) => scenario.suits_a_tap(),
            HostSide::Vmnet => scenario.suits_vmnet(),
        }
    }
}

impl Until {
    fn has_room(self, round: usize, elapsed: Duration, last_round: Duration) -> bool {
        match self {
            Self::Rounds(rounds) => round < rounds,
            // The first round is there in any case.
            Self::Elapsed(time) => round == 0 || elapsed + last_round / 2 < time,
        }
    }
}

/// The subjects in an order that differs from number to number, so that none always follows the
/// same other one: forwards and backwards, from each as the first.
fn rotated(subjects: &[Subject], number: usize) -> Vec<Subject> {
    let mut order = subjects.to_vec();
    order.rotate_left(number / 2 % subjects.len().max(1));
    if number % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_subject_comes_first_and_last_in_turn() {
        let orders: Vec<_> = (0..8)
            .map(|number| rotated(&Subject::USUAL, number))
            .collect();
        let firsts: HashSet<_> = orders.iter().map(|order| order[0]).collect();
        let lasts: HashSet<_> = orders.iter().map(|order| order[3]).collect();
        assert_eq!((firsts.len(), lasts.len()), (4, 4));
    }

    #[test]
    fn what_needs_cores_is_refused_where_they_cannot_be_chosen() {
        check(&Subject::USUAL).unwrap();
        let spread = check(&[Subject::Bare, Subject::Spread]);
        assert_eq!(spread.is_ok(), cores::CAN_PIN);
    }

    #[test]
    fn a_run_has_one_round_at_least() {
        let none = Until::Elapsed(Duration::ZERO);
        assert!(none.has_room(0, Duration::ZERO, Duration::ZERO));
        assert!(!none.has_room(1, Duration::from_secs(1), Duration::from_secs(1)));
        assert!(!Until::Rounds(3).has_room(3, Duration::ZERO, Duration::ZERO));
    }
}
