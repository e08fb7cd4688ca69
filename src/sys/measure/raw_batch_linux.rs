//! The least that moving a batch costs: recvmmsg(2) and sendmmsg(2) on headers that are bound
//! to their slots for good. `bench::baseline` is made of it, and nothing that forwards for a
//! VM: it waits inside the call, so that it cannot be asked to stop.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::cvt;
use crate::batch::Slots;

/// Slots for the frames of one batch, and the kernel's view of them.
pub(crate) struct RawBatch {
    slots: Slots,
    lens: Box<[usize]>,
    vectors: Box<[libc::iovec]>,
    messages: Box<[libc::mmsghdr]>,
}

impl RawBatch {
    /// Room for `frames` frames of up to `max_frame` bytes.
    pub(crate) fn new(frames: usize, max_frame: usize) -> Self {
        let mut slots = Slots::new(frames, max_frame);
        let mut vectors: Box<[_]> = slots
            .first_mut(frames)
            .map(|slot| libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            })
            .collect();
        let messages = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: a plain C structure of integers and pointers, for which all bytes
                // zero is a valid value: no name, no vectors, no control data.
                let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Self {
            slots,
            lens: vec![0; frames].into_boxed_slice(),
            vectors,
            messages,
        }
    }

    /// The frame that the last call received into the slot `index`.
    pub(crate) fn frame(&self, index: usize) -> &[u8] {
        self.slots.first_of(index, self.lens[index], 0)
    }

    /// The slot `index`, to be filled by other means, and where its length goes.
    pub(crate) fn slot(&mut self, index: usize) -> (&mut [u8], &mut usize) {
        (self.slots.get_mut(index), &mut self.lens[index])
    }

    /// Waits for one frame, takes up to `limit` that are there, and says how many.
    pub(crate) fn recv(&mut self, socket: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        for vector in &mut self.vectors[..limit] {
            vector.iov_len = self.slots.slot_len();
        }
        // SAFETY: by the arguments of recvmmsg(2),
        // - sockfd is open, as it is borrowed;
        // - msgvec points at headers of which there are `limit`, or the slice above would have
        //   panicked; each points at its vector, and that at a slot of its length, all on the
        //   heap and owned by `self`, so that they stay where they are;
        // - timeout may be null.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                count(limit),
                libc::MSG_WAITFORONE,
                ptr::null_mut(),
            )
        };
        let received = cvt(result)?;
        for (len, message) in self.lens.iter_mut().zip(&self.messages[..received]) {
            *len = message.msg_len as usize;
        }
        Ok(received)
    }

    /// Sends the frames `from..to` as far as there is room, and says how many went.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        from: usize,
        to: usize,
    ) -> io::Result<usize> {
        let lens = &self.lens[from..to];
        for (vector, len) in self.vectors[from..to].iter_mut().zip(lens) {
            vector.iov_len = *len;
        }
        // SAFETY: as in `recv`, with vectors no longer than their slots.
        let result = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.messages[from..to].as_mut_ptr(),
                count(to - from),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        cvt(result)
    }
}

// SAFETY: the raw pointers point into heap memory that `self` owns and that moves with it.
unsafe impl Send for RawBatch {}

impl fmt::Debug for RawBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawBatch")
    }
}

#[allow(clippy::cast_possible_truncation)] // A batch has 32 frames.
const fn count(frames: usize) -> libc::c_uint {
    frames as libc::c_uint
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::batch::assert_at_cache_lines;

    #[test]
    fn every_slot_of_a_raw_batch_begins_at_a_cache_line() {
        for max_frame in [100, 1514, 9014, 16_384, 65_549] {
            let mut batch = RawBatch::new(32, max_frame);
            let addresses: Vec<usize> = (0..32)
                .map(|index| batch.slot(index).0.as_ptr().addr())
                .collect();
            assert_at_cache_lines(&addresses);
            for (address, vector) in addresses.iter().zip(&batch.vectors) {
                assert_eq!(vector.iov_base.addr(), *address);
            }
        }
    }

    #[test]
    fn frames_pass_through_a_raw_batch_unchanged() {
        let (near, inner) = UnixDatagram::pair().unwrap();
        let (out, far) = UnixDatagram::pair().unwrap();
        let mut batch = RawBatch::new(4, 100);
        for frames in [
            &[b"one" as &[u8], b"fourteen"][..],
            &[b"longer than before"],
        ] {
            for frame in frames {
                near.send(frame).unwrap();
            }
            let received = batch.recv(inner.as_fd(), 4).unwrap();
            assert_eq!(received, frames.len());
            assert_eq!(batch.send(out.as_fd(), 0, received).unwrap(), received);
            for frame in frames {
                let mut buffer = [0; 200];
                let len = far.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], *frame);
            }
        }
    }
}
