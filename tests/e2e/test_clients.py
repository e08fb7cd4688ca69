"""Real DHCP clients through softnet, against two servers, from the first lease to its release.

Each pair of a client and a server lives one story, on a site of its own, in the order of CASES.
All stories run at once, since most of their time is waiting for a lease to be renewed; a test
only looks up what became of a case. `make clients` runs this, `make e2e` does not.
"""

import concurrent.futures
import contextlib
import signal
import threading
import time

import pytest
from scapy.layers.dhcp import BOOTP
from scapy.layers.l2 import ARP, Ether

from lab import Bench, paths
from lab.clients import CLIENTS
from lab.dhcp import kind_of, option
from lab.network import GATEWAY, GATEWAY_MAC
from lab.process import end, until
from lab.pxe import PxeGuest, write_boot_files
from lab.sites import DNSMASQ_LEASE, KEA_LEASE, REBIND, RENEW, Site
from lab.standin import StandIn

pytestmark = pytest.mark.clients

SERVERS = "dnsmasq", "kea"
CASES = "lease", "renewal", "softnet-restart", "server-restart", "reboot", "release"

# Seconds until a VM is back on the network after a softnet has been started under it: the one
# figure of "restart of softnet" here. softnet asks the server by itself, on the VM's behalf.
BACK_SECONDS = 5.0
# The clients' own delays are in it: dhcpcd looks for others with its address for five seconds,
# dhclient waits at random before its first word.
LEASE_SECONDS = 40
RELEASE_SECONDS = 10
# Of an emulated machine, with what iPXE waits for.
BOOT_SECONDS = 60
# A renewal of so long ago is far enough from the next, which dhclient sends up to a quarter early.
FRESH_SECONDS = 4
# Each look costs three processes, and ten stories look at the same time.
POLL_SECONDS = 0.4
# That a busy machine may be late.
SLACK_SECONDS = 8
# The third number of the subnets of the sites.
STORIES_FROM, PXE_FROM = 100, 150


