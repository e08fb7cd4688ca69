//! Real and hostile captures: every frame has an outcome, whatever is known.
//!
//! The captures are tcpdump's, many of them made to break parsers. They are not part of this
//! repository; the test looks for them beside it and says when they are missing. A frame of
//! somebody else's network ends at the first address, so that each is tried three times: as
//! it is, with the VM's MAC addresses, and with the VM's IPv4 addresses too.

mod frames;
#[path = "frames/pcap.rs"]
mod pcap;

use std::collections::BTreeMap;
use std::path::Path;

use frames::*;
use softnet::batch::Slot;
use softnet::filter::{Filter, Step};
use softnet::wire::Mac;

#[test]
fn every_frame_of_every_capture_has_an_outcome_in_both_directions() {
    if !Path::new(CAPTURES).is_dir() {
        println!("SKIPPED: no captures in {CAPTURES}");
        return;
    }
    let frames = pcap::frames_in(Path::new(CAPTURES)).unwrap();
    let mut worlds: Vec<World> = STATES
        .into_iter()
        .flat_map(|state| ["", "0.0.0.0/0"].map(|allow| World::new(state, allow, "")))
        .collect();
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for frame in &frames {
        try_out(frame, &mut worlds, &mut outcomes);
    }
    let frames = frames.len();
    println!("{frames} frames: {outcomes:#?}");
    assert!(frames > 1000, "only {frames} frames were read");
    assert_eq!(outcomes.values().sum::<usize>(), frames * TRIALS);
    // The captures hold what these are about; else the frames were not looked into.
    for label in [
        "forward",
        "runt",
        "oversize",
        "source-mac",
        "vlan",
        "ipv6",
        "llc",
        "ethertype",
        "arp-malformed",
        "ipv4-malformed",
        "fragment",
        "transport-malformed",
    ] {
        assert!(outcomes.contains_key(label), "{label}");
    }
}

fn try_out(frame: &[u8], worlds: &mut [World], outcomes: &mut BTreeMap<&str, usize>) {
    let disguises = disguises(frame);
    for world in worlds {
        for (outbound, inbound) in &disguises {
            for outcome in [world.send(outbound.clone()), world.receive(inbound.clone())] {
                let label = outcome.map_or_else(|reason| reason.label(), |()| "forward");
                *outcomes.entry(label).or_default() += 1;
            }
            // The forwarder would not, but nobody may make them panic.
            let filters: [&mut dyn Filter; 2] = [&mut world.outbound, &mut world.inbound];
            for filter in filters {
                for mut frame in [outbound.0.clone(), inbound.0.clone(), Vec::new()] {
                    let mut len = u32::try_from(inbound.0.len()).unwrap();
                    for why in [
                        Step::Trailer,
                        Step::Dhcp,
                        Step::Boot,
                        Step::Arp,
                        Step::Connection,
                    ] {
                        let _ = filter.inspect(&mut Slot::new(&mut frame, &mut len), why);
                    }
                }
            }
        }
    }
}

/// The frame as if it left the VM, and as if it was for it.
fn disguises(frame: &[u8]) -> [(Frame, Frame); 3] {
    let as_is = Frame(frame.to_vec());
    let with_macs = |destination: Mac, source: Mac| {
        if frame.len() < 12 {
            as_is.clone()
        } else {
            as_is.clone().to(destination).from(source)
        }
    };
    let with_address = |frame: Frame, at: usize| {
        let is_ipv4 = frame.0.len() >= 34 && frame.0[12..14] == [8, 0];
        if is_ipv4 {
            frame.set(at, &ip(VM_IP).octets())
        } else {
            frame
        }
    };
    let (outbound, inbound) = (with_macs(GATEWAY, VM), with_macs(VM, GATEWAY));
    [
        (as_is.clone(), as_is.clone()),
        (outbound.clone(), inbound.clone()),
        (with_address(outbound, 26), with_address(inbound, 30)),
    ]
}

const STATES: [State; 4] = [FRESH, LEASED, OPEN, HOST];

/// States, policies, disguises, directions.
const TRIALS: usize = STATES.len() * 2 * 3 * 2;

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/captures");
