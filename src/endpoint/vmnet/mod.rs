//! The host's side on macOS: an interface of Apple's vmnet. Outbound frames leave here into
//! the host's bridge, inbound frames enter here.
//!
//! vmnet reads and writes whole batches, in place, and calls back when frames have come. The
//! callback only writes a byte into a pipe, which [`Source::wait`] polls: it must not block,
//! and the forwarder's thread reads until nothing is left, which is right whether vmnet calls
//! again while frames are waiting or only when new ones come.
#![cfg(vmnet)]

mod error;
mod wake;

use std::ffi::CString;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use ipnet::Ipv4Net;
use tracing::debug;

use self::error::{START_TIMEOUT, refused};
use self::wake::Wake;
use super::{Endpoint, Received, Sent, Sink, Source};
use crate::batch::{Batch, FRAMES_MAX};
use crate::filter::{self, DropReason};
use crate::stop::Stop;
use crate::sys::vmnet::{Interface, Mode, Packets, Parameters, Status};

pub use self::error::VmnetError;

/// A started interface.
pub struct Vmnet {
    shared: Arc<Shared>,
    wake: Arc<Wake>,
    gateway: Ipv4Addr,
    subnet: Option<Ipv4Net>,
    max_frame: usize,
    /// The most frames for one call, to read and to write.
    limits: [usize; 2],
}

impl Vmnet {
    /// Starts an interface and waits until it is there, asking `interrupted` all the while
    /// whether that is still wanted. `isolated` keeps other VMs on the same bridge away, if
    /// these are isolated too (xnu, bsd/net/if_bridge.c: a frame is dropped only if both
    /// members are private).
    ///
    /// # Errors
    /// See [`VmnetError`].
    pub fn open(
        net_type: filter::Mode,
        isolated: bool,
        mut interrupted: impl FnMut() -> bool,
    ) -> Result<Self, VmnetError> {
        let mode = match net_type {
            filter::Mode::Nat => Mode::Shared,
            filter::Mode::Host => Mode::Host,
        };
        let (interface, answer) = Interface::start(mode, isolated).map_err(refused)?;
        let deadline = Instant::now() + START_TIMEOUT;
        let parameters = loop {
            match answer.recv_timeout(START_STEP) {
                Ok(parameters) => break parameters.map_err(refused)?,
                Err(RecvTimeoutError::Disconnected) => return Err(VmnetError::NoAnswer),
                Err(RecvTimeoutError::Timeout) if interrupted() => {
                    return Err(VmnetError::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    return Err(VmnetError::NoAnswer);
                }
                Err(RecvTimeoutError::Timeout) => (),
            }
        };
        let words = parameters.description.split_whitespace();
        debug!("vmnet started: {}", words.collect::<Vec<_>>().join(" "));
        // From here on it is stopped on every way out.
        let shared = Arc::new(Shared { interface });
        let wake = Arc::new(Wake::new()?);
        let waker = Arc::clone(&wake);
        shared
            .interface
            .on_frames(move || waker.signal())
            .map_err(refused)?;
        Self::with(shared, wake, &parameters)
    }

    fn with(
        shared: Arc<Shared>,
        wake: Arc<Wake>,
        parameters: &Parameters,
    ) -> Result<Self, VmnetError> {
        let address = |text: &Option<CString>| -> Option<Ipv4Addr> {
            text.as_ref()?.to_str().ok()?.parse().ok()
        };
        // By vmnet.h the first address of the range is the host's own.
        let gateway = address(&parameters.start_address)
            .ok_or(VmnetError::Incomplete("the gateway's address"))?;
        let mask = address(&parameters.subnet_mask);
        let subnet = mask.and_then(|mask| Ipv4Net::with_netmask(gateway, mask).ok());
        let max_frame = parameters
            .max_packet_size
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| FRAME_LENS.contains(bytes))
            .ok_or(VmnetError::Incomplete("how long a frame may be"))?;
        let limit = |packets: Option<u64>| {
            packets
                .and_then(|packets| usize::try_from(packets).ok())
                .unwrap_or(PACKETS_MAX)
                .clamp(1, FRAMES_MAX)
        };
        Ok(Self {
            shared,
            wake,
            gateway,
            subnet: subnet.map(|net| net.trunc()),
            max_frame,
            limits: [
                limit(parameters.read_max_packets),
                limit(parameters.write_max_packets),
            ],
        })
    }

