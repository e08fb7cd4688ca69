//! The whole program as on a Mac, against the simulation of macOS' C interfaces
//! (`tests/vmnet-sim`): a lease through it, ports that follow the lease, and a quick end
//! whatever vmnet does.
#![cfg(target_os = "linux")] // The simulation is for it.

mod program;

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::sys::signal::Signal;
use program::guest::{self, ACK, DISCOVER, GATEWAY, OFFER, REQUEST, VM_ADDRESS};
use program::{Copy, MAC, Outcome, Program, as_root, outcome, socketpair, softnet};
use vmnet_sim::{Script, script};

/// The host's side of one softnet: a directory in which the simulation finds it.
struct Host {
    directory: PathBuf,
    socket: UnixDatagram,
}

impl Host {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("softnet-mac-{}-{count}", std::process::id());
        let directory = env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        let socket = UnixDatagram::bind(directory.join("host")).unwrap();
        let everybody = Permissions::from_mode(0o777);
        fs::set_permissions(directory.join("host"), everybody).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Self { directory, socket }
    }

    /// Has `command` start softnet for a VM whose end this returns, with vmnet behaving so.
    fn prepare(&self, command: &mut Command, behaviour: &str, more: &[&str]) {
        // Tests run side by side, each with the same VM.
        self.prepare_entered(command, behaviour, &[&["--no-registry"], more].concat());
    }

    /// The same with the registry of the test's own `/run`.
    fn prepare_entered(&self, command: &mut Command, behaviour: &str, more: &[&str]) {
        command.args(["--vm-fd", "0", "--vm-mac-address", MAC]);
        command
            .args(more)
            .env(vmnet_sim::outside::SCRIPT, behaviour);
        command.env(vmnet_sim::outside::DIRECTORY, &self.directory);
    }

    fn softnet(&self, behaviour: &str, more: &[&str]) -> (Command, UnixDatagram) {
        let (ours, vm) = socketpair();
        let mut command = softnet(ours);
        self.prepare(&mut command, behaviour, more);
        (command, vm)
    }

    fn send(&self, frame: &[u8]) {
        self.socket
            .send_to(frame, self.directory.join("vmnet"))
            .unwrap();
    }

    /// Receives a DHCP message of the VM's, and returns its data.
    fn dhcp(&self, kind: u8) -> Vec<u8> {
        let mut frame = [0; 2000];
        loop {
            let len = self.socket.recv(&mut frame).unwrap();
            if len >= 285 && frame[282..285] == [53, 1, kind] {
                return frame[42..len].to_vec();
            }
        }
    }

    /// Answers the next DHCP message of this kind with an address.
    fn serve(&self, question: u8, kind: u8, address: Ipv4Addr) {
        let [a, b, c, d] = GATEWAY.octets();
        let mut message = self.dhcp(question);
        message[0] = 2;
        message[16..20].copy_from_slice(&address.octets());
        let options = [
            [53, 1, kind].as_slice(),
            &[54, 4, a, b, c, d],
            &[51, 4, 0, 0, 2, 88],
            &[1, 4, 255, 255, 255, 0],
            &[255],
        ]
        .concat();
        message.resize(300, 0);
        message[240..].fill(0);
        message[240..][..options.len()].copy_from_slice(&options);
        let broadcast = (Ipv4Addr::BROADCAST, 68);
        let mut frame = guest::udp([0xff; 6], (GATEWAY, 67), broadcast, &message);
        frame[6..12].copy_from_slice(&GATEWAY_MAC);
        self.send(&frame);
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }

    /// Whether the interface was stopped, and nothing was done to it before that must not be.
    #[track_caller]
    fn was_stopped_well(&self) {
        let wrong = fs::read_to_string(self.directory.join("stopped"));
        assert_eq!(wrong.as_deref().unwrap_or("not stopped"), "");
    }

    fn becomes(&self, name: &str, text: &str) {
        let patience = Instant::now() + Duration::from_secs(10);
        while self.file(name) != text {
            let now = self.file(name);
            assert!(Instant::now() < patience, "{name} is {now:?}, not {text:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets the VM get `address`.
    fn lease(&self, vm: &UnixDatagram, address: Ipv4Addr) {
        for (question, answer) in [(DISCOVER, OFFER), (REQUEST, ACK)] {
            vm.send(&guest::dhcp(question)).unwrap();
            self.serve(question, answer, address);
            guest::receive(vm, |frame| {
                (frame.len() >= 285 && frame[282..285] == [53, 1, answer]).then_some(())
            });
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

const GATEWAY_MAC: [u8; 6] = [0xbe, 0xd0, 0, 0, 0, 0x64];
const RELEASE: u8 = 7;
const NAK: u8 = 6;

/// Stops it as Tart does, which has to succeed within a second.
#[track_caller]
fn interrupt(mut softnet: Program) -> String {
    softnet.signal(Signal::SIGINT);
    let status = softnet.ends_within(Duration::from_secs(1));
    let (stdout, stderr) = softnet.take_output();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stdout, "");
    stderr
}

#[test]
fn a_lease_opens_ports_and_is_given_back_at_the_end() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("well", &["--expose", "2222:22,8080:80"]);
        let softnet = Program::start_forwarding(&mut command);
        assert_eq!(host.file("rules"), "", "no lease, no ports");
        host.lease(&vm, VM_ADDRESS);
        host.becomes("rules", "2222 192.168.64.2:22\n8080 192.168.64.2:80\n");
        assert_eq!(
            host.file("preferences"),
            "bootpd DHCPLeaseTimeSecs 600\nbootpd dhcp_ignore_client_identifier 1\n"
        );

        // A frame each way, by the rules.
        let public = (Ipv4Addr::new(8, 8, 8, 8), 9);
        let frame = guest::udp(GATEWAY_MAC, (VM_ADDRESS, 9), public, b"out");
        vm.send(&frame).unwrap();
        let mut buffer = [0; 2000];
        let len = host.socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], frame);
        let frame = guest::udp(
            GATEWAY_MAC,
            (Ipv4Addr::new(192, 168, 64, 3), 9),
            public,
            b"",
        );
        vm.send(&frame).unwrap();

        let log = interrupt(softnet);
        assert!(
            log.contains("gave the VM's address 192.168.64.2 back"),
            "{log}"
        );
        // The very next frame: the one to another VM never came.
        let len = host.socket.recv(&mut buffer).unwrap();
        let release = &buffer[42..len];
        assert_eq!(release[240..243], [53, 1, RELEASE]);
        assert_eq!(release[12..16], VM_ADDRESS.octets());
        assert_eq!(release[28..34], guest::VM_MAC);
        assert_eq!(host.file("rules"), "", "{log}");
        host.was_stopped_well();
    });
}

