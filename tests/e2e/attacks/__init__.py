"""Attacks that a VM tries, and those that are tried on it; each tells if it worked.

An attack does its worst for a moment and returns whether its victim was affected, as seen
from the victim. None of them knows of a filter: the same function has to return true
without one, and false with softnet in the way. `table` lists them all.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from lab import Bench
from lab.vm import Lease

logging.getLogger("scapy").setLevel(logging.ERROR)  # it warns of routes that we do not use

# Seconds that a victim gets to be affected.
PATIENCE = 1.0
OUTBOUND, INBOUND = "vm->host", "host->vm"


@dataclass(frozen=True)
class Attack:
    """One line of a table of attacks."""

    name: str
    # The label under which softnet counts its frames; None where it lets them pass, changed
    # so that they do no harm.
    reason: str | None
    # Whether it worked, given the VM on its network and the lease that the VM holds.
    works: Callable[[Bench, Lease], bool]
    # In which direction its frames are dropped.
    direction: str = OUTBOUND
    # Whether the QEMU guest tries it too: if it depends on the VM's own tools and kernel.
    in_guest: bool = False


def unique():
    """Twelve bytes that no other frame holds."""
    return os.urandom(6).hex().encode()