class Story:
    """One client and one server, from the first lease to its release."""

    def __init__(self, number, client, server, stopping):
        self.results = {}
        self._renewed = 0.0
        self._site = Site(number, server)
        self._server, self._kind, self._stopping = server, client, stopping

    def live(self):
        """Goes through all cases; returns of each why it failed, if it did, and its seconds."""
        with contextlib.ExitStack() as cleanup:
            cleanup.enter_context(self._site)
            self._bench = cleanup.enter_context(Bench(self._site, StandIn()))
            self._vm = self._bench.vm
            self._client = self._kind(self._vm)
            cleanup.callback(self._client.remove)
            self._softnet = None
            cleanup.callback(self._unplug)
            self._plug_in()
            for case in CASES:
                if case != "release" or self._kind.releases:
                    self._try(case)
        return self.results

    def _try(self, case):
        begun = time.monotonic()
        try:
            if case != "lease":
                self._make_whole()
            getattr(self, case.replace("-", "_"))()
            error = None
        except _Stopped:
            raise
        # Whatever it is, the cases after it have their turn.
        except Exception as it:  # noqa: BLE001
            error = f"{type(it).__name__}: {it}"
        self.results[case] = error, time.monotonic() - begun

    # --- the cases ------------------------------------------------------------------

    def lease(self):
        """A machine starts, and gets a lease."""
        self._client.start()
        self._expect_bound(LEASE_SECONDS)

    def renewal(self):
        """The lease is prolonged in time by what the client says to the server alone."""
        address, expiry = self._vm.address(), self._site.dhcp.expiry(self._vm.address())
        with self._site.watch_gateway() as gateway, self._vm.watch() as card:
            asked = self._wait(lambda: requests(gateway), self._renewal_seconds())
            assert asked, f"it has not renewed within {self._renewal_seconds()} s"
            assert asked[0].dst == GATEWAY_MAC, "it asked everybody, not the server"
            assert asked[0][BOOTP].ciaddr == address
            answers = (kind_of(it) for it in map(Ether, card.arriving(SLACK_SECONDS)) if BOOTP in it)
            assert next(answers, None) == "ack"
            prolonged = lambda: self._site.dhcp.expiry(address) > expiry  # noqa: E731
            assert self._wait(prolonged, SLACK_SECONDS), "the server has not prolonged it"
            assert self._vm.address() == address and self._vm.ping(self._site.gateway)
            self._renewed = time.monotonic()

    def softnet_restart(self):
        """softnet is killed, and another is started under the running VM."""
        # Soon after a renewal: it must not be the next one that helps.
        if time.monotonic() - self._renewed > FRESH_SECONDS:
            with self._site.watch_gateway() as gateway:
                assert self._wait(lambda: requests(gateway), self._renewal_seconds()), "no renewal"
        assert self._vm.ping(self._site.gateway)
        address = self._vm.address()
        end(self._softnet.process, signal.SIGKILL)
        self._unplug()
        self._site.forget()
        self._plug_in()
        begun = time.monotonic()
        self._expect_bound(self._renewal_seconds() + REBIND, every=0.1)
        seconds = time.monotonic() - begun
        assert seconds < BACK_SECONDS, f"back after {seconds:.1f} s"
        assert self._vm.address() == address, "with another address"

    def server_restart(self):
        """The server comes back and has forgotten everything; the client goes on."""
        self._site.lose_leases()
        known = lambda: self._site.dhcp.leases().get(self._vm.address()) == self._vm.mac  # noqa: E731
        seconds = self._renewal_seconds() + REBIND
        assert self._wait(known, seconds), f"no lease at the new server within {seconds} s"
        self._expect_bound(LEASE_SECONDS)

    def reboot(self):
        """The machine loses its power and starts again; it gets the address that it had."""
        address = self._vm.address()
        self._client.kill()
        with self._site.watch_gateway() as gateway:
            self._client.start()
            self._expect_bound(LEASE_SECONDS)
            first = requests(gateway)[0]
        assert self._vm.address() == address
        if self._kind.remembers:
            # INIT-REBOOT, as table 4 of RFC 2131 has it.
            assert kind_of(first) == "request" and option(first, "server_id") is None
            assert option(first, "requested_addr") == address

    def release(self):
        """The lease is given back, and another one is granted as if for the first time."""
        address = self._vm.address()
        with self._site.watch_gateway() as gateway:
            releases = lambda: [it for it in requests(gateway) if kind_of(it) == "release"]  # noqa: E731
            self._client.release()
            told = self._wait(releases, RELEASE_SECONDS)
        assert told, "the server was not told"
        assert told[0][BOOTP].ciaddr == address
        # systemd 252 leaves out the server's identifier, which has to be in it (RFC 2131,
        # table 5), and dnsmasq takes no RELEASE without.
        if self._server != "dnsmasq" or option(told[0], "server_id"):
            given_back = lambda: address not in self._site.dhcp.leases()  # noqa: E731
            assert self._wait(given_back, RELEASE_SECONDS), "the server still has it"
        self._client.kill()
        self.lease()

    # --- what they are made of ------------------------------------------------------

    def _plug_in(self):
        self._softnet = self._bench.softnet()

    def _unplug(self):
        if self._softnet:
            # As after a failure: it asks nothing of one that was killed.
            self._softnet.__exit__(Exception, None, None)
            self._softnet = None

    def _make_whole(self):
        """What an earlier case has left behind must not fail the next."""
        if not self._bound():
            self._client.kill()
            self.lease()

    def _renewal_seconds(self):
        lease = DNSMASQ_LEASE if self._server == "dnsmasq" else KEA_LEASE
        return (RENEW if self._kind.heeds_t1 else lease / 2) + SLACK_SECONDS

    def _bound(self):
        address = self._vm.address()
        return (
            address is not None
            and address.startswith(self._site.subnet)
            and self._vm.ping(self._site.gateway)
        )

    def _expect_bound(self, seconds, every=POLL_SECONDS):
        assert self._wait(self._bound, seconds, every), (
            f"no ping to the gateway within {seconds} s; address: {self._vm.address()}"
        )
        assert self._site.dhcp.leases().get(self._vm.address()) == self._vm.mac

    def _wait(self, condition, seconds, every=POLL_SECONDS):
        def attempt():
            if self._stopping.is_set():
                raise _Stopped
            return condition()

        return until(attempt, seconds, every)


class _Stopped(Exception):
    """The run was interrupted."""


def requests(card):
    """The DHCP messages of clients that have arrived at a card."""
    packets = map(Ether, card.arriving())
    return [it for it in packets if BOOTP in it and it[BOOTP].op == 1]


PAIRS = [(client, server) for client in CLIENTS for server in SERVERS]


