"""Every attack is seen to work without a filter, and then seen to fail through softnet."""

import pytest

from attacks import BY_A_VM, ON_A_VM
from lab.network import GATEWAY, INTERNET


@pytest.mark.parametrize("attack", BY_A_VM, ids=lambda it: it.name)
def test_a_vm_cannot(bench, attack):
    is_stopped(bench, attack, "vm->host")


@pytest.mark.parametrize("attack", ON_A_VM, ids=lambda it: it.name)
def test_a_vm_is_spared(standin, attack):
    is_stopped(standin, attack, "host->vm")


def is_stopped(bench, attack, direction):
    with bench.unfiltered():
        lease = bench.vm.get_lease()
        bench.network.forget()
        assert attack.works(bench, lease), "it does not even work without a filter"

    with bench.softnet() as softnet:
        # softnet must see a lease being given. The server gives the same address again.
        lease = bench.vm.get_lease()
        bench.network.forget()
        assert not attack.works(bench, lease), f"it worked: {softnet.said()}"
        assert softnet.dropped(direction, attack.reason, timeout=1), softnet.said()
        # And whatever it has tried, the VM keeps what it is entitled to.
        assert bench.vm.ping(GATEWAY)
        assert bench.vm.ping(INTERNET)
