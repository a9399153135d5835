"""Calls between two peers made by hand, packet by packet: codecs that nobody decodes, strangers
and replays at the media ports, floods."""

import multiprocessing
import os
import re
import socket
import time

from harness import rtp, wire
from harness.case import case, check, wait_for
from harness.edge import Edge

from .bridging import quoted

CALLEE, CALLEE_AT, STRANGER = "4915735550901", "127.0.0.2", "127.0.0.66"

# SRTP on the caller's side; the callee's media is in the clear and comes from its address only.
POLICY = """
[trunk.callee]
send_to    = ["{send_to}"]
transports = ["udp"]
codecs     = [{outward}]
srtp       = {{ outbound = "optional" }}
media_from = ["127.0.0.2/32"]
{callee}
exempt.signalling = {{ reason = "a test", expires = 2099-01-31 }}
exempt.media      = {{ reason = "a test", expires = 2099-01-31, outbound = true }}

[trunk.caller]
from   = {{ networks = ["127.0.0.1/32"] }}
codecs = [{inward}]
suites = ["AES_CM_128_HMAC_SHA1_80"]
{caller}

[[route]]
send_to = {{ trunk = "callee" }}
"""

HEAD = "v=0\r\no=- 1 1 IN IP4 {at}\r\ns=-\r\nc=IN IP4 {at}\r\nt=0 0\r\n"
CRYPTO = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{wire.KEY}\r\n"


def port_of(description):
    """The media port of a session description."""
    return int(re.search(rb"m=audio (\d+)", description)[1])


def key_of(description):
    """The SRTP key in a session description."""
    return re.search(rb"inline:([A-Za-z0-9+/=]+)", description)[1].decode()


class Party:
    """One side's media: its socket, where the edge takes it, and what the packets are."""

    def __init__(self, address):
        self.media = rtp.Socket(address)
        self.edge = None


class Bridged:
    """A call between a caller over TLS with SRTP and a callee over UDP in the clear."""

    def __init__(self, edge, callee, offered="0", lines=""):
        self.caller, self.callee = Party("127.0.0.1"), callee.party
        self.call = wire.Call(wire.Stream(edge.tls, edge.authority), edge.uri(CALLEE))
        self.offer = HEAD.format(at="127.0.0.1")
        self.offer += f"m=audio {self.caller.media.port} RTP/SAVP {offered}\r\n{lines}{CRYPTO}"
        self.answer = self.call.invite(self.offer)
        check(self.answer.status == 200, self.answer.start)
        self.caller.edge = ("127.0.0.1", port_of(self.answer.body))
        self.invite = callee.signalling.named("INVITE")[-1]
        self.callee.edge = ("127.0.0.1", port_of(self.invite.body))
        self.outward, self.inward = rtp.Srtp(wire.KEY), rtp.Srtp(key_of(self.answer.body))

    def heard_by_caller(self):
        """What reached the caller, opened; all of it must be authentic."""
        return [rtp.Packet(it) for it in self.inward.open(
            [it.raw for it in self.caller.media.packets()])]

    def hang_up(self):
        """Ends it."""
        check(self.call.ask("BYE").status == 200, "BYE")


class Callee:
    """Who is called: its signalling, its media, and what it answers."""

    def __init__(self, answered="0", lines=""):
        self.answered, self.lines, self.party = answered, lines, Party(CALLEE_AT)
        self.signalling = wire.Callee(self.describe, CALLEE_AT)

    def describe(self, _request):
        """Its session description."""
        head = HEAD.format(at=CALLEE_AT)
        return f"{head}m=audio {self.party.media.port} RTP/AVP {self.answered}\r\n{self.lines}"


def edge_to(box, callee, inward="pcmu", outward="pcmu", at_caller="", at_callee=""):
    """An edge that carries all calls to a callee."""
    text = POLICY.format(
        send_to=callee.signalling.uri(CALLEE), inward=quoted([inward]), outward=quoted([outward]),
        caller=at_caller, callee=at_callee,
    )  # fmt: skip
    return Edge(box, text).start()


def check_arrived(who, packets, sent, payload_type):
    """Just what was sent has arrived, byte for byte, in order, as one stream."""
    got, wanted = [it.payload for it in packets], list(sent)
    strange = [it for it in got if it not in set(wanted)]
    check(not strange, f"{who}: {len(strange)} packets of {len(got)} that nobody sent")
    check(got == wanted, f"{who}: {len(got)} packets of {len(wanted)} sent, or out of order")
    check({it.payload_type for it in packets} == {payload_type},
          f"{who}: payload types {({it.payload_type for it in packets})}")
    check(len({it.ssrc for it in packets}) == 1, f"{who}: more than one source")
    steps = {b.number - a.number & 0xFFFF for a, b in zip(packets, packets[1:])}
    check(steps == {1}, f"{who}: steps of the sequence {steps}")


