#!/usr/bin/env python3
"""Checks binaries for macOS as far as that goes without a Mac: verify.py FILE...

Each has to be a position-independent executable for macOS 13 or later, linked against an SDK of
macOS 26 or later, import nothing that macOS 13 lacks, load no library but the expected ones, carry
an ad-hoc signature whose hashes are right, with the one entitlement for vmnet, and show no folder
of the machine that built it. A universal binary is checked slice by slice.
"""

import hashlib
import pathlib
import plistlib
import re
import struct
import subprocess
import sys
import tempfile

SYMBOLS = pathlib.Path(__file__).parent / "symbols"
ARCHITECTURES = {0x0100000C: "arm64", 0x01000007: "x86_64"}
MACOS = (13, 0)
# macOS 26 tells a program of an older SDK that it is 16 (xnu, bsd/kern/kern_sysctl.c).
SDK = 26
ENTITLEMENT = "com.apple.security.virtualization"
# As Apple encodes it: [APPLICATION 16] { 1, [CONTEXT 16] { { name, true } } }.
DER = b"\x70\x2d\x02\x01\x01\xb0\x28\x30\x26\x0c\x21" + ENTITLEMENT.encode() + b"\x01\x01\xff"
# What a folder of the builder's looks like.
FOLDERS = re.compile(rb"/(?:home|root|Users|work|tmp)/[\w.-]+")


class Wrong(Exception):
    """What is wrong with a binary, in words."""


def main():
    failures = 0
    for name in sys.argv[1:]:
        for label, data in slices(pathlib.Path(name).read_bytes()):
            try:
                print(f"{name} ({label}): {verify(data)}")
            except Wrong as wrong:
                failures += 1
                print(f"{name} ({label}): {wrong}", file=sys.stderr)
    sys.exit(failures > 0 or len(sys.argv) == 1)


def slices(data):
    """The binary itself, or those in a universal one (mach-o/fat.h)."""
    if data[:4] != b"\xca\xfe\xba\xbe":
        yield "thin", data
        return
    (count,) = struct.unpack_from(">I", data, 4)
    for index in range(count):
        cpu, _, offset, size, _ = struct.unpack_from(">5I", data, 8 + 20 * index)
        yield ARCHITECTURES.get(cpu, hex(cpu)), data[offset : offset + size]


def verify(data):
    magic, cpu, _, kind, count, _, flags, _ = struct.unpack_from("<8I", data)
    check(magic == 0xFEEDFACF and cpu in ARCHITECTURES, "not for a 64-bit Mac")
    check(kind == 2 and flags & 0x200000, "not a position-independent executable")
    commands = list(load_commands(data, count))
    minimum = [body for kind, body in commands if kind == 0x32]
    check(len(minimum) == 1, "it does not say for which system it is")
    platform, version, sdk = struct.unpack_from("<3I", minimum[0], 8)
    check(
        platform == 1 and (version >> 16, version >> 8 & 255) == MACOS,
        f"for platform {platform}, version {version:#x}, instead of macOS {MACOS}",
    )
    check(sdk >> 16 >= SDK, f"linked against SDK {sdk >> 16}: macOS 26 would call itself 16")
    for kind, name in ((0x80000028, "LC_MAIN"), (0xE, "LC_LOAD_DYLINKER"), (0x1B, "LC_UUID")):
        check(any(kind == found for found, _ in commands), f"no {name}")
    allowed = read_symbols()
    libraries = {text_at(body, 8) for kind, body in commands if kind in (0xC, 0x80000018)}
    check(libraries <= allowed.keys(), f"loads {sorted(libraries - allowed.keys())}")
    imports = undefined(data)
    exported = set().union(*allowed.values())
    check(imports <= exported, f"imports {sorted(imports - exported)}, which macOS 13 may lack")
    check("_vmnet_start_interface" in imports, "it does not use vmnet")
    signature = [body for kind, body in commands if kind == 0x1D]
    # Apple Silicon runs nothing without one, and an entitlement is in one on Intel too.
    check(signature, "not signed")
    pages = check_signature(data, *struct.unpack_from("<2I", signature[0], 8))
    found = FOLDERS.search(data)
    check(not found, f"shows a folder: {found and found.group().decode()}")
    return f"{len(data)} bytes, SDK {sdk >> 16}, {len(imports)} imports, {len(libraries)} libraries, {pages} pages signed"


def load_commands(data, count):
    offset = 32
    for _ in range(count):
        kind, size = struct.unpack_from("<2I", data, offset)
        yield kind, data[offset : offset + size]
        offset += size


def text_at(body, field):
    (start,) = struct.unpack_from("<I", body, field)
    return body[start:].split(b"\0")[0].decode()


def undefined(data):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = ["llvm-nm-22", "--undefined-only", "--just-symbol-name", file.name]
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return set(names.split())


def check_signature(data, offset, size):
    """An ad-hoc signature: a code directory with a hash of each page (xnu, osfmk/kern/cs_blobs.h)."""
    blob = data[offset : offset + size]
    magic, _, count = struct.unpack_from(">3I", blob)
    check(magic == 0xFADE0CC0, "the signature is none")
    places = [struct.unpack_from(">2I", blob, 12 + 8 * index) for index in range(count)]
    parts = {slot: part_at(blob, place) for slot, place in places}
    check(0 in parts, "the signature has no code directory")
    directory = parts[0]
    magic, _, _, flags, hashes, _, special, slots, limit = struct.unpack_from(">9I", directory)
    hash_size, hash_type, _, page_bits = directory[36:40]
    check(magic == 0xFADE0C02 and flags & 2, "the signature is not an ad-hoc one")
    check((hash_size, hash_type) == (32, 2), "the hashes are not SHA-256")
    page = 1 << page_bits
    for slot in range(slots):
        want = directory[hashes + 32 * slot :][:32]
        have = hashlib.sha256(data[slot * page : min((slot + 1) * page, limit)]).digest()
        check(want == have, f"page {slot} was changed after it was signed")
    check(slots * page >= limit and limit == offset, "not every page is signed")
    # The other parts have theirs before those of the pages, backwards.
    for slot in (2, 5, 7):
        check(slot in parts and slot <= special, f"the signature lacks part {slot}")
        want = directory[hashes - 32 * slot :][:32]
        check(want == hashlib.sha256(parts[slot]).digest(), f"part {slot} was changed after it was signed")
    check(parts[5][:4] == b"\xfa\xde\x71\x71", "the entitlements are no XML")
    check(plistlib.loads(parts[5][8:]) == {ENTITLEMENT: True}, "other entitlements than the one")
    check(parts[7][:4] == b"\xfa\xde\x71\x72", "the entitlements are no DER")
    check(parts[7][8:] == DER, "other entitlements in DER than the one")
    return slots


def part_at(blob, place):
    (length,) = struct.unpack_from(">I", blob, place + 4)
    return blob[place : place + length]


def read_symbols():
    """The names that each library of macOS 13 exports, by its path."""
    found = {}
    for file in SYMBOLS.iterdir():
        lines = file.read_text().splitlines()
        path = lines[0].removeprefix("# install-name: ")
        found[path] = {line.split()[0] for line in lines if line and not line.startswith("#")}
    return found


def check(condition, wrong):
    if not condition:
        raise Wrong(wrong)


if __name__ == "__main__":
    main()
