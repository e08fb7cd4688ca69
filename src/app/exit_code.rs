//! The exit codes of failures.

/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// Anything else.
pub(crate) const FAILURE: u8 = 1;
