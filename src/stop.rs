//! The stop flag: set once, visible to every thread, and able to wake those that sleep in poll(2).
//!
//! A busy thread checks the flag between batches. A waiting thread polls the pipe as well as its
//! endpoint. The byte in the pipe is never read, so it also wakes threads that poll later.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrayvec::ArrayVec;
#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A handle to the flag. Clones refer to the same flag.
#[derive(Debug, Clone)]
pub struct Stop {
    shared: Arc<Shared>,
    bell: Option<Arc<BellPipe>>,
}

/// Ends the waits of one thread without stopping it: see [`Stop::with_bell`].
#[derive(Debug)]
pub struct Bell(Arc<BellPipe>);

#[derive(Debug)]
struct BellPipe {
    /// Whether there is a byte in the pipe, or about to be.
    rung: AtomicBool,
    reader: PipeReader,
    writer: PipeWriter,
}

#[derive(Debug)]
struct Shared {
    flag: Flag,
    reader: PipeReader,
    writer: PipeWriter,
}

impl Stop {
    /// Creates a flag that is not set.
    ///
    /// # Errors
    /// If the process has no descriptors left for a pipe.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            shared: Arc::new(Shared {
                flag: Flag(AtomicBool::new(false)),
                reader,
                writer,
            }),
            bell: None,
        })
    }

    /// The same flag for a single thread, whose waits for events end when the bell is rung, too.
    ///
    /// # Errors
    /// If the process has no descriptors left for a pipe.
    pub fn with_bell(&self) -> io::Result<(Self, Bell)> {
        let (reader, writer) = io::pipe()?;
        let pipe = Arc::new(BellPipe {
            rung: AtomicBool::new(false),
            reader,
            writer,
        });
        let stop = Self {
            shared: Arc::clone(&self.shared),
            bell: Some(Arc::clone(&pipe)),
        };
        Ok((stop, Bell(pipe)))
    }

    /// Whether this handle's waits end when a bell is rung.
    #[must_use]
    pub const fn has_bell(&self) -> bool {
        self.bell.is_some()
    }

    /// Sets the flag and wakes all waiting threads.
    pub fn set(&self) {
        if self.shared.flag.set() {
            // The pipe is empty, so this neither blocks nor fails.
            let _ = (&self.shared.writer).write_all(&[1]);
        }
    }

    /// Whether the flag is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.shared.flag.is_set()
    }

    /// Waits for an event on `fd`, or for the flag.
    ///
    /// # Errors
    /// Those of poll(2), of which only a lack of memory can occur here.
    pub fn or_event(&self, fd: BorrowedFd<'_>, event: PollFlags) -> io::Result<()> {
        self.poll(fd, event, PollTimeout::NONE).map(drop)
    }

    /// The same, but for at most `time`, to the millisecond. Returns whether there is an event on
    /// `fd`.
    ///
    /// # Errors
    /// The same as for [`or_event`](Self::or_event).
    pub fn or_event_within(
        &self,
        fd: BorrowedFd<'_>,
        event: PollFlags,
        time: Duration,
    ) -> io::Result<bool> {
        self.poll(fd, event, timeout(time))
    }

    /// Sleeps for `time`, to the millisecond, or until the flag is set.
    pub fn or_after(&self, time: Duration) {
        let _ = poll(&mut [self.poll_fd()], timeout(time));
    }

    fn poll(&self, fd: BorrowedFd<'_>, event: PollFlags, timeout: PollTimeout) -> io::Result<bool> {
        let mut fds = ArrayVec::<_, 3>::from_iter([PollFd::new(fd, event), self.poll_fd()]);
        let bell = self.bell.as_deref();
        fds.extend(bell.map(|bell| PollFd::new(bell.reader.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) => {
                if let (Some(bell), Some(true)) = (bell, fds.get(2).and_then(PollFd::any)) {
                    bell.silence();
                }
                Ok(fds[0].any() == Some(true))
            }
            // A signal for some other purpose: check again in any case.
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(self.as_fd(), PollFlags::POLLIN)
    }
}

impl Bell {
    /// Ends the wait in which the thread is, or its next one.
    pub fn ring(&self) {
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // The pipe is empty, so this neither blocks nor fails.
            let _ = (&self.0.writer).write_all(&[1]);
        }
    }
}

