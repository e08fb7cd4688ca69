//! DHCP messages for the tests of the filter.

use super::*;

/// A DHCP message: fields as RFC 2131 calls them, and the options as bytes without the end.
#[derive(Debug, Clone)]
pub struct Dhcp {
    pub op: u8,
    pub xid: u32,
    pub ciaddr: &'static str,
    pub yiaddr: &'static str,
    pub giaddr: &'static str,
    pub chaddr: Mac,
    pub options: Vec<u8>,
}

impl Dhcp {
    /// A client's message of a kind.
    pub fn request(kind: u8) -> Self {
        Self {
            op: 1,
            xid: 0x1234_5678,
            ciaddr: "0.0.0.0",
            yiaddr: "0.0.0.0",
            giaddr: "0.0.0.0",
            chaddr: VM,
            options: vec![53, 1, kind],
        }
    }

    /// Gives the lease back.
    pub fn release() -> Self {
        Self {
            ciaddr: VM_IP,
            ..Self::request(7)
        }
    }

    /// Says that somebody else has the VM's address.
    pub fn decline() -> Self {
        Self::request(4).address(50, VM_IP)
    }

    /// The gateway's answer of a kind, as dnsmasq and bootpd give it.
    pub fn reply(kind: u8) -> Self {
        let reply = Self {
            op: 2,
            yiaddr: VM_IP,
            ..Self::request(kind)
        };
        reply.address(54, GATEWAY_IP)
    }

    /// The answer that grants the lease for ten minutes.
    pub fn ack() -> Self {
        Self::reply(5)
            .option(51, &600_u32.to_be_bytes())
            .address(1, "255.255.255.0")
            .option(
                6,
                &[ip(GATEWAY_IP).octets(), ip(NAME_SERVER).octets()].concat(),
            )
    }

    /// The answer that refuses.
    pub fn nak() -> Self {
        Self {
            yiaddr: "0.0.0.0",
            ..Self::reply(6)
        }
    }

    /// One option more.
    pub fn option(mut self, code: u8, data: &[u8]) -> Self {
        self.options
            .extend([code, u8::try_from(data.len()).unwrap()]);
        self.options.extend(data);
        self
    }

    /// One option more, which holds an address.
    pub fn address(self, code: u8, address: &str) -> Self {
        self.option(code, &ip(address).octets())
    }

    /// With pad options up to a frame of so many bytes.
    pub fn padded_to(mut self, frame_len: usize) -> Self {
        self.options.resize(frame_len - 42 - 240 - 1, 0);
        self
    }

    pub fn message(&self) -> Vec<u8> {
        let mut message = vec![self.op, 1, 6, 0];
        message.extend(self.xid.to_be_bytes());
        message.extend([0; 4]);
        message.extend(ip(self.ciaddr).octets());
        message.extend(ip(self.yiaddr).octets());
        message.extend([0; 4]);
        message.extend(ip(self.giaddr).octets());
        message.extend(self.chaddr.0);
        message.extend([0; 10 + 64 + 128]);
        message.extend([0x63, 0x82, 0x53, 0x63]);
        message.extend(&self.options);
        message.push(255);
        message
    }

    /// As a client that has no address sends it: to everybody.
    pub fn broadcast(&self) -> Frame {
        udp("0.0.0.0", 68, "255.255.255.255", 67, &self.message()).to(ALL)
    }

    /// As a client that has this address sends it: to the gateway.
    pub fn unicast(&self, source: &str) -> Frame {
        udp(source, 68, GATEWAY_IP, 67, &self.message())
    }

    /// As the gateway sends it to the VM.
    pub fn answer(&self) -> Frame {
        inbound(udp(GATEWAY_IP, 67, VM_IP, 68, &self.message()))
    }

    /// As the gateway sends it when the client asked for broadcast.
    pub fn answer_to_all(&self) -> Frame {
        let frame = udp(GATEWAY_IP, 67, "255.255.255.255", 68, &self.message());
        inbound(frame).to(ALL)
    }
}
