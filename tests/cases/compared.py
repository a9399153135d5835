"""Captures of both legs of a call whose signalling is in the clear: nothing of one side crosses to
the other, and each side's stream goes on through hold and resume."""

import re
import secrets
import time
from dataclasses import dataclass

from harness import rtp, sipp, sound, tone, wire
from harness.capture import Capture
from harness.case import case, check, free_ports
from harness.edge import Edge
from harness.phone import Phone

from .tones import CM_80, GCM, SECONDS, check_tone

CALLER, CALLEE = "4915735550801", "4915735550802"
# Nobody else has these addresses: other cases run beside, and all is captured.
CALLER_AT, CALLEE_AT, EDGE_AT = "127.0.8.2", "127.0.8.3", "127.0.0.1"
CARRIER_AT, CALLED_AT = "127.0.8.4", "127.0.8.5"

# Both sides are exempted, so that a capture shows all that there is.
SIDE = """
[trunk.{name}]
from       = {{ networks = ["{address}/32"] }}
transports = ["udp"]
srtp       = {{ inbound = "optional", outbound = "optional" }}
suites     = ["AES_CM_128_HMAC_SHA1_80"]
codecs     = ["pcma"]
media_from = ["127.0.0.0/8"]
exempt.signalling = {{ reason = "a test", expires = 2099-01-31 }}
exempt.media      = {{ reason = "a test", expires = 2099-01-31, inbound = true, outbound = true }}
"""
ROUTE = """
send_to = ["sip:{callee}@{address}:{port};transport=udp"]

[[route]]
send_to = {{ trunk = "callee" }}
"""


def both_in_the_clear(box):
    """An edge between two softphones over UDP and plain RTP."""
    callee, caller = (
        Phone(box, number, "PCMA", encrypted=False, transport="udp", address=at, name=name,
              answers=True, tone_at=tone.HIGH)
        for number, at, name in ((CALLEE, CALLEE_AT, "callee"), (CALLER, CALLER_AT, "caller"))
    )  # fmt: skip
    route = ROUTE.format(callee=CALLEE, address=CALLEE_AT, port=callee.sip)
    policy = SIDE.format(name="caller", address=CALLER_AT)
    policy += SIDE.format(name="callee", address=CALLEE_AT) + route
    return Edge(box, policy).start(), caller, callee


def ports_of(phone):
    """The ports of its media, as a display filter has a set. (baresip sends media from 127.0.0.1,
    whatever address it names.)"""
    return f"{{{phone.rtp_ports[0]}..{phone.rtp_ports[-1]}}}"


def messages(capture, source, target):
    """The SIP messages from one address to another."""
    display = f"ip.src == {source} && ip.dst == {target} && sip"
    return [wire.Message(it) for it in capture.payloads(display)]


def told(sent, address):
    """What a side says of itself, by what it is: none of it may reach the other side."""
    found = {"address": {address}}
    for message in sent:
        via, contact = message.header("Via"), message.contact()
        texts = {
            "Call-ID": [message.header("Call-ID")],
            "branch": re.findall(r"branch=([^;,\s]+)", via),
            "port": re.findall(rf"{re.escape(address)}:(\d+)", via + contact),
            "tag": re.findall(r"tag=([^;,\s]+)", message.header("From")),
            "agent": [message.header("User-Agent"), message.header("Server")],
            "Contact": [contact.partition(":")[2].partition("@")[0]],
            "header": [message.header("X-Inside"), message.header("Organization")],
        }
        body = message.body.decode()
        texts["origin"] = re.findall(r"^o=(.*?)\r?$", body, re.M)
        texts["session"] = [it.split()[1] for it in texts["origin"]]
        texts["tool"] = re.findall(r"^a=tool:(.*?)\r?$", body, re.M)
        texts["media port"] = re.findall(r"^m=audio (\d+)", body, re.M)
        texts["SSRC"] = re.findall(r"^a=ssrc:(\d+)", body, re.M)
        texts["CNAME"] = re.findall(r"cname:(\S+)", body)
        texts["key"] = re.findall(r"inline:([A-Za-z0-9+/=]+)", body)
        for what, values in texts.items():
            found.setdefault(what, set()).update(it for it in values if it)
    return found


