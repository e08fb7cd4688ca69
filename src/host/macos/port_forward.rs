//! `--expose`: forwards TCP ports of the host to the VM, as long as it has a lease.
//!
//! vmnet keeps the rules, and answers requests asynchronously. Here each port goes through these
//! states:
//!
//! ```text
//!   absent -> adding -> present -> removing -> absent
//!      ^________/ refused: retried later, each time after twice as long
//! ```
//!
//! A failure affects only its own port.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::endpoint::vmnet::{PortRules, RuleAnswer};

/// A port of the host that is forwarded to a port of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposed {
    /// The host's.
    pub external: NonZeroU16,
    /// The VM's.
    pub internal: NonZeroU16,
}

/// The ports of one VM.
#[derive(Debug)]
pub struct PortForward {
    rules: PortRules,
    ports: Vec<Port>,
}

#[derive(Debug)]
struct Port {
    exposed: Exposed,
    state: State,
    /// How long to wait after the next refusal.
    backoff: Duration,
}

#[derive(Debug)]
enum State {
    Absent { again_at: Option<Instant> },
    Adding { to: Ipv4Addr, request: Request },
    Present { to: Ipv4Addr },
    Removing { request: Request },
}

/// A pending request.
#[derive(Debug)]
struct Request {
    answer: Result<RuleAnswer, u32>,
    asked_at: Instant,
}

impl PortForward {
    /// Exposes nothing yet.
    #[must_use]
    pub fn new(rules: PortRules, exposed: &[Exposed]) -> Self {
        let port = |exposed: &Exposed| Port {
            exposed: *exposed,
            state: State::Absent { again_at: None },
            backoff: BACKOFF_MIN,
        };
        Self {
            rules,
            ports: exposed.iter().map(port).collect(),
        }
    }

    /// Forwards the ports to `address`, or nowhere. Never blocks. Call it regularly, and again soon
    /// while not [settled](Self::is_settled).
    pub fn follow(&mut self, address: Option<Ipv4Addr>) {
        let now = Instant::now();
        for port in &mut self.ports {
            port.follow(&self.rules, address, now);
        }
    }

    /// Whether no request is pending.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.ports
            .iter()
            .all(|port| matches!(port.state, State::Absent { .. } | State::Present { .. }))
    }

    /// Removes all rules and waits for that, until `deadline` at the latest.
    pub fn remove_all(&mut self, deadline: Instant) {
        self.follow(None);
        let is_absent = |port: &Port| matches!(port.state, State::Absent { .. });
        while !self.ports.iter().all(is_absent) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
            self.follow(None);
        }
    }
}

impl Port {
    fn follow(&mut self, rules: &PortRules, address: Option<Ipv4Addr>, now: Instant) {
        let external = self.exposed.external;
        match &self.state {
            State::Absent { again_at } => {
                if let Some(to) = address
                    && again_at.is_none_or(|at| now >= at)
                {
                    let answer = rules.add(external.get(), to, self.exposed.internal.get());
                    let request = Request {
                        answer,
                        asked_at: now,
                    };
                    self.state = State::Adding { to, request };
                }
            }
            State::Adding { to, request } => match request.outcome(now) {
                None => (),
                Some(Ok(())) => {
                    info!(
                        "port {external} of the host is forwarded to {to}:{}",
                        self.exposed.internal
                    );
                    self.backoff = BACKOFF_MIN;
                    self.state = State::Present { to: *to };
                }
                Some(Err(why)) => {
                    warn!(
                        "cannot expose port {external}: {why}; trying again in {:?}",
                        self.backoff
                    );
                    self.state = State::Absent {
                        again_at: Some(now + self.backoff),
                    };
                    self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                }
            },
            State::Present { to } if address != Some(*to) => {
                let answer = rules.remove(external.get());
                let request = Request {
                    answer,
                    asked_at: now,
                };
                self.state = State::Removing { request };
            }
            State::Present { .. } => (),
            State::Removing { request } => match request.outcome(now) {
                None => (),
                Some(outcome) => {
                    match outcome {
                        Ok(()) => info!("port {external} of the host is no longer forwarded"),
                        Err(why) => warn!("cannot take back port {external}: {why}"),
                    }
                    self.state = State::Absent { again_at: None };
                }
            },
        }
    }
}

impl Request {
    /// The result, if there is one yet.
    fn outcome(&self, now: Instant) -> Option<Result<(), String>> {
        let answer = match &self.answer {
            Err(status) => Some(Err(*status)),
            Ok(answer) => answer.by(now),
        };
        match answer {
            Some(Ok(())) => Some(Ok(())),
            Some(Err(status)) => Some(Err(format!("vmnet says {status}"))),
            None if now.duration_since(self.asked_at) > ANSWER_TIMEOUT => {
                Some(Err("vmnet does not answer".to_owned()))
            }
            None => None,
        }
    }
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
