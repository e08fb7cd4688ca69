#!/usr/bin/env python3
"""The gate that keeps softnet fast: refuses a tree that costs more than perf/baseline says.

    perf/check.py                  judge this tree; exit code 1 if it is refused
    perf/check.py --update         write the instruction counts of this tree as the new baseline of
                                   this compiler
    perf/check.py --self-check     slow the filter on purpose, and see that the gate refuses it

It judges what does not depend on how busy the machine is: instructions counted by Valgrind,
allocations, writes, wake-ups, memory, and CPU time as a ratio to the bare loop in the same rounds. Frames
a second are never judged. docs/performance.md tells the rest.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTRUCTIONS = ROOT / "perf/baseline/instructions.json"
LIMITS = ROOT / "perf/baseline/limits.txt"
# A change of the C library alone moves counts by less than this.
INSTRUCTIONS_NOISE = 0.03
# Another compiler than those in the baseline may choose otherwise.
COMPILER_NOISE = 0.15
# Of a full batch of frames of 1514 bytes, which is more than a large segment holds.
WRITES = 2
# What the self-check makes a frame dearer by, in iterations of a busy loop of four instructions: 80
# instructions where these are counted, and where time is, some 200 ns, a third of a frame.
SLOW_INSTRUCTIONS, SLOW_TIME = 20, 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--update", action="store_true", help="write this compiler's counts in perf/baseline/instructions.json anew")
    parser.add_argument("--self-check", action="store_true", help="see that the gate can fail")
    parser.add_argument("--rounds", type=int, default=31, metavar="N", help="of softnet bench (31)")
    options = parser.parse_args()
    build()
    if options.update:
        baseline = json.loads(INSTRUCTIONS.read_text()) | {rustc(): count_instructions()}
        INSTRUCTIONS.write_text(json.dumps(baseline, indent=2, sort_keys=True) + "\n")
        print(f"written: {INSTRUCTIONS.relative_to(ROOT)}; say in the commit why they changed")
        return 0
    if options.self_check:
        return self_check(options.rounds)
    refusals = judge_instructions(count_instructions())
    refusals += judge_allocations()
    refusals += judge_writes("Auto")
    refusals += judge_figures(options.rounds)
    for refusal in refusals:
        print(f"REFUSED: {refusal}")
    print("perf-check: refused" if refusals else "perf-check: passed")
    return 1 if refusals else 0


def self_check(rounds):
    """Whether a filter that is slower by a known amount is refused, and by both ways of measuring;
    and whether a TAP is that gets each frame by itself."""
    instructions = judge_instructions(count_instructions(slow=SLOW_INSTRUCTIONS))
    figures = judge_figures(rounds, slow=SLOW_TIME)
    writes = judge_writes("Off") if os.geteuid() == 0 else ["writes: not counted without root"]
    by_time = [refusal for refusal in figures if "cpu_ns_per_frame" in refusal]
    for refusal in instructions + writes + figures:
        print(f"refused, as it should be: {refusal}")
    if instructions and writes and by_time:
        return 0
    print("BAD: the gate let a slower filter pass, or a write for each frame")
    return 1


def build():
    cargo("build", "--release", "--bin", "softnet")


def cargo(*arguments, **options):
    environment = {**os.environ, **options.pop("environment", {})}
    command = ["cargo", arguments[0], "--locked", *arguments[1:]]
    return subprocess.run(command, cwd=ROOT, env=environment, **{"check": True, **options})


def rustc():
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def count_instructions(slow=0):
    """Instructions of every case of benches/instructions.rs, by its name."""
    output = cargo(
        "bench", "--bench", "instructions", "--", "--output-format=json",
        environment={"SOFTNET_SLOW_FILTER": str(slow)},
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return dict(sorted(instructions_of(line) for line in output.splitlines() if line.startswith("{")))


def judge_instructions(counts):
    by_compiler = json.loads(INSTRUCTIONS.read_text())
    baseline, noise = by_compiler.get(rustc()), INSTRUCTIONS_NOISE
    if baseline is None:
        compiler, baseline = max(by_compiler.items())
        noise = COMPILER_NOISE
        print(f"note: no baseline for {rustc()}; {compiler} has the next best, and {noise:.0%} are allowed")
    refusals = []
    for name in sorted(baseline.keys() | counts.keys()):
        before, now = baseline.get(name), counts.get(name)
        if before is None or now is None:
            refusals.append(f"{name}: {'not in the baseline' if before is None else 'not counted any more'}")
            continue
        print(f"{name:44} {now:>12} instructions, {now / before - 1:+.2%}")
        if now > before * (1 + noise):
            refusals.append(f"{name}: {now} instructions, {before} in the baseline ({now / before - 1:+.1%})")
    return refusals


def judge_allocations():
    """tests/no_alloc.rs counts the allocations of a forwarder at work, and expects none."""
    try:
        cargo("test", "--release", "--test", "no_alloc", stdout=subprocess.PIPE)
    except subprocess.CalledProcessError as error:
        sys.stdout.buffer.write(error.stdout)
        return ["tests/no_alloc.rs fails"]
    print("no allocations once frames flow")
    return []


def judge_writes(offload):
    """tests/offload.rs counts by the kernel how many writes a TAP gets for a batch of one connection."""
    if os.geteuid() != 0:
        print("note: writes at a TAP are not counted without root")
        return []
    test = ["a_batch_of_one_connection_takes_two_writes", "--exact", "--nocapture"]
    # The test fails by itself where there are more; what it has counted until then is what is judged here.
    done = cargo("test", "--release", "--test", "offload", "--", *test, check=False, stdout=subprocess.PIPE, text=True)
    counted = re.search(rf"^offload {offload}: (\d+) writes$", done.stdout, re.MULTILINE)
    if not counted:
        print(done.stdout)
        return ["tests/offload.rs does not count writes"]
    writes = int(counted[1])
    print(f"{writes} writes of a batch of one connection")
    return [f"{writes} writes of a batch of one connection at a TAP, {WRITES} at most"] if writes > WRITES else []


def judge_figures(rounds, slow=0):
    """A run of the bench, held against LIMITS by `softnet bench compare`; what that refuses."""
    softnet = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/softnet"
    lines = [line.partition("#")[0].split() for line in LIMITS.read_text().splitlines()]
    scenarios = dict.fromkeys(words[0] for words in lines if words)
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(
            [softnet, "bench", "--subject", "auto", "--rounds", str(rounds),
             "--scenario", ",".join(scenarios), "--slow-filter", str(slow), "--json", file.name],
            check=True, stdout=subprocess.DEVNULL,
        )
        judged = subprocess.run(
            [softnet, "bench", "compare", "--limits", LIMITS, file.name], stdout=subprocess.PIPE, text=True
        )
    print(judged.stdout, end="")
    refusals = [" ".join(line.split()[:-1]) for line in judged.stdout.splitlines() if line.endswith("REFUSED")]
    # Without a refusal there may be an exit code too: something was not measured.
    return refusals or ["softnet bench compare failed"] * (judged.returncode != 0)


def instructions_of(line):
    """The name and the instructions of a case, from the summary that gungraun prints for it."""
    summary = json.loads(line)
    name = "/".join(filter(None, [summary["function_name"], summary.get("id")]))
    [profile] = [profile for profile in summary["profiles"] if profile["tool"] == "Callgrind"]
    return name, profile["data"]["total"]["metrics"]["Ir"]["values"]["new"]


if __name__ == "__main__":
    sys.exit(main())
