"""What a VM is meant to do works through softnet: a lease, names, pings, streams."""

import ipaddress

import pytest

from lab.load import megabits
from lab.network import (
    GATEWAY,
    GATEWAY_MAC,
    INTERNET,
    NAME_OF_INTERNET,
    OTHER_INTERNET,
    POOL,
)


def test_a_vm_gets_its_lease_and_reaches_the_network(bench):
    with bench.softnet():
        lease = bench.vm.get_lease()
        first, last = map(ipaddress.ip_address, POOL)
        assert first <= ipaddress.ip_address(lease.address) <= last
        assert (lease.router, lease.dns, lease.server) == (GATEWAY, GATEWAY, GATEWAY)

        assert bench.vm.resolve(NAME_OF_INTERNET, lease.dns) == INTERNET
        assert bench.vm.ping(GATEWAY, count=5)
        assert bench.vm.ping(INTERNET, count=5)
        assert bench.vm.ping(OTHER_INTERNET)
        # Up to what an Ethernet frame holds, and beyond it, in fragments.
        assert bench.vm.ping(GATEWAY, options="-s 1472")
        assert bench.vm.ping(GATEWAY, options="-s 4000")


def test_streams_flow_both_ways(bench):
    with bench.softnet():
        bench.vm.get_lease()
        for server in (GATEWAY, INTERNET):
            for options in ("", "--reverse"):
                assert megabits(bench.network, bench.vm, server, options) > 1


@pytest.mark.parametrize("options", ["--hand-over always", "--hand-over never", "--pin 0,0"])
def test_streams_flow_however_the_work_is_divided(standin, options):
    with standin.softnet(*options.split()):
        standin.vm.get_lease()
        for direction in ("", "--reverse"):
            assert megabits(standin.network, standin.vm, INTERNET, direction) > 1


def test_the_host_can_open_connections_to_the_vm(bench):
    with bench.softnet():
        address = bench.vm.get_lease().address
        with bench.vm.background("busybox nc -l -p 2222 -e echo welcome"):
            assert bench.network.connect_from_host(address, 2222) == b"welcome\n"


def test_a_lease_is_renewed(standin):
    with standin.softnet():
        first = standin.vm.get_lease()
        again = standin.vm.get_lease()
        assert again == first
        assert standin.vm.ping(INTERNET)


def test_a_vm_that_restarts_softnet_has_to_ask_for_its_lease_again(standin):
    with standin.softnet():
        standin.vm.get_lease()
    with standin.softnet() as softnet:
        # It has its address still, but this softnet has seen nobody give it.
        standin.vm.check(f"ip neigh replace {GATEWAY} lladdr {GATEWAY_MAC} dev eth0")
        assert not standin.vm.ping(GATEWAY)
        assert softnet.dropped("vm->host", "no-lease", timeout=1)
        standin.vm.get_lease()
        assert standin.vm.ping(GATEWAY)


def test_the_gateway_can_be_named(standin):
    with standin.softnet("--gateway", GATEWAY):
        standin.vm.get_lease()
        assert standin.vm.ping(GATEWAY)
