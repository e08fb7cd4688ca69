//! The direction of a frame. *Outbound* always means leaving the VM.

use std::fmt;

/// The direction of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// It leaves the VM.
    Outbound,
    /// It goes to the VM.
    Inbound,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Outbound, Self::Inbound];

    /// Its name in logs: `vm->host` or `host->vm`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Outbound => "vm->host",
            Self::Inbound => "host->vm",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
