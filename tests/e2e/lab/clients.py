"""DHCP clients as distributions ship them, each within a stand-in VM as on a machine of its own:
with its own /etc, /run and /var/lib, which only its processes see."""

import shutil
import uuid
from pathlib import Path

from lab import namespace, paths
from lab.process import end, run, spawn, until

# What they read of a system; the rest of /etc is none of their business.
OF_ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "hosts", "alternatives")
# /sys is read-only where no udev runs: networkd and NetworkManager tell by this that they need
# not wait for it before they use a card (as in containers).
PRIVATELY = """set -e
for it in etc run var/lib; do mount --bind "$0/$it" "/$it"; done
mount -o remount,ro /sys
exec "$@"
"""


class Client:
    """A client on the network card `eth0` of a VM."""

    kind = "DHCP clients"
    name: str
    # Whether it asks for the address that it had before its machine was restarted by the
    # REQUEST that is meant for that (RFC 2131, 3.2), and not by a DISCOVER.
    remembers = False
    # Whether it renews when the server says (option 58), and not at half the lease.
    heeds_t1 = True
    # Whether it can be told to give its lease back.
    releases = True

    def __init__(self, vm):
        self._vm = vm
        self._home = paths.log_directory() / f"{self.name}-{vm.namespace}"
        self._log = self._home.with_suffix(".log")
        for it in ("etc", "run", "var/lib"):
            (self._home / it).mkdir(parents=True)
        for it in OF_ETC:
            if Path("/etc", it).exists():
                run("cp", "-a", f"/etc/{it}", self._home / "etc")
        self._write("etc/machine-id", f"{uuid.uuid4().hex}\n")
        # dhclient's script asks whether / is a network's.
        for it in ("fstab", "resolv.conf"):
            self._write(f"etc/{it}", "")
        self._write("etc/hostname", "vm\n")
        self.prepare()
        self.processes = []

    def prepare(self):
        """Writes its configuration."""

    def start(self):
        """Starts it, as when its machine has started: /run is empty."""

    def release(self):
        """Has it give its lease back; it has ended or is idle afterwards."""

    def kill(self):
        """As when its machine loses its power: nobody is told anything, and it has no address."""
        for process in reversed(self.processes):
            end(process)
        self.processes.clear()
        # Those that it has started itself: none but it runs processes in the stand-in's
        # namespace, except for the monitor.
        for pid in namespace.pids(self._vm.namespace):
            if pid != self._vm.monitor.pid:
                run("kill", "-9", pid, check=False)
        self._vm.forget()
        for it in (self._home / "run").iterdir():
            shutil.rmtree(it, ignore_errors=True) if it.is_dir() else it.unlink()

    def remove(self):
        """Ends it, and removes all but its log."""
        for process in reversed(self.processes):
            end(process)
        shutil.rmtree(self._home, ignore_errors=True)

    def _write(self, path, text, mode=0o644):
        file = self._home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def _spawn(self, *command):
        self.processes.append(
            spawn(*self._within(*command), log=self._log, env=paths.environment_of_unpacked())
        )

    def _run(self, *command):
        self._spawn(*command)
        self.processes.pop().wait(20)

    def _within(self, *command):
        return namespace.command_in(
            self._vm.namespace, "sh", "-c", PRIVATELY, self._home, *command
        )


class Udhcpc(Client):
    """busybox' udhcpc. Debian 12's (1.35) renews at half the lease whatever the server says."""

    name = "udhcpc"
    heeds_t1 = False

    def start(self):
        self._spawn(*("busybox", "udhcpc", "-i", "eth0", "-f", "-T", 1), *("-s", paths.DHCP_SCRIPT))

    def release(self):
        self._vm.check(f"kill -USR2 {self.processes[0].pid}")


class Dhclient(Client):
    """ISC's client, with the configuration and the script of its package."""

    name = "dhclient"
    remembers = True
    _leases, _pid = "/var/lib/dhclient.leases", "/run/dhclient.pid"

    def start(self):
        self._spawn(*self._command("-d", "-v"))

    def release(self):
        self._run(*self._command("-r", "-v"))

    def _command(self, *options):
        files = ("-lf", self._leases, "-pf", self._pid, "-sf", paths.unpacked("dhclient-script"))
        configuration = ("-cf", paths.unpacked("etc/dhcp/dhclient.conf"))
        return (paths.unpacked("dhclient"), "-4", *options, *files, *configuration, "eth0")


