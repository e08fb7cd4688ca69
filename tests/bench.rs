//! The subcommand `bench`, from outside: what it prints, what it writes, and its exit codes.
//!
//! With the feature `vmnet-sim` it measures as on a Mac: it takes the time itself, and puts no
//! thread on a core.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
#[cfg(target_os = "linux")]
use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_run_prints_a_table_and_writes_a_line_for_each_round() {
    let json = scratch("run.json");
    let output = bench(&[
        "--scenario=outbound/64,drops/inbound",
        "--rounds=2",
        "--subject=auto,one-frame,load,always,never,unfiltered,other",
        &format!("--against={}", env!("CARGO_BIN_EXE_softnet")),
        &format!("--json={}", json.display()),
    ]);
    let table = stdout(&output);
    assert!(output.status.success(), "{output:?}");
    for word in [
        "outbound/64",
        "drops/inbound",
        "ns/frame",
        "bare",
        "unfiltered",
        "load",
        "other",
        "2 rounds",
    ] {
        assert!(table.contains(word), "{word} is missing in:\n{table}");
    }
    let lines = read(&json);
    assert_eq!(lines.len(), 1 + 2 * 2);
    assert!(lines.iter().all(|line| line["schema"] == 1));
    assert!(lines[0]["machine"]["cores"].as_u64().unwrap() > 0);
    let auto = &lines[1]["subjects"]["auto"];
    assert!(auto["cpu_ns_per_frame"].as_f64().unwrap() > 0.0, "{auto}");
    assert_eq!(auto["drops"], 0.0);
    let spoofed = lines
        .iter()
        .find(|line| line["scenario"] == "drops/inbound")
        .unwrap();
    assert!(spoofed["subjects"]["auto"]["drops"].as_f64().unwrap() > 100.0);
    fs::remove_file(json).unwrap();
}

#[test]
fn figures_are_those_of_frames_that_moved() {
    let json = scratch("moved.json");
    let output = bench(&[
        "--scenario=outbound/64,inbound/64,load/outbound/1k,burst/inbound,slow-vm,drops/outbound",
        "--rounds=1",
        "--subject=auto,one-frame,always",
        "--window=20",
        &format!("--json={}", json.display()),
    ]);
    assert!(output.status.success(), "{output:?}");
    let lines = read(&json);
    assert_eq!(lines.len(), 1 + 6);
    for line in &lines[1..] {
        // From a nanosecond to a millisecond a frame, and so on: whatever the machine.
        let wanted = match line["scenario"].as_str().unwrap() {
            "outbound/64" | "inbound/64" => vec![
                ("cpu_ns_per_frame", 1e0..1e6),
                ("frames_per_s", 1e3..1e9),
                ("anonymous_kib", 10.0..1e5),
            ],
            "drops/outbound" => vec![("cpu_ns_per_frame", 1e0..1e6)],
            "slow-vm" => vec![
                ("cpu_ns_per_frame", 1e0..1e6),
                ("frames_per_s", 1e2..1e6),
                ("latency_p50_us", 0.1..1e6),
            ],
            _ => vec![
                ("cpu_ns_per_frame", 1e0..1e7),
                ("latency_p50_us", 0.1..1e5),
                ("latency_p99_us", 0.1..1e6),
            ],
        };
        let subjects = line["subjects"].as_object().unwrap();
        assert_eq!(subjects.len(), 4, "{line}");
        for figures in subjects.values() {
            for (figure, range) in &wanted {
                let value = figures[figure].as_f64();
                assert!(
                    value.is_some_and(|value| range.contains(&value)),
                    "{figure} in {line}"
                );
            }
        }
        if line["scenario"] == "drops/outbound" {
            let drops = |subject: &str| subjects[subject]["drops"].as_f64().unwrap();
            assert!(drops("auto") > 100.0 && drops("always") > 100.0, "{line}");
            assert_eq!(drops("bare"), 0.0, "no filter");
        }
    }
    fs::remove_file(json).unwrap();
}

#[test]
fn what_needs_cores_of_its_own_is_refused_where_they_cannot_be_chosen() {
    let spread = bench(&[
        "--scenario=outbound/64",
        "--rounds=1",
        "--subject=auto,spread",
    ]);
    if cfg!(vmnet) {
        assert_eq!(spread.status.code(), Some(1));
        assert_one_line(&spread, "spread needs threads on certain cores");
    } else {
        assert!(spread.status.success(), "{spread:?}");
    }
}

/// Killed while the one that it measures works, and while it holds that one.
#[test]
#[cfg(target_os = "linux")] // Looks into /proc.
fn a_forwarder_ends_with_the_bench_that_measures_it() {
    for (scenario, state) in [
        ("--scenario=load/outbound/1k", 'S'),
        ("--scenario=both", 'T'),
    ] {
        // In a session of its own, as who is started from a terminal or by launchd.
        let mut bench = Command::new("setsid")
            .args([env!("CARGO_BIN_EXE_softnet"), "bench", "--subject=auto"])
            .args(["--window=9000", scenario])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let forwarder = within_seconds(|| child_of(bench.id(), state));
        bench.kill().unwrap();
        bench.wait().unwrap();
        within_seconds(|| stat(&forwarder).is_none().then_some(()));
    }
}

