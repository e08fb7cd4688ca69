//! A TAP device: a network interface whose other end is this process (Linux,
//! Documentation/networking/tuntap.rst). `endpoint::tap` opens it through this file.

use std::ffi::{c_int, c_short};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

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
    nix::ioctl_read!(tungetvnethdrsz, b'T', 215, libc::c_int);
    nix::ioctl_write_ptr!(tunsetvnethdrsz, b'T', 216, libc::c_int);
    nix::ioctl_write_ptr!(tunsetvnetle, b'T', 220, libc::c_int);
    nix::ioctl_read_bad!(siocethtool, ETHTOOL, libc::ifreq);
    nix::ioctl_read_bad!(
        tungetiff,
        nix::request_code_read!(b'T', 210, 4),
        libc::ifreq
    );
    nix::ioctl_read_bad!(siocgifflags, libc::SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(siocsifflags, libc::SIOCSIFFLAGS, libc::ifreq);
    nix::ioctl_read_bad!(siocgifmtu, libc::SIOCGIFMTU, libc::ifreq);

    /// SIOCETHTOOL.
    const ETHTOOL: u64 = 0x8946;
}

/// How a device treats the frames of whoever has it open, which a persistent device keeps for the
/// next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// The length of the header before each frame, in bytes, if there is one.
    header_len: i32,
    /// What of a frame may be left to the reader, as bits of TUNSETOFFLOAD.
    offloads: c_int,
}

impl Settings {
    /// The same, but nothing of a frame is left to the reader.
    pub(crate) const fn without_offloads(self) -> Self {
        Self {
            offloads: 0,
            ..self
        }
    }

    /// Checksums may be left to the reader, and TCP segments over IPv4 may be large.
    pub(crate) const OFFLOADED: Self = Self {
        header_len: 10,
        offloads: CHECKSUM | TCP_OVER_IPV4,
    };

    /// Changes a device that is open. Takes no rights.
    pub(crate) fn apply(self, tap: BorrowedFd<'_>) -> io::Result<()> {
        let (header_len, little_endian) = (self.header_len, 1);
        // SAFETY: the descriptor is open, and the request reads an int.
        unsafe { ioctl::tunsetvnethdrsz(tap.as_raw_fd(), &raw const header_len) }?;
        // SAFETY: the same.
        unsafe { ioctl::tunsetvnetle(tap.as_raw_fd(), &raw const little_endian) }?;
        set_offloads(tap, self.offloads)
    }

    /// Those of the device that is open under this name.
    pub(crate) fn of(tap: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        let mut header_len = 0;
        // SAFETY: the descriptor is open, and the request fills an int.
        unsafe { ioctl::tungetvnethdrsz(tap.as_raw_fd(), &raw mut header_len) }?;
        // TUNSETOFFLOAD has no counterpart that reads; its bits are features of the interface.
        let feature = |command: u32| -> io::Result<bool> {
            let mut value = EthtoolValue { command, data: 0 };
            let mut request = request(name)?;
            request.ifr_ifru.ifru_data = (&raw mut value).cast();
            let socket = any_socket()?;
            // SAFETY: the socket is open, and the request points at a command of two numbers, as
            // those that ask for one feature are, which is there until the call returns.
            unsafe { ioctl::siocethtool(socket.as_raw_fd(), &raw mut request) }?;
            Ok(value.data != 0)
        };
        let checksum = if feature(GET_TX_CHECKSUM)? {
            CHECKSUM
        } else {
            0
        };
        // It does not tell which of the two kinds; QEMU, who leaves a device so, asks for both.
        let segments = if feature(GET_TSO)? {
            TCP_OVER_IPV4 | TCP_OVER_IPV6
        } else {
            0
        };
        let offloads = checksum | segments;
        Ok(Self {
            header_len,
            offloads,
        })
    }
}

/// Lets this be left to whoever reads frames, as bits of TUNSETOFFLOAD. Takes no rights.
pub(crate) fn set_offloads(tap: BorrowedFd<'_>, offloads: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open; the argument is a number.
    unsafe { ioctl::tunsetoffload(tap.as_raw_fd(), offloads) }?;
    Ok(())
}

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

// linux/if_tun.h, TUN_F_*.
const CHECKSUM: c_int = 0x01;
const TCP_OVER_IPV4: c_int = 0x02;
const TCP_OVER_IPV6: c_int = 0x04;
// linux/ethtool.h: ETHTOOL_GTXCSUM and ETHTOOL_GTSO.
const GET_TX_CHECKSUM: u32 = 0x16;
const GET_TSO: u32 = 0x1e;

/// Opens the device `name`, non-blocking. If it does not exist, it is created, and lives as long as
/// the descriptor. Frames are read and written whole, with a header before them or without.
pub(crate) fn attach(name: &str, has_headers: bool) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let tap = open("/dev/net/tun", flags, Mode::empty())?;
    let mut request = request(name)?;
    let header = if has_headers { libc::IFF_VNET_HDR } else { 0 };
    #[allow(clippy::cast_possible_truncation)] // 0x5002 at most.
    {
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | header) as c_short;
    }
    // SAFETY: the descriptor is open, and the request is a whole ifreq with its name and
    // flags set, which is what TUNSETIFF reads.
    unsafe { ioctl::tunsetiff(tap.as_raw_fd(), &raw const request) }?;
    Ok(tap)
}

/// Makes a device that another process has attached to non-blocking, and returns its MTU, and
/// whether its frames have headers before them. Fails if `tap` is something else.
pub(crate) fn inherited(tap: &OwnedFd) -> io::Result<(usize, bool)> {
    let mut request = request("")?;
    // SAFETY: the descriptor is open, and TUNGETIFF fills a whole ifreq. What is no TAP does
    // not know that request, which is declared as one that reads, or takes no ifreq for it.
    unsafe { ioctl::tungetiff(tap.as_raw_fd(), &raw mut request) }?;
    // SAFETY: after TUNGETIFF the union holds the flags.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    let kind = libc::IFF_TUN | libc::IFF_TAP | libc::IFF_NO_PI;
    if flags & kind != libc::IFF_TAP | libc::IFF_NO_PI {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    fcntl(tap, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    Ok((mtu_of(request)?, flags & libc::IFF_VNET_HDR != 0))
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
