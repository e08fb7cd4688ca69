//! Who the program is once it forwards, and what it has open: seen from outside, as root.
#![cfg(target_os = "linux")] // Namespaces, a TAP, and what /proc tells.

mod program;

use std::fs;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use program::{ARGUMENTS, Copy, Outcome, Program, SOFTNET, as_root, ip, outcome, sh, socketpair};

/// The kernel's user and group for those who own nothing.
const NOBODY: u32 = 65534;

/// Behind [`ARGUMENTS`], what is complete but for the user.
const GATEWAY: [&str; 2] = ["--gateway", "192.168.64.1"];

/// A softnet that forwards, started by root, and the VM's end of its socket.
fn started_by_root(arrange: impl FnOnce(&mut Command)) -> (Program, UnixDatagram) {
    let (ours, vms) = socketpair();
    let mut command = program::softnet(ours);
    command.args(ARGUMENTS).args(GATEWAY);
    arrange(&mut command);
    (Program::start_forwarding(&mut command), vms)
}

#[track_caller]
fn is_nobody_for_good(program: &Program) {
    // Every thread has credentials of its own.
    for task in fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap() {
        let thread = Pid::from_raw(task.unwrap().file_name().to_str().unwrap().parse().unwrap());
        // Real, effective, saved, and that for files.
        for ids in ["Uid", "Gid"] {
            assert_eq!(
                program::status(thread, ids),
                "65534 65534 65534 65534",
                "{ids}"
            );
        }
        assert_eq!(program::status(thread, "Groups"), "65534");
        assert_has_no_capabilities(thread);
    }
}

#[track_caller]
fn assert_has_no_capabilities(thread: Pid) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(program::status(thread, set), "0000000000000000", "{set}");
    }
    assert_eq!(program::status(thread, "NoNewPrivs"), "1");
}

#[test]
fn root_that_names_a_user_becomes_that_for_good() {
    as_root(|| {
        let (program, _vms) = started_by_root(|command| {
            command.args(["--user", "nobody"]);
        });
        is_nobody_for_good(&program);
    });
}

/// On macOS groups come from the directory service, which may take long. A pipe in the place of
/// the file stands for one that does not answer.
#[test]
fn who_has_no_command_to_run_asks_for_nobodys_groups() {
    as_root(|| {
        sh("mkfifo /run/group && mount --bind /run/group /etc/group");
        let (program, _vms) = started_by_root(|command| {
            command.args(["--user", "nobody"]);
        });
        is_nobody_for_good(&program);
    });
}

#[test]
fn behind_sudo_it_becomes_the_caller_of_sudo() {
    as_root(|| {
        let (program, _vms) = started_by_root(|command| {
            command
                .env("SUDO_UID", NOBODY.to_string())
                .env("SUDO_GID", NOBODY.to_string());
            command.arg("--sudo-escalation-done");
        });
        is_nobody_for_good(&program);
    });
}

#[test]
fn root_that_names_nobody_stays_root_without_capabilities_and_is_advised() {
    as_root(|| {
        let (mut program, _vms) = started_by_root(|_| ());
        assert_eq!(program.status("Uid"), "0 0 0 0");
        assert_has_no_capabilities(program.pid());
        program.logs("name another user with --user");
    });
}

#[test]
fn only_what_it_needs_stays_open() {
    only_stays_open(&[]);
}

#[test]
fn a_control_socket_is_standard_output() {
    only_stays_open(&["--control-fd", "1"]);
}

#[track_caller]
fn only_stays_open(more: &[&str]) {
    as_root(|| {
        let (ours, _vms) = socketpair();
        // What a careless caller leaves open.
        let script = r#"exec 9</dev/zero 7</dev/full 3</dev/zero; exec "$0" "$@""#;
        let mut command = Command::new("/bin/bash");
        command
            .args(["-c", script, SOFTNET])
            .args(ARGUMENTS)
            .args(GATEWAY)
            .args(["--user", "nobody"])
            .args(more);
        command.stdin(Stdio::from(OwnedFd::from(ours)));
        let program = Program::start_forwarding(&mut command);
        let list = || -> Vec<String> {
            let fds = fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap();
            let targets = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
            let name = |target: PathBuf| -> String {
                let target = target.to_str().unwrap();
                target.split('[').next().unwrap().to_owned()
            };
            targets.map(name).collect()
        };
        let mut open = list();
        open.sort();
        // The VM's, standard output, that of signals (two), the questions about the VM and about
        // the gateway, and the VM's control socket.
        let sockets = ["socket:"; 7];
        // Standard error, and the two ends of the stop flag's.
        let pipes = ["pipe:"; 3];
        let parent = ["anon_inode:"];
        let registry = ["addresses", "macs", "names"].map(|file| format!("/run/softnet/{file}"));
        let registry = registry.each_ref().map(String::as_str);
        let tap = ["/dev/net/tun"];
        let expected = [&tap[..], &registry, &parent, &pipes, &sockets].concat();
        assert_eq!(open, expected);
    });
}

