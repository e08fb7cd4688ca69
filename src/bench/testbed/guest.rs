//! The VM's end, played for real, where the host is real too: a DHCP client (RFC 2131) and
//! answers to ARP. The bench sends what it is told here, and shows it every frame that comes.
//!
//! Nothing here waits, and no bytes are a surprise: what is not an answer is ignored.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::bench::network::{Conversation, Network};
use crate::bench::traffic::{dhcp as message, ethernet, ipv4, udp};
use crate::wire::Mac;
use crate::wire::arp::{self, Arp};
use crate::wire::dhcp::{self, Message, MessageType};
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::ipv4::{Header, Ipv4, protocol};
use crate::wire::udp::{self as port, Udp};

/// A client that wants an address.
#[derive(Debug)]
pub(super) struct Client {
    mac: Mac,
    transaction: u32,
    stage: Stage,
}

/// How far it came.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Looking for a server.
    Selecting,
    /// It wants what was offered.
    Requesting(Grant),
    /// It has it.
    Bound(Grant),
}

/// What a server offers or grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    /// The VM's address.
    pub(super) address: Ipv4Addr,
    /// The server's.
    pub(super) server: Ipv4Addr,
    /// Who sent it.
    pub(super) server_mac: Mac,
    /// The network that both are in, if the server says so.
    pub(super) subnet: Option<Ipv4Net>,
}

impl Client {
    /// A client with this MAC address that has not asked yet. The transaction is a number by
    /// which it knows the answers that are for it.
    pub(super) const fn new(mac: Mac, transaction: u32) -> Self {
        Self {
            mac,
            transaction,
            stage: Stage::Selecting,
        }
    }

    /// The frame to send now, and again as long as no answer comes.
    pub(super) fn question(&self) -> Vec<u8> {
        let mut options = match self.stage {
            Stage::Selecting => vec![(dhcp::MESSAGE_TYPE, vec![MessageType::Discover.code()])],
            Stage::Requesting(grant) | Stage::Bound(grant) => vec![
                (dhcp::MESSAGE_TYPE, vec![MessageType::Request.code()]),
                (REQUESTED_ADDRESS, grant.address.octets().into()),
                (dhcp::SERVER_IDENTIFIER, grant.server.octets().into()),
            ],
        };
        options.push((WANTED, WANTED_OPTIONS.into()));
        let nobody = Ipv4Addr::UNSPECIFIED;
        let mut data = message(self.mac, self.transaction, dhcp::REQUEST, nobody, &options);
        // Shorter ones are not for every server (RFC 1542, 2.1).
        data.resize(data.len().max(MESSAGE_MIN), 0);
        let datagram = udp(port::DHCP_CLIENT, port::DHCP_SERVER, &data);
        let packet = ipv4(nobody, Ipv4Addr::BROADCAST, protocol::UDP, &datagram);
        ethernet(Mac::BROADCAST, self.mac, &packet)
    }

    /// Takes a frame that came; whether it was the answer that was missing, so that there is
    /// another question now, or a lease.
    pub(super) fn take(&mut self, frame: &[u8]) -> bool {
        let Some((kind, grant)) = self.answer(frame) else {
            return false;
        };
        self.stage = match (self.stage, kind) {
            (Stage::Selecting, MessageType::Offer) => Stage::Requesting(grant),
            (Stage::Requesting(asked), MessageType::Ack)
                if (asked.address, asked.server) == (grant.address, grant.server) =>
            {
                Stage::Bound(grant)
            }
            (Stage::Requesting(asked), MessageType::Nak) if asked.server == grant.server => {
                Stage::Selecting
            }
            _ => return false,
        };
        true
    }

    /// The lease, once it is there.
    pub(super) const fn lease(&self) -> Option<Grant> {
        match self.stage {
            Stage::Bound(grant) => Some(grant),
            _ => None,
        }
    }

    /// What is said by a frame that answers this client.
    fn answer(&self, frame: &[u8]) -> Option<(MessageType, Grant)> {
        let (ethernet, packet) = received(self.mac, frame)?;
        let (_, udp, data) = datagram(packet)?;
        if (udp.source.get(), udp.destination.get()) != (port::DHCP_SERVER, port::DHCP_CLIENT) {
            return None;
        }
        let message = Message::parse(data)?;
        let header = message.header;
        let is_for_us = header.operation == dhcp::REPLY
            && header.xid.get() == self.transaction
            && header.hardware == self.mac;
        let server = Ipv4Addr::from(message.server.filter(|_| is_for_us)?);
        let address = Ipv4Addr::from(header.yours.get());
        let subnet = message
            .mask
            .and_then(|mask| Ipv4Net::with_netmask(server, mask.into()).ok());
        let grant = Grant {
            address,
            server,
            server_mac: ethernet.source,
            subnet: subnet.map(|net| net.trunc()),
        };
        Some((message.kind, grant))
    }
}

