"""A demonstration: a virtual machine behind `softnet run`, and what becomes of its lies.

It uses the laboratory of the end-to-end tests, and no package of Python's; tests/demo.sh
calls it.
"""

import contextlib
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True

from lab import Bench, namespace, paths  # noqa: E402
from lab.forwarder import Run  # noqa: E402
from lab.guest import Guest  # noqa: E402
from lab.load import megabits  # noqa: E402
from lab.network import GATEWAY, INTERNET, PEER, PEER_MAC, PRIVATE, Network  # noqa: E402
from lab.process import Failed, until  # noqa: E402
from lab.standin import StandIn  # noqa: E402

PICTURE = f"""
   VM ---- softnet ---- bridge: the host, {GATEWAY}, with DHCP and DNS
                          |---- another VM, {PEER}
                          '---- NAT ---- an internet, {INTERNET}

   All of it is in network namespaces, which go away again."""


def main():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lacking = paths.lacking_for_standin()
    if lacking:
        sys.exit(f"The demonstration cannot run: {lacking}.")
    with contextlib.ExitStack() as cleanup:
        paths.LOGS = Path(tempfile.mkdtemp(prefix="softnet-demo-"))
        cleanup.callback(shutil.rmtree, paths.LOGS, ignore_errors=True)
        namespace.remove_stale()
        network = cleanup.enter_context(Network())
        print(PICTURE)
        as_it_is_without(network)
        vm, softnet = start(network, cleanup)
        honest(network, vm)
        held = lying(network, vm, softnet)
        ending(vm, softnet)
    print("\nAll that this made is removed again.")
    if not held:
        sys.exit("softnet has let something through: this is a defect, please report it.")


def as_it_is_without(network):
    title("Without softnet, a VM tells another that it were the gateway")
    with Bench(network, StandIn()) as bench, bench.unfiltered():
        bench.vm.get_lease()
        lie(network, bench.vm)


def start(network, cleanup):
    """A VM behind `softnet run`: a real one where there can be one."""
    lacking = paths.lacking_for_guest()
    if not lacking:
        title("With softnet: a real VM, a Debian kernel under QEMU")
        try:
            return start_behind_softnet(network, cleanup, Guest())
        except (Failed, OSError) as error:
            lacking = str(error)
    title("With softnet: a network namespace that stands in for a VM")
    say(f"There is no real VM here: {lacking}.")
    return start_behind_softnet(network, cleanup, StandIn())


def start_behind_softnet(network, cleanup, vm):
    with contextlib.ExitStack() as failing:
        failing.enter_context(vm)
        begun = time.monotonic()
        softnet = failing.enter_context(Run.around(network, vm))
        command = abridged(vm.command_line("{fd}"))
        show(f"softnet run --vm-mac-address {vm.mac} --tap {softnet.tap} -- {command}")
        try:
            vm.wait_until_up()
        except Failed:
            say(*softnet.said().splitlines())
            raise
        say(f"up after {time.monotonic() - begun:.1f} s")
        cleanup.push(failing.pop_all())
    return vm, softnet


def honest(network, vm):
    title("It asks for an address")
    show("udhcpc -i eth0")
    lease = vm.get_lease()
    say(f"{lease.address} for {lease.seconds} s, from the DHCP server at {lease.server}")

    title("It reaches the internet")
    show(f"ping -c 3 {INTERNET}")
    say(*vm.check(f"busybox ping -c 3 -A {INTERNET}").splitlines()[-2:])

    title("TCP streams, from it and to it")
    for options in ("", " --reverse"):
        show(f"iperf3 -c {INTERNET}{options}")
        say(f"{megabits(network, vm, INTERNET, options, seconds=2):.0f} Mbit/s")
    if isinstance(vm, Guest):
        say("(QEMU emulates its processor here, which sets the limit.)")


def lying(network, vm, softnet):
    title("It tells the other VM that it were the gateway")
    held = not lie(network, vm)
    say(softnet.dropped("vm->host", "arp-sender-address", timeout=2))

    title("It tries addresses that are not for it")
    for address in PRIVATE:
        show(f"ping {address}")
        reached = vm.ping(address)
        say("REACHED" if reached else "no answer")
        held = held and not reached
    return held


def lie(network, vm):
    """ARP spoofing, with the tool that is in use for it; returns whether it worked."""
    network.forget()
    vm.check(f"ip neigh replace {PEER} lladdr {PEER_MAC} dev eth0 nud permanent")
    show(f"arpspoof -i eth0 -t {PEER} {GATEWAY}")
    with vm.background(f"arpspoof -i eth0 -t {PEER} {GATEWAY}"):
        known = lambda: network.mac_known_for(network.peer, GATEWAY)  # noqa: E731
        fooled = until(lambda: known() == vm.mac, timeout=3)
        say(
            f"The other VM has {GATEWAY} at {known()}: "
            + ("FOOLED, its traffic goes to the liar" if fooled else "not fooled")
        )
    return fooled


def ending(vm, softnet):
    title("The VM stops, softnet ends with it, and accounts for every frame")
    vm.stop()
    softnet.process.wait(10)
    say(*(line for line in softnet.said().splitlines() if "forwarded" in line))


def abridged(command):
    """A command line without what this demonstration alone needs."""
    program = "qemu-system-x86_64" if command[0].startswith("qemu") else "stand-in"
    command = [str(word) for word in command]
    at = next(i for i, word in enumerate(command) if "{fd}" in word)
    return f"{program} ... {command[at - 1]} {command[at]} ..."


_titles = iter(range(1, 100))


def title(text):
    print(f"\n{next(_titles)}. {text}", flush=True)


def show(command):
    print(f"   $ {command}", flush=True)


def say(*lines):
    for line in lines:
        print(f"     {line}", flush=True)


if __name__ == "__main__":
    main()
