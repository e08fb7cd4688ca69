//! The loops on macOS, over the endpoints that the forwarder has too: without its lanes,
//! its writers and its counters, the bare loop without a filter.
//!
//! Where the other side has no room they wait and try again, for as long as it takes. The
//! one-frame loop has a thread per direction, since nothing waits for two endpoints at once
//! of which one may be vmnet.

use std::io;
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use super::{
    End, FRAMES_MAX, Setup, Subject, find_place, laboratory, limit_for, run_engine, slowed,
};
use crate::batch::Batch;
use crate::bench::network::{Slowed, VMNET_MAC, filters};
use crate::bench::traffic;
use crate::clock::Tick;
use crate::direction::Direction;
use crate::endpoint::synthetic::SyntheticHost;
use crate::endpoint::vm_socket::VmSocket;
use crate::endpoint::vmnet::Vmnet;
use crate::endpoint::{Endpoint, Received, Sent, Sink, Source};
use crate::filter::{self, CONNECTION_RATE, Config, Filter, Inbound, Mode, Outbound, Verdict};
use crate::host::privileges::Identity;
use crate::stop::Stop;

/// At a socket or at vmnet.
pub(super) fn run(
    setup: &Setup,
    caller: &Identity,
    vm: OwnedFd,
    host: OwnedFd,
    end: &mut End,
) -> io::Result<()> {
    if !setup.vmnet {
        let host = SyntheticHost::new(host.into(), setup.max_frame);
        return run_at(setup, vm, host, laboratory(setup)?, end);
    }
    let open = Vmnet::open(Mode::Nat, true, || end.signals.stop().is_some());
    let vmnet = open.map_err(io::Error::other)?;
    caller.become_caller().map_err(io::Error::other)?;
    // What vmnet does not say is learned with the lease, as by the program itself.
    let filters = filters(&traffic::rules(setup.rules), |policy| Config {
        vm_mac: VMNET_MAC,
        gateway: vmnet.gateway(),
        gateway_mac: None,
        subnet: vmnet.subnet(),
        mode: Mode::Nat,
        isolation: true,
        max_frame: vmnet.max_frame(),
        policy,
        connection_rate: CONNECTION_RATE,
        names: filter::Names::default(),
    })?;
    run_at(setup, vm, vmnet, slowed(setup, filters), end)
}

/// The same at any endpoint.
fn run_at(
    setup: &Setup,
    vm: OwnedFd,
    host: impl Endpoint,
    filters: (Slowed<Outbound>, Slowed<Inbound>),
    end: &mut End,
) -> io::Result<()> {
    if !matches!(setup.subject, Subject::Bare | Subject::OneFrame) {
        return run_engine(setup, vm, host, filters, end);
    }
    let vm = VmSocket::new(vm, setup.max_frame).map_err(io::Error::other)?;
    let running = if setup.subject == Subject::Bare {
        bare(vm, host, find_place)?
    } else {
        one_frame(vm, host, filters.0, filters.1, find_place)?
    };
    end.wait();
    running.finish();
    Ok(())
}

/// Moves frames both ways, in batches. Each thread calls `on_start` first.
fn bare(vm: impl Endpoint, host: impl Endpoint, on_start: fn(Direction)) -> io::Result<Running> {
    let judge = |batch: &mut Batch| {
        for index in 0..batch.received() {
            batch.queue(index);
        }
    };
    let limit = Limit::Bytes { mean_len: 0 };
    start(vm, host, limit, judge, judge, on_start)
}

/// Moves frames both ways, one by one. Each thread calls `on_start` first.
fn one_frame(
    vm: impl Endpoint,
    host: impl Endpoint,
    mut outbound: impl Filter + 'static,
    mut inbound: impl Filter + 'static,
    on_start: fn(Direction),
) -> io::Result<Running> {
    let outbound = move |batch: &mut Batch| judge(&mut outbound, batch);
    let inbound = move |batch: &mut Batch| judge(&mut inbound, batch);
    start(vm, host, Limit::One, outbound, inbound, on_start)
}

/// A loop at work.
#[derive(Debug)]
struct Running {
    stop: Stop,
    threads: [JoinHandle<()>; 2],
}

impl Running {
    /// Ends it and gives both ends up, which stops an interface of vmnet.
    fn finish(self) {
        self.stop.set();
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// How many frames to ask for.
#[derive(Clone, Copy)]
enum Limit {
    One,
    /// As many as make a batch of so many bytes on average.
    Bytes {
        mean_len: usize,
    },
}

impl Limit {
    fn frames(self) -> usize {
        match self {
            Self::One => 1,
            Self::Bytes { mean_len: 0 } => FRAMES_MAX,
            Self::Bytes { mean_len } => limit_for(mean_len),
        }
    }

    fn follow(&mut self, batch: &Batch) {
        if let Self::Bytes { mean_len } = self {
            let mean = batch.received_bytes() / batch.received().max(1);
            *mean_len = (3 * *mean_len + mean) / 4;
        }
    }
}

fn start(
    vm: impl Endpoint,
    host: impl Endpoint,
    limit: Limit,
    outbound: impl FnMut(&mut Batch) + Send + 'static,
    inbound: impl FnMut(&mut Batch) + Send + 'static,
    on_start: fn(Direction),
) -> io::Result<Running> {
    let max_frame = vm.max_frame().max(host.max_frame());
    let (from_vm, to_vm) = vm.split();
    let (from_host, to_host) = host.split();
    let stop = Stop::new()?;
    let [theirs, others] = [stop.clone(), stop.clone()];
    let threads = [
        thread::Builder::new().spawn(move || {
            on_start(Direction::Inbound);
            pump(from_host, to_vm, max_frame, limit, inbound, &theirs);
        })?,
        thread::Builder::new().spawn(move || {
            on_start(Direction::Outbound);
            pump(from_vm, to_host, max_frame, limit, outbound, &others);
        })?,
    ];
    Ok(Running { stop, threads })
}

/// Moves frames until an end is closed or `stop` is set. Any other failure means that the measurement is worth
/// nothing.
fn pump(
    mut source: impl Source,
    mut sink: impl Sink,
    max_frame: usize,
    mut limit: Limit,
    mut judge: impl FnMut(&mut Batch),
    stop: &Stop,
) {
    let mut batch = Batch::new(max_frame);
    let mut more = false;
    while !stop.is_set() {
        let frames = limit.frames();
        // Waiting first saves a call that would find nothing, unless the last batch was full.
        let received = if more {
            source.recv(&mut batch, frames)
        } else {
            source.wait_and_recv(&mut batch, frames, stop)
        };
        more = false;
        match received {
            Received::Frames => {}
            Received::Nothing => continue,
            Received::Gone => return,
            Received::Failed(error) => panic!("the loop broke: {error}"),
        }
        more = batch.received() == frames;
        limit.follow(&batch);
        judge(&mut batch);
        loop {
            match sink.send(&mut batch) {
                Sent::All => break,
                Sent::Full if stop.is_set() => return,
                // As if for the first time, or a sink's patience would end.
                Sent::Full => drop(sink.wait_for_room(stop, 0)),
                Sent::Refused(error) => panic!("the loop broke: {error}"),
                Sent::Gone => return,
            }
        }
    }
}

/// Queues what may pass.
fn judge(filter: &mut impl Filter, batch: &mut Batch) {
    filter.begin(Tick::ZERO);
    for index in 0..batch.received() {
        if filter.decide(&mut batch.slot(index)) == Verdict::Forward {
            batch.queue(index);
        }
    }
}
