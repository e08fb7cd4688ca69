"""What the user allows and blocks takes effect on real traffic."""

from lab.network import GATEWAY, INTERNET, OTHER_INTERNET, PEER, PRIVATE


def reached(bench, *options):
    """The addresses that the VM reaches through a softnet with these options."""
    with bench.softnet(*options):
        bench.vm.get_lease()
        everything = (GATEWAY, INTERNET, OTHER_INTERNET, PEER, *PRIVATE)
        return {address for address in everything if bench.vm.ping(address)}


def test_only_the_gateway_and_the_internet_are_open(standin):
    with standin.unfiltered():
        standin.vm.get_lease()
        assert all(map(standin.vm.ping, (PEER, *PRIVATE))), "they are closed without a filter"
    assert reached(standin) == {GATEWAY, INTERNET, OTHER_INTERNET}


def test_an_allowed_range_is_open_and_its_neighbours_are_not(standin):
    assert reached(standin, "--allow", "10.0.0.0/8") == {
        GATEWAY,
        INTERNET,
        OTHER_INTERNET,
        "10.9.8.7",
    }


def test_a_blocked_public_address_is_closed(standin):
    assert reached(standin, "--block", f"{INTERNET}/32") == {GATEWAY, OTHER_INTERNET}


def test_the_longest_prefix_decides_and_block_wins_a_draw(standin):
    options = ("--block", "0.0.0.0/0,172.16.0.0/12", "--allow", f"{INTERNET}/32,172.16.0.0/12")
    assert INTERNET in (open_to_vm := reached(standin, *options))
    assert not open_to_vm & {OTHER_INTERNET, *PRIVATE}


def test_the_host_itself_can_be_blocked(standin):
    assert reached(standin, "--block", "@host") == {INTERNET, OTHER_INTERNET}


def test_the_host_can_be_all_that_is_open(standin):
    assert reached(standin, "--block", "0.0.0.0/0", "--allow", "@host") == {GATEWAY}


def test_host_only_mode_leaves_only_the_gateway(standin):
    assert reached(standin, "--vm-net-type", "host") == {GATEWAY}
