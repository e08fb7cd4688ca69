//! Which way a frame goes. *Outbound* always means leaving the VM.

use std::fmt;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// It leaves the VM.
    Outbound,
    /// It goes to the VM.
    Inbound,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Outbound, Self::Inbound];

    /// How logs call it: `vm->host` or `host->vm`.
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
