"""A raw socket on an interface of a namespace: sends frames, watches for frames."""

import select
import socket
import time

from lab import namespace

ETH_P_ALL = 0x0003


class Packets:
    """While it is open, every frame that arrives at the interface is kept for `arriving`."""

    def __init__(self, where, interface):
        with namespace.inside(where):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((interface, ETH_P_ALL))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send(self, frame):
        """Sends one Ethernet frame exactly as given."""
        self._socket.send(bytes(frame))

    def saw(self, wanted, timeout=0):
        """Whether a frame that holds the bytes `wanted` arrives within the time."""
        return any(wanted in frame for frame in self.arriving(timeout))

    def arriving(self, timeout=0):
        """The frames that have arrived since the last one, and those of the next seconds."""
        deadline = time.monotonic() + timeout
        while select.select([self._socket], [], [], max(0, deadline - time.monotonic()))[0]:
            frame, address = self._socket.recvfrom(65536)
            if address[2] != socket.PACKET_OUTGOING:
                yield frame
