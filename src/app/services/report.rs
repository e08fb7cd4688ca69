//! Logs what happens to the frames: reads the counters at intervals and reports what has changed.
//!
//! The data threads only count and never log, so a flood of frames cannot become a flood of log
//! lines.

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use softnet::direction::Direction;
use softnet::filter::{Audit, DropReason};
use softnet::stats::Counts;
use softnet::wire::Mac;
use tracing::{debug, info, warn};

use crate::app::service::{End, Forwarder, Outcome, Service, TICK};

/// Reports the frames of the VM with this MAC, and those that pass only because of an audit.
pub(crate) fn service(vm: Mac, audit: Option<Arc<Audit>>) -> Box<dyn Service> {
    Box::new(Reporter {
        audit,
        ..Reporter::new(vm)
    })
}

/// Reports what has changed in the counters since the last report.
struct Reporter {
    /// The VM's MAC address on the command line.
    mac: Mac,
    told: [Option<Counts>; 2],
    last: Option<Instant>,
    audit: Option<Arc<Audit>>,
    /// The reasons of the audit that have been told, by direction.
    excused: [Vec<DropReason>; 2],
}

impl Service for Reporter {
    fn deadline(&self, now: Instant) -> Option<Instant> {
        Some(now + TICK)
    }

    fn poll(&mut self, frames: &Forwarder) -> anyhow::Result<Outcome> {
        self.look(|| frames.counts());
        Ok(Outcome::Continue)
    }

    fn close(&mut self, _: &End, frames: &Forwarder) -> bool {
        self.finish(frames.counts());
        true
    }
}

impl Reporter {
    const fn new(mac: Mac) -> Self {
        Self {
            mac,
            told: [None; 2],
            last: None,
            audit: None,
            excused: [Vec::new(), Vec::new()],
        }
    }

    /// Reports what is new, unless the last report is less than a second ago.
    fn look(&mut self, counts: impl FnOnce() -> [Counts; 2]) {
        if self.last.is_none_or(|last| last.elapsed() >= INTERVAL) {
            self.last = Some(Instant::now());
            self.tell(counts());
        }
    }

    /// Reports what is new, and the totals.
    fn finish(&mut self, counts: [Counts; 2]) {
        self.tell(counts);
        for (direction, counts) in Direction::ALL.into_iter().zip(counts) {
            info!("[{direction}] {}", summary(&counts));
            if counts.handed_over > 0 {
                info!("[{direction}] {} hand-overs", counts.handed_over);
            }
            let audit = self.audit.as_deref();
            if let Some(list) = audit.and_then(|audit| list(audit.passed(direction))) {
                info!("[{direction}] forwarded, but the policy would drop: {list}");
            }
        }
    }

    /// Tells each reason of the audit once.
    fn tell_audit(&mut self) {
        let Some(audit) = &self.audit else { return };
        for (direction, told) in Direction::ALL.into_iter().zip(&mut self.excused) {
            for (reason, _) in audit.passed(direction) {
                if !told.contains(&reason) {
                    told.push(reason);
                    info!("[{direction}] would drop a frame: {}", reason.label());
                }
            }
        }
    }

    fn tell(&mut self, counts: [Counts; 2]) {
        self.tell_audit();
        for ((direction, counts), told) in
            Direction::ALL.into_iter().zip(counts).zip(&mut self.told)
        {
            let dropped_before = |reason| told.map_or(0, |told| told.dropped_for(reason));
            for (reason, _) in counts
                .drops()
                .filter(|(reason, _)| dropped_before(*reason) == 0)
            {
                info!("[{direction}] dropped a frame: {}", reason.label());
                if direction == Direction::Outbound
                    && let Some(text) = explanation(reason, &counts, self.mac)
                {
                    info!("[{direction}] {text}");
                }
            }
            let news = counts
                .drops()
                .map(|(reason, count)| (reason, count - dropped_before(reason)));
            if let Some(list) = list(news) {
                debug!("[{direction}] dropped since the last such line: {list}");
            }
            let errors = counts.errors - told.map_or(0, |told| told.errors);
            if errors > 0 {
                let last = io::Error::from_raw_os_error(counts.last_error);
                warn!("[{direction}] {errors} system calls failed, the last of them with: {last}");
            }
            *told = Some(counts);
        }
    }
}

