"""The rig of measure.py: a network namespace of its own, TAPs, and forwarders under test.

The rig plays the VM, the DHCP server and the gateway. All of it lives in a network namespace
without a name, which ends with this process, so nothing is left behind.
"""

import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time

OUTSIDE = "1.2.3.4"

SNDBUF, RCVBUF = 1 << 20, 4 << 20  # Tart's, on both ends
# What sysctl's net.core.{w,r}mem_max would cut off, root may set by these (socket(7)).
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
SO_TIMESTAMPNS = 35
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
ETH_P_ALL = 3
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def enter_own_network():
    """Moves this process into a new network namespace, with a /run of its own.

    There softnet notes which MACs and addresses are taken, and those of the rig may be those
    of a VM that this host runs.
    """
    if _libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare (this needs root)")
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")


class Tap:
    """A TAP whose kernel end is the gateway of one VM; it drops what the VM sends."""

    def __init__(self, number):
        self.name = f"perf{number}"
        self.gateway = f"192.168.{64 + number}.1"
        self.lease = f"192.168.{64 + number}.2"
        self.vm_mac = bytes.fromhex("5254001234") + bytes([number])
        _run("ip", "tuntap", "add", "dev", self.name, "mode", "tap")
        # Or the kernel's own router solicitations would wake who is measured when idle.
        with open(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6", "w") as setting:
            setting.write("1")
        # Room for a whole preload: frames beyond this are lost before they are measured.
        _run("ip", "link", "set", self.name, "txqueuelen", "4000", "up")
        _run("ip", "addr", "add", f"{self.gateway}/24", "dev", self.name)
        self._sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sender.bind((self.name, 0))
        self.mac = self._sender.getsockname()[4]

    def send(self, frame):
        """Sends a frame from the host's side towards the VM."""
        self._sender.send(frame)

    def frames_moved(self):
        """How many frames the forwarder has written to the TAP so far, and read from it."""
        with open("/proc/self/net/dev") as table:
            for line in table:
                name, _, counters = line.partition(":")
                if name.strip() == self.name:
                    return int(counters.split()[1]), int(counters.split()[9])
        raise LookupError(self.name)

    def watch(self):
        """A socket that sees the frames from the VM, with the kernel's time of arrival.

        It makes each frame dearer for the forwarder: close it before CPU is measured.
        """
        watcher = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        watcher.bind((self.name, ETH_P_ALL))
        watcher.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        watcher.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        return watcher

    def outbound_frame(self, size):
        """A UDP datagram of the VM to the outside, `size` bytes as an Ethernet frame."""
        packet = udp(self.lease, OUTSIDE, 40000, 9, bytes(size - 14 - 28))
        return self.mac + self.vm_mac + b"\x08\x00" + packet

    def inbound_frame(self, size):
        """The same from the outside to the VM."""
        packet = udp(OUTSIDE, self.lease, 9, 40000, bytes(size - 14 - 28))
        return self.vm_mac + self.mac + b"\x08\x00" + packet


class Forwarder:
    """A forwarder as its own process, between the rig's VM, which is its standard input, and a TAP."""

    def __init__(self, label, command, tap):
        self.label, self.tap = label, tap
        self.vm, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.vm, theirs):
            end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SNDBUF)
            end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RCVBUF)
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=self._log,
            stderr=self._log,
            preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
        theirs.close()
        self.pid = self._process.pid

    def stop(self):
        """Ends the process; returns its exit code."""
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self.vm.close()

    def require(self, condition, what, seconds=5):
        """Waits until something holds, and fails with the process's own words if it never does."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                words = self._log.read()[-2000:].decode(errors="replace")
                raise SystemExit(f"{self.label}: not seen: {what}. It said:\n{words or '(nothing)'}")
            time.sleep(0.001)

    def bind_lease(self):
        """Takes the VM through DHCP, then shows that frames pass both ways.

        Notes in `filters` whether a frame with a stolen source address did not.
        """
        tap = self.tap
        with tap.watch() as watcher:
            watcher.setblocking(False)
            for request, reply in ((1, 2), (3, 5)):  # DISCOVER, OFFER; REQUEST, ACK
                self.vm.send(_from_client(tap, request))
                self.require(lambda: _receives(watcher, b"\x63\x82\x53\x63"), "DHCP at the TAP")
                tap.send(_from_server(tap, reply))
                self.require(lambda: _receives(self.vm, b"\x63\x82\x53\x63"), "DHCP at the VM")
            stolen = tap.mac + tap.vm_mac + b"\x08\x00" + udp("192.0.2.1", OUTSIDE, 40000, 9, bytes(22))
            own = tap.outbound_frame(64)
            self.vm.send(stolen)
            self.vm.send(own)
            arrived = []
            self.require(lambda: _receives(watcher, own, arrived), "the VM's frame at the TAP")
            self.filters = stolen not in arrived
            tap.send(tap.inbound_frame(64))
            self.require(lambda: _receives(self.vm, socket.inet_aton(OUTSIDE)), "the outside's frame at the VM")

    def work_off(self, send, frame, count):
        """Lays `count` frames before the process, and returns how much CPU they took it, in ns.

        `send` is one of the VM's socket or of the TAP.
        """
        os.kill(self.pid, signal.SIGSTOP)
        self.require(lambda: self._states() == {"T"}, "the process stopped")
        for _ in range(count):
            send(frame)
        before, goal = self.cpu(), sum(self.tap.frames_moved()) + count
        os.kill(self.pid, signal.SIGCONT)
        # To look more often would take CPU from who is measured.
        time.sleep(0.002)
        self.require(lambda: sum(self.tap.frames_moved()) >= goal, f"all {count} frames moved")
        self.require(lambda: self._states() == {"S"}, "the process asleep after its work")
        return self.cpu() - before

    def bind_to(self, cores):
        """Lets its threads run on these cores only."""
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            os.sched_setaffinity(int(thread), cores)

    def cpu(self):
        """Nanoseconds of CPU that the process has used, in user and kernel."""
        # How the kernel builds the clock's number from a process id: time/posix-timers.h.
        return time.clock_gettime_ns((~self.pid << 3) | 2)

    def frames_at_vm(self):
        """Reads all that has arrived at the VM; returns how many frames those were."""
        frames = 0
        while True:
            try:
                self.vm.recv(65536, socket.MSG_DONTWAIT)
                frames += 1
            except BlockingIOError:
                return frames

    def context_switches(self):
        """Per thread of the process: its name, and how often it gave up a CPU or lost it."""
        switches = {}
        for thread in sorted(os.listdir(f"/proc/{self.pid}/task"), key=int):
            with open(f"/proc/{self.pid}/task/{thread}/status") as status:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
            switches[thread, fields["Name"]] = int(fields["voluntary_ctxt_switches"]) + int(
                fields["nonvoluntary_ctxt_switches"]
            )
        return switches

    def memory(self):
        """Bytes of its memory by kind: `Anonymous` is what no file stands behind, `Rss` all that
        it has, `Pss` that with each page divided by how many processes have it."""
        with open(f"/proc/{self.pid}/smaps_rollup") as rollup:
            lines = [line.split() for line in rollup if line.endswith(" kB\n")]
        return {name.rstrip(":"): int(size) * 1024 for name, size, _ in lines}

    def _states(self):
        """The states that its threads are in, as ps(1) calls them."""
        states = set()
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{thread}/stat") as stat:
                states.add(stat.read().rpartition(")")[2].split()[0])
        return states


def udp(source, destination, source_port, destination_port, payload):
    """An IPv4 packet with a UDP datagram, with correct lengths and checksums."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    length = 8 + len(payload)
    ports = struct.pack("!HHH", source_port, destination_port, length)
    check = _checksum(addresses + struct.pack("!HH", 17, length) + ports + bytes(2) + payload)
    header = struct.pack("!BBHHHBB", 0x45, 0, 20 + length, 1, 0x4000, 64, 17)
    header += struct.pack("!H", _checksum(header + bytes(2) + addresses)) + addresses
    return header + ports + struct.pack("!H", check or 0xFFFF) + payload


