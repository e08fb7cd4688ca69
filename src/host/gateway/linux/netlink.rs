//! Finds the gateway through the kernel (rtnetlink): the bridge that the TAP belongs to, or the
//! TAP.

use std::io;
use std::net::IpAddr;

use ipnet::Ipv4Net;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::net::if_::if_nametoindex;

use super::super::{Gateway, GatewayArg};
use crate::host::HostError;
use crate::wire::Mac;

/// Finds the gateway behind `tap`: the one `named`, or else the first primary IPv4 address of the
/// TAP's bridge, or of the TAP itself if it belongs to none.
///
/// # Errors
/// [`HostError::NoGateway`] if neither has an address and none was named.
pub fn find(tap: &str, named: Option<GatewayArg>) -> Result<Gateway, HostError> {
    find_with_warning(tap, named, false).map(|(gateway, _)| gateway)
}

/// The same, with a warning if what is behind the TAP looks like a mistake but may be intended.
/// `is_new` says that softnet has just created the TAP.
///
/// # Errors
/// The same as for [`find`].
pub fn find_with_warning(
    tap: &str,
    named: Option<GatewayArg>,
    is_new: bool,
) -> Result<(Gateway, Option<String>), HostError> {
    let ask = || -> io::Result<_> {
        let mut netlink = Netlink::open()?;
        let mut link = netlink.link(if_nametoindex(tap)?)?;
        if let Some(master) = link.master {
            link = netlink.link(master)?;
        }
        let addresses = netlink.addresses(link.index)?;
        Ok((link, addresses))
    };
    let (link, addresses) = ask().map_err(HostError::system("ask for the gateway"))?;
    if link.name != tap || !addresses.is_empty() {
        return choose(&link, &addresses, named);
    }
    match choose(&link, &addresses, named) {
        Err(HostError::NoGateway { interface }) if is_new => {
            Err(HostError::NoGatewayYet { interface })
        }
        chosen => chosen.map(|(gateway, _)| (gateway, Some(unconnected(tap, is_new)))),
    }
}

fn unconnected(tap: &str, is_new: bool) -> String {
    let (made, which) = if is_new {
        ("softnet made ", ", which")
    } else {
        ("", "")
    };
    format!(
        "{made}the TAP {tap}{which} is in no bridge and has no address; the VM reaches nothing \
         until you run: ip link set {tap} master BRIDGE, or ip addr add ADDRESS/24 dev {tap}"
    )
}

fn choose(
    link: &Link,
    addresses: &[Address],
    named: Option<GatewayArg>,
) -> Result<(Gateway, Option<String>), HostError> {
    let interface = &link.name;
    let own = |address: &Address| Gateway {
        address: address.net.addr(),
        subnet: Some(address.net.trunc()),
        mac: link.mac,
    };
    let Some(named) = named else {
        let mut primary = addresses.iter().filter(|address| !address.is_secondary);
        let gateway = primary
            .next()
            .map(own)
            .ok_or_else(|| HostError::NoGateway {
                interface: interface.clone(),
            })?;
        let warning = (addresses.len() > 1).then(|| {
            let all: Vec<_> = addresses
                .iter()
                .map(|address| address.net.addr().to_string())
                .collect();
            format!(
                "{interface} has several addresses, {}: taking {} as the gateway; --gateway names \
                 the one that answers DHCP",
                all.join(", "),
                gateway.address
            )
        });
        return Ok((gateway, warning));
    };
    let address = named.address;
    if let Some(ours) = addresses.iter().find(|ours| ours.net.addr() == address) {
        let taken = ours.net.trunc();
        let other = named.subnet.filter(|subnet| *subnet != taken);
        let warning = other.map(|other| {
            format!("--gateway says {other}, and {interface} has {taken}, which is taken")
        });
        return Ok((own(ours), warning));
    }
    let near = addresses.iter().find(|near| near.net.contains(&address));
    let place = match near {
        None if !addresses.is_empty() => "in no network",
        _ => "no address",
    };
    let gateway = Gateway {
        address,
        subnet: near.map(|near| near.net.trunc()).or(named.subnet),
        mac: None,
    };
    let warning = format!(
        "--gateway {address} is {place} of {interface}: the VM reaches it only if it is a machine \
         behind {interface}, which answers DHCP"
    );
    Ok((gateway, Some(warning)))
}

