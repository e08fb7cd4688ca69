//! What was typed: every wrong input gets one line on standard error, and its exit code.
#![cfg(target_os = "linux")] // Namespaces, a TAP, and what /proc tells.

mod program;

use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use program::{ARGUMENTS, Copy, MAC, Outcome, Program, as_root, outcome, socketpair, softnet};

const USAGE: i32 = 2;
const FAILURE: i32 = 1;

/// A command line that is complete, with `more` words at its end, and no descriptor to speak
/// of as standard input.
fn with(more: &[&str]) -> Command {
    let mut command = softnet(File::open("/dev/null").unwrap());
    command.args(ARGUMENTS).args(more);
    command
}

fn without(words: &[&str]) -> Command {
    let mut command = softnet(File::open("/dev/null").unwrap());
    command.args(words);
    command
}

#[track_caller]
fn refused(command: &mut Command, code: i32, reason: &str) {
    let Outcome {
        code: actual,
        stdout,
        stderr,
    } = outcome(command);
    assert_eq!(actual, Some(code), "{stderr}");
    assert_eq!(stdout, "");
    assert!(
        stderr.starts_with("softnet: ") && stderr.contains(reason),
        "{stderr}"
    );
    assert_eq!(
        stderr.matches('\n').count(),
        1,
        "more than a line: {stderr}"
    );
    assert!(stderr.ends_with('\n'), "{stderr}");
}

