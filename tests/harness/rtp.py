"""Media packet by packet: for what a well-behaved peer cannot be made to send, and to count what
arrives. SRTP as RFC 3711 has it, with the AES of openssl."""

import base64
import hashlib
import hmac
import secrets
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass

from .case import check, wait_for


def packet(number, payload, payload_type=0, ssrc=0x11223344, step=160, marker=False, stamp=None):
    """An RTP packet (RFC 3550 section 5.1)."""
    stamp = number * step if stamp is None else stamp
    second = payload_type | (0x80 if marker else 0)
    head = struct.pack("!BBHII", 0x80, second, number & 0xFFFF, stamp & 0xFFFF_FFFF, ssrc)
    return head + payload


@dataclass(frozen=True)
class Packet:
    """A packet that was received."""

    raw: bytes

    @property
    def payload_type(self):
        """Its payload type."""
        return self.raw[1] & 0x7F

    @property
    def number(self):
        """Its sequence number."""
        return int.from_bytes(self.raw[2:4], "big")

    @property
    def stamp(self):
        """Its timestamp."""
        return int.from_bytes(self.raw[4:8], "big")

    @property
    def ssrc(self):
        """Its source."""
        return int.from_bytes(self.raw[8:12], "big")

    @property
    def payload(self):
        """What follows its header, which has no extension and no list of sources here."""
        return self.raw[12:]


class Socket:
    """A UDP socket for media, which keeps what it gets."""

    def __init__(self, address="127.0.0.1"):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.address, self.port = self.socket.getsockname()
        self.datagrams = []
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self):
        while True:
            try:
                self.datagrams.append(self.socket.recv(4_096))
            except ConnectionRefusedError:
                continue
            except OSError:
                return

    def packets(self):
        """The RTP among what it got: not RTCP (RFC 5761 section 4)."""
        return [Packet(it) for it in list(self.datagrams) if not 192 <= it[1] <= 223]

    def send(self, datagrams, to, every=0.02):
        """Sends datagrams at a steady pace."""
        began = time.monotonic()
        for number, each in enumerate(datagrams):
            time.sleep(max(0, began + number * every - time.monotonic()))
            self.socket.sendto(each, to)

    def wait(self, count, seconds=5):
        """Waits for so many RTP packets."""
        wait_for(f"{count} packets", lambda: len(self.packets()) >= count, seconds)


class Srtp:
    """One direction under AES_CM_128_HMAC_SHA1_80 (RFC 3711), for fewer than 65,536 packets."""

    TAG = 10

    def __init__(self, inline):
        keys = base64.b64decode(inline)
        check(len(keys) == 30, "this is no key of AES_CM_128")
        self.master, self.master_salt = keys[:16], keys[16:]
        self.key, self.auth, self.salt = (
            self._derive(label, size) for label, size in ((0, 16), (1, 20), (2, 14))
        )

    def _derive(self, label, size):
        """A session key (RFC 3711 section 4.3)."""
        start = int.from_bytes(self.master_salt, "big") ^ label << 48
        blocks = [(start << 16) + it for it in range(2)]
        return encrypt(self.master, blocks)[:size]

    def _streams(self, packets):
        """The key stream of each packet (RFC 3711 section 4.1.1), by one run of openssl."""
        salt = int.from_bytes(self.salt, "big") << 16
        counts = [(len(it) - 12 + 15) // 16 for it in packets]
        blocks = []
        for each, count in zip(packets, counts):
            start = salt ^ Packet(each).ssrc << 64 ^ Packet(each).number << 16
            blocks += [start + it for it in range(count)]
        stream, at, found = encrypt(self.key, blocks), 0, []
        for count in counts:
            found.append(stream[at : at + 16 * count])
            at += 16 * count
        return found

    def _tag(self, protected):
        return hmac.new(self.auth, protected + bytes(4), hashlib.sha1).digest()[: self.TAG]

    def _crypt(self, packets):
        return [each[:12] + bytes(a ^ b for a, b in zip(each[12:], stream))
                for each, stream in zip(packets, self._streams(packets))]

    def protect(self, packets):
        """Packets as they cross the wire."""
        return [it + self._tag(it) for it in self._crypt(packets)]

    def open(self, packets):
        """What crossed the wire; every packet must be authentic."""
        bodies = [it[: -self.TAG] for it in packets]
        for body, whole in zip(bodies, packets):
            check(self._tag(body) == whole[-self.TAG :], "a packet is not authentic")
        return self._crypt(bodies)


def pcap(packets, every=0.02):
    """A capture of packets at a steady pace, as sipp plays one: it puts in addresses of its own."""
    found = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)]  # Ethernet
    for number, each in enumerate(packets):
        at = round(number * every * 1_000_000)
        size = 8 + len(each)
        frame = bytes(12) + b"\x08\x00"
        frame += struct.pack("!BBHHHBBH8x", 0x45, 0, 20 + size, 0, 0, 64, socket.IPPROTO_UDP, 0)
        frame += struct.pack("!HHHH", 4_000, 4_000, size, 0) + each
        found.append(struct.pack("<IIII", at // 1_000_000, at % 1_000_000, len(frame), len(frame)))
        found.append(frame)
    return b"".join(found)


def encrypt(key, blocks):
    """AES-128 of counter blocks."""
    data = b"".join((it % (1 << 128)).to_bytes(16, "big") for it in blocks)
    command = ["openssl", "enc", "-aes-128-ecb", "-nopad", "-nosalt", "-K", key.hex()]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def payloads(count, size=160):
    """So many payloads, no two alike."""
    return [secrets.token_bytes(size) for _ in range(count)]
