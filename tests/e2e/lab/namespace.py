"""Network namespaces: made, entered, and removed with all that runs inside."""

import contextlib
import ctypes
import os
import re
import signal
from pathlib import Path

from lab.process import alive, run, until

CLONE_NEWNET = 0x40000000
NAMED = Path("/run/netns")
PREFIX = "sn"
_libc = ctypes.CDLL(None, use_errno=True)


def name_for(role):
    """The name of this run's namespace for a role; it tells whose it is."""
    return f"{PREFIX}{os.getpid()}-{role}"


def make(name, *ip_commands):
    """Makes a namespace, and runs `ip` commands in it, each given as one string."""
    run("ip", "netns", "add", name)
    configure(name, "link set lo up", *ip_commands)


def configure(name, *ip_commands):
    """Runs `ip` commands, each given as one string, in a namespace."""
    run("ip", "-n", name, "-batch", "-", stdin="\n".join(ip_commands) + "\n")


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
    """Sets parameters below /proc/sys/net; `__` in a name stands for a slash."""
    # Written by hand: sysctl(8) may be absent, and ours changes with the namespace.
    with inside(name):
        for key, value in settings.items():
            path = Path("/proc/sys/net", *key.split("__"))
            # The bridge module's are there only where the module is.
            if path.exists():
                path.write_text(str(value))


def listens(name, port):
    """Whether something in a namespace listens on a TCP port."""
    with inside(name):
        sockets = Path("/proc/thread-self/net/tcp").read_text()
    return re.search(rf":{port:04X} \S+ 0A ", sockets) is not None


def remove(name):
    """Removes a namespace, and ends the processes that are still inside it."""
    for pid in pids(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not pids(name), timeout=2)
    run("ip", "netns", "del", name, check=False)


def pids(name):
    """The processes inside a namespace."""
    _, output = run("ip", "netns", "pids", name, check=False)
    return [int(pid) for pid in output.split() if pid.isdigit()]


def remove_stale():
    """Removes what runs that were killed hard have left: their process is gone."""
    for name in os.listdir(NAMED) if NAMED.exists() else []:
        owner, dash, _ = name.removeprefix(PREFIX).partition("-")
        if name.startswith(PREFIX) and dash and owner.isdigit() and not alive(owner):
            remove(name)