/// What netlink reports about an interface.
#[derive(Debug, Default)]
struct Link {
    index: u32,
    name: String,
    mac: Option<Mac>,
    /// The interface of which this one is a port.
    master: Option<u32>,
}

/// An IPv4 address of an interface.
#[derive(Debug)]
struct Address {
    net: Ipv4Net,
    /// Whether it was added after another address of the same network. The kernel sends from that
    /// one, but both belong to the interface.
    is_secondary: bool,
}

/// A netlink connection, for the network namespace in which it was opened.
struct Netlink(Socket);

impl Netlink {
    fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    fn link(&mut self, index: u32) -> io::Result<Link> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        let mut found = None;
        self.ask(RouteNetlinkMessage::GetLink(request), 0, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                found = Some(read_link(link));
            }
        })?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The IPv4 addresses of an interface, with their prefix lengths.
    fn addresses(&mut self, index: u32) -> io::Result<Vec<Address>> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let mut found = Vec::new();
        self.ask(
            RouteNetlinkMessage::GetAddress(request),
            NLM_F_DUMP,
            |answer| {
                // A dump contains all interfaces.
                if let RouteNetlinkMessage::NewAddress(address) = answer
                    && address.header.index == index
                {
                    found.extend(read_address(&address));
                }
            },
        )?;
        Ok(found)
    }

    /// Sends one request, and passes each message of the answer to `read`.
    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        mut read: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        loop {
            let (datagram, _) = self.0.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => read(answer),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => return Ok(()),
                }
                // Messages start at multiples of 4 (NLMSG_ALIGN).
                let len = usize::try_from(message.header.length).map_err(io::Error::other)?;
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
            if flags & NLM_F_DUMP == 0 {
                return Ok(());
            }
        }
    }
}

fn read_link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok().map(Mac),
            LinkAttribute::Controller(master) => link.master = Some(master),
            _ => (),
        }
    }
    link
}

