//! The outcome of a decision, which is a value and never an error.

/// The fate of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is forwarded.
    Forward,
    /// It is dropped, for this reason.
    Drop(DropReason),
}

/// The result of checking the headers: a verdict, or a reason to inspect the frame further, which
/// may rewrite it ([`Filter::inspect`](super::Filter::inspect)).
///
/// The reason is passed on because the lease may change between the two checks: a frame that may
/// only cause a request of softnet's must not pass because its sender has got a lease meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A final verdict.
    Done(Verdict),
    /// There are bytes behind its packet or message, which must be cut off first.
    Trailer,
    /// It carries a DHCP message.
    Dhcp,
    /// It carries a DHCP message between a client's port and the boot server's port.
    Boot,
    /// Outbound: an ARP message, which may be broadcast.
    Arp,
    /// Its addresses alone do not decide: there are rules with ports, protocols or directions.
    Rules,
    /// Outbound: it opens a TCP connection.
    Connection,
    /// Outbound: it names an address of which the VM has no lease. softnet asks the server about
    /// that address instead.
    Unleased,
}

// One byte, so that this result of every frame is returned in a register.
const _: () = assert!(size_of::<Step>() == 1);

impl From<Result<(), DropReason>> for Verdict {
    #[inline]
    fn from(outcome: Result<(), DropReason>) -> Self {
        outcome.map_or_else(Self::Drop, |()| Self::Forward)
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a frame was dropped. Labels are part of the public interface: logs, counters and
        /// tests use them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of the indices.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$name),*];

            /// The name in logs and counters. It does not change between releases.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// Whether the policy decides, or what is built in for its lack, about a packet that
            /// the VM itself has sent to a single machine: only of that is the VM told.
            #[must_use]
            pub const fn is_policy(self) -> bool {
                matches!(
                    self,
                    Self::DestinationBlocked
                        | Self::DestinationPrivate
                        | Self::DestinationLinkLocal
                        | Self::DestinationLocal
                        | Self::DestinationMetadata
                        | Self::DestinationReserved
                        | Self::DestinationSpecial
                        | Self::GatewayProtocol
                        | Self::HostOnly
                        | Self::Isolation
                        | Self::Untracked
                )
            }

            /// Whether only the rules, or what is built in for their lack, refuse such a packet, so
            /// that an audit lets it pass. What keeps the VM from posing as somebody else, from its
            /// neighbours and from exhausting the host is enforced.
            #[must_use]
            pub const fn is_audited(self) -> bool {
                matches!(
                    self,
                    Self::DestinationBlocked
                        | Self::DestinationPrivate
                        | Self::DestinationLinkLocal
                        | Self::DestinationMetadata
                        | Self::DestinationReserved
                        | Self::DestinationSpecial
                        | Self::SourceBlocked
                        | Self::Untracked
                )
            }

            /// The index of this reason in a table of counters, below `ALL.len()`.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

drop_reasons! {
    // --- the frame ---
    /// Shorter than an Ethernet header (14 bytes), including an empty datagram.
    Runt = "runt",
    /// Longer than the host's interface accepts.
    Oversize = "oversize",
    /// Outbound: the source MAC is not the VM's. Inbound: it is the VM's own, or a group address.
    SourceMac = "source-mac",
    /// Outbound: to a station other than the gateway. Inbound: to one other than the VM.
    DestinationMac = "destination-mac",
    /// To a broadcast or multicast MAC that this kind of frame may not be sent to.
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
    /// Not ARP for IPv4 over Ethernet, or truncated.
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
    /// The VM broadcasts ARP more often than it may.
    ArpRate = "arp-rate",
    // --- IPv4 ---
    /// Its version or lengths contradict the frame.
    Ipv4Malformed = "ipv4-malformed",
    /// An IP option other than router alert.
    Ipv4Options = "ipv4-options",
    /// A fragment that could overwrite or hide what was checked, or that no sender produces.
    Fragment = "fragment",
    /// The header of UDP, TCP or ICMP is truncated, or a UDP length is wrong.
    TransportMalformed = "transport-malformed",
    /// An ICMP redirect: there is only one gateway.
    IcmpRedirect = "icmp-redirect",
    /// An ICMP message that no host here has any use for.
    IcmpType = "icmp-type",
    /// An ICMP error that asks for packets smaller than every network carries.
    IcmpMtu = "icmp-mtu",
    /// An ICMP error about somebody else's packet, or one that does not say whose.
    IcmpQuote = "icmp-quote",
    /// The VM has no lease yet.
    NoLease = "no-lease",
    /// The VM's lease has expired.
    LeaseExpired = "lease-expired",
    /// Outbound: the source is not the leased address. Inbound: it is.
    SourceAddress = "source-address",
    /// Inbound: neither for the leased address nor for a group that a rule allows.
    DestinationAddress = "destination-address",
    /// A rule blocks the destination.
    DestinationBlocked = "destination-blocked",
    /// A private destination (RFC 1918, RFC 6598).
    DestinationPrivate = "destination-private",
    /// A link-local destination (169.254.0.0/16).
    DestinationLinkLocal = "destination-link-local",
    /// A public address of a cloud's metadata service.
    DestinationMetadata = "destination-metadata",
    /// Loopback or "this network" (127.0.0.0/8, 0.0.0.0/8).
    DestinationLocal = "destination-local",
    /// A range kept for protocols, documentation, benchmarks or 6to4.
    DestinationSpecial = "destination-special",
    /// A multicast group (224.0.0.0/4).
    DestinationMulticast = "destination-multicast",
    /// A reserved destination (240.0.0.0/4).
    DestinationReserved = "destination-reserved",
    /// The broadcast address (255.255.255.255).
    DestinationBroadcast = "destination-broadcast",
    /// Inbound, with rules for a direction: a rule blocks the sender.
    SourceBlocked = "source-blocked",
    /// With rules for a direction: it belongs to no known connection, and the rules allow
    /// connections only; or it belongs to a datagram whose first fragment did not pass.
    Untracked = "untracked",
    /// With rules for a direction: no room for another connection.
    FlowsFull = "flows-full",
    /// Outbound, with rules for a direction: too many connections to one server.
    ServerLimit = "server-limit",
    /// With rules for a direction: too many datagrams are incomplete.
    FragmentsFull = "fragments-full",
    /// In host-only mode: not from or to the gateway.
    HostOnly = "host-only",
    /// To the gateway, by a protocol other than TCP, UDP and ICMP.
    GatewayProtocol = "gateway-protocol",
    /// The VM opens TCP connections more often than it may.
    ConnectionRate = "connection-rate",
    // --- DHCP ---
    /// Not a DHCP message, or an ambiguous one.
    DhcpMalformed = "dhcp-malformed",
    /// A server's message from the VM, a client's message to it, or one from any other port.
    DhcpRole = "dhcp-role",
    /// A request for a server other than the gateway.
    DhcpDestination = "dhcp-destination",
    /// A request from an address that is not the VM's.
    DhcpSource = "dhcp-source",
    /// About another client's hardware address.
    DhcpHardwareAddress = "dhcp-hardware-address",
    /// A request that claims to come through a relay, or asks for another network.
    DhcpRelay = "dhcp-relay",
    /// A message type that softnet does not allow.
    DhcpMessageType = "dhcp-message-type",
    /// The client claims an address that is not the VM's, or fills in a field of the server's.
    DhcpClientAddress = "dhcp-client-address",
    /// The server identifier is not the gateway.
    DhcpServerIdentifier = "dhcp-server-identifier",
    /// Releases an address that is not the VM's.
    DhcpRelease = "dhcp-release",
    /// Declines an address that was not offered to the VM.
    DhcpDecline = "dhcp-decline",
    /// A reply that does not come from the gateway.
    DhcpRogueServer = "dhcp-rogue-server",
    /// Grants an address that no VM on this interface may have, or that was not asked for.
    DhcpGrantedAddress = "dhcp-granted-address",
    /// Inbound: answers no open request. Outbound: an INFORM in the transaction of a DISCOVER or
    /// REQUEST, or the other way round.
    DhcpTransaction = "dhcp-transaction",
    /// Inbound: for a client identifier that is not the VM's.
    DhcpClientIdentifier = "dhcp-client-identifier",
    /// The client identifier cannot be rewritten: the message would exceed the longest frame, or
    /// the field that contains the identifier.
    DhcpOversize = "dhcp-oversize",
    /// The VM asks more often than any client needs to.
    DhcpRate = "dhcp-rate",
    /// Grants an address that another VM of this host has.
    DhcpAddressTaken = "dhcp-address-taken",
    /// Inbound: the answer to softnet's own request.
    DhcpOwnAnswer = "dhcp-own-answer",
    // --- from the forwarder, not from the filter ---
    /// The VM did not take its frames within the time limit.
    VmBusy = "vm-busy",
    /// The VM's socket refused the frame.
    VmRefused = "vm-refused",
    /// The VM's end of the socket is gone.
    VmGone = "vm-gone",
    /// The host's interface refused the frame.
    HostRefused = "host-refused",
    /// softnet was stopping, and the other side had no room.
    Stopping = "stopping",
}
