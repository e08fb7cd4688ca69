//! `softnet run`: a command that holds the other end of the VM's socket.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use tracing::debug;

use super::HostError;
use super::privileges::Identity;
use crate::sys::child;

/// Makes a VM's socket, as Tart does: ours and the VM's.
///
/// # Errors
/// When the process has no descriptors left.
pub fn socket() -> Result<(OwnedFd, OwnedFd), HostError> {
    // Closed on execve(2), both.
    let (ours, vms) = UnixDatagram::pair().map_err(HostError::system("make a socketpair"))?;
    for end in [&ours, &vms] {
        let _ = setsockopt(end, sockopt::SndBuf, &SEND_BUFFER);
        let _ = setsockopt(end, sockopt::RcvBuf, &RECEIVE_BUFFER);
        // Root may go over the limits of net.core.{w,r}mem_max.
        #[cfg(target_os = "linux")]
        {
            let _ = setsockopt(end, sockopt::SndBufForce, &SEND_BUFFER);
            let _ = setsockopt(end, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        }
    }
    Ok((ours.into(), vms.into()))
}

/// A command that runs.
#[derive(Debug)]
pub struct Command {
    child: process::Child,
}

impl Command {
    /// Starts `words`, in which `{fd}` becomes the number of `socket`, the one descriptor
    /// of softnet's own that the command inherits. It runs as `identity`.
    ///
    /// On Linux it is asked to end when the calling thread does, which must therefore be the
    /// main one. macOS has no such tie: there it outlives a softnet that is killed.
    ///
    /// # Errors
    /// When there is no such command, or `identity` may not run it.
    pub fn start(
        words: &[OsString],
        socket: OwnedFd,
        identity: &Identity,
    ) -> Result<Self, HostError> {
        let number = socket.as_fd().as_raw_fd().to_string();
        let mut words = words
            .iter()
            .map(|word| replace(word, b"{fd}", number.as_bytes()));
        let program = words.next().unwrap_or_default();
        let mut command = process::Command::new(&program);
        command.args(words);
        let orders = child::Orders {
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups(),
            socket,
        };
        let child = child::spawn(command, orders).map_err(|source| HostError::Command {
            command: program.to_string_lossy().into_owned(),
            source,
        })?;
        Ok(Self { child })
    }

    /// The exit code of the command, if it has ended: as a shell gives it, so 128 and the
    /// number of the signal that killed it.
    ///
    /// # Errors
    /// When somebody else took the command's end, which nobody should.
    pub fn ended(&mut self) -> Result<Option<u8>, HostError> {
        let status = self
            .child
            .try_wait()
            .map_err(HostError::system("wait for the command"))?;
        Ok(status.map(exit_code))
    }

    /// Asks the command to end, or with SIGKILL makes it.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // The number is the child's until its end is taken, even if it is dead by now.
        if let Err(error) = kill(pid, signal) {
            debug!("cannot send {signal} to the command: {error}");
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    // Codes have eight bits and signals fewer (waitpid(2)).
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Replaces every `pattern` in `word`.
fn replace(word: &OsStr, pattern: &[u8], by: &[u8]) -> OsString {
    let mut rest = word.as_bytes();
    let mut replaced = Vec::with_capacity(rest.len());
    while let Some(first) = rest.first() {
        if let Some(tail) = rest.strip_prefix(pattern) {
            replaced.extend_from_slice(by);
            rest = tail;
        } else {
            replaced.push(*first);
            rest = &rest[1..];
        }
    }
    OsString::from_vec(replaced)
}

/// Bytes, on both ends, as Tart has them.
const SEND_BUFFER: usize = 1024 * 1024;
/// Bytes, on both ends, as Tart has them.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::{io, thread};

    use nix::sys::socket::{MsgFlags, getsockopt, recv};

    use super::*;

    fn run(words: &[&str]) -> Result<(Command, OwnedFd), HostError> {
        let (ours, vms) = socket()?;
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        let identity = Identity::find(None, None)?;
        Ok((Command::start(&words, vms, &identity)?, ours))
    }

    fn end(command: &mut Command) -> u8 {
        loop {
            if let Some(code) = command.ended().unwrap() {
                return code;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn every_placeholder_in_every_word_is_replaced() {
        for (word, expected) in [
            ("local.str={fd},x={fd}", "local.str=7,x=7"),
            ("{fd}", "7"),
            ("{{fd}}", "{7}"),
            ("{fd", "{fd"),
            ("", ""),
        ] {
            assert_eq!(replace(word.as_ref(), b"{fd}", b"7"), expected);
        }
    }

    #[test]
    fn a_command_gets_the_socket_and_its_code_is_ours() {
        let script = "printf frame >&{fd}; exit 7";
        let (mut command, ours) = run(&["bash", "-c", script]).unwrap();
        assert_eq!(end(&mut command), 7);
        let mut frame = [0; 16];
        let len = recv(ours.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT).unwrap();
        assert_eq!(&frame[..len], b"frame");
    }

    #[test]
    fn a_command_that_a_signal_ends_gives_128_and_its_number() {
        let (mut command, _ours) = run(&["sleep", "60"]).unwrap();
        assert_eq!(command.ended().unwrap(), None);
        command.signal(Signal::SIGTERM);
        assert_eq!(end(&mut command), 143);
    }

    #[test]
    fn a_command_that_is_none_is_named() {
        let error = run(&["/no/such/command"]).unwrap_err();
        let HostError::Command { command, source } = error else {
            panic!("{error}")
        };
        assert_eq!(
            (command.as_str(), source.kind()),
            ("/no/such/command", io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn the_socket_s_buffers_are_as_large_as_may_be() {
        let (ours, vms) = socket().unwrap();
        for end in [ours, vms] {
            // Linux reports twice of what was set, having room for its own notes (socket(7)).
            assert!(getsockopt(&end, sockopt::SndBuf).unwrap() >= 212_992);
            assert!(getsockopt(&end, sockopt::RcvBuf).unwrap() >= 212_992);
        }
    }
}
