//! Moves many datagrams with one call: recvmsg_x(2) and sendmsg_x(2) of macOS, on versions where
//! they can be trusted, and otherwise one call per datagram.
//!
//! libSystem exports both, but there is no header for them (xnu, bsd/sys/socket_private.h), so they
//! are looked up at run time. Through this, `endpoint::datagrams` receives into the slots of a
//! batch and sends from them, as on Linux.
//!
//! What the kernel requires:
//! - recvmsg_x is used on macOS 15.6 and later only. Before that, an early return in
//!   soreceive_m_list() left the socket locked, which hangs every process that has an end of it
//!   (seen in xnu 10002.1.13 to 11417.101.15, fixed in 11417.140.69).
//! - A socket has only one reader, and must not be closed or shut down during its call.
//! - A truncated datagram is not marked as such, so slots must be longer than the longest frame.
//! - If sendmsg_x runs out of buffers (mbufs) while it copies a frame, it frees those that it has
//!   copied before and reports them as sent (xnu-11417.140.69, uipc_syscalls.c, sendit_x). They
//!   cannot be distinguished from frames that were sent, so they are counted as sent.

use std::ffi::{c_int, c_uint, c_void};
use std::fmt;
use std::io;
use std::mem::{self, offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::socket::{MsgFlags, recv, send};

use super::{cvt, dynamic};
use crate::batch::FRAMES_MAX;

/// Whether poll(2) says when the other end has room. macOS looks at the sender's own queue alone,
/// which is always empty, and so says so when there is none (xnu, bsd/kern/uipc_usrreq.c).
pub(crate) const TELLS_OF_ROOM: bool = false;

/// The headers of one call, for one thread.
pub(crate) struct Headers {
    calls: Calls,
    messages: Box<[Message; FRAMES_MAX]>,
    vectors: Box<[libc::iovec; FRAMES_MAX]>,
}

// SAFETY: the raw pointers inside are written right before each system call, from slices
// that are borrowed for that call, and are not read at any other time.
unsafe impl Send for Headers {}

impl Headers {
    pub(crate) fn new() -> Self {
        let vector = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            calls: Calls::of_this_system(),
            messages: Box::new([Message::over(ptr::null_mut()); FRAMES_MAX]),
            vectors: Box::new([vector; FRAMES_MAX]),
        }
    }

    /// Receives up to one datagram per slot, without blocking, and stores their lengths. A datagram
    /// that is longer than its slot is truncated; its length is then the slot's.
    ///
    /// Returns how many arrived, at least 1. If there are none, the error is
    /// [`io::ErrorKind::WouldBlock`].
    pub(crate) fn recv<'slot>(
        &mut self,
        socket: BorrowedFd<'_>,
        slots: impl Iterator<Item = &'slot mut [u8]>,
        lens: &mut [u32],
    ) -> io::Result<usize> {
        let Some(recvmsg_x) = self.calls.recv else {
            return recv_one_by_one(socket, slots, lens);
        };
        let count = self.point_at(slots.map(|slot| (slot.as_mut_ptr(), slot.len())));
        // SAFETY: by the source of recvmsg_x in xnu, bsd/kern/uipc_syscalls.c,
        // - s is open, as it is borrowed;
        // - msgp points at `cnt` headers of ours, each with the one vector that `point_at`
        //   made from a slot that stays borrowed until after the call, without a name and
        //   without control data;
        // - of the flags MSG_DONTWAIT alone is allowed.
        let result = unsafe {
            recvmsg_x(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        };
        let received = cvt(result as i64)?.min(self.messages.len());
        for (len, message) in lens.iter_mut().zip(&self.messages[..received]) {
            *len = u32::try_from(message.data_len).unwrap_or(u32::MAX);
        }
        Ok(received)
    }

    /// Sends datagrams in order, without blocking, until all are sent or one cannot be sent.
    ///
    /// Returns how many were sent, at least 1. Otherwise the error is that of the first; if the
    /// peer has no room, it is ENOBUFS, never EAGAIN.
    pub(crate) fn send<'frame>(
        &mut self,
        socket: BorrowedFd<'_>,
        frames: impl Iterator<Item = &'frame [u8]>,
    ) -> io::Result<usize> {
        let Some(sendmsg_x) = self.calls.send else {
            return send_one_by_one(socket, frames);
        };
        let count = self.point_at(frames.map(|frame| (frame.as_ptr().cast_mut(), frame.len())));
        // SAFETY: as in `recv`; the kernel only reads from the frames, so that they came as
        // shared slices does no harm.
        let result = unsafe {
            sendmsg_x(
                socket.as_raw_fd(),
                self.messages.as_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        };
        cvt(result as i64)
    }

    /// Points one header after another at one buffer each, and returns how many.
    fn point_at(&mut self, buffers: impl Iterator<Item = (*mut u8, usize)>) -> c_uint {
        let mut count = 0;
        let headers = self.messages.iter_mut().zip(self.vectors.iter_mut());
        for ((message, vector), (start, len)) in headers.zip(buffers) {
            *vector = libc::iovec {
                iov_base: start.cast(),
                iov_len: len,
            };
            *message = Message::over(vector);
            count += 1;
        }
        count
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")
    }
}

