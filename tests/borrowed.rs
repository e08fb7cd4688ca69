//! Rights that the caller has through softnet alone, by SUID, sudo or file capabilities: what
//! softnet does for the caller with them, and what not. As root, who plays both parts.
#![cfg(target_os = "linux")] // Namespaces, a TAP, and what /proc tells.
#![cfg(not(feature = "vmnet-sim"))] // TAPs.

mod program;

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::Pid;
use program::{ARGUMENTS, Copy, MAC, Outcome, Program, as_root, ip, outcome, sh, skip, socketpair};

/// The kernel's user and group for those who own nothing.
const NOBODY: u32 = 65534;
/// Behind [`ARGUMENTS`], what is complete but for the user.
const GATEWAY: [&str; 2] = ["--gateway", "192.168.64.1"];

/// A way in which nobody gets at root's rights.
#[derive(Debug, Clone, Copy)]
enum Way {
    Suid,
    Sudo,
    Capabilities,
}

impl Way {
    /// Those that there are here.
    fn all() -> Vec<Self> {
        let mut ways = vec![Self::Suid, Self::Sudo];
        if has("setcap") {
            ways.push(Self::Capabilities);
        } else {
            skip("file capabilities", "setcap");
        }
        ways
    }

    /// A copy of softnet that nobody gets them by.
    fn copy(self) -> Copy {
        match self {
            Self::Suid => Copy::new(0o4755),
            Self::Sudo => Copy::new(0o755),
            Self::Capabilities => {
                let copy = Copy::new(0o755);
                let rights = "cap_dac_override,cap_net_admin,cap_net_raw,cap_setuid+ep";
                sh(&format!("setcap {rights} {}", copy.path()));
                copy
            }
        }
    }

    /// That copy, started by nobody.
    fn softnet(self, copy: &Copy, words: &[&str]) -> Command {
        let mut command = copy.command(File::open("/dev/null").unwrap());
        command.args(words);
        match self {
            Self::Sudo => behind_sudo(&mut command, "65534"),
            _ => command.uid(NOBODY).gid(NOBODY),
        };
        command
    }
}

/// As sudo starts a command of the user with that number.
fn behind_sudo<'a>(command: &'a mut Command, user: &str) -> &'a mut Command {
    command.env("SUDO_UID", user).env("SUDO_GID", user)
}

fn has(program: &str) -> bool {
    let find = format!("PATH=$PATH:/usr/sbin:/sbin command -v {program}");
    let found = Command::new("/bin/sh").args(["-c", &find]).output();
    found.unwrap().status.success()
}

/// What of the bench takes least time.
const LEAST: [&str; 5] = [
    "bench",
    "--scenario=outbound/64",
    "--subject=bare",
    "--rounds=1",
    "--window=1",
];

