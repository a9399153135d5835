"""Two softphones through one edge, each with a codec, keys and a packet time of its own: a tone
from each side arrives whole, and packets are as long as each side asked."""

import array
import statistics
import time

from harness import sipp, sound, tone
from harness.capture import Capture
from harness.case import case, check, free_ports
from harness.edge import Edge
from harness.phone import Phone

from .bridging import EXEMPT

CALLER, CALLEE = "4915735550701", "4915735550702"
SECONDS = 6

POLICY = """
[trunk.callee]
send_to = ["{send_to}"]
codecs  = ["{outward}"]
{callee}

[trunk.caller]
from    = {{ networks = ["127.0.0.1/32"] }}
codecs  = ["{inward}"]
suites  = ["{suite}"]
{caller}

[[route]]
send_to = {{ trunk = "callee" }}
{route}
"""

def policy(inward, outward, suite, send_to, callee, caller="", route=""):
    """Calls from this machine go to the callee; the last three are more lines of each table."""
    return POLICY.format(
        inward=inward.lower(), outward=outward.lower(), suite=suite, send_to=send_to,
        callee=callee, caller=caller, route=route,
    )  # fmt: skip


def called(box, codec, suite, tone_at=None, origins=()):
    """An edge that is not started, a softphone that it calls over TLS with SRTP, and the lines of
    policy for that."""
    edge = Edge(box, client_ca=True, origins=origins)
    certificate = box.write("callee.pem", b"".join(
        (edge.root / "certs" / it).read_bytes() for it in ("server.pem", "server.key")))
    callee = Phone(
        box, CALLEE, codec, edge.authority, name="callee", answers=True, tone_at=tone_at,
        certificate=certificate,
    )  # fmt: skip
    return edge, callee, f'tls = {{ ca = "{edge.authority}" }}\nsuites = ["{suite}"]\n'


def pair(box, inward, outward, suites, ptime=20, more="", route=""):
    """An edge between two softphones that each say a tone: edge, caller, callee. Nothing is
    exempted: TLS and SRTP on both sides."""
    edge, callee, proof = called(box, outward, suites[1], tone.HIGH)
    edge.set_policy(policy(inward, outward, suites[0], callee.uri(), proof + more, more, route))
    return edge.start(), speaker(box, edge, inward, ptime), callee


def speaker(box, edge, codec, ptime):
    """The caller, who says a tone."""
    return Phone(box, CALLER, codec, edge.authority, tone_at=tone.LOW, ptime=ptime, name="caller")


def check_tone(box, who, samples, rate, frequency, noise_db):
    """A tone arrived whole."""
    found = tone.measure(samples, rate, frequency)
    box.note(f"{who}: {found}")
    check(found.seconds > SECONDS - 2.5, f"{who} heard {found}")
    check(abs(found.level_db) < 1.5, f"{who}, level: {found}")
    check(found.gap_ms <= 60, f"{who}, a gap: {found}")
    check(found.noise_db < noise_db, f"{who}, noise: {found}")
    # A softphone that the machine keeps waiting slips a frame now and then; one that is fed badly
    # does so all the time.
    check(len(found.jumps) <= 4, f"{who}, the phase jumps at {found.jumps}: {found}")


