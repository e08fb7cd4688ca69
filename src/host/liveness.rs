//! Checks whether softnet is still needed: whether the process that started it and the VM still
//! exist.
//!
//! Neither announces its death. A parent that is killed sends no signal, and a datagram socket does
//! not report that its other end was closed. So the parent is watched through a descriptor, if the
//! system has one for that, and the VM is polled.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::{Pid, getppid};

use crate::sys::peer::{Peer, Question};
use crate::sys::pidfd;

/// The process that started this one.
#[derive(Debug)]
pub struct Parent {
    pid: Pid,
    /// Readable once it is dead. Missing on Linux before 5.3, or if a sandbox forbids it.
    pidfd: Option<OwnedFd>,
}

impl Parent {
    /// Watches the current parent. Returns None if that is not a process whose death means
    /// anything: init (1), or one outside our pid namespace (0).
    ///
    /// A parent that died before this call cannot be distinguished from init or from a reaper that
    /// took its place.
    #[must_use]
    pub fn watch() -> Option<Self> {
        let pid = getppid();
        // Opening races with the death of that process and the reuse of its number. But then we
        // have another parent by now, and is_gone reports it.
        (pid.as_raw() > 1).then(|| Self {
            pid,
            pidfd: pidfd::open(pid).ok(),
        })
    }

    /// Whether the parent is dead.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        getppid() != self.pid
    }

    /// A descriptor that becomes readable when the parent dies, if the system has one. Otherwise,
    /// call [`is_gone`](Self::is_gone) regularly.
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
    /// Prepares to ask about the other end of `socket`, which may need privileges.
    ///
    /// # Errors
    /// If the system does not answer: a kernel without unix_diag, or a socket from another network
    /// namespace and no privileges to look there. Then the VM's death shows only when a frame is
    /// sent to it.
    pub fn watch(socket: BorrowedFd<'_>) -> io::Result<Self> {
        Question::about(socket).map(|question| Self { question })
    }

    /// Whether no process holds the other end any more. Takes microseconds and does not block.
    #[must_use]
    pub fn is_gone(&mut self) -> bool {
        // An error is not an answer; the next call will have one.
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
