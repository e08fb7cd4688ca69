//! Large segments: frames that an endpoint writes as one, and reads as one. What they look like is in
//! `wire/segment.rs`.
//!
//! Nothing here does input or output, so that it can be tried with any bytes.

mod merge;
mod split;
#[cfg(test)]
mod tests;

pub use merge::Run;
pub use split::{Carry, PARTS_MAX, spread};
