#!/usr/bin/env python3
"""A VM for one softnet on a Mac, in the place of Tart's: standin.py SOFTNET [FLAG...].

It starts softnet as Tart does, with a socketpair as standard input, gets a lease from the
Mac's own DHCP server, talks to the gateway, and stops softnet with SIGINT. Each line that it
prints is a check: `ok` or `FAILED` or `note`, what was looked at, and what was seen. It needs
nothing but Python 3.8. Written against a simulation; it has never run on a Mac.
"""

import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time

MAC = b"\x02" + os.urandom(5)
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


def dhcp(kind, options=b""):
    message = struct.pack(">BBBB4sHH", 1, 1, 6, 0, b"mac?", 0, 0x8000) + bytes(16)
    message += MAC + bytes(10 + 64 + 128) + b"\x63\x82\x53\x63" + bytes([53, 1, kind])
    message = (message + options + b"\xff").ljust(300, b"\0")
    udp = struct.pack(">4H", 68, 67, 8 + len(message), 0) + message
    return b"\xff" * 6 + MAC + b"\x08\x00" + ipv4(17, "0.0.0.0", "255.255.255.255", udp)


class Vm:
    def __init__(self, words):
        self.socket, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.socket, ours):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        environment = {**os.environ, "SOFTNET_LOG": "debug"}
        mac = ":".join(f"{byte:02x}" for byte in MAC)
        self.process = subprocess.Popen(
            [words[0], "--vm-fd", "0", "--vm-mac-address", mac, *words[1:]],
            stdin=ours, stderr=subprocess.PIPE, env=environment, text=True,
        )
        # As Tart, which keeps softnet's end open too.
        self.ours = ours

    def receive(self, wanted, timeout):
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                found = wanted(self.socket.recv(70000))
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
            self.socket.send(dhcp(DISCOVER))
            offer = self.receive(answer(OFFER), 3)
            if not offer:
                continue
            address, gateway, _ = offer
            options = b"\x32\x04" + socket.inet_aton(address) + b"\x36\x04" + socket.inet_aton(gateway)
            self.socket.send(dhcp(REQUEST, options))
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
            self.socket.send(gateway_mac + MAC + b"\x08\x00" + ipv4(1, address, gateway, echo))

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
            reply = frame[6:12] + MAC + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02"
            self.socket.send(reply + MAC + frame[38:42] + frame[22:32])

    def stop(self):
        """Interrupts softnet; its code, how many seconds it took, and what it said."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            _, said = self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, said = self.process.communicate()
        return self.process.returncode, time.monotonic() - start, said


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
    shown = subprocess.run(["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True)
    parts = [float(part) for part in re.split("[:-]", shown.stdout.strip() or "0")]
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def main():
    on_a_mac = sys.platform == "darwin"
    vm = Vm(sys.argv[1:])
    lease = vm.lease()
    if not check("the VM gets a lease", lease, lease and lease[0]):
        code, _, said = vm.stop()
        print(f"softnet ended with {code} and said:\n{said}")
        sys.exit(1)
    address, gateway, gateway_mac = lease
    if on_a_mac:
        left = bootpd_lease(address)
        check("bootpd lends for 600 seconds", left is not None and 0 < left <= 610, left)
    answered, median = vm.ping(address, gateway, gateway_mac, 100)
    check("the gateway answers 100 pings", answered == 100, f"{answered}, median {median:.0f} us")
    stranger = ipv4(1, "192.168.64.77", gateway, struct.pack(">BBHHH", 8, 0, 0xF7F7, 0x800, 8))
    vm.socket.send(gateway_mac + MAC + b"\x08\x00" + stranger)
    check("a spoofed source gets no answer", not vm.receive(lambda f: f[12:14] == b"\x08\x00" and f[23:24] == b"\x01", 1))
    before = cpu_seconds(vm.process.pid)
    time.sleep(10)
    idle = cpu_seconds(vm.process.pid) - before
    check("ten idle seconds cost less than a tenth of one", idle < 0.1, f"{idle:.2f} s")
    code, seconds, said = vm.stop()
    check("SIGINT ends it with 0 within a second", code == 0 and seconds < 1, f"{code}, {seconds:.2f} s")
    check("the address was given back", "gave the VM's address" in said)
    if on_a_mac:
        time.sleep(1)
        left = bootpd_lease(address)
        check("bootpd's lease has ended", left is None or left <= 0, left)
    for what in ("events that vmnet forgot", "took a system call each"):
        found = re.search(rf"{what}.*: (\d+)", said)
        tell("note", what, found.group(1) if found else "softnet did not say")

    vm = Vm(sys.argv[1:])
    if check("a second softnet gives a lease", vm.lease()):
        vm.socket.close()
        try:
            vm.process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            pass
        check("softnet ends when the VM's end is closed", vm.process.poll() is not None, vm.process.poll())
    vm.process.kill()
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
