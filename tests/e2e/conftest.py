"""Fixtures: one network for all tests, VMs on it. Without root all tests are skipped,
loudly, and with CI=true that is a failure."""

import os
import signal
import sys

import pytest

sys.dont_write_bytecode = True

from lab import Bench, namespace, paths  # noqa: E402
from lab.clients import Client  # noqa: E402
from lab.guest import Guest  # noqa: E402
from lab.network import Network  # noqa: E402
from lab.standin import StandIn  # noqa: E402

LACKING = {
    StandIn: paths.lacking_for_standin(),
    Guest: paths.lacking_for_guest(),
    Client: paths.lacking_for_clients(),
}
_banners = []


def needs(kind):
    """Skips the test where its kind of VM cannot work."""
    reason = LACKING[kind]
    if reason:
        banner = f"tests with the {kind.kind} did not run: {reason}"
        if banner not in _banners:
            _banners.append(banner)
        if os.environ.get("CI") == "true":
            pytest.fail(f"{banner} (and with CI=true no test may be skipped)", pytrace=False)
        pytest.skip(banner)


def pytest_terminal_summary(terminalreporter):
    """Says what did not run where nobody overlooks it."""
    for banner in _banners:
        terminalreporter.section("SKIPPED", sep="!", red=True, bold=True)
        terminalreporter.write_line(banner)
    if paths.CLIENTS_TABLE.exists():
        terminalreporter.write_line(paths.CLIENTS_TABLE.read_text())
    if paths.LOGS.exists():
        terminalreporter.write_line(f"logs: {paths.LOGS}")


def pytest_sessionstart():
    """Ends as Ctrl-C does when terminated, so that all is removed then as well."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def network():
    """The host's network, with its servers, another VM and an internet."""
    needs(StandIn)
    namespace.remove_stale()
    with Network() as network:
        yield network


@pytest.fixture
def standin(network):
    """A stand-in VM, made for this test alone."""
    with Bench(network, StandIn()) as bench:
        yield bench
        assert not bench.vm.got_empty_datagrams(), "QEMU's network card would be deaf now"


@pytest.fixture(scope="session")
def needs_guest():
    """For a test that starts a guest in its own way."""
    needs(Guest)


@pytest.fixture(scope="session")
def needs_clients():
    """For tests with DHCP clients that are Debian's."""
    needs(Client)


@pytest.fixture
def doomed_guest(network, needs_guest):
    """A guest of this test's own, to be killed."""
    with Bench(network, Guest()) as bench:
        bench.vm.wait_until_up()
        yield bench


@pytest.fixture
def rebooting_guest(network, needs_guest):
    """A guest of this test's own that may reboot. One that had run for two minutes, emulated,
    did not come up again within one: its kernel told of a soft lockup. A fresh one does."""
    with Bench(network, Guest(may_reboot=True)) as bench:
        bench.vm.wait_until_up()
        yield bench


@pytest.fixture(scope="session")
def booted_guest(network, needs_guest):
    """A guest under QEMU, which takes long enough to start that many tests share it."""
    with Bench(network, Guest()) as bench:
        bench.vm.wait_until_up()
        yield bench


@pytest.fixture(params=[StandIn, Guest], ids=["standin", "guest"])
def bench(request):
    """A VM of either kind."""
    return request.getfixturevalue("standin" if request.param is StandIn else "booted_guest")