#[test]
fn ports_follow_the_lease_and_leave_with_it() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("well", &["--expose", "2222:22"]);
        let softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        host.becomes("rules", "2222 192.168.64.2:22\n");
        host.lease(&vm, Ipv4Addr::new(192, 168, 64, 9));
        host.becomes("rules", "2222 192.168.64.9:22\n");
        vm.send(&guest::dhcp(REQUEST)).unwrap();
        host.serve(REQUEST, NAK, Ipv4Addr::UNSPECIFIED);
        host.becomes("rules", "");
        interrupt(softnet);
    });
}

#[test]
fn a_refused_port_is_tried_again_and_ends_nothing() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("rules-refused", &["--expose", "2222:22"]);
        let mut softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        softnet.logs("cannot expose port 2222: vmnet says 1001; trying again in 1s");
        softnet.logs("trying again in 2s");
        host.becomes("rules", "2222 192.168.64.2:22\n");
        interrupt(softnet);
    });
}

#[test]
fn a_port_that_vmnet_never_answers_for_is_asked_for_again() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("rules-never", &["--expose", "2222:22"]);
        let mut softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        softnet.logs("cannot expose port 2222: vmnet does not answer; trying again in 1s");
        interrupt(softnet);
    });
}

#[test]
fn whatever_vmnet_does_the_end_comes_within_a_second() {
    as_root(|| {
        for name in script::NAMES {
            let behaviour = Script::named(name).unwrap();
            let host = Host::new();
            let (mut command, vm) = host.softnet(name, &["--expose", "2222:22"]);
            if name == "start-never" {
                let softnet = Program::start(&mut command);
                thread::sleep(Duration::from_millis(200));
                interrupt(softnet);
                continue;
            }
            if !behaviour.starts() {
                let Outcome { code, stderr, .. } = outcome(&mut command);
                assert_eq!(code, Some(1), "{name}: {stderr}");
                let line = stderr.lines().last().unwrap_or_default();
                assert!(
                    line.starts_with("softnet: ")
                        && (line.contains("vmnet") || line.contains("sharing service")),
                    "{name}: {stderr}"
                );
                continue;
            }
            let softnet = Program::start_forwarding(&mut command);
            if !name.ends_with("-broken") {
                host.lease(&vm, VM_ADDRESS);
            }
            interrupt(softnet);
            host.was_stopped_well();
        }
    });
}

