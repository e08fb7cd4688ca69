"""Large segments at the TAP: what the host's kernel, the internet and a neighbour make of them, and
that nobody but the host can tell whether there are any."""

import contextlib
import os
import re
import signal
import socket
import struct
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from attacks import frames
from lab import Bench, namespace
from lab.load import stream
from lab.network import GATEWAY, GATEWAY_MAC, INTERNET, OTHER_INTERNET, PEER
from lab.process import run, until
from lab.standin import StandIn

WAYS = pytest.mark.parametrize("offload", ["auto", "off"])
FILE = 16 << 20
BEFORE = 10
CWR, ECE, ACK, PSH = 0x80, 0x40, 0x10, 0x08
CONGESTED = 3
# <linux/if_packet.h>, <linux/virtio_net.h>.
SOL_PACKET, PACKET_VNET_HDR = 263, 15
NEEDS_CSUM, TCPV4, TCPV6 = 1, 1, 4


def swap(server, address, client):
    """Two files that parties in these namespaces exchange over one TCP connection, both ways at once:
    whether each has arrived byte for byte."""
    with namespace.inside(server):
        listener = socket.create_server((address, 0))
    with namespace.inside(client):
        one = socket.socket()
    with listener, one:
        one.settimeout(20)
        one.connect(listener.getsockname())
        other, _ = listener.accept()
        other.settimeout(20)
        files = [os.urandom(FILE), os.urandom(FILE)]
        got = [bytearray(), bytearray()]

        def read(end, into):
            while len(into) < FILE and (some := end.recv(1 << 16)):
                into += some

        with other:
            threads = [
                *(threading.Thread(target=end.sendall, args=(it,)) for end, it in zip((one, other), files)),
                *(threading.Thread(target=read, args=it) for it in ((other, got[0]), (one, got[1]))),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return [bytes(it) == file for it, file in zip(got, files)]


@contextlib.contextmanager
def rules(where, chain):
    """nft rules in a namespace, for a while; gives a function that sums up their counters."""
    run(*namespace.command_in(where, "nft", "-f", "-"), stdin=f"table ip seen {{ {chain} }}\n")
    try:
        listed = lambda: run(*namespace.command_in(where, "nft", "list", "table", "ip", "seen"))[1]  # noqa: E731
        yield lambda: sum(map(int, re.findall(r"counter packets (\d+)", listed())))
    finally:
        run(*namespace.command_in(where, "nft", "delete", "table", "ip", "seen"))


def burst(bench, softnet, lease, sent):
    """Sends frames that softnet finds in its queue all at once; returns how many writes they took."""
    # It takes few at a time until it has seen that more have come.
    before_them = [frames.ip(frames.udp(), to=INTERNET)(bench.vm.mac, lease, b"")] * BEFORE
    assert bench.vm.ping(GATEWAY)
    softnet.process.send_signal(signal.SIGSTOP)
    threads = list(Path(f"/proc/{softnet.process.pid}/task").glob("*/stat"))
    stopped = lambda: all(it.read_text().rsplit(")", 1)[1].split()[0] == "T" for it in threads)  # noqa: E731
    assert until(stopped, timeout=1)
    before = bench.network.frames_from(softnet.tap)
    bench.vm.send(*before_them, *sent)
    # The stand-in's monitor has them in the socket by then.
    time.sleep(0.3)
    softnet.process.send_signal(signal.SIGCONT)
    # softnet has sent all of them once a ping that came behind them is answered.
    assert bench.vm.ping(GATEWAY)
    return bench.network.frames_from(softnet.tap) - before - BEFORE - 1


def segments(bench, lease, count=20, **fields):
    """Segments of a TCP connection to the internet that follow each other, of 1000 bytes each."""
    make = lambda index: frames.ip(  # noqa: E731
        TCP(sport=40000, dport=9, flags="A", seq=1000 * (index + 1), ack=7, window=500),
        **{"to": INTERNET, "flags": "DF", "fill": 1000, **fields},
    )(bench.vm.mac, lease, b"%04d" % index)
    return [make(index) for index in range(count)]


def seen_as(frame):
    """What of a segment has to get through as it was."""
    packet = Ether(bytes(frame))[IP]
    tcp = packet[TCP]
    return int(tcp.seq), int(tcp.flags), packet.tos & 3, tcp.window, bytes(tcp.payload)[:1000]


@WAYS
def test_a_file_each_way_is_right_and_conntrack_sees_nothing_invalid(standin, offload):
    network, vm = standin.network, standin.vm
    invalid = "".join(
        f"chain {hook} {{ type filter hook {hook} priority 10; ct state invalid counter\n}}\n"
        for hook in ("prerouting", "forward", "input", "output")
    )
    with standin.softnet("--offload", offload) as softnet, rules(network.host, invalid) as count:
        lease = vm.get_lease()
        for server, address in ((network.inet, INTERNET), (network.host, GATEWAY)):
            assert swap(server, address, vm.namespace) == [True, True]
        written, read = softnet.traffic()
        assert min(written, read) > 2 * FILE
        sizes = written / network.frames_from(softnet.tap)
        assert (sizes > 1514) == (offload == "auto"), sizes
        assert count() == 0
        # It would have been seen.
        damaged = frames.ip(TCP(sport=40000, dport=9, flags="A", chksum=1), to=INTERNET)
        vm.send(damaged(vm.mac, lease, b""))
        assert until(lambda: count() > 0, timeout=2)
        softnet.stop()
        # The other VM asks for routers once in a while, and a bridge sends a frame to all while it does not know
        # where its destination is.
        assert not softnet.drops("vm->host")
        assert set(softnet.drops("host->vm")) <= {"ipv6", "destination-mac"}


@WAYS
def test_what_is_sent_at_once_arrives_as_it_was(standin, offload):
    """Also where a flag of ECN, an attack, or another connection comes between."""
    network, vm = standin.network, standin.vm
    # It knows no such connection, and is not to end it.
    quiet = "chain output { type filter hook output priority 0; tcp flags rst drop\n}\n"
    with standin.softnet("--offload", offload) as softnet, rules(network.inet, quiet):
        lease = vm.get_lease()
        sent = segments(standin, lease)
        sent[6][TCP].flags = "AC"
        sent[11][TCP].flags = "AE"
        sent[12][TCP].flags = "AP"
        for congested in sent[14:17]:
            congested[IP].tos = CONGESTED
        spoofed = frames.ip(frames.udp(), to=INTERNET, src=PEER)(vm.mac, lease, b"")
        tagged = frames.tagged(frames.VLAN)(vm.mac, lease, b"")
        # This card, which is no real one, would take large segments as they are.
        namespace.configure(network.host, "link set wan0 gso_max_size 1515")
        try:
            with network.watch_internet() as internet:
                writes = burst(standin, softnet, lease, [*sent[:9], spoofed, *sent[9:18], tagged, *sent[18:]])
                arrived = [it for it in internet.arriving(0.5) if it[23] == 6]
        finally:
            namespace.configure(network.host, "link set wan0 gso_max_size 65536")
        assert list(map(seen_as, arrived)) == list(map(seen_as, sent))
        # The first six; CWR alone; four, as the attack between them is gone; ECE and PSH, each alone;
        # one before the TOS changes; three with it; three without it, as the tagged one is gone.
        assert writes == (8 if offload == "auto" else 20)
        counted = lambda: softnet.drops("vm->host")  # noqa: E731
        assert until(lambda: sum(counted().values()) >= 2, timeout=5)
        assert counted() == Counter({"source-address": 1, "vlan": 1})


@WAYS
def test_congestion_is_told_both_ways(standin, offload):
    network, vm = standin.network, standin.vm
    # With a limit for each way: one for both let a way have its first mark when its last segment had been sent.
    marks = "".join(
        f"meta length > 1000 ip ecn != not-ect ip daddr {which} {INTERNET} limit rate 100/second ip ecn set ce\n"
        for which in ("==", "!=")
    )
    mark = f"chain forward {{ type filter hook forward priority 10;\n{marks}}}\n"
    for where in (network.inet, vm.namespace):
        namespace.sysctl(where, ipv4__tcp_ecn=1)
    try:
        with standin.softnet("--offload", offload), rules(network.host, mark):
            vm.get_lease()
            with network.watch_internet() as internet, vm.watch() as card:
                assert swap(network.inet, INTERNET, vm.namespace) == [True, True]
                for arrived in (internet.arriving(), card.arriving()):
                    told = [it for it in arrived if it[12:14] == b"\x08\x00" and it[23] == 6]
                    assert any(it[15] & 3 == CONGESTED for it in told)
                    assert any(it[47] & ECE for it in told)
                    # Once for each time that it slows down, not with every segment.
                    slowed = sum(it[47] & CWR != 0 and it[47] & 2 == 0 for it in told)
                    assert 0 < slowed < len(told) / 10, (slowed, len(told))
    finally:
        namespace.sysctl(network.inet, ipv4__tcp_ecn=2)


@WAYS
def test_the_last_hop_of_segments_is_told_of_the_first(standin, offload):
    with standin.softnet("--offload", offload) as softnet:
        lease = standin.vm.get_lease()
        sent = segments(standin, lease, ttl=1)
        with standin.vm.watch() as card:
            writes = burst(standin, softnet, lease, sent)
            errors = [Ether(it) for it in card.arriving(0.5) if it[23] == 1 and it[34] == 11]
        assert writes == (1 if offload == "auto" else 20)
        # Behind the header of IPv4, the ports.
        quoted = [struct.unpack_from("!I", bytes(it[ICMP].payload), 24)[0] for it in errors]
        assert quoted and quoted[0] == 1000
        assert set(quoted) <= {int(it[TCP].seq) for it in sent}
        # One answer for one packet of the host's, which is the merged one.
        assert (len(quoted) == 1) == (offload == "auto"), quoted


@WAYS
def test_a_narrow_path_behind_it_is_found(standin, offload):
    network, vm = standin.network, standin.vm
    with standin.softnet("--offload", offload), network.narrowed(OTHER_INTERNET, 1400):
        vm.get_lease()
        assert swap(network.inet, OTHER_INTERNET, vm.namespace) == [True, True]
        assert "mtu 1400" in vm.check(f"ip route get {OTHER_INTERNET}")


@WAYS
def test_a_vm_at_a_plain_tap_gets_the_file(standin, offload):
    """On the same bridge, where nothing routes, and the bridge has the kernel cut them."""
    vm = standin.vm
    with Bench(standin.network, StandIn()) as neighbour, neighbour.unfiltered():
        address = neighbour.vm.get_lease().address
        with standin.softnet("--offload", offload, "--allow", "0.0.0.0/0"):
            vm.get_lease()
            assert swap(neighbour.vm.namespace, address, vm.namespace) == [True, True]


@WAYS
def test_a_lease_is_renewed_as_segments_go_both_ways(standin, offload):
    network, vm = standin.network, standin.vm
    with standin.softnet("--offload", offload) as softnet, vm.client() as client:
        address = vm.address()
        with stream(network, vm, INTERNET, "--bidir"):
            assert until(lambda: min(softnet.traffic()) > 4 << 20, timeout=5)
            for _ in range(2):
                before, expiry = softnet.traffic(), network.dhcp.expiry(address)
                # The file of leases has whole seconds.
                time.sleep(1)
                vm.check(f"kill -USR1 {client}")
                assert until(lambda: network.dhcp.expiry(address) > expiry, timeout=3)
                assert vm.address() == address
                assert all(now - then > 1 << 20 for now, then in zip(softnet.traffic(), before))


@WAYS
def test_a_datagram_of_the_hosts_arrives_whole(standin, offload):
    """Its checksum is left to whoever reads the TAP, if it says that it can."""
    network, vm = standin.network, standin.vm
    with standin.softnet("--offload", offload):
        address = vm.get_lease().address
        with namespace.inside(network.host):
            sender = socket.socket(type=socket.SOCK_DGRAM)
        with namespace.inside(vm.namespace):
            receiver = socket.socket(type=socket.SOCK_DGRAM)
        with sender, receiver:
            receiver.bind((address, 9))
            receiver.settimeout(2)
            for size in (1, 18, 1472, 4000):
                data = os.urandom(size)
                sender.sendto(data, (address, 9))
                assert receiver.recv(65536) == data


@WAYS
def test_large_packets_of_other_kinds_are_counted_and_dropped(standin, offload):
    """From the host's side: behind a VLAN tag, and by IPv6."""
    vm = standin.vm
    tcp = TCP(sport=40000, dport=9, flags="A", window=500)
    with standin.softnet("--offload", offload) as softnet:
        address = vm.get_lease().address
        start = Ether(src=GATEWAY_MAC, dst=vm.mac)
        data = Raw(b"large" * 2000)
        large = {
            TCPV4: start / Dot1Q(vlan=7) / IP(src=GATEWAY, dst=address) / tcp / data,
            TCPV6: start / IPv6(src="fe80::1", dst="fe80::2") / tcp / data,
        }
        with vm.watch() as card, namespace.inside(standin.network.host):
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as host:
                host.bind(("br0", 3))
                host.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
                for kind, frame in large.items():
                    bytes_of = bytes(frame)
                    headers = len(bytes_of) - len(data.load)
                    virtio = struct.pack("<BBHHHH", NEEDS_CSUM, kind, headers, 1000, headers - 20, 16)
                    host.send(virtio + bytes_of)
            assert not card.saw(b"largelarge", 0.5)
        # The tag keeps the kernel from cutting what it would cut for a TAP without offloads.
        expected = {"oversize": 1, "ipv6": 10} if offload == "auto" else {"vlan": 10, "ipv6": 10}
        counted = lambda: softnet.drops("host->vm")  # noqa: E731
        assert until(lambda: Counter(expected) <= counted(), timeout=3), counted()
        # And what the bridge floods for others.
        assert set(counted()) <= {*expected, "destination-mac"}
