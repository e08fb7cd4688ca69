//! `softnet bench --vmnet` as on a Mac, against the simulation of vmnet (`tests/vmnet-sim`)
//! and a real host: a network namespace with dnsmasq, whose kernel answers and asks for MAC
//! addresses and hands datagrams to sockets. A TAP with the gateway's address is where the
//! simulated vmnet leads to.
#![cfg(target_os = "linux")] // The simulation is for it.

mod program;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use program::{Copy, Outcome, Program, as_root, ip};
use softnet::batch::{Batch, FRAMES_MAX};
use softnet::endpoint::tap::{Offload, Tap};
use softnet::endpoint::{Endpoint, Received, Sink, Source};
use softnet::stop::Stop;

/// The host that the simulated vmnet leads to. Goes with the namespace, but for what is ended
/// here.
struct Host {
    directory: PathBuf,
    dnsmasq: Option<Child>,
    stop: Stop,
}

impl Host {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("softnet-vmnet-bench-{}-{count}", std::process::id());
        let directory = env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        let stop = Stop::new().unwrap();

        let tap = Tap::open("bench0", Offload::Off).unwrap();
        // Or the kernel's solicitations would come as frames for the VM.
        fs::write("/proc/sys/net/ipv6/conf/bench0/disable_ipv6", "1").unwrap();
        ip("address add 192.168.64.1/24 dev bench0");
        ip("link set lo up");
        let max_frame = tap.max_frame();
        let (source, sink) = tap.split();
        let vms = UnixDatagram::bind(directory.join("host")).unwrap();
        let everybody = Permissions::from_mode(0o777);
        fs::set_permissions(directory.join("host"), everybody).unwrap();
        let host = vms.try_clone().unwrap();
        let to_vm = directory.join("vmnet");
        let stopped = stop.clone();
        thread::spawn(move || carry_in(source, max_frame, &host, &to_vm, &stopped));
        let stopped = stop.clone();
        thread::spawn(move || carry_out(sink, max_frame, &vms, &stopped));
        Self {
            directory,
            dnsmasq: None,
            stop,
        }
    }

    /// With a DHCP server; None, loudly, if there is none on this machine.
    fn with_dhcp() -> Option<Self> {
        let mut host = Self::new();
        let leases = host.directory.join("leases");
        let child = Command::new("dnsmasq")
            // In this mode it stays root, also where that is the root of a user namespace.
            .args(["--no-daemon", "--conf-file=/dev/null", "--pid-file="])
            .args(["--interface=bench0", "--bind-interfaces", "--port=0"])
            .args(["--dhcp-range=192.168.64.2,192.168.64.9,255.255.255.0,600"])
            .args(["--dhcp-authoritative", "--no-ping"])
            // Or it tells the kernel the VM's MAC address, which then has no need to ask.
            .arg("--dhcp-broadcast")
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stderr(File::create(host.directory.join("log")).unwrap())
            .spawn();
        match child {
            Ok(child) => host.dnsmasq = Some(child),
            Err(_) => {
                program::skip("a bench with a real DHCP server", "dnsmasq");
                return None;
            }
        }
        let patience = Instant::now() + Duration::from_secs(5);
        // Port 67, on any address.
        while !fs::read_to_string("/proc/thread-self/net/udp")
            .unwrap()
            .contains(":0043 ")
        {
            assert!(Instant::now() < patience, "{}", host.log());
            thread::sleep(Duration::from_millis(5));
        }
        Some(host)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// `softnet bench --vmnet`, with vmnet behaving so.
    fn bench(&self, behaviour: &str, more: &[&str]) -> Command {
        let null = File::open("/dev/null").unwrap();
        self.bench_by(program::softnet(null), behaviour, more)
    }

    /// The same by another copy of the program.
    fn bench_by(&self, mut command: Command, behaviour: &str, more: &[&str]) -> Command {
        command.args(["bench", "--vmnet", "--rounds=1", "--window=50"]);
        command
            .args(more)
            .env(vmnet_sim::outside::SCRIPT, behaviour)
            .env(vmnet_sim::outside::DIRECTORY, &self.directory);
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(dnsmasq) = &mut self.dnsmasq {
            let _ = dnsmasq.kill();
            let _ = dnsmasq.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Carries what the host's kernel sends to the program, if one is there. Who is held keeps
/// what is behind it waiting in the TAP.
fn carry_in(
    mut tap: impl Source,
    max_frame: usize,
    socket: &UnixDatagram,
    vmnet: &std::path::Path,
    stop: &Stop,
) {
    let mut batch = Batch::new(max_frame);
    while !stop.is_set() {
        match tap.wait_and_recv(&mut batch, FRAMES_MAX, stop) {
            Received::Frames => {
                for index in 0..batch.received() {
                    let _ = socket.send_to(batch.frame(index), vmnet);
                }
            }
            Received::Nothing => {}
            Received::Gone | Received::Failed(_) => return,
        }
    }
}

/// Carries what the program sends to the host's kernel.
fn carry_out(mut tap: impl Sink, max_frame: usize, socket: &UnixDatagram, stop: &Stop) {
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut batch = Batch::new(max_frame);
    while !stop.is_set() {
        let (mut slots, lens) = batch.fill(1);
        let Ok(len) = socket.recv(slots.next().unwrap()) else {
            continue;
        };
        lens[0] = u32::try_from(len).unwrap();
        drop(slots);
        batch.set_received(1);
        batch.queue(0);
        let _ = tap.send(&mut batch);
    }
}

/// Runs it to its end.
fn outcome(command: &mut Command) -> Outcome {
    let mut bench = Program::start(command);
    let code = bench.ends_within(Duration::from_secs(120)).code();
    let (stdout, stderr) = bench.take_output();
    Outcome {
        code,
        stdout,
        stderr,
    }
}

#[track_caller]
fn assert_one_line(outcome: &Outcome, words: &str) {
    let stderr = &outcome.stderr;
    assert_eq!(outcome.code, Some(1), "{stderr}");
    assert!(
        stderr.starts_with("softnet: ")
            && stderr.contains(words)
            && stderr.matches('\n').count() == 1,
        "{stderr}"
    );
}

/// By scenario and subject, figures.
type Results = BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>>;

fn results(json: &str) -> Results {
    let lines = json.lines().skip(1).map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let scenario = line["scenario"].as_str().unwrap().to_owned();
        let subjects = serde_json::from_value(line["subjects"].clone()).unwrap();
        (scenario, subjects)
    });
    lines.collect()
}

#[test]
fn all_that_fits_is_measured_with_a_real_host_behind_vmnet() {
    as_root(|| {
        let Some(host) = Host::with_dhcp() else {
            return;
        };
        let json = host.directory.join("json");
        let more = [
            "--scenario=all",
            "--subject=auto,one-frame",
            &format!("--json={}", json.display()),
        ];
        let Outcome {
            code,
            stdout,
            stderr,
        } = outcome(&mut host.bench("well", &more));
        assert_eq!(code, Some(0), "{stderr}\n{}", host.log());
        assert!(stdout.contains("ns/frame"), "{stdout}");

        let results = results(&fs::read_to_string(&json).unwrap());
        let mut expected = vec!["burst/inbound", "burst/outbound", "drops/outbound"];
        let ways = ["both", "inbound", "outbound"];
        let full =
            ways.map(|way| ["64", "256", "1514", "imix"].map(|kind| format!("{way}/{kind}")));
        let full = full.concat();
        expected.extend(full.iter().map(String::as_str));
        let loads = ["inbound", "outbound"];
        let loads = loads.map(|way| ["1k", "10k", "100k"].map(|rate| format!("load/{way}/{rate}")));
        let loads = loads.concat();
        expected.extend(loads.iter().map(String::as_str));
        expected.sort_unstable();
        assert_eq!(results.keys().collect::<Vec<_>>(), expected);
        for (scenario, subjects) in &results {
            let names: Vec<_> = subjects.keys().map(String::as_str).collect();
            assert_eq!(names, ["auto", "bare", "one-frame"], "{scenario}");
            for (subject, figures) in subjects {
                let what = format!("{scenario}, {subject}: {figures:?}");
                let cpu = figures["cpu_ns_per_frame"];
                assert!((50.0..1e6).contains(&cpu), "{what}");
                if scenario.starts_with("load") || scenario.starts_with("burst") {
                    let latency = figures["latency_p50_us"];
                    assert!((1.0..1e6).contains(&latency), "{what}");
                }
            }
        }
        // The bench itself sees that none came, and that all did which nobody held up.
        let drops = &results["drops/outbound"];
        assert!(drops["auto"]["drops"] > 1000.0, "{drops:?}");
        assert_eq!(results["outbound/64"]["auto"]["drops"], 0.0);
        // The last one stopped its interface, and did nothing to it that must not be.
        let wrong = fs::read_to_string(host.directory.join("stopped"));
        assert_eq!(wrong.as_deref().unwrap_or("not stopped"), "");
        let leases = fs::read_to_string(host.directory.join("leases")).unwrap();
        assert_eq!(leases.lines().count(), 1, "{leases}");
    });
}

/// What is to be run on Macs, with this kernel and dnsmasq in the place of theirs.
#[test]
fn the_vm_that_stands_in_for_tarts_finds_all_well() {
    as_root(|| {
        let Some(host) = Host::with_dhcp() else {
            return;
        };
        for (scene, last) in [
            ("whole", "softnet ends when the VM's end is closed"),
            ("load", "no frame reached the VM that softnet did not count"),
            ("orphan", "softnet ends with who started it"),
        ] {
            let mut script = Command::new("python3");
            script.args(["-B", "tests/macos/standin.py", scene, program::SOFTNET]);
            script
                .env(vmnet_sim::outside::SCRIPT, "well")
                .env(vmnet_sim::outside::DIRECTORY, &host.directory)
                .stdin(Stdio::null());
            let Outcome {
                code,
                stdout,
                stderr,
            } = outcome(&mut script);
            assert_eq!(code, Some(0), "{stdout}{stderr}");
            assert!(stdout.contains(last), "{stdout}");
        }
    });
}

#[test]
fn behind_sudo_it_measures_as_the_caller_and_starts_nobody_elses_program() {
    as_root(|| {
        let Some(host) = Host::with_dhcp() else {
            return;
        };
        let copy = Copy::new(0o755);
        let by_sudo = |more: &[&str]| {
            let null = File::open("/dev/null").unwrap();
            let mut command = host.bench_by(copy.command(null), "well", more);
            command.env("VMNET_SIM_MACOS", "15.5");
            command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
            outcome(&mut command)
        };
        let json = host.directory.join("json");
        let file = format!("--json={}", json.display());
        // Not one that asks for memory: Linux hides that of a process which gave up rights.
        let least = [
            "--scenario=load/outbound/1k",
            "--subject=auto",
            file.as_str(),
        ];
        let Outcome { code, stderr, .. } = by_sudo(&least);
        assert_eq!(code, Some(0), "{stderr}\n{}", host.log());
        assert_eq!(fs::metadata(&json).unwrap().uid(), NOBODY);

        // Root's rights are put aside until the next forwarder starts, which gives them up.
        let null = File::open("/dev/null").unwrap();
        let long = ["--scenario=load", "--subject=auto"];
        let mut command = host.bench_by(copy.command(null), "well", &long);
        command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
        let bench = Program::start(&mut command);
        let patience = Instant::now() + Duration::from_secs(10);
        let forwarder = || {
            let pid = bench.pid();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let child = children.unwrap().split_whitespace().next()?.parse().ok()?;
            Some(program::status(Pid::from_raw(child), "Uid"))
        };
        while forwarder().as_deref() != Some("65534 65534 65534 65534") {
            assert!(
                Instant::now() < patience,
                "{:?}: {}",
                forwarder(),
                bench.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(bench.status("Uid"), "0 65534 0 65534");
        assert_eq!(bench.status("CapEff"), "0000000000000000");
        assert_eq!(bench.status("Groups"), "65534");
        drop(bench);

        let refused = by_sudo(&[&least[..], &["--against=/bin/true"]].concat());
        assert_one_line(&refused, "--against does not go with --vmnet behind sudo");
    });
}

#[test]
fn a_host_without_a_dhcp_server_is_told_in_a_line() {
    as_root(|| {
        let host = Host::new();
        let outcome = outcome(&mut host.bench("well", &["--scenario=outbound/64"]));
        assert_one_line(&outcome, "no DHCP server of this host answers");
    });
}

#[test]
fn a_firewall_that_lets_nothing_in_is_told_in_a_line() {
    as_root(|| {
        let Some(host) = Host::with_dhcp() else {
            return;
        };
        // The VM has no address yet when it speaks with the DHCP server.
        ip("rule add pref 10 lookup local");
        ip("rule del pref 0");
        ip("rule add pref 5 from 192.168.64.0/24 iif bench0 blackhole");
        let outcome = outcome(&mut host.bench("well", &["--scenario=outbound/64"]));
        assert_one_line(&outcome, "let softnet through its firewall");
    });
}

/// As macOS tells a program that may not talk to the networks that the host is in.
#[test]
fn a_host_that_finds_the_vm_unreachable_is_told_how_to_allow_it() {
    as_root(|| {
        let Some(host) = Host::with_dhcp() else {
            return;
        };
        for addresses in ["192.168.64.2/31", "192.168.64.4/30", "192.168.64.8/31"] {
            ip(&format!("route add unreachable {addresses} scope link"));
        }
        let outcome = outcome(&mut host.bench("well", &["--scenario=outbound/64"]));
        assert_one_line(&outcome, "Privacy & Security, Local Network");
    });
}

#[test]
fn vmnet_that_does_not_start_is_told_in_its_own_words() {
    as_root(|| {
        let host = Host::new();
        for (behaviour, words) in [
            ("start-failed", "vmnet does not start (status 1001)"),
            ("start-busy", "sharing service is busy"),
        ] {
            let outcome = outcome(&mut host.bench(behaviour, &["--scenario=outbound/64"]));
            assert_one_line(&outcome, words);
        }
    });
}

#[test]
fn what_does_not_fit_is_told_in_a_line() {
    as_root(|| {
        let host = Host::new();
        let outcome = outcome(&mut host.bench("well", &["--scenario=rules,density"]));
        assert_one_line(&outcome, "none of these scenarios can be measured there");
    });
}

#[test]
fn an_ordinary_user_is_told_to_be_root_before_macos_26() {
    as_root(|| {
        let (host, copy) = (Host::new(), Copy::new(0o755));
        let null = File::open("/dev/null").unwrap();
        let mut command = host.bench_by(copy.command(null), "well", &[]);
        command.env("VMNET_SIM_MACOS", "15.5");
        command.uid(NOBODY).gid(NOBODY);
        assert_one_line(&outcome(&mut command), "sudo softnet bench --vmnet");
    });
}

/// `nobody` and its group on Debian.
const NOBODY: u32 = 65534;
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
