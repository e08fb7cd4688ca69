//! `softnet check --pcap`: what would become of the frames of a capture.
#![cfg(target_os = "linux")] // tests/program starts softnet with what Linux has.

mod frames;
mod program;

use std::fs::{self, File};

use frames::*;
use program::{Outcome, outcome, softnet};

const FAILURE: i32 = 1;

/// Seconds, and what was captured then.
type Captured = (u32, Frame);

/// What `softnet check` says of a capture with these frames.
fn check(name: &str, frames: &[Captured], more: &[&str]) -> Outcome {
    let path = format!("{}/{name}.pcap", env!("CARGO_TARGET_TMPDIR"));
    let mut file = Vec::new();
    // Version 2.4, microseconds, Ethernet.
    for word in [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 65_535, 1_u32] {
        file.extend(word.to_le_bytes());
    }
    for (second, Frame(frame)) in frames {
        let len = u32::try_from(frame.len()).unwrap();
        for word in [1_700_000_000 + second, 0, len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    fs::write(&path, file).unwrap();
    let mut command = softnet(File::open("/dev/null").unwrap());
    let vm = VM.to_string();
    let words = ["check", "--pcap", &path, "--vm-mac-address", &vm];
    let outcome = outcome(command.args(words).args(more));
    fs::remove_file(path).unwrap();
    outcome
}

/// What becomes of each frame, without notes and sums.
fn fates(outcome: &Outcome) -> Vec<&str> {
    let lines = outcome.stdout.lines();
    let of_frames = lines.filter(|line| line.contains(" > "));
    let fates = of_frames.map(|line| line.rsplit_once(": ").unwrap().1);
    fates.collect()
}

#[test]
fn each_frame_has_its_line_and_each_fate_its_sum() {
    let frames = [
        (0, web()),
        (0, tcp(OTHER_IP, INTERNET, 443)),
        (2, inbound(tcp(INTERNET, VM_IP, 22))),
        // Of a neighbour, to another.
        (2, web().to(OTHER).from(OTHER)),
        (3, arp(1, (VM, VM_IP), GATEWAY_IP)),
        (3, web()),
    ];
    let said = check("lines", &frames, &[]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    let expected = "note: VM 52:54:00:00:00:02; gateway 192.168.64.1 with 02:00:00:00:00:01\n\
        note: 192.168.64.2 is taken for leased from the start\n\
        1 0.000000 vm->host 192.168.64.2:49152 > 1.2.3.4:443 tcp: passes\n\
        2 0.000000 vm->host 192.168.64.50:49152 > 1.2.3.4:443 tcp: dropped as source-address\n\
        3 2.000000 host->vm 1.2.3.4:49152 > 192.168.64.2:22 tcp: passes\n\
        5 3.000000 vm->host 52:54:00:00:00:02 > ff:ff:ff:ff:ff:ff arp: passes\n\
        6 3.000000 vm->host 192.168.64.2:49152 > 1.2.3.4:443 tcp: passes\n\
        1 vm->host: dropped as source-address\n\
        3 vm->host: passes\n\
        1 host->vm: passes\n\
        1 neither from the VM nor for it: left out\n";
    assert_eq!(said.stdout, expected);
}

#[test]
fn a_script_learns_of_drops_by_the_exit_code() {
    for (rules, code) in [(&[][..], 0), (&["--block", "1.2.3.0/24"], FAILURE)] {
        let words = [rules, &["--expect-no-drops"]].concat();
        let said = check("script", &[(0, web()), (1, web())], &words);
        assert_eq!(said.code, Some(code), "{rules:?}: {}", said.stdout);
        let without = check("script", &[(0, web())], rules);
        assert_eq!(without.code, Some(0), "{rules:?}");
    }
}

#[test]
fn the_lease_is_learned_from_the_capture_and_ends_at_its_time() {
    let request = Dhcp::request(3).address(50, VM_IP).address(54, GATEWAY_IP);
    let ack = Dhcp::reply(5).option(51, &600_u32.to_be_bytes());
    let frames = [
        (0, request.broadcast()),
        (0, tcp(VM_IP, INTERNET, 443)),
        (1, ack.answer()),
        (1, web()),
        (600, web()),
        (601, inbound(tcp(INTERNET, VM_IP, 22))),
    ];
    let said = check("lease", &frames, &[]);
    let [asks, early, granted, leased, at_the_end, late] = fates(&said)[..] else {
        panic!("{}", said.stdout);
    };
    assert_eq!([asks, granted, leased, at_the_end], ["passes"; 4]);
    // softnet asks the server about the address in its place.
    assert!(early.starts_with("dropped as "), "{early}");
    assert_eq!(late, "dropped as lease-expired");
}

#[test]
fn connections_are_followed_through_the_capture() {
    let answer = || inbound(udp(INTERNET, 53, VM_IP, 5000, &[]));
    let frames = [
        (0, answer()),
        (0, udp(VM_IP, 5000, INTERNET, 53, &[])),
        (1, answer()),
        // Longer than a connection of UDP stays open without packets.
        (60, answer()),
    ];
    let said = check("connections", &frames, &["--block", "in 0.0.0.0/0"]);
    let blocked = "dropped as source-blocked";
    assert_eq!(fates(&said), [blocked, "passes", "passes", blocked]);
}

#[test]
fn a_policy_file_holds_for_the_frames_too() {
    let file = format!("{}/capture.toml", env!("CARGO_TARGET_TMPDIR"));
    let rules = "version = 1\nblock = [\"1.2.3.0/24\"]\n";
    fs::write(&file, rules).unwrap();
    let said = check("file", &[(0, web())], &["--policy", &file]);
    assert_eq!(fates(&said), ["dropped as destination-blocked"]);
    let more = ["--policy", &file, "--allow", "1.2.3.4"];
    let said = check("file-and-flag", &[(0, web())], &more);
    assert_eq!(fates(&said), ["passes"]);
    fs::remove_file(file).unwrap();
}

#[test]
fn a_capture_that_cannot_be_used_is_told_in_a_line() {
    let said = check("empty", &[], &[]);
    assert_eq!(said.code, Some(FAILURE));
    assert!(said.stderr.ends_with("there are no frames in it\n"));
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    let arp = check("arp", &[(0, arp(1, (VM, VM_IP), GATEWAY_IP))], &[]);
    assert_eq!(arp.code, Some(FAILURE));
    assert!(arp.stderr.contains("--gateway"), "{}", arp.stderr);
}

#[test]
fn a_vm_that_mostly_asks_for_an_address_has_the_one_that_it_got() {
    let request = || Dhcp::request(3).address(50, VM_IP).broadcast();
    let ack = Dhcp::reply(5).option(51, &600_u32.to_be_bytes());
    let frames = [
        (0, request()),
        (4, request()),
        (5, ack.answer()),
        (6, web()),
    ];
    let said = check("asks", &frames, &[]);
    assert_eq!(
        fates(&said),
        ["passes"; 4],
        "{}{}",
        said.stdout,
        said.stderr
    );
}
