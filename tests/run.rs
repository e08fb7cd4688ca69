//! `softnet run`: a command for a VM.
#![cfg(target_os = "linux")] // Namespaces, a TAP, and what /proc tells.

mod program;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use program::{MAC, Outcome, Program, as_root, ip, outcome};

/// `softnet run ... -- bash -c SCRIPT`
fn run(more: &[&str], script: &str) -> Command {
    run_words(more, &["bash", "-c", script])
}

fn run_words(more: &[&str], words: &[&str]) -> Command {
    let mut command = program::softnet(File::open("/dev/null").unwrap());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["run", "--vm-mac-address", MAC, "--tap", "softnet-test0"]);
    command.args(["--gateway", "192.168.64.1"]).args(more);
    command.arg("--").args(words);
    command
}

#[test]
fn its_end_and_its_code_are_those_of_the_command() {
    as_root(|| {
        for code in [0, 1, 7, 255] {
            let Outcome {
                code: actual,
                stderr,
                ..
            } = outcome(&mut run(&[], &format!("exit {code}")));
            assert_eq!(actual, Some(code), "{stderr}");
        }
        let Outcome { code, stderr, .. } = outcome(&mut run(&[], "kill -KILL $$"));
        assert_eq!(code, Some(128 + 9), "{stderr}");
    });
}

#[test]
fn what_the_command_sends_to_its_descriptor_is_forwarded() {
    as_root(|| {
        // Both too short to be frames; the second comes once softnet has seen the first.
        let script = "printf runt >&{fd}; sleep 1.5; printf runt >&{fd}; sleep 0.2";
        let Outcome { code, stderr, .. } = outcome(&mut run(&[], script));
        assert_eq!(code, Some(0));
        assert!(
            stderr.contains("[vm->host] 2 frames of 8 bytes"),
            "{stderr}"
        );
    });
}

#[test]
fn the_command_inherits_its_end_of_the_socket_and_nothing_else_of_softnet_s() {
    as_root(|| {
        let script = "for fd in /proc/$$/fd/*; do readlink $fd; done; test -S /proc/$$/fd/{fd}";
        // Whoever runs the tests may have left descriptors open, which would be passed on.
        let closing = "for fd in /proc/$$/fd/*; do fd=${fd##*/}; ((fd > 2)) && eval \"exec $fd>&-\"; \
                       done; exec \"$@\"";
        let Outcome {
            code,
            stdout,
            stderr,
        } = outcome(&mut wrapped(closing, &run(&[], script)));
        assert_eq!(code, Some(0), "{stderr}");
        let sockets = stdout
            .lines()
            .filter(|target| target.starts_with("socket:"))
            .count();
        let others = stdout
            .lines()
            .filter(|target| !target.starts_with("socket:"));
        let others: Vec<_> = others
            .map(|target| target.split(':').next().unwrap())
            .collect();
        assert_eq!(
            (sockets, others),
            // Standard output is the other.
            (2, vec!["/dev/null", "pipe"]),
            "{stdout}"
        );
    });
}

/// As libvirt does with what an emulator's wrapper is to pass on to the emulator.
#[test]
fn the_command_inherits_what_was_passed_to_softnet_and_softnet_does_not_keep_it() {
    as_root(|| {
        let script = "test {fd} != 7 && readlink /proc/$$/fd/7 >&7; read -u {fd}";
        let passing = r#"exec "$@" 7>&1 >/dev/null"#;
        let mut program = Program::start_forwarding(&mut wrapped(passing, &run(&[], script)));
        program.prints("\n");
        let passed = program.printed();
        assert!(passed.starts_with("socket:"), "{passed}");
        // Else it would have no end as long as softnet lives.
        let open = fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap();
        let mut targets = open.map(|fd| fs::read_link(fd.unwrap().path()).unwrap_or_default());
        assert!(targets.all(|target| target != Path::new(passed.trim())));
    });
}

/// bash runs `script`, which is to start `command`.
fn wrapped(script: &str, command: &Command) -> Command {
    let mut bash = Command::new("/bin/bash");
    bash.args(["-c", script, "bash"]).env_clear();
    bash.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    bash.arg(command.get_program()).args(command.get_args());
    bash.stdin(File::open("/dev/null").unwrap());
    bash
}

