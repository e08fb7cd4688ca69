"""Rules with a direction, by real programs: who may open connections, and what goes on as they
change."""

import contextlib
import socket
import threading
import time

import pytest
from scapy.layers.inet import TCP

from attacks import frames
from benign import path_mtu_discovery
from lab import namespace
from lab.control import Control
from lab.load import stream
from lab.network import GATEWAY, INTERNET, OTHER_INTERNET
from lab.process import until

NOBODY_OUT = ("--block", "0.0.0.0/0", "--allow", "in @host")
NOBODY_IN = ("--block", "in 0.0.0.0/0")
# The figure is a tenth of a second; counters are read as often as this machine can.
CUT_SECONDS = 0.1


@pytest.fixture
def control():
    """A channel, for one softnet."""
    with contextlib.closing(Control()) as control:
        yield control


def answers(network, address, port):
    """Whether a server in the VM answers the host by TCP."""
    with namespace.inside(network.host):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with client:
        client.settimeout(1)
        try:
            client.connect((address, port))
            return client.recv(100) == b"welcome\n"
        except TimeoutError:
            return False


@contextlib.contextmanager
def server_in(vm, port):
    """A server in the VM that greets whoever connects."""
    with vm.background(f"busybox nc -ll -p {port} -e echo welcome"):
        time.sleep(0.3)
        yield


def test_the_host_gets_in_and_nothing_out(standin):
    vm, network = standin.vm, standin.network
    with standin.softnet(*NOBODY_OUT) as softnet:
        address = str(vm.get_lease().address)
        with server_in(vm, 2222):
            assert answers(network, address, 2222)
        assert not vm.ping(INTERNET) and not vm.ping(GATEWAY)
        assert network.ping_from(network.host, address)
        assert softnet.dropped("vm->host", "destination-blocked", timeout=3)


def test_stateless_rules_do_not_let_the_answer_out(standin):
    vm, network = standin.vm, standin.network
    with standin.softnet("--block", "0.0.0.0/0"):
        address = str(vm.get_lease().address)
        with server_in(vm, 2222):
            assert not answers(network, address, 2222)


def test_an_own_port_is_opened_alone(standin):
    vm, network = standin.vm, standin.network
    with standin.softnet(*NOBODY_IN, "--allow", "in tcp @host to 2222") as softnet:
        address = str(vm.get_lease().address)
        with server_in(vm, 2222), server_in(vm, 2223):
            assert answers(network, address, 2222)
            assert not answers(network, address, 2223)
        assert vm.ping(INTERNET)
        assert not network.ping_from(network.host, address)
        assert softnet.dropped("host->vm", "source-blocked", timeout=3)


@pytest.mark.parametrize("how", ["", "-I"])
def test_a_route_is_traced(standin, how):
    with standin.softnet(*NOBODY_IN):
        standin.vm.get_lease()
        route = standin.vm.check(f"busybox traceroute -n -m 3 -q 1 -w 1 {how} {INTERNET}")
        assert GATEWAY in route and INTERNET in route.splitlines()[-1], route


def test_packets_in_fragments_pass_both_ways(standin):
    with standin.softnet(*NOBODY_IN):
        standin.vm.get_lease()
        for _ in range(100):
            # More datagrams than may be incomplete at once, one after another.
            assert standin.vm.ping(INTERNET, options="-s 4000")


def test_a_packet_that_is_too_large_for_the_path_is_told(standin):
    with standin.softnet(*NOBODY_IN):
        standin.vm.get_lease()
        path_mtu_discovery(standin)


def test_a_download_is_cut_by_its_block_and_by_nothing_else(standin, control):
    vm, network = standin.vm, standin.network
    with standin.softnet(*NOBODY_IN, control=control) as softnet:
        vm.get_lease()
        with stream(network, vm, INTERNET, "--reverse"):
            arrived = lambda: softnet.traffic()[1]  # noqa: E731
            assert until(lambda: arrived() > 8 << 20, timeout=5)
            # Others' rules change, again and again, and it goes on.
            for number in range(50):
                control.set(block=["in 0.0.0.0/0", f"10.{number}.0.0/16", OTHER_INTERNET])
                before = arrived()
                assert until(lambda: arrived() > before + 1500, timeout=2), number
            assert control.set(block=["in 0.0.0.0/0", f"out {INTERNET}"])
            time.sleep(CUT_SECONDS)
            summary = softnet.drops("host->vm")
            assert until(lambda: softnet.drops("host->vm")["source-blocked"] > summary["source-blocked"], 3)
            # Nothing of it is answered any more, so that its sender stops.
            assert until(lambda: _rests(arrived), timeout=3)
        assert vm.ping(OTHER_INTERNET)


def _rests(count):
    before = count()
    time.sleep(0.2)
    return count() - before < 20_000


def test_unanswered_connections_to_one_server_leave_ports_of_the_nat_to_neighbours(standin):
    """Of the 64,512 that it has for one server, a VM gets a quarter at most, and first 7,680."""
    vm, network = standin.vm, standin.network
    with standin.softnet(*NOBODY_IN, "--connection-rate", "0") as softnet:
        lease = vm.get_lease()
        before = network.sent_to_internet()
        for first in range(1024, 21_024, 500):
            vm.send(*(bytes(frames.ip(TCP(sport=port, dport=9, flags="S"), to=INTERNET)(vm.mac, lease, b"")) for port in range(first, first + 500)))
        assert softnet.dropped("vm->host", "server-limit", timeout=10)
        assert softnet.drops("vm->host")["server-limit"] > 8000
        assert network.sent_to_internet() - before < 10_000
        # Other servers are reached.
        assert vm.ping(OTHER_INTERNET)


def test_a_connection_outlives_softnet(standin):
    """The VM's next segment opens it anew."""
    vm, network = standin.vm, standin.network
    received = []
    with namespace.inside(network.inet):
        listening = socket.create_server((INTERNET, 7000))

    def serve():
        peer, _ = listening.accept()
        peer.settimeout(20)
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(100):
                received.append(data)
                peer.sendall(b"answer\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    lines = "for i in $(seq 60); do echo line; sleep 0.2; done"
    sending = f"sh -c '({lines}) | busybox nc {INTERNET} 7000'"
    with listening, contextlib.ExitStack() as running:
        with standin.softnet(*NOBODY_IN):
            vm.get_lease()
            running.enter_context(vm.background(sending))
            assert until(lambda: len(received) >= 3, timeout=5)
        with standin.softnet(*NOBODY_IN):
            vm.get_lease()
            before = len(received)
            assert until(lambda: len(received) >= before + 5, timeout=10)