impl Grant {
    /// The network, as the VM with this MAC address sees it.
    pub(super) const fn network(&self, vm_mac: Mac) -> Network {
        Network {
            vm_mac,
            vm: self.address,
            gateway_mac: self.server_mac,
            gateway: self.server,
        }
    }

    /// Whether the server's host can reach the address without any other.
    pub(super) fn is_on_link(&self) -> bool {
        self.subnet
            .is_some_and(|net| net.contains(&self.address) && self.address != self.server)
    }
}

/// The answer to a frame that asks for the VM's MAC address (RFC 826).
pub(super) fn arp_answer(network: &Network, frame: &[u8]) -> Option<Vec<u8>> {
    let (ethernet, carried) = Ethernet::split(frame)?;
    let question = Arp::parse(carried).filter(|_| ethernet.ethertype.get() == ethertype::ARP)?;
    let is_for_us = question.operation.get() == arp::REQUEST
        && question.target.get() == u32::from(network.vm)
        && question.sender_mac != network.vm_mac;
    is_for_us.then(|| {
        let asker = question.sender_mac.0;
        [
            &asker[..],
            &network.vm_mac.0,
            &ethertype::ARP.to_be_bytes(),
            &ARP_REPLY,
            &network.vm_mac.0,
            &network.vm.octets(),
            &asker,
            &question.sender.get().to_be_bytes(),
        ]
        .concat()
    })
}

/// Whether a frame that came to the VM is one that its peer sent to its port, and not one of
/// the many that a host sends by itself.
pub(super) fn is_from_peer(between: &Conversation, frame: &[u8]) -> bool {
    let network = &between.network;
    let packet = received(network.vm_mac, frame).map(|(_, packet)| packet);
    packet.and_then(datagram).is_some_and(|(header, udp, _)| {
        header.source.get() == u32::from(between.peer)
            && header.destination.get() == u32::from(network.vm)
            && udp.source.get() == between.peer_port
            && udp.destination.get() == between.vm_port
    })
}

/// A frame of IPv4 that is for `mac`, taken apart.
fn received(mac: Mac, frame: &[u8]) -> Option<(&Ethernet, &[u8])> {
    let (ethernet, packet) = Ethernet::split(frame)?;
    let is_for_us = ethernet.destination == mac || ethernet.destination == Mac::BROADCAST;
    (is_for_us && ethernet.ethertype.get() == ethertype::IPV4).then_some((ethernet, packet))
}

/// The datagram in a packet that is one.
fn datagram(packet: &[u8]) -> Option<(&Header, &Udp, &[u8])> {
    let packet = Ipv4::parse(packet)?;
    if packet.header.protocol != protocol::UDP || packet.fragment().is_some() {
        return None;
    }
    let (udp, data) = Udp::split(packet.payload)?;
    Some((packet.header, udp, data))
}

/// Ethernet, IPv4, the lengths of their addresses, a reply.
const ARP_REPLY: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 2];

