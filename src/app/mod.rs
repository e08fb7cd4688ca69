//! The program on top of the library, from the command line to the exit code.
//!
//! Modules are listed in the order of their layers, as in `src/lib.rs`. Each imports only from
//! those above it (`tests/layers.rs` enforces this).

pub(crate) mod exit_code;

mod service;

mod uplink;

mod policy_file;

mod config;

mod check;

mod values;

mod ask;

pub(crate) mod cli;

mod services;

mod supervise;

mod start;

pub(crate) mod run;