@case()
def the_measure_finds_faults(box):
    """What the cases here measure with tells a lost frame, a doubled one, a gap, a wrong level and
    noise from a whole tone."""
    rate = 8_000
    good = tone.make(tone.LOW, 4, rate)
    whole = tone.measure(good, rate, tone.LOW)
    check(not whole.jumps and whole.gap_ms == 0 and abs(whole.level_db) < 0.01, f"{whole}")
    check(whole.noise_db < -40, f"{whole}")
    for frame in (80, 160, 240, 320):
        for faulty in (good[:16_000] + good[16_000 + frame :],
                       good[:16_000] + good[16_000 - frame :]):
            found = tone.measure(faulty, rate, tone.LOW)
            check(len(found.jumps) == 1, f"{frame} samples less or more: {found}")
    silent = good[:16_000] + sound.silence(0.08, rate) + good[16_640:]
    found = tone.measure(silent, rate, tone.LOW)
    check(60 < found.gap_ms <= 100, f"80 ms of silence: {found}")
    low = tone.measure(array.array("h", (it * 4 // 5 for it in good)), rate, tone.LOW)
    check(-2.2 < low.level_db < -1.7, f"level: {low}")
    other = array.array("h", (a + b // 8 for a, b in zip(good, tone.make(tone.HIGH, 4, rate))))
    found = tone.measure(other, rate, tone.LOW)
    check(-19 < found.noise_db < -17, f"another tone: {found}")


def packet_time(capture, at, ports, codec):
    """The packet time (ms) of a stream, by the timestamps of its packets; `at` tells the port."""
    display = f"rtp && rtp.marker == 0 && {at} in {{{ports[0]}..{ports[-1]}}}"
    rows = capture.fields(display, "rtp.timestamp", decode=ports)
    stamps = [int(row[0]) for row in rows]
    check(len(stamps) > 80, f"only {len(stamps)} packets captured")
    steps = [later - sooner for sooner, later in zip(stamps, stamps[1:])]
    return statistics.median(steps) * 1000 / (48_000 if codec == "opus" else 8_000)


def check_packets(capture, who, codec, ports, wanted):
    """What crosses the wire at these ports of a party has this packet time (ms), each way."""
    for at in ("udp.srcport", "udp.dstport"):
        found = packet_time(capture, at, ports, codec)
        check(found == wanted, f"{who}, {at}: packets of {found} ms, not {wanted}")


def between(box, inward, outward, suites, ptime=20, noise_db=-20):
    """The case of two softphones."""
    edge, caller, callee = pair(box, inward, outward, suites, ptime)
    capture = Capture(box, only="udp")
    caller.dial(edge.uri(CALLEE))
    time.sleep(SECONDS)
    caller.hang_up()
    callee.wait_log("terminated", 10)
    capture.stop()
    for phone, suite in ((caller, suites[0]), (callee, suites[1])):
        check(f"{suite} inline" in phone.log(), f"{phone.name}: {suite} is not in its log")
    check(not set(caller.keys()) & set(callee.keys()), "a key of one side was seen on the other")
    for phone, codec in ((caller, inward), (callee, outward)):
        check_packets(capture, phone.name, codec, phone.rtp_ports[::2], ptime)
    check_tone(box, "callee", callee.heard(), callee.rate, tone.LOW, noise_db)
    check_tone(box, "caller", caller.heard(), caller.rate, tone.HIGH, noise_db)
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(call["reason"] == "call.caller_hung_up", f"stored {call['reason']}")
    caller.stop()
    callee.stop()
    edge.stop()


def echoed(box, inward, outward, suite, packets, noise_db=-20):
    """The case of a softphone that calls sipp, which sends back what it hears, in the clear and in
    packets of another length: the softphone hears its own tone after two conversions."""
    port, media = free_ports(1), free_ports(4)
    payload = {"PCMU": 0, "PCMA": 8, "G722": 9}[outward]
    callee = sipp.Server(
        box, "answers", port, media=media, format=payload, ptime=packets[1], name="echo"
    )
    send_to = f"sip:{CALLEE}@127.0.0.1:{port};transport=udp"
    edge = Edge(box, policy(inward, outward, suite, send_to, EXEMPT)).start()
    caller = speaker(box, edge, inward, packets[0])
    capture = Capture(box, only="udp")
    caller.dial(edge.uri(CALLEE))
    time.sleep(SECONDS)
    caller.hang_up()
    messages = callee.end()
    capture.stop()
    check(not [it for it in caller.keys() if it in messages], "a key of the caller's reached sipp")
    check_packets(capture, "caller", inward, caller.rtp_ports[::2], packets[0])
    check_packets(capture, "callee", outward, [media], packets[1])
    check_tone(box, "caller", caller.heard(), caller.rate, tone.LOW, noise_db)
    caller.stop()
    edge.stop()


GCM, CM_80, CM_32 = "AEAD_AES_256_GCM", "AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"


@case(timeout=60, driver="epoll")
def other_keys(box):
    """The same codec on both sides, other keys and another suite; by epoll."""
    between(box, "PCMA", "PCMA", (CM_80, GCM), noise_db=-30)


@case(timeout=60, alone=True)
def g722_and_u_law(box):
    """Wide band and narrow band, in packets of 10 ms."""
    between(box, "G722", "PCMU", (CM_80, "AEAD_AES_128_GCM"), ptime=10)


@case(timeout=60, driver="epoll")
def g722_and_opus(box):
    """Two wide bands; by epoll."""
    between(box, "G722", "opus", (CM_80, CM_32))


@case(timeout=60)
def opus_and_plain_a_law(box):
    """Opus under SRTP, and G.711 in the clear in packets of 30 ms."""
    echoed(box, "opus", "PCMA", CM_80, (20, 30))


@case(timeout=60)
def longer_packets(box):
    """One codec: SRTP in packets of 10 ms, and packets of 40 ms in the clear."""
    echoed(box, "PCMU", "PCMU", CM_80, (10, 40), noise_db=-30)


@case(timeout=60)
def shorter_packets(box):
    """Packets of 40 ms of wide band, and of 20 ms of narrow band."""
    echoed(box, "G722", "PCMU", CM_80, (40, 20))