def talk(call, count, kinds=(0, 0), size=160, step=160, first=1, every=0.02):
    """Both send at once; what each sent."""
    said = [rtp.payloads(count, size) for _ in range(2)]
    here, there = (
        [rtp.packet(first + number, it, kind, ssrc, step) for number, it in enumerate(each)]
        for each, kind, ssrc in zip(said, kinds, (0x11111111, 0x22222222))
    )
    here = call.outward.protect(here)
    for mine, theirs in zip(here, there):
        began = time.monotonic()
        call.caller.media.send([mine], call.caller.edge)
        call.callee.media.send([theirs], call.callee.edge)
        time.sleep(max(0, began + every - time.monotonic()))
    return said, here, there


def opaque(box, codec, offered, lines, answer, callee_lines, inside, step, size):
    """A call in a codec that nobody here decodes; `inside` are the offer's and the answer's
    numbers of it: each gets it under its own (RFC 3264 section 5.1)."""
    callee = Callee(answer, callee_lines)
    edge = edge_to(box, callee, codec, codec)
    call = Bridged(edge, callee, offered, lines)
    told = re.search(rb"m=audio \d+ \S+ (\d+)", call.invite.body)[1]
    said, _, _ = talk(call, 100, (inside[0], int(told)), size, step)
    box.note(f"the caller has it as {inside[0]}, we told the callee {int(told)}, it {inside[1]}")
    time.sleep(0.5)
    check_arrived("callee", call.callee.media.packets(), said[0], inside[1])
    check_arrived("caller", call.heard_by_caller(), said[1], inside[0])
    for packets in (call.callee.media.packets(), call.heard_by_caller()):
        stamps = {b.stamp - a.stamp & 0xFFFF_FFFF for a, b in zip(packets, packets[1:])}
        check(stamps == {step}, f"steps of the timestamp {stamps}")
    call.hang_up()
    edge.stop()
    return call


@case()
def amr_wb(box):
    """AMR-WB passes byte for byte, with its parameters and packet time, under the number that
    each side has for it."""
    fmtp = "octet-align=1; mode-set=0,1,2"
    call = opaque(
        box, "amr-wb", "97",
        f"a=rtpmap:97 AMR-WB/16000\r\na=fmtp:97 {fmtp}\r\na=ptime:40\r\n",
        "112", f"a=rtpmap:112 AMR-WB/16000\r\na=fmtp:112 {fmtp}\r\na=ptime:40\r\n",
        (97, 112), 640, 65,
    )  # fmt: skip
    for what, body in (("offer", call.invite.body), ("answer", call.answer.body)):
        text = body.decode()
        check("AMR-WB/16000" in text and "a=ptime:40" in text, f"{what}: {text}")
        check("octet-align=1" in text and "mode-set=0,1,2" in text, f"{what}: {text}")


@case()
def g729(box):
    """G.729 passes byte for byte, with annexb as it was and packets of 30 ms."""
    lines = "a=rtpmap:18 G729/8000\r\na=fmtp:18 annexb=no\r\na=ptime:30\r\n"
    call = opaque(box, "g729", "18", lines, "18", lines, (18, 18), 240, 30)
    for body in (call.invite.body, call.answer.body):
        check(b"annexb=no" in body and b"a=ptime:30" in body, body.decode())


OTHER_KEY = "PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR"  # from RFC 4568 section 6.1's examples


@case()
def keys_changed(box):
    """A re-INVITE with another key: from then on that key is the only one, the sound goes on in
    the same streams, and what was sent under the old key is not heard again."""
    callee = Callee()
    edge = edge_to(box, callee)
    call = Bridged(edge, callee)
    said, mine, _ = talk(call, 50)
    time.sleep(0.3)
    old = call.heard_by_caller()
    answer = call.call.ask("INVITE", call.offer.replace(wire.KEY, OTHER_KEY))
    check(answer.status == 200, answer.start)
    check(port_of(answer.body) == call.caller.edge[1], "another port")
    call.outward, at = rtp.Srtp(OTHER_KEY), len(old)
    call.inward = rtp.Srtp(key_of(answer.body))
    call.caller.media.send(mine[-10:], call.caller.edge, every=0.001)
    more, _, _ = talk(call, 50, first=51)
    time.sleep(0.5)
    check_arrived("callee", call.callee.media.packets(), said[0] + more[0], 0)
    fresh = call.inward.open([it.raw for it in call.caller.media.packets()[at:]])
    check_arrived("caller", old + [rtp.Packet(it) for it in fresh], said[1] + more[1], 0)
    call.hang_up()
    edge.stop()


