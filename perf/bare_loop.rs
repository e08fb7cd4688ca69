//! The yardstick of `perf/measure.py`: what moving frames costs when nothing else is done.
//!
//! One thread a direction receives a batch and sends it: no filter, no hand-over, no counters,
//! no way to stop but a signal. It takes the flags of softnet that it needs (`--vm-fd`, `--tap`)
//! and reads over the others, so that both are started alike. `--slow-by NS` makes every frame
//! dearer by that many nanoseconds: a measurement that does not see this is of no use.
#![allow(unsafe_code)]
// Batches of 32 and the flags of a TAP fit every integer type of the C interface.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("bare_loop: moves frames to a TAP, which only Linux has");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::CString;
    use std::io;
    use std::mem;
    use std::os::fd::RawFd;
    use std::ptr;
    use std::thread;
    use std::time::{Duration, Instant};

    /// At most this many frames, and about this many bytes, move as one batch. softnet has the
    /// same limits, which are the best ones that were measured for a bare loop too.
    const FRAMES_MAX: usize = 32;
    const BATCH_BYTES: usize = 128 * 1024;
    const FRAMES_MIN: usize = 4;
    /// Room for a frame at an MTU of 1500.
    const SLOT: usize = 2048;

    pub(super) fn main() {
        let vm: RawFd = option("--vm-fd")
            .and_then(|fd| fd.parse().ok())
            .expect("--vm-fd N");
        let tap = open_tap(&option("--tap").expect("--tap NAME")).expect("opening the TAP");
        let slow_by = option("--slow-by").map_or(0, |ns| ns.parse().expect("--slow-by NS"));
        let slow_by = Duration::from_nanos(slow_by);
        let inbound = thread::spawn(move || tap_to_vm(tap, vm, slow_by));
        vm_to_tap(vm, tap, slow_by);
        inbound.join().expect("the inbound thread");
    }

    fn option(name: &str) -> Option<String> {
        std::env::args()
            .skip_while(|argument| argument != name)
            .nth(1)
    }

    fn vm_to_tap(vm: RawFd, tap: RawFd, slow_by: Duration) {
        let mut batch = Batch::new();
        loop {
            let received = batch.receive(vm);
            for index in 0..received {
                linger(slow_by);
                while !write(tap, batch.frame(index)) {
                    wait(tap, libc::POLLOUT);
                }
            }
        }
    }

    fn tap_to_vm(tap: RawFd, vm: RawFd, slow_by: Duration) {
        let mut batch = Batch::new();
        loop {
            wait(tap, libc::POLLIN);
            let read = batch.read(tap);
            for _ in 0..read {
                linger(slow_by);
            }
            let mut sent = 0;
            while sent < read {
                match batch.send(vm, sent, read) {
                    0 => wait(vm, libc::POLLOUT),
                    frames => sent += frames,
                }
            }
        }
    }

    fn linger(time: Duration) {
        let start = Instant::now();
        while !time.is_zero() && start.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    /// Slots for the frames of one batch, with the kernel's headers pointing at them.
    struct Batch {
        slots: Vec<u8>,
        lengths: [usize; FRAMES_MAX],
        pieces: Vec<libc::iovec>,
        headers: Vec<libc::mmsghdr>,
        average_length: usize,
    }

    impl Batch {
        fn new() -> Self {
            let mut slots = vec![0; FRAMES_MAX * SLOT];
            let mut pieces: Vec<_> = slots
                .chunks_mut(SLOT)
                .map(|slot| libc::iovec {
                    iov_base: slot.as_mut_ptr().cast(),
                    iov_len: SLOT,
                })
                .collect();
            let headers = pieces
                .iter_mut()
                .map(|piece| {
                    // SAFETY: an mmsghdr is integers and pointers, for which zero is valid.
                    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                    header.msg_hdr.msg_iov = piece;
                    header.msg_hdr.msg_iovlen = 1;
                    header
                })
                .collect();
            let lengths = [0; FRAMES_MAX];
            Self {
                slots,
                lengths,
                pieces,
                headers,
                average_length: 1024,
            }
        }

        fn frame(&self, index: usize) -> &[u8] {
            &self.slots[index * SLOT..][..self.lengths[index]]
        }

        /// How many frames to take at once, by their bytes.
        fn frames(&self) -> usize {
            (BATCH_BYTES / self.average_length.max(1)).clamp(FRAMES_MIN, FRAMES_MAX)
        }

        fn learn(&mut self, frames: usize) {
            for length in &self.lengths[..frames] {
                self.average_length = (self.average_length * 7 + length) / 8;
            }
        }

        /// Waits for one frame, and takes those that are there already.
        fn receive(&mut self, socket: RawFd) -> usize {
            let frames = self.frames();
            for piece in &mut self.pieces[..frames] {
                piece.iov_len = SLOT;
            }
            let headers = self.headers.as_mut_ptr();
            let (count, flags) = (frames as libc::c_uint, libc::MSG_WAITFORONE);
            // SAFETY: `count` headers are there, each points at one piece, and each piece at a
            // slot of its length; all live in `self`, which is borrowed until the call returns.
            let received =
                unsafe { libc::recvmmsg(socket, headers, count, flags, ptr::null_mut()) };
            let Some(received) = count_of(received as isize) else {
                return 0;
            };
            for index in 0..received {
                self.lengths[index] = self.headers[index].msg_len as usize;
            }
            self.learn(received);
            received
        }

        /// Takes frames until there is none.
        fn read(&mut self, tap: RawFd) -> usize {
            let frames = self.frames();
            let mut read = 0;
            while read < frames {
                let slot = &mut self.slots[read * SLOT..][..SLOT];
                // SAFETY: the pointer and the length are those of one slice.
                let length = unsafe { libc::read(tap, slot.as_mut_ptr().cast(), SLOT) };
                let Some(length) = count_of(length) else {
                    break;
                };
                self.lengths[read] = length;
                read += 1;
            }
            self.learn(read);
            read
        }

        /// Sends the frames `from..to` as far as there is room, and returns how many went.
        fn send(&mut self, socket: RawFd, from: usize, to: usize) -> usize {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            if to - from == 1 {
                let frame = self.frame(from);
                // SAFETY: the pointer and the length are those of one slice.
                let sent = unsafe { libc::send(socket, frame.as_ptr().cast(), frame.len(), flags) };
                return usize::from(count_of(sent).is_some());
            }
            for (piece, length) in self.pieces[from..to]
                .iter_mut()
                .zip(&self.lengths[from..to])
            {
                piece.iov_len = *length;
            }
            let headers = self.headers[from..to].as_mut_ptr();
            let count = (to - from) as libc::c_uint;
            // SAFETY: as in `receive`, with pieces no longer than their slots.
            let sent = unsafe { libc::sendmmsg(socket, headers, count, flags) };
            count_of(sent as isize).unwrap_or(0)
        }
    }

    /// What a system call moved; `None` when nothing is there, or no room for it. Any other
    /// failure ends the yardstick, or its figures would be those of frames that went nowhere.
    fn count_of(returned: isize) -> Option<usize> {
        if let Ok(count) = usize::try_from(returned) {
            return Some(count);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => None,
            _ => panic!("{error}"),
        }
    }

    fn write(tap: RawFd, frame: &[u8]) -> bool {
        // SAFETY: the pointer and the length are those of one slice.
        let written = unsafe { libc::write(tap, frame.as_ptr().cast(), frame.len()) };
        count_of(written).is_some()
    }

    fn wait(fd: RawFd, events: libc::c_short) {
        let mut wanted = libc::pollfd {
            fd,
            events,
            revents: 0,
        };
        // SAFETY: one pollfd is there, borrowed until the call returns.
        unsafe { libc::poll(&raw mut wanted, 1, -1) };
    }

    fn open_tap(name: &str) -> io::Result<RawFd> {
        let path = CString::from(c"/dev/net/tun");
        let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: the path ends with a zero byte.
        let fd = unsafe { libc::open(path.as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: an ifreq is integers and a union of such, for which zero is valid.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        assert!(
            name.len() < request.ifr_name.len(),
            "the name of the TAP is too long"
        );
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq.
        if unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(fd)
    }
}
