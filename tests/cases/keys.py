"""Keys that one side sends in one way and the other gets in another: RFC 4733, SIP INFO, tones."""

import array
import math
import threading
import time

from harness import rtp, sound, tone, wire
from harness.case import case, check, wait_for
from harness.phone import Phone

from . import wired
from .tones import CALLEE, CALLER, CM_80, called, policy

# ITU-T Q.23: the low and the high tone of a key.
KEYS = {"5": (770, 1336), "8": (852, 1336), "#": (941, 1477)}
OTHERS = (697, 1209, 1633)


def pressed(low, high, seconds):
    """The sound of a key, as mu-law."""
    turns = [math.tau * it / 8_000 for it in (low, high)]
    return sound.pcmu(array.array("h", (
        round(4_000 * sum(math.sin(turn * it) for turn in turns))
        for it in range(int(seconds * 8_000))
    )))  # fmt: skip


def phone_to_hand(box, how):
    """A softphone in a call with a callee made by hand, whose trunk takes keys as `how` says."""
    callee = wired.Callee()
    edge = wired.edge_to(box, callee, at_callee=f'dtmf = ["{how}"]')
    phone = Phone(box, CALLER, authority=edge.authority)
    phone.dial(edge.uri(wired.CALLEE))
    time.sleep(0.5)
    return edge, phone, callee


def hand_to_phone(box, how, formats):
    """A caller made by hand, whose trunk sends keys as `how` says, in a call with a softphone:
    the edge, the softphone, the call, and where its media goes."""
    edge, phone, proof = called(box, "PCMU", CM_80)
    text = policy("pcmu", "pcmu", CM_80, phone.uri(), proof, f'dtmf = ["{how}"]')
    edge.set_policy(text)
    edge.start()
    media = rtp.Socket()
    offer = wired.HEAD.format(at="127.0.0.1")
    offer += f"m=audio {media.port} RTP/SAVP {formats}\r\n{wired.CRYPTO}"
    call = wire.Call(wire.Stream(edge.tls, edge.authority), edge.uri(CALLEE))
    answer = call.invite(offer)
    check(answer.status == 200, answer.start)
    return edge, phone, call, media, ("127.0.0.1", wired.port_of(answer.body))


def events(phone):
    """The keys that a softphone says it got by RFC 4733, each once."""
    return [line.split("'")[1] for line in phone.log().splitlines()
            if "received event: '" in line and "end=1" in line]


def wait_for_keys(phone, wanted):
    """Waits until a softphone has got these keys, and no other."""
    wait_for(f"keys {wanted}", lambda: len(events(phone)) >= len(wanted), 5)
    time.sleep(0.5)
    check(events(phone) == list(wanted), f"the softphone got {events(phone)}")


@case()
def events_to_info(box):
    """A softphone presses keys (RFC 4733); the callee gets an INFO for each, and no sound of it."""
    edge, phone, callee = phone_to_hand(box, "info")
    for key in KEYS:
        phone.press(key)
        time.sleep(0.3)
    wait_for("an INFO for each", lambda: len(callee.signalling.named("INFO")) == len(KEYS), 5)
    infos = callee.signalling.named("INFO")
    check({it.header("Content-Type") for it in infos} == {"application/dtmf-relay"}, "their kind")
    signals = [it.body.decode().split("\r\n")[0] for it in infos]
    check(signals == [f"Signal={it}" for it in KEYS], f"signals {signals}")
    media = callee.party.media.packets()
    check({it.payload_type for it in media} == {0}, "another payload type than PCMU")
    check(not rung(media), "the callee hears the key")
    phone.hang_up()
    phone.stop()
    edge.stop()


def rung(packets):
    """The keys that are heard in mu-law packets, in order."""
    samples = sound.from_pcmu(b"".join(it.payload for it in packets))
    found = []
    for start in range(0, len(samples) - 320, 160):
        part = samples[start : start + 320]
        loud = {it: power(part, it) for pair in KEYS.values() for it in pair}
        rest = max(power(part, it) for it in OTHERS)
        heard = [key for key, pair in KEYS.items()
                 if min(loud[it] for it in pair) > max(500, 5 * rest,
                 *(2 * level for it, level in loud.items() if it not in pair))]
        if heard and heard[0] != (found[-1] if found else None):
            found += heard
        elif not heard and found and found[-1]:
            found.append(None)
    return [it for it in found if it]


