"""Loads on a VM's connection: streams that are measured, and more than it can take."""

import contextlib
import itertools
import re

from lab import namespace, paths
from lab.network import GATEWAY
from lab.process import end, spawn, until

_ports = itertools.count(5201)


def megabits(network, vm, server, options="", seconds=1):
    """What arrives of a TCP stream between the VM and a server, a second."""
    with _iperf3_server(network, server) as reach:
        output = vm.check(
            f"iperf3 {reach} -t {seconds} -f m --connect-timeout 3000 {options}",
            timeout=seconds + 15,
        )
    # Of several streams the last line is about all of them.
    return float(re.findall(r"([\d.]+) Mbits/sec.*receiver", output)[-1])


@contextlib.contextmanager
def stream(network, vm, server, options=""):
    """A TCP stream as fast as it goes, for the length of a `with` statement."""
    with _iperf3_server(network, server) as reach:
        with vm.background(f"iperf3 {reach} -t 30 {options}"):
            yield


@contextlib.contextmanager
def flood(network, address):
    """More datagrams from the host to a VM than it can take, for a few seconds at most."""
    datagrams = ("--udp", "-p", "9", "-d", "1400", "-i", "u10", "-c", "300000")
    with _hping3(network.host, *datagrams, address):
        yield


@contextlib.contextmanager
def flood_from_peer(network, address, mac):
    """Datagrams from the other VM to an address as fast as they can be made; gives a function
    that tells how many it were until now."""
    neighbour = f"neigh replace {address} lladdr {mac} dev eth0 nud permanent"
    namespace.configure(network.peer, neighbour)
    before = network.frames_of_peer()
    try:
        with _hping3(network.peer, "--udp", "-p", "9", "--flood", address):
            yield lambda: network.frames_of_peer() - before
    finally:
        namespace.configure(network.peer, f"neigh del {address} dev eth0")


@contextlib.contextmanager
def _hping3(where, *words):
    hping3 = spawn(
        *namespace.command_in(where, "hping3", "-q", *words),
        log=paths.log_directory() / "flood.log",
    )
    try:
        yield
    finally:
        end(hping3)


@contextlib.contextmanager
def _iperf3_server(network, address):
    """An iperf3 server at the gateway or on the internet; gives the options to reach it.

    It is a new one every time: it serves one client at a time, and when that vanishes
    together with its VM it waits for it.
    """
    port = next(_ports)
    where = network.host if address == GATEWAY else network.inet
    server = spawn(
        *namespace.command_in(where, "iperf3", "-s", "-B", address, "-p", port),
        log=paths.log_directory() / "iperf3.log",
    )
    try:
        assert until(lambda: namespace.listens(where, port), timeout=5), "iperf3 did not start"
        yield f"-c {address} -p {port}"
    finally:
        end(server)
