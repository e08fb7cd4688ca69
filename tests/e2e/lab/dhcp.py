"""A DHCP client made by hand, which says whatever it is told to: macOS' words, an attacker's."""

import itertools
import random

from scapy.layers.dhcp import BOOTP, DHCP, DHCPTypes
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from lab.network import GATEWAY

BROADCAST_MAC, BROADCAST = "ff:ff:ff:ff:ff:ff", "255.255.255.255"
# Its top bit asks the server to answer to everybody (RFC 2131, figure 2).
BROADCAST_FLAG = 0x8000
PATIENCE = 1.0
_xids = itertools.count(random.randrange(1 << 31))


def identifier_of(mac):
    """The client identifier of most clients: the hardware type, and the address."""
    return b"\x01" + bytes.fromhex(mac.replace(":", ""))


def message(mac, kind, *options, source="0.0.0.0", to=(BROADCAST_MAC, BROADCAST), chaddr=None, **fields):
    """The frame of a client's message; `fields` are those of the BOOTP header."""
    hardware = bytes.fromhex((chaddr or mac).replace(":", ""))
    fields.setdefault("xid", next(_xids))
    return (
        Ether(src=mac, dst=to[0])
        / IP(src=source, dst=to[1])
        / UDP(sport=68, dport=67)
        / BOOTP(chaddr=hardware, **fields)
        / DHCP(options=[("message-type", kind), *options, "end"])
    )


class Client:
    """One client, with an identifier and options of its own, behind a raw socket."""

    def __init__(self, card, mac, *options, chaddr=None, flags=0):
        self._card, self._mac, self._options = card, mac, options
        self._fields = {"chaddr": chaddr, "flags": flags}

    def ask(self, kind, *options, timeout=PATIENCE, **fields):
        """Sends a message and returns the reply to it as an (Ethernet) packet, or None."""
        asked = message(self._mac, kind, *self._options, *options, **(self._fields | fields))
        self._card.send(asked)
        for frame in self._card.arriving(timeout):
            reply = Ether(frame)
            if BOOTP in reply and reply[BOOTP].op == 2 and reply[BOOTP].xid == asked[BOOTP].xid:
                return reply
        return None

    def bind(self, timeout=PATIENCE):
        """Has an address granted, from DISCOVER to ACK; returns the ACK, or None."""
        offer = self.ask("discover", timeout=timeout)
        if not offer:
            return None
        return self.ask(
            "request",
            ("server_id", option(offer, "server_id")),
            ("requested_addr", offer[BOOTP].yiaddr),
            xid=offer[BOOTP].xid,
            timeout=timeout,
        )


def option(reply, name):
    """An option of a reply, or None."""
    for it in reply[DHCP].options:
        if it[0] == name:
            return it[1]
    return None


def kind_of(message):
    """The name of a message's type, or None without a message."""
    return message and DHCPTypes[option(message, "message-type")]


SERVER = ("server_id", GATEWAY)
