//! How an interface behaves: well, or in one of the ways in which vmnet might not.

use std::time::Duration;

use crate::vmnet::Status;

/// The behaviour of one interface.
#[derive(Debug, Clone)]
pub struct Script {
    /// How it starts.
    pub start: Start,
    /// When the event callback is called.
    pub events: Events,
    /// What is wrong with reads.
    pub read: Read,
    /// What is wrong with writes.
    pub write: Write,
    /// How it stops.
    pub stop: Stop,
    /// How rules for ports are answered.
    pub rules: Rules,
    /// The most packets for a call, if vmnet says (macOS 15 and later).
    pub limits: Option<(u64, u64)>,
    /// The longest packet in bytes.
    pub max_packet_size: usize,
    /// For a host of [`outside`](crate::outside): it reads no frame until a server that a frame
    /// starts has started, which takes so long, and which ends when it has nothing to do.
    pub server_starts_in: Option<Duration>,
}

/// How an interface starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With success, or another status, after a while.
    After(Duration, Status),
    /// The call returns null.
    Null,
    /// The handler is never called.
    Never,
    /// With success for root, and else with NOT_AUTHORIZED.
    ForRoot,
}

/// When the event callback is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// When frames come to an interface that a read found empty.
    Edge,
    /// Again and again while there are frames.
    Level,
    /// With frames twice, and without frames too.
    Spurious,
    /// The first time only.
    Once,
}

/// What is wrong with reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Nothing.
    Well,
    /// Every third fails with this status.
    Failing(Status),
    /// All but the first ones fail with this status.
    Broken(Status),
    /// One packet a call, whatever there is room for.
    Short,
}

/// What is wrong with writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Nothing.
    Well,
    /// Half of the packets, rounded up, with success.
    Half,
    /// Half of the packets, rounded down, with an error, every other time.
    HalfAndError(Status),
    /// For this long from the first write on, no packet, with BUFFER_EXHAUSTED.
    Exhausted(Duration),
    /// Nothing goes, but with success, every other time.
    NoneAndSuccess,
    /// All fail with this status.
    Broken(Status),
}

/// How an interface stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// With success, or another status, after a while.
    After(Duration, Status),
    /// The handler is never called.
    Never,
    /// The event callback is called once more before the handler is.
    WithACallback,
    /// With success, and frames that the host has not read are lost.
    Discarding,
}

/// How rules for ports are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// With success.
    Granted,
    /// At first with this status, so many times.
    Refused(Status, u32),
    /// Never.
    Never,
}

impl Script {
    /// An interface that does as documented.
    #[must_use]
    pub const fn well() -> Self {
        Self {
            start: Start::After(Duration::ZERO, SUCCESS),
            events: Events::Edge,
            read: Read::Well,
            write: Write::Well,
            stop: Stop::After(Duration::ZERO, SUCCESS),
            rules: Rules::Granted,
            limits: Some((256, 256)),
            max_packet_size: 1514,
            server_starts_in: None,
        }
    }

    /// The behaviour with this name; see [`NAMES`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut script = Self::well();
        let short = Duration::from_millis(150);
        match name {
            "well" => (),
            "start-late" => script.start = Start::After(short, SUCCESS),
            "start-failed" => script.start = Start::After(Duration::ZERO, 1001),
            "start-busy" => script.start = Start::After(Duration::ZERO, 1009),
            "start-unauthorized" => script.start = Start::After(Duration::ZERO, 1010),
            "start-for-root" => script.start = Start::ForRoot,
            "start-null" => script.start = Start::Null,
            "start-never" => script.start = Start::Never,
            "level" => script.events = Events::Level,
            "spurious" => script.events = Events::Spurious,
            "once" => script.events = Events::Once,
            "read-1007" => script.read = Read::Failing(1007),
            "read-1001" => script.read = Read::Failing(1001),
            "read-broken" => script.read = Read::Broken(1004),
            "read-short" => script.read = Read::Short,
            "write-half" => script.write = Write::Half,
            "write-half-and-error" => script.write = Write::HalfAndError(1001),
            "write-1007" => script.write = Write::Exhausted(short),
            "write-none" => script.write = Write::NoneAndSuccess,
            "write-broken" => script.write = Write::Broken(1004),
            "stop-late" => script.stop = Stop::After(short, SUCCESS),
            "stop-failed" => script.stop = Stop::After(Duration::ZERO, 1001),
            "stop-never" => script.stop = Stop::Never,
            "stop-with-a-callback" => script.stop = Stop::WithACallback,
            "server-asleep" => {
                script.server_starts_in = Some(2 * short);
                script.stop = Stop::Discarding;
            }
            "rules-refused" => script.rules = Rules::Refused(1001, 2),
            "rules-never" => script.rules = Rules::Never,
            "limits-200" => script.limits = Some((200, 200)),
            "limits-5" => script.limits = Some((5, 3)),
            "limits-none" => script.limits = None,
            _ => return None,
        }
        Some(script)
    }

    /// Whether an interface that behaves so starts at all, for root.
    #[must_use]
    pub const fn starts(&self) -> bool {
        match self.start {
            Start::After(_, status) => status == SUCCESS,
            Start::ForRoot => true,
            Start::Null | Start::Never => false,
        }
    }
}

const SUCCESS: Status = 1000;

/// Every behaviour that has a name and is the same for every user.
pub const NAMES: [&str; 29] = [
    "well",
    "start-late",
    "start-failed",
    "start-busy",
    "start-unauthorized",
    "start-null",
    "start-never",
    "level",
    "spurious",
    "once",
    "read-1007",
    "read-1001",
    "read-broken",
    "read-short",
    "write-half",
    "write-half-and-error",
    "write-1007",
    "write-none",
    "write-broken",
    "stop-late",
    "stop-failed",
    "stop-never",
    "stop-with-a-callback",
    "server-asleep",
    "rules-refused",
    "rules-never",
    "limits-200",
    "limits-5",
    "limits-none",
];
