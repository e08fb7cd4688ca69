#!/usr/bin/env python3
"""What large segments at a TAP gain: iperf3 between a VM and the internet, over the host's NAT, with
`--offload auto` and `off` by turns in each round. Prints ratios: medians, with quartiles.

    sudo bash tests/e2e/run.sh --co -q >/dev/null     (once: installs what it takes)
    sudo unshare --mount sh -c "mount -t tmpfs none /run && target/e2e/venv/bin/python perf/offload.py [ROUNDS]"

The VM is a namespace whose card is a TAP without offloads; softnet's own bare loop plays the monitor
between that and the VM's socket, so that its cost is as low as a monitor's can be. Throughput is what
arrives. CPU time a byte is of softnet, and of the whole machine, by /proc.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))
os.environ.setdefault("SOFTNET_BIN", str(ROOT / "target/release/softnet"))

from lab import Bench, namespace, paths  # noqa: E402
from lab.load import megabits  # noqa: E402
from lab.network import INTERNET, Network  # noqa: E402
from lab.standin import StandIn  # noqa: E402

# Opens the TAP, and becomes the bare loop between it and the VM's socket.
MONITOR = """
import os, sys
sys.path.insert(0, sys.argv[1])
from unfiltered import open_tap
tap = open_tap("eth0")
os.dup2(int(sys.argv[2]), 0)
os.dup2(tap, 1)
os.set_blocking(1, False)
os.execv(sys.argv[3], [sys.argv[3], "bench-subject", "bare", "--max-frame", "1514", "--rules", "0"])
"""
CASES = {"out, 1 stream": "", "out, 4 streams": "-P 4", "in, 1 stream": "-R", "in, 4 streams": "-R -P 4"}
SECONDS = 2


class Fast(StandIn):
    """A stand-in whose monitor is the bare loop."""

    def command_line(self, fd):
        e2e = ROOT / "tests/e2e"
        return namespace.command_in(
            self.namespace, sys.executable, "-c", MONITOR, e2e, str(fd), paths.SOFTNET
        )


def ticks_of(pid):
    """CPU time of a process, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def busy_ticks():
    """CPU time of the machine that was not idle, in clock ticks."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return user + nice + system + irq + softirq


def measure(bench, offload, options):
    """Megabits a second, and ticks of softnet and of the machine for each of them."""
    with bench.softnet("--offload", offload) as softnet:
        bench.vm.get_lease()
        pid = softnet.process.pid
        before = ticks_of(pid), busy_ticks()
        reached = megabits(bench.network, bench.vm, INTERNET, options, SECONDS)
        mine, all_of_it = ticks_of(pid) - before[0], busy_ticks() - before[1]
        return reached, mine / reached, all_of_it / reached


def main():
    """Measures, and prints a table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    ratios = {case: [] for case in CASES}
    with Network() as network, Bench(network, Fast()) as bench:
        for number in range(rounds):
            for case, options in CASES.items():
                turns = ["auto", "off"] if number % 2 else ["off", "auto"]
                found = {offload: measure(bench, offload, options) for offload in turns}
                ratios[case].append([a / b for a, b in zip(found["auto"], found["off"])])
                print(case, {k: f"{v[0]:.0f} Mbit/s" for k, v in found.items()}, file=sys.stderr)
    print(f"{rounds} rounds of {SECONDS} s; offload auto against off: median [quartiles]")
    for case, rows in ratios.items():
        columns = []
        for column in zip(*rows):
            low, middle, high = statistics.quantiles(column, n=4)
            columns.append(f"{middle:.2f} [{low:.2f} {high:.2f}]")
        print(f"{case:16} throughput {columns[0]}  softnet's CPU {columns[1]}  machine's {columns[2]}")


if __name__ == "__main__":
    main()
