"""A host with a bridge and one DHCP server, on a subnet of its own, so that many can be used at
once: softnet's registry knows one owner of an address on the whole machine."""

import re

from lab import namespace, paths
from lab.network import GATEWAY_MAC, Network
from lab.process import end, spawn
from lab.servers import Dnsmasq, Kea

# Seconds. dnsmasq knows no lease of less than two minutes, but says whatever it is told to say
# about when to renew.
RENEW, REBIND = 14, 28
KEA_LEASE, DNSMASQ_LEASE = 40, 120


class Site(Network):
    """Use it in a `with` statement; leaving that removes all of it."""

    def __init__(self, number, server, *options, boots=None, **extra):
        """`options` are dnsmasq's, `extra` goes into Kea's configuration. `boots` is a folder
        of files that the gateway serves by TFTP."""
        super().__init__()
        self.host = namespace.name_for(f"site{number}")
        self.subnet = f"192.168.{number}."
        self.gateway, self.pool = f"{self.subnet}1", (f"{self.subnet}100", f"{self.subnet}200")
        self._start = {"dnsmasq": self._dnsmasq, "kea": self._kea}[server]
        self._options, self._extra, self._boots = options, extra, boots

    def _make_namespaces(self):
        self._cleanup.callback(namespace.remove, self.host)
        namespace.make(self.host)
        namespace.sysctl(self.host, ipv6__conf__default__disable_ipv6=1)
        namespace.configure(
            self.host,
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set br0 address {GATEWAY_MAC} up",
            f"addr add {self.gateway}/24 dev br0",
            # Kea does not open an interface that has no carrier, and a bridge has its ports'.
            "link add port0 type veth peer name port1",
            "link set port0 master br0 up",
            "link set port1 up",
        )
        bridged = {f"bridge__bridge-nf-call-{it}": 0 for it in ("iptables", "ip6tables", "arptables")}
        namespace.sysctl(self.host, **bridged)

    def _start_servers(self):
        self.dhcp = self._start()
        self._cleanup.callback(lambda: self.dhcp.end())
        if self._boots:
            self._tftp_log = paths.log_directory() / f"tftp-{self.host}.log"
            tftp = spawn(
                *namespace.command_in(self.host, "dnsmasq", "--no-daemon", "--conf-file=/dev/null"),
                *("--port=0", "--enable-tftp", f"--tftp-root={self._boots}"),
                log=self._tftp_log,
            )
            self._cleanup.callback(end, tftp)

    def _dnsmasq(self):
        times = (f"--dhcp-option=option:T1,{RENEW}", f"--dhcp-option=option:T2,{REBIND}")
        options = (*times, *self._options)
        return Dnsmasq(self.host, self.pool, {}, None, *options, seconds=DNSMASQ_LEASE)

    def _kea(self):
        return Kea(self.host, self.gateway, self.pool, KEA_LEASE, RENEW, REBIND, **self._extra)

    def served(self, file):
        """How often a file has been fetched by TFTP."""
        return len(re.findall(rf"sent \S+/{file} to ", self._tftp_log.read_text()))

    def lose_leases(self):
        """The server crashes, and what comes up in its place knows of no lease."""
        self.dhcp.end()
        self.dhcp = self._start()

    def forget(self):
        """The host does not know any more who has which MAC."""
        namespace.configure(self.host, "neigh flush dev br0")
