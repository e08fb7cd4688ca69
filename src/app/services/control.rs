//! Answers the client of the control channel, which changes the rules while frames flow.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use softnet::control::{Change, Channel, State};
use softnet::filter::Rules;
use tracing::{info, warn};

use crate::app::service::{Forwarder, Outcome, Service};

/// Serves `channel`, if softnet was given one.
pub(crate) fn service(channel: Option<Channel>, rules: Arc<Rules>) -> Box<dyn Service> {
    Box::new(Control { channel, rules })
}

struct Control {
    /// Kept even after its client has gone: its number may be that of standard output, which no
    /// other file must get.
    channel: Option<Channel>,
    rules: Arc<Rules>,
}

impl Control {
    fn if_in(&self, state: State) -> Option<&Channel> {
        self.channel
            .as_ref()
            .filter(|channel| channel.state() == state)
    }
}

impl Service for Control {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.if_in(State::Reads)
            .map(Channel::as_fd)
            .into_iter()
            .collect()
    }

    fn full(&self) -> Option<BorrowedFd<'_>> {
        self.if_in(State::Writes).map(Channel::as_fd)
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        self.if_in(State::More).map(|_| now)
    }

    fn poll(&mut self, _: &Forwarder) -> anyhow::Result<Outcome> {
        if let Some(channel) = &mut self.channel
            && channel.state() != State::Ended
        {
            match channel.serve(&self.rules, tell) {
                Ok(State::Ended) => {
                    info!("--control-fd: the client is gone, its policy stays in force");
                }
                Ok(_) => {}
                Err(error) => {
                    warn!(
                        "--control-fd: the channel has failed, the last policy stays in force: {error}"
                    );
                    channel.end();
                }
            }
        }
        Ok(Outcome::Continue)
    }
}

fn tell(
    Change {
        allow,
        block,
        isolation,
    }: Change,
) {
    info!("policy changed over --control-fd: {allow} rules allow, {block} block");
    if isolation {
        warn!(
            "policy: 0.0.0.0/0 is allowed, but the isolation from other VMs stays as it was when \
             softnet started"
        );
    }
}