/// What becomes of softnet with a flag that names a file which nobody may not use, and then one
/// of nobody's own.
type Case = (&'static str, fn(Way, &Copy));

/// One for each line of `named-files.txt`, to which a test of `src/app/cli.rs` holds the flags.
const CASES: [Case; 10] = [
    ("--policy", |way, copy| {
        let words = |path| [&ARGUMENTS[..], &GATEWAY, &["--policy", path]].concat();
        is_read(way, copy, &words, "not TOML");
    }),
    ("bench --against", |way, copy| {
        let log = format!("/run/nobodys/{way:?}");
        let script = format!("#!/bin/sh\nexec cat /proc/self/status >{log}\n");
        for (path, mode) in [("/run/roots-program", 0o700), ("/run/a-program", 0o755)] {
            fs::write(path, &script).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let against = format!("--against={path}");
            let words = [&LEAST[..], &[against.as_str()]].concat();
            let Outcome { code, stderr, .. } = outcome(&mut way.softnet(copy, &words));
            assert_eq!(code, Some(1), "{way:?}: {stderr}");
            let status = fs::read_to_string(&log).unwrap_or_default();
            if mode == 0o700 {
                assert_eq!(status, "", "{way:?}: nobody may not start it");
                assert!(stderr.contains("Permission denied"), "{way:?}: {stderr}");
                continue;
            }
            for line in [
                "Uid:\t65534\t65534\t65534\t65534\n",
                "Gid:\t65534\t65534\t65534\t65534\n",
                "CapPrm:\t0000000000000000\n",
                "CapEff:\t0000000000000000\n",
                "CapInh:\t0000000000000000\n",
                "CapAmb:\t0000000000000000\n",
                "NoNewPrivs:\t1\n",
            ] {
                assert!(status.contains(line), "{way:?}: no {line:?} in {status}");
            }
            let (_, groups) = status.split_once("\nGroups:\t").unwrap();
            let groups = groups.lines().next().unwrap().trim();
            assert!(["", "65534"].contains(&groups), "{way:?}: {groups}");
        }
    }),
    ("bench --json", |way, copy| {
        let json = |path: &str| {
            let json = format!("--json={path}");
            outcome(&mut way.softnet(copy, &[&LEAST[..], &[json.as_str()]].concat()))
        };
        fs::write("/run/roots-file", "root's").unwrap();
        for path in ["/run/roots-file", "/run/new-file"] {
            let Outcome { code, stderr, .. } = json(path);
            let refused = format!("softnet: cannot write {path}: Permission denied");
            assert_eq!(code, Some(1), "{way:?}: {stderr}");
            assert!(stderr.starts_with(&refused), "{way:?}: {stderr}");
        }
        assert_eq!(fs::read("/run/roots-file").unwrap(), b"root's");
        assert!(!fs::exists("/run/new-file").unwrap());
        let own = format!("/run/nobodys/{way:?}.json");
        let Outcome { code, stderr, .. } = json(&own);
        assert_eq!(code, Some(0), "{way:?}: {stderr}");
        let own = fs::metadata(own).unwrap();
        assert!((own.uid(), own.gid()) == (NOBODY, NOBODY) && own.len() > 0);
    }),
    ("bench --pcap", |way, copy| {
        let words = |path| vec!["bench", "--pcap", path];
        is_read(way, copy, &words, "not a capture");
    }),
    ("bench compare --limits", |way, copy| {
        write_results();
        let words = |path| vec!["bench", "compare", "/run/results", "--limits", path];
        is_read(way, copy, &words, "not a limit");
    }),
    ("bench compare A.json", |way, copy| {
        let reason = "not a line of results";
        is_read(way, copy, &|path| vec!["bench", "compare", path], reason);
    }),
    ("bench compare B.json", |way, copy| {
        write_results();
        let words = |path| vec!["bench", "compare", "/run/results", path];
        is_read(way, copy, &words, "not a line of results");
    }),
    ("check --pcap", |way, copy| {
        let words = |path| vec!["check", "--pcap", path];
        is_read(way, copy, &words, "not a capture");
    }),
    ("check --policy", |way, copy| {
        let words = |path| vec!["check", "--to", "1.2.3.4", "--policy", path];
        is_read(way, copy, &words, "not TOML");
    }),
    ("run --policy", |way, copy| {
        let rest = |path| ["--policy", path, "--", "/bin/true"];
        let words = |path| [&["run"], &ARGUMENTS[2..], &GATEWAY, &rest(path)].concat();
        is_read(way, copy, &words, "not TOML");
    }),
];

/// Results of a bench, without figures.
fn write_results() {
    let machine = r#"{"cpu":"x","cores":2,"kernel":"6","version":"0","date":0,"load":0.0}"#;
    let results = format!("{{\"schema\":1,\"machine\":{machine}}}");
    fs::write("/run/results", results).unwrap();
}

/// A file of root's alone is not read, and one that is nobody's is, and found to be useless.
fn is_read<'a>(way: Way, copy: &Copy, words: &dyn Fn(&'a str) -> Vec<&'a str>, useless: &str) {
    for (path, reason) in [("/run/secret", "Permission denied"), ("/run/text", useless)] {
        fs::write(path, "text that is longer than any header").unwrap();
        let mode = if path == "/run/secret" { 0o600 } else { 0o644 };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let Outcome { code, stderr, .. } = outcome(&mut way.softnet(copy, &words(path)));
        assert_eq!(code, Some(1), "{way:?}: {stderr}");
        let line = format!("softnet: {path}:");
        assert!(
            stderr.starts_with(&line) && stderr.contains(reason),
            "{way:?}: {stderr}"
        );
    }
}

#[test]
fn every_file_that_the_caller_names_is_opened_with_the_callers_rights() {
    let listed: Vec<_> = include_str!("expected/named-files.txt").lines().collect();
    assert_eq!(CASES.map(|(flag, _)| flag).to_vec(), listed);
    as_root(|| {
        sh("install -d -o nobody -g nogroup /run/nobodys");
        for way in Way::all() {
            let copy = way.copy();
            for (_, case) in CASES {
                case(way, &copy);
            }
        }
    });
}

