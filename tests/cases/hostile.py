"""Floods and half-open connections: bounded, while a good caller is served within a second."""

import os
import re
import resource
import socket
import threading
import time

from harness import sound, wire
from harness.browser import Browser
from harness.case import case, check, wait_for
from harness.edge import LOCAL_POLICY, Edge
from harness.flood import Flood
from harness.phone import Phone

from .browser import whip
from .plaintext import LAB_POLICY, STRANGER

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


def good_call(box, edge, name):
    """A good caller is answered, and within a second."""
    report = edge.load("--hold", "2", "--silent", name=name)
    check(report["answered"] == 1, f"{name}: {report['failures']}")
    took = report["calls"][0]["setup_ms"]
    box.note(f"{name}: {took:.0f} ms")
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
    box.note(f"{held} of {HALF_OPEN} held")
    check(held <= 32 * len(SOURCES) + len(SOURCES), f"{held} half-open connections are held")
    good_call(box, edge, "beside")
    # Limit transport.handshake_ms is 5,000.
    wait_for("the last half-open connection is closed",
             lambda: all(is_ended(it) for it in connections), 12, every=0.5)
    for each in connections:
        each.close()
    good_call(box, edge, "after")
    counted = edge.metric("callgate_transport_connection_closed_total", cause="limit")
    check(counted > 0, "what the limit closed is not counted")
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
    good_call(box, edge, "beside")
    time.sleep(1)
    good_call(box, edge, "beside-again")
    flooder.over.set()
    flooder.join(10)
    box.note(f"{flooder.sent} INVITEs, answers {flooder.statuses}")
    check(flooder.sent > 1_000, f"only {flooder.sent} INVITEs were sent")
    check(flooder.statuses.get(503, 0) > 0, f"nothing was refused with 503: {flooder.statuses}")
    check(set(flooder.statuses) <= {100, 200, 503}, f"{flooder.statuses}")
    good_call(box, edge, "after")
    check(edge.is_running(), "the edge died")
    # The flooder's limit of five calls, and our three. (Their 200s come again, for want of an ACK.)
    answered = edge.metric("callgate_call_answered_total")
    check(answered == 5 + 3, f"{answered} calls were answered")
    # The flood's own calls never end by themselves: no waiting for them.
    edge.kill()


@case(alone=True)
def datagram_flood(box):
    """A stranger floods the open UDP port; a good caller on TLS is served meanwhile."""
    edge = Edge(box, LAB_POLICY).start()
    over, sent, answers = threading.Event(), [0], [0]
    probe = wire.Datagrams(edge.plain, STRANGER)
    invite = wire.request("INVITE", "sip:reception@127.0.0.1", "UDP", body=wire.sdp())
    probe.socket.setblocking(False)

    def flood():
        while not over.is_set():
            for _ in range(50):
                try:
                    probe.send(invite)
                    sent[0] += 1
                except OSError:
                    pass
            try:
                while probe.socket.recv(65_536):
                    answers[0] += 1
            except OSError:
                pass

    flooder = threading.Thread(target=flood, daemon=True)
    began = time.monotonic()
    flooder.start()
    time.sleep(0.5)
    good_call(box, edge, "beside")
    over.set()
    flooder.join()
    seconds = time.monotonic() - began
    box.note(f"{sent[0]} datagrams, {answers[0]} answers")
    check(sent[0] > 5_000, f"only {sent[0]} datagrams were sent")
    # Limit transport.refusals_per_second is 5.
    check(answers[0] <= 5 * (seconds + 2), f"{answers[0]} answers in {seconds:.1f} s")
    edge.stop()
    rows = edge.command("audit", "list", "--count", "1000").stdout.count("\n")
    check(rows < 60, f"{rows} audit records of {sent[0]} datagrams")


@case(timeout=90)
def media_injection(box):
    """Packets of strangers at a call's media port are dropped and change nothing."""
    edge = Edge(box).start()
    phone = Phone(box, "+4915735550601", "PCMU", edge.authority)
    phone.dial(edge.uri())
    phone.wait_for_speech(15)
    answer = phone.log().rpartition("SIP/2.0 200")[2]
    port = int(re.search(r"m=audio (\d+)", answer)[1])
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger.bind(("127.0.0.66", 0))
    stranger.settimeout(0.3)
    before = phone.heard_seconds()
    dropped = edge.metric("callgate_relay_stage_drop_total", stage="unprotect")
    for number in range(300):
        head = bytes([0x80, 0, number >> 8, number & 0xFF]) + bytes(4) + b"\x12\x34\x56\x78"
        stranger.sendto(head + os.urandom(170), ("127.0.0.1", port))
        stranger.sendto(os.urandom(40), ("127.0.0.1", port))
        time.sleep(0.002)
    try:
        stranger.recv(2_000)
        check(False, "the stranger got media")
    except TimeoutError:
        pass
    wait_for("the drops are counted", lambda: edge.metric(
        "callgate_relay_stage_drop_total", stage="unprotect") >= dropped + 250, 5)
    phone.wait_for_quiet(1.0, 25)
    heard = sound.recognise(box, phone.heard(), phone.rate)
    check("your call is encrypted" in heard, f"the caller heard {heard!r}")
    check(phone.heard_seconds() > before + 0.5, "the caller hears nothing any more")
    phone.hang_up()
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    shown = edge.command("calls", "show", call["call_id"], name="calls-show").stdout
    check(not re.search(r"\d caller ", shown), f"the agent heard the stranger:\n{shown}")
    edge.stop()


