//! One identity per VM: two softnets on one host, and directories laid out to deceive.
#![cfg(target_os = "linux")] // Namespaces, a TAP, and what /proc tells.

mod program;

use std::cell::Cell;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use program::guest::{ACK, DISCOVER, OFFER, REQUEST, VM_ADDRESS, dhcp, dhcp_server_on, reply};
use program::{Copy, Program, as_root, ip, refused, sh, socketpair, softnet};

/// The kernel's user and group for those who own nothing.
const NOBODY: u32 = 65534;
const RELEASE: u8 = 7;

/// A VM behind a softnet that has a TAP of its own, where a DHCP server grants it the same
/// address as every other.
struct Vm {
    mac: [u8; 6],
    softnet: Program,
    socket: UnixDatagram,
    server: UdpSocket,
    attempts: Cell<u8>,
}

impl Vm {
    fn start(number: u8) -> Self {
        Self::start_with(number, &[])
    }

    fn start_with(number: u8, more: &[&str]) -> Self {
        let tap = tap(number);
        ip(&format!("tuntap add dev {tap} mode tap"));
        ip(&format!("addr add 192.168.64.1/24 dev {tap}"));
        let (mut command, socket) = command(number, number);
        Self {
            mac: mac(number),
            softnet: Program::start_forwarding(command.args(more)),
            socket,
            server: dhcp_server_on(&tap),
            attempts: Cell::new(0),
        }
    }

    fn send(&self, kind: u8) {
        let mut frame = dhcp(kind);
        frame[6..12].copy_from_slice(&self.mac);
        frame[49] = self.attempts.get();
        frame[70..76].copy_from_slice(&self.mac);
        if kind == RELEASE {
            // As what it is known (ciaddr), and from whom it has that (option 54).
            frame[54..58].copy_from_slice(&VM_ADDRESS.octets());
            frame[285..292].copy_from_slice(&[54, 4, 192, 168, 64, 1, 255]);
        }
        self.socket.send(&frame).unwrap();
    }

    /// Asks for the address, and tells whether the grant gets through.
    fn gets_lease(&self, seconds: u32) -> bool {
        // Each time by another transaction, as clients do.
        self.attempts.set(self.attempts.get() + 1);
        self.send(DISCOVER);
        reply(&self.server, self.mac, DISCOVER, OFFER, seconds);
        assert!(self.hears(OFFER));
        self.send(REQUEST);
        reply(&self.server, self.mac, REQUEST, ACK, seconds);
        self.hears(ACK)
    }

    /// Calls itself so in a DISCOVER; the name with which that arrives at the server.
    fn arrives_as(&self, name: &str) -> Option<String> {
        self.attempts.set(self.attempts.get() + 1);
        let mut frame = dhcp(DISCOVER);
        frame[6..12].copy_from_slice(&self.mac);
        frame[49] = self.attempts.get();
        frame[70..76].copy_from_slice(&self.mac);
        let option = [
            &[12, u8::try_from(name.len()).unwrap()],
            name.as_bytes(),
            &[255],
        ]
        .concat();
        frame[285..][..option.len()].copy_from_slice(&option);
        self.socket.send(&frame).unwrap();
        let mut message = [0; 1000];
        let len = self.server.recv(&mut message).unwrap();
        let mut options = &message[240..len];
        loop {
            match options {
                [12, len, rest @ ..] => {
                    let name = rest[..usize::from(*len)].to_vec();
                    return Some(String::from_utf8(name).unwrap());
                }
                [0, rest @ ..] => options = rest,
                [255, ..] | [] => return None,
                [_, len, rest @ ..] => options = &rest[usize::from(*len)..],
                [_] => panic!("a cut option"),
            }
        }
    }

    fn hears(&self, kind: u8) -> bool {
        self.socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut frame = [0; 2000];
        while let Ok(len) = self.socket.recv(&mut frame) {
            if len >= 285 && frame[282..285] == [53, 1, kind] {
                return true;
            }
        }
        false
    }
}

