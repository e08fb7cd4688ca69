"""Network namespaces: made, entered, and removed with all that runs inside."""

import contextlib
import ctypes
import os
import signal
import socket
from pathlib import Path

from lab.process import alive, run, until

CLONE_NEWNET = 0x40000000
NAMED = Path("/run/netns")
PREFIX = "sn"
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(name):
    """Moves the calling thread into a namespace for a while.

    Sockets opened meanwhile belong to that namespace for good, so only their opening
    has to happen in here.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(NAMED / name, os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(home)
        os.close(there)
        os.close(home)


def _enter(fd):
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def command_in(name, *command):
    """The command line that runs `command` inside a namespace."""
    return ("ip", "netns", "exec", name, *command)


def sysctl(name, **settings):
    """Sets kernel parameters in a namespace; `__` in a name stands for a slash."""
    # Written by hand as not every path has a dotted form, and sysctl(8) may be absent.
    with inside(name):
        for key, value in settings.items():
            Path("/proc/sys/net", *key.split("__")).write_text(str(value))


def remove(name):
    """Removes a namespace, and ends the processes that are still inside it."""
    _, pids = run("ip", "netns", "pids", name, check=False)
    for pid in pids.split():
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int(pid), signal.SIGKILL)
    until(lambda: not run("ip", "netns", "pids", name, check=False)[1].strip(), timeout=2)
    run("ip", "netns", "del", name, check=False)


def remove_stale():
    """Removes what runs that were killed hard have left: their process is gone."""
    names = os.listdir(NAMED) if NAMED.exists() else []
    for name in names:
        owner = name.removeprefix(PREFIX).split("-")[0]
        if name.startswith(PREFIX) and "-" in name and owner.isdigit() and not alive(owner):
            remove(name)


ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4


class Packets:
    """A raw socket on an interface of a namespace: sends frames, watches for frames."""

    def __init__(self, namespace, interface):
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((interface, ETH_P_ALL))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send(self, frame):
        self._socket.send(frame)

    def saw(self, wanted, timeout):
        """Whether a frame arrives, within the time, for which `wanted(frame)` holds."""

        def look():
            while True:
                try:
                    frame, address = self._socket.recvfrom(65536, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return False
                if address[2] != PACKET_OUTGOING and wanted(frame):
                    return True

        return bool(until(look, timeout))
