"""A machine that boots over the network by iPXE's ROM, and what it boots."""

import contextlib
import itertools

from lab import paths
from lab.process import end, spawn

# What it boots is a script of iPXE's. That the second file is fetched shows that it runs; then
# it starts anew, until the machine is ended.
SCRIPT = "#!ipxe\nimgfetch tftp://${next-server}/proof && sleep 1 && reboot || reboot\n"


def write_boot_files(folder):
    """Makes the two files in a folder."""
    (folder / "boot.ipxe").write_text(SCRIPT)
    (folder / "proof").write_text("It runs.\n")


class PxeGuest:
    """Use it in a `with` statement, once it is plugged in."""

    _numbers = itertools.count()

    def __init__(self):
        number = next(self._numbers)
        self.mac = f"52:54:00:00:02:{number:02x}"
        self._log = paths.log_directory() / f"pxe{number}.log"
        self._cleanup = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._cleanup.close()

    def plug_in(self, end_of_cable):
        """Starts it on its end of the socketpair, which is its own from now on."""
        fd = end_of_cable.fileno()
        self.monitor = spawn(
            *("qemu-system-x86_64", "-accel", "tcg", "-M", "pc,graphics=off", "-m", "64"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
            # Should it find nothing to boot it tries again.
            *("-boot", "reboot-timeout=1000"),
            *("-netdev", f"dgram,id=cable,local.type=fd,local.str={fd}"),
            # With the ROM that QEMU has for this card, which is iPXE. It writes the card's number
            # into that one only, not into a file that it is given.
            *("-device", f"virtio-net-pci,netdev=cable,mac={self.mac},bootindex=1"),
            pass_fds=(fd,),
            log=self._log,
        )
        end_of_cable.close()
        self._cleanup.callback(end, self.monitor)
        return self