fn mac(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, number]
}

fn tap(number: u8) -> String {
    format!("softnet-test{number}")
}

/// softnet for VM `mac` on TAP `number`, and the VM's end of its socket.
fn command(mac: u8, number: u8) -> (Command, UnixDatagram) {
    command_of(softnet, mac, number)
}

fn command_of(
    program: impl FnOnce(UnixDatagram) -> Command,
    mac: u8,
    number: u8,
) -> (Command, UnixDatagram) {
    let (ours, vms) = socketpair();
    let mut command = program(ours);
    command.args([
        "--vm-fd",
        "0",
        "--gateway",
        "192.168.64.1",
        "--user",
        "nobody",
    ]);
    command.args(["--vm-mac-address", &format!("52:54:0:0:0:{mac:x}")]);
    command.args(["--tap", &tap(number)]);
    (command, vms)
}

#[test]
fn a_vm_may_call_itself_what_no_other_vm_and_not_the_host_is_called() {
    as_root(|| {
        let (mut first, second) = (Vm::start(1), Vm::start(2));
        let nameless = Vm::start_with(3, &["--dhcp-name", "strip"]);
        assert_eq!(first.arrives_as("builder").as_deref(), Some("builder"));
        assert_eq!(second.arrives_as("builder"), None);
        assert_eq!(second.arrives_as("BUILDER"), None);
        assert_eq!(second.arrives_as("tester").as_deref(), Some("tester"));
        assert_eq!(nameless.arrives_as("mine"), None);
        let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
        let host = host.split('.').next().unwrap();
        assert_eq!(second.arrives_as(host), None);
        for reserved in ["wpad", "isatap", "localhost", "a.b"] {
            assert_eq!(second.arrives_as(reserved), None, "{reserved}");
        }
        // A name is free again once its VM has another, or is gone.
        assert_eq!(first.arrives_as("tester"), None);
        assert_eq!(second.arrives_as("another").as_deref(), Some("another"));
        assert_eq!(first.arrives_as("tester").as_deref(), Some("tester"));
        first.softnet.signal(Signal::SIGINT);
        first.softnet.ends_within(Duration::from_secs(1));
        assert_eq!(second.arrives_as("tester").as_deref(), Some("tester"));
    });
}

#[test]
fn a_second_vm_with_one_mac_is_refused_until_the_first_is_gone() {
    as_root(|| {
        let (mut first, _vm) = command(1, 1);
        let mut first = Program::start_forwarding(&mut first);
        let reason = format!(
            "softnet: the MAC 52:54:00:00:00:01 is another VM's, which the softnet with process \
             id {} serves: give",
            first.pid()
        );
        refused(&mut command(1, 2).0, &reason);
        // A MAC of its own is not refused, nor is this one to whoever does without.
        let (mut neighbour, _vm) = command(2, 2);
        let _neighbour = Program::start_forwarding(&mut neighbour);
        let (mut without, _vm) = command(1, 3);
        Program::start_forwarding(without.arg("--no-registry")).logs("--no-registry: another");

        first.signal(Signal::SIGKILL);
        first.ends_within(Duration::from_secs(2));
        let (mut second, _vm) = command(1, 4);
        Program::start_forwarding(&mut second);
    });
}

#[test]
fn without_root_the_vms_of_one_user_are_kept_apart() {
    as_root(|| {
        sh("mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200");
        for number in [1, 2] {
            ip(&format!(
                "tuntap add dev {} mode tap user nobody",
                tap(number)
            ));
            ip(&format!("link set {} up", tap(number)));
        }
        let copy = Copy::new(0o755);
        let start = |number, directory: Option<&str>| {
            let (mut command, vm) = command_of(|socket| copy.command(socket), 1, number);
            command.uid(NOBODY).gid(NOBODY);
            command.envs(directory.map(|path| ("XDG_RUNTIME_DIR", path)));
            (command, vm)
        };
        let (mut first, _vm) = start(1, None);
        let first = Program::start_forwarding(&mut first);
        refused(
            &mut start(2, None).0,
            &format!("process id {} serves", first.pid()),
        );
        refused(&mut start(2, Some("/run/user/65534")).0, "is another VM's");

        sh("rm -r /run/user/65534");
        refused(&mut start(2, None).0, "set XDG_RUNTIME_DIR");
        refused(&mut start(2, Some("/run")).0, "/run is owned by user 0");
        sh("install -d -o nobody -m 777 /run/open");
        refused(
            &mut start(2, Some("/run/open")).0,
            "/run/open is open to others",
        );
        sh("install -d -o nobody -m 700 /run/own");
        let (mut own, _vm) = start(2, Some("/run/own"));
        Program::start_forwarding(&mut own).logs("/run/own/softnet, guards only this user's VMs");
    });
}

