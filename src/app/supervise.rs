//! The main thread while frames flow: it sleeps until a service needs it, and then polls all
//! services.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::service::{End, Forwarder, Outcome, Service};

/// The services in the order in which they are polled. They are closed in the reverse order.
pub(crate) type Services = Vec<Box<dyn Service>>;

/// Runs the services until one of them returns an end and all are closed. Returns softnet's exit
/// code.
pub(crate) fn supervise(mut services: Services, mut frames: Forwarder) -> anyhow::Result<u8> {
    // Not dropped before softnet ends: what they hold, such as the locks on the VM's MAC and the
    // interface, belongs to the VM as long as its command runs.
    let mut closed = Services::new();
    loop {
        sleep(&services)?;
        let Some(end) = poll_all(&mut services, &frames)? else {
            continue;
        };
        frames.end();
        closed.extend(close(&mut services, &end, &frames));
        if services.is_empty() {
            return match end {
                End::Done => Ok(0),
                End::Exit(code) => Ok(code),
                End::Failed(line) => Err(anyhow!(line)),
            };
        }
    }
}

/// Sleeps until a descriptor is ready, or the first deadline has come.
fn sleep(services: &Services) -> anyhow::Result<()> {
    let now = Instant::now();
    let mut fds: Vec<_> = services
        .iter()
        .flat_map(|service| service.descriptors())
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    let full = services.iter().flat_map(|service| service.full());
    fds.extend(full.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
    let deadlines = services.iter().filter_map(|service| service.deadline(now));
    let timeout = deadlines.min().map_or(PollTimeout::NONE, |deadline| {
        timeout(deadline.saturating_duration_since(now))
    });
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("cannot wait for events"),
    }
}

/// Polls the services in their order, up to the first that returns an end.
fn poll_all(services: &mut Services, frames: &Forwarder) -> anyhow::Result<Option<End>> {
    for service in services {
        if let Outcome::End(end) = service.poll(frames)? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

/// Closes the services, the last one first, and removes those that are done.
fn close(services: &mut Services, end: &End, frames: &Forwarder) -> Services {
    let mut closed = Services::new();
    for index in (0..services.len()).rev() {
        if services[index].close(end, frames) {
            closed.push(services.remove(index));
        }
    }
    closed
}

/// Rounds up to milliseconds, so that the deadline has passed when the thread wakes.
fn timeout(time: Duration) -> PollTimeout {
    let millis = time.as_micros().div_ceil(1000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::io::{self, Write};
    use std::os::fd::{AsFd, BorrowedFd};
    use std::rc::Rc;

    use super::*;

    /// Returns the prepared results of its polls, and records each call.
    struct Script {
        name: &'static str,
        outcomes: VecDeque<Outcome>,
        /// The results of `close`, call by call; after that, true.
        closes: VecDeque<bool>,
        reader: Option<io::PipeReader>,
        tick: Option<Duration>,
        calls: Rc<RefCell<Vec<String>>>,
    }

    impl Service for Script {
        fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
            self.reader.iter().map(AsFd::as_fd).collect()
        }

        fn deadline(&self, now: Instant) -> Option<Instant> {
            self.tick.map(|tick| now + tick)
        }

        fn poll(&mut self, _: &Forwarder) -> anyhow::Result<Outcome> {
            self.calls.borrow_mut().push(format!("poll {}", self.name));
            Ok(self.outcomes.pop_front().unwrap_or(Outcome::Continue))
        }

        fn close(&mut self, end: &End, _: &Forwarder) -> bool {
            let call = format!("close {} {end:?}", self.name);
            self.calls.borrow_mut().push(call);
            self.closes.pop_front().unwrap_or(true)
        }
    }

    type Calls = Rc<RefCell<Vec<String>>>;

    fn script(name: &'static str, calls: &Calls, outcomes: Vec<Outcome>) -> Script {
        Script {
            name,
            outcomes: outcomes.into(),
            closes: VecDeque::new(),
            reader: None,
            tick: None,
            calls: Rc::clone(calls),
        }
    }

    fn boxed(scripts: [Script; 3]) -> Services {
        let boxes = scripts.map(|script| Box::new(script) as Box<dyn Service>);
        boxes.into()
    }

    #[test]
    fn services_are_polled_in_order_up_to_an_end_and_closed_in_reverse() {
        let calls = Calls::default();
        let mut first = script("a", &calls, vec![]);
        first.tick = Some(Duration::ZERO);
        let second = vec![Outcome::Continue, Outcome::End(End::Done)];
        let services = boxed([
            first,
            script("b", &calls, second),
            script("c", &calls, vec![]),
        ]);
        assert_eq!(supervise(services, Forwarder::over()).unwrap(), 0);
        let expected = [
            "poll a",
            "poll b",
            "poll c",
            "poll a",
            "poll b",
            "close c Done",
            "close b Done",
            "close a Done",
        ];
        assert_eq!(*calls.borrow(), expected);
    }

    #[test]
    fn a_service_that_is_not_done_goes_on_alone_and_its_end_counts() {
        let calls = Calls::default();
        let outcomes = vec![
            Outcome::Continue,
            Outcome::Continue,
            Outcome::End(End::Exit(7)),
        ];
        let mut command = script("command", &calls, outcomes);
        command.closes = [false].into();
        command.tick = Some(Duration::ZERO);
        let failed = vec![Outcome::End(End::Failed("broken".to_owned()))];
        let services = boxed([
            command,
            script("uplink", &calls, failed),
            script("report", &calls, vec![]),
        ]);
        assert_eq!(supervise(services, Forwarder::over()).unwrap(), 7);
        let expected = [
            "poll command",
            "poll uplink",
            "close report Failed(\"broken\")",
            "close uplink Failed(\"broken\")",
            "close command Failed(\"broken\")",
            "poll command",
            "poll command",
            "close command Exit(7)",
        ];
        assert_eq!(*calls.borrow(), expected);
    }

    #[test]
    fn a_failure_is_an_error_when_everything_is_closed() {
        let calls = Calls::default();
        let mut failing = script(
            "a",
            &calls,
            vec![Outcome::End(End::Failed("broken".to_owned()))],
        );
        failing.tick = Some(Duration::ZERO);
        let services = boxed([
            failing,
            script("b", &calls, vec![]),
            script("c", &calls, vec![]),
        ]);
        let error = supervise(services, Forwarder::over()).unwrap_err();
        assert_eq!(error.to_string(), "broken");
        assert_eq!(calls.borrow().len(), 4);
    }

    #[test]
    fn the_thread_sleeps_until_the_first_deadline_or_an_event() {
        let calls = Calls::default();
        let scripts = || ["a", "b", "c"].map(|name| script(name, &calls, vec![]));
        let mut late = scripts();
        late[0].tick = Some(Duration::from_mins(1));
        late[1].tick = Some(Duration::from_micros(5500));
        let start = Instant::now();
        sleep(&boxed(late)).unwrap();
        let slept = start.elapsed();
        assert!(slept >= Duration::from_micros(5500), "{slept:?}");
        assert!(slept < Duration::from_secs(30), "{slept:?}");

        let mut woken = scripts();
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        woken[2].reader = Some(reader);
        woken[0].tick = Some(Duration::from_mins(1));
        let start = Instant::now();
        sleep(&boxed(woken)).unwrap();
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
