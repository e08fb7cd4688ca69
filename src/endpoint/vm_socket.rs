//! The VM's side: the unix datagram socket over which Tart or QEMU hands us the frames of
//! the VM's network card. Outbound frames enter here, inbound frames leave here.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname, getsockopt,
    sockopt,
};
use thiserror::Error;

use super::datagrams::Datagrams;
use super::{Endpoint, Sent, Sink};
use crate::batch::Batch;
use crate::filter::DropReason;
use crate::stop::Stop;

/// The VM's socket, checked to be one.
#[derive(Debug)]
pub struct VmSocket {
    datagrams: Datagrams,
    max_frame: usize,
}

/// Why a descriptor cannot be the VM's socket.
#[derive(Debug, Error)]
pub enum NotAVmSocket {
    /// It is a file, a pipe, a terminal.
    #[error("descriptor {0} is not a socket; it has to be one end of a unix datagram socketpair")]
    NotASocket(i32),
    /// A network socket, say.
    #[error(
        "descriptor {0} is not a unix socket; it has to be one end of a unix datagram socketpair"
    )]
    NotUnix(i32),
    /// A stream, or sequenced packets.
    #[error("descriptor {0} is not a datagram socket; create the socketpair with SOCK_DGRAM")]
    NotDatagram(i32),
    /// Nobody is at the other end.
    #[error("descriptor {0} is not connected; it has to be one end of a unix datagram socketpair")]
    NotConnected(i32),
    /// The system does not say.
    #[error("cannot examine descriptor {0}")]
    Unknown(i32, #[source] io::Error),
}

impl VmSocket {
    /// Checks a descriptor, and takes it as the VM's socket for frames of up to `max_frame`
    /// bytes, header included: those that the host's interface takes.
    ///
    /// # Errors
    /// What it is instead of one end of a unix datagram socketpair.
    pub fn new(socket: OwnedFd, max_frame: usize) -> Result<Self, NotAVmSocket> {
        Self::check(&socket)?;
        Ok(Self {
            datagrams: Datagrams::new(socket),
            max_frame,
        })
    }

    /// Checks a descriptor without taking it, for who wants to know before opening more.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn check(socket: &OwnedFd) -> Result<(), NotAVmSocket> {
        check(socket)
    }
}

/// How many frames this process has received or sent with a system call of their own, since
/// the running macOS has no call for many, or none that can be trusted (before 15.6). Always 0 on
/// Linux.
#[must_use]
pub fn moved_one_by_one() -> u64 {
    crate::sys::datagram::moved_one_by_one()
}

impl Endpoint for VmSocket {
    type Source = Datagrams;
    type Sink = ToVm;

    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn split(self) -> (Datagrams, ToVm) {
        (self.datagrams.clone(), ToVm(self.datagrams))
    }
}

/// Sends to the VM.
#[derive(Debug, Clone)]
pub struct ToVm(Datagrams);

impl Sink for ToVm {
    const FULL: DropReason = DropReason::VmBusy;
    const REFUSED: DropReason = DropReason::VmRefused;

    fn send(&mut self, batch: &mut Batch) -> Sent {
        self.0.send(batch)
    }

    /// Dropping at once costs a quarter of the throughput, and waiting for ever lets one
    /// slow VM hold its share of the host's memory; ten short waits measured best on macOS
    /// (nirs/vmnet-helper, pull request 278). A timer, as no event says reliably that there
    /// is room.
    fn wait_for_room(&mut self, _stop: &Stop, waits: u32) -> bool {
        let worth_it = waits < WAITS_MAX;
        if worth_it {
            thread::sleep(WAIT);
        }
        worth_it
    }
}

const WAITS_MAX: u32 = 10;
const WAIT: Duration = Duration::from_micros(50);

fn check(socket: &OwnedFd) -> Result<(), NotAVmSocket> {
    let fd = socket.as_raw_fd();
    let unknown = |errno: Errno| NotAVmSocket::Unknown(fd, errno.into());
    match getsockopt(socket, sockopt::SockType) {
        Ok(SockType::Datagram) => {}
        Ok(_) => {
            return Err(match family(fd).map_err(unknown)? {
                Some(AddressFamily::Unix) => NotAVmSocket::NotDatagram(fd),
                _ => NotAVmSocket::NotUnix(fd),
            });
        }
        Err(Errno::ENOTSOCK) => return Err(NotAVmSocket::NotASocket(fd)),
        // nix knows no name for the type, so it is not a datagram socket.
        Err(Errno::EINVAL) => return Err(NotAVmSocket::NotDatagram(fd)),
        Err(errno) => return Err(unknown(errno)),
    }
    if family(fd).map_err(unknown)? != Some(AddressFamily::Unix) {
        return Err(NotAVmSocket::NotUnix(fd));
    }
    match getpeername::<SockaddrStorage>(fd) {
        Err(Errno::ENOTCONN) => Err(NotAVmSocket::NotConnected(fd)),
        _ => Ok(()),
    }
}

fn family(fd: i32) -> nix::Result<Option<AddressFamily>> {
    Ok(getsockname::<SockaddrStorage>(fd)?.family())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::UdpSocket;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    fn refusal(socket: impl Into<OwnedFd>) -> String {
        VmSocket::new(socket.into(), 1514).unwrap_err().to_string()
    }

    #[test]
    fn one_end_of_a_pair_is_taken() {
        let (here, _there) = UnixDatagram::pair().unwrap();
        assert_eq!(VmSocket::new(here.into(), 1514).unwrap().max_frame(), 1514);
    }

    #[test]
    fn everything_else_is_told_what_it_is() {
        assert!(refusal(File::open("/dev/null").unwrap()).contains("not a socket"));
        assert!(refusal(UdpSocket::bind("127.0.0.1:0").unwrap()).contains("not a unix socket"));
        assert!(refusal(UnixStream::pair().unwrap().0).contains("not a datagram socket"));
        assert!(refusal(UnixDatagram::unbound().unwrap()).contains("not connected"));
    }

    #[test]
    fn patience_towards_the_vm_ends() {
        let (here, _there) = UnixDatagram::pair().unwrap();
        let (_, mut to_vm) = VmSocket::new(here.into(), 1514).unwrap().split();
        let stop = Stop::new().unwrap();
        assert_eq!(
            (0..100)
                .take_while(|&waits| to_vm.wait_for_room(&stop, waits))
                .count(),
            10
        );
    }
}
