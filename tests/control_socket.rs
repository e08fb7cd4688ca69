//! The control socket of each VM: who reaches it, what they may do, and what they are told.
#![cfg(target_os = "linux")] // Namespaces, and a TAP.

mod program;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chown};
use program::guest::{ACK, DISCOVER, OFFER, REQUEST, TAP, VM_MAC, dhcp, dhcp_server, serve};
use program::{Copy, MAC, Outcome, Program, as_root, ip, outcome, refused, socketpair};

/// The kernel's user for those who own nothing, as whom softnet runs here.
const NOBODY: u32 = 65534;
/// Somebody else.
const OTHER: u32 = 12345;
const SOCKET: &str = "/run/softnet-control/65534/52:54:00:12:34:56";

/// A VM with a lease, behind a softnet with these flags.
struct Vm {
    program: Copy,
    softnet: Program,
    socket: UnixDatagram,
    gateway: [u8; 6],
    _server: UdpSocket,
}

impl Vm {
    fn start(flags: &[&str]) -> Self {
        ip(&format!("tuntap add dev {TAP} mode tap"));
        ip(&format!("addr add 192.168.64.1/24 dev {TAP}"));
        let program = Copy::new(0o755);
        let (softnet, socket) = start(&program, flags);
        let server = dhcp_server();
        let [_, gateway] = [(DISCOVER, OFFER), (REQUEST, ACK)].map(|(question, answer)| {
            socket.send(&dhcp(question)).unwrap();
            serve(&server, &socket, question, answer)
        });
        Self {
            program,
            softnet,
            socket,
            gateway,
            _server: server,
        }
    }

    /// Opens a TCP connection to port 443 there.
    fn opens(&self, peer: [u8; 4]) {
        let mut frame = [self.gateway, VM_MAC].concat();
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
        frame.extend([192, 168, 64, 2]);
        frame.extend(peer);
        frame.extend([0xc0, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2]);
        frame.extend([0xff, 0xff, 0, 0, 0, 0]);
        self.socket.send(&frame).unwrap();
    }

    /// `softnet WORDS --vm MAC` as a user.
    fn ask_as(&self, user: u32, words: &[&str]) -> Outcome {
        outcome(&mut ask(&self.program, user, words))
    }

    /// What that prints as the user that softnet runs as.
    #[track_caller]
    fn tells(&self, words: &[&str]) -> String {
        let Outcome {
            code,
            stdout,
            stderr,
        } = self.ask_as(NOBODY, words);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
        stdout
    }

