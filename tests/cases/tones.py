"""Two softphones through one edge, each with a codec, keys and a packet time of its own: a tone
from each side arrives whole, and packets are as long as each side asked."""

import statistics
import time

from harness import tone
from harness.capture import Capture
from harness.case import case, check, wait_for
from harness.edge import Edge
from harness.phone import CODECS, Phone

CALLER, CALLEE = "4915735550701", "4915735550702"
SECONDS = 6

# Nothing is exempted: TLS and SRTP on both sides.
POLICY = """
[trunk.callee]
send_to = ["{send_to}"]
tls     = {{ ca = "{ca}" }}
codecs  = ["{outward}"]
suites  = ["{callee_suite}"]
{more}

[trunk.caller]
from    = {{ networks = ["127.0.0.1/32"] }}
codecs  = ["{inward}"]
suites  = ["{caller_suite}"]
{more}

[[route]]
send_to = {{ trunk = "callee" }}
{route}
"""


def pair(box, inward, outward, suites, packets=(20, 20), more="", route=""):
    """An edge between two softphones that each say a tone: edge, caller, callee."""
    edge = Edge(box, client_ca=True)
    certificate = box.write("callee.pem", b"".join(
        (edge.root / "certs" / it).read_bytes() for it in ("server.pem", "server.key")))
    callee = Phone(
        box, CALLEE, outward, edge.authority, name="callee", answers=True,
        tone_at=tone.HIGH, ptime=packets[1], certificate=certificate,
    )  # fmt: skip
    edge.set_policy(POLICY.format(
        send_to=callee.uri(), ca=edge.authority, inward=inward.lower(), outward=outward.lower(),
        caller_suite=suites[0], callee_suite=suites[1], more=more, route=route,
    ))  # fmt: skip
    edge.start()
    caller = Phone(box, CALLER, inward, edge.authority, tone_at=tone.LOW, ptime=packets[0],
                   name="caller")
    return edge, caller, callee


def check_tone(box, who, samples, rate, frequency, noise_db):
    """A tone arrived whole."""
    found = tone.measure(samples, rate, frequency)
    box.note(f"{who}: {found}")
    check(found.seconds > SECONDS - 2.5, f"{who} heard {found}")
    check(abs(found.level_db) < 1.5, f"{who}, level: {found}")
    check(found.gap_ms <= 60, f"{who}, a gap: {found}")
    check(found.noise_db < noise_db, f"{who}, noise: {found}")
    check(not found.jumps, f"{who}, the phase jumps at {found.jumps}: {found}")


def packet_time(capture, ssrc_of, codec):
    """The packet time (ms) of the stream to or from somewhere, by the timestamps of its packets."""
    clock = 48_000 if codec == "opus" else 8_000
    stamps = [int(row[0]) for row in ssrc_of]
    steps = [b - a for a, b in zip(stamps, stamps[1:])]
    check(len(steps) > 100, f"only {len(steps)} packets captured")
    return statistics.median(steps) * 1000 / clock


def check_packets(capture, phone, codec, sent, received):
    """What crosses the wire at a phone has these packet times (ms)."""
    ports = list(phone.rtp_ports)[::2]
    for what, display, wanted in (
        ("sends", f"rtp && udp.srcport in {{{ports[0]}..{ports[-1]}}}", sent),
        ("gets", f"rtp && udp.dstport in {{{ports[0]}..{ports[-1]}}}", received),
    ):
        rows = capture.fields(display, "rtp.timestamp", decode=ports)
        found = packet_time(capture, rows, codec)
        check(found == wanted, f"{phone.name} {what} packets of {found} ms, not {wanted}")


def through(box, inward, outward, suites, packets=(20, 20), noise_db=-20):
    """The case of a pair."""
    edge, caller, callee = pair(box, inward, outward, suites, packets)
    capture = Capture(box, only="udp")
    caller.dial(edge.uri(CALLEE))
    time.sleep(SECONDS)
    caller.hang_up()
    callee.wait_log("terminated", 10)
    capture.stop()
    for phone, suite in ((caller, suites[0]), (callee, suites[1])):
        check(f"cryptosuite={suite}" in phone.log() or f"{suite} inline" in phone.log(),
              f"{phone.name}: {suite} is not in its log")
    check(not set(caller.keys()) & set(callee.keys()), "a key of one side was seen on the other")
    check_packets(capture, caller, inward, packets[0], packets[0])
    check_packets(capture, callee, outward, packets[1], packets[1])
    check_tone(box, "callee", callee.heard(), callee.rate, tone.LOW, noise_db)
    check_tone(box, "caller", caller.heard(), caller.rate, tone.HIGH, noise_db)
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(call["reason"] == "call.caller_hung_up", f"stored {call['reason']}")
    caller.stop()
    callee.stop()
    edge.stop()


GCM, CM_80, CM_32 = "AEAD_AES_256_GCM", "AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"


@case(timeout=60)
def other_keys(box):
    """The same codec on both sides, other keys and another suite."""
    through(box, "PCMA", "PCMA", (CM_80, GCM), noise_db=-30)
