//! The outcome of a decision: a value, never an error.

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on its way.
    Forward,
    /// It does not, for this reason.
    Drop(DropReason),
}

/// How far a look at the headers leads: to the end, or to what takes a closer look, which may
/// rewrite the frame ([`Filter::inspect`](super::Filter::inspect)).
///
/// Why a frame takes one goes with it, since the lease may change between the two looks: a frame
/// that may only be asked about must not pass because its sender has a lease by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// To the end.
    Done(Verdict),
    /// There are bytes behind its packet or message, which are cut off before anything else.
    Trailer,
    /// It carries a DHCP message.
    Dhcp,
    /// It carries one between a client and the boot server's port.
    Boot,
    /// Outbound: an ARP message, which may go to everybody.
    Arp,
    /// Its addresses alone do not decide: rules name ports or protocols, or directions.
    Rules,
    /// Outbound: it opens a TCP connection.
    Connection,
    /// Outbound: it names an address of which the VM has no lease. softnet asks the server about
    /// the address in its place.
    Unleased,
}

// One byte, so that what every frame gets is handed on in a register.
const _: () = assert!(size_of::<Step>() == 1);

impl From<Result<(), DropReason>> for Verdict {
    #[inline]
    fn from(outcome: Result<(), DropReason>) -> Self {
        outcome.map_or_else(Self::Drop, |()| Self::Forward)
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a frame was dropped. Labels are part of the public interface: logs, counters
        /// and tests use them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of their indices.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$name),*];

            /// The name that logs and counters use; it stays the same over releases.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// The place of this reason in a table of counters, below `ALL.len()`.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

drop_reasons! {
    // --- the frame ---
    /// Shorter than an Ethernet header (14 bytes); an empty datagram too.
    Runt = "runt",
    /// Longer than the host's interface takes.
    Oversize = "oversize",
    /// Outbound: the source MAC is not the VM's. Inbound: it is the VM's own, or a group's.
    SourceMac = "source-mac",
    /// Outbound: for a station other than the gateway. Inbound: for one other than the VM.
    DestinationMac = "destination-mac",
    /// For a broadcast or multicast MAC that this kind of frame may not be sent to.
    DestinationGroup = "destination-group",
    /// Inbound, with isolation: from a station other than the gateway, or from an address of
    /// the VM's own subnet that is not the gateway's.
    Isolation = "isolation",
    /// A VLAN tag (802.1Q, 802.1ad and older).
    Vlan = "vlan",
    /// IPv6.
    Ipv6 = "ipv6",
    /// IPv6 within IPv4 (6in4, 6to4).
    Ipv6InIpv4 = "ipv6-in-ipv4",
    /// An 802.3 frame with LLC, as spanning tree uses it.
    Llc = "llc",
    /// Port authentication (802.1X).
    Eapol = "eapol",
    /// Any other EtherType.
    EtherType = "ethertype",
    // --- ARP ---
    /// Not ARP about IPv4 over Ethernet, or cut short.
    ArpMalformed = "arp-malformed",
    /// Neither a request nor a reply.
    ArpOperation = "arp-operation",
    /// The sender in the message is not the sender of the frame.
    ArpSenderMac = "arp-sender-mac",
    /// Outbound: claims an address that is not the VM's. Inbound: claims the VM's address.
    ArpSenderAddress = "arp-sender-address",
    /// Claims the gateway's address for another MAC.
    ArpGateway = "arp-gateway",
    /// Probes for an address that is neither leased nor offered to the VM.
    ArpProbe = "arp-probe",
    /// The VM sends ARP to everybody more often than it may.
    ArpRate = "arp-rate",
    // --- IPv4 ---
    /// Version or lengths in the header disagree with the frame.
    Ipv4Malformed = "ipv4-malformed",
    /// An IP option other than router alert.
    Ipv4Options = "ipv4-options",
    /// A fragment that could rewrite or hide what was checked, or that no sender makes.
    Fragment = "fragment",
    /// The header of UDP, TCP or ICMP is cut short, or a UDP length is wrong.
    TransportMalformed = "transport-malformed",
    /// An ICMP redirect: there is only one gateway.
    IcmpRedirect = "icmp-redirect",
    /// An ICMP message that no host here has a use for.
    IcmpType = "icmp-type",
    /// An ICMP error that asks for packets smaller than every network carries.
    IcmpMtu = "icmp-mtu",
    /// An ICMP error about a packet of somebody else's, or one that does not tell whose.
    IcmpQuote = "icmp-quote",
    /// The VM has no lease yet.
    NoLease = "no-lease",
    /// The VM's lease has run out.
    LeaseExpired = "lease-expired",
    /// Outbound: the source is not the leased address. Inbound: it is.
    SourceAddress = "source-address",
    /// Inbound: not for the leased address, nor for a group that the VM may hear.
    DestinationAddress = "destination-address",
    /// A rule blocks the destination.
    DestinationBlocked = "destination-blocked",
    /// A private destination (RFC 1918, RFC 6598).
    DestinationPrivate = "destination-private",
    /// A link-local destination (169.254.0.0/16).
    DestinationLinkLocal = "destination-link-local",
    /// A public address at which a cloud tells its machines about themselves.
    DestinationMetadata = "destination-metadata",
    /// Loopback or "this network" (127.0.0.0/8, 0.0.0.0/8).
    DestinationLocal = "destination-local",
    /// A range kept for protocols, documentation, benchmarks or 6to4.
    DestinationSpecial = "destination-special",
    /// A multicast group (224.0.0.0/4).
    DestinationMulticast = "destination-multicast",
    /// A reserved destination (240.0.0.0/4).
    DestinationReserved = "destination-reserved",
    /// All stations (255.255.255.255).
    DestinationBroadcast = "destination-broadcast",
    /// Inbound, with rules for a direction: a rule blocks the sender.
    SourceBlocked = "source-blocked",
    /// With rules for a direction: it belongs to no connection that is known, and the rules
    /// allow connections only; or to a fragmented datagram whose first part did not pass.
    Untracked = "untracked",
    /// With rules for a direction: no room for another connection.
    FlowsFull = "flows-full",
    /// With rules for a direction: too many datagrams are under way in fragments.
    FragmentsFull = "fragments-full",
    /// In host-only mode: from or to anybody but the gateway.
    HostOnly = "host-only",
    /// To the gateway, by another protocol than TCP, UDP and ICMP.
    GatewayProtocol = "gateway-protocol",
    /// The VM opens TCP connections more often than it may.
    ConnectionRate = "connection-rate",
    // --- DHCP ---
    /// Not a DHCP message, or an ambiguous one.
    DhcpMalformed = "dhcp-malformed",
    /// A server's message from the VM, a client's message to it, or from a port of neither.
    DhcpRole = "dhcp-role",
    /// A request for a server other than the gateway.
    DhcpDestination = "dhcp-destination",
    /// A request from an address that is not the VM's.
    DhcpSource = "dhcp-source",
    /// About another client's hardware address.
    DhcpHardwareAddress = "dhcp-hardware-address",
    /// A request that pretends to come through a relay, or asks for another network.
    DhcpRelay = "dhcp-relay",
    /// A message type that has no place here.
    DhcpMessageType = "dhcp-message-type",
    /// The client says to have an address that is not the VM's, or fills in a server's field.
    DhcpClientAddress = "dhcp-client-address",
    /// The server identifier is not the gateway.
    DhcpServerIdentifier = "dhcp-server-identifier",
    /// Gives back an address that is not the VM's.
    DhcpRelease = "dhcp-release",
    /// Declines an address that was not offered to the VM.
    DhcpDecline = "dhcp-decline",
    /// A reply that does not come from the gateway.
    DhcpRogueServer = "dhcp-rogue-server",
    /// Grants an address that no VM on this interface can have, or that was not asked for.
    DhcpGrantedAddress = "dhcp-granted-address",
    /// Inbound: answers nothing that was asked and waits for an answer. Outbound: an INFORM in
    /// the transaction of a DISCOVER or REQUEST, or the other way round.
    DhcpTransaction = "dhcp-transaction",
    /// Inbound: for a client identifier that is not the VM's.
    DhcpClientIdentifier = "dhcp-client-identifier",
    /// The client identifier cannot be rewritten: the message would exceed the longest frame,
    /// or the field that the identifier is in.
    DhcpOversize = "dhcp-oversize",
    /// The VM asks more often than any client needs to.
    DhcpRate = "dhcp-rate",
    /// Grants an address that another VM of this host has.
    DhcpAddressTaken = "dhcp-address-taken",
    /// Inbound: the answer to what softnet has asked by itself.
    DhcpOwnAnswer = "dhcp-own-answer",
    // --- not the filter's: the forwarder gives these ---
    /// The VM did not take its frames within the bounded time.
    VmBusy = "vm-busy",
    /// The VM's socket does not take such a frame at all.
    VmRefused = "vm-refused",
    /// The VM's end of the socket is gone.
    VmGone = "vm-gone",
    /// The host's interface refused the frame.
    HostRefused = "host-refused",
    /// softnet was stopping, and the other side had no room.
    Stopping = "stopping",
}
