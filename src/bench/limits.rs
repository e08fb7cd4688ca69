//! `softnet bench compare --limits`: whether a run stays within limits that are in a file, one a
//! line:
//!
//! ```text
//! outbound/64    cpu_ns_per_frame x bare    1.10
//! ```
//!
//! So the CPU time of a frame may be 1.10 times the bare loop's in the same round. Without
//! `x bare` the figure itself is limited. What follows a `#` is a comment.

use std::fmt::{self, Write as _};

use super::figure::{Figure, to_bare, value};
use super::report::Results;
use super::statistics::{median, median_interval};
use super::subject::Subject;
use crate::host::console::plain;

/// What a figure of a scenario may be at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// The scenario.
    pub scenario: String,
    /// The figure.
    pub figure: Figure,
    /// Whether it is the ratio to the bare loop in the same round that is limited.
    pub to_bare: bool,
    /// The limit.
    pub most: f64,
}

impl Limit {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let scenario = words.next()?.to_owned();
        let label = words.next()?;
        let figure = Figure::ALL
            .into_iter()
            .find(|figure| figure.label() == label)?;
        let rest: Vec<_> = words.collect();
        let (to_bare, most) = match rest[..] {
            [most] => (false, most),
            ["x", "bare", most] => (true, most),
            _ => return None,
        };
        let most = most.parse().ok().filter(|most: &f64| most.is_finite())?;
        Some(Self {
            scenario,
            figure,
            to_bare,
            most,
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.figure.label();
        let what = format!("{label}{}", if self.to_bare { " x bare" } else { "" });
        write!(f, "{:20} {what:28}", plain(&self.scenario))
    }
}

/// The limits in a text, in its order.
///
/// # Errors
/// Which line is none, or that there are none.
pub fn read(text: &str) -> Result<Vec<Limit>, String> {
    let mut limits = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let number = index + 1;
            let limit = Limit::parse(line);
            limits.push(limit.ok_or_else(|| format!("line {number} is not a limit"))?);
        }
    }
    if limits.is_empty() {
        return Err("there are no limits in it".to_owned());
    }
    Ok(limits)
}

/// Holds what `subject` did against the limits: a line for each, and whether all are kept.
///
/// Medians over the rounds are shown. A limit is broken only if the whole 95 % interval of the
/// median is beyond it.
///
/// # Errors
/// Which figure was not measured.
pub fn judge(
    results: &Results,
    subject: Subject,
    limits: &[Limit],
) -> Result<(String, bool), String> {
    let (mut table, mut all_kept) = (String::new(), true);
    for limit in limits {
        let values = values(results, subject, limit);
        let (lowest, _) = median_interval(&values)
            .ok_or_else(|| format!("{limit}").trim_end().to_owned() + " was not measured")?;
        let (middle, most, is_kept) = (median(&values), limit.most, lowest <= limit.most);
        let word = if is_kept { "" } else { "  REFUSED" };
        let _ = writeln!(
            table,
            "{limit} {middle:8.2} ({lowest:.2} at least), limit {most}{word}"
        );
        all_kept &= is_kept;
    }
    Ok((table, all_kept))
}

fn values(results: &Results, subject: Subject, limit: &Limit) -> Vec<f64> {
    let rounds = results.scenarios.get(&limit.scenario);
    let of = if limit.to_bare { to_bare } else { value };
    let value = |round| of(round, subject, limit.figure);
    rounds.into_iter().flatten().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::report::{Figures, SystemInfo};
    use crate::bench::scenario::{self, Scenario};

    fn results(costs: [f64; 8]) -> Results {
        let round = |cost: f64| {
            let figures = |cost| Figures::from([(Figure::CpuPerFrame, cost)]);
            BTreeMap::from([
                (Subject::Bare, figures(100.0)),
                (Subject::Auto, figures(cost)),
            ])
        };
        Results {
            system: SystemInfo::this(),
            scenarios: [("outbound/64".to_owned(), costs.map(round).to_vec())].into(),
        }
    }

    fn is_kept(costs: [f64; 8], limits: &str) -> bool {
        let limits = read(limits).unwrap();
        judge(&results(costs), Subject::Auto, &limits).unwrap().1
    }

    #[test]
    fn a_figure_and_its_ratio_to_the_bare_loop_are_limited() {
        let ratio = "outbound/64 cpu_ns_per_frame x bare 1.1 # words";
        assert!(is_kept([109.0; 8], ratio));
        assert!(!is_kept([111.0; 8], ratio));
        let figure = "\n# words\noutbound/64 cpu_ns_per_frame 110";
        assert!(is_kept([109.0; 8], figure));
        assert!(!is_kept([111.0; 8], figure));
    }

    #[test]
    fn what_may_be_chance_is_not_refused() {
        let costs = [105.0, 130.0, 130.0, 130.0, 130.0, 130.0, 130.0, 105.0];
        let limit = "outbound/64 cpu_ns_per_frame x bare 1.1";
        assert!(is_kept(costs, limit));
        assert!(!is_kept([130.0; 8], limit));
    }

    #[test]
    fn a_limit_that_is_none_or_of_nothing_measured_is_told() {
        for (text, words) in [
            ("", "there are no limits in it"),
            ("\noutbound/64 cpu_ns_per_frame", "line 2 is not a limit"),
            ("outbound/64 cpu 1", "line 1 is not a limit"),
            ("outbound/64 drops x 1", "line 1 is not a limit"),
            ("outbound/64 drops NaN", "line 1 is not a limit"),
        ] {
            assert_eq!(read(text), Err(words.to_owned()), "{text}");
        }
        for text in ["outbound/64 drops 1", "inbound/64 cpu_ns_per_frame 1"] {
            let limits = read(text).unwrap();
            let error = judge(&results([1.0; 8]), Subject::Auto, &limits).unwrap_err();
            assert!(error.ends_with("was not measured"), "{error}");
        }
    }

    #[test]
    fn the_gates_own_limits_can_be_read() {
        let limits = read(include_str!("../../perf/baseline/limits.txt")).unwrap();
        let scenarios = scenario::all();
        for limit in limits {
            let named = |scenario: &Scenario| scenario.name == limit.scenario;
            assert!(scenarios.iter().any(named), "{limit}");
        }
    }
}
