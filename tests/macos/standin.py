#!/usr/bin/env python3
"""A VM for one softnet on a Mac, in the place of Tart's: standin.py SCENE SOFTNET [FLAG...].

It starts softnet as Tart does, with a socketpair as standard input and in a process group of its
own, gets a lease from the Mac's own DHCP server, talks to the gateway, and stops softnet with
SIGINT. Each line that it prints is a check: `ok` or `FAILED` or `note`, what was looked at, and what
was seen. Scenes:

  whole   lease, pings, a spoof, idle time, the end; and a VM that goes away
  idle    the end after six idle minutes, when the DHCP server has ended too
  two     the end of one VM while another one goes on
  orphan  the end of whoever started softnet, without a word
  load    frames both ways for five seconds, and what became of them
  sleep   how much longer than 50 microseconds a sleep of 50 microseconds is

What softnet says goes to files in the folder LOGS of the environment, if that is set. It needs
nothing but Python 3.8. Written against a simulation; it has never run on a Mac.
"""

import errno
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
failures = 0


def tell(result, what, seen=""):
    global failures
    failures += result == "FAILED"
    print(f"{result:7} {what:58} {seen}", flush=True)


def check(what, condition, seen=""):
    tell("ok" if condition else "FAILED", what, seen)
    return condition


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ipv4(protocol, source, target, payload):
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0,
        socket.inet_aton(source), socket.inet_aton(target),
    )
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload


def dhcp(mac, kind, options=b""):
    message = struct.pack(">BBBB4sHH", 1, 1, 6, 0, b"mac?", 0, 0x8000) + bytes(16)
    message += mac + bytes(10 + 64 + 128) + b"\x63\x82\x53\x63" + bytes([53, 1, kind])
    message = (message + options + b"\xff").ljust(300, b"\0")
    udp = struct.pack(">4H", 68, 67, 8 + len(message), 0) + message
    return b"\xff" * 6 + mac + b"\x08\x00" + ipv4(17, "0.0.0.0", "255.255.255.255", udp)


