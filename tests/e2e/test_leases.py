"""The life of a lease, and clients of all kinds: what they say is let through, they get what
they expect, and softnet believes what the server grants and nothing else."""

import signal
import sys
import time
from contextlib import ExitStack

import pytest
from scapy.layers.dhcp import BOOTP
from scapy.layers.l2 import ARP, Ether

from attacks.frames import BROADCAST_MAC, arp
from lab import paths
from lab.dhcp import BROADCAST_FLAG, SERVER, Client, identifier_of, kind_of, option
from lab.network import BRIEFLY_LENT, GATEWAY, GATEWAY_MAC, INTERNET, POOL_RANGE
from lab.process import end, until
from lab.servers import download
from lab.vm import Lease

# Of a lease that is to run out.
SECONDS = 2
OTHER_POOL = "192.168.64.120", "192.168.64.125"


def test_a_lease_ends_though_the_vm_goes_on_and_is_granted_anew(standin):
    def outlives_its_lease():
        with standin.network.dhcp_for(standin.vm.mac, SECONDS):
            assert standin.vm.get_lease().address == BRIEFLY_LENT
            assert standin.vm.ping(INTERNET)
        # The server that is here now does not grant that address.
        time.sleep(SECONDS + 0.5)
        return any([standin.vm.ping(INTERNET) for _ in range(3)])

    with standin.unfiltered():
        assert outlives_its_lease(), "not even without a filter"
    with standin.softnet() as softnet:
        assert not outlives_its_lease()
        assert softnet.dropped("vm->host", "lease-expired", timeout=2)
        standin.vm.get_lease()
        assert standin.vm.ping(INTERNET)


def test_a_vm_that_was_paused_past_its_lease_is_back_at_once(standin):
    def is_back_at_once():
        time.sleep(SECONDS + 0.5)
        # softnet asks in place of the first packet. Waiting for its answer for two seconds would
        # outlast the lease of two seconds that is granted anew.
        return until(lambda: standin.vm.ping(INTERNET, options="-w 1"), timeout=2, every=0.1)

    with standin.network.dhcp_for(standin.vm.mac, SECONDS), standin.softnet() as softnet:
        assert standin.vm.get_lease().address == BRIEFLY_LENT
        assert standin.vm.ping(INTERNET)
        # A busy machine may miss the two seconds once.
        assert any(is_back_at_once() for _ in range(3))
        assert softnet.dropped("host->vm", "dhcp-own-answer", timeout=2)


def test_a_lease_is_renewed_by_unicast(standin):
    with standin.network.dhcp_for(standin.vm.mac, SECONDS), standin.softnet():
        with standin.network.watch_gateway() as gateway, standin.vm.client() as client:
            begun = time.monotonic()
            broadcasts = requests(gateway)
            assert broadcasts and all(it.dst == BROADCAST_MAC for it in broadcasts)
            while time.monotonic() < begun + 2 * SECONDS:
                standin.vm.check(f"kill -USR1 {client}")
                assert standin.vm.ping(INTERNET)
                time.sleep(SECONDS / 3)
            renewals = requests(gateway)
            assert renewals and all(it.dst == GATEWAY_MAC for it in renewals)


def requests(card):
    """The DHCP messages of clients that have arrived at a card."""
    packets = map(Ether, card.arriving())
    return [it for it in packets if BOOTP in it and it[BOOTP].op == 1]


def test_a_nak_ends_the_lease(standin):
    with standin.softnet() as softnet:
        lease = standin.vm.get_lease()
        assert standin.vm.ping(GATEWAY)
        with standin.vm.watch() as card:
            # As a machine that was moved here from another network.
            reply = Client(card, standin.vm.mac).ask("request", ("requested_addr", "192.168.99.5"))
        assert kind_of(reply) == "nak"
        assert standin.vm.address() == lease.address
        assert not standin.vm.ping(GATEWAY)
        # But this server knows that the VM has it, and says so when softnet asks.
        assert softnet.dropped("host->vm", "dhcp-own-answer", timeout=2)
        assert standin.vm.get_lease() == lease
        assert standin.vm.ping(GATEWAY)


