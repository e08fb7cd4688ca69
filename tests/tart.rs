//! A stand-in for Tart, which starts, feeds and stops the real program as Tart does, with a
//! kernel's network behind the TAP.
//!
//! What it keeps to: the program is found in PATH as `softnet`; the arguments come in Tart's
//! order; descriptor 0 is one end of a datagram socketpair, both ends with a send buffer of
//! 1 MiB and a receive buffer of 4 MiB, and Tart keeps a copy of softnet's end; the program has a
//! process group of its own, as Foundation's `Process` gives it; one datagram is one Ethernet frame;
//! stop is SIGINT and a wait, which is bounded only in here. The one thing that Tart does not do is
//! `--tap`.
#![cfg(target_os = "linux")] // Namespaces, a TAP, and what /proc tells.

mod program;

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use program::guest::{
    ACK, DISCOVER, GATEWAY, OFFER, REQUEST, TAP, VM_ADDRESS, VM_MAC, dhcp, dhcp_server, receive,
    serve, udp,
};
use program::{MAC, Program, SOFTNET, as_root, ip, socketpair};

/// Tart waits for ever; more than this counts as that.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// Within which the end of the VM or of Tart itself has to be noticed.
const DEATH_LIMIT: Duration = Duration::from_secs(2);

struct Tart {
    softnet: Program,
    vm: UnixDatagram,
    /// Tart's copy, because of which softnet never reads an end of file.
    _copy: UnixDatagram,
}

impl Tart {
    /// `tart run --net-softnet`, in front of a TAP that is configured.
    fn run() -> Self {
        network();
        let (ours, vm) = socketpair();
        Self::run_with(ours, vm)
    }

    fn run_with(ours: UnixDatagram, vm: UnixDatagram) -> Self {
        let copy = ours.try_clone().unwrap();
        let mut command = command();
        let softnet = Program::start_forwarding(command.stdin(Stdio::from(OwnedFd::from(ours))));
        Self {
            softnet,
            vm,
            _copy: copy,
        }
    }

    /// Stops softnet as Tart does, and returns the log.
    fn stop(self) -> String {
        self.stop_by(Signal::SIGINT)
    }

    fn stop_by(mut self, signal: Signal) -> String {
        self.softnet.signal(signal);
        self.ended_within(STOP_LIMIT)
    }

    fn ended_within(&mut self, limit: Duration) -> String {
        let status = self.softnet.ends_within(limit);
        let (stdout, log) = self.softnet.take_output();
        assert_eq!((status.code(), stdout.as_str()), (Some(0), ""), "{log}");
        log
    }
}

/// The command line of newer Tarts, with all that Linux can honour.
fn command() -> Command {
    let path = Path::new(SOFTNET).parent().unwrap();
    let mut command = Command::new("softnet");
    command.env_clear().env("PATH", path).args(ARGUMENTS);
    command.process_group(0);
    command
}

const ARGUMENTS: [&str; 12] = [
    "--vm-fd",
    "0",
    "--vm-mac-address",
    MAC,
    "--allow",
    "10.0.0.0/8,@host",
    "--block",
    "10.1.0.0/16",
    "--control-fd",
    "1",
    "--tap",
    TAP,
];

/// The host's side: a TAP with the gateway's address.
fn network() {
    ip("tuntap add dev tart0 mode tap");
    ip("addr add 192.168.64.1/24 dev tart0");
    ip("neigh add 192.168.64.2 lladdr 52:54:00:12:34:56 dev tart0");
}

