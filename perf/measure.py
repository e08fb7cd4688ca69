#!/usr/bin/env python3
"""What softnet costs, as ratios to a loop that moves frames and does nothing else.

    perf/measure.py --softnet target/release/softnet

Needs root, for a network namespace and TAPs of its own, and nothing but Python. The forwarders
run at the same time, each before its own TAP, and are measured in turns; a figure is the median
over rounds of the ratio within a round, with its quartiles. docs/performance.md tells the rest.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rig import Forwarder, Tap, enter_own_network

PERF = Path(__file__).resolve().parent
# Frames that fit the VM's socket at once, below the point where its sender must wait.
PRELOAD = {64: 2000, 1514: 800}
# The variants that have to drop a frame with a stolen address; the others have to let it pass.
FILTERING = ("softnet", "always")
LATENCY_RATE = 1000
LATENCY_BURSTS = 8
LATENCY_FRAMES = 40  # a burst
# After that long the start is over.
SETTLED_SECONDS = 6
# How far apart two runs of the same program may be, over enough rounds on a busy machine.
NOISE = 0.02
# What the self-check makes a frame dearer by, in turns of an empty loop.
SLOWER, SLOWER_TURNS = "slower by some 50 ns", 200
LIMITS = {"cpu": 1.15, "latency": 1.10}


def main():
    options = arguments()
    # Behind sudo softnet would open the bare loop's TAP for nobody but the caller.
    os.environ.pop("SUDO_UID", None)
    enter_own_network()
    variants = options.variants
    taps = [Tap(number) for number in range(len(variants))]
    load_before = os.getloadavg()[0]

    samples = {}  # (figure, variant) -> one value a round
    counted = {}  # the same, for what is counted once
    for number in range(options.rounds):
        forwarders = start(variants, taps, number)
        try:
            measure_cpu(forwarders, options.drains, number, samples)
            measure_latency(forwarders, samples)
            if number == options.rounds - 1:
                count_memory(forwarders, counted)
                count_switches(forwarders, options.idle_seconds, counted)
        finally:
            stop(forwarders)
        progress(f"round {number + 1} of {options.rounds}")
    progress("")
    if options.density:
        count_density(variants, taps, options, counted)

    machine = about_machine(options.machine, load_before)
    print(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['date']}")
    print(f"{options.rounds} rounds, load {load_before:.1f} before and {machine['load_after']:.1f} after")
    print_ratios(samples, list(variants))
    print_counted(counted, list(variants))
    if options.json:
        print(f"written to {write_json(machine, options, samples, counted)}")
    if options.self_check:
        return self_check(samples)
    return 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--softnet", required=True, metavar="PATH", help="the program softnet, which has the bare loop in it")
    parser.add_argument("--self-check", action="store_true", help="measure the measuring: the bare loop against itself, and against one made slower on purpose")
    parser.add_argument("--rounds", type=int, default=21, metavar="N", help="(21)")
    parser.add_argument("--drains", type=int, default=7, metavar="N", help="a round and figure (7)")
    parser.add_argument("--idle-seconds", type=float, default=10, metavar="S", help="(10)")
    parser.add_argument("--density", type=int, default=0, metavar="N", help="at last, that many at once, idle (none)")
    parser.add_argument("--json", action="store_true", help="append to perf/results/YYYY-MM/MACHINE.program.jsonl")
    parser.add_argument("--machine", metavar="NAME", help="in the results' file name (the CPU's model)")
    options = parser.parse_args()
    program = os.path.abspath(options.softnet)
    if options.self_check:
        options.variants = {
            "bare": bare(program),
            "bare again": bare(program),
            SLOWER: bare(program, f"--slow-filter={SLOWER_TURNS}"),
        }
    else:
        options.variants = {
            "bare": bare(program),
            "softnet": softnet(program),
            "always": softnet(program, "--hand-over=always"),
        }
    return options


def bare(program, *flags):
    """How to start the bare loop at a TAP; the VM's socket is its standard input."""
    return lambda tap: [program, "bench-subject", "bare", "--max-frame=1514", "--rules=0", f"--tap={tap.name}", *flags]


def softnet(program, *flags):
    """How to start the whole program."""
    return lambda tap: [program, "--vm-fd=0", f"--vm-mac-address={tap.vm_mac.hex(':')}", f"--tap={tap.name}", *flags]


def start(variants, taps, number):
    """All variants, each on another TAP than in the round before."""
    names = list(variants)
    shifted = taps[number % len(taps) :] + taps[: number % len(taps)]
    forwarders = []
    try:
        for name, tap in zip(names, shifted):
            forwarders.append(Forwarder(name, variants[name](tap), tap))
            forwarders[-1].bind_lease()
            if forwarders[-1].filters != (name in FILTERING):
                raise SystemExit(f"{name}: a frame with a stolen address was not treated as it should be")
    except BaseException:
        stop(forwarders)
        raise
    return forwarders


def stop(forwarders):
    for forwarder in forwarders:
        forwarder.stop()


def in_turns(forwarders):
    """The forwarders in an order by chance, so that none always follows the same other one."""
    return random.sample(forwarders, len(forwarders))