class Vm:
    count = 0

    def __init__(self, words):
        Vm.count += 1
        self.mac = b"\x02" + os.urandom(5)
        self.program = os.path.basename(words[0])
        self.socket, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.socket, ours):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        environment = {**os.environ, "SOFTNET_LOG": "debug"}
        mac = ":".join(f"{byte:02x}" for byte in self.mac)
        # A file, which takes all that softnet says while nobody reads.
        logs = os.environ.get("LOGS")
        name = f"{sys.argv[1]}-{os.getpid()}-{Vm.count}.log"
        self.log = open(os.path.join(logs, name), "w+") if logs else tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [words[0], "--vm-fd", "0", "--vm-mac-address", mac, *words[1:]],
            stdin=ours, stderr=self.log, env=environment,
            # As Foundation's Process: a signal for the terminal's foreground does not reach it.
            preexec_fn=os.setpgrp,
        )
        # As Tart, which keeps softnet's end open too.
        self.ours = ours
        self.arrived = 0

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def pid(self):
        """softnet's, which may be a child of sudo's, and that of what was started."""
        shown = subprocess.run(["ps", "-axo", "pid=,ppid=,comm="], stdout=subprocess.PIPE, universal_newlines=True)
        rows = [line.split(None, 2) for line in shown.stdout.splitlines()]
        found = [str(self.process.pid)]
        for _ in range(4):
            found += [pid for pid, parent, _ in rows if parent in found and pid not in found]
        names = {pid: os.path.basename(name) for pid, _, name in rows}
        # Linux cuts names to 15 bytes.
        named = [pid for pid in found if names.get(pid) == self.program[:15] or names.get(pid) == self.program]
        return int((named or found)[-1])

    def take(self):
        self.arrived += 1
        return self.socket.recv(70000)

    def receive(self, wanted, timeout):
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                found = wanted(self.take())
                if found:
                    return found
        return None

    def lease(self):
        """The address, the gateway and its MAC, or None."""

        def answer(kind):
            def wanted(frame):
                if len(frame) >= 285 and frame[12:14] == b"\x08\x00" and frame[282:285] == bytes([53, 1, kind]):
                    return socket.inet_ntoa(frame[58:62]), socket.inet_ntoa(frame[26:30]), frame[6:12]
                return None

            return wanted

        for _ in range(5):
            self.socket.send(dhcp(self.mac, DISCOVER))
            offer = self.receive(answer(OFFER), 3)
            if not offer:
                continue
            address, gateway, _ = offer
            options = b"\x32\x04" + socket.inet_aton(address) + b"\x36\x04" + socket.inet_aton(gateway)
            self.socket.send(dhcp(self.mac, REQUEST, options))
            granted = self.receive(answer(ACK), 3)
            if granted:
                return granted
        return None

    def ping(self, address, gateway, gateway_mac, count):
        """How many of as many pings were answered, and the median time in microseconds."""
        times = []
        for number in range(count):
            echo = struct.pack(">BBHHH", 8, 0, 0, 7, number) + bytes(48)
            echo = echo[:2] + struct.pack(">H", checksum(echo)) + echo[4:]
            start = time.monotonic()
            self.socket.send(gateway_mac + self.mac + b"\x08\x00" + ipv4(1, address, gateway, echo))

            def wanted(frame, number=number):
                if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x01":
                    self.answer_arp(frame, address)
                is_reply = frame[12:14] == b"\x08\x00" and frame[23:24] == b"\x01"
                return is_reply and frame[34:35] == b"\0" and frame[40:42] == struct.pack(">H", number)

            if self.receive(wanted, 1):
                times.append(1e6 * (time.monotonic() - start))
            time.sleep(0.005)
        return len(times), sorted(times)[len(times) // 2] if times else 0

    def answer_arp(self, frame, address):
        if frame[38:42] == socket.inet_aton(address):
            reply = frame[6:12] + self.mac + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02"
            self.socket.send(reply + self.mac + frame[38:42] + frame[22:32])

    def stop(self):
        """Interrupts softnet; its code, how many seconds it took, and what it said."""
        start = time.monotonic()
        try:
            self.process.send_signal(signal.SIGINT)
        except PermissionError:
            # sudo is root's.
            tell("note", "softnet's parent takes no SIGINT from this user", "closing the VM's end")
            self.socket.close()
            start = time.monotonic()
        return (*self.end(10, start), self.said())

    def end(self, patience, start):
        """Waits for the end of softnet; its code, and how many seconds that took."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            subprocess.run(["kill", "-9", str(self.pid())])
            self.process.wait()
        return self.process.returncode, time.monotonic() - start


def bootpd_lease(address):
    """Seconds that bootpd's lease has left; None without an entry, or where there is no such file."""
    try:
        text = open("/var/db/dhcpd_leases", encoding="utf-8").read()
    except OSError:
        return None
    for entry in text.split("}"):
        if re.search(rf"ip_address={re.escape(address)}\s", entry):
            return int(re.search(r"lease=0x([0-9a-f]+)", entry).group(1), 16) - time.time()
    return None


def cpu_seconds(pid):
    shown = subprocess.run(["ps", "-o", "time=", "-p", str(pid)], stdout=subprocess.PIPE, universal_newlines=True)
    parts = [float(part) for part in re.split("[:-]", shown.stdout.strip() or "0")]
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def is_there(pid):
    return subprocess.run(["ps", "-p", str(pid)], stdout=subprocess.DEVNULL).returncode == 0


ON_A_MAC = sys.platform == "darwin"


def start(words):
    """A VM with a lease, and the lease. Ends it all if there is none."""
    vm = Vm(words)
    lease = vm.lease()
    if not check("the VM gets a lease", lease, lease and lease[0]):
        code, _, said = vm.stop()
        print(f"softnet ended with {code} and said:\n{said}")
        sys.exit(1)
    return vm, lease


def check_end(vm, address):
    """Stops softnet, and looks whether the Mac's server has the address back by then."""
    code, seconds, said = vm.stop()
    left = bootpd_lease(address)
    check("softnet ends with 0 within a second", code == 0 and seconds < 1, f"{code}, {seconds:.2f} s")
    check("the address was given back", "released the VM's address" in said)
    if ON_A_MAC:
        check("bootpd's lease has ended by then", left is None or left <= 0, left)
    return said


def whole(words):
    vm, (address, gateway, gateway_mac) = start(words)
    left = bootpd_lease(address)
    if "the lease time of" in vm.said() and left is not None:
        check("bootpd lends for 600 seconds", 0 < left <= 610, f"{left:.0f} s")
    else:
        tell("note", "bootpd lends for so many seconds", left)
    answered, median = vm.ping(address, gateway, gateway_mac, 100)
    check("the gateway answers 100 pings", answered == 100, f"{answered}, median {median:.0f} us")
    stranger = ipv4(1, "192.168.64.77", gateway, struct.pack(">BBHHH", 8, 0, 0xF7F7, 0x800, 8))
    vm.socket.send(gateway_mac + vm.mac + b"\x08\x00" + stranger)
    check("a spoofed source gets no answer", not vm.receive(lambda f: f[12:14] == b"\x08\x00" and f[23:24] == b"\x01", 1))
    pid = vm.pid()
    before = cpu_seconds(pid)
    time.sleep(10)
    idle = cpu_seconds(pid) - before
    check("ten idle seconds cost less than a tenth of one", idle < 0.1, f"{idle:.2f} s")
    said = check_end(vm, address)
    for what in ("events that vmnet forgot", "took a system call each"):
        found = re.search(rf"{what}.*: (\d+)", said)
        tell("note", what, found.group(1) if found else "softnet did not say")
    found = re.search("vmnet started: (.*)", said)
    tell("note", "what vmnet says of the interface", found.group(1) if found else "softnet did not say")

    vm, (address, _, _) = start(words)
    vm.socket.close()
    code, seconds = vm.end(4, time.monotonic())
    check("softnet ends when the VM's end is closed", code == 0 and seconds < 3, f"{code}, {seconds:.2f} s")


def idle(words):
    vm, (address, _, _) = start(words)
    # More than bootpd waits for work, and less than the lease lasts.
    time.sleep(370)
    check("softnet is there after six idle minutes", vm.process.poll() is None)
    check_end(vm, address)


def two(words):
    one, (address, gateway, _) = start(words)
    other, (others, _, gateway_mac) = start(words)
    check("two VMs have two addresses", address != others, f"{address}, {others}")
    check_end(one, address)
    answered, _ = other.ping(others, gateway, gateway_mac, 20)
    check("the other VM goes on", answered == 20, answered)
    check_end(other, others)


def orphan(words):
    command = [sys.executable, __file__, "hold", *words]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, universal_newlines=True)
    line = next((line for line in parent.stdout if line.startswith("held")), None)
    if not check("a softnet has a parent", line):
        return
    _, pid, address = line.split()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 4
    while is_there(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    check("softnet ends with who started it", not is_there(pid), f"{4 - deadline + time.monotonic():.2f} s")
    if ON_A_MAC:
        left = bootpd_lease(address)
        check("bootpd's lease has ended by then", left is None or left <= 0, left)


def hold(words):
    """For `orphan`: is killed, with the VM."""
    vm, (address, _, _) = start(words)
    print("held", vm.pid(), address, flush=True)
    time.sleep(60)


def load(words):
    vm, (address, gateway, gateway_mac) = start(words)
    # The gateway learns the VM's MAC address.
    vm.ping(address, gateway, gateway_mac, 1)
    host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    until = time.monotonic() + 5
    sent = {"vm": 0, "host": 0}

    def from_host():
        try:
            host.bind((gateway, 0))
            while time.monotonic() < until:
                for _ in range(16):
                    try:
                        host.sendto(bytes(1000), (address, 9))
                        sent["host"] += 1
                    except BlockingIOError:
                        pass
                    except OSError as error:
                        if error.errno != errno.ENOBUFS:
                            raise
                time.sleep(0.0002)
        except OSError as error:
            # EHOSTUNREACH: see "Local network" in docs/macos.md.
            tell("note", "the host cannot send to the VM", error)

    def from_vm():
        frame = struct.pack(">4H", 9, 9, 8 + 1000, 0) + bytes(1000)
        frame = gateway_mac + vm.mac + b"\x08\x00" + ipv4(17, address, gateway, frame)
        while time.monotonic() < until:
            for _ in range(16):
                try:
                    vm.socket.send(frame, socket.MSG_DONTWAIT)
                    sent["vm"] += 1
                except OSError:
                    break
            time.sleep(0.0002)

    threads = [threading.Thread(target=work) for work in (from_host, from_vm)]
    for thread in threads:
        thread.start()
    before = vm.arrived
    while time.monotonic() < until + 1:
        if select.select([vm.socket], [], [], 0.2)[0]:
            frame = vm.take()
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x01":
                vm.answer_arp(frame, address)
    for thread in threads:
        thread.join()
    said = check_end(vm, address)
    while select.select([vm.socket], [], [], 0)[0]:
        vm.take()
    received = vm.arrived - before
    counts = dict(re.findall(r"\[(vm->host|host->vm)\] (\d+ frames .*)", said))
    taken, passed = (
        [int(number) for number in re.findall(r"(\d+) frames .*?: (\d+) forwarded", counts.get(way, "0 frames : 0 forwarded"))[0]]
        for way in ("vm->host", "host->vm")
    )
    check("softnet took each frame that the VM sent", taken[0] >= sent["vm"] > 0, f"{taken[0]} of {sent['vm']}")
    check("no frame reached the VM that softnet did not count", vm.arrived <= passed[1], f"{vm.arrived} of {passed[1]}")
    tell("note", "frames of the host's that were lost", f"{max(sent['host'] - received, 0)} of {sent['host']}")
    # sendmsg_x may say that it has sent what it had no buffers for: netstat -m tells.
    tell("note", "frames that softnet says it sent to the VM, and were not", passed[1] - vm.arrived)
    for way, line in counts.items():
        tell("note", way, line)


def sleep(_words):
    times = []
    for _ in range(2000):
        start = time.monotonic()
        time.sleep(50e-6)
        times.append(1e6 * (time.monotonic() - start) - 50)
    times.sort()
    tell("note", "a sleep of 50 us is longer by (median, 99 %)", f"{times[1000]:.0f} us, {times[1980]:.0f} us")


def main():
    scenes = (whole, idle, two, orphan, load, sleep, hold)
    {scene.__name__: scene for scene in scenes}[sys.argv[1]](sys.argv[2:])
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
