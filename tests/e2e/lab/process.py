"""Starting and ending processes: every one has a deadline and is ended by its own id."""

import os
import select
import signal
import subprocess
import time


class Failed(Exception):
    """A command that had to succeed did not."""


def until(condition, timeout, every=0.02):
    """Polls until `condition()` is truthy and returns that, or what it was in the end."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result or time.monotonic() > deadline:
            return result
        time.sleep(every)


def run(*command, timeout=10, check=True, stdin=None):
    """Runs a command to its end; returns its exit code and what it wrote."""
    done = subprocess.run(
        list(map(str, command)),
        input=stdin or "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        text=True,
        errors="replace",
    )
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}: {done.stdout}")
    return done.returncode, done.stdout


def spawn(*command, log, die_with_us=True, **options):
    """Starts a command in the background with its output in the file `log`.

    `die_with_us` lets the kernel end it should this process be killed hard. It is not
    for softnet, which has to notice that by itself.
    """
    if die_with_us:
        command = ("setpriv", "--pdeathsig", "KILL", *command)
    with open(log, "ab") as output:
        settings = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        settings.update(options)
        return subprocess.Popen(list(map(str, command)), **settings)


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


def seconds_to_end(process, limit):
    """How long it takes from now until the process ends by itself; None if longer."""
    begun = time.monotonic()
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    return time.monotonic() - begun


def alive(pid):
    """Whether a process with this id exists."""
    return os.path.exists(f"/proc/{pid}")
