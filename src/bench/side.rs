//! What takes the host's place before a subject.

/// One of the three; with a TAP as the bench has it, or with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostSide<T> {
    /// A socket, whose other end the bench has.
    Socket,
    /// A TAP, on Linux. Scenarios that it does not suit are left out.
    Tap(T),
    /// An interface of vmnet, with the host itself behind it, on macOS. Scenarios whose frames
    /// would leave the host, or that need more than vmnet's queues are known to hold, are left
    /// out.
    Vmnet,
}

impl<T> HostSide<T> {
    /// The same with another word for the TAP.
    pub fn map<U>(self, of_tap: impl FnOnce(T) -> U) -> HostSide<U> {
        match self {
            Self::Socket => HostSide::Socket,
            Self::Tap(tap) => HostSide::Tap(of_tap(tap)),
            Self::Vmnet => HostSide::Vmnet,
        }
    }
}
