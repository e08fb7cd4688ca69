//! The built-in rules, for packets that no rule matches: the ranges that IANA reserves for special
//! purposes, the clouds' metadata services, and destinations that no host may send to.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::super::prefix::Destination;

/// The ranges that are not part of the public internet: RFC 6890 as listed in IANA's registry, and
/// multicast (RFC 5771). Ranges that the registry lists as globally reachable are not included
/// (192.31.196.0/24, 192.52.193.0/24, 192.175.48.0/24), except for the two addresses 192.0.0.9 and
/// 192.0.0.10 within a range that is not globally reachable.
pub(super) const SPECIAL_PURPOSE: [([u8; 4], u8, Destination); 14] = [
    ([10, 0, 0, 0], 8, Destination::Private),       // RFC 1918
    ([172, 16, 0, 0], 12, Destination::Private),    // RFC 1918
    ([192, 168, 0, 0], 16, Destination::Private),   // RFC 1918
    ([100, 64, 0, 0], 10, Destination::Private),    // RFC 6598, behind a provider's NAT
    ([169, 254, 0, 0], 16, Destination::LinkLocal), // RFC 3927
    ([192, 0, 0, 0], 24, Destination::Special),     // RFC 6890, protocol assignments
    ([192, 0, 2, 0], 24, Destination::Special),     // RFC 5737, documentation
    ([198, 51, 100, 0], 24, Destination::Special),  // RFC 5737
    ([203, 0, 113, 0], 24, Destination::Special),   // RFC 5737
    ([192, 88, 99, 0], 24, Destination::Special),   // RFC 7526, 6to4 relays, withdrawn
    ([198, 18, 0, 0], 15, Destination::Special),    // RFC 2544, benchmarks
    ([224, 0, 0, 0], 4, Destination::Multicast),    // RFC 5771
    ([240, 0, 0, 0], 4, Destination::Reserved),     // RFC 1112
    ([255, 255, 255, 255], 32, Destination::Broadcast), // RFC 919
];

/// Public addresses of clouds' metadata services. These give a machine its credentials, or what it
/// takes to get them, and would take a VM for the machine that it runs on. Other clouds use ranges
/// that are closed anyway: 169.254/16, Alibaba and Tencent 100.64/10, Oracle 192.0.0/24 too.
pub(super) const METADATA: [[u8; 4]; 2] = [
    // WireServer, "a virtual public IP address" that is the same in all of Azure, and a name
    // server: learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16.
    [168, 63, 129, 16],
    // Equinix Metal, formerly Packet: metadata.platformequinix.com. The address is known from a
    // script that blocks it for pods (equinix-labs/pulumi-equinix-kubernetes-cluster,
    // nodejs/cloud-init/scripts/net-deny-metadata.sh).
    [192, 80, 8, 124],
];

/// The first bytes of destinations that no host may send to: "this network" and loopback (RFC 1122,
/// 3.2.1.3).
pub(super) const NEVER_SENT: [u8; 2] = [0, 127];

/// A network from a constant.
pub(super) fn net([a, b, c, d]: [u8; 4], len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len)
}

/// What `@private` stands for.
pub(super) const PRIVATE: [([u8; 4], u8); 4] = [
    ([10, 0, 0, 0], 8),
    ([172, 16, 0, 0], 12),
    ([192, 168, 0, 0], 16),
    ([100, 64, 0, 0], 10),
];

/// What `@metadata` stands for: link-local addresses, which most clouds use, also AWS for tasks and
/// pods; [`METADATA`]; and the single addresses of Alibaba (100.100.100.200,
/// alibabacloud.com/help/ecs/user-guide/view-instance-metadata) and Oracle (192.0.0.192,
/// docs.oracle.com/iaas/compute-iaas-cloud).
pub(super) const ALL_METADATA: [([u8; 4], u8); 5] = [
    ([169, 254, 0, 0], 16),
    ([100, 100, 100, 200], 32),
    (METADATA[0], 32),
    ([192, 0, 0, 192], 32),
    (METADATA[1], 32),
];