#[test]
fn an_old_macos_is_served_call_by_call() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("limits-none", &[]);
        command
            .env("VMNET_SIM_MACOS", "13.6")
            .env("SOFTNET_LOG", "debug");
        let softnet = Program::start_forwarding(&mut command);
        host.lease(&vm, VM_ADDRESS);
        let log = interrupt(softnet);
        let (_, count) = log.split_once("as this macOS needs: ").unwrap();
        assert!(!count.starts_with("0\n"), "{log}");
    });
}

#[test]
fn preferences_in_other_hands_are_told_in_a_line() {
    as_root(|| {
        for (state, words) in [
            ("locked", "locked by another process"),
            ("denied", "SystemConfiguration says 1003"),
        ] {
            let host = Host::new();
            let (mut command, _vm) = host.softnet("well", &["--bootpd-lease-time", "300"]);
            command.env("VMNET_SIM_PREFERENCES", state);
            let Outcome { code, stderr, .. } = outcome(&mut command);
            assert_eq!(code, Some(1));
            assert!(stderr.contains(words), "{stderr}");
            assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
        }
    });
}

#[test]
fn preferences_that_say_nothing_of_bootpd_get_a_dictionary() {
    as_root(|| {
        let host = Host::new();
        let (mut command, _vm) = host.softnet("well", &["--bootpd-lease-time", "300"]);
        command.env("VMNET_SIM_PREFERENCES", "empty");
        interrupt(Program::start_forwarding(&mut command));
        assert_eq!(host.file("preferences"), "bootpd DHCPLeaseTimeSecs 300\n");
    });
}

#[test]
fn what_is_not_for_macos_is_refused() {
    for (words, reason) in [
        (&["--tap", "tap0"][..], "--tap is for Linux"),
        (&["--gateway", "10.0.0.1"], "--gateway is for Linux"),
        (&["--bootpd-lease-time", "0"], "bootpd-lease-time"),
        (&["--bootpd-lease-time", "4294967296"], "bootpd-lease-time"),
        (&["--vm-net-type", "bridged"], "vm-net-type"),
        (&["--expose", "22"], "EXTERNAL:INTERNAL"),
    ] {
        let (mut command, _vm) = Host::new().softnet("well", words);
        let Outcome { code, stderr, .. } = outcome(&mut command);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
    }
}

// --- rights ---

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

#[test]
fn a_vm_that_is_killed_ends_it() {
    as_root(|| {
        let host = Host::new();
        let (mut command, vm) = host.softnet("well", &[]);
        let mut softnet = Program::start_forwarding(&mut command);
        // The command keeps softnet's own end, as Tart does.
        drop(vm);
        assert_eq!(softnet.ends_within(Duration::from_secs(3)).code(), Some(0));
        host.was_stopped_well();
    });
}
