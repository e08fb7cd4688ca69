//! Whether there is anybody left to serve: the process that started softnet, and the VM.
//!
//! Neither announces its death. A parent that is killed hard sends no signal, and a datagram
//! socket does not tell when its other end is closed, so the one is watched through a
//! descriptor where there is such a thing, and the other is asked about now and then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::{Pid, getppid};

use crate::sys::peer::{Peer, Question};
use crate::sys::pidfd;

/// The process that started this one.
#[derive(Debug)]
pub struct Parent {
    pid: Pid,
    /// Readable when it is dead. Missing on Linux before 5.3 and where a sandbox forbids it.
    pidfd: Option<OwnedFd>,
}

impl Parent {
    /// Watches whoever is the parent now; None if that is no process whose death means
    /// anything: init (1), or one outside of our pid namespace (0).
    ///
    /// A parent that died before the call cannot be told from init or a reaper in its place.
    #[must_use]
    pub fn watch() -> Option<Self> {
        let pid = getppid();
        // Opening races with the death of that process and the reuse of its number; but then
        // we have another parent by now, and is_gone says so.
        (pid.as_raw() > 1).then(|| Self {
            pid,
            pidfd: pidfd::open(pid).ok(),
        })
    }

    /// Whether it is dead.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        getppid() != self.pid
    }

    /// A descriptor that becomes readable when the parent dies, where the system has one;
    /// where not, [`is_gone`](Self::is_gone) wants to be asked.
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }
}

/// The VM, as the other end of its socket.
#[derive(Debug)]
pub struct Vm {
    question: Question,
}

impl Vm {
    /// Prepares to ask about the other end of `socket`, for which rights may be needed.
    ///
    /// # Errors
    /// When the system does not tell: a kernel without unix_diag, or a socket from another
    /// network namespace and no rights to look there. Then the VM's death shows only when a
    /// frame is sent to it.
    pub fn watch(socket: BorrowedFd<'_>) -> io::Result<Self> {
        Question::about(socket).map(|question| Self { question })
    }

    /// Whether nobody holds the other end any more. Takes microseconds and does not block.
    #[must_use]
    pub fn is_gone(&mut self) -> bool {
        // An error is not an answer: the next time will tell.
        self.question.ask().is_ok_and(|peer| peer != Peer::Open)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_living_parent_is_not_gone() {
        let parent = Parent::watch().expect("tests are not started by init");
        assert!(!parent.is_gone());
    }

    #[test]
    fn a_parent_that_is_another_by_now_is_gone() {
        assert!(
            Parent {
                pid: Pid::from_raw(i32::MAX),
                pidfd: None
            }
            .is_gone()
        );
    }

    #[test]
    fn a_vm_is_gone_when_its_end_is_closed() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut vm = Vm::watch(ours.as_fd()).unwrap();
        assert!(!vm.is_gone());
        drop(theirs);
        assert!(vm.is_gone());
    }
}
