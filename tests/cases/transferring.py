"""A party of a call is carried to somebody else, or somebody else takes its place."""

import re
import time

from harness import sipp, sound, tone, wire
from harness.case import case, check, wait_for
from harness.edge import Edge
from harness.phone import Phone

CALLER, CALLEE, COLLEAGUE = "4915735550101", "4915735550102", "4915735550103"

# The callee is a softphone at an address of its own, exempted from encryption.
POLICY = """
[trunk.desk]
from       = {{ networks = ["127.0.0.2/32"] }}
transports = ["tls", "udp"]
send_to    = ["sip:{callee}@127.0.0.2:{sip};transport=udp"]
srtp       = {{ inbound = "optional", outbound = "optional" }}
media_from = ["127.0.0.0/8"]
exempt.signalling = {{ reason = "a test", expires = 2099-01-31 }}
exempt.media      = {{ reason = "a test", expires = 2099-01-31, inbound = true, outbound = true }}

[trunk.local]
from       = {{ networks = ["127.0.0.0/8"] }}
transcript = "allowed"
transfer   = "{transfer}"

[[route]]
when    = {{ called = {{ user = "reception" }} }}
send_to = {{ agent = "reception" }}

[[route]]
when    = {{ called = {{ user = "nobody" }} }}
refuse  = {{ status = 603 }}

[[route]]
send_to = {{ trunk = "desk" }}
"""

AGENT = """
voice = "slt"
start = "connect"
[step.connect]
transfer    = "+{callee}"
announce    = "Your call is encrypted."
announce_to = "Say opening hours, address, or goodbye. Or press one, two, or three."
accept      = "1"
failed      = "sorry"
[step.sorry]
goodbye = "I cannot hear you. Please call again. Goodbye."
"""


def desk(box, transfer="edge"):
    """An edge, and a callee behind it that answers every call."""
    callee = Phone(
        box, CALLEE, codec="PCMA", encrypted=False, transport="udp", address="127.0.0.2",
        name="callee", answers=True,
    )  # fmt: skip
    policy = POLICY.format(callee=CALLEE, sip=callee.sip, transfer=transfer)
    return Edge(box, policy).start(), callee


def announcing(box):
    """The same, a caller, and the announcement that the callee has heard to its end."""
    edge, callee = desk(box)
    (edge.root / "agents/reception.toml").write_text(AGENT.format(callee=CALLEE))
    edge.hup()
    edge.wait_for_log("policy.loaded", 10)
    phone = Phone(box, CALLER, authority=edge.authority)
    phone.dial(edge.uri())
    callee.wait_for_quiet(1.0, 40)
    return edge, callee, phone


def dialog_of(phone):
    """What names a softphone's dialog to the edge: Call-ID, the edge's tag and its own."""
    log = phone.log()
    tag = re.search(r"To: .*;tag=([0-9a-f]{2}-[0-9a-f]{16})", log)
    call_id = re.search(r"Call-ID: (\S+)", log)
    own = re.search(r"From: .*;tag=(\S+)", log)
    check(tag and call_id and own, "the softphone shows no dialog")
    return f"{call_id[1]};to-tag={tag[1]};from-tag={own[1]}"


@case(timeout=90)
def place_taken(box):
    """sipp takes a softphone's place beside the voice agent, which goes on; a stranger may not."""
    edge = Edge(box).start()
    phone = Phone(box, CALLER, authority=edge.authority)
    phone.dial(edge.uri())
    phone.wait_for_speech(15)
    stream = wire.Stream(edge.tls, edge.authority)
    call = wire.Call(stream, edge.uri())
    stream.send(call.build("INVITE", wire.sdp(), extra="Replaces: a@b;to-tag=1;from-tag=2\r\n"))
    check(stream.final().status == 481, "what names nothing")
    tunnel = sipp.Tunnel(box, edge)
    crypto = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{wire.KEY}"
    fields = {"caller": COLLEAGUE, "replaces": dialog_of(phone), "crypto": crypto}
    sipp.run(box, "replaces", tunnel.port, **fields)
    phone.wait_log("session closed", 5)
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["reason"] == "call.caller_hung_up", stored["reason"])
    check(stored["talked_ms"] > 3_000, f"talked {stored['talked_ms']} ms")
    check("leg.replaced" in edge.logs(), "no word of it in the log")
    audit = edge.command("audit", "list").stdout
    check("call.replaced" in audit, f"audited: {audit}")
    shown = edge.command("calls", "show", stored["call_id"], "--ladder", name="show").stdout
    check("Replaces: " in shown and shown.count("BYE sip:") == 2, "the ladder of both")
    phone.stop()
    edge.stop()


