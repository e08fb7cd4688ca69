//! Connections, as docs/rules.md has them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::packet::Packet;
use super::rules::Said;
use super::{Allowance, Facts, Faults};

/// Protocol, the VM's port, the peer and its port.
type Name = (u8, u16, Ipv4Addr, u16);

/// What was judged by: the policy, and what its rules may depend on, the name servers and the
/// network.
type Under = (u32, Vec<Ipv4Addr>, Option<Ipv4Net>);

/// A connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    name: Name,
    lease: Ipv4Addr,
    under: Under,
    by_vm: bool,
    seen: u64,
    is_answered: bool,
    is_confirmed: bool,
    has_fin: bool,
    /// From the one who opened it, and from the other.
    rst: [bool; 2],
}

/// A datagram whose first part has passed.
#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    outbound: bool,
    name: (Ipv4Addr, u8, u16),
    /// The leased address, and what rules may depend on, as when the first part passed.
    under: (Option<Ipv4Addr>, Under),
    until: u64,
    passed: usize,
    end: Option<usize>,
}

impl Connection {
    /// Whether it was answered; of TCP, whether that was confirmed.
    fn has_its_answer(&self) -> bool {
        if self.name.0 == 6 {
            self.is_confirmed
        } else {
            self.is_answered
        }
    }

    /// The table of seconds of silence.
    fn silence(&self) -> u64 {
        match self.name.0 {
            6 if self.rst != [false, false] => 90,
            6 if self.has_fin => 120,
            6 if self.is_confirmed => 7440,
            6 => 30,
            17 if self.is_answered && self.name.3 == 53 => 10,
            17 if self.is_answered => 180,
            17 | 1 => 30,
            _ if self.is_answered => 600,
            _ => 120,
        }
    }
}

/// Protocol, address and port.
fn server_of((protocol, _, address, port): Name) -> (u8, Ipv4Addr, u16) {
    (protocol, address, port)
}

impl Facts {
    /// Whether a packet passes by its connection or opens one.
    pub(super) fn connection(&mut self, packet: &Packet<'_>, outbound: bool) -> Result<(), Faults> {
        let peer = if outbound {
            packet.destination
        } else {
            packet.source
        };
        let now = u64::from(self.now);
        if let Some((offset, more, id)) = packet.part
            && offset != 0
        {
            let name = (peer, packet.protocol, id);
            let under = self.now_under();
            let same = |it: &&mut Datagram| {
                let is_its = (it.outbound, it.name) == (outbound, name) && it.under == under;
                is_its && it.until > now
            };
            let Some(datagram) = self.datagrams.iter_mut().find(same) else {
                return Err(vec!["untracked"]);
            };
            datagram.passed += packet.payload.len();
            if !more {
                datagram.end = Some(offset + packet.payload.len());
            }
            if datagram.end.is_some_and(|end| datagram.passed >= end) {
                datagram.until = 0;
            }
            return Ok(());
        }
        match self.name_of(packet, outbound, peer) {
            Named::Of(name) => self.by_name(name, packet, outbound, peer)?,
            Named::About(name) if self.open_as_judged(name) => {}
            Named::About(_) | Named::No => self.unknown(packet, outbound, peer)?,
        }
        if let Some((_, _, id)) = packet.part {
            let name = (peer, packet.protocol, id);
            let under = self.now_under();
            let is_same =
                |it: &Datagram| (it.outbound, it.name) == (outbound, name) && it.under == under;
            self.datagrams.retain(|it| it.until > now && !is_same(it));
            let limit = if outbound { 64 } else { 256 };
            let mut others = self.datagrams.iter();
            if others.clone().filter(|it| it.outbound == outbound).count() >= limit {
                if outbound {
                    return Err(vec!["fragments-full"]);
                }
                // They are in the order in which they began.
                let oldest = others.position(|it| !it.outbound);
                self.datagrams.remove(oldest.unwrap());
            }
            self.datagrams.push(Datagram {
                outbound,
                name,
                under,
                until: now + 30,
                passed: packet.payload.len(),
                end: None,
            });
        }
        Ok(())
    }

