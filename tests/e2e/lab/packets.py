"""A raw socket on an interface of a namespace: sends frames, watches for frames."""

import socket

from lab import namespace
from lab.process import until

ETH_P_ALL = 0x0003


class Packets:
    """While it is open, every frame that arrives at the interface is kept for `saw`."""

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
        self._socket.send(frame)

    def saw(self, wanted, timeout=0):
        """Whether a frame that holds the bytes `wanted` arrives within the time."""

        def look():
            while True:
                try:
                    frame, address = self._socket.recvfrom(65536, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return False
                if address[2] != socket.PACKET_OUTGOING and wanted in frame:
                    return True

        return until(look, timeout)
