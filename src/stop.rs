//! The stop flag: set once, seen by every thread, and able to wake those that sleep.
//!
//! A busy thread looks at the flag between batches; one that waits polls the pipe beside its
//! endpoint. The byte in the pipe is never read, so that it wakes whoever polls later too.
//! A thread that waits within recv(2) wakes as its socket is shut down for reading, which
//! lasts just the same.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

/// A handle on the flag. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    flag: AtomicBool,
    reader: PipeReader,
    writer: PipeWriter,
    /// Those that have to be shut down for reading.
    sockets: Mutex<Vec<Weak<OwnedFd>>>,
}

impl Stop {
    /// Makes a flag that is not set.
    ///
    /// # Errors
    /// When the process has no descriptors left for a pipe.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            shared: Arc::new(Shared {
                flag: AtomicBool::new(false),
                reader,
                writer,
                sockets: Mutex::default(),
            }),
        })
    }

    /// Sets the flag and wakes all who wait.
    pub fn set(&self) {
        if !self.shared.flag.swap(true, Ordering::Release) {
            // The pipe is empty, so this neither blocks nor fails.
            let _ = (&self.shared.writer).write_all(&[1]);
            self.shared
                .sockets()
                .drain(..)
                .for_each(|socket| shut_down(&socket));
        }
    }

    /// Lets the flag shut `socket` down for reading when it is set, so that a receiver that
    /// waits there returns with nothing. Who sends to it is refused from then on.
    pub fn shuts_down(&self, socket: &Arc<OwnedFd>) {
        self.shared.sockets().push(Arc::downgrade(socket));
        // If it was set before it came into the list, nobody else will.
        if self.is_set() {
            self.shared
                .sockets()
                .drain(..)
                .for_each(|socket| shut_down(&socket));
        }
    }

    /// Whether the flag is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.shared.flag.load(Ordering::Acquire)
    }

    /// Waits for an event on `fd`, or for the flag.
    ///
    /// # Errors
    /// Those of poll(2), of which only lack of memory can happen here.
    pub fn or_event(&self, fd: BorrowedFd<'_>, event: PollFlags) -> io::Result<()> {
        let mut fds = [PollFd::new(fd, event), self.poll_fd()];
        match poll(&mut fds, PollTimeout::NONE) {
            // A signal for some other purpose: look again whatever there is.
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sleeps for `time`, to the millisecond, or until the flag is set.
    pub fn or_after(&self, time: Duration) {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [self.poll_fd()], timeout);
    }

    fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(self.as_fd(), PollFlags::POLLIN)
    }
}

impl Shared {
    fn sockets(&self) -> MutexGuard<'_, Vec<Weak<OwnedFd>>> {
        // Nobody panics while holding it; a list of descriptors has no broken state anyway.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shut_down(socket: &Weak<OwnedFd>) {
    if let Some(socket) = socket.upgrade() {
        // Fails only where the other end is gone, and then nobody waits any more.
        let _ = shutdown(socket.as_raw_fd(), Shutdown::Read);
    }
}

impl AsFd for Stop {
    /// A descriptor that is readable from the moment on that the flag is set.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::thread;
    use std::time::Instant;

    use nix::sys::socket::{MsgFlags, recv};

    use super::*;

    #[test]
    fn every_sleeper_wakes_and_later_ones_do_not_sleep() {
        let stop = Stop::new().unwrap();
        let (quiet, _writer) = io::pipe().unwrap();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| stop.or_event(quiet.as_fd(), PollFlags::POLLIN).unwrap());
            }
            thread::sleep(Duration::from_millis(20));
            assert!(!stop.is_set());
            stop.clone().set();
            stop.set();
        });
        assert!(stop.is_set());
        let start = Instant::now();
        stop.or_after(Duration::from_secs(60));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn who_waits_in_recv_wakes_and_later_ones_do_not_wait() {
        let stop = Stop::new().unwrap();
        let (here, _there) = UnixDatagram::pair().unwrap();
        let here = Arc::new(OwnedFd::from(here));
        stop.shuts_down(&here);
        let receive = || recv(here.as_raw_fd(), &mut [0; 9], MsgFlags::empty());
        thread::scope(|scope| {
            let waiting = scope.spawn(receive);
            thread::sleep(Duration::from_millis(20));
            stop.set();
            assert_eq!(waiting.join().unwrap(), Ok(0));
        });
        assert_eq!(receive(), Ok(0));

        let (late, _there) = UnixDatagram::pair().unwrap();
        let late = Arc::new(OwnedFd::from(late));
        stop.shuts_down(&late);
        assert_eq!(
            recv(late.as_raw_fd(), &mut [0; 9], MsgFlags::empty()),
            Ok(0)
        );
    }

    #[test]
    fn an_event_ends_the_wait_without_the_flag() {
        let stop = Stop::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        stop.or_event(reader.as_fd(), PollFlags::POLLIN).unwrap();
        assert!(!stop.is_set());
    }
}