def test_a_client_whose_renewal_is_refused_has_another_address(standin):
    network, vm = standin.network, standin.vm
    with standin.softnet(), vm.client() as client:
        old = vm.address()
        with network.dhcp_with(*OTHER_POOL):
            vm.check(f"kill -USR1 {client}")
            assert until(lambda: vm.address() not in (None, old), timeout=6, every=0.1)
            assert OTHER_POOL[0] <= vm.address() <= OTHER_POOL[1]
            assert until(lambda: vm.ping(INTERNET), timeout=2)


def test_a_softnet_that_is_started_under_a_running_vm_asks_for_its_lease(bench):
    vm = bench.vm
    with bench.softnet() as first:
        address = vm.get_lease().address
        assert vm.ping(INTERNET)
        end(first.process, signal.SIGKILL)
        with bench.softnet() as second, bench.network.watch_gateway() as gateway:
            assert until(lambda: vm.ping(INTERNET), timeout=2, every=0.1)
            asked = requests(gateway)
            assert [option(it, "requested_addr") for it in asked] == [address]
            assert asked[0][BOOTP].ciaddr == "0.0.0.0" and asked[0].dst == BROADCAST_MAC
            assert second.dropped("host->vm", "dhcp-own-answer", timeout=2)


# Reads a file over HTTP, so slowly that it takes some seconds, and writes its checksum down.
SLOW_DOWNLOAD = """
import hashlib, sys, time, urllib.request
checksum, reply = hashlib.sha256(), urllib.request.urlopen(sys.argv[1])
while part := reply.read(1 << 20):
    checksum.update(part)
    time.sleep(0.05)
open(sys.argv[2], "w").write(checksum.hexdigest())
"""


def test_a_download_outlives_softnet(standin):
    """Which is killed hard under it, with all that the host knew of the VM, and started anew."""
    vm, network = standin.vm, standin.network
    with download(network.inet, INTERNET, vm.download_bytes) as (url, checksum), ExitStack() as stack:
        with standin.softnet() as first:
            vm.get_lease()
            result = paths.log_directory() / "checksum"
            script = result.with_suffix(".py")
            script.write_text(SLOW_DOWNLOAD)
            stack.enter_context(vm.background(f"{sys.executable} {script} {url} {result}"))
            time.sleep(1)
            assert not result.exists(), "it was over too soon"
            end(first.process, signal.SIGKILL)
        network.forget()
        with standin.softnet() as second:
            finished = lambda: result.exists() and result.read_text() == checksum  # noqa: E731
            assert until(finished, timeout=30, every=0.2), "the download was cut off"
            assert second.dropped("host->vm", "dhcp-own-answer", timeout=2)


def test_a_machine_that_wakes_up_finds_its_network_by_arp(standin):
    """As macOS and Windows do before DHCP (RFC 4436)."""
    with standin.softnet() as first:
        lease = standin.vm.get_lease()
        end(first.process, signal.SIGKILL)
    with standin.softnet(), standin.vm.watch() as card:
        probe = arp(lease.address, target=GATEWAY, to=GATEWAY_MAC)(standin.vm.mac, lease, b"")

        def is_answered():
            standin.vm.send(probe)
            answers = map(Ether, card.arriving(0.2))
            return any(ARP in it and it[ARP].op == 2 and it[ARP].psrc == GATEWAY for it in answers)

        assert until(is_answered, timeout=2, every=0.05)
        assert standin.vm.ping(INTERNET)


@pytest.mark.parametrize("kind, tries, allowed", [("discover", 60, 32), ("decline", 8, 4)])
def test_a_vm_bothers_the_server_only_so_often(standin, kind, tries, allowed):
    """With DECLINE it would otherwise make the server give up one address after the other."""

    def requests_that_arrive():
        with standin.network.watch_gateway() as gateway, standin.vm.watch() as card:
            client = Client(card, standin.vm.mac)
            for _ in range(tries):
                if kind == "decline":
                    offered = client.ask("discover")[BOOTP].yiaddr
                    client.ask(kind, SERVER, ("requested_addr", offered), timeout=0)
                else:
                    client.ask(kind, timeout=0)
            time.sleep(0.5)
            return sum(kind_of(it) == kind for it in requests(gateway))

    with standin.unfiltered():
        assert requests_that_arrive() == tries
    with standin.softnet() as softnet:
        # What is earned again while this runs is let through too.
        assert allowed <= requests_that_arrive() <= allowed + 3
        assert softnet.dropped("vm->host", "dhcp-rate", timeout=2)


