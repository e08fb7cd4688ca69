"""`softnet run` starts the VM itself: for those who have no Tart."""

import pytest

from lab import namespace, paths
from lab.forwarder import Run
from lab.guest import Guest
from lab.network import INTERNET, PRIVATE
from lab.process import run
from lab.standin import StandIn


def test_a_stand_in_lives_behind_it(network):
    with StandIn() as vm:
        with Run.around(network, vm) as softnet:
            is_served_and_filtered(vm)
            vm.stop()
            assert softnet.process.wait(2) == 0


def test_qemu_lives_behind_it(network, needs_guest):
    with Guest() as vm:
        with Run.around(network, vm) as softnet:
            is_served_and_filtered(vm)
            vm.stop()
            assert softnet.process.wait(5) == 0


def is_served_and_filtered(vm):
    vm.wait_until_up()
    vm.get_lease()
    assert vm.ping(INTERNET)
    assert not vm.ping(PRIVATE[0])


@pytest.mark.parametrize("code", [0, 7])
def test_it_ends_with_the_code_of_its_command(network, code):
    with Run(network, "02:00:00:00:02:00", "sh", "-c", f"exit {code}") as softnet:
        assert softnet.process.wait(2) == code


def test_a_signal_ends_its_command_too(network):
    with StandIn() as vm:
        with Run.around(network, vm) as softnet:
            vm.wait_until_up()
            softnet.process.terminate()
            softnet.process.wait(2)
            assert not namespace.pids(vm.namespace)


def test_it_runs_as_the_root_of_a_user_namespace(network):
    # Who may not change its groups there, unlike root elsewhere.
    commands = (
        "ip tuntap add dev tap0 mode tap",
        "ip addr add 192.168.64.1/24 dev tap0",
        f"{paths.SOFTNET} run --vm-mac-address 02:00:00:00:02:00 --tap tap0 -- true",
    )
    run("unshare", "--map-root-user", "--net", "sh", "-c", " && ".join(commands))


def test_a_second_vm_with_one_mac_is_refused_until_the_first_is_gone(standin):
    network, mac = standin.network, standin.vm.mac
    with standin.softnet() as first:
        standin.vm.get_lease()
        with Run(network, mac, "true") as second:
            assert second.process.wait(2) == 1
            assert f"process id {first.process.pid} serves" in second.said()
        assert standin.vm.ping(INTERNET)
    with Run(network, mac, "true") as second:
        assert second.process.wait(2) == 0
