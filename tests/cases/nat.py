"""Callers behind a NAT, whose messages and session descriptions name addresses that nobody can
reach: signalling finds its way back, media goes where it comes from, also when that moves."""

import re

from harness import tone, wire
from harness.case import case, check, wait_for
from harness.edge import Edge
from harness.nat import EDGE_AT, PRIVATE, PUBLIC, TCP, UDP, Nat
from harness.phone import Phone

from .bridging import EXEMPT
from .tones import CALLEE, CALLER

# The caller is known by the address that its NAT shows; the callee is on this machine.
POLICY = """
[trunk.callee]
from    = {{ networks = ["{edge}/32"] }}
send_to = ["{send_to}"]
codecs  = ["pcma"]
{callee}

[trunk.caller]
from    = {{ networks = ["{public}/32"] }}
codecs  = ["pcmu"]
{caller}

[[route]]
send_to = {{ trunk = "callee" }}
"""
# A caller's trunk that may use UDP and plain RTP.
CLEAR = f"""
transports = ["tls", "udp"]
srtp       = {{ inbound = "optional" }}
media_from = ["{PUBLIC}/32"]
exempt.signalling = {{ reason = "a test", expires = 2099-01-31 }}
exempt.media      = {{ reason = "a test", expires = 2099-01-31, inbound = true }}
"""


def edge_outside(box, send_to, caller=""):
    """An edge at a public address, whose callee is there too; not started."""
    callee = EXEMPT.replace("127.0.0.0/8", f"{EDGE_AT}/32")
    policy = POLICY.format(send_to=send_to, callee=callee, caller=caller, public=PUBLIC,
                           edge=EDGE_AT)
    edge = Edge(box, policy, extra=f'\n[advertise]\nhost = "{EDGE_AT}"\n')
    text = edge.config.read_text()
    for port in (edge.tls, edge.plain):
        text = text.replace(f'["127.0.0.1:{port}"]', f'["127.0.0.1:{port}", "{EDGE_AT}:{port}"]')
    edge.config.write_text(text)
    edge.command("certs", "--name", EDGE_AT)
    return edge


def two_phones(box, nat, encrypted):
    """A softphone behind the NAT that has called one outside, each saying a tone."""
    callee = Phone(box, CALLEE, "PCMA", encrypted=False, transport="udp", address=EDGE_AT,
                   name="callee", answers=True, tone_at=tone.HIGH)
    send_to = f"sip:{CALLEE}@{EDGE_AT}:{callee.sip};transport=udp"
    edge = edge_outside(box, send_to, "" if encrypted else CLEAR).start()
    transport = "tls" if encrypted else "udp"
    with nat.inside():
        caller = Phone(box, CALLER, "PCMU", edge.authority, encrypted, transport, PRIVATE,
                       name="caller", tone_at=tone.LOW)
    port = edge.tls if encrypted else edge.plain
    caller.dial(f"sip:{CALLEE}@{EDGE_AT}:{port};transport={transport}")
    return edge, caller, callee


def media_port(phone):
    """Where the edge takes a softphone's media."""
    return int(re.search(r"m=audio (\d+)", phone.log().rpartition("SIP/2.0 200")[2])[1])


def hear_each_other(box, when, caller, callee, seconds=3):
    """From now on each hears the other's tone, whole."""
    marks = [(it, len(it.heard())) for it in (caller, callee)]
    for phone, since in marks:
        wait_for(f"{phone.name} hears", lambda: len(phone.heard()) - since > seconds * phone.rate,
                 20)
    for (phone, since), frequency in zip(marks, (tone.HIGH, tone.LOW)):
        found = tone.measure(phone.heard()[since:], phone.rate, frequency)
        box.note(f"{when}, {phone.name}: {found}")
        check(abs(found.level_db) < 1.5 and found.gap_ms <= 60, f"{when}, {phone.name}: {found}")
        check(len(found.jumps) <= 4, f"{when}, {phone.name}: {found}")


def received(phone, method):
    """How many requests of a method a softphone has got, and sent."""
    return len(re.findall(rf"^{method} sip:\S+ SIP/2.0\r?$", phone.log(), re.M))


def rates(phone):
    """What a softphone sends and gets now, in bit/s, as it says itself."""
    return [int(it) for it in re.findall(r"audio=(\d+)/(\d+)", phone.log()[-400:])[-1]]


def hold_and_resume(one, other):
    """One holds the call and takes it back; the other is told of both."""
    before = received(other, "ACK")
    for count, command in enumerate(("hold", "resume"), start=1):
        one.command(command)
        wait_for(f"{command} by the {one.name} has reached the {other.name}",
                 lambda: received(other, "ACK") >= before + count, 20)
    for phone in (one, other):
        wait_for(f"sound both ways after hold by the {one.name}, {phone.name}",
                 lambda: min(rates(phone)) > 60_000, 20)


