"""What a VM is entitled to, each a function that fails where the VM does not get it."""

from lab.load import megabits
from lab.network import GATEWAY, INTERNET, NAME_OF_INTERNET, OTHER_INTERNET, POOL_RANGE
from lab.servers import download

# Of the host's way to the second address on the internet, which is the narrower one.
NARROW = 1300


def lease(bench):
    """An address of the pool, and all that comes with it."""
    lease = bench.vm.get_lease()
    assert lease.address in POOL_RANGE
    assert (lease.router, lease.dns, lease.server) == (GATEWAY, GATEWAY, GATEWAY)


def names(bench):
    """The gateway's name server answers."""
    assert bench.vm.resolve(NAME_OF_INTERNET, GATEWAY) == INTERNET


def pings(bench):
    """Of the gateway and the internet, up to what an Ethernet frame holds, and beyond it in
    fragments."""
    for address in (GATEWAY, INTERNET):
        assert bench.vm.ping(address, count=3)
    for size in (1472, 4000):
        assert bench.vm.ping(GATEWAY, options=f"-s {size}")


def streams(bench):
    """TCP from the VM and to it, with the gateway and with the internet."""
    for server in (GATEWAY, INTERNET):
        for options in ("", "--reverse"):
            assert megabits(bench.network, bench.vm, server, options) > 1


def connections_from_the_host(bench):
    """A server in the VM is reached from the host."""
    address = bench.vm.address()
    with bench.vm.background("busybox nc -l -p 2222 -e echo welcome"):
        assert bench.network.connect_from_host(address, 2222) == b"welcome\n"


def a_large_download(bench):
    """A file arrives by HTTP as it was sent."""
    size = bench.vm.download_bytes
    with download(bench.network.inet, INTERNET, size) as (url, checksum):
        got = bench.vm.check(f"busybox wget -q -O - {url} | busybox sha256sum", timeout=30)
    assert got.split()[0] == checksum


def path_mtu_discovery(bench):
    """The gateway's word that the way is narrower than the VM's network gets to the VM."""
    with bench.network.narrowed(OTHER_INTERNET, NARROW):
        assert megabits(bench.network, bench.vm, OTHER_INTERNET) > 1
        assert f"mtu {NARROW}" in bench.vm.check(f"ip route get {OTHER_INTERNET}")


def traceroute(bench):
    """The way to the internet is seen: the gateway, and what answers."""
    hops = bench.vm.check(f"busybox traceroute -n -q 1 -w 1 -m 4 {INTERNET}").splitlines()[1:]
    assert [hop.split()[1] for hop in hops] == [GATEWAY, INTERNET]


ALL = (
    lease,
    names,
    pings,
    streams,
    connections_from_the_host,
    a_large_download,
    path_mtu_discovery,
    traceroute,
)