/// An explanation for frames of the VM that look like an attack, but usually are not one.
fn explanation(reason: DropReason, counts: &Counts, mac: Mac) -> Option<String> {
    match reason {
        DropReason::SourceMac => {
            let source = counts.first_source_mac?;
            // Not by the received frames, of which some may not have been judged yet.
            let is_all = counts.forwarded == 0 && counts.drops().all(|(other, _)| other == reason);
            Some(if is_all {
                format!(
                    "every frame so far came from another MAC than {mac}: if {source} is the VM's, \
                     start softnet with --vm-mac-address {source}"
                )
            } else {
                format!(
                    "source-mac: the frame came from {source}, the VM is {mac}: if another VM runs \
                     within the VM, it needs NAT there, not a bridge"
                )
            })
        }
        DropReason::SourceAddress => {
            let source = counts.first_source_address?;
            Some(format!(
                "source-address: the packet came from {source}, which is not the address that DHCP \
                 gave the VM: if containers or VMs within the VM have it, they need NAT there \
                 (masquerading)"
            ))
        }
        _ => None,
    }
}

fn summary(counts: &Counts) -> String {
    let Counts {
        received,
        received_bytes,
        answers,
        forwarded,
        ..
    } = counts;
    let dropped: u64 = counts.dropped.iter().sum();
    let mut text = format!("{received} frames of {received_bytes} bytes: {forwarded} forwarded");
    if *answers > 0 {
        let _ = write!(text, ", with {answers} answers of softnet's own");
    }
    if let Some(list) = list(counts.drops()) {
        let _ = write!(text, ", {dropped} dropped ({list})");
    }
    text
}

/// `source-mac 3, runt 1`, or None if all of them are 0.
fn list(drops: impl Iterator<Item = (DropReason, u64)>) -> Option<String> {
    let drops = drops.filter(|(_, count)| *count > 0);
    let words: Vec<_> = drops
        .map(|(reason, count)| format!("{} {count}", reason.label()))
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The shortest time between two lines of the same kind.
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn counts(drops: &[(DropReason, u64)]) -> Counts {
        let mut dropped = [0; DropReason::ALL.len()];
        drops
            .iter()
            .for_each(|(reason, count)| dropped[reason.index()] = *count);
        Counts {
            answers: 0,
            received: 10,
            received_bytes: 600,
            forwarded: 6,
            dropped,
            handed_over: 0,
            waits: 0,
            errors: 0,
            last_error: 0,
            first_source_mac: Some(SOURCE),
            first_source_address: Some(Ipv4Addr::new(172, 17, 0, 2)),
        }
    }

    const VM: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const SOURCE: Mac = Mac([2, 0, 0, 0, 0, 9]);

    #[test]
    fn drops_that_are_mostly_no_attack_are_explained_by_their_source() {
        let text = |reason, forwarded| {
            let counts = Counts {
                forwarded,
                ..counts(&[(reason, 4)])
            };
            explanation(reason, &counts, VM)
        };
        assert_eq!(
            text(DropReason::SourceMac, 0).unwrap(),
            "every frame so far came from another MAC than 02:00:00:00:00:01: if \
             02:00:00:00:00:09 is the VM's, start softnet with --vm-mac-address 02:00:00:00:00:09"
        );
        assert_eq!(
            text(DropReason::SourceMac, 1).unwrap(),
            "source-mac: the frame came from 02:00:00:00:00:09, the VM is 02:00:00:00:00:01: if \
             another VM runs within the VM, it needs NAT there, not a bridge"
        );
        assert_eq!(
            text(DropReason::SourceAddress, 1).unwrap(),
            "source-address: the packet came from 172.17.0.2, which is not the address that DHCP \
             gave the VM: if containers or VMs within the VM have it, they need NAT there \
             (masquerading)"
        );
        assert_eq!(text(DropReason::Runt, 1), None);
    }

    #[test]
    fn a_summary_names_the_reasons_if_there_are_any() {
        let clean = "10 frames of 600 bytes: 6 forwarded";
        assert_eq!(summary(&counts(&[])), clean);
        let drops = [(DropReason::Runt, 3), (DropReason::VmBusy, 1)];
        let text = format!("{clean}, 4 dropped (runt 3, vm-busy 1)");
        assert_eq!(summary(&counts(&drops)), text);
    }

    #[test]
    fn the_counters_are_looked_at_once_a_second_at_most() {
        let mut reporter = Reporter::new(VM);
        let mut looks = 0;
        for _ in 0..3 {
            reporter.look(|| {
                looks += 1;
                [counts(&[]); 2]
            });
        }
        assert_eq!(looks, 1);
    }
}
