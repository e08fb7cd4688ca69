//! A testbed at vmnet, whose other side is the host itself: the VM gets its address from the
//! host's DHCP server, and its frames go to a UDP socket of the host.
//!
//! Of what the VM sends, the host hands the socket a datagram's data, and of what the socket
//! sends it makes a frame. The bench keeps both where they are in a frame, so that it reads
//! and writes the same bytes as elsewhere.

mod guest;

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{MsgFlags, SockaddrIn, sendto, setsockopt, sockopt};
use nix::unistd::geteuid;

use self::guest::{Client, Grant};
use super::host::HostEnd;
use super::{LOOK_EVERY, TART_RCVBUF, Testbed};
use crate::bench::network::{Conversation, VMNET_MAC};
use crate::direction::Direction;
use crate::host::privileges::SavedPrivileges;
use crate::sys::dynamic::macos_version;
use crate::sys::timestamp;

/// Looks whether this user can have an interface at all.
pub(in crate::bench) fn check_vmnet(saved: Option<&SavedPrivileges>) -> io::Result<()> {
    if saved.is_some() || geteuid().is_root() || macos_version() >= FOR_USERS_SINCE {
        return Ok(());
    }
    let words = "this macOS gives an interface of vmnet to root alone: sudo softnet bench --vmnet";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, words))
}

/// A socket of the host's on the VM's network.
#[derive(Debug)]
struct UdpHost {
    socket: UdpSocket,
    vm: SocketAddrV4,
    between: Conversation,
}

impl UdpHost {
    /// On the address of the server that granted the lease, which is the host's.
    fn new(lease: &Grant) -> io::Result<Self> {
        let socket = UdpSocket::bind((lease.server, 0)).map_err(|error| {
            let server = lease.server;
            io::Error::other(format!(
                "{server}, which granted the VM its address, is not this host: {error}"
            ))
        })?;
        // To the VM or nowhere, whatever the host's routes say.
        setsockopt(&socket, sockopt::DontRoute, &true)?;
        widen(&socket);
        let between = Conversation {
            network: lease.network(VMNET_MAC),
            peer: lease.server,
            vm_port: VM_PORT,
            peer_port: socket.local_addr()?.port(),
        };
        let vm = SocketAddrV4::new(lease.address, VM_PORT);
        Ok(Self {
            socket,
            vm,
            between,
        })
    }
}

impl HostEnd for UdpHost {
    /// Sends what is data in it.
    fn send(&self, frame: &[u8]) -> io::Result<()> {
        sendto(
            self.socket.as_raw_fd(),
            &frame[HEADERS..],
            &SockaddrIn::from(self.vm),
            MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(())
    }

    fn receiver(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn has_sent(&self, frame: &[u8]) -> bool {
        guest::is_from_peer(&self.between, frame)
    }

    /// To those that ask for the VM's MAC address.
    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        guest::arp_answer(&self.between.network, frame)
    }

    fn is_lossy(&self) -> bool {
        true
    }

    /// Receives the data of a frame, into its place in `buffer`.
    fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, Duration)> {
        let (len, at) = timestamp::recv(self.socket.as_fd(), &mut buffer[HEADERS..])?;
        Ok((HEADERS + len, at))
    }
}

impl Testbed {
    /// Takes the VM through DHCP with the host's server, and makes sure that both hear each
    /// other.
    pub(super) fn join_host(&mut self) -> io::Result<()> {
        let lease = self.ask_for_lease()?;
        if !lease.is_on_link() {
            let Grant {
                address, server, ..
            } = lease;
            return Err(io::Error::other(format!(
                "the DHCP server {server} granted {address}, which is not on its own network"
            )));
        }
        let host = UdpHost::new(&lease)?;
        self.between = host.between;
        self.host = Box::new(host);
        for (direction, words) in [
            (
                Direction::Outbound,
                "what the VM sends does not arrive at this host: let softnet through its firewall",
            ),
            (
                Direction::Inbound,
                "what this host sends does not arrive at the VM: is its network filtered?",
            ),
        ] {
            if !self.gets_through(direction)? {
                return Err(io::Error::other(words));
            }
        }
        self.quiesce()?;
        for direction in Direction::ALL {
            self.take_received(direction)?;
        }
        Ok(())
    }

