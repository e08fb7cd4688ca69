//! Answers clients, which ask about the VM and may change its rules while frames flow: the one that
//! softnet was given, and those that connect to the VM's control socket.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use softnet::control::{Change, Channel, Rights, State, Vm};
use softnet::host::control_socket::Listener;
use tracing::{debug, info, warn};

use crate::app::service::{End, Forwarder, Outcome, Service};

/// Serves `given`, if softnet was given a channel, and those who connect to `socket`, who have these
/// rights.
pub(crate) fn service(
    vm: Vm,
    given: Option<Channel>,
    socket: Option<(Listener, Rights)>,
) -> Box<dyn Service> {
    Box::new(Control {
        vm,
        given,
        socket,
        clients: Vec::new(),
        is_refused: false,
    })
}

struct Control {
    vm: Vm,
    /// Kept even after its client has gone: its number may be that of standard output, which no
    /// other file must get.
    given: Option<Channel>,
    socket: Option<(Listener, Rights)>,
    /// Those who have connected, the one that was silent longest first.
    clients: Vec<Channel>,
    /// Whether the system refused the last connection. It stays in the queue, so the socket stays
    /// readable: it is tried again when something else wakes the thread.
    is_refused: bool,
}

impl Control {
    fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.given.iter().chain(&self.clients)
    }

    fn in_state(&self, state: State) -> Vec<BorrowedFd<'_>> {
        let channels = self.channels().filter(|channel| channel.state() == state);
        channels.map(Channel::as_fd).collect()
    }

    fn accept(&mut self) {
        let Some((socket, rights)) = &self.socket else {
            return;
        };
        self.is_refused = false;
        // A turn takes no more than may be connected, so that others get theirs.
        for _ in 0..CLIENTS_MAX {
            let accepted = match socket.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    debug!("cannot take a connection to the control socket: {error}");
                    self.is_refused = true;
                    return;
                }
            };
            if self.clients.len() == CLIENTS_MAX {
                self.clients.remove(0);
            }
            self.clients.extend(Channel::new(accepted, *rights));
        }
    }

    fn serve_given(&mut self) {
        if let Some(channel) = &mut self.given
            && channel.state() != State::Ended
        {
            let tell = |change| tell(change, "--control-fd");
            match channel.serve(&self.vm, tell) {
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
    }

    fn serve_clients(&mut self) {
        let tell = |change| tell(change, "the control socket");
        let mut spoke = Vec::new();
        for mut client in std::mem::take(&mut self.clients) {
            let before = client.answered();
            match client.serve(&self.vm, tell) {
                Ok(State::Ended) | Err(_) => {}
                Ok(_) if client.answered() == before => self.clients.push(client),
                Ok(_) => spoke.push(client),
            }
        }
        self.clients.append(&mut spoke);
    }
}

impl Service for Control {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = self.in_state(State::Reads);
        let socket = self.socket.as_ref().filter(|_| !self.is_refused);
        fds.extend(socket.map(|(socket, _)| socket.as_fd()));
        fds
    }

    fn full(&self) -> Vec<BorrowedFd<'_>> {
        self.in_state(State::Writes)
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        self.channels()
            .any(|channel| channel.state() == State::More)
            .then_some(now)
    }

    fn poll(&mut self, _: &Forwarder) -> anyhow::Result<Outcome> {
        self.serve_given();
        self.accept();
        self.serve_clients();
        Ok(Outcome::Continue)
    }

    fn close(&mut self, _: &End, _: &Forwarder) -> bool {
        // Frames no longer flow, so there is nothing to ask about.
        self.socket = None;
        self.clients.clear();
        true
    }
}

fn tell(
    Change {
        allow,
        block,
        isolation,
    }: Change,
    by: &str,
) {
    info!("policy changed over {by}: {allow} rules allow, {block} block");
    if isolation {
        warn!(
            "policy: 0.0.0.0/0 is allowed, but the isolation from other VMs stays as it was when \
             softnet started"
        );
    }
}

/// How many may be connected to the socket. One more takes the place of the one that was silent
/// longest.
const CLIENTS_MAX: usize = 8;
