//! Results as people read them, and as programs do.
//!
//! A file of results has one JSON object a line. The first says where the numbers come from;
//! each other one is a scenario in a round:
//!
//! ```json
//! {"schema":1,"machine":{"cpu":"...","cores":2,"kernel":"...","version":"...","date":1795559570,"load":0.4}}
//! {"schema":1,"scenario":"outbound/64","round":0,"subjects":{"bare":{"cpu_ns_per_frame":751.2},"auto":{...}}}
//! ```
//!
//! [`Figure`] lists the figures with their units; one may be missing where it makes no sense.
//! `schema` counts up when a reader of the old form would misread the new one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Sample;
pub use super::figure::Figures;
use super::figure::{Figure, Kind, Round, to_bare, value};
use super::statistics::Quartiles;
use super::subject::Subject;
use crate::sys::system_info;

/// The version of the form of results.
pub const SCHEMA: u32 = 1;

/// Where the numbers come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemInfo {
    /// The model of the processor.
    pub cpu: String,
    /// How many cores this process may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// softnet's.
    pub version: String,
    /// When it began, in seconds since 1970.
    pub date: u64,
    /// The load of the machine then, over one minute. More than 0 blurs the numbers.
    pub load: f64,
}

impl SystemInfo {
    /// This one, now.
    #[must_use]
    pub fn this() -> Self {
        let kernel =
            nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        Self {
            cpu: system_info::processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            date: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_secs()),
            load: system_info::load().unwrap_or(0.0),
        }
    }
}

/// Results as they are kept in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// Where they come from; of the first run, if a file has several.
    pub system: SystemInfo,
    /// Of each scenario, what each round gave, in the order of the file.
    pub scenarios: BTreeMap<String, Vec<Round>>,
}

/// Why a file of results cannot be used.
#[derive(Debug, Error)]
pub enum NotResults {
    /// It cannot be read.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// A line is not of the form described above.
    #[error("line {0} is not a line of results of schema {SCHEMA}")]
    Line(usize, #[source] serde_json::Error),
    /// There is another version's.
    #[error("line {0} has schema {1}; this softnet reads {SCHEMA}")]
    Schema(usize, u32),
    /// It is empty.
    #[error("there are no results in it")]
    Empty,
}

/// A line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    schema: u32,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Content {
    SystemInfo {
        #[serde(rename = "machine")]
        system: SystemInfo,
    },
    Sample {
        scenario: String,
        round: usize,
        subjects: Round,
    },
}

/// Writes the first line of a file of results.
///
/// # Errors
/// When the file takes no more.
pub fn write_system(file: &mut impl Write, system: &SystemInfo) -> io::Result<()> {
    write_line(
        file,
        Content::SystemInfo {
            system: system.clone(),
        },
    )
}

/// Writes what one round of a scenario gave.
///
/// # Errors
/// When the file takes no more.
pub fn write_sample(file: &mut impl Write, sample: &Sample) -> io::Result<()> {
    let mut subjects = sample.figures.clone();
    for value in subjects.values_mut().flat_map(BTreeMap::values_mut) {
        *value = significant(*value);
    }
    write_line(
        file,
        Content::Sample {
            scenario: sample.scenario.clone(),
            round: sample.round,
            subjects,
        },
    )
}

fn write_line(file: &mut impl Write, content: Content) -> io::Result<()> {
    let line = serde_json::to_string(&Line {
        schema: SCHEMA,
        content,
    })?;
    writeln!(file, "{line}")
}

/// Five significant digits, which is more than any figure has.
fn significant(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}

/// Reads a file of results.
///
/// # Errors
/// See [`NotResults`].
pub fn read(file: impl BufRead) -> Result<Results, NotResults> {
    let mut results = None;
    let mut scenarios = BTreeMap::<_, Vec<_>>::new();
    for (number, line) in (1..).zip(file.lines()) {
        let line: Line =
            serde_json::from_str(&line?).map_err(|error| NotResults::Line(number, error))?;
        if line.schema != SCHEMA {
            return Err(NotResults::Schema(number, line.schema));
        }
        match line.content {
            Content::SystemInfo { system } => {
                results.get_or_insert(system);
            }
            Content::Sample {
                scenario, subjects, ..
            } => {
                scenarios.entry(scenario).or_default().push(subjects);
            }
        }
    }
    let system = results.ok_or(NotResults::Empty)?;
    Ok(Results { system, scenarios })
}

