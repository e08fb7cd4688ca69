"""What the user allows and blocks takes effect on real traffic."""

from lab.network import GATEWAY, INTERNET, OTHER_INTERNET, PEER, PRIVATE


EVERYTHING = {GATEWAY, INTERNET, OTHER_INTERNET, PEER, *PRIVATE}


def reached(bench, *options):
    """The addresses that the VM reaches through a softnet with these options."""
    with bench.softnet(*options):
        bench.vm.get_lease()
        return bench.vm.reaches(EVERYTHING)


def test_only_the_gateway_and_the_internet_are_open(standin):
    with standin.unfiltered():
        standin.vm.get_lease()
        assert standin.vm.reaches(EVERYTHING) == EVERYTHING, "closed even without a filter"
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
    assert reached(standin, *options) == {INTERNET}


def test_the_host_itself_can_be_blocked(standin):
    assert reached(standin, "--block", "@host") == {INTERNET, OTHER_INTERNET}


def test_the_host_can_be_all_that_is_open(standin):
    assert reached(standin, "--block", "0.0.0.0/0", "--allow", "@host") == {GATEWAY}


def test_host_only_mode_leaves_only_the_gateway(standin):
    assert reached(standin, "--vm-net-type", "host") == {GATEWAY}


def test_another_vm_is_closed_while_vms_are_isolated(standin):
    assert PEER not in reached(standin, "--allow", "192.168.64.0/24")


def test_all_is_open_once_everything_is_allowed(standin):
    assert reached(standin, "--allow", "0.0.0.0/0") == EVERYTHING
