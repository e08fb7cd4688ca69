//! Many datagrams with one call: recvmmsg(2) and sendmmsg(2).
//!
//! `endpoint::datagrams` receives into the slots of a batch and sends from them through here.
//! The arrays of headers that the kernel wants are made once. Those of a receiver, which
//! fills the same batch again and again, are not even written before each call.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::sys::socket::{MsgFlags, recv, send};

use super::cvt;
use crate::batch::{FRAMES_MAX, Slots};

/// Room for the headers of one call, for one thread.
pub(crate) struct Headers {
    messages: Box<[libc::mmsghdr; FRAMES_MAX]>,
    vectors: Box<[libc::iovec; FRAMES_MAX]>,
    /// The start and the length of the slots that the vectors describe, all of them.
    bound_to: (*mut u8, usize),
}

// SAFETY: the raw pointers of a header point at the vectors, which `self` owns. Those of the
// vectors, and `bound_to`, are compared with or replaced by those of slices that are borrowed
// for the system call that comes next, and are not read at any other time.
unsafe impl Send for Headers {}

impl Headers {
    pub(crate) fn new() -> Self {
        let vector = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        let mut vectors = Box::new([vector; FRAMES_MAX]);
        let messages = vectors.each_mut().map(|vector| {
            // SAFETY: a plain C structure of integers and pointers, for which all bytes zero is
            // a valid value: no name, no vectors, no control data.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            message
        });
        Self {
            messages: Box::new(messages),
            vectors,
            bound_to: (ptr::null_mut(), 0),
        }
    }

    /// Receives up to one datagram per slot, without blocking, and notes their lengths.
    /// A datagram longer than its slot is cut, and its length is then the slot's.
    ///
    /// Returns how many arrived: 1 or more. Nothing there is [`io::ErrorKind::WouldBlock`].
    pub(crate) fn recv(
        &mut self,
        socket: BorrowedFd<'_>,
        slots: Slots<'_>,
        lens: &mut [u32],
    ) -> io::Result<usize> {
        self.recv_with(socket, slots, lens, libc::MSG_DONTWAIT)
    }

    /// The same, but waits for the first datagram, or for a signal
    /// ([`io::ErrorKind::Interrupted`]).
    pub(crate) fn recv_waiting(
        &mut self,
        socket: BorrowedFd<'_>,
        slots: Slots<'_>,
        lens: &mut [u32],
    ) -> io::Result<usize> {
        self.recv_with(socket, slots, lens, libc::MSG_WAITFORONE)
    }

    fn recv_with(
        &mut self,
        socket: BorrowedFd<'_>,
        slots: Slots<'_>,
        lens: &mut [u32],
        flags: libc::c_int,
    ) -> io::Result<usize> {
        if let [len] = lens {
            return recv_one(socket, slots, len, flags);
        }
        let count = self.bind(slots);
        // SAFETY: by the arguments of recvmmsg(2),
        // - sockfd is open, as it is borrowed;
        // - msgvec points at `count` headers of ours, each with the one vector that `bind`
        //   made from a slot, and `lens` shows that these stay borrowed until after the call,
        //   as both were lent by one batch;
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

    /// Sends datagrams in order, without blocking, until all are sent or one cannot be.
    ///
    /// Returns how many were sent: 1 or more. The error is that of the first.
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

    /// Lets the headers describe the slots, one each; returns how many slots there are.
    fn bind(&mut self, slots: Slots<'_>) -> libc::c_uint {
        let (memory, slot_len) = slots.into_memory();
        let start = memory.as_mut_ptr();
        if self.bound_to != (start, slot_len) {
            // Those behind the last slot too, for when more are lent. The kernel is told how
            // many to look at.
            for (index, vector) in self.vectors.iter_mut().enumerate() {
                *vector = libc::iovec {
                    iov_base: start.wrapping_add(index * slot_len).cast(),
                    iov_len: slot_len,
                };
            }
            self.bound_to = (start, slot_len);
        }
        #[allow(clippy::cast_possible_truncation)] // A batch has FRAMES_MAX slots at most.
        let count = (memory.len() / slot_len.max(1)).min(FRAMES_MAX) as libc::c_uint;
        count
    }

    /// Lets one header after the other describe one buffer each; returns how many do.
    fn point_at(&mut self, buffers: impl Iterator<Item = (*mut u8, usize)>) -> libc::c_uint {
        self.bound_to = (ptr::null_mut(), 0);
        let mut count = 0;
        for (vector, (start, len)) in self.vectors.iter_mut().zip(buffers) {
            *vector = libc::iovec {
                iov_base: start.cast(),
                iov_len: len,
            };
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

/// Receives one datagram with recv(2), which takes a fifth less time than recvmmsg(2) for it.
fn recv_one(
    socket: BorrowedFd<'_>,
    slots: Slots<'_>,
    len: &mut u32,
    flags: libc::c_int,
) -> io::Result<usize> {
    // recv(2) waits for one anyway, and gives MSG_WAITFORONE no meaning.
    let flags = MsgFlags::from_bits_truncate(flags & !libc::MSG_WAITFORONE);
    let (memory, _) = slots.into_memory();
    let received = recv(socket.as_raw_fd(), memory, flags)?;
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
    use crate::batch::Batch;

    #[test]
    fn datagrams_keep_their_order_and_bounds() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let mut headers = Headers::new();
        let frames: [&[u8]; 3] = [b"first", b"", &[7; 100]];
        assert_eq!(headers.send(here.as_fd(), frames.into_iter()).unwrap(), 3);

        let mut batch = Batch::new(63);
        let (slots, lens) = batch.fill(8);
        assert_eq!(headers.recv(there.as_fd(), slots, lens).unwrap(), 3);
        assert_eq!(lens[..3], [5, 0, 64], "a long datagram is cut to its slot");
        assert_eq!(
            (batch.frame(0), batch.frame(2)),
            (frames[0], &frames[2][..64])
        );
    }

    #[test]
    fn headers_follow_their_receiver_to_another_batch_and_to_sending() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let mut headers = Headers::new();
        let mut batches = [Batch::new(63), Batch::new(63), Batch::new(200)];
        for (number, limit) in [(0, 1), (0, 2), (1, 2), (2, 2), (0, 2)] {
            let text = format!("{number} of {limit}");
            here.send(text.as_bytes()).unwrap();
            here.send(b"second").unwrap();
            let batch = &mut batches[number];
            let (slots, lens) = batch.fill(limit);
            let received = headers.recv(there.as_fd(), slots, lens).unwrap();
            batch.set_received(received);
            assert_eq!((received, batch.frame(0)), (limit, text.as_bytes()));
            // The same headers for sending, in between.
            headers.send(here.as_fd(), [&b"x"[..]].into_iter()).unwrap();
            while there.recv(&mut [0; 9]).unwrap() != 1 {}
        }
    }

    #[test]
    fn who_waits_gets_the_first_datagram() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let mut headers = Headers::new();
        let mut batch = Batch::new(63);
        let (slots, lens) = batch.fill(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                here.send(b"one").unwrap();
            });
            let waited = headers.recv_waiting(there.as_fd(), slots, lens);
            assert_eq!((waited.unwrap(), lens[0]), (1, 3));
        });
    }

    #[test]
    fn nothing_there_and_no_room_both_would_block() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let mut headers = Headers::new();
        let mut batch = Batch::new(63);
        let (slots, lens) = batch.fill(1);
        let nothing = headers.recv(there.as_fd(), slots, lens);
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
