//! The subcommand `bench`: what was typed, and what is shown.

#[cfg(tap)]
#[path = "benchmark/tap.rs"]
mod host_side;

#[cfg(vmnet)]
#[path = "benchmark/vmnet.rs"]
mod host_side;

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use softnet::bench::baseline::{self, Setup};
use softnet::bench::capture;
use softnet::bench::compare::{self, Finding};
use softnet::bench::limits;
use softnet::bench::network::Network;
use softnet::bench::report::{self, LEGEND, Results, SystemInfo};
use softnet::bench::scenario::{self, Scenario};
use softnet::bench::{self, HostSide, Options, Sample, Subject, Until};
use softnet::capture::{Capture, MAX_FRAME};
use softnet::direction::Direction;
use softnet::host::console;
use softnet::host::files::NamedFile;
use softnet::host::privileges::{CallersRights, Identity, SavedPrivileges};
use softnet::wire::Mac;

use host_side::HostFlags;

/// Measures how fast this machine forwards frames, without a VM and without root.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    /// Scenarios to run: names or groups (outbound, load/inbound), or all
    /// [default: those with a star in --list]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    scenario: Vec<String>,

    /// Forwarders to measure beside the bare loop
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "auto,one-frame,always"
    )]
    subject: Vec<Subject>,

    #[command(flatten)]
    host: HostFlags,

    /// Another build of softnet, to measure as `other` in the same rounds
    #[arg(long, value_name = "PROGRAM")]
    against: Option<NamedFile>,

    /// How many rounds to run [default: as many as fit into --seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// How long the rounds may take
    #[arg(
        long,
        value_name = "S",
        default_value = "25",
        conflicts_with = "rounds"
    )]
    seconds: u16,

    /// How long frames come at a fixed rate, in milliseconds; idle phases last five times that,
    /// and 2.2 s at least
    #[arg(long, value_name = "MS", default_value = "100")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    window: u16,

    /// Write every round's figures to a file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<NamedFile>,

    /// Make every frame cost more by iterations of a busy loop, to see that a check would notice
    #[arg(long, value_name = "N", default_value = "0", hide = true)]
    slow_filter: u32,

    /// Only list the scenarios
    #[arg(long)]
    list: bool,

    /// Instead, judge the frames of a capture (pcap or pcapng) with the filter
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "json", "list"])]
    pcap: Option<NamedFile>,

    /// The VM in the capture [default: the station that sent most]
    #[arg(long, value_name = "MAC", requires = "pcap")]
    vm_mac_address: Option<Mac>,

    #[command(subcommand)]
    command: Option<BenchCommand>,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Tell where B is better, worse or the same as A; exit code 1 where it is worse
    Compare {
        /// Results of --json
        #[arg(value_name = "A.json")]
        first: NamedFile,

        /// Others, at best of a run that alternated with the first. Without them, --against of
        /// the run is A, and --subject is B
        #[arg(value_name = "B.json")]
        second: Option<NamedFile>,

        /// A difference below this is noise
        #[arg(long, value_name = "PERCENT", default_value = "3")]
        noise: u8,

        /// Instead, hold A against the limits in this file: a line for each, as in
        /// `outbound/64 cpu_ns_per_frame x bare 1.10`. Exit code 1 where one is broken
        #[arg(long, value_name = "FILE", conflicts_with_all = ["second", "noise"])]
        limits: Option<NamedFile>,

        /// Which forwarder of both to compare
        #[arg(long, value_name = "NAME", default_value = "auto")]
        subject: Subject,
    },
}

/// How what the program is compared with is set up, by the bench itself.
#[derive(Debug, Args)]
pub(crate) struct SubjectArgs {
    subject: Subject,
    #[arg(long)]
    max_frame: usize,
    #[arg(long)]
    rules: usize,
    #[arg(long, default_value = "0")]
    slow_filter: u32,
    /// Whether the host's side is an interface of vmnet, instead of standard output
    #[arg(long)]
    vmnet: bool,
}

