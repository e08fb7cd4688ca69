//! Keeping a thread off the core that another one works on: macOS does that by itself, as far
//! as its scheduler is known, and lets nobody choose a core. The same functions as on Linux.

/// A thread.
#[derive(Debug)]
pub(crate) struct Apart;

impl Apart {
    /// The calling thread.
    pub(crate) const fn me() -> Self {
        Self
    }

    /// Does nothing.
    #[allow(clippy::unused_self)] // As on Linux.
    pub(crate) const fn keep_off_here(&mut self) {}
}
