#!/usr/bin/env python3
"""That verify.py notices what it is for: verify_test.py FILE, with a binary that is right.

Each case spoils a copy in one place and has to be refused for that reason.
"""

import pathlib
import struct
import sys

import sign
import verify

ENTITLEMENTS = (pathlib.Path(__file__).parents[2] / "docs/macos/softnet.entitlements").read_bytes()
data = pathlib.Path(sys.argv[1]).read_bytes()


def spoiled(offset, new):
    copy = bytearray(data)
    copy[offset : offset + len(new)] = new
    return bytes(copy)


def command(kind):
    """Where the first load command of a kind starts."""
    offset = 32
    for found, body in verify.load_commands(data, struct.unpack_from("<I", data, 16)[0]):
        if found == kind:
            return offset
        offset += len(body)
    raise KeyError(kind)


def renamed(old, new):
    assert len(old) == len(new) and data.count(old)
    return data.replace(old, new)


CASES = {
    "not for a 64-bit Mac": spoiled(4, struct.pack("<I", 7)),
    "not a position-independent executable": spoiled(24, bytes(4)),
    "version": spoiled(command(0x32) + 12, struct.pack("<I", 15 << 16)),
    "linked against SDK 15": spoiled(command(0x32) + 16, struct.pack("<I", 15 << 16)),
    "no LC_MAIN": spoiled(command(0x80000028), struct.pack("<I", 0x7F)),
    "loads": renamed(b"/usr/lib/libSystem.B.dylib\0", b"/usr/lib/libSurprise.dylib\0"),
    "which macOS 13 may lack": renamed(b"_vmnet_stop_interface\0", b"_vmnet_stop_interfacX\0"),
    "not signed": spoiled(command(0x1D), struct.pack("<I", 0x7F)),
    "does not say for which system": spoiled(command(0x32), struct.pack("<I", 0x7F)),
    "was changed after it was signed": spoiled(0x5000, bytes([data[0x5000] ^ 1])),
    "part 5 was changed": renamed(b"com.apple.security.virtualization</key>", b"com.apple.security.virtualizatioN</key>"),
    "part 7 was changed": renamed(b"com.apple.security.virtualization\1", b"com.apple.security.virtualizatioN\1"),
    "shows a folder": spoiled(0x6000, b"/home/somebody"),
}

assert verify.verify(data)
# Signing again changes nothing.
assert sign.signed(data, "softnet", ENTITLEMENTS) == data
for reason, case in CASES.items():
    try:
        verify.verify(case)
    except verify.Wrong as wrong:
        # A change of bytes breaks the signature as well, which is looked at near the end.
        assert reason in str(wrong) or "was changed" in str(wrong) and reason == "shows a folder", (reason, wrong)
    else:
        raise SystemExit(f"not noticed: {reason}")
print(f"{len(CASES)} passed, 0 failed")
