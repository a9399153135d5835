"""A NAT, and the private network behind it: name spaces of this case alone, with a router of ours
between them that rewrites addresses and ports as a NAT of homes and offices does. Wants root."""

import contextlib
import ctypes
import fcntl
import json
import multiprocessing
import os
import secrets
import select
import socket
import struct
import subprocess
import time
from dataclasses import dataclass

from .case import Skip

# Where the edge is, what the NAT shows of itself, who is behind it.
EDGE_AT, PUBLIC, PRIVATE = "198.51.100.1", "203.0.113.7", "192.168.77.2"
NEW_NETWORK, TUN = 0x4000_0000, 0x0001 | 0x1000
SET_INTERFACE = 0x4004_54CA
TCP, UDP = 6, 17
LIBC = ctypes.CDLL(None, use_errno=True)


def enter(space):
    """Has this thread, and what it starts from now on, live in a network name space."""
    if LIBC.setns(space, NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


def space():
    """A fresh one, entered; a descriptor of it."""
    if LIBC.unshare(NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "unshare")
    ip("link set lo up")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def ip(words):
    """A command of iproute2."""
    subprocess.run(["ip", *words.split()], check=True)


def tunnel(name):
    """An interface of the present name space whose packets are read from a descriptor."""
    found = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(found, SET_INTERFACE, struct.pack("16sH22x", name.encode(), TUN))
    # Nothing is ever in pieces.
    ip(f"link set {name} mtu 9000 up")
    return found


class TwoSides:
    """A case that lives in the name space `outside`, and has another one, `within`."""

    @contextlib.contextmanager
    def inside(self):
        """What is opened or started here lives within."""
        enter(self.within)
        try:
            yield
        finally:
            enter(self.outside)


class Nat(TwoSides):
    """The case lives outside; what is started within `inside()` lives behind the NAT."""

    def __init__(self, box, is_symmetric=True):
        """A symmetric one has another port for each place that it sends to. What nobody behind it
        has sent to cannot send in, be it symmetric or not."""
        self.log = box.path("nat.log")
        try:
            self.outside = space()
            os.close(os.open("/dev/net/tun", os.O_RDWR))
        except OSError as refused:
            # Containers and ordinary users may not; there is no other way to have a NAT.
            raise Skip(f"no network of one's own here: {refused}") from refused
        ip(f"address add {EDGE_AT}/32 dev lo")
        outer = tunnel("outer")
        ip(f"route add {PUBLIC}/32 dev outer")
        # Packets to private addresses come to us, as they would to the edge's own router.
        ip("route add 192.168.0.0/16 dev outer")
        self.within = space()
        inner = tunnel("inner")
        ip(f"address add {PRIVATE}/24 dev inner")
        ip("route add default dev inner")
        enter(self.outside)
        self.forgets = {it: multiprocessing.Value("q", 0) for it in (TCP, UDP)}
        router = Router(inner, outer, self.log, is_symmetric, self.forgets)
        multiprocessing.get_context("fork").Process(target=router.run, daemon=True).start()
        os.close(inner)
        os.close(outer)

    def rebind(self, *protocols):
        """Forgets what it knows, as one does that was switched off: the next packet from inside
        leaves by another port, and nothing reaches the old one's owner."""
        for protocol in protocols:
            self.forgets[protocol].value += 1

    def events(self, kind):
        """What the router noted: `opened`, `astray` (to a private address), `refused`."""
        text = self.log.read_text() if self.log.exists() else ""
        rows = [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]
        return [it for it in rows if it["kind"] == kind]

    def opened(self, remote_port, protocol=UDP):
        """The ways by which a port of the edge has been spoken to, the first first."""
        return [it for it in self.events("opened")
                if it["remote"][1] == remote_port and it["protocol"] == protocol]


@dataclass
class Mapping:
    """A way through."""

    private: tuple  # address and port
    public: int
    age: int  # how often its protocol's mappings had been forgotten before
    remotes: set


class Router:
    """What rewrites; in a process of its own, so that measuring in the case delays nothing."""

    def __init__(self, inner, outer, log, is_symmetric, forgets):
        self.inner, self.outer, self.log = inner, outer, log
        self.is_symmetric, self.forgets = is_symmetric, forgets
        self.ways, self.ports = {}, {}
        self.next = 20_000 + secrets.randbelow(20_000)

    def run(self):
        """Carries packets until the case ends."""
        with open(self.log, "a", encoding="utf-8", buffering=1) as self.file:
            while True:
                for each in select.select([self.inner, self.outer], [], [])[0]:
                    packet = os.read(each, 65_536)
                    # Version 4, whole, of a protocol with ports.
                    if packet[0] >> 4 == 4 and packet[9] in (TCP, UDP):
                        (self.leave if each == self.inner else self.come)(packet)

    def note(self, kind, **fields):
        """A line of the log."""
        self.file.write(json.dumps({"kind": kind, "at": time.monotonic(), **fields}) + "\n")

    def leave(self, packet):
        """From inside."""
        protocol, source, target = ends(packet)
        age = self.forgets[protocol].value
        key = (protocol, source, target if self.is_symmetric else None)
        way = self.ways.get(key)
        if way is None or way.age != age:
            # Never the port that it has inside.
            self.next += 1 + (self.next + 1 == source[1])
            way = Mapping(source, self.next, age, set())
            self.ways[key] = self.ports[protocol, self.next] = way
            self.note("opened", protocol=protocol, private=source, public=way.public,
                      remote=target)
        way.remotes.add(target)
        os.write(self.outer, rewritten(packet, source=(PUBLIC, way.public)))

    def come(self, packet):
        """From outside."""
        protocol, source, target = ends(packet)
        if target[0] != PUBLIC:
            self.note("astray", protocol=protocol, remote=source, to=target)
            return
        way = self.ports.get((protocol, target[1]))
        if way is None or way.age != self.forgets[protocol].value or source not in way.remotes:
            self.note("refused", protocol=protocol, remote=source, to=target)
            return
        os.write(self.inner, rewritten(packet, target=way.private))


def ends(packet):
    """Protocol, source and target of a packet."""
    head = (packet[0] & 15) * 4
    ports = struct.unpack_from("!HH", packet, head)
    source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    return packet[9], (source, ports[0]), (target, ports[1])


def rewritten(packet, source=None, target=None):
    """A packet with another source or target."""
    packet = bytearray(packet)
    head, protocol = (packet[0] & 15) * 4, packet[9]
    for end, address, port in ((source, 12, 0), (target, 16, 2)):
        if end:
            packet[address : address + 4] = socket.inet_aton(end[0])
            struct.pack_into("!H", packet, head + port, end[1])
    packet[10:12] = bytes(2)
    struct.pack_into("!H", packet, 10, checksum(packet[:head]))
    at = head + (16 if protocol == TCP else 6)
    packet[at : at + 2] = bytes(2)
    pseudo = packet[12:20] + struct.pack("!HH", protocol, len(packet) - head)
    struct.pack_into("!H", packet, at, checksum(pseudo + packet[head:]))
    return bytes(packet)


def checksum(data):
    """That of IP, UDP and TCP: the sum of 16-bit words is the rest of a division by 65,535."""
    return 0xFFFF - int.from_bytes(data + bytes(len(data) & 1), "big") % 0xFFFF