/// The process that `parent` has started, once there is one.
fn child_of(parent: Pid) -> Pid {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            return Pid::from_raw(child.parse().unwrap());
        }
        assert!(Instant::now() < patience, "it starts nobody");
        thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn is_nobody_without_rights(process: Pid) {
    for ids in ["Uid", "Gid"] {
        assert_eq!(program::status(process, ids), "65534 65534 65534 65534");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(program::status(process, set), "0000000000000000", "{set}");
    }
    assert_eq!(program::status(process, "NoNewPrivs"), "1");
}

#[test]
fn a_bench_behind_sudo_has_roots_rights_for_nothing_but_to_open_the_tap() {
    as_root(|| {
        sh("install -d -o nobody -g nogroup /run/nobodys");
        let copy = Way::Sudo.copy();
        let words = [
            "bench",
            "--tap=bench0",
            "--scenario=outbound/64,inbound/64,load/outbound/1k",
            "--subject=auto,one-frame",
            "--rounds=2",
            "--window=200",
            "--json=/run/nobodys/tap.json",
        ];
        let mut bench = Program::start(&mut Way::Sudo.softnet(&copy, &words));
        let subject = child_of(bench.pid());
        is_nobody_without_rights(bench.pid());
        is_nobody_without_rights(subject);
        let status = bench.ends_within(Duration::from_secs(60));
        let (stdout, stderr) = bench.take_output();
        assert!(status.success(), "{stderr}");
        assert!(stdout.contains("2 rounds"), "{stdout}");
        assert_eq!(fs::metadata("/run/nobodys/tap.json").unwrap().uid(), NOBODY);
        let figures = fs::read_to_string("/run/nobodys/tap.json").unwrap();
        let lines = figures.lines().skip(1);
        for line in lines {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let subjects = line["subjects"].as_object().unwrap();
            assert_eq!(subjects.len(), 3, "{line}");
            for figures in subjects.values() {
                assert!(
                    figures["cpu_ns_per_frame"].as_f64().unwrap() > 0.0,
                    "{line}"
                );
            }
        }
        assert!(!fs::exists("/proc/sys/net/ipv4/conf/bench0").unwrap());
    });
}

#[test]
fn a_bench_with_borrowed_rights_opens_nobody_elses_tap() {
    as_root(|| {
        sh("mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200");
        ip("tuntap add dev softnet-test0 mode tap user daemon");
        for way in Way::all() {
            if matches!(way, Way::Sudo) {
                continue; // That is what one calls sudo for.
            }
            let words = [&LEAST[..], &["--tap=softnet-test0"]].concat();
            let Outcome { code, stderr, .. } = outcome(&mut way.softnet(&way.copy(), &words));
            assert_eq!(code, Some(1), "{way:?}: {stderr}");
            let reason = "softnet: no rights to the TAP softnet-test0";
            assert!(stderr.starts_with(reason), "{way:?}: {stderr}");
        }
    });
}

