//! `--policy FILE` and `--audit`: what softnet does with the rules and limits of a file, with one
//! that is wrong, and with rules that are only tried.
#![cfg(target_os = "linux")] // Namespaces, a TAP, and /dev/zero.

mod program;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use program::guest::{
    ACK, DISCOVER, GATEWAY, OFFER, REQUEST, VM_ADDRESS, dhcp, dhcp_server_on, serve, udp,
};
use program::{ARGUMENTS, Outcome, Program, as_root, ip, outcome, sh, socketpair, softnet};

const FAILURE: i32 = 1;
const USAGE: i32 = 2;

const OFFICE: &str = "# The office.
version = 1
allow = [
  \"10.20.0.0/16\", # all of it
  \"0.0.0.0/0:443\",
]
block = [\"0.0.0.0/0\"]
";

/// A file with this text, for one test.
struct Policy(PathBuf);

impl Policy {
    fn new(name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn run(words: &[&str]) -> Outcome {
    outcome(softnet(File::open("/dev/null").unwrap()).args(words))
}

/// softnet with a file and these flags, which ends before it opens anything.
fn refused(path: &str, more: &[&str]) -> (Option<i32>, String) {
    let words = [&ARGUMENTS[..], &["--policy", path], more].concat();
    let Outcome { code, stderr, .. } = run(&words);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    (code, stderr)
}

#[test]
fn the_line_of_the_rule_that_decides_is_named() {
    let file = Policy::new("decides", OFFICE);
    let path = file.path();
    let said = run(&[
        "check",
        "--policy",
        path,
        "--allow",
        "@host",
        "--to",
        "10.20.1.1",
        "--to",
        "1.2.3.4:443",
        "--to",
        "1.2.3.4:80",
        "--to",
        "192.168.64.1",
        "--from",
        "1.2.3.4:22",
    ]);
    let expected = format!(
        "to 10.20.1.1: passes, by the rule \"allow 10.20.0.0/16\" in {path}:4\n\
         to 1.2.3.4:443/tcp: passes, by the rule \"allow 0.0.0.0/0:443\" in {path}:5\n\
         to 1.2.3.4:80/tcp: dropped as destination-blocked, by the rule \"block 0.0.0.0/0\" in \
         {path}:7\n\
         to 192.168.64.1: passes, by the rule \"allow @host\"\n\
         from 1.2.3.4:22/tcp: passes, as no rule is about it and nothing built in closes it\n"
    );
    assert_eq!((said.stdout, said.stderr), (expected, String::new()));
    assert_eq!(said.code, Some(0));
}

#[test]
fn whatever_is_wrong_is_a_line_with_its_place() {
    for (text, place, reason) in [
        (
            "version = 1\nallow = [\"10.0.0.0/33\"]",
            ":2: ",
            "\"10.0.0.0/33\": neither an IPv4",
        ),
        (
            "version = 1\n\nblok = []",
            ":3: ",
            "unknown key \"blok\": the keys are version, allow",
        ),
        ("version = 3", ":1: ", "expected version = 1"),
        ("allow = []", ": ", "expected a line version = 1"),
        ("version = 1\nallow: []", ":2: ", "not TOML: "),
        (
            "version = 1\nconnection-rate = \"x\"",
            ":2: ",
            "expected a number",
        ),
    ] {
        let file = Policy::new("wrong", text);
        let path = file.path();
        let expected = format!("softnet: {path}{place}");
        let (code, by_forwarding) = refused(path, &[]);
        let by_check = run(&["check", "--policy", path, "--to", "1.2.3.4"]);
        assert_eq!(
            (code, by_check.code),
            (Some(FAILURE), Some(FAILURE)),
            "{text}"
        );
        assert!(by_forwarding.starts_with(&expected), "{by_forwarding}");
        assert!(by_forwarding.contains(reason), "{by_forwarding}");
        assert_eq!(by_forwarding, by_check.stderr);
    }
}

#[test]
fn only_a_regular_file_of_some_length_is_read() {
    let long = Policy::new("long", vec![b'#'; (1 << 20) + 1]);
    let fifo = Policy::new("fifo", "");
    fs::remove_file(&fifo.0).unwrap();
    mkfifo(&fifo.0, Mode::S_IRWXU).unwrap();
    for (path, reason) in [
        (long.path(), "longer than 1048576 bytes"),
        // Nobody writes to it, so whoever opened it to wait would wait.
        (fifo.path(), "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("/", "not a regular file"),
        ("/no/such/file", "No such file"),
    ] {
        let (code, stderr) = refused(path, &[]);
        assert_eq!(code, Some(FAILURE), "{path}: {stderr}");
        let expected = format!("softnet: {path}: ");
        assert!(
            stderr.starts_with(&expected) && stderr.contains(reason),
            "{stderr}"
        );
    }
}

#[test]
fn a_limit_is_set_in_one_place() {
    let file = Policy::new(
        "limits",
        "version = 1\nconnection-rate = 5\non-deny = \"drop\"\n",
    );
    let path = file.path();
    for (more, line) in [(["--connection-rate", "5"], 2), (["--on-deny", "drop"], 3)] {
        let (code, stderr) = refused(path, &more);
        let expected = format!(
            "softnet: {} and {path}:{line} set the same: leave one of them out\n",
            more[0]
        );
        assert_eq!((code, stderr), (Some(USAGE), expected));
    }
}

#[test]
fn rules_of_both_places_count_together() {
    let file = Policy::new(
        "many",
        format!("version = 1\nallow = [{}]", "\"@host\",".repeat(4096)),
    );
    let path = file.path();
    let (code, stderr) = refused(path, &["--block", "@dns"]);
    let expected = format!(
        "softnet: {path}, --allow and --block: 4097 rules, of which at most 4096 are accepted\n"
    );
    assert_eq!((code, stderr), (Some(FAILURE), expected));
}

/// A request over the control channel, and the part of the answer that names the rules.
fn ask(softnet: &mut Program, request: &str, answer: &str) {
    writeln!(softnet.control, "{request}").unwrap();
    softnet.prints(answer);
}

#[test]
fn the_rules_of_both_places_hold_until_a_client_sets_others() {
    let file = Policy::new("holds", OFFICE.replace("10.20.0.0", "10.20.1.1"));
    as_root(|| {
        let (ours, _vms) = socketpair();
        let mut command = softnet(ours);
        command.args(ARGUMENTS).args(["--gateway", "192.168.64.1"]);
        command.args([
            "--control-fd",
            "1",
            "--allow",
            "@host",
            "--policy",
            file.path(),
        ]);
        let mut softnet = Program::start_forwarding(&mut command);
        let warning = "10.20.1.1/16 has host bits: taken as 10.20.0.0/16";
        assert!(softnet.log().contains(warning), "{}", softnet.log());
        ask(
            &mut softnet,
            r#"{"jsonrpc":"2.0","id":1,"method":"softnet.policy.get"}"#,
            r#"{"allow":["0.0.0.0/0:443","10.20.0.0/16","@host"],"block":["0.0.0.0/0"],"#,
        );
        ask(
            &mut softnet,
            r#"{"jsonrpc":"2.0","id":2,"method":"softnet.policy.set","params":{"allow":[],"block":[]}}"#,
            r#"{"allow":[],"block":[],"#,
        );
        // No child is left.
        let children = format!("/proc/{0}/task/{0}/children", softnet.pid());
        assert_eq!(fs::read_to_string(children).unwrap(), "");
    });
}

#[test]
fn a_command_has_the_file_too() {
    let file = Policy::new("run", "version = 1\nallow = [\"0.0.0.1/0\"]\n");
    as_root(|| {
        sh("ip link set lo up");
        let Outcome { code, stderr, .. } = run(&[
            &["run"],
            &ARGUMENTS[2..],
            &["--gateway", "192.168.64.1", "--policy", file.path()],
            &["--", "/bin/sh", "-c", "exit 7"],
        ]
        .concat());
        assert_eq!(code, Some(7), "{stderr}");
        assert!(stderr.contains("0.0.0.1/0 has host bits"), "{stderr}");
    });
}

#[test]
fn who_steers_over_a_descriptor_is_alone_and_what_it_sets_holds() {
    for flag in ["--steer", "--audit"] {
        let words = [&ARGUMENTS[..], &[flag, "--control-fd", "1"]].concat();
        let Outcome { code, stderr, .. } = run(&words);
        assert_eq!(code, Some(USAGE));
        let expected = format!("softnet: {flag} does not go with --control-fd");
        assert!(stderr.starts_with(&expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn what_would_be_dropped_is_forwarded_and_told() {
    let file = Policy::new("audited", "version = 1\nblock = [\"0.0.0.0/0\"]\n");
    as_root(|| {
        ip("tuntap add dev softnet-test0 mode tap");
        ip("link set softnet-test0 up");
        ip("addr add 192.168.64.1/24 dev softnet-test0");
        let server = dhcp_server_on("softnet-test0");
        let (ours, vm) = socketpair();
        let mut command = softnet(ours);
        command
            .args(ARGUMENTS)
            .args(["--audit", "--policy", file.path()]);
        let mut softnet = Program::start_forwarding(&mut command);
        assert!(
            softnet.log().contains("the policy is NOT enforced"),
            "{}",
            softnet.log()
        );
        vm.send(&dhcp(DISCOVER)).unwrap();
        serve(&server, &vm, DISCOVER, OFFER);
        vm.send(&dhcp(REQUEST)).unwrap();
        let gateway = serve(&server, &vm, REQUEST, ACK);
        for target in [[10, 1, 2, 3], [1, 2, 3, 4]] {
            let target = (target.into(), 9);
            vm.send(&udp(gateway, (VM_ADDRESS, 9), target, b"policy"))
                .unwrap();
        }
        // Somebody else's address is no matter of policy.
        vm.send(&udp(
            gateway,
            ([192, 168, 64, 9].into(), 9),
            (GATEWAY, 9),
            b"forged",
        ))
        .unwrap();
        softnet.logs("[vm->host] would drop a frame: destination-blocked");
        softnet.logs("[vm->host] dropped a frame: source-address");
        softnet.signal(Signal::SIGTERM);
        assert!(softnet.ends_within(Duration::from_secs(5)).success());
        let (_, log) = softnet.take_output();
        let total = "[vm->host] forwarded, but the policy would drop: destination-blocked 2";
        assert!(log.contains(total), "{log}");
        assert!(
            log.contains("4 forwarded, 1 dropped (source-address 1)"),
            "{log}"
        );
    });
}
