#!/usr/bin/env python3
"""What large segments at a TAP gain: iperf3 between a VM and the host itself, or over its NAT, through
ways to forward that take turns in each round. Prints ratios to the first: medians, with quartiles.

    sudo bash tests/e2e/run.sh --co -q >/dev/null     (once: installs what it takes)
    sudo unshare --mount sh -c "mount -t tmpfs none /run && target/e2e/venv/bin/python perf/offload.py [OPTIONS]"

The VM is a namespace whose card is a TAP without offloads; the bench's bare loop plays the monitor
between that and the VM's socket, so that its cost is as low as a monitor's can be. Throughput is what
arrives. CPU time for each byte of that is of the forwarder, and of the whole machine, by /proc. How full
batches are depends on who of all these has the processors; with --full the forwarder is stopped and
released again and again, so that it always finds a queue.
"""

import argparse
import contextlib
import os
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))
os.environ.setdefault("SOFTNET_BIN", str(ROOT / "target/release/softnet"))

from lab import Bench, namespace, paths  # noqa: E402
from lab.load import megabits  # noqa: E402
from lab.network import GATEWAY, INTERNET, Network  # noqa: E402
from lab.process import end  # noqa: E402
from lab.standin import StandIn  # noqa: E402

# Opens the TAP, and becomes the bare loop between it and the VM's socket. It takes softnet's options.
BARE = ROOT / "tests/e2e/bare.py"
WAYS = {
    "bare": None,
    "off": ("--offload", "off"),
    "auto": ("--offload", "auto"),
    "load+off": ("--offload", "off", "--hand-over", "load"),
    "load+auto": ("--offload", "auto", "--hand-over", "load"),
}
CASES = {
    "out, 1 stream, to the host": (GATEWAY, ""),
    "out, 1 stream, NAT": (INTERNET, ""),
    "out, 4 streams, NAT": (INTERNET, "-P 4"),
    "out, 16 streams, NAT": (INTERNET, "-P 16"),
    "in, 1 stream, NAT": (INTERNET, "-R"),
    "in, 4 streams, NAT": (INTERNET, "-R -P 4"),
    "out, UDP of 64 bytes, 50,000/s, NAT": (INTERNET, "-u -l 22 -b 8800k"),
}
SECONDS = 2
# As long as the queues of 1514-byte frames take to fill, and to be worked off.
STOPPED, RELEASED = 0.004, 0.003


class Fast(StandIn):
    """A stand-in whose monitor is the bare loop."""

    def command_line(self, fd):
        return namespace.command_in(self.namespace, sys.executable, BARE, "--vm-fd", fd, "--tap", "eth0")


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


@contextlib.contextmanager
def in_pulses(pid):
    """Stops and releases a process by turns."""
    done = threading.Event()

    def pulse():
        while not done.wait(RELEASED):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(STOPPED)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=pulse)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measure(bench, way, server, options, full):
    """Megabits a second, and ticks of the forwarder and of the machine for each of them."""
    start = bench.softnet(*WAYS[way]) if WAYS[way] else bench.forwarder(BARE)
    with start as forwarder:
        bench.vm.get_lease()
        pid = forwarder.process.pid
        before = ticks_of(pid), busy_ticks()
        with in_pulses(pid) if full else contextlib.nullcontext():
            reached = megabits(bench.network, bench.vm, server, options, SECONDS)
        mine, all_of_it = ticks_of(pid) - before[0], busy_ticks() - before[1]
        if not WAYS[way]:
            # It knows no other way to end.
            end(forwarder.process)
        return reached, mine / reached, all_of_it / reached


def main():
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description="What large segments at a TAP gain.")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--ways", default="bare,off,auto", help=f"of {', '.join(WAYS)}; ratios are to the first")
    parser.add_argument("--case", action="append", help=f"part of a name; of {'; '.join(CASES)}")
    parser.add_argument("--full", action="store_true", help="full batches")
    asked = parser.parse_args()
    ways = asked.ways.split(",")
    cases = [it for it in CASES if not asked.case or any(part in it for part in asked.case)]
    found = {(case, way): [] for case in cases for way in ways}
    with Network() as network, Bench(network, Fast()) as bench:
        for number in range(asked.rounds):
            for case in cases:
                turn = number % len(ways)
                for way in ways[turn:] + ways[:turn]:
                    found[case, way].append(measure(bench, way, *CASES[case], asked.full))
                print(case, {way: f"{found[case, way][-1][0]:.0f} Mbit/s" for way in ways}, file=sys.stderr)
    print(f"{asked.rounds} rounds of {SECONDS} s; ratios to {ways[0]}: median [quartiles]")
    for case in cases:
        for way in ways[1:]:
            columns = []
            for column in range(3):
                pairs = zip(found[case, way], found[case, ways[0]])
                low, middle, high = statistics.quantiles([a[column] / b[column] for a, b in pairs], n=4)
                columns.append(f"{middle:.2f} [{low:.2f} {high:.2f}]")
            print(f"{case:36} {way:10} throughput {columns[0]}  forwarder's CPU {columns[1]}  machine's {columns[2]}")


if __name__ == "__main__":
    main()
