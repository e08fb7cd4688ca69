//! The least that moving a batch costs: recvmmsg(2) and sendmmsg(2) on headers that are bound
//! to their slots for good. `bench::yardstick` is made of it, and nothing that forwards for a
//! VM: it waits inside the call, so that it cannot be asked to stop.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::cvt;

/// Slots for the frames of one batch, and the kernel's view of them.
pub(crate) struct BareBatch {
    slots: Box<[u8]>,
    slot_len: usize,
    lens: Box<[usize]>,
    vectors: Box<[libc::iovec]>,
    messages: Box<[libc::mmsghdr]>,
}

impl BareBatch {
    /// Room for `frames` frames of up to `max_frame` bytes.
    pub(crate) fn new(frames: usize, max_frame: usize) -> Self {
        let slot_len = (max_frame + 1).next_multiple_of(64);
        let mut slots = vec![0; slot_len * frames].into_boxed_slice();
        let mut vectors: Box<[_]> = slots
            .chunks_exact_mut(slot_len)
            .map(|slot| libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot_len,
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
            slot_len,
            lens: vec![0; frames].into_boxed_slice(),
            vectors,
            messages,
        }
    }

    /// The frame that the last call received into the slot `index`.
    pub(crate) fn frame(&self, index: usize) -> &[u8] {
        &self.slots[index * self.slot_len..][..self.lens[index]]
    }

    /// The slot `index`, to be filled by other means, and where its length goes.
    pub(crate) fn slot(&mut self, index: usize) -> (&mut [u8], &mut usize) {
        (
            &mut self.slots[index * self.slot_len..][..self.slot_len],
            &mut self.lens[index],
        )
    }

    /// Waits for one frame, takes up to `limit` that are there, and says how many.
    pub(crate) fn recv(&mut self, socket: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        for vector in &mut self.vectors[..limit] {
            vector.iov_len = self.slot_len;
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
unsafe impl Send for BareBatch {}

impl fmt::Debug for BareBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BareBatch")
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

    #[test]
    fn frames_pass_through_a_bare_batch_unchanged() {
        let (near, inner) = UnixDatagram::pair().unwrap();
        let (out, far) = UnixDatagram::pair().unwrap();
        let mut batch = BareBatch::new(4, 100);
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