#[test]
fn a_vm_gets_its_lease_and_is_answered() {
    as_root(|| {
        network();
        let server = dhcp_server();
        let (ours, vm) = socketpair();
        // Tart waits for no sign of readiness, so that frames may be there before softnet.
        vm.send(&dhcp(DISCOVER)).unwrap();
        let tart = Tart::run_with(ours, vm);
        let gateway_mac = serve(&server, &tart.vm, DISCOVER, OFFER);
        tart.vm.send(&dhcp(REQUEST)).unwrap();
        serve(&server, &tart.vm, REQUEST, ACK);

        let echo = UdpSocket::bind((GATEWAY, 7777)).unwrap();
        echo.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // The largest frame of a network without jumbo frames has 1514 bytes.
        for len in [0, 1, 18, 100, 1472] {
            let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
            let frame = udp(gateway_mac, (VM_ADDRESS, 7), (GATEWAY, 7777), &payload);
            assert_eq!(frame.len(), 42 + len);
            tart.vm.send(&frame).unwrap();
            let mut received = [0; 2000];
            let (count, from) = echo.recv_from(&mut received).unwrap();
            assert_eq!((&received[..count], from.port()), (payload.as_slice(), 7));
            echo.send_to(&payload, from).unwrap();
            let answer = receive(&tart.vm, |frame| {
                let is_udp = frame.len() >= 42 && frame[12..14] == [8, 0] && frame[23] == 17;
                (is_udp && frame[34..38] == [0x1e, 0x61, 0, 7]).then(|| frame.to_vec())
            });
            assert_eq!(answer[..6], VM_MAC);
            assert_eq!(answer[42..], payload);
        }

        let mut spoofed = udp(gateway_mac, (VM_ADDRESS, 7), (GATEWAY, 7777), b"spoofed");
        spoofed[11] ^= 1;
        tart.vm.send(&spoofed).unwrap();
        echo.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        assert_eq!(
            echo.recv(&mut [0; 16]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let log = tart.stop();
        assert!(
            log.contains("[vm->host] dropped a frame: source-mac\n"),
            "{log}"
        );
    });
}

#[test]
fn each_of_the_stop_signals_ends_it_cleanly() {
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGXCPU,
        Signal::SIGPWR,
    ] {
        as_root(|| {
            let log = Tart::run().stop_by(signal);
            assert!(log.contains(&format!("stopped by {signal}")), "{log}");
        });
    }
}

/// Each of these would end a process that does not care, and its lease would be left behind.
#[test]
fn no_other_signal_ends_it_before_it_gives_the_lease_back() {
    as_root(|| {
        network();
        let server = dhcp_server();
        let (ours, vm) = socketpair();
        let tart = Tart::run_with(ours, vm);
        for (question, answer) in [(DISCOVER, OFFER), (REQUEST, ACK)] {
            tart.vm.send(&dhcp(question)).unwrap();
            serve(&server, &tart.vm, question, answer);
        }
        for signal in [
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGALRM,
            Signal::SIGVTALRM,
            Signal::SIGPROF,
            Signal::SIGXFSZ,
            Signal::SIGIO,
            Signal::SIGSTKFLT,
            Signal::SIGPIPE,
        ] {
            tart.softnet.signal(signal);
        }
        // Those of signal(7) that have no name.
        let pid = tart.softnet.pid();
        program::sh(&format!(
            "for number in $(seq 34 64); do kill -$number {pid} || exit; done"
        ));
        let log = tart.stop();
        assert!(
            log.contains("released the VM's address 192.168.64.2"),
            "{log}"
        );
    });
}

#[test]
fn a_tap_that_is_deleted_ends_it_with_one_line() {
    as_root(|| {
        for frame in [None, Some(dhcp(DISCOVER))] {
            network();
            let (ours, vm) = socketpair();
            let mut tart = Tart::run_with(ours, vm);
            ip("link del tart0");
            // With nothing to send, the reader finds out, and else whoever is first.
            frame.map(|frame| tart.vm.send(&frame).unwrap());
            let status = tart.softnet.ends_within(DEATH_LIMIT);
            let (_, log) = tart.softnet.take_output();
            assert_eq!(status.code(), Some(1), "{log}");
            let last = log.lines().last().unwrap();
            assert_eq!(
                last,
                "softnet: tart0 is gone, somebody has deleted it: start softnet again once it is \
                 there"
            );
            assert!(!log.contains("system calls failed"), "{log}");
        }
    });
}

#[test]
fn drops_that_look_like_an_attack_are_explained_once() {
    as_root(|| {
        network();
        let server = dhcp_server();
        let (ours, vm) = socketpair();
        let mut tart = Tart::run_with(ours, vm);
        let nested = |last: u8| {
            let mut frame = dhcp(DISCOVER);
            frame[11] = last;
            frame
        };
        tart.vm.send(&nested(1)).unwrap();
        tart.softnet.logs(
            "[vm->host] every frame so far came from another MAC than 52:54:00:12:34:56: if \
             52:54:00:12:34:01 is the VM's, start softnet with --vm-mac-address 52:54:00:12:34:01\n",
        );
        for (question, answer) in [(DISCOVER, OFFER), (REQUEST, ACK)] {
            tart.vm.send(&dhcp(question)).unwrap();
            serve(&server, &tart.vm, question, answer);
        }
        let container = |last| {
            let source = (Ipv4Addr::new(172, 17, 0, last), 7);
            udp([2, 0, 0, 0, 0, 1], source, (GATEWAY, 7777), b"hello")
        };
        tart.vm.send(&nested(2)).unwrap();
        tart.vm.send(&container(2)).unwrap();
        tart.softnet
            .logs("[vm->host] source-address: the packet came from 172.17.0.2, which");
        tart.vm.send(&container(3)).unwrap();
        let log = tart.stop();
        assert_eq!(log.matches("--vm-mac-address").count(), 1, "{log}");
        assert_eq!(log.matches("packet came from").count(), 1, "{log}");
        assert_eq!(log.matches("hello").count(), 0, "{log}");
    });
}

#[test]
fn a_flood_from_the_vm_does_not_delay_the_stop() {
    as_root(|| {
        let tart = Tart::run();
        let over = AtomicBool::new(false);
        let vm = tart.vm.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let frame = dhcp(DISCOVER);
                let ends = Instant::now() + Duration::from_secs(20);
                while !over.load(Ordering::Relaxed) && Instant::now() < ends {
                    // Frames of all lengths, a fifth of them sound.
                    let len = [frame.len(), 0, 13, 14, 60][usize::from(rand_byte() % 5)];
                    let _ = vm.send(&frame[..len]);
                }
            });
            thread::sleep(Duration::from_millis(300));
            let log = tart.stop();
            over.store(true, Ordering::Relaxed);
            assert!(log.contains("[vm->host] dropped a frame: runt\n"), "{log}");
        });
    });
}

