//! Views over the headers of a frame: a length is checked once, then getters cannot fail.

pub mod ethernet;

pub use ethernet::Mac;