    /// Whether a connection is open, and was judged by what rules depend on now.
    fn open_as_judged(&self, name: Name) -> bool {
        let under = self.under();
        let place = self.open(name);
        place.is_some_and(|place| self.tracked[place].under == under)
    }

    /// What rules may depend on.
    fn under(&self) -> Under {
        let servers = self.lease.iter().flat_map(|lease| &lease.name_servers);
        (self.policy, servers.copied().collect(), self.network)
    }

    /// What a datagram's later parts have in common with its first.
    fn now_under(&self) -> (Option<Ipv4Addr>, Under) {
        let address = self.lease.as_ref().map(|lease| lease.address);
        (address, self.under())
    }

    fn by_name(
        &mut self,
        name: Name,
        packet: &Packet<'_>,
        outbound: bool,
        peer: Ipv4Addr,
    ) -> Result<(), Faults> {
        let tcp = (packet.protocol == 6).then_some(packet.flags);
        let is_syn = tcp.is_some_and(|flags| flags & 0x17 == 0x02);
        let now = u64::from(self.now);
        let under = self.under();
        if let Some(place) = self.open(name) {
            let it = &mut self.tracked[place];
            let from_opener = it.by_vm == outbound;
            let is_over = it.has_fin || it.rst != [false, false];
            let is_again = if from_opener {
                !it.is_answered
            } else {
                !it.is_confirmed
            };
            let is_request = packet.protocol == 1 && packet.payload[0] == 8;
            let is_asked_back = is_request && !from_opener;
            if !is_asked_back && (!is_syn || !is_over && is_again) {
                if it.under != under {
                    it.under = under;
                    let by_vm = it.by_vm;
                    if let Said::No(fault) = self.said(packet, outbound, peer, !by_vm) {
                        self.tracked.remove(place);
                        return Err(vec![match (outbound, by_vm) {
                            (false, _) => "source-blocked",
                            // Who opened it is its destination now.
                            (true, false) => "destination-blocked",
                            (true, true) => fault,
                        }]);
                    }
                }
                let it = &mut self.tracked[place];
                it.seen = now;
                let side = usize::from(!from_opener);
                let was_answered = it.has_its_answer();
                let Some(flags) = tcp else {
                    it.is_answered |= !from_opener;
                    self.count_answer(place, was_answered);
                    return Ok(());
                };
                if flags & 0x04 != 0 {
                    it.rst[side] = true;
                    return Ok(());
                }
                it.rst[side] = false;
                it.is_answered |= !from_opener;
                it.is_confirmed |= from_opener && it.is_answered && flags & 0x10 != 0;
                it.has_fin |= flags & 0x01 != 0;
                self.count_answer(place, was_answered);
                return Ok(());
            }
        }
        let opens = match (packet.protocol, tcp) {
            (_, Some(flags)) if flags & 0x05 != 0 => false,
            (_, Some(flags)) if flags & 0x02 != 0 => flags & 0x10 == 0,
            (_, Some(flags)) => flags & 0x10 != 0 && outbound,
            (1, _) => packet.payload[0] != 0,
            _ => true,
        };
        if !opens {
            return self.unknown(packet, outbound, peer);
        }
        let said = self.said(packet, outbound, peer, !outbound);
        if let Said::No(fault) = said {
            return Err(vec![if outbound { fault } else { "source-blocked" }]);
        }
        let is_about_answers = match self.said(packet, outbound, peer, false) {
            Said::Allowed => true,
            Said::No(fault) => fault == "destination-blocked",
            Said::Nothing => false,
        };
        // A SYN on a connection that both sides have confirmed may be forged.
        let is_confirmed = self.open(name).is_some_and(|place| {
            let it = &self.tracked[place];
            it.is_confirmed && !it.has_fin && it.rst == [false, false]
        });
        let is_kept = outbound || matches!(said, Said::Allowed) || is_about_answers;
        if outbound && !is_confirmed && !self.has_servers_room(name) {
            return Err(vec!["server-limit"]);
        }
        if is_kept && !is_confirmed {
            self.tracked.retain(|it| it.name != name);
            self.tracked.push(Connection {
                name,
                lease: self.lease.as_ref().unwrap().address,
                under,
                by_vm: outbound,
                seen: now,
                is_answered: false,
                is_confirmed: false,
                has_fin: false,
                rst: [false, false],
            });
        }
        Ok(())
    }