/// Shows results as a table: a row per scenario and figure, the bare loop's value, and the
/// ratio to it of every other subject with its quartiles over the rounds.
#[must_use]
pub fn table(samples: &[Sample], subjects: &[Subject]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for sample in samples {
        if !names.contains(&sample.scenario.as_str()) {
            names.push(&sample.scenario);
        }
    }
    let mut table = String::new();
    let _ = write!(table, "{:20} {:18}", "scenario", "figure");
    for subject in subjects {
        let _ = write!(table, " {:>1$}", subject, width(*subject));
    }
    table.push('\n');
    for name in names {
        let rounds: Vec<_> = samples
            .iter()
            .filter(|sample| sample.scenario == name)
            .collect();
        let mut title = name;
        for figure in Figure::ALL {
            let row = row(&rounds, figure, subjects);
            if !row.trim().is_empty() {
                let _ = writeln!(table, "{title:20} {figure:18}{}", row.trim_end());
                title = "";
            }
        }
    }
    table
}

fn row(rounds: &[&Sample], figure: Figure, subjects: &[Subject]) -> String {
    let mut row = String::new();
    let mut is_void = true;
    for &subject in subjects {
        let all = |of: fn(&Round, Subject, Figure) -> Option<f64>| -> Vec<f64> {
            let rounds = rounds.iter();
            rounds
                .filter_map(|round| of(&round.figures, subject, figure))
                .collect()
        };
        let (values, ratios) = (all(value), all(to_bare));
        let absolute = subject == Subject::Bare || figure.kind() == Kind::Count;
        let cell = match (Quartiles::of(&values), Quartiles::of(&ratios)) {
            (Some(values), _) if absolute => {
                is_void &= values.median == 0.0;
                plain(values.median)
            }
            (_, Some(ratios)) => {
                is_void = false;
                ratio(ratios)
            }
            _ => String::new(),
        };
        let _ = write!(row, " {:>1$}", cell, width(subject));
    }
    if is_void { String::new() } else { row }
}

/// A ratio with its quartiles, and a warning if these are far apart.
fn ratio(quartiles: Quartiles) -> String {
    let Quartiles {
        lower,
        median,
        upper,
    } = quartiles;
    let doubt = if quartiles.spread() > SPREAD_MAX {
        "?"
    } else {
        " "
    };
    format!("{median:.2} ({lower:.2}..{upper:.2}){doubt}")
}

/// A number in four significant digits, with a unit of a thousand or a million.
fn plain(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1e6.. => format!("{:.2} M", value / 1e6),
        1e4.. => format!("{:.1} k", value / 1e3),
        100.0.. => format!("{value:.0}"),
        1.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

const fn width(subject: Subject) -> usize {
    match subject {
        Subject::Bare => 9,
        _ => 20,
    }
}

/// What stands below the table.
pub const LEGEND: &str = "Ratios are to the bare loop in the same round: median (quartiles). \
CPU is the forwarder's alone.\nA ratio with ? has quartiles more than 15 % apart: the machine \
is too busy, or the rounds are too few, to tell.";

const SPREAD_MAX: f64 = 0.15;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: usize, bare: f64, auto: f64) -> Sample {
        let cpu = |value| Figures::from([(Figure::CpuPerFrame, value), (Figure::Drops, 0.0)]);
        Sample {
            scenario: "outbound/64".to_owned(),
            round,
            figures: [(Subject::Bare, cpu(bare)), (Subject::Auto, cpu(auto))].into(),
        }
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let mut file = Vec::new();
        let system = SystemInfo::this();
        write_system(&mut file, &system).unwrap();
        write_sample(&mut file, &sample(0, 100.0, 101.0)).unwrap();
        write_sample(&mut file, &sample(1, 200.0, 204.0)).unwrap();
        let results = read(&file[..]).unwrap();
        assert_eq!(results.system, system);
        let rounds = &results.scenarios["outbound/64"];
        assert_eq!(rounds.len(), 2);
        assert_eq!(rounds[1][&Subject::Auto][&Figure::CpuPerFrame], 204.0);
    }

    #[test]
    fn what_is_not_a_file_of_results_says_where() {
        let error = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error(""), "there are no results in it");
        assert_eq!(
            error("{\"a\":1}"),
            "line 1 is not a line of results of schema 1"
        );
        let future = r#"{"schema":2,"scenario":"x","round":0,"subjects":{}}"#;
        assert_eq!(error(future), "line 1 has schema 2; this softnet reads 1");
    }

    #[test]
    fn a_ratio_is_that_within_a_round_and_a_wide_spread_is_told() {
        let subjects = [Subject::Bare, Subject::Auto];
        // The machine became slower by far, but both alike.
        let steady = table(
            &[sample(0, 100.0, 102.0), sample(1, 900.0, 918.0)],
            &subjects,
        );
        assert!(steady.contains("1.02 (1.02..1.02)"), "{steady}");
        assert!(!steady.contains("..1.02)?"), "{steady}");
        assert!(
            !steady.contains("drops"),
            "rows of nothing but zero are left out: {steady}"
        );
        let noisy = table(
            &[sample(0, 100.0, 102.0), sample(1, 100.0, 180.0)],
            &subjects,
        );
        assert!(noisy.contains('?'), "{noisy}");
    }
}
