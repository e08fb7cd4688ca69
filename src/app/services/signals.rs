//! Handles signals, and the command of `softnet run`, to which they are passed on.
//!
//! Both are one service, because a signal (SIGCHLD) reports that the command has ended.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use softnet::host::signals::Signals;
use softnet::host::spawn::Command;
use tracing::{debug, error, info, warn};

use crate::app::exit_code;
use crate::app::service::{End, Forwarder, Outcome, Service, TICK};

/// Without a command, the first signal that means stop ends softnet. With a command, softnet ends
/// when the command does, with the same exit code.
pub(crate) fn service(signals: Signals, command: Option<Command>) -> Box<dyn Service> {
    Box::new(Stops {
        signals,
        command: command.map(Running::new),
    })
}

struct Stops {
    signals: Signals,
    command: Option<Running>,
}

impl Service for Stops {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.signals.as_fd()]
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let command = self.command.as_ref()?;
        let look = now + TICK;
        Some(command.kill_at.map_or(look, |kill_at| kill_at.min(look)))
    }

    fn poll(&mut self, _: &Forwarder) -> anyhow::Result<Outcome> {
        // Before checking the command: if it ends after that, SIGCHLD is raised again.
        let signal = self.signals.stop();
        let Some(command) = &mut self.command else {
            return Ok(signal.map_or(Outcome::Continue, |signal| {
                info!("stopped by {signal}");
                Outcome::End(End::Done)
            }));
        };
        if let Some(code) = command.command.ended()? {
            info!("the command ended with code {code}");
            let code = if command.failed {
                exit_code::FAILURE
            } else {
                code
            };
            return Ok(Outcome::End(End::Exit(code)));
        }
        if let Some(signal) = signal {
            command.pass_on(signal);
        }
        command.kill_when_due(Instant::now());
        Ok(Outcome::Continue)
    }

    fn close(&mut self, end: &End, _: &Forwarder) -> bool {
        match (&mut self.command, end) {
            (None, _) | (_, End::Exit(_)) => true,
            (Some(_), End::Done) => false,
            (Some(command), End::Failed(line)) => {
                error!("{line}; asking the command to end");
                command.pass_on(Signal::SIGTERM);
                command.failed = true;
                false
            }
        }
    }
}

/// The command, which is still running as far as is known.
struct Running {
    command: Command,
    /// When it will be killed, if it has been asked to end.
    kill_at: Option<Instant>,
    /// Whether it has been asked to end because something failed.
    failed: bool,
}

impl Running {
    const fn new(command: Command) -> Self {
        Self {
            command,
            kill_at: None,
            failed: false,
        }
    }

    /// Passes a signal on. For SIGINT and SIGQUIT that is all: they come from a terminal, which
    /// also sends them to the command, and they may mean something there that softnet does not
    /// know. After any other signal the command must end.
    fn pass_on(&mut self, signal: Signal) {
        let signal = match signal {
            Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP => signal,
            // A signal about this process, such as its limit on CPU time, only asks the command to
            // end.
            _ => Signal::SIGTERM,
        };
        debug!("passing {signal} on to the command");
        self.command.signal(signal);
        if !matches!(signal, Signal::SIGINT | Signal::SIGQUIT) {
            self.kill_at
                .get_or_insert_with(|| Instant::now() + PATIENCE);
        }
    }

    /// Kills the command if it has not ended in time, repeatedly if necessary.
    fn kill_when_due(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|kill_at| now >= kill_at) {
            warn!("the command has not ended in {PATIENCE:?}: killing it");
            self.command.signal(Signal::SIGKILL);
            self.kill_at = Some(now + TICK);
        }
    }
}

/// How long a command may take to end after it has been asked to.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::fd::OwnedFd;
    use std::thread;

    use softnet::host::privileges::Identity;
    use softnet::host::spawn;

    use super::*;

    /// A running command, and the other end of its socket.
    fn command(script: &str) -> (Command, OwnedFd) {
        let (ours, vms) = spawn::socket().unwrap();
        let words = ["sh", "-c", script].map(OsString::from);
        let identity = Identity::find(None, None).unwrap();
        (Command::start(&words, vms, &identity).unwrap(), ours)
    }

    fn stops(command: Command) -> Stops {
        Stops {
            signals: Signals::catch().unwrap(),
            command: Some(Running::new(command)),
        }
    }

    fn end(stops: &mut Stops) -> End {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            if let Outcome::End(end) = stops.poll(&Forwarder::over()).unwrap() {
                return end;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the command does not end");
    }

    #[test]
    fn a_command_goes_on_without_a_vm_and_its_code_counts() {
        let (command, _ours) = command("sleep 0.2; exit 7");
        let mut stops = stops(command);
        assert!(!stops.close(&End::Done, &Forwarder::over()));
        let end = end(&mut stops);
        assert!(matches!(end, End::Exit(7)), "{end:?}");
        assert!(stops.close(&end, &Forwarder::over()));
    }

    #[test]
    fn a_command_is_asked_to_end_after_a_failure_which_is_the_code_then() {
        let (command, _ours) = command("exec sleep 60");
        let mut stops = stops(command);
        assert!(!stops.close(&End::Failed(String::new()), &Forwarder::over()));
        let end = end(&mut stops);
        assert!(matches!(end, End::Exit(exit_code::FAILURE)), "{end:?}");
    }

    #[test]
    fn a_command_that_does_not_end_when_asked_to_is_killed_after_ten_seconds() {
        let (command, _ours) = command("trap '' TERM INT; while :; do sleep 0.1; done");
        let mut stops = stops(command);
        let now = Instant::now();
        assert_eq!(stops.deadline(now), Some(now + TICK));
        let running = stops.command.as_mut().unwrap();
        // Until the shell ignores the signals.
        thread::sleep(Duration::from_millis(300));
        running.pass_on(Signal::SIGINT);
        assert_eq!(running.kill_at, None);
        running.pass_on(Signal::SIGTERM);
        let kill_at = running.kill_at.unwrap();
        assert!(kill_at >= now + Duration::from_secs(10));
        running.kill_when_due(kill_at.checked_sub(Duration::from_millis(1)).unwrap());
        thread::sleep(Duration::from_millis(300));
        assert_eq!(running.command.ended().unwrap(), None);
        let shortly_before = kill_at.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(stops.deadline(shortly_before), Some(kill_at));
        stops.command.as_mut().unwrap().kill_when_due(kill_at);
        let end = end(&mut stops);
        assert!(matches!(end, End::Exit(137)), "{end:?}");
    }
}
