"""What a VM is meant to do works through softnet: a lease, names, pings, streams, and more."""

import pytest

import benign
from lab.load import megabits
from lab.network import GATEWAY, GATEWAY_MAC, INTERNET


# With the stand-in VM it is done before and after the attacks.
@pytest.mark.parametrize("it", benign.ALL, ids=lambda it: it.__name__)
def test_a_guest_has(guest_behind_softnet, it):
    it(guest_behind_softnet)


@pytest.fixture(scope="module")
def guest_behind_softnet(booted_guest):
    """A guest with a lease, behind one softnet for all these tests, which drops nothing that
    the guest sends."""
    booted_guest.vm.forget()
    with booted_guest.softnet() as softnet:
        booted_guest.vm.get_lease()
        yield booted_guest
        softnet.stop()
        assert not softnet.drops("vm->host")


def test_a_guest_has_its_lease_again_after_it_rebooted(rebooting_guest):
    vm = rebooting_guest.vm
    with rebooting_guest.softnet():
        lease = vm.get_lease()
        assert vm.ping(INTERNET)
        vm.reboot()
        assert not vm.address()
        assert vm.get_lease() == lease
        assert vm.ping(INTERNET)


@pytest.mark.parametrize("options", ["--hand-over always", "--hand-over never", "--pin 0,0"])
def test_streams_flow_however_the_work_is_divided(standin, options):
    with standin.softnet(*options.split()):
        standin.vm.get_lease()
        for direction in ("", "--reverse"):
            assert megabits(standin.network, standin.vm, INTERNET, direction) > 1


def test_a_vm_that_restarts_softnet_is_back_once_the_server_confirms_its_lease(standin):
    with standin.softnet():
        standin.vm.get_lease()
    with standin.softnet() as softnet:
        # It has its address still, but this softnet has seen nobody give it: the first frame
        # goes no further, and softnet asks the server in its place.
        standin.vm.check(f"ip neigh replace {GATEWAY} lladdr {GATEWAY_MAC} dev eth0")
        assert not standin.vm.ping(GATEWAY)
        assert softnet.dropped("host->vm", "dhcp-own-answer", timeout=1)
        assert standin.vm.ping(GATEWAY)


def test_the_gateway_can_be_named(standin):
    with standin.softnet("--gateway", GATEWAY):
        standin.vm.get_lease()
        assert standin.vm.ping(GATEWAY)