/// How many datagrams the whole process has moved with a call of their own.
pub(crate) fn moved_one_by_one() -> u64 {
    ONE_BY_ONE.load(Ordering::Relaxed)
}

/// Like [`Headers::recv`], with recv(2).
fn recv_one_by_one<'slot>(
    socket: BorrowedFd<'_>,
    slots: impl Iterator<Item = &'slot mut [u8]>,
    lens: &mut [u32],
) -> io::Result<usize> {
    let receive = |(slot, len): (&'slot mut [u8], &mut u32)| {
        let received = recv(socket.as_raw_fd(), slot, MsgFlags::MSG_DONTWAIT)?;
        *len = u32::try_from(received).unwrap_or(u32::MAX);
        Ok(())
    };
    count_until_an_error(slots.zip(lens).map(receive))
}

/// Like [`Headers::send`], with send(2).
fn send_one_by_one<'frame>(
    socket: BorrowedFd<'_>,
    frames: impl Iterator<Item = &'frame [u8]>,
) -> io::Result<usize> {
    count_until_an_error(frames.map(|frame| send_one(socket, frame)))
}

/// Sends one datagram, without blocking. (Nor is there a SIGPIPE: Rust's runtime ignores it.)
pub(crate) fn send_one(socket: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    send(socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// Counts the successes before an error. The next call gets the error again.
fn count_until_an_error(results: impl Iterator<Item = io::Result<()>>) -> io::Result<usize> {
    let mut count = 0;
    for result in results {
        match result {
            Ok(()) => count += 1,
            Err(error) if count == 0 => return Err(error),
            Err(_) => break,
        }
    }
    ONE_BY_ONE.fetch_add(count as u64, Ordering::Relaxed);
    Ok(count)
}

static ONE_BY_ONE: AtomicU64 = AtomicU64::new(0);

/// The calls that this system has and that may be used on it.
#[derive(Clone, Copy)]
struct Calls {
    recv: Option<unsafe extern "C" fn(c_int, *mut Message, c_uint, c_int) -> isize>,
    send: Option<unsafe extern "C" fn(c_int, *const Message, c_uint, c_int) -> isize>,
}

impl Calls {
    fn of_this_system() -> Self {
        static CALLS: OnceLock<Calls> = OnceLock::new();
        *CALLS.get_or_init(|| Self::of(dynamic::macos_version()))
    }

    fn of(version: (u32, u32)) -> Self {
        let recv = dynamic::find(c"recvmsg_x").filter(|_| version >= RECV_SINCE);
        let send = dynamic::find(c"sendmsg_x").filter(|_| version >= SEND_SINCE);
        Self {
            // SAFETY: the symbol is the function of this type, by socket_private.h.
            recv: recv.map(|call| unsafe { mem::transmute(call.as_ptr()) }),
            // SAFETY: as above.
            send: send.map(|call| unsafe { mem::transmute(call.as_ptr()) }),
        }
    }
}

/// See the [module](self).
const RECV_SINCE: (u32, u32) = (15, 6);
/// Bun saw hangs with both on macOS 13.
const SEND_SINCE: (u32, u32) = (14, 0);

/// `struct msghdr_x`
#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    name: *mut c_void,
    name_len: u32,
    vectors: *mut libc::iovec,
    vector_count: c_int,
    control: *mut c_void,
    control_len: u32,
    flags: c_int,
    data_len: usize,
}

impl Message {
    const fn over(vector: *mut libc::iovec) -> Self {
        Self {
            name: ptr::null_mut(),
            name_len: 0,
            vectors: vector,
            vector_count: 1,
            control: ptr::null_mut(),
            control_len: 0,
            flags: 0,
            data_len: 0,
        }
    }
}

// xnu-11417.101.15, bsd/sys/socket_private.h, line 403.
const _: () = {
    assert!(size_of::<Message>() == 56);
    assert!(offset_of!(Message, name) == 0);
    assert!(offset_of!(Message, name_len) == 8);
    assert!(offset_of!(Message, vectors) == 16);
    assert!(offset_of!(Message, vector_count) == 24);
    assert!(offset_of!(Message, control) == 32);
    assert!(offset_of!(Message, control_len) == 40);
    assert!(offset_of!(Message, flags) == 44);
    assert!(offset_of!(Message, data_len) == 48);
};

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const OLD: (u32, u32) = (13, 6);
    const BETWEEN: (u32, u32) = (15, 5);
    const NEW: (u32, u32) = (15, 6);

    fn headers(version: (u32, u32)) -> Headers {
        Headers {
            calls: Calls::of(version),
            ..Headers::new()
        }
    }

    #[test]
    fn batches_are_received_from_the_version_on_that_can_be_trusted() {
        let has = |version| {
            let calls = Calls::of(version);
            (calls.recv.is_some(), calls.send.is_some())
        };
        assert_eq!(has((0, 0)), (false, false));
        assert_eq!(has(OLD), (false, false));
        assert_eq!(has(BETWEEN), (false, true));
        assert_eq!(has(NEW), (true, true));
        assert_eq!(has((26, 0)), (true, true));
    }

    #[test]
    fn datagrams_keep_their_order_and_bounds_with_and_without_batches() {
        for version in [OLD, BETWEEN, NEW] {
            let (here, there) = UnixDatagram::pair().unwrap();
            let mut headers = headers(version);
            let before = moved_one_by_one();
            let frames: [&[u8]; 3] = [b"first", b"", b"third"];
            assert_eq!(headers.send(here.as_fd(), frames.into_iter()).unwrap(), 3);

            let mut buffer = [[0; 4]; 8];
            let mut lens = [9; 8];
            let slots = buffer.iter_mut().map(|slot| &mut slot[..]);
            assert_eq!(headers.recv(there.as_fd(), slots, &mut lens).unwrap(), 3);
            assert_eq!(lens[..3], [4, 0, 4], "a long datagram is cut to its slot");
            assert_eq!((&buffer[0], &buffer[2]), (b"firs", b"thir"));
            assert!(version == NEW || moved_one_by_one() >= before + 3);
        }
    }

    #[test]
    fn nothing_there_would_block_and_no_room_is_an_error_of_its_own() {
        for version in [OLD, BETWEEN, NEW] {
            let (here, there) = UnixDatagram::pair().unwrap();
            let mut headers = headers(version);
            let mut slot = [0; 100];
            let nothing = headers.recv(there.as_fd(), [&mut slot[..]].into_iter(), &mut [0]);
            assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let full = loop {
                if let Err(error) = headers.send(here.as_fd(), [&[1; 100][..]; 40].into_iter()) {
                    break error.raw_os_error();
                }
            };
            assert!([Some(libc::ENOBUFS), Some(libc::EAGAIN)].contains(&full));
        }
    }
}