def resident(edge):
    """Memory of the edge, in MB."""
    with open(f"/proc/{edge.process.pid}/status", encoding="utf-8") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) / 1024


def named(sdp):
    """A description's user name fragment."""
    return re.search(r"a=ice-ufrag:(\S+)", sdp)[1]


def flood_a_call(box, edge, pages):
    """Two hundred addresses send to the port of the first page's call, which goes on whole, while
    the second one calls; what was sent."""
    key = edge.key()
    one, other = pages
    whip(edge, one, edge.token(key))
    heard = "return call.ear && call.ear.firstSound !== null"
    one.until("the greeting", heard, 20)
    answer = one.run("return call.answer")
    offer = one.run("return call.peer.localDescription.sdp")
    port = int(re.search(r"a=candidate:\S+ 1 UDP \d+ 127.0.0.1 (\d+)", answer)[1])
    memory = resident(edge)
    flood = Flood(port, named(answer), named(offer))
    wait_for("the flood", lambda: flood.sent.value > 2_000, 20)
    figures = "return call.figures()"
    before = one.run(figures)
    whip(edge, other, edge.token(key))
    other.until("the greeting", heard, 20)
    setup = other.run("return call.times")
    wait_for("250 packets", lambda: one.run(figures)["received"] > before["received"] + 250, 30)
    after = one.run(figures)
    check(flood.process.is_alive(), "the flood has ended before the second call was there")
    sent, grown = flood.stop(), resident(edge) - memory
    lost = after["lost"] - before["lost"]
    took = setup["connected"] - setup["posted"]
    box.note(f"{sent} datagrams: {lost} packets lost, a call in {took:.0f} ms, {grown:.0f} MB more")
    check(lost == 0, f"{lost} packets were lost")
    check(grown < 40, f"{grown:.0f} MB more")
    begun = edge.metric("callgate_dtls_handshake_total", what="begun")
    check(begun == 2, f"{begun} handshakes for two calls")
    failed = edge.metric("callgate_dtls_handshake_total", what="failed")
    check(failed == 0, f"{failed} handshakes failed")
    for page in pages:
        check(page.run("return call.peer.connectionState") == "connected", "a call is lost")
        check(page.run("return call.hangUp()") == 200, "DELETE")
    return sent


@case(timeout=90)
def a_flood_at_browsers_ports(box):
    """Hellos, whole and in pieces, forged checks and sound from two hundred addresses, at the port
    of a browser's call and at the one that browsers share: its sound is whole, another browser
    calls meanwhile, nothing begins or grows, and what was dropped is counted."""
    microphone = sound.say(box, "opening hours", 48_000, before=60.0, after=40)
    browser = Browser(box, microphone)
    pages = [browser.page(f"page{number}") for number in range(2)]

    def dropped(edge, reason):
        name = "callgate_relay_stage_drop_total"
        return edge.metric(name, stage="ice", reason=reason)

    edge = Edge(box, origins=[browser.origin], name="own").start()
    sent = flood_a_call(box, edge, pages)
    found = {it: dropped(edge, it) for it in ("forged", "flood", "unchecked", "not_check")}
    box.note(f"own ports: {found}")
    # Limit ice.checks_per_session is 50 in 100 ms: the rest is not looked at.
    check(min(found["forged"], found["flood"], found["unchecked"]) > sent / 50, f"{found}")
    edge.stop()

    edge = Edge(box, origins=[browser.origin], name="shared")
    text = edge.config.read_text()
    port = 3_000 + edge.https % 6_000
    edge.config.write_text(text.replace("[browsers]\n", f"[browsers]\nmedia_port = {port}\n"))
    edge.start()
    sent = flood_a_call(box, edge, pages)
    found = {it: edge.metric("callgate_browser_port_total", what=it)
             for it in ("unknown", "stranger", "flood", "handed")}  # fmt: skip
    box.note(f"shared port: {found}, forged {dropped(edge, 'forged')}")
    check(min(found["unknown"], found["stranger"]) > sent / 50, f"{found}")
    check(dropped(edge, "forged") > 0, "no forged check came to a session")
    edge.stop()
    browser.close()
