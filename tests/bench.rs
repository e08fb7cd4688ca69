//! The subcommand `bench`, from outside: what it prints, what it writes, and its exit codes.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

#[test]
fn a_run_prints_a_table_and_writes_a_line_for_each_round() {
    let json = scratch("run.json");
    let output = bench(&[
        "--scenario=outbound/64,drops/inbound",
        "--rounds=2",
        "--subject=auto,one-frame,always,never,unfiltered",
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
        "2 rounds",
    ] {
        assert!(table.contains(word), "{word} is missing in:\n{table}");
    }
    let lines: Vec<serde_json::Value> = fs::read_to_string(&json)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
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
    assert_one_line(&unknown, "no scenario is called");
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
    for path in [good, bad] {
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
