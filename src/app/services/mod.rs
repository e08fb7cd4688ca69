//! The services, one file each. The function that creates one is called `service`, and
//! `app/start.rs` calls them all, in the order in which the services are polled.

pub(crate) mod control;

pub(crate) mod parent;

pub(crate) mod registry;

pub(crate) mod report;

pub(crate) mod signals;

pub(crate) mod uplink;

pub(crate) mod vm;