def check_astray(box, nat, port):
    """Before the edge has heard anything it may send where the session description says
    (DESIGN 4.3), and a packet may be under way as the first one comes; then it never does."""
    opened = nat.opened(port)[0]["at"]
    early, late = [], []
    for each in nat.events("astray"):
        (early if each["at"] < opened else late).append(each)
    media = [it for it in late if it["remote"][1] == port]
    box.note(f"{len(early)} packets to the private address at first, {len(late)} later")
    check(len(early) < 50 and len(media) < 5, f"to private addresses: {early}, {late}")
    check(len(late) < 5, f"to private addresses: {late}")


def softphone(box, encrypted, is_symmetric):
    """The whole case."""
    nat = Nat(box, is_symmetric)
    edge, caller, callee = two_phones(box, nat, encrypted)
    port, log = media_port(caller), caller.log()
    for said in (f"Contact: <sip:{CALLER}", f"@{PRIVATE}:{caller.sip}", f"c=IN IP4 {PRIVATE}"):
        check(said in log, f"the caller does not say {said}")
    hear_each_other(box, "at first", caller, callee)
    # The NAT forgets: the caller's datagrams come from other ports.
    ways, since = len(nat.opened(port)), len(edge.logs())
    nat.rebind(UDP)
    wait_for("media comes from elsewhere", lambda: len(nat.opened(port)) > ways, 20)
    edge.wait_for_log(r'relay.session.latched.*"moved":true', 20, since)
    hear_each_other(box, "after rebinding", caller, callee)
    # What the caller says shows where it is now; then the edge asks it, and tells it the end.
    hold_and_resume(caller, callee)
    hold_and_resume(callee, caller)
    callee.hang_up()
    for phone in (caller, callee):
        phone.wait_log("terminated", 20)
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(call["reason"] == "call.callee_hung_up", f"stored {call['reason']}")
    check_astray(box, nat, port)
    caller.stop()
    callee.stop()
    edge.stop()


@case(timeout=90)
def secure(box):
    """A softphone behind a symmetric NAT, TLS and SRTP."""
    softphone(box, True, True)


@case(timeout=90)
def in_the_clear(box):
    """A softphone behind a NAT that shows it with one port to all: UDP and plain RTP."""
    softphone(box, False, False)


def bye(callee, edge):
    """A callee made by hand ends its call."""
    invite = callee.named("INVITE")[-1]
    tag = invite.header("From").partition(";tag=")[2]
    request = wire.request(
        "BYE", invite.contact(), "UDP", EDGE_AT, caller=f"sip:{CALLEE}@{EDGE_AT}",
        call_id=invite.header("Call-ID"), from_tag="callee", to_tag=tag, to=f"sip:edge@{EDGE_AT}",
    )  # fmt: skip
    callee.socket.sendto(request, (EDGE_AT, edge.plain))


@case(timeout=90)
def lost_connection(box):
    """A caller's connection is kept alive through its NAT; the NAT loses it in mid-call; the caller
    comes back over another one, and that is where the end of the call reaches it."""
    nat = Nat(box)
    callee = wire.Callee(lambda _: wire.sdp(wire.SDP_PLAIN, EDGE_AT), EDGE_AT)
    edge = edge_outside(box, callee.uri(CALLEE)).start()

    def connect():
        with nat.inside():
            return wire.Stream(edge.tls, edge.authority, PRIVATE, host=EDGE_AT, timeout=20)

    uri = f"sip:{CALLEE}@{EDGE_AT}:{edge.tls};transport=tls"
    call = wire.Call(connect(), uri, f"sip:{CALLER}@{PRIVATE}", PRIVATE)
    offer = wire.sdp(wire.SDP_SECURE, PRIVATE)
    answer = call.invite(offer)
    check(answer.status == 200, answer.start)
    call.stream.send(b"\r\n\r\n")
    check(call.stream.socket.recv(100) == b"\r\n", "no answer to what keeps a connection alive")
    nat.rebind(TCP)
    call.stream = connect()
    answer = call.ask("INVITE", offer)
    check(answer.status == 200, f"over another connection: {answer.start}")
    bye(callee, edge)
    ending = call.stream.receive(20)
    check(ending and ending.start.startswith("BYE "), f"what came: {ending and ending.start}")
    kept = [f"{key}: {value}" for key, value in ending.headers
            if key.lower() in ("via", "from", "to", "call-id", "cseq")]
    said = "\r\n".join(["SIP/2.0 200 OK", *kept, "Content-Length: 0", "", ""])
    call.stream.send(said.encode())
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["reason"] == "call.callee_hung_up", f"stored {stored['reason']}")
    edge.stop()