#[test]
fn an_empty_datagram_is_neither_an_end_nor_forwarded() {
    as_root(|| {
        network();
        let server = dhcp_server();
        let (ours, vm) = socketpair();
        let tart = Tart::run_with(ours, vm);
        for _ in 0..3 {
            tart.vm.send(&[]).unwrap();
        }
        tart.vm.send(&dhcp(DISCOVER)).unwrap();
        serve(&server, &tart.vm, DISCOVER, OFFER);
        let log = tart.stop();
        assert!(log.contains("runt 3"), "{log}");
    });
}

#[test]
fn a_tap_that_is_down_for_a_while_does_not_end_it() {
    as_root(|| {
        network();
        let server = dhcp_server();
        let (ours, vm) = socketpair();
        let mut tart = Tart::run_with(ours, vm);
        ip("link set tart0 down");
        tart.vm.send(&dhcp(DISCOVER)).unwrap();
        tart.softnet
            .logs("[vm->host] dropped a frame: host-refused");
        ip("link set tart0 up");
        tart.vm.send(&dhcp(DISCOVER)).unwrap();
        serve(&server, &tart.vm, DISCOVER, OFFER);
        tart.stop();
    });
}

#[test]
fn it_ends_when_the_vm_is_gone_though_tart_keeps_softnet_s_end() {
    as_root(|| {
        let mut tart = Tart::run();
        let (dummy, _) = UnixDatagram::pair().unwrap();
        drop(std::mem::replace(&mut tart.vm, dummy));
        let log = tart.ended_within(DEATH_LIMIT);
        assert!(log.contains("the VM is gone"), "{log}");
    });
}

#[test]
fn it_notices_that_too_when_the_socket_is_from_another_network_namespace() {
    as_root(|| {
        let (ours, vm) = socketpair();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        network();
        let mut tart = Tart::run_with(ours, vm);
        let (dummy, _) = UnixDatagram::pair().unwrap();
        drop(std::mem::replace(&mut tart.vm, dummy));
        let log = tart.ended_within(DEATH_LIMIT);
        assert!(
            log.contains("the VM is gone") && !log.contains("will show that"),
            "{log}"
        );
    });
}

#[test]
fn it_ends_when_tart_is_killed_hard() {
    as_root(|| {
        network();
        // Orphans become our children, so that their ends can be waited for.
        prctl::set_child_subreaper(true).unwrap();
        let (ours, _vm) = socketpair();
        let script = r#"exec 3<&0; softnet "$@" <&3 & echo "pid $!" >&2; wait"#;
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", script, "tart"])
            .args(ARGUMENTS)
            .env_clear();
        shell.env("PATH", Path::new(SOFTNET).parent().unwrap());
        let tart = Program::start_forwarding(shell.stdin(Stdio::from(OwnedFd::from(ours))));
        let log = tart.log();
        let pid = log
            .lines()
            .find_map(|line| line.strip_prefix("pid "))
            .unwrap();
        let softnet = Pid::from_raw(pid.parse().unwrap());
        tart.signal(Signal::SIGKILL);
        assert_eq!(
            ends_within(softnet, DEATH_LIMIT),
            WaitStatus::Exited(softnet, 0)
        );
    });
}

