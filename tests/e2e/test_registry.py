"""No two VMs of a host have one MAC or one address: the second is refused."""

import pytest

from lab import Bench
from lab.network import BRIEFLY_LENT
from lab.standin import StandIn

SECONDS = 600


@pytest.fixture
def other(network):
    """Another stand-in VM."""
    with Bench(network, StandIn()) as bench:
        yield bench


def test_a_second_vm_is_not_given_the_address_of_the_first(standin, other):
    def both_are_given_it(first, second):
        """By a server that has forgotten whom it has given the address."""
        with first, second:
            with standin.network.dhcp_for(standin.vm.mac, SECONDS):
                assert standin.vm.get_lease().address == BRIEFLY_LENT
            with standin.network.dhcp_for(other.vm.mac, SECONDS):
                lease = other.vm.try_for_lease(tries=2)
            second.stop()
            return lease is not None and lease.address == BRIEFLY_LENT

    assert both_are_given_it(standin.unfiltered(), other.unfiltered())
    first, second = standin.softnet(), other.softnet()
    assert not both_are_given_it(first, second)
    assert second.drops("host->vm")["dhcp-address-taken"]
    assert f"process id {first.process.pid}" in second.said()
