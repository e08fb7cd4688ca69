#!/usr/bin/env python3
"""Signs a binary for macOS ad hoc, with entitlements: sign.py ENTITLEMENTS FILE...

As `codesign --force --sign - --entitlements ENTITLEMENTS FILE` does it on a Mac, for thin 64-bit
executables: a code directory with a hash of each page, no requirements, the entitlements as XML and
as DER, and no certificate. What the linker signed is signed anew; for Intel it signs nothing, and
gets the load command for it. Entitlements may be true or false only.

The format is that of xnu (osfmk/kern/cs_blobs.h) and of Apple's open sources of Security. verify.py
reads what this writes, and `codesign --verify --strict` does on a Mac (tests/on-a-mac.sh).
"""

import hashlib
import pathlib
import plistlib
import struct
import sys

LC_SEGMENT_64, LC_CODE_SIGNATURE = 0x19, 0x1D
PAGE = 4096
# CS_ADHOC; and CS_EXECSEG_MAIN_BINARY.
ADHOC, MAIN_BINARY = 2, 1
CODE_DIRECTORY, REQUIREMENTS, ENTITLEMENTS, ENTITLEMENTS_DER, CMS = 0, 2, 5, 7, 0x10000


def main():
    entitlements = pathlib.Path(sys.argv[1]).read_bytes()
    for name in sys.argv[2:]:
        path = pathlib.Path(name)
        path.write_bytes(signed(path.read_bytes(), path.name, entitlements))
        print(f"{name}: signed")


def signed(data, identifier, entitlements):
    code, place, text = prepared(data)
    blobs = {
        REQUIREMENTS: blob(0xFADE0C01, struct.pack(">I", 0)),
        ENTITLEMENTS: blob(0xFADE7171, entitlements),
        ENTITLEMENTS_DER: blob(0xFADE7172, der(plistlib.loads(entitlements))),
    }
    cms = {CMS: blob(0xFADE0B01, b"")}
    # Its length goes into what is hashed; it depends on no hash.
    size = len(super_blob({CODE_DIRECTORY: directory(code, identifier, blobs, text), **blobs, **cms}))
    room = -(-size // 16) * 16
    command, linkedit = place
    struct.pack_into("<4I", code, command, LC_CODE_SIGNATURE, 16, len(code), room)
    # vmsize, fileoff, filesize of the last segment, in whole pages of Apple Silicon's.
    start = struct.unpack_from("<Q", code, linkedit + 40)[0]
    length = len(code) + room - start
    struct.pack_into("<QQQ", code, linkedit + 32, -(-length // 0x4000) * 0x4000, start, length)
    whole = super_blob({CODE_DIRECTORY: directory(code, identifier, blobs, text), **blobs, **cms})
    return bytes(code) + whole.ljust(room, b"\0")


def prepared(data):
    """What is to be signed, with room for the load command; where that and the last segment's
    are, and where the segment of the code lies in the file."""
    code = bytearray(data)
    magic, _, _, kind, count, size = struct.unpack_from("<6I", code)
    assert magic == 0xFEEDFACF and kind == 2, "not a thin 64-bit executable"
    offset, command, linkedit, text, first = 32, None, None, None, len(code)
    for _ in range(count):
        name, length = struct.unpack_from("<2I", code, offset)
        if name == LC_CODE_SIGNATURE:
            command = offset
        if name == LC_SEGMENT_64:
            segment = code[offset + 8 : offset + 24].rstrip(b"\0")
            linkedit = offset if segment == b"__LINKEDIT" else linkedit
            if segment == b"__TEXT":
                text = struct.unpack_from("<QQQ", code, offset + 32)[1:]
            (sections,) = struct.unpack_from("<I", code, offset + 64)
            places = (struct.unpack_from("<I", code, offset + 72 + 80 * index + 48)[0] for index in range(sections))
            # Those without a place are zeros.
            first = min([first, *filter(None, places)])
        offset += length
    assert linkedit and text, "no segment of the code, or of the linker's"
    if command is None:
        command = offset
        assert command + 16 <= first and not any(code[command : command + 16]), "no room for a load command"
        struct.pack_into("<2I", code, 16, count + 1, size + 16)
        del code[len(data) :]
    else:
        del code[struct.unpack_from("<I", code, command + 8)[0] :]
    code.extend(bytes(-len(code) % 16))
    return code, (command, linkedit), text


def directory(code, identifier, blobs, text):
    """The code directory: the hashes of the other blobs, backwards, and those of the pages."""
    special = [hashlib.sha256(blobs[slot]).digest() if slot in blobs else bytes(32) for slot in range(7, 0, -1)]
    pages = [hashlib.sha256(code[start : start + PAGE]).digest() for start in range(0, len(code), PAGE)]
    name = identifier.encode() + b"\0"
    header = 88
    body = struct.pack(
        ">7I4BIIIIQQQQ",
        0x20400, ADHOC, header + len(name) + 32 * len(special), header, len(special), len(pages), len(code),
        # SHA-256, of 32 bytes; no platform; the page's size as a power of two.
        32, 2, 0, PAGE.bit_length() - 1,
        # Spare, scatter, team, spare; and the limit for code over 4 GiB.
        0, 0, 0, 0, 0,
        *text, MAIN_BINARY,
    )
    return blob(0xFADE0C02, body + name + b"".join(special + pages))


def super_blob(blobs):
    offset, index, body = 12 + 8 * len(blobs), b"", b""
    for slot, content in blobs.items():
        index += struct.pack(">2I", slot, offset + len(body))
        body += content
    return blob(0xFADE0CC0, struct.pack(">I", len(blobs)) + index + body)


def blob(magic, body):
    return struct.pack(">2I", magic, 8 + len(body)) + body


def der(entitlements):
    """[APPLICATION 16] of a version and [CONTEXT 16] of the pairs of names and values, by name."""
    assert all(isinstance(value, bool) for value in entitlements.values()), "not true or false"
    pairs = b"".join(
        element(0x30, element(0x0C, name.encode()) + element(0x01, b"\xff" if value else b"\0"))
        for name, value in sorted(entitlements.items())
    )
    return element(0x70, element(0x02, b"\1") + element(0xB0, pairs))


def element(tag, body):
    length = len(body)
    if length >= 0x80:
        digits = length.to_bytes((length.bit_length() + 7) // 8, "big")
        return bytes([tag, 0x80 | len(digits)]) + digits + body
    return bytes([tag, length]) + body


if __name__ == "__main__":
    main()
