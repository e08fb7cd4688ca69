"""Starting and ending processes: every one has a deadline and is ended by its own id."""

import select
import os
import signal
import subprocess
import time


class Failed(Exception):
    """A command that had to succeed did not."""


def until(condition, timeout, every=0.02):
    """Polls until `condition()` is truthy and returns that, or returns None in the end."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            return None
        time.sleep(every)


def run(*command, timeout=10, check=True):
    """Runs a command to its end; returns its exit code and what it wrote."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        text=True,
        errors="replace",
    )
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}: {done.stdout}")
    return done.returncode, done.stdout


def spawn(*command, log, pass_fds=(), die_with_us=True, **options):
    """Starts a command in the background with its output in the file `log`.

    `die_with_us` lets the kernel end it should this process be killed hard. It is not
    for softnet, which has to notice that by itself.
    """
    if die_with_us:
        command = ("setpriv", "--pdeathsig", "KILL", *command)
    with open(log, "ab") as output:
        settings = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        settings.update(options)
        return subprocess.Popen(list(map(str, command)), pass_fds=pass_fds, **settings)


def end(process, with_signal=signal.SIGKILL, timeout=5):
    """Ends a process that `spawn` started, by force if the signal does not do it."""
    if process.poll() is None:
        process.send_signal(with_signal)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout)
    return process.returncode


def ends_within(pid, seconds):
    """Whether the process ends in time. Works for processes that are not our children."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def alive(pid):
    """Whether a process with this id exists."""
    return os.path.exists(f"/proc/{pid}")
