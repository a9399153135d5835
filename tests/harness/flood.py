"""Strangers at a media port: datagrams from many addresses of the loopback, by a process of its
own."""

import multiprocessing
import secrets
import socket
import struct
import time
import zlib

SOURCES = [f"127.0.2.{number}" for number in range(1, 201)]
COOKIE = 0x2112A442


def attribute(kind, value):
    """An attribute of STUN."""
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def check(asked, asking):
    """An ICE check with these names, signed by somebody who does not know the password."""
    body = attribute(0x0006, f"{asked}:{asking}".encode())
    body += attribute(0x0024, struct.pack("!I", 0x6E0001FF))
    body += attribute(0x802A, secrets.token_bytes(8)) + attribute(0x0025, b"")
    body += attribute(0x0008, secrets.token_bytes(20))
    head = struct.pack("!HHI", 1, len(body) + 8, COOKIE) + secrets.token_bytes(12)
    mark = zlib.crc32(head + body) ^ 0x5354554E
    return head + body + attribute(0x8028, struct.pack("!I", mark))


def hello():
    """A ClientHello as browsers send it, DTLS 1.2 with SRTP."""
    extensions = b"".join(
        struct.pack("!HH", kind, len(value)) + value
        for kind, value in (
            (14, b"\0\4\0\7\0\1\0"),  # use_srtp
            (10, b"\0\4\0\x1d\0\x17"),  # groups
            (13, b"\0\4\4\3\4\1"),  # signatures
            (23, b""),
        )
    )
    suites = b"\xc0\x2b\xc0\x2f\xc0\x0a"
    return (
        b"\xfe\xfd" + secrets.token_bytes(32) + b"\0\0"
        + struct.pack("!H", len(suites)) + suites + b"\1\0"
        + struct.pack("!H", len(extensions)) + extensions
    )  # fmt: skip


def piece(body, start, end, number):
    """A record with a piece of a ClientHello."""
    length = lambda value: value.to_bytes(3, "big")
    message = b"\1" + length(len(body)) + b"\0\0" + length(start) + length(end - start)
    message += body[start:end]
    head = b"\x16\xfe\xff\0\0" + number.to_bytes(6, "big") + struct.pack("!H", len(message))
    return head + message


def stream(asked, asking):
    """What strangers send, without an end: hellos whole and in pieces of which some never come,
    checks of this session and of nobody's, sound."""
    while True:
        body = hello()
        yield piece(body, 0, len(body), secrets.randbelow(1 << 40))
        yield piece(body, 0, 70, 1)
        yield piece(body, 70, len(body), 2)
        yield check(asked, asking)
        yield check(asked, secrets.token_hex(4))
        yield check(secrets.token_hex(4), asking)
        yield b"\x80\x6f" + secrets.token_bytes(90)


class Flood:
    """From now until `stop`: each source sends something each 50 ms, 4,000 datagrams a second."""

    def __init__(self, port, asked, asking):
        self.sent = multiprocessing.Value("q", 0)
        arguments = (port, asked, asking)
        self.process = multiprocessing.get_context("fork").Process(
            target=self._run, args=arguments, daemon=True
        )
        self.process.start()

    def _run(self, port, asked, asking):
        sockets = []
        for source in SOURCES:
            each = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            each.bind((source, 0))
            sockets.append(each)
        sent = stream(asked, asking)
        while True:
            began = time.monotonic()
            for each in sockets:
                try:
                    each.sendto(next(sent), ("127.0.0.1", port))
                except OSError:
                    pass  # the port is closed, or the system's queue is full
            self.sent.value += len(sockets)
            time.sleep(max(0, began + 0.05 - time.monotonic()))

    def stop(self):
        """How many datagrams there were."""
        self.process.terminate()
        self.process.join()
        return self.sent.value