/// Runs the bench.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let caller = Identity::find(None, None)?;
    if let Some(BenchCommand::Compare {
        first,
        second,
        noise,
        limits,
        subject,
    }) = &args.command
    {
        let rights = caller.become_caller()?;
        if let Some(limits) = limits {
            return hold(first, limits, *subject, &rights);
        }
        let noise = f64::from(*noise) / 100.0;
        return compare(first, second.as_ref(), *subject, noise, &rights);
    }
    if let Some(file) = &args.pcap {
        return judge(file, args.vm_mac_address, &caller.become_caller()?);
    }
    if args.list {
        return list();
    }
    let scenarios = chosen(&args.scenario)?;
    let mut subjects = vec![Subject::Bare];
    subjects.extend(
        args.subject
            .iter()
            .filter(|subject| !matches!(**subject, Subject::Bare | Subject::Other)),
    );
    if args.against.is_some() {
        subjects.push(Subject::Other);
    }
    bench::check(&subjects)?;
    let (rights, host, saved) = host_side::open(&args.host, args.against.is_some(), &caller)?;
    let other = args.against.as_ref();
    let options = Options {
        program: std::env::current_exe().context("cannot find this program")?,
        other: other.map(|program| program.program(&rights).to_owned()),
        host,
        saved,
        scenarios,
        subjects,
        until: args.rounds.map_or_else(
            || Until::Elapsed(Duration::from_secs(args.seconds.into())),
            |rounds| Until::Rounds(rounds.into()),
        ),
        window: Duration::from_millis(args.window.into()),
        slow_filter: args.slow_filter,
    };
    let system = SystemInfo::this();
    let mut json = args
        .json
        .as_ref()
        .map(|file| create(file, &system, &rights))
        .transpose()?;
    let mut samples = Vec::new();
    bench::run(&options, show_progress, |sample| {
        if let Some(file) = &mut json {
            report::write_sample(file, &sample)?;
        }
        samples.push(sample);
        Ok(())
    })?;
    clear_progress();
    print_table(&system, &samples, &options.subjects)?;
    Ok(ExitCode::SUCCESS)
}

/// What is measured at, the rights that are left to this process, and those that the subjects need.
type Opened = (CallersRights, HostSide, Option<SavedPrivileges>);

