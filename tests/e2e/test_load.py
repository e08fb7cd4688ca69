"""Under attack at full rate from outside, what the VM does itself goes on.

The other VM floods for SOFTNET_FLOOD_SECONDS in all (10 if not set), in turns: a flood at the
VM, and one of the same making at a port of the bridge that leads nowhere. So whatever it
costs the machine to make the flood, and the switch to carry it, is in both.
"""

import os

import pytest

from lab.load import flood_from_peer, megabits
from lab.network import INTERNET, NOWHERE, NOWHERES_MAC

SECONDS = int(os.environ.get("SOFTNET_FLOOD_SECONDS", "10"))
TURN_SECONDS = 2
# Of what the VM reaches while the flood goes elsewhere.
LEAST_SHARE = 0.8
# Kilobytes; less than one thread's stack, or than a second of the flood.
MEMORY_GROWTH = 1024


@pytest.mark.parametrize("options", ["", "--reverse"], ids=["upload", "download"])
def test_a_flood_from_outside_leaves_the_vm_its_throughput(standin, options):
    network, vm = standin.network, standin.vm
    with standin.softnet() as softnet, network.way_to_nowhere():
        address = vm.get_lease().address
        shares, floods, memory = [], [], []
        for _ in range(SECONDS // TURN_SECONDS):
            turn = {}
            for victim, mac in ((NOWHERE, NOWHERES_MAC), (address, vm.mac)):
                with flood_from_peer(network, victim, mac) as sent:
                    turn[victim] = megabits(network, vm, INTERNET, options, TURN_SECONDS)
                    floods.append(sent())
            shares.append(turn)
            memory.append(int(softnet.status()["VmRSS"].split()[0]))
        calm = sum(turn[NOWHERE] for turn in shares)
        attacked = sum(turn[address] for turn in shares)
        dropped = softnet.drops("host->vm")["isolation"]
        print(
            f"{attacked / len(shares):.0f} of {calm / len(shares):.0f} Mbit/s under attack, "
            f"{dropped} frames dropped of {sum(floods[1::2])} sent, memory {memory[0]} to {memory[-1]} kB"
        )
        assert dropped > 1000 * SECONDS, "that was no flood"
        assert attacked >= LEAST_SHARE * calm
        assert memory[-1] - memory[0] <= MEMORY_GROWTH
        # As with every softnet, its account of both directions is checked at the end.
        softnet.stop()
        assert not softnet.drops("vm->host")