    /// An answer makes up for a question.
    fn count_answer(&mut self, place: usize, was_answered: bool) {
        let it = &self.tracked[place];
        let is_new = it.by_vm && !was_answered && it.has_its_answer();
        let unanswered = self.unanswered_by.get_mut(&server_of(it.name));
        if let Some(unanswered) = unanswered.filter(|_| is_new) {
            unanswered.give_back();
        }
    }

    /// Whether the VM may open another connection to its server, or this one again.
    fn has_servers_room(&mut self, name: Name) -> bool {
        let server = server_of(name);
        let is_own = |it: &Connection| it.by_vm && server_of(it.name) == server;
        let again = self.open(name).map(|place| self.tracked[place].clone());
        let again = again.filter(is_own);
        let now = u64::from(self.now);
        let own = self.tracked.iter().filter(|it| is_own(it));
        let open = own.filter(|it| now - it.seen < it.silence()).count();
        let most = match (name.0, name.3) {
            (17, 53) => 10_752,
            _ => 32_256,
        };
        let unanswered = self.unanswered_by.entry(server);
        let unanswered = unanswered.or_insert_with(|| Allowance::per_second(64, 7680));
        match again {
            Some(again) if !again.has_its_answer() => true,
            Some(_) => {
                unanswered.take(self.now);
                true
            }
            None => open < most && unanswered.take(self.now),
        }
    }

    /// It belongs to no connection, and opens none.
    fn unknown(&self, packet: &Packet<'_>, outbound: bool, peer: Ipv4Addr) -> Result<(), Faults> {
        match self.said(packet, outbound, peer, !outbound) {
            Said::Allowed => Err(vec!["untracked"]),
            Said::Nothing => Ok(()),
            Said::No(_) if !outbound => Err(vec!["source-blocked"]),
            Said::No(fault) => Err(vec![fault]),
        }
    }

    /// The place of a connection that is open.
    fn open(&self, name: Name) -> Option<usize> {
        let lease = self.lease.as_ref()?.address;
        self.tracked.iter().position(|it| {
            let is_alive = u64::from(self.now) - it.seen < it.silence();
            it.name == name && it.lease == lease && is_alive
        })
    }

    fn name_of(&self, packet: &Packet<'_>, outbound: bool, peer: Ipv4Addr) -> Named {
        let payload = packet.payload;
        let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        match packet.protocol {
            6 | 17 if outbound => Named::Of((packet.protocol, word(0), peer, word(2))),
            6 | 17 => Named::Of((packet.protocol, word(2), peer, word(0))),
            1 if matches!(payload[0], 3 | 11 | 12) => {
                packet.about.map_or(Named::No, |(protocol, from, to)| {
                    let (source, destination) = packet.quoted.unwrap();
                    let (own, other, port) = if outbound {
                        (to, source, from)
                    } else {
                        (from, destination, to)
                    };
                    Named::About((protocol, own, other, port))
                })
            }
            1 if matches!(payload[0], 0 | 8) => Named::Of((1, word(4), peer, 0)),
            protocol => Named::Of((protocol, 0, peer, 0)),
        }
    }
}

enum Named {
    /// It belongs to the connection of this name, if there is one.
    Of(Name),
    /// It is about it.
    About(Name),
    No,
}