#[test]
fn every_kind_of_scenario_runs() {
    let output = bench(&[
        "--scenario=load/inbound/10k,burst/outbound,slow-vm,density/24,rules/4096,both/65000",
        "--rounds=1",
        "--subject=auto",
        "--window=20",
    ]);
    let table = stdout(&output);
    assert!(output.status.success(), "{output:?}");
    for word in ["us p99", "switches/burst", "KiB resident", "Gbit/s"] {
        assert!(table.contains(word), "{word} is missing in:\n{table}");
    }
}

#[test]
fn scenarios_are_listed_and_an_unknown_one_is_refused() {
    let list = bench(&["--list"]);
    assert!(stdout(&list).contains("outbound/imix"));
    let unknown = bench(&["--scenario=outbound/65"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert_one_line(&unknown, "there is no scenario");
}

#[test]
fn a_comparison_tells_worse_by_its_exit_code() {
    let results = |name: &str, costs: [f64; 6]| {
        let path = scratch(name);
        let mut text = r#"{"schema":1,"machine":{"cpu":"x","cores":2,"kernel":"6","version":"0","date":0,"load":0.0}}"#.to_owned();
        for (round, cost) in costs.iter().enumerate() {
            text += &format!(
                "\n{{\"schema\":1,\"scenario\":\"outbound/64\",\"round\":{round},\"subjects\":{{\
                 \"bare\":{{\"cpu_ns_per_frame\":100.0}},\"auto\":{{\"cpu_ns_per_frame\":{cost}}}}}}}"
            );
        }
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = results("good.json", [102.0, 103.0, 101.0, 102.0, 102.0, 103.0]);
    let bad = results("bad.json", [112.0, 113.0, 111.0, 112.0, 112.0, 113.0]);
    let worse = bench(&["compare", &good, &bad]);
    assert_eq!(worse.status.code(), Some(1));
    assert!(stdout(&worse).contains("WORSE"), "{worse:?}");
    assert!(stdout(&bench(&["compare", &bad, &good])).contains("better"));
    let same = bench(&["compare", &good, &good]);
    assert_eq!(same.status.code(), Some(0));
    assert!(stdout(&same).contains("same"));
    let tolerant = bench(&["compare", "--noise=20", &good, &bad]);
    assert_eq!(tolerant.status.code(), Some(0));
    let limits = scratch("limits.txt");
    fs::write(
        &limits,
        "outbound/64 cpu_ns_per_frame x bare 1.05 # a limit\n",
    )
    .unwrap();
    let limits = limits.display().to_string();
    let kept = bench(&["compare", "--limits", &limits, &good]);
    assert_eq!(kept.status.code(), Some(0), "{kept:?}");
    let broken = bench(&["compare", "--limits", &limits, &bad]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(stdout(&broken).contains("REFUSED"), "{broken:?}");
    let of_something_else = bench(&["compare", "--limits", &limits, "--subject=load", &bad]);
    assert_eq!(of_something_else.status.code(), Some(1));
    assert_one_line(&of_something_else, "was not measured");
    for path in [good, bad, limits] {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn what_is_not_a_capture_or_not_results_gets_one_line() {
    let file = scratch("text");
    fs::write(&file, "some text, longer than a header of pcap").unwrap();
    let path = file.display().to_string();
    let capture = bench(&[&format!("--pcap={path}")]);
    assert_eq!(capture.status.code(), Some(1));
    assert_one_line(&capture, "not a capture");
    let results = bench(&["compare", &path, &path]);
    assert_eq!(results.status.code(), Some(1));
    assert_one_line(&results, "line 1 is not a line of results");
    let missing = bench(&["--pcap=/nonexistent/capture"]);
    assert_one_line(&missing, "No such file");
    fs::remove_file(file).unwrap();
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_softnet"))
        .arg("bench")
        .args(arguments)
        .output()
        .unwrap()
}

fn read(json: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(json).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What `look` sees at last.
#[cfg(target_os = "linux")]
fn within_seconds<T>(look: impl Fn() -> Option<T>) -> T {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < patience);
        thread::sleep(Duration::from_micros(100));
    }
}

/// The folder in /proc of a process that `parent` has started and that is in this state.
#[cfg(target_os = "linux")]
fn child_of(parent: u32, state: char) -> Option<PathBuf> {
    let wanted = format!("{state} {parent} ");
    let mut processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let child = processes
        .find(|process| stat(&process.path()).is_some_and(|fields| fields.starts_with(&wanted)));
    child.map(|process| process.path())
}

/// State and parent of a process that lives, and more (/proc/PID/stat, behind the name).
#[cfg(target_os = "linux")]
fn stat(process: &Path) -> Option<String> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    // A dead one may wait for somebody to ask what became of it.
    (!fields.starts_with('Z')).then(|| fields.to_owned())
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_one_line(output: &Output, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains(words) && stderr.lines().count() == 1,
        "{stderr}"
    );
}

fn scratch(name: &str) -> PathBuf {
    env::temp_dir().join(format!("softnet-bench-{}-{name}", std::process::id()))
}