#[test]
fn an_address_that_another_vm_has_is_not_bound_until_that_gives_it_back() {
    as_root(|| {
        let (first, mut second) = (Vm::start(1), Vm::start(2));
        assert!(first.gets_lease(600));
        assert!(!second.gets_lease(600));
        second
            .softnet
            .logs("[host->vm] dropped a frame: dhcp-address-taken");
        second.softnet.logs(&format!(
            "warning: no lease for this VM: the DHCP server grants it 192.168.64.2, the address \
             of another VM, which the softnet with process id {} serves",
            first.softnet.pid()
        ));
        assert!(first.gets_lease(600), "it renews what it has");
        let without = Vm::start_with(3, &["--no-registry"]);
        assert!(without.gets_lease(600), "nothing else is in the way");

        first.send(RELEASE);
        // The claim is given up before the server gets the message.
        let mut message = [0; 1000];
        while message[240..243] != [53, 1, RELEASE] {
            first.server.recv(&mut message).expect("the RELEASE");
        }
        assert!(second.gets_lease(600));
        assert!(!first.gets_lease(600));

        second.softnet.signal(Signal::SIGKILL);
        second.softnet.ends_within(Duration::from_secs(2));
        assert!(first.gets_lease(600));
    });
}

#[test]
fn an_address_is_free_when_its_lease_has_run_out() {
    as_root(|| {
        let (first, second) = (Vm::start(1), Vm::start(2));
        assert!(first.gets_lease(2));
        assert!(!second.gets_lease(600));
        thread::sleep(Duration::from_secs(4));
        assert!(second.gets_lease(600));
    });
}

#[test]
fn a_directory_laid_out_to_deceive_is_refused() {
    as_root(|| {
        for (script, reason) in [
            ("mkdir /run/lure && ln -s lure $D", "is not a directory"),
            ("ln -s /nowhere $D", "is not a directory"),
            ("touch $D", "is not a directory"),
            ("install -d -m 777 $D", "is open to others (mode 777)"),
            ("install -d -m 1777 $D", "is open to others (mode 777)"),
            ("install -d -m 770 $D", "is open to others (mode 770)"),
            ("install -d -o nobody $D", "is owned by user 65534"),
            ("mkdir $D && ln -s /run/lure $D/macs", "is a symbolic link"),
            ("mkdir $D && mkfifo $D/macs", "is not a regular file"),
            (
                "mkdir $D && install -m 666 /dev/null $D/macs",
                "is open to others (mode 666)",
            ),
            (
                "mkdir $D && install -o nobody -m 600 /dev/null $D/addresses",
                "is owned by user",
            ),
            ("chmod 777 /run", "/run is open to others (mode 777)"),
        ] {
            sh(&format!("D=/run/softnet; {script}"));
            refused(&mut command(1, 1).0, reason);
            let lured = fs::read_dir("/run/lure").map_or(0, Iterator::count);
            assert_eq!(lured, 0, "{script}");
            sh("rm -rf /run/softnet /run/lure && chmod 755 /run");
        }
        // A directory that all may write to, but where nobody can touch root's, is sound.
        sh("chmod 1777 /run");
        let (mut command, _vm) = command(1, 1);
        Program::start_forwarding(&mut command);
    });
}
