//! Moves many datagrams with one call: recvmmsg(2) and sendmmsg(2).
//!
//! Through this, `endpoint::datagrams` receives into the slots of a batch and sends from them. The
//! arrays of headers for the kernel are allocated once, and point into a batch only during a call.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::sys::socket::{MsgFlags, recv, send};

use super::cvt;
use crate::batch::FRAMES_MAX;

/// Whether poll(2) says when the other end has room. It does once three quarters of the queue are
/// drained (net/unix/af_unix.c, `unix_writable`).
pub(crate) const TELLS_OF_ROOM: bool = true;

/// How many datagrams took a system call each for lack of a better one.
pub(crate) fn moved_one_by_one() -> u64 {
    0
}

/// The headers of one call, for one thread.
pub(crate) struct Headers {
    messages: Box<[libc::mmsghdr; FRAMES_MAX]>,
    vectors: Box<[libc::iovec; FRAMES_MAX]>,
}

// SAFETY: the raw pointers inside are written right before each system call, from slices
// that are borrowed for that call, and are not read at any other time.
unsafe impl Send for Headers {}

impl Headers {
    pub(crate) fn new() -> Self {
        // SAFETY: a plain C structure of integers and pointers, for which all bytes zero is a
        // valid value: no name, no vectors, no control data.
        let message: libc::mmsghdr = unsafe { mem::zeroed() };
        let vector = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            messages: Box::new([message; FRAMES_MAX]),
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
        self.recv_with(socket, slots, lens, libc::MSG_DONTWAIT)
    }

    /// The same, but waits for the first datagram, or for a signal
    /// ([`io::ErrorKind::Interrupted`]).
    pub(crate) fn recv_waiting<'slot>(
        &mut self,
        socket: BorrowedFd<'_>,
        slots: impl Iterator<Item = &'slot mut [u8]>,
        lens: &mut [u32],
    ) -> io::Result<usize> {
        self.recv_with(socket, slots, lens, libc::MSG_WAITFORONE)
    }

    fn recv_with<'slot>(
        &mut self,
        socket: BorrowedFd<'_>,
        mut slots: impl Iterator<Item = &'slot mut [u8]>,
        lens: &mut [u32],
        flags: libc::c_int,
    ) -> io::Result<usize> {
        if let [len] = &mut *lens
            && let Some(slot) = slots.next()
        {
            return recv_one(socket, slot, len, flags);
        }
        let count = self.point_at(slots.map(|slot| (slot.as_mut_ptr(), slot.len())));
        // SAFETY: by the arguments of recvmmsg(2),
        // - sockfd is open, as it is borrowed;
        // - msgvec points at `count` headers of ours, each with the one vector that
        //   `point_at` made from a slot that stays borrowed until after the call;
        // - vlen is at most the number of headers;
        // - timeout may be null. (Its bug, checked only after a datagram, is why.)
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                count,
                flags,
                ptr::null_mut(),
            )
        };
        let received = cvt(result)?;
        for (len, message) in lens.iter_mut().zip(&self.messages[..received]) {
            *len = message.msg_len;
        }
        Ok(received)
    }

    /// Sends datagrams in order, without blocking, until all are sent or one cannot be sent.
    ///
    /// Returns how many were sent, at least 1. Otherwise the error is that of the first.
    pub(crate) fn send<'frame>(
        &mut self,
        socket: BorrowedFd<'_>,
        frames: impl Iterator<Item = &'frame [u8]>,
    ) -> io::Result<usize> {
        let count = self.point_at(frames.map(|frame| (frame.as_ptr().cast_mut(), frame.len())));
        // SAFETY: by the arguments of sendmmsg(2),
        // - sockfd is open, as it is borrowed;
        // - msgvec points at `count` headers of ours, each with the one vector that
        //   `point_at` made from a frame that stays borrowed until after the call; the
        //   kernel only reads from it, so that it was a shared slice does no harm;
        // - vlen is at most the number of headers.
        let result = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        cvt(result)
    }

    /// Points one header after another at one buffer each, and returns how many.
    fn point_at(&mut self, buffers: impl Iterator<Item = (*mut u8, usize)>) -> libc::c_uint {
        let mut count = 0;
        let headers = self.messages.iter_mut().zip(self.vectors.iter_mut());
        for ((message, vector), (start, len)) in headers.zip(buffers) {
            *vector = libc::iovec {
                iov_base: start.cast(),
                iov_len: len,
            };
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        count
    }
}

/// Sends one datagram, without blocking.
pub(crate) fn send_one(socket: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(socket.as_raw_fd(), frame, flags)?;
    Ok(())
}

/// Receives one datagram with recv(2), which takes a fifth less time for one than recvmmsg(2).
fn recv_one(
    socket: BorrowedFd<'_>,
    slot: &mut [u8],
    len: &mut u32,
    flags: libc::c_int,
) -> io::Result<usize> {
    // recv(2) only waits for one datagram anyway, and does not know MSG_WAITFORONE.
    let flags = MsgFlags::from_bits_truncate(flags & !libc::MSG_WAITFORONE);
    let received = recv(socket.as_raw_fd(), slot, flags)?;
    *len = u32::try_from(received).unwrap_or(u32::MAX);
    Ok(1)
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn datagrams_keep_their_order_and_bounds() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let mut headers = Headers::new();
        let frames: [&[u8]; 3] = [b"first", b"", b"third"];
        assert_eq!(headers.send(here.as_fd(), frames.into_iter()).unwrap(), 3);

        let mut buffer = [[0; 4]; 8];
        let mut lens = [9; 8];
        let slots = buffer.iter_mut().map(|slot| &mut slot[..]);
        assert_eq!(headers.recv(there.as_fd(), slots, &mut lens).unwrap(), 3);
        assert_eq!(lens[..3], [4, 0, 4], "a long datagram is cut to its slot");
        assert_eq!((&buffer[0], &buffer[2]), (b"firs", b"thir"));
    }

    #[test]
    fn who_waits_gets_the_first_datagram() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let mut headers = Headers::new();
        let mut buffer = [[0; 4]; 2];
        let mut lens = [9; 2];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                here.send(b"one").unwrap();
            });
            let slots = buffer.iter_mut().map(|slot| &mut slot[..]);
            let waited = headers.recv_waiting(there.as_fd(), slots, &mut lens);
            assert_eq!((waited.unwrap(), lens[0]), (1, 3));
        });
    }

    #[test]
    fn nothing_there_and_no_room_both_would_block() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let mut headers = Headers::new();
        let mut slot = [0; 100];
        let nothing = headers.recv(there.as_fd(), [&mut slot[..]].into_iter(), &mut [0]);
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let full = loop {
            if let Err(error) = headers.send(here.as_fd(), [&[1; 100][..]; 40].into_iter()) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(there);
        let gone = headers.send(here.as_fd(), [&[1; 100][..]].into_iter());
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