def _checksum(data):
    """The Internet checksum, RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


_TRANSACTION = 0x50455246


def _dhcp(operation, tap, granted, options):
    head = struct.pack("!BBBBIHH", operation, 1, 6, 0, _TRANSACTION, 0, 0)
    addresses = bytes(4) + socket.inet_aton(granted) + bytes(8)
    encoded = b"".join(bytes([code, len(value)]) + value for code, value in options)
    return head + addresses + tap.vm_mac.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63" + encoded + b"\xff"


def _from_client(tap, kind):
    options = [(53, bytes([kind]))]
    if kind == 3:
        options += [(50, socket.inet_aton(tap.lease)), (54, socket.inet_aton(tap.gateway))]
    message = _dhcp(1, tap, "0.0.0.0", options)
    return b"\xff" * 6 + tap.vm_mac + b"\x08\x00" + udp("0.0.0.0", "255.255.255.255", 68, 67, message)


def _from_server(tap, kind):
    gateway = socket.inet_aton(tap.gateway)
    options = [
        (53, bytes([kind])),
        (54, gateway),
        (51, struct.pack("!I", 3600)),
        (1, socket.inet_aton("255.255.255.0")),
        (3, gateway),
    ]
    message = _dhcp(2, tap, tap.lease, options)
    return tap.vm_mac + tap.mac + b"\x08\x00" + udp(tap.gateway, tap.lease, 67, 68, message)


def _receives(end, wanted, seen=None):
    """Whether a frame that holds these bytes is there; `seen` takes all that were."""
    while select.select([end], [], [], 0)[0]:
        frame = end.recv(65536)
        if seen is not None:
            seen.append(frame)
        if wanted in frame:
            return True
    return False


def _run(*command):
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    subprocess.run(command, check=True, env={**os.environ, "PATH": path})
