//! `softnet bench --pcap`: the real frames of a capture through the filter, each in the
//! direction that it went: from the VM's MAC address out, every other one in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::network::{LAB, Network};
use crate::capture::Capture;
use crate::direction::Direction;
use crate::filter::{Filter, Inbound, Outbound, Step, Verdict};
use crate::wire::Mac;
use crate::wire::ethernet::Ethernet;

/// Who is who in a capture, by the network of the laboratory where it does not show; `vm_mac` if
/// it is known.
#[must_use]
pub fn network(capture: &Capture, vm_mac: Option<Mac>) -> Network {
    let stations = capture.stations(vm_mac);
    Network {
        vm_mac: stations.vm_mac.unwrap_or(LAB.vm_mac),
        vm: stations.vm.unwrap_or(LAB.vm),
        gateway_mac: stations.gateway_mac.unwrap_or(LAB.gateway_mac),
        gateway: stations.gateway().unwrap_or(LAB.gateway),
    }
}

/// Lets the filters judge every frame, and again and again to learn what that costs.
#[must_use]
pub fn judge(
    capture: &Capture,
    vm_mac: Mac,
    outbound: &mut Outbound,
    inbound: &mut Inbound,
) -> Judgement {
    let is_outbound = |frame: &[u8]| {
        Ethernet::split(frame).is_some_and(|(ethernet, _)| ethernet.source == vm_mac)
    };
    let frames = capture.frames.iter().map(|frame| &frame.bytes);
    let (out, back): (Vec<_>, Vec<_>) = frames.partition(|frame| is_outbound(frame));
    Judgement {
        verdicts: [verdicts(outbound, &out), verdicts(inbound, &back)],
        ns_per_frame: [cost(outbound, &out), cost(inbound, &back)],
    }
}

/// What the filters said, outbound first.
#[derive(Debug)]
pub struct Judgement {
    /// How many frames passed or were dropped for a reason, by label, most first.
    pub verdicts: [Vec<(&'static str, usize)>; 2],
    /// Nanoseconds per frame, all frames one after the other over and over.
    pub ns_per_frame: [Option<f64>; 2],
}

impl Judgement {
    /// The verdicts of a direction.
    #[must_use]
    pub fn of(&self, direction: Direction) -> (&[(&'static str, usize)], Option<f64>) {
        let index = direction as usize;
        (&self.verdicts[index], self.ns_per_frame[index])
    }
}

fn verdicts(filter: &mut impl Filter, frames: &[&Vec<u8>]) -> Vec<(&'static str, usize)> {
    let mut counts = HashMap::<_, usize>::new();
    for frame in frames {
        let label = match filter.judge(frame) {
            Step::Done(Verdict::Forward) => "forwarded",
            Step::Done(Verdict::Drop(reason)) => reason.label(),
            // DHCP, ARP, what opens a connection: how often they come counts, of which a
            // capture's frames all at once say nothing.
            _ => "inspected",
        };
        *counts.entry(label).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(label, count)| (usize::MAX - count, label));
    counts
}

/// The best of some goes, of which each is long enough for the clock.
fn cost(filter: &mut impl Filter, frames: &[&Vec<u8>]) -> Option<f64> {
    let mut go = || {
        let start = Instant::now();
        let mut rounds = 0;
        while start.elapsed() < GO {
            for frame in frames {
                std::hint::black_box(filter.judge(std::hint::black_box(frame)));
            }
            rounds += 1;
        }
        #[allow(clippy::cast_precision_loss)] // Far below 2^52.
        let judged = (rounds * frames.len()) as f64;
        start.elapsed().as_secs_f64() * 1e9 / judged
    };
    (!frames.is_empty()).then(|| (0..GOES).map(|_| go()).fold(f64::INFINITY, f64::min))
}

const GO: Duration = Duration::from_millis(20);
const GOES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::network::Conversation;
    use crate::bench::traffic::Traffic;

    /// A pcap file of version 2.4 with these frames.
    fn pcap(link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 2 | 4 << 16, 0, 0, 65_535, link_type] {
            file.extend(word.to_le_bytes());
        }
        for frame in frames {
            let len = u32::try_from(frame.len()).unwrap();
            for word in [0, 0, len, len] {
                file.extend(word.to_le_bytes());
            }
            file.extend(frame);
        }
        file
    }

    #[test]
    fn the_vm_is_found_and_its_frames_are_judged() {
        let mut frames = Traffic::Mixed.frames(Direction::Outbound, &Conversation::LAB);
        frames.extend(Traffic::Flow(64).frames(Direction::Inbound, &Conversation::LAB));
        frames.extend(
            Traffic::Spoofed
                .frames(Direction::Outbound, &Conversation::LAB)
                .into_iter()
                .take(3),
        );
        let capture = Capture::read(&pcap(1, &frames)[..]).unwrap();
        let network = network(&capture, None);
        assert_eq!(network, LAB);
        let (mut outbound, mut inbound) = network.filters_with_lease(0, 1514).unwrap();
        let judgement = judge(&capture, network.vm_mac, &mut outbound, &mut inbound);
        assert_eq!(
            judgement.verdicts[0],
            [("forwarded", 1024), ("source-address", 3)]
        );
        assert_eq!(judgement.verdicts[1], [("forwarded", 1)]);
        assert!(judgement.ns_per_frame[0].unwrap() > 0.0);
    }
}
