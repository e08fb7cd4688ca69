//! Who may have an interface of vmnet, and how to become that.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::host::{Host, RELEASE, interrupt};
use crate::program::guest::VM_ADDRESS;
use crate::program::{Copy, Outcome, Program, as_root, outcome, socketpair, softnet};

/// softnet as an ordinary user on `macos`, with a sudo that does as `sudo` says, a script.
fn as_user(host: &Host, copy: &Copy, macos: &str, sudo: &str) -> (Command, UnixDatagram) {
    let (ours, vm) = socketpair();
    let mut command = copy.command(ours);
    host.prepare(&mut command, "well", &["--allow", "10.0.0.0/8"]);
    let path = host.directory.join("sudo");
    fs::write(&path, format!("#!/bin/sh\n{sudo}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", host.directory.display());
    command.env("VMNET_SIM_MACOS", macos).env("PATH", path);
    command.uid(NOBODY).gid(NOBODY);
    (command, vm)
}

/// `nobody` and its group on Debian, which is called nogroup.
const NOBODY: u32 = 65534;

#[test]
fn from_macos_26_on_an_ordinary_user_needs_nobody() {
    as_root(|| {
        let (host, copy) = (Host::new(), Copy::new(0o755));
        let (mut command, vm) = as_user(&host, &copy, "26.0", "exit 1");
        let softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        assert_eq!(
            host.file("preferences"),
            "",
            "only root sets the lease time"
        );
        interrupt(softnet);
        host.dhcp(RELEASE);
    });
}

#[test]
fn an_ordinary_user_whom_vmnet_refuses_is_told_how_to_get_the_rights() {
    as_root(|| {
        let copy = Copy::new(0o755);
        for behaviour in ["start-unauthorized", "start-failed"] {
            let host = Host::new();
            let (mut command, _vm) = as_user(&host, &copy, "26.0", "exit 1");
            command.env(vmnet_sim::outside::SCRIPT, behaviour);
            let Outcome { code, stderr, .. } = outcome(&mut command);
            assert_eq!(code, Some(1), "{stderr}");
            assert!(
                stderr.contains("entitlement com.apple.security.virtualization"),
                "{stderr}"
            );
            assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
        }
    });
}

/// As with a softnet that somebody built and did not sign: vmnet wants root, or an entitlement.
#[test]
fn from_macos_26_on_a_user_whom_vmnet_refuses_goes_through_sudo_once() {
    as_root(|| {
        let (host, copy, root) = (Host::new(), Copy::new(0o755), Copy::new(0o4755));
        // A sudo that makes root of the program, as it keeps descriptors 0 to 2.
        let sudo = format!(
            "echo \"$@\" >>\"$VMNET_SIM_HOST/words\"; shift 2; exec {} \"$@\"",
            root.path()
        );
        let (mut command, vm) = as_user(&host, &copy, "26.0", &sudo);
        command.args(["--bootpd-lease-time", "300"]);
        command.env(vmnet_sim::outside::SCRIPT, "start-for-root");
        let softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        assert!(host.file("preferences").contains("DHCPLeaseTimeSecs 300"));
        assert_eq!(softnet.status("Uid"), "65534 65534 65534 65534");
        let log = interrupt(softnet);
        assert!(!log.contains("left out"), "{log}");
        let given = host.file("words");
        let [probe, again] = given.lines().collect::<Vec<_>>()[..] else {
            panic!("{given}");
        };
        assert!(probe.ends_with(" --sudo-escalation-probing"), "{probe}");
        let end = " --sudo-escalation-done --user nobody --group nogroup";
        assert!(again.ends_with(end), "{again}");
    });
}

#[test]
fn a_vmnet_that_refuses_whom_sudo_started_is_not_asked_for_ever() {
    as_root(|| {
        let (host, copy) = (Host::new(), Copy::new(0o755));
        let sudo = "echo \"$@\" >>\"$VMNET_SIM_HOST/words\"; shift; exec \"$@\"";
        for (macos, behaviour) in [("26.0", "start-unauthorized"), ("26.1", "start-failed")] {
            // Who does not become root by this sudo.
            let (mut command, _vm) = as_user(&host, &copy, macos, sudo);
            command.env(vmnet_sim::outside::SCRIPT, behaviour);
            let Outcome { code, stderr, .. } = outcome(&mut command);
            assert_eq!(code, Some(1), "{stderr}");
            assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
            let given = host.file("words");
            assert_eq!(given.lines().count(), 2, "{given}");
            fs::remove_file(host.directory.join("words")).unwrap();
        }
    });
}

#[test]
fn before_macos_26_an_ordinary_user_goes_through_sudo() {
    as_root(|| {
        let (host, copy) = (Host::new(), Copy::new(0o755));
        let words = "echo \"$@\" >>\"$VMNET_SIM_HOST/words\"";
        let (mut command, _vm) = as_user(&host, &copy, "15.5", words);
        assert_eq!(outcome(&mut command).code, Some(0));
        let given = host.file("words");
        let mut lines = given.lines();
        let typed = "--vm-fd 0 --vm-mac-address 52:54:00:12:34:56 --no-registry --allow 10.0.0.0/8";
        let probe = lines.next().unwrap();
        assert!(probe.starts_with("--non-interactive /"), "{probe}");
        assert!(
            probe.ends_with(&format!(" {typed} --sudo-escalation-probing")),
            "{probe}"
        );
        let again = lines.next().unwrap();
        let end = " --sudo-escalation-done --user nobody --group nogroup";
        assert!(again.ends_with(&format!(" {typed}{end}")), "{again}");
        assert_eq!(lines.next(), None);
    });
}

#[test]
fn without_sudo_and_suid_the_line_says_what_to_do() {
    as_root(|| {
        let (host, copy) = (Host::new(), Copy::new(0o755));
        for (sudo, more, reason) in [
            ("exit 1", &[][..], "sudo refuses without a password"),
            ("exit 0", &["--sudo-escalation-done"], "but not as root"),
        ] {
            let (mut command, _vm) = as_user(&host, &copy, "15.5", sudo);
            let Outcome { code, stderr, .. } = outcome(command.args(more));
            assert_eq!(code, Some(1), "{stderr}");
            assert!(
                stderr.contains("SUID root") && stderr.contains(reason),
                "{stderr}"
            );
            assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
        }
    });
}

#[test]
fn started_through_sudo_it_drops_to_whom_it_was_told() {
    as_root(|| {
        let host = Host::new();
        let words = [
            "--sudo-escalation-done",
            "--user",
            "nobody",
            "--group",
            "nogroup",
        ];
        let (mut command, _vm) = host.softnet("well", &words);
        command.env("VMNET_SIM_MACOS", "15.5");
        let softnet = Program::start_forwarding(&mut command);
        assert_eq!(softnet.status("Uid"), "65534 65534 65534 65534");
        assert_eq!(softnet.status("Gid"), "65534 65534 65534 65534");
        interrupt(softnet);
    });
}

#[test]
fn through_suid_the_lease_time_is_one_that_others_can_live_with() {
    as_root(|| {
        let copy = Copy::new(0o4755);
        for (seconds, is_fine) in [
            ("60", true),
            ("86400", true),
            ("59", false),
            ("1", false),
            ("86401", false),
            ("4294967295", false),
        ] {
            let host = Host::new();
            let (ours, _vm) = socketpair();
            let mut command = copy.command(ours);
            host.prepare(&mut command, "well", &["--bootpd-lease-time", seconds]);
            command.uid(NOBODY).gid(NOBODY);
            if is_fine {
                interrupt(Program::start_forwarding(&mut command));
                let set = format!("bootpd DHCPLeaseTimeSecs {seconds}\n");
                assert!(host.file("preferences").contains(&set));
                continue;
            }
            let Outcome { code, stderr, .. } = outcome(&mut command);
            assert_eq!(code, Some(2), "{stderr}");
            let reason = format!("softnet: --bootpd-lease-time {seconds} is refused");
            assert!(stderr.starts_with(&reason), "{stderr}");
            assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
            assert_eq!(host.file("preferences"), "");
        }
        // Root's own word.
        let host = Host::new();
        let (mut command, _vm) = host.softnet("well", &["--bootpd-lease-time", "1"]);
        interrupt(Program::start_forwarding(&mut command));
    });
}

#[test]
fn a_vm_whose_interface_never_starts_keeps_no_mac_from_others() {
    as_root(|| {
        let (slow, copy) = (Host::new(), Copy::new(0o4755));
        let (ours, _vm) = socketpair();
        let mut command = copy.command(ours);
        slow.prepare_entered(&mut command, "start-never", &[]);
        let mut waiting = Program::start(command.uid(NOBODY).gid(NOBODY));
        // As long as a MAC takes to be claimed, and longer.
        thread::sleep(Duration::from_millis(500));
        assert_eq!(waiting.status("Uid"), "65534 0 0 0", "it waits for vmnet");

        let host = Host::new();
        let (ours, vm) = socketpair();
        let mut command = softnet(ours);
        host.prepare_entered(&mut command, "well", &[]);
        let roots = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);

        // Whoever comes second is refused, and leaves no interface behind.
        let third = Host::new();
        let (ours, _vm) = socketpair();
        let mut command = softnet(ours);
        third.prepare_entered(&mut command, "well", &[]);
        let Outcome { code, stderr, .. } = outcome(&mut command);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("is another VM's"), "{stderr}");
        third.was_stopped_well();

        interrupt(roots);
        waiting.signal(Signal::SIGINT);
        waiting.ends_within(Duration::from_secs(1));
    });
}