# They begin with the first test of this file, so that the others run in the meantime.
@pytest.fixture(scope="module", autouse=True)
def stories(needs_clients, network):
    """All stories, begun together, each in a thread of its own. `network` is asked for because
    it tells whether namespaces can be made."""
    stopping = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(len(PAIRS)) as threads:
        lives = [Story(number, *pair, stopping) for number, pair in enumerate(PAIRS, STORIES_FROM)]
        try:
            yield {pair: threads.submit(it.live) for pair, it in zip(PAIRS, lives)}
        finally:
            stopping.set()
    rows = [(f"{pair[0].name} {pair[1]}", it.results) for pair, it in zip(PAIRS, lives)]
    paths.CLIENTS_TABLE.write_text(table(rows))


def table(rows):
    """Who has come through which case in how many seconds, for the end of the run."""
    lines = [("seconds", *CASES)]
    for name, results in rows:
        cells = (results.get(case) for case in CASES)
        lines.append((name, *(f"{it[1]:.1f}{' FAILED' if it[0] else ''}" if it else "-" for it in cells)))
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


# --- without a client of its own ----------------------------------------------------


def test_a_vm_that_wakes_finds_its_gateway_by_arp_though_softnet_is_new(standin):
    """DNAv4 (RFC 4436): macOS and Windows ask the gateway that they knew, by its MAC and from
    the address they had, before they say anything by DHCP."""
    vm = standin.vm

    def answered(address, seconds):
        question = Ether(src=vm.mac, dst=GATEWAY_MAC) / ARP(
            op=1, hwsrc=vm.mac, psrc=address, hwdst="00:00:00:00:00:00", pdst=GATEWAY
        )
        deadline = time.monotonic() + seconds
        with vm.watch() as card:
            while time.monotonic() < deadline:
                card.send(question)
                replies = (it for it in map(Ether, card.arriving(0.25)) if ARP in it)
                if any(it[ARP].op == 2 and it[ARP].psrc == GATEWAY for it in replies):
                    return True
        return False

    with standin.softnet() as first:
        address = vm.get_lease().address
        vm.forget()
        assert answered(address, 2), "not even without a restart"
        end(first.process, signal.SIGKILL)
    with standin.softnet():
        standin.network.forget()
        assert answered(address, BACK_SECONDS)


# --- boot ROMs ------------------------------------------------------------------------


def dnsmasq_names_the_file(number, folder):
    """The DHCP server names the file to boot."""
    return Site(number, "dnsmasq", "--dhcp-boot=boot.ipxe", boots=folder)


def dnsmasq_serves_pxe(number, folder):
    """The client is sent to the boot server, which it asks on port 4011 for the file."""
    menu = ("--pxe-prompt=Boot,1", "--pxe-service=x86PC,Boot,boot.ipxe")
    return Site(number, "dnsmasq", *menu, boots=folder)


def kea_names_the_file(number, folder):
    """As the first, from another server."""
    named = {"next-server": f"192.168.{number}.1", "boot-file-name": "boot.ipxe"}
    return Site(number, "kea", boots=folder, **named)


@pytest.mark.parametrize(
    "kind",
    [dnsmasq_names_the_file, dnsmasq_serves_pxe, kea_names_the_file],
    ids=lambda it: it.__name__,
)
def test_ipxe_boots_over_the_network(needs_guest, tmp_path, kind):
    """It boots, and boots again after a reset, under another softnet."""
    write_boot_files(tmp_path)
    with kind(PXE_FROM, tmp_path) as site, Bench(site, PxeGuest()) as bench:
        with bench.softnet() as first:
            assert until(lambda: site.served("proof"), BOOT_SECONDS, every=0.2), first.said()
            end(first.process, signal.SIGKILL)
        before = site.served("proof")
        with bench.softnet() as second:
            again = until(lambda: site.served("proof") > before, BOOT_SECONDS, every=0.2)
            assert again, second.said()


# --- the stories ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "client, server, case",
    [
        pytest.param(*pair, case, id=f"{pair[0].name}-{pair[1]}-{case}")
        for pair in PAIRS
        for case in CASES
        if case != "release" or pair[0].releases
    ],
)
def test_a_client(stories, client, server, case):
    error, _seconds = stories[client, server].result()[case]
    if error:
        pytest.fail(error, pytrace=False)
