//! `softnet bench compare`: whether one set of results is better than another.
//!
//! Two runs differ by what else the machine did. So figures are not compared, but their
//! ratios to the bare loop of the same round, and round by round if the two runs alternated.
//! A difference counts only if it is both likely and large: the interval of the median
//! leaves out 1, and the median is beyond the noise.

use std::fmt::{self, Write as _};

use super::figure::{Figure, Kind, Round, to_bare};
use super::report::Results;
use super::statistics::{Quartiles, median_interval};
use super::subject::Subject;
use crate::host::console::plain;

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The second is better.
    Better,
    /// The second is worse.
    Worse,
    /// There is no difference beyond the noise.
    Same,
    /// The rounds are too few, or too far apart, to rule a difference out.
    Unclear,
}

/// One figure of one scenario.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The scenario.
    pub scenario: String,
    /// The figure.
    pub figure: Figure,
    /// The median over the rounds of how many times the second is as bad as the first.
    pub ratio: f64,
    /// Where the true median is, with 95 % confidence.
    pub interval: (f64, f64),
    /// How many rounds both have.
    pub rounds: usize,
    /// What follows from it.
    pub finding: Finding,
}

/// Compares what a forwarder did in some results with what another did in others (which may
/// be the same ones), with a tolerance of `noise` (0.03 for 3 %).
///
/// Only costs and yields are compared, in scenarios that both have.
#[must_use]
pub fn compare(
    (first, one): (&Results, Subject),
    (second, other): (&Results, Subject),
    noise: f64,
) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for (scenario, rounds) in &first.scenarios {
        let Some(others) = second.scenarios.get(scenario) else {
            continue;
        };
        for figure in Figure::ALL {
            let ratio = |(before, after): (&Round, &Round)| {
                let ratio = to_bare(after, other, figure)? / to_bare(before, one, figure)?;
                match figure.kind() {
                    Kind::Cost => Some(ratio),
                    Kind::Yield => Some(1.0 / ratio),
                    Kind::Count => None,
                }
            };
            let ratios: Vec<f64> = rounds.iter().zip(others).filter_map(ratio).collect();
            let (Some(quartiles), Some(interval)) =
                (Quartiles::of(&ratios), median_interval(&ratios))
            else {
                continue;
            };
            comparisons.push(Comparison {
                scenario: scenario.clone(),
                figure,
                ratio: quartiles.median,
                interval,
                rounds: ratios.len(),
                finding: find(quartiles.median, interval, ratios.len(), noise),
            });
        }
    }
    comparisons
}

fn find(median: f64, (lower, upper): (f64, f64), rounds: usize, noise: f64) -> Finding {
    if rounds < ROUNDS_MIN {
        Finding::Unclear
    } else if lower > 1.0 && median > 1.0 + noise {
        Finding::Worse
    } else if upper < 1.0 && median < 1.0 / (1.0 + noise) {
        Finding::Better
    } else if upper <= 1.0 + 2.0 * noise {
        Finding::Same
    } else {
        Finding::Unclear
    }
}

/// Shows comparisons as a table.
#[must_use]
pub fn table(comparisons: &[Comparison]) -> String {
    let mut table = String::new();
    let _ = writeln!(
        table,
        "{:20} {:18} {:>7} {:^16} {:>6}",
        "scenario", "figure", "times", "95 %", "rounds"
    );
    for Comparison {
        scenario,
        figure,
        ratio,
        interval,
        rounds,
        finding,
    } in comparisons
    {
        let (lower, upper) = interval;
        let scenario = plain(scenario);
        let _ = writeln!(
            table,
            "{scenario:20} {figure:18} {ratio:>7.3} {lower:>7.3}..{upper:<7.3} {rounds:>6}  {finding}"
        );
    }
    table
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::Same => "same",
            Self::Unclear => "unclear: too few rounds, or too noisy",
        })
    }
}

/// Below this no interval has a confidence of 95 %.
const ROUNDS_MIN: usize = 6;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::report::{Figures, SystemInfo};

    /// Results in which the bare loop takes 100 and the other `costs`, round by round.
    fn results(costs: &[f64]) -> Results {
        let round = |cost: &f64| {
            let figures = |cost, rate| {
                Figures::from([(Figure::CpuPerFrame, cost), (Figure::FramesPerSecond, rate)])
            };
            BTreeMap::from([
                (Subject::Bare, figures(100.0, 1e6)),
                (Subject::Auto, figures(*cost, 1e8 / cost)),
            ])
        };
        Results {
            system: SystemInfo::this(),
            scenarios: BTreeMap::from([("x".to_owned(), costs.iter().map(round).collect())]),
        }
    }

    fn findings(first: &[f64], second: &[f64]) -> Vec<Finding> {
        let (first, second) = (results(first), results(second));
        let comparisons = compare((&first, Subject::Auto), (&second, Subject::Auto), 0.03);
        comparisons
            .iter()
            .map(|comparison| comparison.finding)
            .collect()
    }

    #[test]
    fn a_name_from_a_file_does_nothing_to_a_terminal() {
        let named = |name: &str| {
            let mut results = results(&STEADY);
            results.scenarios = [(name.to_owned(), results.scenarios["x"].clone())].into();
            results
        };
        let results = named("x\x1b[2J\n\u{202e}y");
        let table = table(&compare(
            (&results, Subject::Auto),
            (&results, Subject::Auto),
            0.03,
        ));
        assert!(table.contains(r"x\u{1b}[2J\n\u{202e}y "), "{table}");
        assert_eq!(table.lines().count(), 3, "{table}");
    }

    const STEADY: [f64; 8] = [101.0, 100.0, 102.0, 101.0, 100.0, 101.0, 102.0, 101.0];

    #[test]
    fn a_cost_that_rose_is_worse_and_so_is_a_rate_that_fell() {
        let slower = STEADY.map(|cost| cost * 1.06);
        assert_eq!(findings(&STEADY, &slower), [Finding::Worse; 2]);
        assert_eq!(findings(&slower, &STEADY), [Finding::Better; 2]);
    }

    #[test]
    fn a_difference_within_the_noise_is_none() {
        assert_eq!(
            findings(&STEADY, &STEADY.map(|cost| cost * 1.01)),
            [Finding::Same; 2]
        );
    }

    #[test]
    fn what_goes_up_and_down_or_has_few_rounds_is_unclear() {
        let wild = [90.0, 130.0, 95.0, 125.0, 90.0, 128.0, 92.0, 127.0];
        assert_eq!(findings(&STEADY, &wild), [Finding::Unclear; 2]);
        assert_eq!(findings(&STEADY[..5], &[200.0; 5]), [Finding::Unclear; 2]);
        assert_eq!(findings(&[], &[]), []);
    }
}
