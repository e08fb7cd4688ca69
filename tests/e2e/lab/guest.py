"""A real virtual machine: a Debian kernel under QEMU, with the tests' own initrd.

It is emulated (TCG), never run by KVM: a /dev/kvm can be there, answer every question,
and still hang the guest. Commands reach it over its serial console.
"""

import contextlib
import itertools
import re
import select
import shutil
import socket
import tempfile
import time
from pathlib import Path

from lab import paths
from lab.process import Failed, end, spawn, until
from lab.vm import VM

BOOT_SECONDS = 60


class Guest(VM):
    """Use it in a `with` statement; leaving that removes it."""

    kind = "QEMU guest"
    dhcp_script = "/etc/udhcpc.sh"
    download_bytes = 16 << 20
    _numbers = itertools.count()

    def __init__(self, may_reboot=False):
        number = next(self._numbers)
        # Otherwise a kernel that panics, or reboots, ends QEMU, so that the tests notice.
        self._reboots = () if may_reboot else ("-no-reboot",)
        self.mac = f"52:54:00:00:01:{number:02x}"
        self.log = paths.log_directory() / f"guest{number}.log"
        self._answers = itertools.count()
        self._console = None
        self._pending = ""
        self._cleanup = contextlib.ExitStack()
        # QEMU connects to us, so that whoever starts it may use its standard streams.
        directory = tempfile.mkdtemp(prefix="softnet-guest-")
        self._cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        self._console_path = Path(directory) / "console"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._cleanup.callback(self._listener.close)
        self._listener.bind(str(self._console_path))
        self._listener.listen(1)

    def plug_in(self, end_of_cable):
        """Starts it on its end of the socketpair, which is its own from now on."""
        self.monitor = spawn(
            *self.command_line(end_of_cable.fileno()),
            pass_fds=(end_of_cable.fileno(),),
            log=self.log,
        )
        end_of_cable.close()
        self._cleanup.callback(end, self.monitor)
        return self

    def command_line(self, fd):
        """The command that starts QEMU, which gets the VM's end as descriptor `fd`."""
        return (
            *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "q35", "-m", "192"),
            *("-smp", "1", "-nodefaults", "-no-user-config", *self._reboots, "-display", "none"),
            *("-chardev", f"socket,id=console,path={self._console_path}", "-serial", "chardev:console"),
            *("-kernel", paths.KERNEL, "-initrd", paths.INITRD),
            "-append",
            "console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr random.trust_cpu=on tsc=reliable",
            *("-netdev", f"dgram,id=cable,local.type=fd,local.str={fd}"),
            *("-device", f"virtio-net-pci,netdev=cable,mac={self.mac},romfile="),
        )

    def wait_until_up(self):
        """Waits until it has booted; at once if it has."""
        if self._console is None:
            called = until(lambda: self._is_called() or self.monitor.poll() is not None, BOOT_SECONDS)
            if not called or self.monitor.poll() is not None:
                raise Failed(f"QEMU did not start: see {self.log}")
            self._console, _ = self._listener.accept()
            self._cleanup.callback(self._console.close)
            shutil.rmtree(self._console_path.parent)
            self._read_until(r"GUEST-READY\n", BOOT_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._cleanup.close()

    def run(self, command, timeout=10):
        assert "\n" not in command, "the guest reads its commands line by line"
        self.wait_until_up()
        number = next(self._answers)
        self._console.sendall(f'{command}; echo "__{number}_$?__"\n'.encode())
        # Emulated, everything takes a little longer.
        output, code = self._read_until(rf"__{number}_(\d+)__\n", timeout + 10)
        return int(code), output

    def send(self, *frames, pad=0):
        self.check(f"rawsend eth0 1 0 {pad} " + " ".join(bytes(frame).hex() for frame in frames))

    def reboot(self):
        """Restarts the guest without ado, and waits until it is up again."""
        self._console.sendall(b"busybox reboot -f\n")
        self._read_until(r"GUEST-READY\n", BOOT_SECONDS)

    def stop(self):
        """Shuts the guest down, after which QEMU ends."""
        self._console.sendall(b"busybox poweroff -f\n")

    def kill(self):
        """Ends QEMU as if it had crashed."""
        end(self.monitor)

    def _is_called(self):
        return bool(select.select([self._listener], [], [], 0)[0])

    def _read_until(self, pattern, timeout):
        """What the console says before the pattern, and the pattern's group if it has one."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self._pending)):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._console], [], [], left)[0]:
                raise Failed(f"the guest did not answer in {timeout} s, only: {self._pending!r}")
            received = self._console.recv(65536)
            if not received:
                raise Failed(f"QEMU has ended: {self._pending!r}: see {self.log}")
            self._pending += received.decode(errors="replace")
        before, self._pending = self._pending[: found.start()], self._pending[found.end() :]
        return before, *found.groups()