/// What `softnet bench` starts, started by hand: the caller opens the host's side, so softnet has
/// no use for rights, nor has the registry for a VM that nobody else can meet.
#[test]
fn with_a_host_side_of_the_callers_softnet_gives_up_all_rights_and_claims_nothing() {
    as_root(|| {
        for way in Way::all() {
            let ((_vm, vms), (_host, hosts)) = (socketpair(), socketpair());
            fcntl(&hosts, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            let (copy, fd) = (way.copy(), hosts.as_raw_fd().to_string());
            let own = ["--vm-fd=0", "--vm-mac-address", MAC, "--host-fd", &fd];
            let mut command = way.softnet(&copy, &[&own[..], &GATEWAY].concat());
            command.stdin(Stdio::from(std::os::fd::OwnedFd::from(vms)));
            let mut softnet = Program::start(&mut command);
            softnet.logs("forwarding for ");
            is_nobody_without_rights(softnet.pid());
            assert!(!fs::exists("/run/softnet").unwrap(), "{way:?}");
        }
    });
}

/// softnet that runs `script`, behind a sudo that leaves this environment.
fn run_by_sudo(environment: &[(&str, &str)], more: &[&str], script: &str) -> Outcome {
    let mut command = program::softnet(File::open("/dev/null").unwrap());
    command.arg("run").args(&ARGUMENTS[2..]).args(GATEWAY);
    command.args(more).args(["--", "/bin/sh", "-c", script]);
    command.envs(environment.iter().copied());
    outcome(&mut command)
}

#[track_caller]
fn assert_refused(outcome: &Outcome, code: i32, reason: &str) {
    let Outcome { stdout, stderr, .. } = outcome;
    assert_eq!(
        (outcome.code, stdout.as_str()),
        (Some(code), ""),
        "{stderr}"
    );
    assert!(stderr.starts_with(reason), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn behind_sudo_a_command_runs_as_nobody_but_the_caller() {
    as_root(|| {
        let nobody = [("SUDO_UID", "65534"), ("SUDO_GID", "65534")];
        for more in [&[][..], &["--user", "nobody", "--group", "nogroup"]] {
            let script = "id -u; id -g; id -G; grep -c '0000000000000000' /proc/self/status";
            let ran = run_by_sudo(&nobody, more, script);
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            assert!(ran.stdout.starts_with("65534\n65534\n65534\n"), "{ran:?}");
        }
        for (flag, name) in [
            ("--user", "root"),
            ("--user", "daemon"),
            ("--group", "root"),
            ("--group", "daemon"),
        ] {
            let refused = run_by_sudo(&nobody, &[flag, name], "id");
            assert_refused(&refused, 2, &format!("softnet: {flag} {name} is refused"));
        }
        // For polkit and doas, too.
        for environment in [("PKEXEC_UID", "65534"), ("DOAS_USER", "nobody")] {
            let ran = run_by_sudo(&[environment], &[], "id -u; id -g");
            assert_eq!(ran.stdout, "65534\n65534\n", "{}", ran.stderr);
            let refused = run_by_sudo(&[environment], &["--user", "root"], "id");
            assert_refused(&refused, 2, "softnet: --user root is refused");
        }
    });
}

#[test]
fn root_that_calls_sudo_may_name_anybody() {
    as_root(|| {
        let root = [("SUDO_UID", "0"), ("SUDO_GID", "0")];
        let ran = run_by_sudo(&root, &["--user", "daemon"], "id -u");
        assert_eq!(ran.stdout, "1\n", "{}", ran.stderr);
        let ran = run_by_sudo(&root, &[], "id -u");
        assert_eq!(ran.stdout, "0\n", "{}", ran.stderr);
    });
}

#[test]
fn where_sudo_does_not_tell_who_called_nothing_is_done() {
    as_root(|| {
        for (environment, name) in [
            (&[("SUDO_UID", "")][..], "SUDO_UID"),
            (&[("SUDO_UID", "+0")], "SUDO_UID"),
            (&[("SUDO_UID", "anna"), ("SUDO_GID", "0")], "SUDO_UID"),
            (&[("SUDO_UID", "65534"), ("SUDO_GID", "x")], "SUDO_GID"),
            (&[("PKEXEC_UID", "x")], "PKEXEC_UID"),
            (&[("DOAS_USER", "no-such-user")], "DOAS_USER"),
        ] {
            let reason = format!("softnet: cannot tell who called softnet: {name} names nobody");
            assert_refused(&run_by_sudo(environment, &[], "id"), 1, &reason);
            let mut bench = program::softnet(File::open("/dev/null").unwrap());
            bench.args(LEAST).envs(environment.iter().copied());
            assert_refused(&outcome(&mut bench), 1, &reason);
        }
    });
}

/// A sudo that knows one line, about a copy of softnet; None, said loudly, where there is none.
fn sudo(copy: &Copy, rule: &str) -> Option<()> {
    if !has("sudo") {
        skip("what softnet does behind a real sudo", "sudo");
        return None;
    }
    let rule = rule.replace("/usr/local/libexec/softnet", copy.path());
    fs::write("/run/sudoers", rule.replace("%admin", "nobody")).unwrap();
    sh(
        "chmod 440 /run/sudoers && visudo -cqf /run/sudoers && mount --bind /run/sudoers /etc/sudoers",
    );
    Some(())
}

/// `sudo --non-interactive`, called by nobody.
fn by_sudo(words: &[&str], stdin: impl Into<Stdio>) -> Command {
    let mut command = Command::new("sudo");
    command.arg("--non-interactive").args(words).stdin(stdin);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.uid(NOBODY).gid(NOBODY);
    command
}

#[test]
fn the_fragment_for_sudo_lets_softnet_be_started_as_tart_does_and_not_otherwise() {
    as_root(|| {
        let copy = Way::Sudo.copy();
        let fragment = include_str!("../docs/macos/softnet.sudoers");
        if sudo(&copy, fragment).is_none() {
            return;
        }
        let is_allowed = |words: &[&str]| {
            let words = [&["--list", copy.path()], words].concat();
            outcome(&mut by_sudo(&words, Stdio::null())).code == Some(0)
        };
        let as_tart = [
            &ARGUMENTS[..4],
            &["--vm-net-type", "host", "--allow", "10.0.0.0/8"],
        ]
        .concat();
        for end in [
            &[][..],
            &["--sudo-escalation-probing"],
            &[
                "--sudo-escalation-done",
                "--user",
                "nobody",
                "--group",
                "nogroup",
            ],
            &["--control-fd", "1"],
        ] {
            assert!(is_allowed(&[&as_tart[..], end].concat()), "{end:?}");
        }
        assert!(is_allowed(&["--help"]));
        for words in [
            &[][..],
            &["--version"],
            &["--vm-fd", "0"],
            &["--vm-fd", "1", "--vm-mac-address", MAC],
            &["--vm-fd=0", "--vm-mac-address", MAC],
            &["--vm-mac-address", MAC, "--vm-fd", "0"],
            &["run", "--vm-mac-address", MAC, "--", "id"],
            &["bench"],
            &["bench", "--json", "/etc/passwd"],
            &["bench-subject", "bare"],
            &["--help", "bench"],
        ] {
            assert!(!is_allowed(words), "{words:?}");
        }
        // A variable of one's own is what a rule has to allow by SETENV.
        let forged = ["SUDO_UID=0", copy.path(), "--help"];
        let Outcome { code, stderr, .. } = outcome(&mut by_sudo(&forged, Stdio::null()));
        assert!(code == Some(1) && stderr.contains("SUDO_UID"), "{stderr}");
    });
}

#[test]
fn a_real_sudo_tells_softnet_who_called_it() {
    as_root(|| {
        let copy = Way::Sudo.copy();
        // That of many a user of Tart.
        let any = "%admin ALL=(root) NOPASSWD: /usr/local/libexec/softnet\n";
        if sudo(&copy, any).is_none() {
            return;
        }
        let run = |more: &[&str]| {
            let words = [&[copy.path(), "run"], &ARGUMENTS[2..], &GATEWAY, more].concat();
            let mut command = by_sudo(&[&words[..], &["--", "id", "-u"]].concat(), Stdio::null());
            // As if that were to help.
            outcome(behind_sudo(&mut command, "0"))
        };
        let Outcome { stdout, stderr, .. } = run(&[]);
        assert_eq!(stdout, "65534\n", "{stderr}");
        let Outcome {
            code,
            stdout,
            stderr,
        } = run(&["--user", "root"]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");

        let (ours, _vms) = socketpair();
        let done = [
            "--sudo-escalation-done",
            "--user",
            "nobody",
            "--group",
            "nogroup",
        ];
        let words = [&[copy.path()], &ARGUMENTS[..], &GATEWAY, &done].concat();
        let stdin = Stdio::from(std::os::fd::OwnedFd::from(ours));
        let sudo = Program::start_forwarding(&mut by_sudo(&words, stdin));
        is_nobody_without_rights(child_of(sudo.pid()));
    });
}

#[test]
fn through_suid_a_mac_is_claimed_by_nobody_without_an_interface() {
    as_root(|| {
        sh("mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200");
        ip("tuntap add dev softnet-test1 mode tap user daemon");
        ip("tuntap add dev softnet-test2 mode tap user nobody");
        ip("link set softnet-test2 up");
        let (ours, _vms) = socketpair();
        let mut command = program::softnet(ours);
        command
            .args(ARGUMENTS)
            .args(GATEWAY)
            .args(["--user", "daemon"]);
        let first = Program::start_forwarding(&mut command);
        let copy = Way::Suid.copy();
        for (tap, reason) in [
            // Whose MAC it is does not even matter yet.
            ("softnet-test1", "no rights to the TAP softnet-test1"),
            ("softnet-test2", "is another VM's"),
        ] {
            let (ours, _vms) = socketpair();
            let mut command = copy.command(ours);
            command
                .args(&ARGUMENTS[..4])
                .args(GATEWAY)
                .args(["--tap", tap]);
            let Outcome { code, stderr, .. } = outcome(command.uid(NOBODY).gid(NOBODY));
            assert_eq!(code, Some(1), "{stderr}");
            assert!(stderr.contains(reason), "{tap}: {stderr}");
        }
        drop(first);
    });
}