/// A copy that belongs to root and has the SUID bit, as Tart makes it.
fn suid() -> Copy {
    Copy::new(0o4755)
}

/// That copy, started by nobody.
fn suid_by_nobody(copy: &Copy, more: &[&str]) -> (Command, UnixDatagram) {
    let (ours, vms) = socketpair();
    let mut command = copy.command(ours);
    command
        .args(ARGUMENTS)
        .args(GATEWAY)
        .args(more)
        .uid(NOBODY)
        .gid(NOBODY);
    (command, vms)
}

#[test]
fn the_owner_of_a_tap_needs_no_root() {
    as_root(|| {
        // From another network namespace, which only root may look into.
        let (ours, _vms) = socketpair();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        open_tun_to_all();
        ip("tuntap add dev softnet-test0 mode tap user nobody");
        ip("link set softnet-test0 up");
        let copy = Copy::new(0o755);
        let mut command = copy.command(ours);
        command
            .args(ARGUMENTS)
            .args(GATEWAY)
            .uid(NOBODY)
            .gid(NOBODY);
        let mut program = Program::start_forwarding(&mut command);
        assert_eq!(program.status("Uid"), "65534 65534 65534 65534");
        assert_eq!(program.status("CapPrm"), "0000000000000000");
        assert_eq!(program.status("NoNewPrivs"), "1");
        program.logs("only sending a frame to it will show that the VM is gone");
        program.logs("/run/user/65534/softnet, guards only this user's VMs from each other");
    });
}

/// Makes /dev/net/tun what udev makes it on every distribution, for this test alone: a
/// machine without udev may have it for root only.
fn open_tun_to_all() {
    sh("mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200");
}

#[test]
fn through_suid_it_opens_the_callers_tap_and_becomes_the_caller() {
    as_root(|| {
        open_tun_to_all();
        ip("tuntap add dev softnet-test0 mode tap user nobody");
        ip("link set softnet-test0 up");
        let copy = suid();
        for more in [&[][..], &["--user", "nobody", "--group", "nogroup"]] {
            let (mut command, _vms) = suid_by_nobody(&copy, more);
            // Neither is the caller's to decide.
            command
                .env("SUDO_UID", "0")
                .env("SUDO_GID", "0")
                .env("SOFTNET_LOG", "off");
            let program = Program::start_forwarding(&mut command);
            is_nobody_for_good(&program);
        }
        assert!(
            fs::exists("/run/softnet/macs").unwrap(),
            "the host's registry"
        );
    });
}

#[test]
fn through_suid_the_tap_of_somebody_else_stays_closed() {
    as_root(|| {
        open_tun_to_all();
        ip("tuntap add dev softnet-test0 mode tap user daemon");
        let copy = suid();
        let (mut command, _vms) = suid_by_nobody(&copy, &[]);
        let Outcome { code, stderr, .. } = outcome(&mut command);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(
            stderr.starts_with("softnet: no rights to the TAP softnet-test0"),
            "{stderr}"
        );
    });
}

#[test]
fn through_suid_nobody_else_can_be_named() {
    as_root(|| {
        let copy = suid();
        for (flag, name) in [
            ("--user", "root"),
            ("--user", "daemon"),
            ("--group", "root"),
        ] {
            let (mut command, _vms) = suid_by_nobody(&copy, &[flag, name]);
            let Outcome {
                code,
                stdout,
                stderr,
            } = outcome(&mut command);
            assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
            assert!(
                stderr.starts_with(&format!("softnet: {flag} {name} is refused")),
                "{stderr}"
            );
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
        }
    });
}

#[test]
fn the_help_of_a_suid_program_answers_too() {
    as_root(|| {
        let copy = suid();
        let mut command = copy.command(File::open("/dev/null").unwrap());
        command.arg("--help").uid(NOBODY).gid(NOBODY);
        assert_eq!(outcome(&mut command).code, Some(0));
    });
}
