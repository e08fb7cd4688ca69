"""The host's side: what softnet's TAP leads to, in namespaces of their own.

```text
 host                                     peer: another VM, 192.168.64.50
  br0 192.168.64.1, DHCP and DNS server ---'
   |    `--- tapN, one for each forwarder
   | NAT
  wan0 198.51.100.254 ------------------- inet: 1.2.3.4, 8.8.8.8, and private addresses
                                                that a filter has to keep from the VM
```
"""

import contextlib
import fcntl
import itertools
import json
import re
import socket
import struct

from lab import namespace
from lab.packets import Packets
from lab.process import run, until
from lab.servers import Dnsmasq, udhcpd

GATEWAY, GATEWAY_MAC = "192.168.64.1", "02:00:00:00:00:01"
PEER, PEER_MAC = "192.168.64.50", "02:00:00:00:00:50"
PEER_PORT = "peer0"
# Not one of RFC 5737's documentation networks: a filter counts those as not global.
# The host's address on its other network, which is one of the internet's.
HOST_OUTSIDE = "9.9.9.1"
INTERNET, OTHER_INTERNET = "1.2.3.4", "8.8.8.8"
PRIVATE = ("10.9.8.7", "172.16.5.5", "169.254.169.254")
NAME_OF_INTERNET = "inet.test"
NAMES = {NAME_OF_INTERNET: INTERNET}
POOL = "192.168.64.100", "192.168.64.250"
# Outside the pool.
BRIEFLY_LENT = "192.168.64.90"
POOL_RANGE = [f"192.168.64.{last}" for last in range(100, 251)]

SIOCGIFFLAGS = 0x8913
IFF_RUNNING = 0x40


