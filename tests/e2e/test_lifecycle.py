"""softnet starts, stays and ends as it should, whatever happens to either side."""

import random
import signal

import pytest

from lab.load import flood, stream
from lab.network import GATEWAY, INTERNET
from lab.process import end, seconds_to_end, until

NOTICED_SECONDS = 2.0
# Bytes: more than fits into all queues between the VM and the host.
MUCH = 8 << 20


def test_it_ends_when_the_vm_is_killed(standin):
    with standin.softnet() as softnet:
        standin.vm.get_lease()
        standin.vm.kill()
        assert seconds_to_end(softnet.process, NOTICED_SECONDS) is not None, softnet.said()


def test_it_ends_when_qemu_is_killed(doomed_guest):
    with doomed_guest.softnet() as softnet:
        doomed_guest.vm.get_lease()
        doomed_guest.vm.kill()
        assert seconds_to_end(softnet.process, NOTICED_SECONDS) is not None, softnet.said()


def test_a_vm_is_cut_off_when_softnet_is_killed(bench):
    with bench.softnet() as softnet:
        bench.vm.get_lease()
        assert bench.vm.ping(GATEWAY)
        end(softnet.process, signal.SIGKILL)
        assert not bench.vm.ping(GATEWAY)
        assert not bench.network.tap_is_open(softnet.tap)
    # The VM itself lives on, and a new softnet serves it.
    with bench.softnet():
        bench.vm.get_lease()
        assert bench.vm.ping(GATEWAY)


def test_the_address_is_given_back_at_a_clean_end_and_only_then(bench):
    leases = bench.network.dhcp.leases
    with bench.softnet() as softnet:
        address = str(bench.vm.get_lease().address)
        end(softnet.process, signal.SIGKILL)
        assert address in leases()
    with bench.softnet() as softnet:
        address = str(bench.vm.get_lease().address)
        assert address in leases()
        softnet.stop()
        assert until(lambda: address not in leases(), timeout=2), softnet.said()
    # The server has it for the VM still, as long as nobody else wants it.
    with bench.softnet():
        bench.vm.get_lease()
        assert bench.vm.ping(GATEWAY)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_in_time_under_load(standin, name):
    with standin.softnet() as softnet:
        standin.vm.get_lease()
        upwards = stream(standin.network, standin.vm, INTERNET)
        downwards = stream(standin.network, standin.vm, GATEWAY, "--reverse")
        with upwards, downwards:
            assert until(lambda: min(softnet.traffic()) > MUCH, timeout=5)
            softnet.stop(signal.Signals[name])


def test_a_signal_ends_it_in_time_when_the_vm_reads_nothing(standin):
    with standin.softnet() as softnet:
        address = standin.vm.get_lease().address
        # So that the host need not ask for the VM's MAC, once nobody answers.
        assert standin.vm.ping(GATEWAY)
        standin.vm.freeze()
        with flood(standin.network, address):
            assert until(lambda: softnet.traffic()[1] > MUCH, timeout=5)
            softnet.stop()


def test_empty_datagrams_neither_end_nor_disturb_it(standin):
    with standin.softnet():
        standin.vm.get_lease()
        for _ in range(5):
            standin.vm.send_empty_datagram()
        assert standin.vm.ping(GATEWAY, count=3)


def test_frames_of_any_bytes_neither_end_nor_disturb_it(standin):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    mac = bytes.fromhex(standin.vm.mac.replace(":", ""))
    starts = [
        b"",
        b"\xff" * 6 + mac,
        b"\xff" * 6 + mac + b"\x08\x00",
        b"\xff" * 6 + mac + b"\x08\x06",
        b"\xff" * 6 + mac + b"\x08\x00\x45",
    ]
    frames = [
        chance.choice(starts) + chance.randbytes(chance.randint(14, 1490)) for _ in range(1000)
    ]
    with standin.softnet():
        standin.vm.get_lease()
        standin.vm.send(*frames)
        assert standin.vm.ping(GATEWAY, count=3)


def test_jumbo_frames_neither_end_nor_disturb_it(bench):
    with bench.softnet() as softnet:
        bench.vm.get_lease()
        bench.vm.check("ip link set eth0 mtu 9000")
        try:
            header = bytes.fromhex("ffffffffffff" + bench.vm.mac.replace(":", "") + "0800")
            bench.vm.send(header, pad=8000)
            assert softnet.dropped("vm->host", "oversize", timeout=2)
            assert bench.vm.ping(GATEWAY, count=3)
        finally:
            bench.vm.check("ip link set eth0 mtu 1500")


def test_it_gives_up_its_rights(standin):
    with standin.softnet("--user", "nobody", "--group", "nogroup") as softnet:
        standin.vm.get_lease()
        status = softnet.status()
        assert set(status["Uid"].split()) == {"65534"}
        assert set(status["Gid"].split()) == {"65534"}
        assert set(status["Groups"].split()) <= {"65534"}
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[capabilities], 16) == 0
        assert standin.vm.ping(INTERNET)


def test_root_that_names_nobody_keeps_no_capabilities(standin):
    with standin.softnet() as softnet:
        standin.vm.get_lease()
        assert int(softnet.status()["CapEff"], 16) == 0
        assert "--user" in softnet.said()