fn list() -> anyhow::Result<ExitCode> {
    for Scenario { name, about, .. } in scenario::all() {
        let star = if scenario::USUAL.contains(&name.as_str()) {
            '*'
        } else {
            ' '
        };
        writeln!(io::stdout(), "{star} {name:18} {about}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(
    first: &NamedFile,
    second: Option<&NamedFile>,
    subject: Subject,
    noise: f64,
    rights: &CallersRights,
) -> anyhow::Result<ExitCode> {
    let one = read(first, rights)?;
    let comparisons = match second {
        Some(second) => compare::compare((&one, subject), (&read(second, rights)?, subject), noise),
        None => compare::compare((&one, Subject::Other), (&one, subject), noise),
    };
    ensure!(
        !comparisons.is_empty(),
        "the two have no scenario in common"
    );
    write!(io::stdout(), "{}", compare::table(&comparisons))?;
    let is_worse = comparisons
        .iter()
        .any(|comparison| comparison.finding == Finding::Worse);
    Ok(ExitCode::from(u8::from(is_worse)))
}

fn read(file: &NamedFile, rights: &CallersRights) -> anyhow::Result<Results> {
    let named = || file.to_string();
    let file = file.open(rights).with_context(named)?;
    report::read(BufReader::new(file)).with_context(named)
}

fn hold(
    results: &NamedFile,
    file: &NamedFile,
    subject: Subject,
    rights: &CallersRights,
) -> anyhow::Result<ExitCode> {
    let named = || file.to_string();
    let text = io::read_to_string(file.open(rights).with_context(named)?).with_context(named)?;
    let limits = limits::read(&text)
        .map_err(anyhow::Error::msg)
        .with_context(named)?;
    let (table, all_kept) =
        limits::judge(&read(results, rights)?, subject, &limits).map_err(anyhow::Error::msg)?;
    write!(io::stdout(), "{table}")?;
    Ok(ExitCode::from(u8::from(!all_kept)))
}

fn judge(
    file: &NamedFile,
    vm_mac: Option<Mac>,
    rights: &CallersRights,
) -> anyhow::Result<ExitCode> {
    let named = || file.to_string();
    let file = file.open(rights).with_context(named)?;
    let capture = Capture::read(file).with_context(named)?;
    let network = capture::network(&capture, vm_mac);
    let (mut outbound, mut inbound) = network.filters_with_lease(0, MAX_FRAME)?;
    let judgement = capture::judge(&capture, network.vm_mac, &mut outbound, &mut inbound);
    let mut stdout = io::stdout();
    let Network {
        vm_mac,
        vm,
        gateway_mac,
        gateway,
    } = network;
    writeln!(
        stdout,
        "VM {vm_mac} with {vm}, gateway {gateway_mac} with {gateway}, {} frames",
        capture.frames.len()
    )?;
    if capture.cut > 0 {
        writeln!(
            stdout,
            "{} frames were cut when captured: the filter sees them as malformed",
            capture.cut
        )?;
    }
    for direction in Direction::ALL {
        let (verdicts, cost) = judgement.of(direction);
        let cost = cost.map_or_else(
            || "no frames".to_owned(),
            |cost| format!("{cost:.1} ns/frame"),
        );
        writeln!(stdout, "\n{direction}: {cost}")?;
        for (label, count) in verdicts {
            writeln!(stdout, "  {count:>8} {label}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Is what the program is compared with.
pub(crate) fn run_subject(args: &SubjectArgs) -> anyhow::Result<ExitCode> {
    let caller = Identity::find(None, None)?;
    let setup = Setup {
        subject: args.subject,
        max_frame: args.max_frame,
        rules: args.rules,
        slow_filter: args.slow_filter,
        vmnet: args.vmnet,
    };
    baseline::run(&setup, &caller)?;
    Ok(ExitCode::SUCCESS)
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let mut all = scenario::all();
    for name in names {
        ensure!(
            all.iter().any(|scenario| scenario.is_called(name)),
            "there is no scenario {name:?}; --list shows all of them"
        );
    }
    all.retain(|scenario| match names {
        [] => scenario::USUAL.contains(&scenario.name.as_str()),
        _ => names.iter().any(|name| scenario.is_called(name)),
    });
    Ok(all)
}

fn create(file: &NamedFile, system: &SystemInfo, rights: &CallersRights) -> anyhow::Result<File> {
    let what = || format!("cannot write {file}");
    let mut file = file.create(rights).with_context(what)?;
    report::write_system(&mut file, system).with_context(what)?;
    Ok(file)
}

fn show_progress(round: usize, scenario: &str) {
    if io::stderr().is_terminal() {
        let text = format!("\r\x1b[Kround {}: {scenario}", round + 1);
        console::to_stderr(text.as_bytes(), Duration::ZERO);
    }
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        console::to_stderr(b"\r\x1b[K", Duration::ZERO);
    }
}

fn print_table(system: &SystemInfo, samples: &[Sample], subjects: &[Subject]) -> io::Result<()> {
    let SystemInfo {
        cpu,
        cores,
        kernel,
        load,
        ..
    } = system;
    let rounds = samples
        .iter()
        .map(|sample| sample.round + 1)
        .max()
        .unwrap_or(0);
    let mut stdout = io::stdout();
    writeln!(
        stdout,
        "{}, {cores} cores, kernel {}, load {load:.1}, {rounds} rounds\n",
        console::plain(cpu),
        console::plain(kernel)
    )?;
    writeln!(stdout, "{}", report::table(samples, subjects))?;
    writeln!(stdout, "{LEGEND}")
}
