"""The servers of the laboratory: dnsmasq as the gateway's, Kea in its place for the tests of
clients, udhcpd for all others, httpd."""

import contextlib
import csv
import hashlib
import itertools
import json
import os
import signal
from pathlib import Path

from lab import namespace, paths
from lab.process import end, run, spawn, until

_numbers = itertools.count()
_ports = itertools.count(8000)


class Dnsmasq:
    """The gateway's DHCP and DNS server, from its making to `end`."""

    def __init__(self, where, pool, names, leases_file=None, *options, seconds=600):
        number = next(_numbers)
        logs = paths.log_directory()
        self.leases_file = leases_file or logs / f"leases{number}"
        self.log = logs / f"dnsmasq{number}.log"
        self.process = spawn(
            *namespace.command_in(where, "dnsmasq"),
            # In this mode it stays root, also where that is the root of a user namespace.
            *("--no-daemon", "--conf-file=/dev/null"),
            *("--interface=br0", "--bind-interfaces", "--except-interface=lo"),
            f"--dhcp-range={pool[0]},{pool[1]},255.255.255.0,{seconds}",
            # Without the ping by which it checks an address a lease comes at once.
            *("--dhcp-authoritative", "--no-ping", f"--dhcp-leasefile={self.leases_file}"),
            *("--no-resolv", "--no-hosts", *(f"--address=/{it}/{names[it]}" for it in names)),
            *("--log-dhcp", *options),
            log=self.log,
        )
        assert until(lambda: namespace.listens(where, 53), timeout=5), (
            f"dnsmasq did not start: see {logs}"
        )

    def end(self):
        """Ends it."""
        end(self.process)

    @contextlib.contextmanager
    def paused(self):
        """It answers nobody for a while."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def leases(self):
        """The addresses that are granted, each with the MAC of who has it."""
        return {line[2]: line[1] for line in self._lines()}

    def expiry(self, address):
        """When the lease of an address ends, in seconds since 1970; 0 without a lease."""
        return next((int(line[0]) for line in self._lines() if line[2] == address), 0)

    def _lines(self):
        text = self.leases_file.read_text() if self.leases_file.exists() else ""
        # While dnsmasq writes the file, its last line may be there in part.
        return [line.split() for line in text.splitlines() if len(line.split()) >= 3]


class Kea:
    """ISC's DHCP server, from its making to `end`. `extra` goes into its configuration."""

    def __init__(self, where, gateway, pool, seconds, renew, rebind, **extra):
        base = paths.log_directory() / f"kea{next(_numbers)}"
        self.leases_file, self.log = Path(f"{base}.csv"), Path(f"{base}.log")
        data = {"routers": gateway, "domain-name-servers": gateway}
        configuration = {
            "interfaces-config": {"interfaces": ["br0"]},
            "lease-database": {"type": "memfile", "name": str(self.leases_file), "lfc-interval": 0},
            "authoritative": True,
            **{"valid-lifetime": seconds, "renew-timer": renew, "rebind-timer": rebind},
            "option-data": [{"name": name, "data": data[name]} for name in data],
            "subnet4": [
                {
                    **{"id": 1, "subnet": f"{gateway}/24", "interface": "br0"},
                    "pools": [{"pool": " - ".join(pool)}],
                }
            ],
            "loggers": [
                {"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}
            ],
            **extra,
        }
        Path(f"{base}.conf").write_text(json.dumps({"Dhcp4": configuration}, indent=1))
        self.process = spawn(
            *namespace.command_in(where, paths.unpacked("kea-dhcp4"), "-c", f"{base}.conf"),
            log=self.log,
            env=paths.environment_of_unpacked()
            | {"KEA_LOCKFILE_DIR": "none", "KEA_PIDFILE_DIR": str(base.parent)},
        )
        ready = until(lambda: "DHCP4_STARTED" in self.log.read_text(), timeout=20)
        assert ready, f"Kea did not start: see {self.log}"

    def end(self):
        """Ends it."""
        end(self.process)

    def leases(self):
        """The addresses that are granted, each with the MAC of who has it."""
        return {it: row["hwaddr"] for it, row in self._rows().items()}

    def expiry(self, address):
        """When the lease of an address ends, in seconds since 1970; 0 without a lease."""
        return int(self._rows().get(address, {"expire": 0})["expire"])

    def _rows(self):
        # Kea appends: what it wrote last about an address holds. A lease that was given back
        # has no lifetime, or is in another state than the first.
        text = self.leases_file.read_text() if self.leases_file.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines()
        rows = {row["address"]: row for row in csv.DictReader(whole)}
        return {
            it: row
            for it, row in rows.items()
            if row["valid_lifetime"] != "0" and row["state"] == "0"
        }


def udhcpd_configuration(interface, server, mac, address, seconds):
    """Writes a configuration that grants one machine one address; returns its path."""
    base = paths.log_directory() / f"udhcpd{next(_numbers)}"
    Path(f"{base}.leases").touch()
    # For a machine that it knows it asks nobody by ARP, for two seconds, if the address is free.
    base.with_suffix(".conf").write_text(
        f"start {address}\nend {address}\ninterface {interface}\nstatic_lease {mac} {address}\n"
        f"lease_file {base}.leases\npidfile {base}.pid\n"
        f"opt subnet 255.255.255.0\nopt router {server}\nopt dns {server}\nopt lease {seconds}\n"
        f"min_lease {seconds}\n"
    )
    return base.with_suffix(".conf")


@contextlib.contextmanager
def udhcpd(where, interface, server, mac, address, seconds=600):
    """A DHCP server in a namespace, for a `with` statement."""
    configuration = udhcpd_configuration(interface, server, mac, address, seconds)
    process = spawn(
        *namespace.command_in(where, "busybox", "udhcpd", "-f", configuration),
        log=configuration.with_suffix(".log"),
    )
    try:
        ready = until(lambda: configuration.with_suffix(".pid").exists(), timeout=5)
        assert ready, f"udhcpd did not start: see {configuration.with_suffix('.log')}"
        yield
    finally:
        end(process)


def lease_of(where):
    """What a DHCP server grants the card of a namespace, which does not take it into use: the
    address and the server's, or None."""
    code, said = run(
        *namespace.command_in(where, "busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q"),
        *("-T", 1, "-t", 2, "-s", paths.PRINT_SCRIPT),
        check=False,
    )
    return tuple(said.split("GRANTED ")[1].split()[:2]) if code == 0 else None


@contextlib.contextmanager
def download(where, address, size):
    """A file of random bytes on a web server: gives its address, and the checksum."""
    directory = paths.log_directory() / f"www{next(_numbers)}"
    directory.mkdir()
    content = os.urandom(1 << 20) * (size >> 20)
    (directory / "file").write_bytes(content)
    port = next(_ports)
    server = spawn(
        *namespace.command_in(where, "busybox", "httpd", "-f", "-p", f"{address}:{port}"),
        *("-h", directory),
        log=paths.log_directory() / "httpd.log",
    )
    try:
        assert until(lambda: namespace.listens(where, port), timeout=5), "httpd did not start"
        yield f"http://{address}:{port}/file", hashlib.sha256(content).hexdigest()
    finally:
        end(server)
        (directory / "file").unlink()
        directory.rmdir()