# --- clients ------------------------------------------------------------------------


def macos(mac):
    """As macOS asks: with a wish for replies to all, and for a long lease."""
    return {"flags": BROADCAST_FLAG}, (
        ("param_req_list", [1, 121, 3, 6, 15, 108, 114, 119, 252, 95, 44, 46]),
        ("max_dhcp_size", 1500),
        ("client_id", identifier_of(mac)),
        ("lease_time", 7776000),
        ("hostname", b"Macs-Virtual-Machine"),
    )


def windows(mac):
    """As Windows asks."""
    return {}, (
        ("client_id", identifier_of(mac)),
        ("hostname", b"DESKTOP-1"),
        ("client_FQDN", b"\x00\x00\x00DESKTOP-1"),
        ("vendor_class_id", b"MSFT 5.0"),
        ("param_req_list", [1, 3, 6, 15, 31, 33, 43, 44, 46, 47, 119, 121, 249, 252]),
    )


def networkd(mac):
    """As systemd-networkd asks: with an identifier of RFC 4361, which must come back."""
    duid = bytes.fromhex("00020000ab11") + identifier_of(mac)[1:] + b"\x00\x01"
    return {}, (
        ("client_id", b"\xff" + b"\x12\x34\x56\x78" + duid),
        ("param_req_list", [1, 3, 6, 12, 15, 26, 33, 42, 119, 120, 121]),
        ("max_dhcp_size", 1472),
    )


def short(mac):
    """With an identifier of two bytes, too short to hold a MAC, and padding."""
    return {}, (("client_id", b"\x00a"), "pad", "pad")


def silent(_mac):
    """Without any identifier."""
    return {}, ()


@pytest.mark.parametrize("kind", [macos, windows, networkd, short, silent], ids=lambda it: it.__name__)
def test_a_client_is_served(standin, kind):
    vm = standin.vm
    fields, options = kind(vm.mac)
    vm.check("ip -4 addr flush dev eth0")
    with standin.softnet() as softnet, vm.watch() as card:
        client = Client(card, vm.mac, *options, **fields)
        ack = client.bind()
        assert kind_of(ack) == "ack"
        address = ack[BOOTP].yiaddr
        assert address in POOL_RANGE
        assert ack.dst == (BROADCAST_MAC if fields else vm.mac)
        # A client that is not answered as it asked does not believe it (RFC 6842).
        identifier = dict(it for it in options if it != "pad").get("client_id")
        assert option(ack, "client_id") in (None, identifier)

        # Is the address free? It is mine.
        lease = Lease(address, GATEWAY, GATEWAY, GATEWAY, 600)
        for sender, target in (("0.0.0.0", address), (address, address)):
            vm.send(*[arp(sender, target=target)(vm.mac, lease, b"")] * 3)
        vm.check(f"ip addr add {address}/24 dev eth0; ip route replace default via {GATEWAY}")
        assert vm.ping(INTERNET)

        # What else is there to know? That it is told changes nothing.
        # dnsmasq tells a lease time too if it is not told what to tell, against RFC 2131, 4.3.5.
        listed = any(it[0] == "param_req_list" for it in options)
        wish = () if listed else (("param_req_list", [1, 3, 6]),)
        told = client.ask("inform", *wish, source=address, ciaddr=address)
        assert kind_of(told) == "ack" and told[BOOTP].yiaddr == "0.0.0.0"
        assert vm.ping(INTERNET)

        # Both ways to prolong it.
        for to in ((GATEWAY_MAC, GATEWAY), (BROADCAST_MAC, "255.255.255.255")):
            assert kind_of(client.ask("request", source=address, ciaddr=address, to=to)) == "ack"
        assert vm.ping(INTERNET)
        softnet.stop()
        assert not softnet.drops("vm->host")


def test_a_client_that_looks_first_whether_its_address_is_free_is_served(standin):
    with standin.softnet() as softnet:
        assert standin.vm.try_for_lease(tries=3, options="-a500")
        assert standin.vm.check(f"busybox arping -D -c 1 -w 1 -I eth0 {standin.vm.address()}")
        assert standin.vm.ping(INTERNET)
        softnet.stop()
        assert not softnet.drops("vm->host")
