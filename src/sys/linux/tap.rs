//! A TAP device: a network interface whose other end is this process (Linux,
//! Documentation/networking/tuntap.rst). `endpoint::tap` opens it through this file.

use std::ffi::c_short;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;

mod ioctl {
    // Numbers and argument types as in linux/if_tun.h and linux/sockios.h. There, TUNSETIFF,
    // TUNSETOFFLOAD and TUNGETIFF are declared with the size of an int, regardless of their
    // argument.
    nix::ioctl_write_ptr_bad!(
        tunsetiff,
        nix::request_code_write!(b'T', 202, 4),
        libc::ifreq
    );
    nix::ioctl_write_int_bad!(tunsetoffload, nix::request_code_write!(b'T', 208, 4));
    nix::ioctl_read_bad!(
        tungetiff,
        nix::request_code_read!(b'T', 210, 4),
        libc::ifreq
    );
    nix::ioctl_read_bad!(siocgifflags, libc::SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(siocsifflags, libc::SIOCSIFFLAGS, libc::ifreq);
    nix::ioctl_read_bad!(siocgifmtu, libc::SIOCGIFMTU, libc::ifreq);
}

/// Opens the device `name`, non-blocking. If it does not exist, it is created, and lives as long as
/// the descriptor. Frames are read and written whole, without a header before them.
pub(crate) fn attach(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let tap = open("/dev/net/tun", flags, Mode::empty())?;
    let mut request = request(name)?;
    #[allow(clippy::cast_possible_truncation)] // IFF_TAP | IFF_NO_PI is 0x1002.
    {
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as c_short;
    }
    // SAFETY: the descriptor is open, and the request is a whole ifreq with its name and
    // flags set, which is what TUNSETIFF reads.
    unsafe { ioctl::tunsetiff(tap.as_raw_fd(), &raw const request) }?;
    // A persistent device keeps the offloads that its last user requested. With checksum offload
    // on, frames would come without checksums, and the guest would drop them.
    // SAFETY: the descriptor is open; the argument is a number.
    unsafe { ioctl::tunsetoffload(tap.as_raw_fd(), 0) }?;
    Ok(tap)
}

/// Makes a device that another process has attached to non-blocking, and returns its MTU. Fails if
/// `tap` is something else, or one whose frames have headers before them.
pub(crate) fn inherited(tap: &OwnedFd) -> io::Result<usize> {
    let mut request = request("")?;
    // SAFETY: the descriptor is open, and TUNGETIFF fills a whole ifreq. What is no TAP does
    // not know that request, which is declared as one that reads, or takes no ifreq for it.
    unsafe { ioctl::tungetiff(tap.as_raw_fd(), &raw mut request) }?;
    // SAFETY: after TUNGETIFF the union holds the flags.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    let kind = libc::IFF_TUN | libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if flags & kind != libc::IFF_TAP | libc::IFF_NO_PI {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    fcntl(tap, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    mtu_of(request)
}

/// The device's maximum transmission unit: the bytes of a frame without its 14-byte header.
pub(crate) fn mtu(name: &str) -> io::Result<usize> {
    mtu_of(request(name)?)
}

/// The same of the interface that the request names.
fn mtu_of(mut request: libc::ifreq) -> io::Result<usize> {
    let socket = any_socket()?;
    // SAFETY: the socket is open, and the request is a whole ifreq, which SIOCGIFMTU fills.
    unsafe { ioctl::siocgifmtu(socket.as_raw_fd(), &raw mut request) }?;
    // SAFETY: after SIOCGIFMTU the union holds the MTU.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Brings the device up unless it is up. That needs the privilege to configure the network.
pub(crate) fn bring_up(name: &str) -> io::Result<()> {
    let mut request = request(name)?;
    let socket = any_socket()?;
    // SAFETY: the socket is open, and the request is a whole ifreq, which SIOCGIFFLAGS fills.
    unsafe { ioctl::siocgifflags(socket.as_raw_fd(), &raw mut request) }?;
    #[allow(clippy::cast_possible_truncation)] // IFF_UP is 1.
    let up = libc::IFF_UP as c_short;
    // SAFETY: after SIOCGIFFLAGS the union holds the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    if flags & up == 0 {
        request.ifr_ifru.ifru_flags = flags | up;
        // SAFETY: the socket is open, and the request has its name and flags set, which is
        // what SIOCSIFFLAGS reads.
        unsafe { ioctl::siocsifflags(socket.as_raw_fd(), &raw const request) }?;
    }
    Ok(())
}

/// A request about the interface `name`, in which everything else is zero.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is a plain C structure of bytes and integers; zero is valid for all.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero: the kernel expects a C string.
    let room = &mut request.ifr_name[..libc::IFNAMSIZ - 1];
    if name.len() > room.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (target, source) in room.iter_mut().zip(name.bytes()) {
        *target = source.cast_signed();
    }
    Ok(request)
}

/// Any socket will do for requests about interfaces.
fn any_socket() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}