class Dhcpcd(Client):
    """dhcpcd, with the configuration and the hooks of its package."""

    name = "dhcpcd"
    remembers = True

    def prepare(self):
        # Its package makes this user, as whom it does all but what needs root, locked in there.
        for it, entry in (("passwd", ":/run/dhcpcd-jail:/usr/sbin/nologin"), ("group", "")):
            file = self._home / "etc" / it
            others = [line for line in file.read_text().splitlines() if line[:7] != "dhcpcd:"]
            line = f"dhcpcd:x:990:990:{entry}" if entry else "dhcpcd:x:990:"
            file.write_text("\n".join([*others, line]) + "\n")

    def start(self):
        (self._home / "run/dhcpcd-jail").mkdir()
        self._spawn(*self._command("-B", "-d"))

    def release(self):
        self._run(*self._command("-k"))

    def _command(self, *options):
        hooks = paths.unpacked("usr/lib/dhcpcd/dhcpcd-run-hooks")
        configuration = ("-f", paths.unpacked("etc/dhcpcd.conf"), "-c", hooks)
        return (paths.unpacked("dhcpcd"), "-4", *options, *configuration, "eth0")


class Networkd(Client):
    """systemd-networkd, run alone: it does without a bus and without systemd."""

    name = "networkd"

    def prepare(self):
        self._write(
            "etc/systemd/network/eth0.network",
            "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
        )

    def start(self):
        (self._home / "run/systemd").mkdir(exist_ok=True)
        self._spawn(paths.unpacked("systemd-networkd"))

    def release(self):
        # It gives its lease back when it stops (SendRelease=).
        self._vm.check(f"kill {self.processes[0].pid}")


class NetworkManager(Client):
    """NetworkManager with the DHCP client of its own, which is the default, on a bus of its own."""

    name = "NetworkManager"
    remembers = True
    # Its option for that, ipv4.dhcp-send-release, came with 1.48.
    releases = False

    def prepare(self):
        # It leaves TAP devices to whoever has made them. So the card becomes one of a kind that
        # it takes for Ethernet, behind a bridge.
        namespace.configure(
            self._vm.namespace,
            "link set eth0 down",
            "link set eth0 name tap0 address 02:00:00:00:ff:01",
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link add eth0 address {self._vm.mac} type veth peer name port0",
            *(f"link set {it} master br0 up" for it in ("tap0", "port0")),
            *(f"link set {it} up" for it in ("br0", "eth0")),
        )
        self._write(
            "etc/NetworkManager/NetworkManager.conf",
            "[main]\nplugins=keyfile\ndhcp=internal\nno-auto-default=*\n"
            "[keyfile]\nunmanaged-devices=*,except:interface-name:eth0\n"
            "[connectivity]\nenabled=false\n[logging]\nlevel=INFO\n",
        )
        self._write(
            "etc/NetworkManager/system-connections/eth0.nmconnection",
            f"[connection]\nid=eth0\nuuid={uuid.uuid4()}\ntype=ethernet\ninterface-name=eth0\n"
            "[ipv4]\nmethod=auto\n[ipv6]\nmethod=disabled\n",
            mode=0o600,
        )
        self._write(
            "etc/bus.conf",
            '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"\n'
            ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
            "<busconfig><type>system</type><auth>EXTERNAL</auth>\n"
            "<listen>unix:path=/run/dbus/system_bus_socket</listen>\n"
            '<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="*"/>\n'
            '<allow send_destination="*"/><allow receive_type="*"/></policy></busconfig>\n',
        )

    def start(self):
        for it in ("run/dbus", "var/lib/NetworkManager"):
            (self._home / it).mkdir(exist_ok=True, parents=True)
        self._spawn(
            *(paths.unpacked("dbus-daemon"), "--nofork", "--nopidfile", "--config-file=/etc/bus.conf")
        )
        # It ends when there is no bus.
        bus = self._home / "run/dbus/system_bus_socket"
        assert until(bus.exists, timeout=10), f"no bus: see {self._log}"
        self._spawn(paths.unpacked("NetworkManager"), "--debug")


CLIENTS = (Udhcpc, Dhclient, Dhcpcd, Networkd, NetworkManager)
