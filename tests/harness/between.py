"""What lies between a browser and the edge: it passes datagrams on, loses chosen ones of DTLS, and
tells what has passed."""

import socket
import threading
from dataclasses import dataclass

BROWSER, EDGE = "browser", "edge"
HANDSHAKE, CLIENT_HELLO = 22, 1
ML_KEM = bytes((0x11, 0xEC))


@dataclass(frozen=True)
class Datagram:
    """One of DTLS, as it came from one side."""

    sender: str
    data: bytes
    lost: bool

    def pieces(self):
        """The pieces of plaintext handshake messages in it: type, length, offset, bytes."""
        data, found = self.data, []
        while len(data) >= 25 and data[0] == HANDSHAKE and data[3:5] == b"\0\0":
            length = int.from_bytes(data[11:13], "big")
            record, data = data[13 : 13 + length], data[13 + length :]
            size, offset = (int.from_bytes(record[it : it + 3], "big") for it in (1, 6))
            found.append((record[0], size, offset, record[12:]))
        return found


class Between:
    """A port of its own before `edge_port`; `lose` tells by sender which DTLS datagrams, counted
    from 0, never arrive."""

    def __init__(self, lose=None):
        self.lose, self.seen = lose or {}, []
        self.edge = self.browser = None
        self.outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for each in (self.outside, self.inside):
            each.bind(("127.0.0.1", 0))
        self.port = self.outside.getsockname()[1]
        for sender, heard, spoken in (
            (BROWSER, self.outside, self.inside),
            (EDGE, self.inside, self.outside),
        ):
            arguments = (sender, heard, spoken)
            threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    def _pass(self, sender, heard, spoken):
        while True:
            data, source = heard.recvfrom(4_096)
            if sender == BROWSER:
                self.browser = source
            # RFC 7983.
            if 20 <= data[0] <= 63:
                count = len(self.of(sender))
                lost = count in self.lose.get(sender, ())
                self.seen.append(Datagram(sender, data, lost))
                if lost:
                    continue
            target = self.edge if sender == BROWSER else self.browser
            if target:
                spoken.sendto(data, target)

    def of(self, sender):
        """The DTLS datagrams of one side so far, lost ones too."""
        return [it for it in self.seen if it.sender == sender]

    def hellos(self):
        """The pieces of the browser's ClientHellos."""
        pieces = (piece for it in self.of(BROWSER) for piece in it.pieces())
        return [piece for piece in pieces if piece[0] == CLIENT_HELLO]
