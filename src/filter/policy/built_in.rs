//! What holds where no rule speaks: the ranges that IANA keeps for special purposes, the clouds'
//! metadata services, and what no host sends to.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::super::prefix::Destination;

/// The ranges that are not for the public internet: RFC 6890 as of IANA's registry, and
/// multicast (RFC 5771). Those that the registry has as globally reachable are missing here
/// (192.31.196.0/24, 192.52.193.0/24, 192.175.48.0/24), except for the two addresses
/// 192.0.0.9 and 192.0.0.10 that lie within a range that is not.
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

/// Public addresses at which a cloud answers its machines, with their credentials among other
/// things, and with what it takes to get those: a VM on such a machine would be taken for it.
/// Other clouds have theirs in ranges that are closed anyway: 169.254/16, Alibaba and Tencent
/// in 100.64/10, Oracle in 192.0.0/24 too.
pub(super) const METADATA: [[u8; 4]; 2] = [
    // WireServer, "a virtual public IP address" that is the same in all of Azure, and a name
    // server: learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16.
    [168, 63, 129, 16],
    // Equinix Metal, once Packet: metadata.platformequinix.com. The address stands in what
    // keeps pods from it (equinix-labs/pulumi-equinix-kubernetes-cluster,
    // nodejs/cloud-init/scripts/net-deny-metadata.sh).
    [192, 80, 8, 124],
];

/// First bytes of what no host may send to: "this network" and loopback (RFC 1122, 3.2.1.3).
pub(super) const NEVER_SENT: [u8; 2] = [0, 127];

/// A network that is written in this program.
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

/// What `@metadata` stands for: link-local addresses, where most clouds have it, with AWS' for
/// tasks and pods too; [`METADATA`]; and the single addresses of Alibaba (100.100.100.200,
/// alibabacloud.com/help/ecs/user-guide/view-instance-metadata) and Oracle (192.0.0.192,
/// docs.oracle.com/iaas/compute-iaas-cloud).
pub(super) const ALL_METADATA: [([u8; 4], u8); 5] = [
    ([169, 254, 0, 0], 16),
    ([100, 100, 100, 200], 32),
    (METADATA[0], 32),
    ([192, 0, 0, 192], 32),
    (METADATA[1], 32),
];
