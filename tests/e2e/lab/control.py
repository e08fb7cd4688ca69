"""A client of the control channel."""

import itertools
import json
import socket


class Control:
    """One end of the socketpair whose other is softnet's `--control-fd`."""

    def __init__(self):
        self.socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(5)
        self._lines = self.socket.makefile("rb")
        self._ids = itertools.count(1)

    def send(self, data):
        """Sends bytes as they are."""
        self.socket.sendall(data)

    def line(self):
        """The next response, read from its line; None at the end."""
        line = self._lines.readline()
        assert not line or line.endswith(b"\n"), line
        return json.loads(line) if line else None

    def ask(self, method, **params):
        """A whole request, and the whole response to it."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": f"softnet.{method}"}
        self.send(json.dumps(request | ({"params": params} if params else {})).encode() + b"\n")
        response = self.line()
        assert response["jsonrpc"] == "2.0" and response["id"] == request["id"], response
        return response

    def get(self):
        """The policy."""
        return self.ask("policy.get")["result"]

    def set(self, allow=(), block=()):
        """Sets the policy; what came of it."""
        response = self.ask("policy.set", allow=list(allow), block=list(block))
        return response.get("result") or response["error"]["code"]

    def close(self):
        """Ends it."""
        self._lines.close()
        self.socket.close()
        self.theirs.close()