    /// The host's address on the bridge.
    #[must_use]
    pub const fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The network that the VM and the gateway are in, if vmnet says.
    #[must_use]
    pub const fn subnet(&self) -> Option<Ipv4Net> {
        self.subnet
    }

    /// Another way to send, for when the forwarder has ended: see [`Endpoint::Sink`].
    #[must_use]
    pub fn sink(&self) -> ToVmnet {
        ToVmnet {
            shared: Arc::clone(&self.shared),
            packets: Packets::new(),
            limit: self.limits[1],
            alone: 0,
        }
    }

    /// The interface's port forwarding.
    #[must_use]
    pub fn port_rules(&self) -> PortRules {
        PortRules(Arc::clone(&self.shared))
    }
}

impl Endpoint for Vmnet {
    type Source = FromVmnet;
    type Sink = ToVmnet;

    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn split(self) -> (FromVmnet, ToVmnet) {
        let sink = self.sink();
        let source = FromVmnet {
            shared: self.shared,
            wake: self.wake,
            packets: Packets::new(),
            limit: self.limits[0],
            drained: false,
            unannounced: false,
            refusals: 0,
        };
        (source, sink)
    }
}

/// Receives what the host sends.
pub struct FromVmnet {
    shared: Arc<Shared>,
    wake: Arc<Wake>,
    packets: Packets,
    limit: usize,
    /// Whether the last read found nothing, after which vmnet calls back. A short read does
    /// not tell.
    drained: bool,
    /// Whether the safety poll, and not vmnet, had this look for frames.
    unannounced: bool,
    /// How often in a row vmnet had no buffers.
    refusals: u32,
}

/// How often the safety poll found frames that vmnet had not told of, in the whole process.
/// Should this stay 0 on Macs, there is no need for the poll.
#[must_use]
pub fn missed_events() -> u64 {
    MISSED_EVENTS.load(Ordering::Relaxed)
}

static MISSED_EVENTS: AtomicU64 = AtomicU64::new(0);

impl Source for FromVmnet {
    fn recv(&mut self, batch: &mut Batch, limit: usize) -> Received {
        let (slots, lens) = batch.fill(limit.min(self.limit));
        let result = self.shared.interface.read(&mut self.packets, slots, lens);
        self.drained = matches!(result, Ok(0));
        match result {
            Ok(0) => Received::Nothing,
            Ok(count) => {
                if self.unannounced {
                    MISSED_EVENTS.fetch_add(1, Ordering::Relaxed);
                    self.unannounced = false;
                }
                self.refusals = 0;
                batch.set_received(count);
                Received::Frames
            }
            // Nobody has seen this from a read; should it pass, the next call will do.
            Err(Status::BUFFER_EXHAUSTED) if self.refusals < REFUSALS_MAX => {
                self.refusals += 1;
                Received::Nothing
            }
            Err(status) => {
                self.refusals = 0;
                Received::Failed(status.into())
            }
        }
    }

    fn wait(&mut self, stop: &Stop) -> io::Result<()> {
        self.unannounced = self.drained && !self.wake.wait(stop)?;
        Ok(())
    }
}

/// Sends to the host.
pub struct ToVmnet {
    shared: Arc<Shared>,
    packets: Packets,
    limit: usize,
    /// How many frames to send one by one, since one of them is not accepted.
    alone: usize,
}

impl Clone for ToVmnet {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            packets: Packets::new(),
            limit: self.limit,
            alone: 0,
        }
    }
}

impl Sink for ToVmnet {
    const FULL: DropReason = DropReason::HostRefused;
    const REFUSED: DropReason = DropReason::HostRefused;