/// The length of a BOOTP message.
const MESSAGE_MIN: usize = 300;
const REQUESTED_ADDRESS: u8 = 50;
/// The options that the client wants to know: its subnet's mask and the lease's time.
const WANTED: u8 = 55;
const WANTED_OPTIONS: [u8; 2] = [1, 51];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::network::LAB;
    use crate::bench::traffic::{TRANSACTION, Traffic, lease_exchange};
    use crate::direction::Direction;
    use crate::filter::{Filter, Verdict};

    const GRANT: Grant = Grant {
        address: LAB.vm,
        server: LAB.gateway,
        server_mac: LAB.gateway_mac,
        subnet: None,
    };

    /// What the laboratory's server says to a discover, and to a request.
    fn answers() -> [Vec<u8>; 2] {
        let [_, (_, offer), _, (_, ack)] = lease_exchange(&LAB);
        [offer, ack]
    }

    fn client() -> Client {
        Client::new(LAB.vm_mac, TRANSACTION)
    }

    fn kind_of(question: &[u8]) -> MessageType {
        let (_, packet) = Ethernet::split(question).unwrap();
        let (_, _, data) = datagram(packet).unwrap();
        Message::parse(data).unwrap().kind
    }

    #[test]
    fn a_client_asks_until_it_has_what_was_offered() {
        let [offer, ack] = answers();
        let mut client = client();
        assert_eq!(kind_of(&client.question()), MessageType::Discover);
        assert!(!client.take(&ack), "it has not asked for that yet");
        assert!(client.take(&offer));
        assert!(!client.take(&offer), "one is enough");
        assert_eq!(kind_of(&client.question()), MessageType::Request);
        assert_eq!(client.lease(), None);
        assert!(client.take(&ack));
        let lease = client.lease().unwrap();
        let subnet = Some("192.168.64.0/24".parse().unwrap());
        assert_eq!(lease, Grant { subnet, ..GRANT });
        assert_eq!(lease.network(LAB.vm_mac), LAB);
    }

    #[test]
    fn the_filter_lets_its_questions_pass() {
        let (mut outbound, _) = LAB.filters(32, 1514).unwrap();
        let mut client = client();
        for answer in answers() {
            let verdict = outbound.decide_alone(client.question());
            assert_eq!(verdict, Verdict::Forward);
            assert!(client.take(&answer));
        }
    }

    #[test]
    fn what_is_for_others_is_no_answer() {
        let [offer, _] = answers();
        let others = [
            // The frame is for another, is not IPv4, is from and to other ports, asks.
            (0, 2),
            (12, 7),
            (35, 1),
            (37, 1),
            (42, 1),
            // Of another transaction, and for another client.
            (49, 0),
            (75, 0),
        ];
        for (at, value) in others {
            let mut other = offer.clone();
            assert_ne!(other[at], value);
            other[at] = value;
            assert!(!client().take(&other), "byte {at}");
        }
        assert!(client().take(&offer));
    }

    #[test]
    fn a_refusal_has_it_begin_anew() {
        let [offer, mut refusal] = answers();
        let mut client = client();
        client.take(&offer);
        assert_eq!(refusal[282..285], [53, 1, MessageType::Ack.code()]);
        refusal[284] = MessageType::Nak.code();
        assert!(client.take(&refusal));
        assert_eq!(kind_of(&client.question()), MessageType::Discover);
    }

    #[test]
    fn an_address_behind_a_router_is_not_on_link() {
        let with = |address: [u8; 4], subnet: Option<&str>| {
            let subnet = subnet.map(|text| text.parse().unwrap());
            let address = address.into();
            let grant = Grant {
                address,
                subnet,
                ..GRANT
            };
            grant.is_on_link()
        };
        assert!(with([192, 168, 64, 2], Some("192.168.64.0/24")));
        assert!(!with([8, 8, 8, 8], Some("192.168.64.0/24")));
        assert!(
            !with([192, 168, 64, 1], Some("192.168.64.0/24")),
            "the host's own"
        );
        assert!(!with([192, 168, 64, 2], None));
    }

    #[test]
    fn arp_is_answered_for_the_own_address_alone() {
        let (vm, host) = (LAB.vm.octets(), LAB.gateway.octets());
        let mut question = [
            &Mac::BROADCAST.0[..],
            &LAB.gateway_mac.0,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &LAB.gateway_mac.0,
            &host,
            &[0; 6],
            &vm,
        ]
        .concat();
        let answer = arp_answer(&LAB, &question).unwrap();
        let (ethernet, carried) = Ethernet::split(&answer).unwrap();
        let arp = Arp::parse(carried).unwrap();
        assert_eq!(ethernet.destination, LAB.gateway_mac);
        assert_eq!((ethernet.source, arp.sender_mac), (LAB.vm_mac, LAB.vm_mac));
        assert_eq!(arp.operation.get(), arp::REPLY);
        assert_eq!(arp.sender.get().to_be_bytes(), vm);
        assert_eq!(arp.target.get().to_be_bytes(), host);

        assert!(arp_answer(&LAB, &answer).is_none());
        question[41] = 3;
        assert!(arp_answer(&LAB, &question).is_none());
    }

    #[test]
    fn the_peer_s_frames_are_told_from_all_others() {
        let between = Conversation::LAB;
        let frames = |traffic: Traffic, direction| traffic.frames(direction, &between);
        for frame in frames(Traffic::Imix, Direction::Inbound) {
            assert!(is_from_peer(&between, &frame));
        }
        let mut others = answers().to_vec();
        others.extend(frames(Traffic::Flow(64), Direction::Outbound));
        others.extend(frames(Traffic::Spoofed, Direction::Inbound));
        let frame = frames(Traffic::Flow(64), Direction::Inbound).remove(0);
        for at in [0, 12, 23, 29, 33, 35, 37] {
            let mut other = frame.clone();
            other[at] ^= 0x40;
            others.push(other);
        }
        for other in others {
            assert!(!is_from_peer(&between, &other), "{other:?}");
        }
    }

    #[test]
    fn every_cut_of_a_frame_has_an_outcome() {
        let mut frames = answers().to_vec();
        frames.extend(Traffic::Flow(64).frames(Direction::Inbound, &Conversation::LAB));
        for frame in &frames {
            for len in 0..frame.len() {
                let cut = &frame[..len];
                assert!(!is_from_peer(&Conversation::LAB, cut) || len >= 64);
                assert!(arp_answer(&LAB, cut).is_none());
                assert!(!client().take(cut));
            }
        }
    }
}