#[test]
fn the_command_starts_with_signals_as_softnet_found_them() {
    as_root(|| {
        // Not through bash, which ignores signals of its own accord.
        let Outcome { stdout, .. } = outcome(&mut run_words(&[], &["cat", "/proc/self/status"]));
        let signals = |status: &str, line: &str| {
            let mask = status.lines().find_map(|text| text.strip_prefix(line));
            u64::from_str_radix(mask.unwrap().trim(), 16).unwrap()
        };
        assert_eq!(signals(&stdout, "SigBlk:"), 0);
        assert_eq!(signals(&stdout, "SigCgt:"), 0);
        // Rust's runtime ignores SIGPIPE (13), in this process too, and not in its children. And
        // glibc's posix_spawn(3) ignores the two signals that it has for itself (32 and 33).
        let others = !(1 << 12 | 0b11 << 31);
        let ours = fs::read_to_string("/proc/self/status").unwrap();
        let ignored = signals(&ours, "SigIgn:") & others;
        assert_eq!(signals(&stdout, "SigIgn:") & others, ignored);
    });
}

#[test]
fn the_command_runs_as_the_user_that_softnet_becomes() {
    as_root(|| {
        let script = "id -u; id -g; grep CapEff /proc/self/status";
        let Outcome { stdout, .. } = outcome(&mut run(&["--user", "nobody"], script));
        assert_eq!(stdout, "65534\n65534\nCapEff:\t0000000000000000\n");
    });
}

#[test]
fn a_signal_is_passed_on_and_the_command_s_end_awaited() {
    as_root(|| {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let name = signal.as_str().trim_start_matches("SIG");
            let script = format!("trap 'echo caught; exit 3' {name}; echo ready; read -u {{fd}}");
            let mut program = Program::start_forwarding(&mut run(&[], &script));
            program.prints("ready");
            program.signal(signal);
            let status = program.ends_within(Duration::from_secs(2));
            let (stdout, stderr) = program.take_output();
            assert_eq!(
                (status.code(), stdout.as_str()),
                (Some(3), "ready\ncaught\n"),
                "{stderr}"
            );
        }
    });
}

#[test]
fn the_command_ends_when_softnet_is_killed_hard() {
    as_root(|| {
        prctl::set_child_subreaper(true).unwrap();
        let script = "echo $$; exec sleep 60";
        let mut program = Program::start_forwarding(&mut run(&["--user", "nobody"], script));
        program.prints("\n");
        let command = Pid::from_raw(program.printed().trim().parse().unwrap());
        program.signal(Signal::SIGKILL);
        let patience = Instant::now() + Duration::from_secs(2);
        while kill(command, None) != Err(Errno::ESRCH) {
            match waitpid(command, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Signaled(_, Signal::SIGTERM, _)) => return,
                _ => assert!(Instant::now() < patience, "it is still there"),
            }
            thread::sleep(Duration::from_millis(2));
        }
    });
}

#[test]
fn a_vm_that_is_gone_before_its_command_ends_does_not_end_softnet() {
    as_root(|| {
        let script = "exec {fd}>&-; sleep 2.5; exit 4";
        let Outcome { code, stderr, .. } = outcome(&mut run(&[], script));
        assert_eq!(code, Some(4));
        assert!(stderr.contains("the VM is gone"), "{stderr}");
    });
}

#[test]
fn a_command_that_does_not_exist_is_a_failure_of_one_line() {
    as_root(|| {
        // Else there is a warning too.
        ip("tuntap add dev softnet-test0 mode tap");
        ip("addr add 192.168.64.1/24 dev softnet-test0");
        let mut command = program::softnet(File::open("/dev/null").unwrap());
        command.args(["run", "--vm-mac-address", MAC, "--tap", "softnet-test0"]);
        command.args(["--gateway", "192.168.64.1", "--", "/no/such/command"]);
        let Outcome {
            code,
            stdout,
            stderr,
        } = outcome(&mut command);
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        assert!(
            stderr.starts_with("softnet: cannot run `/no/such/command`: No such"),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    });
}

#[test]
fn a_tap_that_is_deleted_ends_the_command_and_is_a_failure() {
    as_root(|| {
        let script = "trap 'exit 5' TERM; echo ready; read -u {fd}";
        let mut program = Program::start_forwarding(&mut run(&[], script));
        program.prints("ready");
        ip("link del softnet-test0");
        let status = program.ends_within(Duration::from_secs(3));
        let log = program.take_output().1;
        assert_eq!(status.code(), Some(1), "{log}");
        let line = "softnet: error: softnet-test0 is gone, somebody has deleted it: start softnet \
                    again once it is there; asking the command to end\n";
        assert_eq!(log.matches(line).count(), 1, "{log}");
        assert_eq!(log.matches("is gone").count(), 1, "{log}");
    });
}