    /// A batch of which vmnet accepts one frame too little is sent again frame by frame, so
    /// that the one is found and dropped alone. If vmnet had sent some of them and did not
    /// say so, these are sent twice, which a network may do, rather than not at all.
    fn send(&mut self, batch: &mut Batch) -> Sent {
        loop {
            let pending = batch.pending().len();
            if pending == 0 {
                self.alone = 0;
                return Sent::All;
            }
            let asked = if self.alone > 0 {
                1
            } else {
                pending.min(self.limit)
            };
            let frames = batch.pending().take(asked);
            let (taken, result) = self.shared.interface.write(&mut self.packets, frames);
            batch.advance(taken);
            self.alone = self.alone.saturating_sub(taken);
            match result {
                Ok(()) if taken > 0 => (),
                Ok(()) | Err(Status::BUFFER_EXHAUSTED) => return Sent::Full,
                Err(_) if taken > 0 => self.alone = 1,
                Err(_) if asked > 1 => self.alone = asked,
                Err(status) => {
                    self.alone = self.alone.saturating_sub(1);
                    return Sent::Refused(status.into());
                }
            }
        }
    }

    /// No event tells of room. The first waits are as short as those towards the VM; an
    /// interface that took nothing for about a second is not waited for any longer.
    fn wait_for_room(&mut self, stop: &Stop, waits: u32) -> bool {
        match waits {
            0..SHORT_WAITS => thread::sleep(SHORT_WAIT),
            SHORT_WAITS..WAITS_MAX => stop.or_after(LONG_WAIT),
            _ => return false,
        }
        true
    }
}

/// Ports of the host that lead to the VM. Requests are answered later, if at all.
#[derive(Clone)]
pub struct PortRules(Arc<Shared>);

impl PortRules {
    /// Asks for TCP connections to the host's port `external` to go to `internal` at `to`.
    ///
    /// # Errors
    /// The status with which vmnet refuses at once.
    pub fn add(&self, external: u16, to: Ipv4Addr, internal: u16) -> Result<RuleAnswer, u32> {
        let answer = self.0.interface.add_rule(external, to, internal);
        answer.map(RuleAnswer).map_err(Status::number)
    }

    /// Asks for the rule for `external` to go away.
    ///
    /// # Errors
    /// The status with which vmnet refuses at once.
    pub fn remove(&self, external: u16) -> Result<RuleAnswer, u32> {
        let answer = self.0.interface.remove_rule(external);
        answer.map(RuleAnswer).map_err(Status::number)
    }
}

/// What will come of a request for a rule.
#[derive(Debug)]
pub struct RuleAnswer(Receiver<Result<(), Status>>);

impl RuleAnswer {
    /// Waits for the answer until `deadline`: None if there is none by then, and else whether
    /// it was granted or the status that says why not.
    #[must_use]
    pub fn by(&self, deadline: Instant) -> Option<Result<(), u32>> {
        match self.0.recv_deadline(deadline) {
            Ok(answer) => Some(answer.map_err(Status::number)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(Status::FAILURE.number())),
        }
    }
}

/// The interface, which is stopped when its last user is gone.
struct Shared {
    interface: Interface,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The system cleans up after a process that ends, so nothing depends on the answers.
        let _ = self.interface.on_frames_nothing();
        if let Ok(answer) = self.interface.stop() {
            let _ = answer.recv_timeout(STOP_TIMEOUT);
        }
    }
}

macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
opaque_debug!(Vmnet, FromVmnet, ToVmnet, PortRules);

const START_STEP: Duration = Duration::from_millis(20);
/// Softnet has a second to end in, of which the wait for the DHCP server may take 0.7.
const STOP_TIMEOUT: Duration = Duration::from_millis(200);
/// Frames, before macOS 15 says how many it takes: Apple's documentation allows 200 for a call.
const PACKETS_MAX: usize = 200;
/// From the least MTU of IPv4 to the longest that vmnet gives with segmentation offload.
const FRAME_LENS: std::ops::RangeInclusive<usize> = 590..=65_550;
const REFUSALS_MAX: u32 = 3;
const SHORT_WAITS: u32 = 10;
const SHORT_WAIT: Duration = Duration::from_micros(50);
const LONG_WAIT: Duration = Duration::from_millis(1);
const WAITS_MAX: u32 = 1000;
