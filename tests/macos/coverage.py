#!/usr/bin/env python3
"""How much of the code for macOS the tests against the simulation run, on Linux.

Code for macOS is what `cfg` leaves out on Linux: modules, and items within others. Lines are
those that are neither blank nor a comment nor part of a file's tests. Of some of them, such as
types and constants, the compiler makes no instructions that could be counted as run.

llvm-profdata and llvm-cov must be as new as the compiler's LLVM, as for tests/setup/coverage.sh.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")) / "coverage-macos"
TESTS = ["--features", "vmnet-sim", "--lib", "--test", "vmnet", "--test", "vmnet_leaks", "--test", "mac", "--test", "bench", "--test", "vmnet_bench"]
# The conditions: of what the simulation runs too, and of what is on a Mac alone.
SIMULATED = 'any(target_os = "macos", feature = "vmnet-sim")'
ALONE = 'target_os = "macos"'


def main():
    lines = {name: (path, numbers) for name, path, numbers in code_for_macos()}
    executed = run_tests()
    total = [0, 0, 0, 0]
    print(f"{'':34} {'lines':>6} {'simulated':>9} {'countable':>9} {'run':>6}")
    for name, (path, numbers) in lines.items():
        simulated = {number for number, alone in numbers.items() if not alone}
        counted = {number: executed.get(path, {}).get(number) for number in simulated}
        countable = [count for count in counted.values() if count is not None]
        row = [len(numbers), len(simulated), len(countable), sum(count > 0 for count in countable)]
        total = [a + b for a, b in zip(total, row)]
        print(f"{name:34} {row[0]:6} {row[1]:9} {row[2]:9} {row[3]:6}")
    print(f"{'all':34} {total[0]:6} {total[1]:9} {total[2]:9} {total[3]:6}")
    share = 100 * total[3] / total[2]
    print(f"the simulation runs {share:.1f} % of the lines that can be counted")


def code_for_macos():
    """Name and path of each file with code for macOS, and its lines of that: True for those
    that no simulation reaches."""
    whole, found = {}, {}
    sources = sorted((REPO / "src").rglob("*.rs"))
    for path in sources:
        for module, alone in modules(path):
            for file in [module, *sorted(module.with_suffix("").rglob("*.rs"))]:
                whole[file] = alone
    # A module of a module for macOS is one too.
    for path in sources:
        folder = path.parent / "mod.rs"
        if path not in whole and folder in whole:
            whole[path] = whole[folder]
    for path in sources:
        text = path.read_text().splitlines()
        code = [number for number, line in enumerate(text, 1) if is_code(line)]
        tests = next((number for number, line in enumerate(text, 1) if line == "#[cfg(test)]"), len(text) + 1)
        parts = items(text)
        numbers = {
            number: whole[path] or parts.get(number, False) if path in whole else parts[number]
            for number in code
            if number < tests and (path in whole or number in parts)
        }
        if numbers:
            found[path] = numbers
    for path, numbers in found.items():
        yield str(path.relative_to(REPO)), path, numbers


def modules(path):
    """The files of the modules that a file declares for macOS, and whether on a Mac alone."""
    declaration = re.compile(r'#\[cfg\((.*)\)\]\n(?:#\[path = "(.*)"\]\n)?(?:pub(?:\(\w+\))? )?mod (\w+);')
    for condition, named, name in declaration.findall(path.read_text()):
        if condition in (SIMULATED, ALONE):
            folder = path.parent if path.name in ("mod.rs", "lib.rs", "main.rs") else path.with_suffix("")
            choices = [folder / named] if named else [folder / f"{name}.rs", folder / name / "mod.rs"]
            yield next(choice for choice in choices if choice.exists()), condition == ALONE


def items(text):
    """The lines of items and statements that a condition keeps for macOS."""
    found = {}
    for number, line in enumerate(text):
        condition = re.fullmatch(r"#\[cfg\((.*)\)\]", line.strip())
        if not condition or condition[1] not in (SIMULATED, ALONE):
            continue
        depth = 0
        for end in range(number + 1, len(text)):
            found[end + 1] = condition[1] == ALONE
            stripped = text[end].split("//")[0].rstrip()
            depth += sum(stripped.count(c) for c in "{([") - sum(stripped.count(c) for c in "})]")
            if depth <= 0 and stripped.endswith((";", "}", ",")):
                break
    return found


def is_code(line):
    line = line.strip()
    return bool(line) and not line.startswith("//")


def run_tests():
    """How often each line of each file was run."""
    profiles = TARGET / "profiles"
    shutil.rmtree(profiles, ignore_errors=True)
    profiles.mkdir(parents=True)
    # Also for a softnet that somebody else starts.
    profiles.chmod(0o1777)
    environment = {
        **os.environ,
        "CARGO_TARGET_DIR": str(TARGET),
        # Counts in a mapped file (%c) outlive a process that is killed or becomes another.
        "RUSTFLAGS": "-Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation",
        "LLVM_PROFILE_FILE": f"{profiles}/%p-%m%c.profraw",
    }
    cargo = ["cargo", "test", "--locked", *TESTS]
    subprocess.run(cargo, cwd=REPO, env=environment, check=True, stdout=sys.stderr)
    built = subprocess.run(
        [*cargo, "--no-run", "--message-format=json"],
        cwd=REPO, env=environment, check=True, capture_output=True, text=True,
    ).stdout
    messages = [json.loads(line) for line in built.splitlines()]
    programs = {message["executable"] for message in messages if message.get("executable")}

    merged = TARGET / "profile"
    raw = [str(file) for file in profiles.iterdir()]
    subprocess.run([tool("llvm-profdata"), "merge", "--sparse", *raw, "-o", str(merged)], check=True)
    objects = [f"-object={program}" for program in sorted(programs)]
    report = subprocess.run(
        [tool("llvm-cov"), "export", "--format=lcov", f"--instr-profile={merged}", *objects],
        check=True, capture_output=True, text=True,
    ).stdout
    found, counts = {}, {}
    for line in report.splitlines():
        if line.startswith("SF:"):
            counts = found.setdefault(pathlib.Path(line[3:]), {})
        elif line.startswith("DA:"):
            number, count = map(int, line[3:].split(",")[:2])
            counts[number] = max(counts.get(number, 0), count)
    return found


def tool(name):
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    major = re.search(r"LLVM version: (\d+)", version)[1]
    libraries = subprocess.run(
        ["rustc", "--print", "target-libdir"], check=True, capture_output=True, text=True
    ).stdout.strip()
    places = [f"{libraries}/../bin", f"/usr/lib/llvm-{major}/bin", os.environ["PATH"]]
    found = shutil.which(name, path=os.pathsep.join(places))
    if not found:
        sys.exit(f"{name} is missing: rustup's component llvm-tools or Debian's package llvm-{major} has it")
    return found


if __name__ == "__main__":
    main()