@case(timeout=120)
def announced(box):
    """The voice agent tells the callee of its caller; a key joins them, and each hears the other."""
    edge, callee, phone = announcing(box)
    told = sound.recognise(box, callee.heard(), callee.rate)
    check("or press one two or three" in told, f"the callee heard {told!r}")
    quiet = phone.heard_seconds()
    callee.press("1")
    edge.wait_for_log("transfer.done", 10)
    phone.say("thank you for calling")
    callee.wait_for_quiet(1.0, 20, since=callee.heard_seconds())
    text = sound.recognise(box, callee.heard(), callee.rate)
    check("thank you for calling" in text, f"the callee heard {text!r}")
    before = sound.recognise(box, phone.heard()[: int(quiet * phone.rate)], phone.rate)
    check("your call is encrypted" in before, f"the caller heard {before!r}")
    check("press one" not in before, f"the caller heard {before!r}")
    phone.hang_up()
    callee.wait_log("terminated", 10)
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    shown = edge.command("calls", "show", stored["call_id"], name="show").stdout
    check("[to the new party] Say opening hours" in shown, shown)
    phone.stop()
    callee.stop()
    edge.stop()


@case(timeout=120)
def refused_when_announced(box):
    """The callee presses another key: the voice agent is back with its caller."""
    edge, callee, phone = announcing(box)
    callee.press("5")
    callee.wait_log("terminated", 10)
    phone.wait_log("terminated", 20)
    text = sound.recognise(box, phone.heard(), phone.rate)
    check("please call again" in text, f"the caller heard {text!r}")
    phone.stop()
    callee.stop()
    edge.stop()


@case(timeout=90)
def passed_on(box):
    """baresip refers; the edge passes it on to the callee, which calls the voice agent by the edge."""
    edge, callee = desk(box, transfer="pass")
    phone = Phone(box, CALLER, authority=edge.authority)
    phone.dial(edge.uri(CALLEE))
    callee.wait_log("Call established", 10)
    phone.command("transfer sip:reception@caller.example")
    edge.wait_for_log("transfer.done", 15)
    log = callee.log()
    check("REFER sip:" in log, "the callee got no REFER")
    for leak in ("caller.example", f"127.0.0.1:{phone.sip}"):
        check(leak not in log, f"{leak} reached the callee")
    callee.wait_for_speech(15)
    phone.hang_up()
    phone.stop()
    callee.stop()
    edge.stop()


# Another softphone, which is nobody's colleague.
THIRD = """
[trunk.third]
from       = {{ networks = ["127.0.0.3/32"] }}
transports = ["tls", "udp"]
send_to    = ["sip:{third}@127.0.0.3:{sip};transport=udp"]
srtp       = {{ inbound = "optional", outbound = "optional" }}
media_from = ["127.0.0.0/8"]
exempt.signalling = {{ reason = "a test", expires = 2099-01-31 }}
exempt.media      = {{ reason = "a test", expires = 2099-01-31, inbound = true, outbound = true }}

[[route]]
when    = {{ called = {{ user = "{third}" }} }}
send_to = {{ trunk = "third" }}
"""


def dialogs_of(phone):
    """The dialogs of a softphone's calls, the oldest first: Call-ID, the edge's tag, its own."""
    found = []
    for block in phone.log().split("SIP/2.0 200 OK")[1:]:
        head = block.partition("\r\n\r\n")[0]
        fields = [re.search(it, head) for it in
                  (r"Call-ID: (\S+)", r"To: .*;tag=([\w-]+)", r"From: .*;tag=(\w+)")]
        if re.search(r"CSeq: \d+ INVITE", head) and all(fields):
            found.append(tuple(it[1] for it in fields))
    return list(dict.fromkeys(found))