impl BellPipe {
    /// The byte is taken before the bell can be rung again, and whoever rings it now is heard by
    /// what the thread looks at after this.
    fn silence(&self) {
        let _ = (&self.reader).read(&mut [0]);
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Stop {
    /// A descriptor that becomes readable when the flag is set.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.reader.as_fd()
    }
}

/// What the threads share in memory. A thread that sees the flag set also sees everything written
/// before, for example that the VM is gone.
#[derive(Debug)]
struct Flag(AtomicBool);

impl Flag {
    /// Sets it, and returns whether this was the first time.
    fn set(&self) -> bool {
        !self.0.swap(true, Ordering::Release)
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

fn timeout(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;
    use std::time::Instant;

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
    fn a_bell_ends_one_wait_of_its_thread_and_of_no_other() {
        let stop = Stop::new().unwrap();
        let (mine, bell) = stop.with_bell().unwrap();
        let (quiet, _writer) = io::pipe().unwrap();
        let wait = |stop: &Stop, millis| {
            let start = Instant::now();
            let limit = Duration::from_millis(millis);
            let event = stop.or_event_within(quiet.as_fd(), PollFlags::POLLIN, limit);
            assert!(!event.unwrap());
            start.elapsed() >= limit
        };
        for _ in 0..3 {
            bell.ring();
            bell.ring();
            assert!(wait(&stop, 5), "another was woken");
            assert!(!wait(&mine, 10_000), "not woken");
            assert!(wait(&mine, 5), "woken twice");
        }
        stop.set();
        assert!(mine.is_set() && !wait(&mine, 10_000));
    }

    #[test]
    fn an_event_ends_the_wait_without_the_flag() {
        let stop = Stop::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        stop.or_event(reader.as_fd(), PollFlags::POLLIN).unwrap();
        assert!(!stop.is_set());
    }

    #[test]
    fn a_wait_with_a_limit_tells_an_event_from_its_end() {
        let stop = Stop::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let wait = || {
            let limit = Duration::from_millis(5);
            stop.or_event_within(reader.as_fd(), PollFlags::POLLIN, limit)
        };
        assert!(!wait().unwrap());
        writer.write_all(b"x").unwrap();
        assert!(wait().unwrap());
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test --release --lib loom`.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn flag() -> Arc<Flag> {
        Arc::new(Flag(AtomicBool::new(false)))
    }

    #[test]
    fn loom_one_of_all_who_set_the_flag_wakes_the_sleepers() {
        loom::model(|| {
            let flag = flag();
            let threads = [(); 2].map(|()| {
                let flag = Arc::clone(&flag);
                thread::spawn(move || flag.set())
            });
            let here = flag.set();
            let there = threads.map(|thread| thread.join().unwrap());
            let first = [here, there[0], there[1]];
            assert_eq!(first.iter().filter(|&&first| first).count(), 1, "{first:?}");
            assert!(flag.is_set());
        });
    }

    #[test]
    fn loom_whoever_sees_the_flag_sees_what_was_written_before_it() {
        loom::model(|| {
            let flag = flag();
            let vm_gone = Arc::new(AtomicBool::new(false));
            let lane = thread::spawn({
                let (flag, vm_gone) = (Arc::clone(&flag), Arc::clone(&vm_gone));
                move || {
                    vm_gone.store(true, Ordering::Relaxed);
                    flag.set();
                }
            });
            // Setting it again loses nothing.
            let other = thread::spawn({
                let flag = Arc::clone(&flag);
                move || flag.is_set() && flag.set()
            });
            if flag.is_set() {
                assert!(vm_gone.load(Ordering::Relaxed));
            }
            lane.join().unwrap();
            assert!(!other.join().unwrap());
        });
    }
}