    /// Asks the host's DHCP server again and again.
    fn ask_for_lease(&mut self) -> io::Result<Grant> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut client = Client::new(VMNET_MAC, now.unwrap_or_default().subsec_nanos());
        let deadline = Instant::now() + DHCP_PATIENCE;
        let mut pause = ASK_AGAIN;
        loop {
            if let Some(lease) = client.lease() {
                return Ok(lease);
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(NO_ANSWER));
            }
            // Where the subject has ended, that is told below.
            let _ = self.send(Direction::Outbound, &client.question());
            let due = Instant::now() + pause;
            pause = (pause * 2).min(ASK_AGAIN_MAX);
            while Instant::now() < due {
                if self.hears_answer(&mut client) {
                    pause = ASK_AGAIN;
                    break;
                }
                self.is_there()?;
                thread::sleep(LOOK_EVERY);
            }
        }
    }

    /// Shows the client what has come to the VM, up to what it waits for.
    fn hears_answer(&mut self, client: &mut Client) -> bool {
        loop {
            match timestamp::recv(self.vm.as_fd(), &mut self.buffer) {
                Ok((len, _)) if client.take(&self.buffer[..len]) => return true,
                Ok(_) => {}
                // Nothing, or the subject has ended, which is told elsewhere.
                Err(_) => return false,
            }
        }
    }

    /// Whether a frame comes out, if sent often enough.
    fn gets_through(&mut self, direction: Direction) -> io::Result<bool> {
        let frame = self.frame(200, direction);
        let deadline = Instant::now() + RECEIVE_PATIENCE;
        let mut sent = None;
        let mut unreachable = false;
        while Instant::now() < deadline {
            if sent.is_none_or(|time: Instant| time.elapsed() > SEND_AGAIN) {
                // What is lost, or has no room, is sent again.
                let result = self.send(direction, &frame);
                unreachable = result.is_err_and(|error| error.kind() == UNREACHABLE);
                sent = Some(Instant::now());
            }
            if self.next_received(direction)?.is_some() {
                return Ok(true);
            }
            self.is_there()?;
            thread::sleep(LOOK_EVERY);
        }
        if unreachable {
            return Err(io::Error::new(UNREACHABLE, NOT_ALLOWED));
        }
        Ok(false)
    }
}

/// Makes the receiver's queue as long as the system lets it: a filled batch of the VM's has to
/// fit. macOS refuses what is more than it allows (kern.ipc.maxsockbuf); Linux cuts it, unless
/// root insists.
fn widen(socket: &UdpSocket) {
    #[cfg(target_os = "linux")]
    if setsockopt(socket, sockopt::RcvBufForce, &TART_RCVBUF).is_ok() {
        return;
    }
    for shift in 0..4 {
        if setsockopt(socket, sockopt::RcvBuf, &(TART_RCVBUF >> shift)).is_ok() {
            return;
        }
    }
}

/// There are TAPs on Linux alone.
#[derive(Debug)]
pub enum TapHost {}

impl TapHost {
    pub(super) fn end(self: &Arc<Self>, _: bool) -> io::Result<(Box<dyn HostEnd>, OwnedFd)> {
        match **self {}
    }
}

/// With an entitlement.
const FOR_USERS_SINCE: (u32, u32) = (26, 0);

const NO_ANSWER: &str = "no DHCP server of this host answers the VM; on macOS, \
    `log show --last 1m --predicate 'process == \"bootpd\"'` may tell why";

/// What macOS 15 and later tells a program that may not talk to networks that the host is in: "No
/// route to host" (Apple's technical note 3179, "Understanding local network privacy").
const UNREACHABLE: io::ErrorKind = io::ErrorKind::HostUnreachable;
const NOT_ALLOWED: &str = "this host says that the VM is unreachable; on macOS 15 and later, start \
    the bench with sudo or in Terminal, or allow what starts it in System Settings, Privacy & \
    Security, Local Network";

/// The headers of Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;
/// Where the VM hears.
const VM_PORT: u16 = 40_000;

const DHCP_PATIENCE: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_millis(250);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(1);
const RECEIVE_PATIENCE: Duration = Duration::from_secs(3);
const SEND_AGAIN: Duration = Duration::from_millis(100);
