"""Floods and half-open connections: bounded, while a good caller is served within a second."""

import resource
import socket
import threading
import time

from harness import wire
from harness.case import case, check, wait_for
from harness.edge import LOCAL_POLICY, Edge

SOURCES = [f"127.0.1.{number}" for number in range(1, 5)]
HALF_OPEN = 1_000

FLOOD_POLICY = """
[trunk.flooder]
from   = { networks = ["127.0.1.0/24"] }
limits = { calls = 5, calls_per_second = 5 }

[trunk.local]
from = { networks = ["127.0.0.1"] }

[[route]]
when    = { called = { exact = "reception" } }
send_to = { agent = "reception" }
"""


def good_call(edge, name):
    """A good caller is answered, and within a second."""
    report = edge.load("--hold", "2", "--silent", name=name)
    check(report["answered"] == 1, f"{name}: {report['failures']}")
    took = report["calls"][0]["setup_ms"]
    check(took < 1_000, f"{name}: answered after {took:.0f} ms")


def half_open(edge, number):
    """A connection that says nothing, or half a ClientHello."""
    each = socket.socket()
    each.setblocking(False)
    each.bind((SOURCES[number % len(SOURCES)], 0))
    each.connect_ex(("127.0.0.1", edge.tls))
    return each


def is_ended(each):
    """Whether the far end has closed it."""
    try:
        return not each.recv(100)
    except BlockingIOError:
        return False
    except OSError:
        return True


@case(timeout=90, alone=True)
def half_open_connections(box):
    """A thousand half-open TLS connections from four addresses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4_096), hard))
    check(min(hard, 4_096) > HALF_OPEN + 100, f"only {soft}/{hard} files may be open")
    edge = Edge(box, LOCAL_POLICY).start()
    connections = [half_open(edge, number) for number in range(HALF_OPEN)]
    time.sleep(0.5)
    for each in connections[::2]:
        try:
            each.send(b"\x16\x03\x01\x02\x00\x01\x00\x01")
        except OSError:
            pass  # already refused
    # Limit transport.handshakes_per_source is 32.
    held = sum(not is_ended(it) for it in connections)
    check(held <= 32 * len(SOURCES) + len(SOURCES), f"{held} half-open connections are held")
    good_call(edge, "beside")
    # Limit transport.handshake_ms is 5,000.
    wait_for("the last half-open connection is closed",
             lambda: all(is_ended(it) for it in connections), 12, every=0.5)
    for each in connections:
        each.close()
    good_call(edge, "after")
    check(edge.metric("callgate_transport_connection_closed_total", cause="limit") > 0, "not counted")
    edge.stop()


class Flooder(threading.Thread):
    """INVITEs as fast as they go, each a new call; answers are read and counted."""

    def __init__(self, edge, source):
        super().__init__(daemon=True)
        self.edge, self.source = edge, source
        self.sent, self.statuses, self.broken, self.over = 0, {}, 0, threading.Event()

    def run(self):
        while not self.over.is_set():
            try:
                self.flood(wire.Stream(self.edge.tls, self.edge.authority, self.source))
            except OSError:
                self.broken += 1
                time.sleep(0.05)

    def flood(self, stream):
        """Floods one connection until it ends."""
        while not self.over.is_set():
            batch = b"".join(
                wire.request("INVITE", self.edge.uri(), body=wire.sdp()) for _ in range(20)
            )
            stream.send(batch)
            self.sent += 20
            while answer := stream.receive(0.001):
                self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        stream.close()


@case(timeout=90, alone=True)
def invite_flood(box):
    """One trunk floods INVITEs; it is held to its limits and another is served meanwhile."""
    edge = Edge(box, FLOOD_POLICY).start()
    flooder = Flooder(edge, "127.0.1.9")
    flooder.start()
    time.sleep(1)
    good_call(edge, "beside")
    time.sleep(1)
    good_call(edge, "beside-again")
    flooder.over.set()
    flooder.join(10)
    check(flooder.sent > 1_000, f"only {flooder.sent} INVITEs were sent")
    answered = flooder.statuses.get(200, 0)
    # Five calls at a time, which nobody acknowledges; some of them may have ended meanwhile.
    check(answered <= 60, f"{answered} of the flood's INVITEs were answered: {flooder.statuses}")
    check(flooder.statuses.get(503, 0) > 0, f"nothing was refused with 503: {flooder.statuses}")
    check(set(flooder.statuses) <= {100, 200, 503}, f"{flooder.statuses}")
    good_call(edge, "after")
    check(edge.is_running(), "the edge died")
    edge.stop(60)