fn read_address(message: &AddressMessage) -> Option<Address> {
    // On a point-to-point link IFA_ADDRESS is the peer's, and IFA_LOCAL is ours.
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
    Some(Address {
        net: Ipv4Net::new(local?, message.header.prefix_len).ok()?,
        is_secondary: message.header.flags.contains(AddressHeaderFlags::Secondary),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn bridge() -> Link {
        Link {
            index: 3,
            name: "br0".to_owned(),
            mac: Some(MAC),
            master: None,
        }
    }

    fn named(text: &str) -> GatewayArg {
        let net: Ipv4Net = text.parse().unwrap();
        GatewayArg {
            address: net.addr(),
            subnet: (net.prefix_len() < 32).then(|| net.trunc()),
        }
    }

    fn chosen(addresses: &[Address], named: Option<GatewayArg>) -> Gateway {
        choose(&bridge(), addresses, named).unwrap().0
    }

    fn warning(addresses: &[&str], named: Option<&str>) -> Option<String> {
        let named = named.map(self::named);
        choose(&bridge(), &nets(addresses), named).unwrap().1
    }

    fn nets(nets: &[&str]) -> Vec<Address> {
        let address = |net: &&str| Address {
            net: net.parse().unwrap(),
            is_secondary: false,
        };
        nets.iter().map(address).collect()
    }

    #[test]
    fn the_first_address_is_the_gateway_unless_one_is_named() {
        let nets = nets(&["192.168.64.1/24", "10.0.0.1/8"]);
        let first = chosen(&nets, None);
        assert_eq!(first.address, Ipv4Addr::new(192, 168, 64, 1));
        assert_eq!(first.subnet, Some("192.168.64.0/24".parse().unwrap()));
        assert_eq!(first.mac, Some(MAC));
        let second = chosen(&nets, Some(named("10.0.0.1/32")));
        assert_eq!(second.subnet, Some("10.0.0.0/8".parse().unwrap()));
        assert_eq!(second.mac, Some(MAC));
    }

    #[test]
    fn a_secondary_address_is_the_gateway_only_if_it_is_named() {
        let mut nets = nets(&["192.168.64.2/24", "192.168.64.1/24"]);
        nets[0].is_secondary = true;
        assert_eq!(chosen(&nets, None).address, Ipv4Addr::new(192, 168, 64, 1));
        let second = chosen(&nets, Some(named("192.168.64.2/32")));
        assert_eq!(second.mac, Some(MAC));
        assert_eq!(second.subnet, Some("192.168.64.0/24".parse().unwrap()));
    }

    #[test]
    fn a_gateway_that_is_another_machine_has_no_mac_yet() {
        let nets = nets(&["192.168.64.1/24"]);
        let router = Ipv4Addr::new(192, 168, 64, 254);
        let gateway = chosen(&nets, Some(named("192.168.64.254/32")));
        assert_eq!((gateway.address, gateway.mac), (router, None));
        assert_eq!(gateway.subnet, Some("192.168.64.0/24".parse().unwrap()));
        let elsewhere = chosen(&[], Some(named("192.168.64.254/32")));
        assert_eq!((elsewhere.subnet, elsewhere.mac), (None, None));
    }

    #[test]
    fn a_network_that_was_named_counts_where_the_system_tells_none() {
        let named = Some(named("192.168.78.1/24"));
        let expected = Some("192.168.78.0/24".parse().unwrap());
        assert_eq!(chosen(&[], named).subnet, expected);
        assert_eq!(chosen(&nets(&["10.0.0.1/8"]), named).subnet, expected);
        let wider = chosen(&nets(&["192.168.78.1/16"]), named);
        assert_eq!(wider.subnet, Some("192.168.0.0/16".parse().unwrap()));
    }

    #[test]
    fn what_looks_like_a_mistake_is_told_and_nothing_else() {
        assert_eq!(warning(&["192.168.64.1/24"], None), None);
        assert_eq!(warning(&["192.168.64.1/24"], Some("192.168.64.1/24")), None);
        let two = ["192.168.64.1/24", "10.0.0.1/8"];
        assert_eq!(warning(&two, Some("10.0.0.1/32")), None);
        let machine = ": the VM reaches it only if it is a machine behind br0, which answers DHCP";
        for (addresses, named, text) in [
            (
                &two[..],
                None,
                "br0 has several addresses, 192.168.64.1, 10.0.0.1: taking 192.168.64.1 as the \
                 gateway; --gateway names the one that answers DHCP"
                    .to_owned(),
            ),
            (
                &two[..],
                Some("10.0.0.2/32"),
                format!("--gateway 10.0.0.2 is no address of br0{machine}"),
            ),
            (
                &[],
                Some("10.0.0.2/32"),
                format!("--gateway 10.0.0.2 is no address of br0{machine}"),
            ),
            (
                &two[..1],
                Some("10.0.0.1/24"),
                format!("--gateway 10.0.0.1 is in no network of br0{machine}"),
            ),
            (
                &two[1..],
                Some("10.0.0.1/24"),
                "--gateway says 10.0.0.0/24, and br0 has 10.0.0.0/8, which is taken".to_owned(),
            ),
        ] {
            assert_eq!(warning(addresses, named), Some(text));
        }
    }

    #[test]
    fn no_address_is_an_error_that_names_the_interface() {
        let error = choose(&bridge(), &[], None).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no gateway: br0 has no IPv4 address"),
            "{error}"
        );
    }

    #[test]
    fn the_kernel_answers_about_the_loopback_interface() {
        let (gateway, warning) = find_with_warning("lo", None, false).unwrap();
        assert_eq!(warning, None);
        assert_eq!(gateway.address, Ipv4Addr::LOCALHOST);
        assert_eq!(gateway.subnet, Some("127.0.0.0/8".parse().unwrap()));
        assert_eq!(gateway.mac, Some(Mac([0; 6])));
    }

    #[test]
    fn an_interface_that_is_none_is_an_error() {
        find("softnet-none", None).unwrap_err();
    }
}
