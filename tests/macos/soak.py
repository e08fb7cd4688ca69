#!/usr/bin/env python3
"""recvmsg_x under load for a while: soak.py SECONDS.

softnet uses the call on macOS 15.6 and later only, as an early exit of the kernel's function left
the socket locked before (xnu-11417.101.15, bsd/kern/uipc_socket.c, soreceive_m_list). This calls it as softnet would, one
reader that never blocks, on whatever macOS this is, and tells whether numbered datagrams come whole
and in order, and whether it gets stuck. Save your work before: a kernel that is wrong here may hang
or panic.
"""

import ctypes
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

FRAMES, ROOM, MSG_DONTWAIT = 64, 1516, 0x80
# What a heartbeat may take.
PATIENCE = 20


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class Message(ctypes.Structure):
    """struct msghdr_x (xnu, bsd/sys/socket_private.h)."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_len", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(Vector)),
        ("vector_count", ctypes.c_int),
        ("control", ctypes.c_void_p),
        ("control_len", ctypes.c_uint32),
        ("flags", ctypes.c_int),
        ("data_len", ctypes.c_size_t),
    ]


def work(seconds):
    """Sends and receives, and prints a line each second: datagrams and calls so far."""
    assert ctypes.sizeof(Message) == 56
    recvmsg_x = ctypes.CDLL(None, use_errno=True).recvmsg_x
    recvmsg_x.restype = ctypes.c_ssize_t
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (here, there):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    until = time.monotonic() + seconds

    def send():
        number = 0
        while time.monotonic() < until:
            try:
                there.send(struct.pack(">Q", number).ljust(60 + number % 1454, b"."))
                number += 1
            except OSError:
                time.sleep(50e-6)
            if number % 1000 == 0:
                # Pauses, so that the reader finds the queue empty too.
                time.sleep(0.001)

    threading.Thread(target=send, daemon=True).start()
    buffers = [ctypes.create_string_buffer(ROOM) for _ in range(FRAMES)]
    vectors = [Vector(ctypes.addressof(buffer), ROOM) for buffer in buffers]
    messages = (Message * FRAMES)()
    expected, calls, told = 0, 0, time.monotonic()
    while time.monotonic() < until:
        if time.monotonic() > told + 1:
            told = time.monotonic()
            print(expected, calls, flush=True)
        for message, vector in zip(messages, vectors):
            message.vectors, message.vector_count = ctypes.pointer(vector), 1
            message.flags, message.data_len = 0, 0
        count = recvmsg_x(here.fileno(), messages, FRAMES, MSG_DONTWAIT)
        calls += 1
        if count < 0:
            select.select([here], [], [], 0.1)
        for index in range(count):
            (number,) = struct.unpack_from(">Q", buffers[index])
            length = messages[index].data_len
            if (number, length) != (expected, 60 + number % 1454):
                sys.exit(f"datagram {number} of {length} bytes came instead of {expected}")
            expected += 1
    print(expected, calls, flush=True)


def main():
    if sys.argv[1] == "work":
        return work(float(sys.argv[2]))
    command = [sys.executable, __file__, "work", sys.argv[1]]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    last, beat, text = "", time.monotonic(), b""
    while child.poll() is None and time.monotonic() < beat + PATIENCE:
        if select.select([child.stdout], [], [], 1)[0]:
            text = os.read(child.stdout.fileno(), 4096)
            beat = time.monotonic() if text else beat
            last = text.decode().split("\n")[-2] if b"\n" in text else last
    if child.poll() is None:
        child.kill()
        result, seen = "FAILED", f"stuck after {last} (datagrams, calls)"
    else:
        result = "FAILED" if child.returncode else "ok"
        seen = f"{last} (datagrams, calls)"
    print(f"{result:7} {'recvmsg_x under load for ' + sys.argv[1] + ' s':58} {seen}")
    sys.exit(result == "FAILED")


if __name__ == "__main__":
    main()
