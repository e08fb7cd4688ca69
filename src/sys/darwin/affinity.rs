//! CPU affinity: the same functions as on Linux, which do nothing here. On macOS no program can
//! choose a core. As far as its scheduler is known, it keeps two busy threads apart by itself.

/// A thread.
#[derive(Debug)]
pub(crate) struct ThreadAffinity;

impl ThreadAffinity {
    /// The calling thread.
    pub(crate) const fn of_this_thread() -> Self {
        Self
    }

    /// Does nothing.
    #[allow(clippy::unused_self)] // As on Linux.
    pub(crate) const fn keep_off_this_core(&mut self) {}
}