    /// Asks until it is told something with `text` in it.
    #[track_caller]
    fn tells_soon(&self, words: &[&str], text: &str) -> String {
        for _ in 0..500 {
            let told = self.tells(words);
            if told.contains(text) {
                return told;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{words:?} never tells {text}: {}", self.tells(words));
    }

    #[track_caller]
    fn refuses_as(&self, user: u32, words: &[&str], reason: &str) {
        refused(&mut ask(&self.program, user, words), reason);
    }
}

fn start(program: &Copy, flags: &[&str]) -> (Program, UnixDatagram) {
    let (ours, vms) = socketpair();
    let mut command = program.command(ours);
    command.args(["--vm-fd", "0", "--vm-mac-address", MAC, "--tap", TAP]);
    command.args(["--user", "nobody"]).args(flags);
    (Program::start_forwarding(&mut command), vms)
}

fn ask(program: &Copy, user: u32, words: &[&str]) -> Command {
    let mut command = Command::new(program.path());
    command.env_clear().stdin(Stdio::null());
    command.args(words).args(["--vm", MAC]);
    command.uid(user).gid(user);
    command
}

#[test]
fn the_users_alone_reach_it_and_root() {
    as_root(|| {
        let vm = Vm::start(&["--block", "9.9.9.9"]);
        let found = |path| {
            let found = fs::metadata(path).unwrap();
            (found.mode() & 0o7777, found.uid())
        };
        assert_eq!(found("/run/softnet-control"), (0o711, 0));
        assert_eq!(found("/run/softnet-control/65534"), (0o700, NOBODY));
        assert_eq!(found(SOCKET), (0o600, NOBODY));
        for user in [NOBODY, 0] {
            let Outcome { code, stdout, .. } = vm.ask_as(user, &["policy", "get"]);
            assert_eq!((code, stdout.as_str()), (Some(0), "block 9.9.9.9/32\n"));
        }
        vm.refuses_as(OTHER, &["policy", "get"], "no softnet serves 52:54");
    });
}

/// A name in the user's directory may lead anywhere.
#[test]
fn root_goes_no_further_than_the_user_may() {
    as_root(|| {
        let mut vm = Vm::start(&[]);
        vm.softnet.signal(Signal::SIGKILL);
        vm.softnet.ends_within(Duration::from_secs(2));
        fs::remove_file(SOCKET).unwrap();
        let listener = UnixListener::bind("/run/of-root").unwrap();
        listener.set_nonblocking(true).unwrap();
        std::os::unix::fs::symlink("/run/of-root", SOCKET).unwrap();
        vm.refuses_as(0, &["policy", "get"], "cannot connect");
        listener.accept().unwrap_err();
    });
}

#[test]
fn rules_are_read_by_all_and_changed_where_softnet_lets_them() {
    as_root(|| {
        let mut vm = Vm::start(&["--steer"]);
        assert_eq!(
            vm.tells(&["policy", "get"]),
            "no rules: what is built in decides\n"
        );
        let set = ["policy", "set", "--block", "0.0.0.0/0", "--allow"];
        let told = vm.tells(&[&set[..], &["tcp 1.2.3.4:443,@host"]].concat());
        assert_eq!(
            told,
            "allow @host\nallow tcp 1.2.3.4/32:443\nblock 0.0.0.0/0\n"
        );
        vm.softnet
            .logs("policy changed over the control socket: 2 rules allow, 1 block");
        let told = vm.tells(&["policy", "remove", "--allow", "@host", "--json"]);
        assert_eq!(
            told,
            "{\"allow\":[\"tcp 1.2.3.4/32:443\"],\"block\":[\"0.0.0.0/0\"],\"ruleCount\":2}\n"
        );
        vm.refuses_as(
            NOBODY,
            &["policy", "remove", "--allow", "@host"],
            "no such rule: @host",
        );
    });
    as_root(|| {
        let vm = Vm::start(&[]);
        for action in ["set", "add", "remove"] {
            let words = ["policy", action, "--allow", "@host"];
            vm.refuses_as(NOBODY, &words, "start softnet with --steer");
        }
        assert!(vm.tells(&["policy", "get"]).starts_with("no rules"));
    });
}

#[test]
fn what_was_denied_is_listed_with_the_rule_that_allows_it() {
    as_root(|| {
        let vm = Vm::start(&["--steer", "--block", "0.0.0.0/0"]);
        let mut follow = ask(&vm.program, NOBODY, &["denied", "--follow"]);
        let mut follow = Program::start(&mut follow);
        follow.prints("denied as");
        (0..3).for_each(|_| vm.opens([1, 2, 3, 4]));
        let told = vm.tells_soon(&["denied"], " 3 ");
        let row = told.lines().nth(1).unwrap();
        let words: Vec<_> = row.split_whitespace().skip(2).collect();
        assert_eq!(
            words.join(" "),
            "out tcp 1.2.3.4:443 destination-blocked 3 --allow \"tcp 1.2.3.4/32:443\""
        );
        follow.prints("1.2.3.4:443");
        // What it says may be pasted, and then the packet passes.
        vm.tells(&["policy", "add", "--allow", "tcp 1.2.3.4/32:443"]);
        vm.opens([1, 2, 3, 4]);
        vm.opens([1, 2, 3, 5]);
        let told = vm.tells_soon(&["denied", "--json"], "1.2.3.5");
        let same: Vec<_> = told.lines().filter(|row| row.contains("1.2.3.4")).collect();
        assert_eq!(same.len(), 1, "{told}");
        assert!(same[0].contains("\"count\":3,"), "{told}");
    });
}

#[test]
fn connections_are_listed() {
    as_root(|| {
        let vm = Vm::start(&["--block", "in 0.0.0.0/0"]);
        assert_eq!(vm.tells(&["flows"]).lines().count(), 1);
        vm.opens([1, 2, 3, 4]);
        let told = vm.tells_soon(&["flows"], "1.2.3.4:443");
        let row: Vec<_> = told.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..5], ["out", "tcp", "49152", "1.2.3.4:443", "opening"]);
        let json = vm.tells(&["flows", "--json"]);
        assert!(json.contains("\"vmPort\":49152"), "{json}");
    });
}

