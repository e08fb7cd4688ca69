"""What the stand-in VM and the real guest have in common: what is done inside a VM."""

import contextlib
import re
import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass
from subprocess import Popen

from lab import namespace
from lab.process import Failed, until

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
# Those of Tart: one frame is one datagram, and this many bytes of them may wait.
SEND_BUFFER, RECEIVE_BUFFER = 1 << 20, 4 << 20


def socket_pair(where):
    """The two ends of a VM's cable: the VM's own, and the one that softnet is given."""
    with namespace.inside(where):
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for one in ends:
        # Root of a user namespace, who may not force it, has what the system gives.
        with contextlib.suppress(PermissionError):
            one.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER)
            one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    return ends


@dataclass(frozen=True)
class Lease:
    """What the DHCP server has given the VM."""

    address: str
    router: str
    dns: str
    server: str
    seconds: int


def lease_in(output):
    """The last lease of which the script of udhcpc has told, or None."""
    found = re.findall(
        r"LEASE address=(\S+) router=(\S+) dns=(\S+) server=(\S+) seconds=(\d+)", output
    )
    return Lease(*found[-1][:-1], seconds=int(found[-1][-1])) if found else None


class VM(ABC):
    """A virtual machine with one network card, `eth0`. Its commands run as root."""

    mac: str
    kind: str
    dhcp_script: str
    # As much as it can fetch and sum up in a second or two.
    download_bytes: int
    # The process that keeps it alive; whoever starts it sets this.
    monitor: Popen

    def prepare(self):
        """Makes what has to be there before the VM's monitor can start."""

    @abstractmethod
    def command_line(self, fd):
        """The command that starts the monitor; it gets the VM's end as descriptor `fd`."""

    @abstractmethod
    def wait_until_up(self):
        """Waits until commands can be run in the VM."""

    @abstractmethod
    def stop(self):
        """Shuts the VM down, after which its monitor ends."""

    @abstractmethod
    def run(self, command, timeout=10):
        """Runs a shell command in the VM; returns its exit code and what it wrote."""

    @abstractmethod
    def send(self, *frames, pad=0):
        """Sends Ethernet frames exactly as given, each with zero bytes appended."""

    def check(self, command, timeout=10):
        """Runs a shell command in the VM that has to succeed; returns what it wrote."""
        code, output = self.run(command, timeout)
        if code != 0:
            raise Failed(f"in the {self.kind}: {command}: exit code {code}: {output}")
        return output

    @contextlib.contextmanager
    def background(self, command):
        """Lets a command run in the VM for a while, under the pid that this gives, then kills
        it hard.

        It must be hard: arpspoof, asked to end, repairs what it has done.
        """
        pid = self.check(f"{command} >/dev/null 2>&1 </dev/null & echo $!").split()[-1]
        try:
            yield pid
        finally:
            self.run(f"kill -9 {pid}")

    @contextlib.contextmanager
    def client(self):
        """A DHCP client that stays; gives its pid, for the signals that udhcpc knows, once it
        has a lease."""
        self.run("ip -4 addr flush dev eth0; ip route flush default")
        with self.background(f"busybox udhcpc -i eth0 -f -T 1 -s {self.dhcp_script}") as pid:
            # What it does last when it takes a lease into use.
            has_route = lambda: self.check("ip route show default")  # noqa: E731
            if not until(has_route, timeout=10, every=0.1):
                raise Failed(f"in the {self.kind}: no lease")
            yield pid

    def forget(self):
        """Has no address any more, and nothing to say until it has one again."""
        self.check("ip -4 addr flush dev eth0; ip neigh flush dev eth0")

    def get_lease(self):
        """Asks for a lease, as a machine that starts does, and takes it into use."""
        # Six tries: the first may come before the forwarder has opened its TAP.
        lease = self.try_for_lease(tries=6)
        if not lease:
            raise Failed(f"in the {self.kind}: no lease")
        return lease

    def try_for_lease(self, tries, options=""):
        """Likewise, but gives up after so many seconds; None without a lease."""
        _, output = self.run(
            f"busybox udhcpc -i eth0 -f -n -q -T 1 -t {tries} -s {self.dhcp_script} {options}",
            timeout=tries + 9,
        )
        return lease_in(output)

    def address(self):
        """Its address, or None."""
        found = re.search(r"inet (\S+)/", self.check("ip -4 addr show dev eth0"))
        return found and found[1]

    def mac_known_for(self, address):
        """The MAC under which the VM reaches an address, or None."""
        found = re.search(r"lladdr (\S+)", self.check(f"ip neigh show to {address}"))
        return found and found[1]

    def ping(self, address, count=1, options=""):
        """Whether every ping is answered, and each within a second."""
        code, output = self.run(
            f"busybox ping -c {count} -A -W 1 -w {count + 1} {options} {address}", timeout=count + 5
        )
        return code == 0 and f"{count} packets received" in output

    def reaches(self, addresses):
        """Those of the addresses that answer a ping within a second."""
        pings = (f"(busybox ping -c 1 -W 1 {it} >/dev/null && echo {it}) &" for it in addresses)
        return set(self.check(" ".join(pings) + " wait").split())

    def resolve(self, name, server):
        """The address that a DNS server has for a name, or None."""
        code, output = self.run(f"busybox nslookup -type=a {name} {server}", timeout=15)
        found = re.search(rf"Name:\s+{re.escape(name)}\s+Address(?: 1)?: (\S+)", output)
        return found[1] if code == 0 and found else None