def power(samples, frequency):
    """How strong a frequency is in samples of 8 kHz."""
    return abs(tone.amplitude(samples, 8_000, frequency))


def check_tones(callee):
    """The callee has heard the tones of all keys, and got no INFO."""
    heard = rung(callee.party.media.packets())
    check(heard == list(KEYS), f"the callee hears {heard}")
    check(not callee.signalling.named("INFO"), "INFO as well")


@case()
def events_to_tones(box):
    """A softphone presses keys; the callee, which knows nothing else, hears their tones."""
    edge, phone, callee = phone_to_hand(box, "inband")
    for key in KEYS:
        phone.press(key)
        time.sleep(0.5)
    time.sleep(0.5)
    check_tones(callee)
    phone.hang_up()
    phone.stop()
    edge.stop()


@case()
def info_to_events(box):
    """INFO from the caller, in both forms; a softphone gets RFC 4733."""
    edge, phone, call, media, target = hand_to_phone(box, "info", "0")
    # Without sound the last event would stay in the softphone's jitter buffer.
    silence = wire_packets([b"\xff" * 160] * 150)
    speaking = threading.Thread(target=media.send, args=(silence, target))
    speaking.start()
    time.sleep(0.5)
    for body, kind in (("Signal=5\r\nDuration=160\r\n", "dtmf-relay"), ("8", "dtmf"),
                       ("Signal=#\r\nDuration=100\r\n", "dtmf-relay")):  # fmt: skip
        answer = call.ask("INFO", body, kind=f"application/{kind}")
        check(answer.status == 200, answer.start)
        time.sleep(0.5)
    wait_for_keys(phone, "58#")
    speaking.join()
    check(call.ask("BYE").status == 200, "BYE")
    phone.stop()
    edge.stop()


def wire_packets(payloads):
    """Protected packets of PCMU."""
    packets = [rtp.packet(1 + number, it) for number, it in enumerate(payloads)]
    return rtp.Srtp(wire.KEY).protect(packets)


def hand_to_hand(box, caller, callee):
    """A call between two made by hand, whose trunks take and send keys as these words say."""
    party = wired.Callee()
    edge = wired.edge_to(box, party, at_caller=f'dtmf = ["{caller}"]',
                         at_callee=f'dtmf = ["{callee}"]')
    return edge, wired.Bridged(edge, party), party


@case()
def info_to_tones(box):
    """INFO from the caller; the callee hears the tones, and gets no INFO."""
    edge, call, callee = hand_to_hand(box, "info", "inband")
    for key in KEYS:
        answer = call.call.ask("INFO", f"Signal={key}\r\n", kind="application/dtmf-relay")
        check(answer.status == 200, answer.start)
        time.sleep(0.5)
    check_tones(callee)
    call.hang_up()
    edge.stop()


@case()
def tones_to_info(box):
    """Tones in the caller's sound; the callee gets an INFO for each, once."""
    edge, call, callee = hand_to_hand(box, "inband", "info")
    said = b"\xff" * 4_000
    for pair in KEYS.values():
        said += pressed(*pair, 0.12) + b"\xff" * 2_400
    blocks = [said[at : at + 160] for at in range(0, len(said), 160)]
    call.caller.media.send(wire_packets(blocks), call.caller.edge)
    wait_for("an INFO for each", lambda: len(callee.signalling.named("INFO")) >= len(KEYS), 20)
    time.sleep(0.3)
    signals = [it.body.decode().split("\r\n")[0] for it in callee.signalling.named("INFO")]
    check(signals == [f"Signal={it}" for it in KEYS], f"signals {signals}")
    call.hang_up()
    edge.stop()


@case()
def tones_to_events(box):
    """Tones in the caller's sound; a softphone gets RFC 4733, once for each."""
    edge, phone, call, media, target = hand_to_phone(box, "inband", "0")
    said = b"\xff" * 8_000
    for pair in KEYS.values():
        said += pressed(*pair, 0.12) + b"\xff" * 2_400
    said += b"\xff" * 4_000
    blocks = [said[at : at + 160] for at in range(0, len(said), 160)]
    media.send(wire_packets(blocks), target)
    wait_for_keys(phone, "58#")
    check(call.ask("BYE").status == 200, "BYE")
    phone.stop()
    edge.stop()
