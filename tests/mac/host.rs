//! The host's side of one softnet, and its end.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, thread};

use nix::sys::signal::Signal;

use crate::program::guest::{self, ACK, DISCOVER, GATEWAY, OFFER, REQUEST};
use crate::program::{MAC, Program, socketpair, softnet};

/// The host's side of one softnet: a directory in which the simulation finds it.
pub(crate) struct Host {
    pub(crate) directory: PathBuf,
    pub(crate) socket: UnixDatagram,
}

impl Host {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn prepare(&self, command: &mut Command, behaviour: &str, more: &[&str]) {
        // Tests run side by side, each with the same VM.
        self.prepare_entered(command, behaviour, &[&["--no-registry"], more].concat());
    }

    /// The same with the registry of the test's own `/run`.
    pub(crate) fn prepare_entered(&self, command: &mut Command, behaviour: &str, more: &[&str]) {
        command.args(["--vm-fd", "0", "--vm-mac-address", MAC]);
        command
            .args(more)
            .env(vmnet_sim::outside::SCRIPT, behaviour);
        command.env(vmnet_sim::outside::DIRECTORY, &self.directory);
    }

    pub(crate) fn softnet(&self, behaviour: &str, more: &[&str]) -> (Command, UnixDatagram) {
        let (ours, vm) = socketpair();
        let mut command = softnet(ours);
        self.prepare(&mut command, behaviour, more);
        (command, vm)
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        self.socket
            .send_to(frame, self.directory.join("vmnet"))
            .unwrap();
    }

    /// Receives a DHCP message of the VM's, and returns its data.
    pub(crate) fn dhcp(&self, kind: u8) -> Vec<u8> {
        let mut frame = [0; 2000];
        loop {
            let len = self.socket.recv(&mut frame).unwrap();
            if len >= 285 && frame[282..285] == [53, 1, kind] {
                return frame[42..len].to_vec();
            }
        }
    }

    /// Answers the next DHCP message of this kind with an address.
    pub(crate) fn serve(&self, question: u8, kind: u8, address: Ipv4Addr) {
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

    pub(crate) fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }

    /// Whether the interface was stopped, and nothing was done to it before that must not be.
    #[track_caller]
    pub(crate) fn was_stopped_well(&self) {
        let wrong = fs::read_to_string(self.directory.join("stopped"));
        assert_eq!(wrong.as_deref().unwrap_or("not stopped"), "");
    }

    pub(crate) fn becomes(&self, name: &str, text: &str) {
        let patience = Instant::now() + Duration::from_secs(10);
        while self.file(name) != text {
            let now = self.file(name);
            assert!(Instant::now() < patience, "{name} is {now:?}, not {text:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes bootpd's list: `address` is lent until so many seconds from now.
    pub(crate) fn lends(&self, address: Ipv4Addr, seconds: i64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let end = now.as_secs().saturating_add_signed(seconds);
        let mac = "1,52:54:0:12:34:56";
        let list = format!(
            "{{\n\tname=other\n\tip_address=192.168.64.99\n\tlease=0x{0:x}\n}}\n\
             {{\n\tip_address={address}\n\thw_address={mac}\n\tidentifier={mac}\n\tlease=0x{end:x}\n}}\n",
            end + 1000
        );
        // As bootpd, which puts a new file in the place of the old one.
        let new = self.directory.join("dhcpd_leases-");
        fs::write(&new, list).unwrap();
        fs::rename(new, self.directory.join("dhcpd_leases")).unwrap();
    }

    /// Lets the VM get `address`.
    pub(crate) fn lease(&self, vm: &UnixDatagram, address: Ipv4Addr) {
        for (question, answer) in [(DISCOVER, OFFER), (REQUEST, ACK)] {
            vm.send(&guest::dhcp_for(question, address)).unwrap();
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

pub(crate) const GATEWAY_MAC: [u8; 6] = [0xbe, 0xd0, 0, 0, 0, 0x64];
pub(crate) const RELEASE: u8 = 7;
pub(crate) const NAK: u8 = 6;

/// Stops it as Tart does, which has to succeed within a second.
#[track_caller]
pub(crate) fn interrupt(softnet: Program) -> String {
    softnet.signal(Signal::SIGINT);
    ended(softnet, Duration::from_secs(1))
}

/// What it said, once it has ended well.
#[track_caller]
pub(crate) fn ended(mut softnet: Program, limit: Duration) -> String {
    let status = softnet.ends_within(limit);
    let (stdout, stderr) = softnet.take_output();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stdout, "");
    stderr
}