class Network:
    """Use it in a `with` statement; leaving that removes all of it."""

    def __init__(self):
        self.host, self.peer, self.inet = map(namespace.name_for, ("host", "peer", "inet"))
        self._cleanup = contextlib.ExitStack()
        self._taps = itertools.count()

    def __enter__(self):
        with contextlib.ExitStack() as failing:
            failing.push(self._cleanup)
            self._make_namespaces()
            self._start_servers()
            failing.pop_all()
        return self

    def __exit__(self, *_):
        self._cleanup.close()

    def _make_namespaces(self):
        for name in (self.host, self.peer, self.inet):
            self._cleanup.callback(namespace.remove, name)
            namespace.make(name)
        # What these would say of themselves by IPv6 is not what a test is about.
        for name in (self.host, self.inet):
            namespace.sysctl(name, ipv6__conf__default__disable_ipv6=1)
        namespace.configure(
            self.host,
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set br0 address {GATEWAY_MAC} up",
            f"addr add {GATEWAY}/24 dev br0",
            f"link add {PEER_PORT} type veth peer name eth0 netns {self.peer}",
            f"link set {PEER_PORT} master br0 up",
            f"link add wan0 type veth peer name eth0 netns {self.inet}",
            "addr add 198.51.100.254/24 dev wan0",
            f"addr add {HOST_OUTSIDE}/32 dev wan0",
            "link set wan0 up",
        )
        namespace.configure(
            self.peer,
            f"link set eth0 address {PEER_MAC} up",
            f"addr add {PEER}/24 dev eth0",
            f"route add default via {GATEWAY}",
        )
        addresses = (INTERNET, OTHER_INTERNET, *PRIVATE)
        namespace.configure(
            self.inet,
            "link set eth0 up",
            "addr add 198.51.100.1/24 dev eth0",
            *(f"addr add {address}/32 dev eth0" for address in addresses),
        )
        namespace.configure(
            self.host, *(f"route add {address} via 198.51.100.1" for address in addresses)
        )
        # Netfilter would judge bridged frames as well, and hide what an attack does.
        namespace.sysctl(
            self.host,
            ipv4__ip_forward=1,
            **{f"bridge__bridge-nf-call-{table}": 0 for table in ("iptables", "ip6tables", "arptables")},
        )
        # Otherwise an entry of the ARP table withstands any change for a second.
        namespace.sysctl(self.host, ipv4__neigh__br0__locktime=0)
        namespace.sysctl(
            self.peer, ipv4__neigh__eth0__locktime=0, ipv6__conf__eth0__accept_ra=2
        )
        run(
            *namespace.command_in(self.host, "nft", "-f", "-"),
            stdin="table ip nat { chain post {\n"
            'type nat hook postrouting priority 100; oifname "wan0" masquerade\n}\n}\n',
        )

    def _start_servers(self):
        self.dhcp = Dnsmasq(self.host, POOL, NAMES)
        self._cleanup.callback(lambda: self.dhcp.end())

    @contextlib.contextmanager
    def without_dhcp(self):
        """The server is gone for a while, and has forgotten nothing when it comes back."""
        usual = self.dhcp
        usual.end()
        try:
            yield
        finally:
            self.dhcp = Dnsmasq(self.host, POOL, NAMES, usual.leases_file)

    @contextlib.contextmanager
    def dhcp_with(self, *pool):
        """Another server in its place, which grants addresses of this pool."""
        with self.without_dhcp():
            self.dhcp = Dnsmasq(self.host, pool, NAMES)
            try:
                yield
            finally:
                self.dhcp.end()

    @contextlib.contextmanager
    def dhcp_for(self, mac, seconds):
        """Another server in its place, which grants one machine an address for so long.
        dnsmasq knows no lease of less than two minutes."""
        with self.without_dhcp(), udhcpd(self.host, "br0", GATEWAY, mac, BRIEFLY_LENT, seconds):
            yield

    def new_tap(self):
        """Makes a TAP device in the bridge and returns its name.

        Each forwarder gets a new one: what one had negotiated must not serve the next.
        """
        name = f"tap{next(self._taps)}"
        namespace.configure(
            self.host, f"tuntap add dev {name} mode tap", f"link set {name} master br0 up"
        )
        return name

    def remove_tap(self, name):
        """Removes a TAP device, if it is still there."""
        run("ip", "-n", self.host, "link", "del", name, check=False)

    def set_queue(self, tap, frames):
        """Lets so many frames wait at a TAP device for who reads it."""
        namespace.configure(self.host, f"link set {tap} txqueuelen {frames}")

    def tap_is_open(self, name):
        """Whether a process holds the TAP device open: only then it has a carrier."""
        return tap_is_open(self.host, name)

    @contextlib.contextmanager
    def narrowed(self, address, mtu):
        """The host's way to an address on the internet takes only packets of that size."""
        route = f"route replace {address} via 198.51.100.1"
        namespace.configure(self.host, f"{route} mtu lock {mtu}")
        try:
            yield
        finally:
            namespace.configure(self.host, route)

    def connect_from_host(self, address, port):
        """What a server in the VM says first to a TCP client on the host."""

        def attempt():
            with namespace.inside(self.host):
                client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            with client, contextlib.suppress(OSError):
                client.settimeout(1)
                client.connect((address, port))
                return client.recv(4096)

        return until(attempt, timeout=3)

    def traffic_of(self, tap):
        """The bytes that came from the VM, and those that went to it."""
        counters = self._counters_of(tap)
        return counters["rx"]["bytes"], counters["tx"]["bytes"]

    def frames_from(self, tap):
        """How many frames the kernel has got from a TAP device: one for each write."""
        return self._counters_of(tap)["rx"]["packets"]

    def frames_of_peer(self):
        """How many frames the other VM has sent."""
        return self._counters_of(PEER_PORT)["rx"]["packets"]

    def _counters_of(self, interface):
        _, link = run("ip", "-n", self.host, "-j", "-s", "link", "show", "dev", interface)
        return json.loads(link)[0]["stats64"]

    # --- what became of a victim --------------------------------------------------

    def forget(self):
        """Clears what the parties remember of each other."""
        namespace.configure(self.host, "neigh flush dev br0")
        namespace.configure(self.peer, "neigh flush dev eth0")
        run("ip", "-n", self.peer, "-6", "route", "flush", "proto", "ra")
        run("ip", "-n", self.peer, "route", "flush", "cache")
        # The switch knows again, from these, where the peer is, and so does the gateway.
        assert self.ping_from(self.peer, GATEWAY)

    def ping_from(self, where, address):
        """Whether one ping from a namespace is answered."""
        ping = ("busybox", "ping", "-c", 1, "-W", 1, address)
        return run(*namespace.command_in(where, *ping), check=False)[0] == 0

    def mac_known_for(self, where, address):
        """The MAC under which the party in a namespace reaches an address, or None."""
        _, table = run("ip", "-n", where, "neigh", "show", "to", address)
        found = re.search(r"lladdr (\S+)", table)
        return found and found[1]

    def switch_port_of(self, mac):
        """The port of the bridge behind which the bridge believes a MAC, or None."""
        _, table = run("bridge", "-n", self.host, "fdb", "show", "br", "br0", "dynamic")
        found = re.search(rf"^{mac} dev (\S+)", table, re.MULTILINE)
        return found and found[1]

    def routers_of_peer(self):
        """The IPv6 routers that the peer has come to believe in."""
        return run("ip", "-n", self.peer, "-6", "route", "show", "default", "proto", "ra")[1]

    def route_of_peer(self, address):
        """How the other VM reaches an address, in words."""
        return run("ip", "-n", self.peer, "route", "get", address)[1]

    def route_of_host(self, address):
        """The same of the host."""
        return run("ip", "-n", self.host, "route", "get", address)[1]

    def sent_to_internet(self):
        """How many packets have left the host for the internet."""
        links = run("ip", "-n", self.host, "-j", "-s", "link", "show", "wan0")[1]
        return json.loads(links)[0]["stats64"]["tx"]["packets"]

    def watch_peer(self):
        """Keeps all frames that reach the other VM."""
        return Packets(self.peer, "eth0")

    def watch_gateway(self):
        """Keeps all frames that reach the host; what it sends comes from the gateway."""
        return Packets(self.host, "br0")

    def watch_internet(self):
        """Keeps all frames that leave for the internet, after NAT."""
        return Packets(self.inet, "eth0")


def tap_is_open(where, name):
    """Whether a process holds a namespace's TAP device open."""
    with namespace.inside(where), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
        except OSError:
            return False
    return bool(struct.unpack_from("H", answer, 16)[0] & IFF_RUNNING)