#[test]
fn help_and_version_answer_at_once_whatever_else_is_wrong() {
    for words in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["-V"],
        &["run", "--help"],
        &["--vm-fd", "77", "--tap", "softnet-test0", "--help"],
    ] {
        // As sudo starts it: few descriptors, no environment, and none of them is a socket.
        let mut command = without(words);
        command.env("SUDO_UID", "1000").env("SUDO_GID", "1000");
        let start = Instant::now();
        let Outcome {
            code,
            stdout,
            stderr,
        } = outcome(&mut command);
        assert!(start.elapsed() < Duration::from_secs(1));
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{words:?}");
        assert!(!stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn nobody_reading_the_help_is_no_failure() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let status = without(&["--help"])
        .stdout(Stdio::from(writer))
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

/// With `UPDATE_EXPECT=1` the text becomes the expected one.
#[test]
fn the_help_is_as_expected() {
    for (words, file) in [
        (&["--help"][..], "help.txt"),
        (&["run", "--help"], "help-run.txt"),
        (&["bench", "--help"], "help-bench.txt"),
        (&["check", "--help"], "help-check.txt"),
        (&["policy", "--help"], "help-policy.txt"),
        (&["policy", "set", "--help"], "help-policy-set.txt"),
        (&["flows", "--help"], "help-flows.txt"),
        (&["denied", "--help"], "help-denied.txt"),
    ] {
        let help = outcome(&mut without(words)).stdout;
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/expected")
            .join(file);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, &help).unwrap();
        }
        assert_eq!(
            help,
            fs::read_to_string(&path).unwrap(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn a_flag_that_is_missing_unknown_or_given_twice_is_named() {
    refused(
        &mut without(&[]),
        USAGE,
        "--vm-fd <N> --vm-mac-address <MAC> --tap <NAME>",
    );
    refused(&mut with(&["--frob"]), USAGE, "'--frob'");
    refused(&mut with(&["stray"]), USAGE, "'stray'");
    refused(
        &mut with(&["--vm-fd", "3"]),
        USAGE,
        "'--vm-fd <N>' cannot be used multiple times",
    );
    refused(&mut with(&["--user"]), USAGE, "--user");
    refused(
        &mut without(&["run", "--vm-mac-address", MAC]),
        USAGE,
        "--tap <NAME> <COMMAND>",
    );
}

#[test]
fn a_bad_descriptor_number_is_a_usage_error() {
    for number in ["-1", "x", "4294967296", ""] {
        let mut command = without(&["--vm-fd", number, "--vm-mac-address", MAC, "--tap", "t"]);
        refused(&mut command, USAGE, "--vm-fd");
    }
    let mut stderr = without(&["--vm-fd", "2", "--vm-mac-address", MAC, "--tap", "t"]);
    refused(&mut stderr, USAGE, "standard error");
}

#[test]
fn a_descriptor_that_is_not_the_vm_s_socket_is_told_what_it_is() {
    let mut closed = without(&["--vm-fd", "77", "--vm-mac-address", MAC, "--tap", "t"]);
    refused(&mut closed, FAILURE, "descriptor 77 is not open");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    for (stdin, reason) in [
        (
            OwnedFd::from(File::open("/dev/null").unwrap()),
            "descriptor 0 is not a socket",
        ),
        (udp.into(), "descriptor 0 is not a unix socket"),
        (stream.into(), "descriptor 0 is not a datagram socket"),
    ] {
        refused(with(&[]).stdin(Stdio::from(stdin)), FAILURE, reason);
    }
}

/// What is accepted gets as far as the user that does not exist.
#[test]
fn the_forms_in_which_addresses_are_written_elsewhere_are_accepted() {
    for (mac, more) in [
        ("52-54-00-12-34-56", &[][..]),
        (MAC, &["--allow", "10.1.2.3,192.168.1.1"]),
        (MAC, &["--block", "10.1.2.3"]),
        (MAC, &["--gateway", "192.168.78.1/24"]),
        (MAC, &["--gateway", "192.168.78.1/31"]),
        (MAC, &["--gateway", "192.168.78.1/32"]),
    ] {
        let (ours, _vms) = socketpair();
        let mut command = softnet(ours);
        command.args(["--vm-fd", "0", "--vm-mac-address", mac, "--tap", "t"]);
        command.args(more).args(["--user", "no-such-name"]);
        refused(&mut command, USAGE, "unknown user `no-such-name`");
    }
}

#[test]
fn a_mac_that_is_not_one_station_s_is_refused() {
    for (mac, reason) in [
        ("52:54:00:12:34", "six hexadecimal bytes"),
        ("52-54-00-12:34:56", "six hexadecimal bytes"),
        ("", "--vm-mac-address"),
        ("01:00:5e:00:00:01", "group"),
        ("ff:ff:ff:ff:ff:ff", "group"),
        ("00:00:00:00:00:00", "nobody"),
    ] {
        let mut command = without(&["--vm-fd", "0", "--vm-mac-address", mac, "--tap", "t"]);
        refused(&mut command, USAGE, reason);
    }
}

#[test]
fn a_rule_that_cannot_be_kept_is_refused() {
    for flag in ["--allow", "--block"] {
        for (list, reason) in [
            ("fd00::/8", "IPv4 only"),
            ("::1", "IPv4 only"),
            ("@gateway", "\"@gateway\": unknown alias"),
            ("1.2.3.4:0", "ports are N or A-B"),
            ("10.0.0.0/33", "10.0.0.0/33"),
            ("10.0.0.0/8,", "neither an IPv4 network"),
            ("example.org", "names are not resolved"),
        ] {
            refused(&mut with(&[flag, list]), USAGE, reason);
            refused(&mut with(&[flag, list]), USAGE, flag);
        }
    }
    let many = vec!["10.0.0.0/8"; 4097].join(",");
    refused(&mut with(&["--block", &many]), USAGE, "4096");
}

#[test]
fn what_rules_make_of_packets_is_said() {
    let check = |more: &[&str]| {
        let rules = ["check", "--block", "0.0.0.0/0", "--allow", "0.0.0.0/0:443"];
        outcome(&mut without(&[&rules, more].concat()))
    };
    let Outcome { code, stdout, .. } = check(&["--to", "1.2.3.4:443", "--to", "1.2.3.4:25/tcp"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        stdout,
        "to 1.2.3.4:443/tcp: passes, by the rule \"allow 0.0.0.0/0:443\"\n\
         to 1.2.3.4:25/tcp: dropped as destination-blocked, by the rule \"block 0.0.0.0/0\"\n"
    );
    for (to, code) in [("1.2.3.4:443", 0), ("1.2.3.4:25", 1)] {
        let outcome = check(&["--expect-no-drops", "--to", to]);
        assert_eq!(outcome.code, Some(code), "{to}");
    }
    for (more, reason) in [
        (&["--to", "1.2.3.4:x"][..], "ADDRESS[:PORT]"),
        (&[], "--to"),
        (
            &["--to", "1.2.3.4", "--allow", "github.com"],
            "names are not resolved",
        ),
    ] {
        let Outcome { code, stderr, .. } = check(more);
        assert_eq!(code, Some(USAGE));
        assert!(stderr.contains(reason), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn host_bits_in_a_rule_are_cleared_with_a_warning() {
    for (list, warning) in [
        (
            "10.1.2.3/8",
            "10.1.2.3/8 has host bits: taken as 10.0.0.0/8\n",
        ),
        (
            "0.0.0.1/0",
            "0.0.0.1/0 has host bits: taken as 0.0.0.0/0, every address; only a literal",
        ),
    ] {
        let (ours, _vms) = socketpair();
        let mut command = with(&["--allow", list, "--user", "no-such-user"]);
        let Outcome { code, stderr, .. } = outcome(command.stdin(Stdio::from(OwnedFd::from(ours))));
        assert_eq!(code, Some(USAGE));
        assert!(
            stderr.starts_with(&format!("softnet: warning: {warning}")),
            "{stderr}"
        );
    }
}

#[test]
fn what_was_typed_is_repeated_without_what_a_terminal_acts_upon() {
    for (word, escaped) in [
        ("\x1b]0;owned\x07", r"\u{1b}]0;owned\u{7}"),
        ("a\nsoftnet: b", r"a\nsoftnet: b"),
        ("\u{202e}b\u{9b}c", r"\u{202e}b\u{9b}c"),
    ] {
        let (ours, _vms) = socketpair();
        let mut command = with(&["--user", word]);
        refused(
            command.stdin(Stdio::from(OwnedFd::from(ours))),
            USAGE,
            &format!("unknown user `{escaped}`"),
        );
    }
    // A name that an interface may have; the log tells it.
    let (ours, _vms) = socketpair();
    let mut command = softnet(ours);
    command.args(["--vm-fd", "0", "--vm-mac-address", MAC, "--tap", "\x1b[7m"]);
    refused(command.arg("--no-registry"), FAILURE, r"\u{1b}[7m");
}

#[test]
fn a_failure_that_nobody_reads_does_not_keep_it() {
    let long = "x".repeat(100_000);
    for (words, code) in [
        (vec!["--frob"], USAGE),
        (vec!["--allow", &long], USAGE),
        // Signals are caught by then.
        (vec!["--no-registry"], FAILURE),
    ] {
        let (_reader, stderr) = io::pipe().unwrap();
        program::fill(&stderr);
        let mut command = with(&words);
        let mut child = command.stderr(Stdio::from(stderr)).spawn().unwrap();
        let patience = Instant::now() + Duration::from_secs(5);
        let status = loop {
            match child.try_wait().unwrap() {
                None if Instant::now() < patience => thread::sleep(Duration::from_millis(5)),
                status => break status,
            }
        };
        let _ = child.kill();
        let _ = child.wait();
        let status = status.unwrap_or_else(|| panic!("it hangs after {:.20}", words[0]));
        assert_eq!(status.code(), Some(code));
    }
}

#[test]
fn exposed_ports_are_checked_before_they_are_refused() {
    for (list, reason) in [
        ("0:22", "'0:22'"),
        ("2222:0", "'2222:0'"),
        ("65536:22", "'65536:22'"),
        ("2222", "'2222'"),
        ("2222:22,http:80", "'http:80'"),
        ("", "EXTERNAL:INTERNAL"),
        ("2222:22,80:80,2222:23", "the external port 2222 twice"),
    ] {
        refused(&mut with(&["--expose", list]), USAGE, reason);
    }
}

#[test]
fn what_only_macos_can_do_is_refused_not_ignored() {
    refused(
        &mut with(&["--expose", "2222:22"]),
        USAGE,
        "--expose is for macOS",
    );
    let lease_time = &mut with(&["--bootpd-lease-time", "600"]);
    refused(lease_time, USAGE, "--bootpd-lease-time is for macOS");
}

#[test]
fn a_control_socket_must_be_open_and_a_descriptor_of_its_own() {
    for (number, code, reason) in [
        ("x", USAGE, "--control-fd"),
        ("-1", USAGE, "--control-fd"),
        ("0", USAGE, "--control-fd 0 is the VM's socket"),
        ("2", USAGE, "--control-fd 2 is standard error"),
        (
            "77",
            FAILURE,
            "descriptor 77 is not open: --control-fd takes",
        ),
    ] {
        refused(&mut with(&["--control-fd", number]), code, reason);
    }
    // The command would have it as its standard output.
    let mut run = without(&["run", "--control-fd", "1", "--vm-mac-address", MAC]);
    refused(
        run.args(["--tap", "t", "--", "true"]),
        USAGE,
        "--control-fd",
    );
}

#[test]
fn the_hosts_side_of_a_bench_is_all_that_there_is_of_it() {
    let with_host = |number: &str, more: &[&str]| {
        let mut command = without(&["--vm-fd", "0", "--vm-mac-address", MAC]);
        command.args(["--host-fd", number]).args(more);
        command
    };
    let gateway = &["--gateway", "192.168.64.1/24"][..];
    for (number, code, reason) in [
        ("0", USAGE, "--host-fd 0 is the VM's socket"),
        ("2", USAGE, "--host-fd 2 is standard error"),
        ("77", FAILURE, "descriptor 77 is not open: --host-fd takes"),
    ] {
        refused(&mut with_host(number, gateway), code, reason);
    }
    refused(&mut with_host("1", &[]), USAGE, "--gateway");
    for more in [
        ["--tap", "t"],
        ["--control-fd", "3"],
        ["--expose", "1:1"],
        ["--bootpd-lease-time", "600"],
        ["--host-mtu", "67"],
    ] {
        refused(
            &mut with_host("1", &[gateway, &more].concat()),
            USAGE,
            more[0],
        );
    }
    let mut mtu = with(&["--host-mtu", "1500"]);
    refused(&mut mtu, USAGE, "--host-fd");
    let mut run = without(&["run", "--host-fd", "1", "--vm-mac-address", MAC]);
    refused(run.args(gateway).args(["--", "true"]), USAGE, "--host-fd");
}

#[test]
fn bad_words_for_the_rest_are_named() {
    for (flag, word) in [
        ("--vm-net-type", "bridged"),
        ("--hand-over", "sometimes"),
        ("--pin", "1"),
        ("--pin", "1,x"),
        ("--gateway", "192.168.64.1/33"),
        ("--gateway", "192.168.64.1/"),
        ("--gateway", "192.168.64.1/7"),
        ("--gateway", "192.168.64.0/24"),
        ("--gateway", "192.168.64.255/24"),
        ("--gateway", "224.0.0.1"),
        ("--gateway", "0.0.0.0"),
        ("--bootpd-lease-time", "0"),
        ("--connection-rate", "-1"),
        ("--connection-rate", "many"),
    ] {
        refused(&mut with(&[flag, word]), USAGE, flag);
    }
    for tap in ["", "a/b", "tap%d", "sixteen-letters-"] {
        let mut command = without(&["--vm-fd", "0", "--vm-mac-address", MAC, "--tap", tap]);
        refused(&mut command, USAGE, "--tap");
    }
}

#[test]
fn an_unknown_user_or_group_is_a_usage_error() {
    for (flag, reason) in [("--user", "unknown user"), ("--group", "unknown group")] {
        let (ours, _vms) = socketpair();
        let mut command = with(&[flag, "no-such-name"]);
        refused(
            command.stdin(Stdio::from(OwnedFd::from(ours))),
            USAGE,
            reason,
        );
    }
}

#[test]
fn a_probe_through_sudo_opens_nothing_and_succeeds() {
    let Outcome {
        code,
        stdout,
        stderr,
    } = outcome(&mut with(&["--sudo-escalation-probing"]));
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn a_gateway_that_cannot_be_found_is_a_failure() {
    as_root(|| {
        let (ours, _vms) = socketpair();
        let mut command = with(&[]);
        let reason = "no gateway: softnet-test0 has no IPv4 address";
        refused(
            command.stdin(Stdio::from(OwnedFd::from(ours))),
            FAILURE,
            reason,
        );
    });
}

#[test]
fn a_tap_that_another_has_is_a_failure() {
    as_root(|| {
        let start = || {
            let (ours, vms) = socketpair();
            let mut command = with(&["--gateway", "192.168.64.1"]);
            command.stdin(Stdio::from(OwnedFd::from(ours)));
            (command, vms)
        };
        let (mut first, _vms) = start();
        let _first = Program::start_forwarding(&mut first);
        let (mut second, _vms) = start();
        second.arg("--no-registry");
        refused(&mut second, FAILURE, "softnet-test0 is busy");
    });
}

#[test]
fn a_tap_without_rights_to_it_is_a_failure() {
    as_root(|| {
        let (ours, _vms) = socketpair();
        let copy = Copy::new(0o755);
        let mut command = copy.command(ours);
        command.args(ARGUMENTS).uid(65534).gid(65534);
        refused(&mut command, FAILURE, "no rights to ");
    });
}
