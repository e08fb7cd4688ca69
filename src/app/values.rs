//! Parses the values of flags: each function takes one word of the command line.

use std::num::NonZeroU16;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::Ipv4Net;
use softnet::forward::HandOver;
use softnet::host::gateway::GatewayArg;
use softnet::wire::Mac;

use super::uplink::Exposed;

/// A parser that accepts one of several words, and returns what that word means.
pub(super) fn word<T>(meanings: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let words = PossibleValuesParser::new(meanings.iter().map(|(word, _)| *word));
    words.try_map(|typed| {
        let meaning = meanings.iter().find(|(word, _)| *word == typed);
        meaning.map(|(_, meaning)| *meaning).ok_or("unknown")
    })
}

/// Parses the MAC address of a single station.
pub(super) fn station(text: &str) -> Result<Mac, String> {
    let mac: Mac = text.parse().map_err(|error| format!("{error}"))?;
    if mac.is_multicast() || mac == Mac([0; 6]) {
        return Err("the address of a group or of nobody, not of one VM".to_owned());
    }
    Ok(mac)
}

/// Parses the name of an interface as Linux allows it (dev_valid_name in net/core/dev.c), except
/// for patterns such as `tap%d`.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let bad = |byte: u8| byte.is_ascii_whitespace() || b"/:%\0".contains(&byte);
    if !(1..=15).contains(&text.len()) || text.bytes().any(bad) || [".", ".."].contains(&text) {
        return Err("not the name of an interface: 1 to 15 bytes, no spaces, no / : %".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses the address of a single machine and, if a prefix length is given, its network.
pub(super) fn gateway(text: &str) -> Result<GatewayArg, String> {
    let net = text.parse().map(|net: Ipv4Net| (net.addr(), Some(net)));
    let (address, net) = net
        .or_else(|_| text.parse().map(|address| (address, None)))
        .map_err(|_| "neither an IPv4 address nor one with a prefix length".to_owned())?;
    let [first, ..] = address.octets();
    let is_none =
        |net: Ipv4Net| net.prefix_len() < 31 && [net.network(), net.broadcast()].contains(&address);
    if first == 0 || first >= 224 || net.is_some_and(is_none) {
        return Err("not the address of one machine".to_owned());
    }
    // No network is larger than a /8, and a /32 is not a network.
    if net.is_some_and(|net| net.prefix_len() < 8) {
        return Err("no VM's network is that large: 8 to 32 are lengths of a prefix".to_owned());
    }
    let subnet = net.filter(|net| net.prefix_len() < 32);
    Ok(GatewayArg {
        address,
        subnet: subnet.map(|net| net.trunc()),
    })
}

/// Parses `EXTERNAL:INTERNAL`.
pub(super) fn exposed(text: &str) -> Result<Exposed, String> {
    let port = |text: &str| text.parse::<NonZeroU16>().ok();
    let (external, internal) = text.split_once(':').unwrap_or((text, ""));
    match (port(external), port(internal)) {
        (Some(external), Some(internal)) => Ok(Exposed { external, internal }),
        _ => Err("not EXTERNAL:INTERNAL, two ports from 1 to 65535, as in 2222:22".to_owned()),
    }
}

pub(super) const HAND_OVERS: [(&str, HandOver); 4] = [
    ("auto", HandOver::Auto),
    ("load", HandOver::Load),
    ("always", HandOver::Always),
    ("never", HandOver::Never),
];
