//! Keeping a thread off the core that another one works on: macOS does that by itself, as far
//! as its scheduler is known, and lets nobody choose a core. The same functions as on Linux.

/// A core, which nobody can tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Core;

/// The core that the calling thread runs on now.
pub(crate) const fn here() -> Core {
    Core
}

/// Where one thread may run.
#[derive(Debug)]
pub(crate) struct Apart;

impl Apart {
    /// For the calling thread.
    pub(crate) const fn new() -> Self {
        Self
    }

    /// Does nothing.
    #[allow(clippy::unused_self)] // As on Linux.
    pub(crate) const fn leave(&self, _core: Core) {}
}