#[test]
fn a_log_that_nobody_reads_neither_stops_nor_ends_it() {
    as_root(|| {
        network();
        let server = dhcp_server();
        let (closed, to_nobody) = io::pipe().unwrap();
        drop(closed);
        let (_reader, full) = io::pipe().unwrap();
        program::fill(&full);
        for stderr in [to_nobody, full] {
            let (ours, vm) = socketpair();
            let mut command = command();
            command
                .stdin(Stdio::from(OwnedFd::from(ours)))
                .stdout(OwnedFd::from(UnixStream::pair().unwrap().0));
            let mut softnet = command.stderr(Stdio::from(stderr)).spawn().unwrap();
            vm.send(&dhcp(DISCOVER)).unwrap();
            serve(&server, &vm, DISCOVER, OFFER);
            let pid = Pid::from_raw(softnet.id().cast_signed());
            kill(pid, Signal::SIGINT).unwrap();
            assert_eq!(ends_within(pid, STOP_LIMIT), WaitStatus::Exited(pid, 0));
            let _ = softnet.wait();
        }
    });
}

/// Orchard's way, which restarts the VM when nobody answers within five seconds: the message and
/// its line end in two writes, before there is a lease.
#[test]
fn a_policy_is_set_over_the_control_socket() {
    as_root(|| {
        let mut tart = Tart::run();
        let mut control = tart.softnet.control.try_clone().unwrap();
        let set = r#"{"jsonrpc":"2.0","id":1,"method":"softnet.policy.set","params":{"allow":["10.1.2.3/8"],"block":[]}}"#;
        control.write_all(set.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(20));
        let sent = Instant::now();
        control.write_all(b"\n").unwrap();
        let answer = concat!(
            r#"{"jsonrpc":"2.0","id":1,"result":{"allow":["10.0.0.0/8"],"block":[],"ruleCount":1}}"#,
            "\n"
        );
        tart.softnet.prints("ruleCount");
        assert_eq!(tart.softnet.printed(), answer);
        assert!(
            sent.elapsed() < Duration::from_secs(2),
            "{:?}",
            sent.elapsed()
        );
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/1", tart.softnet.pid())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = i32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert_ne!(flags & OFlag::O_CLOEXEC.bits(), 0, "{info}");
        // The end of the channel is not the end of softnet.
        control.shutdown(Shutdown::Write).unwrap();
        tart.softnet.logs("the client is gone");
        tart.softnet.signal(Signal::SIGINT);
        assert_eq!(tart.softnet.ends_within(STOP_LIMIT).code(), Some(0));
        assert!(
            tart.softnet
                .log()
                .contains("policy changed over --control-fd: 1 rules allow, 0 block")
        );
    });
}

#[test]
fn an_idle_softnet_sleeps() {
    as_root(|| {
        let tart = Tart::run();
        ip("link set tart0 arp off");
        fs::write("/proc/sys/net/ipv6/conf/tart0/disable_ipv6", "1").unwrap_or_default();
        thread::sleep(Duration::from_millis(500));
        let switches = || -> Vec<(String, u64)> {
            let tasks = fs::read_dir(format!("/proc/{}/task", tart.softnet.pid())).unwrap();
            let task = |entry: fs::DirEntry| {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap();
                let tid = entry.file_name().to_str().unwrap().parse().unwrap();
                let count = program::status(Pid::from_raw(tid), "voluntary_ctxt_switches");
                (name.trim().to_owned(), count.parse().unwrap())
            };
            tasks.map(|entry| task(entry.unwrap())).collect()
        };
        let before = switches();
        thread::sleep(Duration::from_secs(3));
        for ((name, before), (_, after)) in before.into_iter().zip(switches()) {
            // The control thread looks around once a second.
            let limit = if name == "softnet" { 4 } else { 0 };
            assert!(after - before <= limit, "{name}: {}", after - before);
        }
        tart.stop();
    });
}

/// Waits for the end of a child, which an orphan has become too.
fn ends_within(pid: Pid, limit: Duration) -> WaitStatus {
    let patience = Instant::now() + limit;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) if Instant::now() < patience => (),
            Ok(WaitStatus::StillAlive) => {
                let _ = kill(pid, Signal::SIGKILL);
                panic!("still there after {limit:?}");
            }
            status => return status.unwrap(),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn rand_byte() -> u8 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0).to_le_bytes()[0]
}