@case(timeout=120)
def joined_across_shards(box):
    """baresip joins its two calls, which two owners in the edge have; the parties hear each other."""
    softphone = {"codec": "PCMA", "encrypted": False, "transport": "udp", "answers": True}
    callee = Phone(box, CALLEE, address="127.0.0.2", name="callee", tone_at=tone.LOW, **softphone)
    third = Phone(box, COLLEAGUE, address="127.0.0.3", name="third", tone_at=tone.HIGH, **softphone)
    policy = POLICY.format(callee=CALLEE, sip=callee.sip, transfer="edge")
    before, route, after = policy.rpartition("[[route]]")
    policy = before + THIRD.format(third=COLLEAGUE, sip=third.sip) + route + after
    edge = Edge(box, policy, extra="\n[signalling]\nshards = 2\n").start()
    phone = Phone(box, CALLER, authority=edge.authority)
    phone.dial(edge.uri(CALLEE))
    for attempt in range(2, 12):
        phone.command(f"dial {edge.uri(COLLEAGUE)}")
        wait_for("another call", lambda: len(dialogs_of(phone)) == attempt or None, 10)
        (call_id, tag, own), *_, (_, other, _) = dialogs_of(phone)
        # The tag names its shard; which one a call gets is chance.
        if tag[:2] != other[:2]:
            break
        phone.hang_up()
        time.sleep(0.5)
    check(tag[:2] != other[:2], f"both calls are on shard {tag[:2]}")
    time.sleep(1)
    heard = [len(it.heard()) for it in (callee, third)]
    named = f"{call_id.replace('@', '%40')}%3Bto-tag%3D{tag}%3Bfrom-tag%3D{own}"
    phone.command(f"transfer sip:{CALLEE}@127.0.0.1?Replaces={named}")
    edge.wait_for_log("transfer.done", 15)
    wait_for("both calls of the referrer end", lambda: phone.log().count("BYE sip:") >= 2 or None, 10)
    phone.stop()
    time.sleep(4)
    for who, begin, frequency in ((callee, heard[0], tone.HIGH), (third, heard[1], tone.LOW)):
        files = sorted(who.dumps.glob("*-dec.wav"))
        samples = sound.read_growing_wav(files[-1], who.channels)
        measured = tone.measure(samples[-2 * who.rate :], who.rate, frequency)
        check(measured.level_db > -3 and measured.gap_ms < 100, f"{who.name} heard {measured}")
    # Who has moved speaks as ever, to the tag that it knows.
    callee.hang_up()
    third.wait_log("terminated", 10)
    ended = [it for it in edge.calls() if it["state"] == "ended"]
    check({it["reason"] for it in ended} <= {"call.transferred", "call.caller_hung_up",
          "call.callee_hung_up"}, f"{[it['reason'] for it in ended]}")
    callee.stop()
    third.stop()
    edge.stop()


@case(timeout=60)
def ringing_heard(box):
    """A callee's telephone rings; its caller, whose trunk wants that, hears a tone of the edge's."""
    callee = Phone(
        box, CALLEE, codec="PCMA", encrypted=False, transport="udp", address="127.0.0.2",
        name="callee",
    )  # fmt: skip
    policy = POLICY.format(callee=CALLEE, sip=callee.sip, transfer="edge")
    edge = Edge(box, policy.replace("[trunk.local]", '[trunk.local]\nring_back = "tone"')).start()
    phone = Phone(box, CALLER, authority=edge.authority)
    phone.command(f"dial {edge.uri(CALLEE)}")
    phone.wait_log("183 Session Progress", 10)
    loudest = lambda sound: max(map(abs, sound), default=0)  # noqa: E731
    wait_for("a tone", lambda: loudest(phone.heard()) > 3_000 or None, 10)
    check("SIP/2.0 200 OK" not in phone.log(), "nobody has answered")
    callee.command("accept")
    phone.wait_log("Call established", 10)
    heard = phone.heard_seconds()
    time.sleep(7)
    quiet = phone.heard()[int((heard + 0.5) * phone.rate) :]
    check(loudest(quiet) < 300, "it rings on after the answer")
    phone.hang_up()
    callee.wait_log("terminated", 10)
    phone.stop()
    callee.stop()
    edge.stop()