def leaks(capture, source, target):
    """What the edge sends to one phone of what the other says of itself."""
    words = told(messages(capture, source.address, EDGE_AT), source.address)
    kinds = {"Call-ID", "branch", "port", "tag", "agent", "Contact", "origin", "tool", "SSRC"}
    check(all(words.get(it) for it in kinds), f"{source.name} says too little: {words}")
    reaching = b"\n".join(capture.payloads(
        f"udp && ip.src == {EDGE_AT} && (ip.dst == {target.address} ||"
        f" udp.dstport in {ports_of(target)})"
    ))  # fmt: skip
    found = []
    for what, values in words.items():
        for value in values:
            # A number that is part of a longer one is not that number.
            whole = rb"(?<![0-9A-Za-z])%s(?![0-9A-Za-z])" % re.escape(value.encode())
            if re.search(whole, reaching):
                found.append(f"{what} {value!r} of the {source.name} reaches the {target.name}")
            if what == "SSRC" and int(value).to_bytes(4, "big") in reaching:
                found.append(f"{what} {value} of the {source.name} is in the {target.name}'s media")
    return found, len(reaching)


def check_stream(box, capture, flows, phone):
    """One SSRC of ours to a phone, no packet missing, each marked EF."""
    # The first packets may go where the session description points.
    streams = [it for it in flows if it.target_port in phone.rtp_ports]
    count, lost = sum(it.packets for it in streams), sum(it.lost for it in streams)
    box.note(f"{phone.name} gets {count} packets, {lost} lost")
    check(lost == 0 and count > 150, f"streams to the {phone.name}: {streams}")
    sources = {it.ssrc for it in streams}
    check(len(sources) == 1, f"sources to the {phone.name}: {streams}")
    check(not sources & {it.ssrc for it in flows if it.source_port in phone.rtp_ports},
          f"an SSRC comes back: {streams}")
    rows = capture.fields(
        f"rtp && udp.dstport in {ports_of(phone)}",
        "ip.dsfield.dscp", "rtp.seq", "rtp.timestamp", decode=phone.rtp_ports[::2],
    )  # fmt: skip
    marks = {row[0] for row in rows}
    check(marks == {"46"}, f"DSCP of media to the {phone.name}: {marks}")
    stamps = [(int(row[1]), int(row[2])) for row in rows]
    for (sooner, at_sooner), (later, at_later) in zip(stamps, stamps[1:]):
        check((later - sooner) & 0xFFFF == 1, f"sequence {sooner}, then {later}")
        step = (at_later - at_sooner) & 0xFFFF_FFFF
        check(0 < step < 8_000 * 3, f"timestamp {at_sooner}, then {at_later}")


def check_reports(capture, caller, callee):
    """RTCP is our own, under another name on each side."""
    names = []
    for phone in (caller, callee):
        rows = capture.fields(f"rtcp && udp.dstport in {ports_of(phone)}", "rtcp.sdes.text")
        check(rows, f"no RTCP to the {phone.name}")
        names.append({row[0] for row in rows})
        check(not [it for it in names[-1] if "@" in it or "sip:" in it], f"{names}")
    check(not names[0] & names[1] - {""}, f"one name on both sides: {names}")


def check_leaks(box, capture, one, other):
    """Nothing of either side has reached the other, of enough that was captured."""
    for source, target in ((one, other), (other, one)):
        found, size = leaks(capture, source, target)
        box.note(f"{size} bytes to the {target.name} searched")
        check(not found, "; ".join(found))
        check(size > 30_000, f"only {size} bytes to the {target.name} captured")


