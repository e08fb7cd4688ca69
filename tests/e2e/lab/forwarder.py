"""The forwarder between a VM's socket and the host's TAP: softnet, or one without filter.

It is started as Tart does it: its end of the socketpair is standard input, standard
output is not its to write to, SIGINT ends it, and whoever starts it keeps a copy of the
socket, so that no end of file ever comes from there.
"""

import contextlib
import itertools
import re
import signal
import sys

from lab import namespace, paths
from lab.process import end, seconds_to_end, spawn, until

# The contract is one second from the signal to the end of the process.
STOP_SECONDS = 1.0


class Forwarder:
    """Use it in a `with` statement; leaving that ends it, and removes its TAP device."""

    _numbers = itertools.count()

    def __init__(self, program, network, cable, mac, *options):
        self._program, self._network, self._cable = program, network, cable
        self._mac, self._options = mac, options
        number = next(self._numbers)
        self.log = paths.log_directory() / f"forwarder{number}-{program.stem}.log"
        self.output = self.log.with_suffix(".out")
        self._cleanup = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as failing:
            failing.push(self._cleanup)
            self.tap = self._network.new_tap()
            self._cleanup.callback(self._network.remove_tap, self.tap)
            with open(self.output, "wb") as output:
                self.process = spawn(
                    *command_line(
                        self._program,
                        *("--vm-fd", "0", "--vm-mac-address", self._mac, "--tap", self.tap),
                        *self._options,
                        where=self._network.host,
                    ),
                    log=self.log,
                    die_with_us=False,
                    stdin=self._cable,
                    stdout=output,
                )
            self._cleanup.callback(end, self.process)
            up = until(
                lambda: self._network.tap_is_open(self.tap) or self.process.poll() is not None,
                timeout=5,
            )
            assert up and self.process.poll() is None, f"it did not start: {self.said()}"
            failing.pop_all()
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.process.poll() is None:
                self.stop()
        finally:
            self._cleanup.close()

    def stop(self, with_signal=signal.SIGINT):
        """Asks it to end, and holds it to its promises; returns the seconds it took."""
        self.process.send_signal(with_signal)
        seconds = seconds_to_end(self.process, STOP_SECONDS)
        assert seconds is not None, f"did not end within {STOP_SECONDS} s: {self.said()}"
        assert self.process.returncode == 0, f"exit code {self.process.returncode}: {self.said()}"
        assert self.output.read_bytes() == b"", "it wrote to standard output"
        return seconds

    def said(self):
        """What it has logged so far."""
        return self.log.read_text(errors="replace")

    def has_dropped(self, direction, reason, timeout=0):
        """Whether it has logged a first drop, in that direction, for that reason."""
        line = re.compile(rf"^.*{re.escape(f'[{direction}]')}.*\b(?:{reason})\b.*$", re.MULTILINE)
        return until(lambda: line.search(self.said()), timeout)


def command_line(program, *arguments, where):
    """The command that starts a forwarder in a namespace."""
    # A Python of the user's own choosing may start slowly, so it is not left to `env`.
    interpreter = (sys.executable,) if program.suffix == ".py" else ()
    return namespace.command_in(where, *interpreter, program, *arguments)