@case()
def sound_after_hold(box):
    """Held in three ways and taken back each time, by a callee that answers everything alike: the
    caller is told what it may do, the port and the key stay, and each round's sound arrives whole,
    in the streams that there were."""
    callee = Callee()
    edge = edge_to(box, callee)
    call = Bridged(edge, callee)
    said, _, _ = talk(call, 25)
    key, held = key_of(call.answer.body), {
        "a=sendonly\r\n": b"a=recvonly", "a=inactive\r\n": b"a=inactive",
        "c=IN IP4 0.0.0.0\r\n": b"a=inactive",
    }  # fmt: skip
    for number, (lines, direction) in enumerate(held.items(), start=1):
        hold = call.offer.replace("o=- 1 1 ", f"o=- 1 {2 * number} ") + lines
        answer = call.call.ask("INVITE", hold)
        check(answer.status == 200, f"{lines.strip()}: {answer.start}")
        allowed = (direction, b"a=recvonly") if lines.startswith("c=") else (direction,)
        check(any(it in answer.body for it in allowed), f"{lines.strip()}: {answer.body.decode()}")
        answer = call.call.ask("INVITE", call.offer.replace("o=- 1 1 ", f"o=- 1 {2 * number + 1} "))
        check(answer.status == 200 and b"a=sendrecv" in answer.body, f"back: {answer.raw}")
        check((port_of(answer.body), key_of(answer.body)) == (call.caller.edge[1], key),
              "another port or key")
        more, _, _ = talk(call, 25, first=25 * number + 1)
        said = [one + other for one, other in zip(said, more)]
    time.sleep(0.5)
    check_arrived("callee", call.callee.media.packets(), said[0], 0)
    check_arrived("caller", call.heard_by_caller(), said[1], 0)
    offers = b"".join(it.body for it in callee.signalling.named("INVITE")).decode()
    told = re.findall(r"^a=(send\w+|recvonly|inactive)\r?$", offers, re.M)
    box.note(f"the callee was told {told}")
    call.hang_up()
    edge.stop()


def intrude(strangers, call, authentic):
    """Everything that a stranger might try at both ports of a call."""
    forged = [rtp.packet(60_000 + it, os.urandom(160), 0, 0x11111111) for it in range(10)]
    noise = [os.urandom(40) for _ in range(5)]
    reports = [bytes.fromhex("80c90001") + os.urandom(4), bytes.fromhex("81cb0001") + os.urandom(4)]
    for stranger in strangers:
        for target in (call.caller.edge, call.callee.edge):
            stranger.send(forged + noise + authentic + reports, target, every=0.001)


@case()
def strangers(box):
    """Strangers' packets before and after latching, replays by strangers and by the caller itself,
    changed and forged packets: nobody hears them, and no stranger gets an answer."""
    callee = Callee()
    edge = edge_to(box, callee)
    call = Bridged(edge, callee)
    outside = [rtp.Socket(STRANGER), rtp.Socket("127.0.0.67")]
    intrude(outside, call, [])
    said, mine, theirs = talk(call, 60)
    # Another socket at the callee's own address is let in by its network, but is not who speaks.
    beside = rtp.Socket(CALLEE_AT)
    before = len(call.callee.media.packets())
    changed = [it[:40] + bytes([it[40] ^ 1]) + it[41:] for it in mine[-5:]]
    intrude(outside, call, mine[-20:] + changed + theirs[-20:])
    beside.send([rtp.packet(it, os.urandom(160), 0, 0x22222222) for it in range(200, 203)],
                call.callee.edge, every=0.001)
    call.caller.media.send(mine[-40:] + changed, call.caller.edge, every=0.001)
    time.sleep(0.3)
    check(len(call.callee.media.packets()) == before, "a replay or a forgery was passed on")
    more, _, _ = talk(call, 60, first=61)
    time.sleep(0.5)
    check_arrived("callee", call.callee.media.packets(), said[0] + more[0], 0)
    check_arrived("caller", call.heard_by_caller(), said[1] + more[1], 0)
    for each in (*outside, beside):
        check(not each.datagrams, f"{each.address} got {len(each.datagrams)} packets")
    drops = edge.metric("callgate_relay_stage_drop_total")
    box.note(f"{drops:.0f} packets dropped")
    check(drops > 200, f"only {drops} drops are counted")
    call.hang_up()
    edge.stop()


def flood(ports, over, sent):
    """In a process of its own: packets at some ports, as fast as it goes."""
    source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    source.bind((STRANGER, 0))
    each = rtp.packet(1, os.urandom(160))
    while not over.is_set():
        for number in range(100):
            try:
                source.sendto(each, ("127.0.0.1", ports[number % len(ports)]))
                sent.value += 1
            except OSError:
                pass


@case(alone=True)
def flooded_port(box):
    """A flood at both ports of one call: another call loses nothing."""
    callee = Callee()
    edge = edge_to(box, callee)
    flooded = Bridged(edge, callee)
    talk(flooded, 10)
    callee.party = Party(CALLEE_AT)
    call = Bridged(edge, callee)
    over, sent = multiprocessing.Event(), multiprocessing.Value("q", 0)
    ports = [it.edge[1] for it in (flooded.caller, flooded.callee)]
    flooder = multiprocessing.Process(target=flood, args=(ports, over, sent))
    flooder.start()
    wait_for("the flood", lambda: sent.value > 1_000, 5)
    began = sent.value, time.monotonic()
    said, _, _ = talk(call, 150)
    rate = (sent.value - began[0]) / (time.monotonic() - began[1])
    over.set()
    flooder.join()
    time.sleep(0.5)
    box.note(f"{rate:.0f} packets/s of flood")
    check(rate > 5_000, f"only {rate:.0f} packets/s of flood")
    check_arrived("callee", call.callee.media.packets(), said[0], 0)
    check_arrived("caller", call.heard_by_caller(), said[1], 0)
    call.hang_up()
    flooded.hang_up()
    edge.stop()