@case(timeout=120)
def both_legs(box):
    """A call with hold and resume, from the capture of its two legs."""
    edge, caller, callee = both_in_the_clear(box)
    capture = Capture(box, only="udp")
    caller.dial(f"sip:{CALLEE}@{EDGE_AT}:{edge.plain};transport=udp")
    for command in ("hold", "resume"):
        time.sleep(2)
        caller.command(command)
    time.sleep(2)
    caller.hang_up()
    callee.wait_log("terminated", 10)
    capture.stop()
    check_leaks(box, capture, caller, callee)
    # The search can find: all of it reached the phone that said it.
    own = {it.split()[0] for it in leaks(capture, caller, caller)[0]}
    check({"Call-ID", "branch", "tag"} <= own, f"the search finds only {own}")
    offered = b"".join(it.raw for it in messages(capture, EDGE_AT, CALLEE_AT)).decode()
    directions = re.findall(r"^a=(send\w+|recvonly|inactive)\r?$", offered, re.M)
    check(directions == ["sendrecv", "sendonly", "sendrecv"], f"offered {directions}")
    flows = capture.flows([*caller.rtp_ports[::2], *callee.rtp_ports[::2]])
    for phone in (caller, callee):
        check_stream(box, capture, flows, phone)
    check_reports(capture, caller, callee)
    caller.stop()
    callee.stop()
    edge.stop()


@dataclass(frozen=True)
class Carrier:
    """sipp as the caller: as much of it as the search for leaks wants to know."""

    name: str
    address: str
    rtp_ports: range


@case(timeout=120)
def sipp_and_softphone(box):
    """sipp calls baresip; signalling of both in the clear, media under other keys, another suite
    and another codec on each side: a tone arrives whole each way, and nothing crosses besides."""
    key, ssrc, media = wire.KEY, secrets.randbelow(1 << 31), 46_000 + free_ports(4) % 4_000 * 4
    carrier = Carrier("caller", CARRIER_AT, range(media, media + 2))
    said = sound.pcmu(tone.make(tone.LOW, SECONDS, 8_000))
    packets = [rtp.packet(number, said[at : at + 160], ssrc=ssrc)
               for number, at in enumerate(range(0, len(said), 160), start=1)]
    played = box.write("tone.pcap", rtp.pcap(rtp.Srtp(key).protect(packets)))
    callee = Phone(box, CALLEE, "PCMA", transport="udp", address=CALLED_AT, name="callee",
                   answers=True, tone_at=tone.HIGH)
    policy = SIDE.format(name="caller", address=CARRIER_AT).replace("pcma", "pcmu")
    policy += SIDE.format(name="callee", address=CALLED_AT).replace(CM_80, GCM)
    policy += ROUTE.format(callee=CALLEE, address=CALLED_AT, port=callee.sip)
    edge = Edge(box, policy.replace('"optional"', '"required"')).start()
    capture = Capture(box, only="udp")
    messages = sipp.run(
        box, "plays", edge.plain, "u1", CARRIER_AT, 40, media=media, callee=CALLEE, caller=CALLER,
        key=key, ssrc=ssrc, sound=played, talk=SECONDS * 1_000 + 500,
    )  # fmt: skip
    callee.wait_log("terminated", 20)
    capture.stop()
    check_leaks(box, capture, carrier, callee)
    own = {it.split()[0] for it in leaks(capture, carrier, carrier)[0]}
    check("Call-ID" in own, f"the search finds only {own}")
    check(f"{GCM} inline" in callee.log(), f"the callee's suite is not {GCM}")
    (ours,) = set(re.findall(r"inline:([A-Za-z0-9+/=]+)", messages)) - {key}
    check(ours not in callee.keys(), "one key on both sides")
    check_tone(box, "callee", callee.heard(), callee.rate, tone.LOW, -30)
    heard = rtp.Srtp(ours).open(capture.payloads(f"udp.dstport == {media}"))
    check({rtp.Packet(it).payload_type for it in heard} == {0}, "another codec than PCMU")
    samples = sound.from_pcmu(b"".join(rtp.Packet(it).payload for it in heard))
    check_tone(box, "caller", samples, 8_000, tone.HIGH, -30)
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(call["reason"] == "call.caller_hung_up", f"stored {call['reason']}")
    callee.stop()
    edge.stop()
