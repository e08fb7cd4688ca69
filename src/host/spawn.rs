//! `softnet run`: starts a command that holds the other end of the VM's socket.

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

/// Creates the VM's socketpair, as Tart does: our end and the VM's.
///
/// # Errors
/// If the process has no descriptors left.
pub fn socket() -> Result<(OwnedFd, OwnedFd), HostError> {
    // Both are closed on execve(2).
    let (ours, vms) = UnixDatagram::pair().map_err(HostError::system("make a socketpair"))?;
    for end in [&ours, &vms] {
        let _ = setsockopt(end, sockopt::SndBuf, &SEND_BUFFER);
        let _ = setsockopt(end, sockopt::RcvBuf, &RECEIVE_BUFFER);
        child::force_buffers(end, SEND_BUFFER, RECEIVE_BUFFER);
    }
    Ok((ours.into(), vms.into()))
}

/// A running command.
#[derive(Debug)]
pub struct Command {
    child: process::Child,
}

impl Command {
    /// Starts the command `words`. `{fd}` in it is replaced by the number of `socket`, the only one
    /// of softnet's own descriptors that the command inherits. It runs as `identity`.
    ///
    /// On Linux it is asked to end when the calling thread ends, which must therefore be the main
    /// thread. macOS has nothing like that: there the command outlives a softnet that is killed.
    ///
    /// # Errors
    /// If the command does not exist, or `identity` may not run it.
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

    /// The command's exit code if it has ended, in the form that a shell uses: 128 plus the number
    /// of the signal if a signal killed it.
    ///
    /// # Errors
    /// If somebody else has already waited for the command, which should never happen.
    pub fn ended(&mut self) -> Result<Option<u8>, HostError> {
        let status = self
            .child
            .try_wait()
            .map_err(HostError::system("wait for the command"))?;
        Ok(status.map(exit_code))
    }

    /// Sends the command a signal, to ask it to end or, with SIGKILL, to force it.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // The number remains the child's until it has been waited for, even if it is already dead.
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

/// In bytes, for both ends, as in Tart.
const SEND_BUFFER: usize = 1024 * 1024;
/// In bytes, for both ends, as in Tart.
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
            // Linux reports twice the value that was set, to account for its own overhead
            // (socket(7)).
            assert!(getsockopt(&end, sockopt::SndBuf).unwrap() >= 212_992);
            assert!(getsockopt(&end, sockopt::RcvBuf).unwrap() >= 212_992);
        }
    }
}
