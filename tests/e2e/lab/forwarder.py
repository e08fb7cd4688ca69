"""The forwarder between a VM's socket and the host's TAP: softnet, or one without filter.

`Forwarder` starts it as Tart does: its end of the socketpair is standard input, standard
output is not its to write to, SIGINT ends it, and whoever starts it keeps a copy of the
socket, so that no end of file ever comes from there. `Run` lets it start the VM itself.
"""

import contextlib
import itertools
import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path

from lab import namespace, paths
from lab.process import end, seconds_to_end, spawn, until

# The contract is one second from the signal to the end of the process.
STOP_SECONDS = 1.0


class _Started:
    """A process with a TAP device of its own; leaving a `with` statement ends it."""

    _numbers = itertools.count()

    def __init__(self, network, program):
        self._network, self._program = network, program
        number = next(self._numbers)
        self.log = paths.log_directory() / f"forwarder{number}-{program.stem}.log"
        self._cleanup = contextlib.ExitStack()
        self.tap = network.new_tap()
        self._cleanup.callback(network.remove_tap, self.tap)

    def _start(self, *arguments, **options):
        # A Python of the user's own choosing may start slowly, so `env` does not look for it.
        interpreter = (sys.executable,) if self._program.suffix == ".py" else ()
        self.process = spawn(
            *namespace.command_in(self._network.host, *interpreter, self._program, *arguments),
            log=self.log,
            die_with_us=False,
            # At this level it tells how often it dropped what, and not only that it did.
            env=os.environ | {"SOFTNET_LOG": "debug"},
            **options,
        )
        self._cleanup.callback(end, self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._cleanup.close()

    def said(self):
        """What it has logged so far."""
        return self.log.read_text(errors="replace")

    def dropped(self, direction, reason, timeout=0):
        """The line in which it logged its first drop of frames for that reason, or None."""
        pattern = rf"^.*\[{direction}\] dropped a frame: {reason}$"
        line = until(lambda: re.search(pattern, self.said(), re.MULTILINE), timeout)
        return line and line[0]

    def drops(self, direction):
        """How many frames it has said to have dropped, by reason; it says so once a second."""
        lists = re.findall(
            rf"\[{direction}\] dropped since the last such line: (.*)$", self.said(), re.MULTILINE
        )
        drops = Counter()
        for reason, number in re.findall(r"([a-z0-9-]+) (\d+)", "\n".join(lists)):
            drops[reason] += int(number)
        return drops

    def traffic(self):
        """The bytes that it has written to its TAP device, and read from there."""
        return self._network.traffic_of(self.tap)

    def status(self):
        """What the kernel says of the process, as in /proc/PID/status."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return dict(line.split(":", 1) for line in lines)


def check_account(direction, log):
    """Fails unless every frame of a direction, and every answer of softnet's, is either forwarded or
    has a reason."""
    summary = re.search(
        rf"\[{direction}\] (\d+) frames of \d+ bytes: (\d+) forwarded"
        r"(?:, with (\d+) answers of softnet's own)?(?:, (\d+) dropped \((.*)\))?$",
        log,
        re.MULTILINE,
    )
    assert summary, f"no account of {direction}: {log}"
    frames, forwarded, answers, dropped = (int(number or 0) for number in summary.groups()[:4])
    reasons = re.findall(r"[a-z0-9-]+ (\d+)", summary[5] or "")
    assert frames + answers == forwarded + dropped, summary[0]
    assert dropped == sum(map(int, reasons)), summary[0]


class Forwarder(_Started):
    """One that is given the VM's socket, as Tart does it."""

    def __init__(self, network, program, cable, mac, *options, control=None):
        super().__init__(network, program)
        if control:
            options += ("--control-fd", "1")
        with contextlib.ExitStack() as failing:
            failing.push(self._cleanup)
            self._output = self.log.with_suffix(".out")
            with open(self._output, "wb") as output:
                self._start(
                    *("--vm-fd", "0", "--vm-mac-address", mac, "--tap", self.tap, *options),
                    stdin=cable,
                    stdout=control.theirs if control else output,
                )
            up = until(
                lambda: network.tap_is_open(self.tap) or self.process.poll() is not None, timeout=5
            )
            assert up and self.process.poll() is None, f"it did not start: {self.said()}"
            failing.pop_all()

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.process.poll() is None:
                self.stop()
        finally:
            super().__exit__()

    def stop(self, with_signal=signal.SIGINT):
        """Asks it to end, and holds it to its promises; returns the seconds it took."""
        self.process.send_signal(with_signal)
        seconds = seconds_to_end(self.process, STOP_SECONDS)
        assert seconds is not None, f"it did not end within {STOP_SECONDS} s: {self.said()}"
        assert self.process.returncode == 0, f"exit code {self.process.returncode}: {self.said()}"
        assert self._output.read_bytes() == b"", "it wrote to standard output"
        if self._program == paths.SOFTNET:
            for direction in ("vm->host", "host->vm"):
                check_account(direction, self.said())
        return seconds


class Run(_Started):
    """`softnet run`: it makes the socketpair and starts a command on the VM's end.

    `{fd}` in the command stands for the number of that descriptor.
    """

    def __init__(self, network, mac, *command):
        super().__init__(network, paths.SOFTNET)
        with contextlib.ExitStack() as failing:
            failing.push(self._cleanup)
            self._start("run", "--vm-mac-address", mac, "--tap", self.tap, "--", *command)
            failing.pop_all()

    @classmethod
    def around(cls, network, vm):
        """With a VM as its command."""
        vm.prepare()
        started = cls(network, vm.mac, *vm.command_line("{fd}"))
        vm.monitor = started.process
        return started