def measure_cpu(forwarders, drains, number, samples):
    """Nanoseconds of the forwarder's CPU a frame, while it works off a queue laid before it.

    To free a frame's memory is dearer by a sixth on another core than on the one that took it,
    and where a thread goes on after a stop depends on how many others do. So all variants run
    on one and the same core: in every other round it is the rig's, which took the memory.
    """
    cores = sorted(os.sched_getaffinity(0))
    core = cores[number % 2 % len(cores)]
    with on_core(cores[0], core, forwarders):
        work_off_queues(forwarders, drains, samples)


@contextlib.contextmanager
def on_core(rigs, forwarders_core, forwarders):
    """Binds the rig and the forwarders to a core each, for a time."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {rigs})
    for forwarder in forwarders:
        forwarder.bind_to({forwarders_core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)
        for forwarder in forwarders:
            forwarder.bind_to(everywhere)


def work_off_queues(forwarders, drains, samples):
    for way, drain in (("socket to TAP", drain_outbound), ("TAP to socket", drain_inbound)):
        for size in PRELOAD:
            taken = {forwarder.label: [] for forwarder in forwarders}
            for _ in range(drains):
                for forwarder in in_turns(forwarders):
                    taken[forwarder.label].append(drain(forwarder, size))
            for label, values in taken.items():
                figure = ("cpu", f"CPU a frame, {way}, {size} bytes", "ns")
                samples.setdefault((figure, label), []).append(statistics.median(values))


def drain_outbound(forwarder, size):
    count = PRELOAD[size]
    return forwarder.work_off(forwarder.vm.send, forwarder.tap.outbound_frame(size), count) / count


def drain_inbound(forwarder, size):
    count = PRELOAD[size]
    taken = forwarder.work_off(forwarder.tap.send, forwarder.tap.inbound_frame(size), count)
    frames = forwarder.frames_at_vm()
    if frames != count:
        raise SystemExit(f"{forwarder.label}: {frames} of {count} frames reached the VM")
    return taken / count


def measure_latency(forwarders, samples):
    """Median microseconds on the way, at a rate at which every frame finds its path asleep.

    Towards the TAP a frame has arrived when the kernel takes it from there, towards the VM
    when a reader of the socket has it, which adds one wake of this process.
    """
    for way, burst in (("socket to TAP", latency_outbound), ("TAP to socket", latency_inbound)):
        times = {forwarder.label: [] for forwarder in forwarders}
        cpu = dict.fromkeys(times, 0)
        # Many short bursts: which core wakes which, and so how dear a wake is, changes slowly.
        for _ in range(LATENCY_BURSTS):
            for forwarder in in_turns(forwarders):
                before = forwarder.cpu()
                times[forwarder.label] += burst(forwarder)
                cpu[forwarder.label] += forwarder.cpu() - before
        for label, values in times.items():
            figure = ("latency", f"median latency at {LATENCY_RATE}/s, {way}", "us")
            samples.setdefault((figure, label), []).append(statistics.median(values) / 1000)
            figure = ("cpu, waking", f"CPU a frame at {LATENCY_RATE}/s, {way}", "ns")
            samples.setdefault((figure, label), []).append(cpu[label] / len(values))


def latency_outbound(forwarder):
    frame = forwarder.tap.outbound_frame(200)
    with forwarder.tap.watch() as watcher:
        watcher.settimeout(2)

        def once():
            sent = time.clock_gettime_ns(time.CLOCK_REALTIME)
            forwarder.vm.send(frame)
            _, ancillary, _, _ = watcher.recvmsg(2048, 64)
            seconds, nanoseconds = (int.from_bytes(part, sys.byteorder) for part in halves(ancillary[0][2]))
            return seconds * 1_000_000_000 + nanoseconds - sent

        return at_rate(once)


def halves(timestamp):
    middle = len(timestamp) // 2
    return timestamp[:middle], timestamp[middle:]


def latency_inbound(forwarder):
    frame = forwarder.tap.inbound_frame(200)
    forwarder.vm.settimeout(2)

    def once():
        sent = time.monotonic_ns()
        forwarder.tap.send(frame)
        forwarder.vm.recv(2048)
        return time.monotonic_ns() - sent

    try:
        return at_rate(once)
    finally:
        forwarder.vm.settimeout(None)


def at_rate(once):
    """Calls `once` at the fixed rate; returns its results."""
    results = []
    due = time.monotonic()
    for _ in range(LATENCY_FRAMES):
        due += 1 / LATENCY_RATE
        time.sleep(max(0, due - time.monotonic()))
        results.append(once())
    return results


def count_memory(forwarders, counted):
    """Anonymous memory after the bursts so far, and after one into a VM that does not read."""
    for forwarder in forwarders:
        counted["anonymous KiB after bursts (at most 1536)", forwarder.label] = forwarder.memory()["Anonymous"] // 1024
        frame = forwarder.tap.inbound_frame(1514)
        for _ in range(4000):
            forwarder.tap.send(frame)
        time.sleep(0.1)
        counted["anonymous KiB after a burst into a full VM (at most 1536)", forwarder.label] = (
            forwarder.memory()["Anonymous"] // 1024
        )
        while forwarder.frames_at_vm():
            time.sleep(0.01)


def count_switches(forwarders, seconds, counted):
    """Context switches of every thread while no frame moves."""
    time.sleep(0.5)
    before = [forwarder.context_switches() for forwarder in forwarders]
    time.sleep(seconds)
    for forwarder, earlier in zip(forwarders, before):
        later = forwarder.context_switches()
        by_thread = [f"{name} {later[thread, name] - earlier.get((thread, name), 0)}" for thread, name in later]
        total = sum(later.values()) - sum(earlier.values())
        figure = f"context switches in {seconds:g} s idle (data threads 0; at most 10)"
        counted[figure, forwarder.label] = f"{total} ({', '.join(by_thread)})"


def count_density(variants, taps, options, counted):
    """What each of many costs that have taken a VM through DHCP and have nothing to do."""
    taps = taps + [Tap(number) for number in range(len(taps), options.density)]
    for name, command in variants.items():
        forwarders = []
        try:
            for tap in taps:
                forwarders.append(Forwarder(name, command(tap), tap))
                forwarders[-1].bind_lease()
            time.sleep(SETTLED_SECONDS)
            before = used(forwarders)
            time.sleep(options.idle_seconds)
            cpu, switches = (later - earlier for later, earlier in zip(used(forwarders), before))
            memory = [forwarder.memory() for forwarder in forwarders]
        finally:
            stop(forwarders)
        count = len(forwarders)
        head = f"each of {count}, idle for {options.idle_seconds:g} s"
        counted[f"{head}: CPU ms", name] = round(cpu / count / 1e6, 2)
        counted[f"{head}: context switches", name] = round(switches / count, 1)
        for kind in ("Rss", "Pss"):
            counted[f"{head}: {kind} KiB", name] = statistics.median(each[kind] for each in memory) // 1024


def used(forwarders):
    """Nanoseconds of CPU and context switches of all of them so far."""
    cpu = sum(forwarder.cpu() for forwarder in forwarders)
    return cpu, sum(sum(forwarder.context_switches().values()) for forwarder in forwarders)


def ratios(samples, figure, variant, reference):
    """The ratio to the reference in every round."""
    return [value / base for value, base in zip(samples[figure, variant], samples[figure, reference])]


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0], values[0]
    return statistics.quantiles(values, n=4, method="inclusive")


def print_ratios(samples, variants):
    reference, others = variants[0], variants[1:]
    print(f"\n{'':48}{reference:>12}   " + "".join(f"{name + ' x (quartiles)':30}" for name in others))
    for figure in dict.fromkeys(figure for figure, _ in samples):
        kind, name, unit = figure
        cells = []
        for variant in others:
            low, middle, high = quartiles(ratios(samples, figure, variant, reference))
            over = " over" if middle > LIMITS.get(kind, float("inf")) else ""
            cells.append(f"{f'{middle:.3f} ({low:.3f}..{high:.3f}){over}':30}")
        base = statistics.median(samples[figure, reference])
        print(f"{name:48}{f'{base:.1f} {unit}':>12}   " + "".join(cells))


def print_counted(counted, variants):
    for figure in dict.fromkeys(figure for figure, _ in counted):
        print(f"\n{figure}")
        for variant in variants:
            print(f"  {variant:16} {counted[figure, variant]}")


def self_check(samples):
    """Whether the same program measures the same, and a slower one slower."""
    failed = 0
    for figure in dict.fromkeys(figure for figure, _ in samples):
        if figure[0] != "cpu":
            continue
        low, same, high = quartiles(ratios(samples, figure, "bare again", "bare"))
        slow_low, slower, _ = quartiles(ratios(samples, figure, SLOWER, "bare"))
        good = (low <= 1 <= high or abs(same - 1) < NOISE) and slow_low > max(1, same)
        failed += not good
        print(f"{'good' if good else 'BAD'}: {figure[1]}: itself {same:.3f}, slower {slower:.3f}")
    return 1 if failed else 0


def about_machine(name, load_before):
    with open("/proc/cpuinfo") as cpuinfo:
        cpu = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), platform.machine())
    revision = subprocess.run(
        ["git", "-C", PERF, "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return {
        "machine": name or re.sub(r"[^a-z0-9]+", "-", f"{cpu} {os.cpu_count()} cores".lower()).strip("-"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "revision": revision.stdout.strip(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def write_json(machine, options, samples, counted):
    """Appends one line for the run, and one for every figure of a variant."""
    path = PERF / "results" / machine["date"][:7] / f"{machine['machine']}.program.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {"schema": 1, "run": machine, "rounds": options.rounds, "drains": options.drains}
    lines = [run]
    for ((_, name, unit), variant), values in samples.items():
        rounded = [round(value, 2) for value in values]
        lines.append({"figure": name, "unit": unit, "variant": variant, "by_round": rounded})
    for (name, variant), value in counted.items():
        lines.append({"figure": name, "variant": variant, "counted": value})
    with open(path, "a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path.relative_to(PERF.parent)


def progress(words):
    if sys.stderr.isatty():
        print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
