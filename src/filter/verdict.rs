//! The outcome of a decision: a value, never an error.

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on its way as it is.
    Forward,
    /// It does not, for this reason.
    Drop(DropReason),
    /// It is a DHCP message between the VM and the server that is well formed up to UDP;
    /// [`Check::dhcp`](super::Check::dhcp) decides.
    Dhcp,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a frame was dropped. Labels are part of the public interface: logs, counters
        /// and tests use them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of their indices.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$name),*];

            /// The name that logs and counters use; it stays the same over releases.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// The place of this reason in a table of counters, below `ALL.len()`.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header (14 bytes); an empty datagram too.
    Runt = "runt",
    /// Longer than the host's interface takes.
    Oversize = "oversize",
    // --- not the filter's: the forwarder gives these ---
    /// The VM did not take its frames within the bounded time.
    VmBusy = "vm-busy",
    /// The VM's socket does not take such a frame at all.
    VmRefused = "vm-refused",
    /// The VM's end of the socket is gone.
    VmGone = "vm-gone",
    /// The host's interface refused the frame.
    HostRefused = "host-refused",
    /// softnet was stopping, and the other side had no room.
    Stopping = "stopping",
}
