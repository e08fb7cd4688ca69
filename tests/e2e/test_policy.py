"""What the user allows and blocks takes effect on real traffic."""

import sys
import time

from attacks import unique
from lab import namespace
from lab.network import GATEWAY, GATEWAY_MAC, INTERNET, OTHER_INTERNET, PEER, PRIVATE
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether


ASK_BY_UDP = (
    "import socket, sys; card = socket.socket(type=socket.SOCK_DGRAM); card.settimeout(2); "
    "card.connect((sys.argv[1], 123)); card.send(bytes(48)); card.recv(48)"
)
EVERYTHING = {GATEWAY, INTERNET, OTHER_INTERNET, PEER, *PRIVATE}


def reached(bench, *options):
    """The addresses that the VM reaches through a softnet with these options."""
    with bench.softnet(*options):
        bench.vm.get_lease()
        return bench.vm.reaches(EVERYTHING)


def test_only_the_gateway_and_the_internet_are_open(standin):
    with standin.unfiltered():
        standin.vm.get_lease()
        assert standin.vm.reaches(EVERYTHING) == EVERYTHING, "closed even without a filter"
    assert reached(standin) == {GATEWAY, INTERNET, OTHER_INTERNET}


def test_an_allowed_range_is_open_and_its_neighbours_are_not(standin):
    assert reached(standin, "--allow", "10.0.0.0/8") == {
        GATEWAY,
        INTERNET,
        OTHER_INTERNET,
        "10.9.8.7",
    }


def test_a_blocked_public_address_is_closed(standin):
    assert reached(standin, "--block", f"{INTERNET}/32") == {GATEWAY, OTHER_INTERNET}


def test_the_longest_prefix_decides_and_block_wins_a_draw(standin):
    options = ("--block", "0.0.0.0/0,172.16.0.0/12", "--allow", f"{INTERNET}/32,172.16.0.0/12")
    assert reached(standin, *options) == {INTERNET}


def test_the_host_itself_can_be_blocked(standin):
    assert reached(standin, "--block", "@host") == {INTERNET, OTHER_INTERNET}


def test_the_host_can_be_all_that_is_open(standin):
    assert reached(standin, "--block", "0.0.0.0/0", "--allow", "@host") == {GATEWAY}


def test_host_only_mode_leaves_only_the_gateway(standin):
    assert reached(standin, "--vm-net-type", "host") == {GATEWAY}


def test_a_refused_connection_fails_at_once_if_the_vm_is_told(standin):
    vm, closed = standin.vm, PRIVATE[0]

    def refusal():
        """How long an attempt to connect takes that gives up after two seconds."""
        start = time.monotonic()
        code, _ = vm.run(f"busybox nc -w 2 {closed} 80 </dev/null")
        assert code != 0, "connected"
        return time.monotonic() - start

    with standin.softnet():
        vm.get_lease()
        assert refusal() > 1.5, "refused even if it is not told"
    with standin.softnet("--on-deny", "reject"):
        vm.get_lease()
        assert sorted(refusal() for _ in range(5))[2] < 0.1
        # icmp_err_convert of net/ipv4/icmp.c makes EHOSTUNREACH of type 3, code 13.
        code, output = vm.run(f"{sys.executable} -c '{ASK_BY_UDP}' {closed}")
        assert code != 0 and "No route to host" in output, output
    # The answer belongs to no connection, where these are tracked.
    with standin.softnet("--on-deny", "reject", "--allow", "out @host") as softnet:
        vm.get_lease()
        assert refusal() < 0.5
        assert softnet.dropped("vm->host", "destination-private", timeout=3)


def test_another_vm_is_closed_while_vms_are_isolated(standin):
    assert PEER not in reached(standin, "--allow", "192.168.64.0/24")


def test_a_wide_rule_opens_no_neighbour_by_a_hairpin_through_the_host(standin):
    network, vm = standin.network, standin.vm

    def hits():
        """Whether a packet for another VM gets there by the gateway's MAC, and is answered."""
        lease = vm.get_lease()
        vm.check(f"ip neigh replace {PEER} lladdr {GATEWAY_MAC} dev eth0 nud permanent")
        token = unique()
        with network.watch_peer() as peer:
            vm.send(
                Ether(src=vm.mac, dst=GATEWAY_MAC)
                / IP(src=lease.address, dst=PEER)
                / UDP(sport=9, dport=9)
                / token
            )
            arrived = bool(peer.saw(token, 1.5))
        answered = vm.ping(PEER)
        vm.check(f"ip neigh del {PEER} dev eth0")
        return arrived, answered

    with standin.unfiltered():
        assert hits() == (True, True), "closed even without a filter"
    with standin.softnet("--allow", "192.168.0.0/16") as softnet:
        assert hits() == (False, False)
        assert "isolation" in softnet.said()
    with standin.softnet("--allow", f"{PEER}/32"):
        # One way only: what it answers comes from a neighbour.
        assert hits() == (True, False)


def test_a_blocked_host_is_closed_by_its_other_addresses_too(standin):
    network, vm = standin.network, standin.vm
    # Neither private nor special, and so open unless something says that it is the host's.
    own, later = "5.5.5.5", "6.6.6.6"
    address = lambda verb, it: namespace.configure(network.host, f"addr {verb} {it}/32 dev wan0")  # noqa: E731
    address("add", own)
    try:
        with standin.softnet():
            vm.get_lease()
            assert vm.reaches({own, GATEWAY}) == {own, GATEWAY}, "closed even to all"
        with standin.softnet("--block", "@host"):
            vm.get_lease()
            assert vm.reaches({own, GATEWAY, INTERNET}) == {INTERNET}
            address("add", later)
            try:
                time.sleep(2)
                assert vm.reaches({own, later, INTERNET}) == {INTERNET}
            finally:
                address("del", later)
        with standin.softnet("--block", "@host", "--allow", f"{own}/32"):
            vm.get_lease()
            assert vm.reaches({own, GATEWAY, INTERNET}) == {own, INTERNET}
    finally:
        address("del", own)


def test_all_is_open_once_everything_is_allowed(standin):
    assert reached(standin, "--allow", "0.0.0.0/0") == EVERYTHING
