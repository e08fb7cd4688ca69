"""Where things are: the program under test, the guest image, the logs of this run."""

import os
import shutil
import time
from pathlib import Path

E2E = Path(__file__).resolve().parent.parent
REPO = E2E.parent.parent
TARGET = REPO / "target" / "e2e"

SOFTNET = Path(os.environ.get("SOFTNET_BIN") or REPO / "target" / "release" / "softnet").absolute()
UNFILTERED = E2E / "unfiltered.py"
DHCP_SCRIPT = E2E / "guest" / "udhcpc.sh"
PRINT_SCRIPT = E2E / "guest" / "granted.sh"
KERNEL = TARGET / "guest" / "vmlinuz"
INITRD = TARGET / "guest" / "initrd.gz"

# Debian's packages of DHCP clients and servers, unpacked and not installed.
UNPACKED = REPO / "target" / "clients" / "root"

LOGS = TARGET / "logs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
RUNS_KEPT = 10
# What the tests of DHCP clients say at their end.
CLIENTS_TABLE = LOGS / "clients.txt"

# On Debian the administrator's tools are not on every user's path.
os.environ["PATH"] += os.pathsep + os.pathsep.join(("/usr/sbin", "/sbin"))

CLIENT_TOOLS = ("dhclient", "dhcpcd", "systemd-networkd", "NetworkManager", "dbus-daemon", "kea-dhcp4")
STANDIN_TOOLS = ("ip", "bridge", "nft", "dnsmasq", "iperf3", "busybox", "arpspoof", "hping3")


def log_directory():
    """This run's own directory for logs; those of long ago are removed."""
    if not LOGS.exists():
        LOGS.mkdir(parents=True)
        for old in sorted(LOGS.parent.iterdir())[:-RUNS_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    return LOGS


def unpacked(name):
    """A program, or another file, of the unpacked packages; or the system's, where it had that
    package already. None if neither has it."""
    folders = ("usr/sbin", "sbin", "usr/bin", "lib/systemd", "usr/lib/systemd", "")
    candidates = (root / folder / name for root in (UNPACKED, Path("/")) for folder in folders)
    return next((it for it in candidates if it.is_file()), None)


def environment_of_unpacked():
    """The environment in which the unpacked programs find their libraries."""
    libraries = [str(it) for it in UNPACKED.glob("**/lib/*-linux-gnu") if it.is_dir()]
    return os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def lacking_for_standin():
    """What keeps the namespaces and the stand-in VM from working here; None if nothing."""
    if os.geteuid() != 0:
        return "root is needed to make network namespaces"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened"
    for tool in STANDIN_TOOLS:
        if not shutil.which(tool):
            return f"{tool} is not installed (tests/setup/e2e.sh installs it)"
    if not os.access(SOFTNET, os.X_OK):
        return f"{SOFTNET} is not built (cargo build --release)"
    return None


def lacking_for_guest():
    """What keeps the QEMU guest from working here; None if nothing."""
    if not shutil.which("qemu-system-x86_64"):
        return "qemu-system-x86_64 is not installed (tests/setup/e2e.sh installs it)"
    if not (KERNEL.exists() and INITRD.exists()):
        return "the guest image is not built (tests/setup/e2e.sh builds it)"
    return lacking_for_standin()


def lacking_for_clients():
    """What keeps the DHCP clients from working here; None if nothing."""
    for tool in CLIENT_TOOLS:
        if not unpacked(tool):
            return f"{tool} is not there (tests/setup/clients.sh gets it)"
    return lacking_for_standin()