#[test]
fn a_socket_that_was_left_behind_is_replaced_and_goes_with_softnet() {
    as_root(|| {
        let mut vm = Vm::start(&[]);
        vm.softnet.signal(Signal::SIGKILL);
        vm.softnet.ends_within(Duration::from_secs(2));
        assert!(fs::metadata(SOCKET).unwrap().file_type().is_socket());
        vm.refuses_as(NOBODY, &["flows"], "has ended");
        let (mut softnet, _vms) = start(&vm.program, &[]);
        vm.tells(&["flows"]);
        softnet.signal(Signal::SIGINT);
        softnet.ends_within(Duration::from_secs(2));
        assert!(!Path::new(SOCKET).exists());
        vm.refuses_as(NOBODY, &["flows"], "no softnet serves");
        // Nor is there one where another softnet may serve the same VM.
        let (_softnet, _vms) = start(&vm.program, &["--no-registry"]);
        vm.refuses_as(NOBODY, &["flows"], "no softnet serves");
    });
}

/// Softnet goes on without it, and says so.
#[test]
fn a_directory_that_somebody_else_could_change_is_not_used() {
    as_root(|| {
        ip(&format!("tuntap add dev {TAP} mode tap"));
        ip(&format!("addr add 192.168.64.1/24 dev {TAP}"));
        let program = Copy::new(0o755);
        fs::create_dir_all("/run/softnet-control/65534").unwrap();
        let other = (Some(Uid::from_raw(OTHER)), Some(Gid::from_raw(OTHER)));
        chown("/run/softnet-control/65534", other.0, other.1).unwrap();
        let (mut softnet, _vms) = start(&program, &[]);
        softnet.logs("no control socket: /run/softnet-control/65534 is owned by user 12345");
    });
}

/// A connection that cannot be taken stays in the queue, and must not keep the main thread awake.
#[test]
fn a_softnet_without_descriptors_sleeps_and_takes_the_connection_later() {
    as_root(|| {
        let vm = Vm::start(&[]);
        let pid = vm.softnet.pid();
        let limit = |files: &str| {
            let mut prlimit = Command::new("prlimit");
            prlimit.args([format!("--pid={pid}"), format!("--nofile={files}")]);
            let prlimit = prlimit.uid(NOBODY).gid(NOBODY);
            assert!(prlimit.status().unwrap().success());
        };
        // Clock ticks in user mode and in the kernel.
        let ticks = || -> u64 {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let (_, fields) = stat.rsplit_once(')').unwrap();
            let fields = fields.split_whitespace().skip(11).take(2);
            fields.map(|field| field.parse::<u64>().unwrap()).sum()
        };
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let open = open.map(|fd| fd.unwrap().file_name().into_string().unwrap());
        let highest = open.map(|fd| fd.parse::<u32>().unwrap()).max().unwrap();
        limit(&format!("{}:", highest + 1));
        let mut client = BufReader::new(UnixStream::connect(SOCKET).unwrap());
        client.get_mut().write_all(GET.as_bytes()).unwrap();
        let before = ticks();
        std::thread::sleep(Duration::from_secs(1));
        let spent = ticks() - before;
        assert!(spent < 20, "{spent} hundredths of a second");
        limit("100:");
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        assert!(line.contains("ruleCount"), "{line}");
    });
}

const GET: &str = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"softnet.policy.get\"}\n";

#[test]
fn many_may_be_connected_and_who_is_silent_longest_makes_room() {
    as_root(|| {
        let _vm = Vm::start(&[]);
        let connect = || BufReader::new(UnixStream::connect(SOCKET).unwrap());
        let mut clients: Vec<_> = (0..8).map(|_| connect()).collect();
        let mut line = String::new();
        // Also one that reads nothing, and one that sends half a request.
        (0..10_000).for_each(|_| {
            let _ = clients[1].get_mut().set_nonblocking(true);
            let _ = clients[1].get_mut().write(GET.as_bytes());
        });
        clients[2]
            .get_mut()
            .write_all(&GET.as_bytes()[..9])
            .unwrap();
        for client in clients.iter_mut().skip(3).chain([&mut connect()]) {
            client.get_mut().write_all(GET.as_bytes()).unwrap();
            client.read_line(&mut line).unwrap();
        }
        assert_eq!(line.lines().count(), 6);
        // The first has said nothing.
        assert_eq!(clients[0].read_line(&mut line).unwrap(), 0);
        clients[7].get_mut().write_all(GET.as_bytes()).unwrap();
        assert_ne!(clients[7].read_line(&mut line).unwrap(), 0);
    });
}
