"""Every attack is seen to work without a filter, and then to fail through softnet, which
counts it under its own reason.

The attacks share a VM and a forwarder, and the forwarder is changed once: first all of them
are tried without a filter, then all through one softnet. It is a test of its own that this
softnet gives the VM what is its own, before all that and after it.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest

import benign
from attacks import INBOUND, OUTBOUND, Attack, frames
from attacks.table import BEFORE_A_LEASE, BY_A_VM, ON_A_VM
from lab import Bench
from lab.forwarder import Forwarder
from lab.network import GATEWAY, INTERNET, PEER_MAC
from lab.process import until
from lab.standin import StandIn
from lab.vm import Lease

# Nobody grants this address; it is outside the pool.
CHOSEN = "192.168.64.60"
# It looks at its counters once a second; on a busy machine that may take longer.
COUNTED_SECONDS = 5
# For local experiments (IEEE 802), which softnet drops like all that it does not know.
MARKER, MARKED = frames.typed(0x88B5, to=frames.BROADCAST_MAC), "ethertype"


@dataclass
class Arena:
    """A VM behind one forwarder, for many attacks in a row."""

    bench: Bench
    forwarder: Forwarder
    is_filtered: bool
    lease: Lease
    # Those that were not checked yet to be counted, no two of them for the same reason.
    uncounted: list[Attack] = field(default_factory=list)
    counted: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))

    def suffers(self, attack):
        """Tries an attack, and fails where it has not the outcome that it must have."""
        if self.is_filtered and any(same_count(attack, it) for it in self.uncounted):
            self.count()
        self.bench.network.forget()
        self.bench.vm.check("ip neigh flush dev eth0")
        # Who was robbed of its MAC, its address or its gateway has it again.
        assert self.has_no_lease or self.bench.vm.ping(GATEWAY)
        if self.is_filtered and self.has_no_lease:
            # softnet asks the server about it, once in a while, in the place of such a frame.
            spent = frames.ip(frames.udp())(self.bench.vm.mac, self.lease, b"")
            self.bench.vm.send(spent)
        worked = attack.works(self.bench, self.lease)
        if not self.is_filtered:
            assert worked, "it does not even work without a filter"
            return
        assert not worked, f"it worked: {self.forwarder.said()}"
        self.uncounted.append(attack)
        # Whatever it has tried or suffered, the VM reaches what it may reach.
        assert self.has_no_lease or self.bench.vm.ping(INTERNET)

    def count(self):
        """Checks that the attacks since the last time were counted each under its reason, and
        that nothing else of what the VM sent was dropped."""
        with self.bench.network.watch_peer() as peer:
            peer.send(MARKER(PEER_MAC, self.lease, b""))
        self.bench.vm.send(MARKER(self.bench.vm.mac, self.lease, b""))
        attacks, self.uncounted = self.uncounted, []
        for direction in (OUTBOUND, INBOUND):
            expected = Counter(it.reason for it in attacks if it.direction == direction and it.reason)
            expected[MARKED] += 1
            before = self.counted[direction]
            # What comes last is counted last.
            until(
                lambda: (self.forwarder.drops(direction) - before)[MARKED] >= expected[MARKED],
                COUNTED_SECONDS,
            )
            self.counted[direction] = self.forwarder.drops(direction)
            dropped = self.counted[direction] - before
            assert not expected - dropped, f"{dropped} instead of {expected}: {attacks}"
            if direction == OUTBOUND:
                spent = {"no-lease"} if self.has_no_lease else set()
                assert set(dropped) - spent == set(expected) - spent, f"{dropped} instead of {expected}: {attacks}"

    @property
    def has_no_lease(self):
        """Whether it has only an address of its own choice."""
        return self.lease.seconds == 0


def same_count(one, other):
    return (one.reason, one.direction) == (other.reason, other.direction)


def in_rounds(attacks):
    """The attacks in such an order that those with the same reason are far from each other."""
    seen = Counter()

    def round_of(attack):
        seen[attack.direction, attack.reason] += 1
        return seen[attack.direction, attack.reason]

    return sorted(attacks, key=round_of)


# What is well, and what a guest does more than a stand-in, is tried with large segments alone.
TWICE = pytest.mark.parametrize("filtered", [False, "auto"], ids=["unfiltered", "softnet"], indirect=True)


@pytest.fixture(scope="module", params=[False, "auto", "off"], ids=["unfiltered", "softnet", "offload-off"])
def filtered(request):
    """Whether softnet is in the way, and how it uses the TAP. What uses this runs first without it,
    then with it: whether large segments cross the TAP changes neither outcomes nor counters."""
    return request.param


@pytest.fixture(scope="module")
def standin_arena(network, filtered):
    """With a stand-in VM that holds a lease."""
    with Bench(network, StandIn()) as bench:
        yield from arena(bench, filtered)


@pytest.fixture(scope="module")
def guest_arena(booted_guest, filtered):
    """With a guest that holds a lease."""
    yield from arena(booted_guest, filtered)


def arena(bench, filtered, lease=None):
    if not lease:
        bench.vm.forget()
    with bench.softnet("--offload", filtered) if filtered else bench.unfiltered() as forwarder:
        arena = Arena(bench, forwarder, bool(filtered), lease or bench.vm.get_lease())
        yield arena
        if filtered:
            arena.count()


@pytest.fixture(scope="module")
def arena_without_lease(network, filtered):
    """With a stand-in VM that nobody has granted an address, so that it chose one."""
    with Bench(network, StandIn()) as bench:
        bench.vm.check(f"ip addr add {CHOSEN}/24 dev eth0; ip route add default via {GATEWAY}")
        yield from arena(bench, filtered, Lease(CHOSEN, GATEWAY, GATEWAY, GATEWAY, 0))


@TWICE
@pytest.mark.parametrize("it", benign.ALL, ids=lambda it: it.__name__)
def test_before_the_attacks_all_is_well(standin_arena, it):
    it(standin_arena.bench)


@pytest.mark.parametrize("attack", in_rounds(BY_A_VM), ids=lambda it: it.name)
def test_by_a_vm(standin_arena, attack):
    standin_arena.suffers(attack)


@pytest.mark.parametrize("attack", in_rounds(ON_A_VM), ids=lambda it: it.name)
def test_on_a_vm(standin_arena, attack):
    standin_arena.suffers(attack)


@TWICE
@pytest.mark.parametrize("it", benign.ALL, ids=lambda it: it.__name__)
def test_after_the_attacks_all_is_well(standin_arena, it):
    it(standin_arena.bench)


@pytest.mark.parametrize("attack", in_rounds(BEFORE_A_LEASE), ids=lambda it: it.name)
def test_by_a_vm_without_a_lease(arena_without_lease, attack):
    arena_without_lease.suffers(attack)


@TWICE
@pytest.mark.parametrize("attack", in_rounds(it for it in BY_A_VM if it.in_guest), ids=lambda it: it.name)
def test_by_a_guest(guest_arena, attack):
    guest_arena.suffers(attack)
