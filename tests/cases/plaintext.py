"""Signalling and media in the clear: refused, unless a trunk exempts it, and until it ends."""

import datetime
import time

from harness import sipp, sound, wire
from harness.case import case, check, wait_for
from harness.edge import LOCAL_POLICY, Edge
from harness.phone import Phone

from .signalling import refused

TODAY = datetime.datetime.now(datetime.timezone.utc).date()
LATER = TODAY + datetime.timedelta(days=60)
PAST = TODAY - datetime.timedelta(days=2)
LAB = "127.0.0.2"
OLD = "127.0.0.4"
STRANGER = "127.0.0.3"

# Only 127.0.0.1 is the local trunk here, so that the other loopback addresses are other peers.
LOCAL = """
[trunk.local]
from      = { networks = ["127.0.0.1"] }
recording = "allowed"

[[route]]
when    = { called = { exact = "reception" } }
send_to = { agent = "reception" }
"""


def exempted(name, network, until, media=True, transports='"tls", "udp"'):
    """A trunk with an exemption."""
    why = f'reason = "interop test", expires = {until}'
    lines = [
        f"[trunk.{name}]",
        f'from             = {{ networks = ["{network}"] }}',
        f"transports       = [{transports}]",
        'media_from       = ["127.0.0.0/8"]',
        f"exempt.signalling = {{ {why} }}",
    ]
    if media:
        lines.append(f"exempt.media = {{ {why}, inbound = true }}")
    return "\n".join(lines) + "\n\n"


LAB_POLICY = exempted("lab", LAB, LATER) + LOCAL


def udp_is_open(edge):
    """Whether somebody listens at the plaintext UDP port."""
    probe = wire.Datagrams(edge.plain)
    try:
        return not probe.is_refused()
    finally:
        probe.close()


def tcp_is_open(edge):
    """Whether somebody listens at the plaintext TCP port."""
    try:
        wire.Stream(edge.plain, timeout=1).close()
        return True
    except OSError:
        return False


@case()
def ports_are_closed(box):
    """With no exemption neither UDP nor TCP is even open."""
    edge = Edge(box, LOCAL_POLICY).start()
    check(not udp_is_open(edge), "UDP is open")
    check(not tcp_is_open(edge), "TCP is open")
    edge.stop()


def place_plain_call(box, edge, kind="UDP", mode="u1"):
    """A call by sipp from the exempted address, in the clear."""
    sipp.run(
        box, "good", edge.plain, mode=mode, address=LAB, name=f"good-{kind}", via=kind,
        transport=kind.lower(), profile="RTP/AVP", crypto="a=ptime:20", answered="a=sendrecv",
        caller="sipp",
    )  # fmt: skip


@case()
def exempted_call_by_sipp(box):
    """An exempted trunk's INVITE over UDP and over TCP with plain RTP is answered."""
    edge = Edge(box, exempted("lab", LAB, LATER, transports='"udp", "tcp"') + LOCAL).start()
    for kind, mode in (("UDP", "u1"), ("TCP", "t1")):
        place_plain_call(box, edge, kind, mode)
        call = edge.wait_for_call(
            lambda it, over=kind.lower(): it["state"] == "ended" and it["transport"] == over
        )
        found = (call["reason"], call["trunk"], call["protection"])
        check(found == ("call.caller_hung_up", "lab", "none"), f"{kind}: stored {found}")
    edge.stop()


@case()
def exempted_call_is_heard(box):
    """baresip over UDP with plain RTP hears the voice agent."""
    edge = Edge(box, LAB_POLICY).start()
    phone = Phone(box, "+4915735550501", encrypted=False, transport="udp", address=LAB)
    phone.dial(f"sip:reception@127.0.0.1:{edge.plain};transport=udp")
    phone.wait_for_quiet(1.0, 25)
    seconds = sound.speech_seconds(phone.heard(), phone.rate)
    check(seconds > 2, f"heard {seconds:.1f} s of speech")
    phone.hang_up()
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    found = (call["transport"], call["protection"], call["keys_exposed"])
    check(found == ("udp", "none", False), f"stored {found}")
    edge.stop()


@case()
def keys_over_plaintext_are_marked(box):
    """SRTP whose keys cross exempted plaintext signalling is marked as exposed, and warned of."""
    edge = Edge(box, LAB_POLICY).start()
    phone = Phone(box, "+4915735550502", transport="udp", address=LAB)
    phone.dial(f"sip:reception@127.0.0.1:{edge.plain};transport=udp")
    phone.hang_up()
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(call["keys_exposed"] and call["protection"] != "none", f"stored {call}")
    warned = edge.command("check")
    check("keys" in (warned.stdout + warned.stderr).lower(), "`check` does not warn of it")
    edge.stop()


def refusals_to(edge, source, count=60, data=None):
    """What `count` requests from `source` get: the answers, and the size of the request."""
    socket = wire.Datagrams(edge.plain, source)
    invite = data or wire.request(
        "INVITE", "sip:reception@127.0.0.1", "UDP", source, body=wire.sdp(wire.SDP_PLAIN, source)
    )
    for number in range(count):
        # Another branch each time: not a retransmission.
        socket.send(invite.replace(b"z9hG4bK", b"z9hG4bK%04d" % number))
    answers = []
    while answer := socket.receive(0.7):
        answers.append(answer)
    socket.close()
    return answers, len(invite) + 4


@case()
def strangers_are_refused(box):
    """403, stateless, no larger than the request, few per second, and nothing is learnt from it."""
    edge = Edge(box, LAB_POLICY).start()
    answers, size = refusals_to(edge, STRANGER)
    check(answers, "no answer at all")
    statuses = {it.status for it in answers}
    check(statuses == {403}, f"answered {statuses}")
    check(max(len(it.raw) for it in answers) <= size, "an answer is larger than its request")
    # Limit transport.refusals_per_second is 5; the sixty requests may straddle two seconds.
    check(len(answers) <= 10, f"{len(answers)} answers to 60 requests")
    told = b"".join(it.raw for it in answers)
    check(b"Warning" not in told and b"policy." not in told, "a stranger was told why")
    time.sleep(1)
    via = "SIP/2.0/UDP [local_ip]:[local_port];branch=z9hG4bK-refused-[pid];rport"
    fields = refused("by-sipp", 403, vias=via)
    sipp.run(box, "refused", edge.plain, mode="u1", address=STRANGER, **fields)
    # A request so short that every answer would be larger gets none.
    short = (
        b"OPTIONS sip:a SIP/2.0\r\nv:SIP/2.0/UDP a;branch=z9hG4bK1\r\nf:<sip:a>;tag=1\r\n"
        b"t:<sip:a>\r\ni:1\r\nCSeq:1 OPTIONS\r\n\r\n"
    )
    answers, size = refusals_to(edge, STRANGER, 1, short)
    check(all(len(it.raw) <= size for it in answers), "the answer amplifies")
    counted = edge.metric("callgate_sip_request_refused_total", transport="udp")
    check(counted >= 60, f"{counted} refusals counted of 61")
    check(edge.metric("callgate_call_arrived_total") == 0, "a refused request became a call")
    check(not edge.calls(), "a refused request became a call")
    edge.stop()
    listed = edge.command("audit", "list")
    rows = [it for it in listed.stdout.splitlines() if "refus" in it]
    check(0 < len(rows) < 20, f"{len(rows)} audit records of 61 refusals")


def audited(edge):
    """The audit log as `audit list` prints it, and what of it is about refusals."""
    listed = edge.command("audit", "list")
    check(listed.returncode == 0, listed.stderr)
    return [it for it in listed.stdout.splitlines() if "refus" in it]


@case()
def strangers_over_tcp_are_reset_and_audited(box):
    """A stranger's TCP connection ends before a byte is read; counted, audited, not once each."""
    policy = exempted("lab", LAB, LATER, transports='"tls", "tcp"') + LOCAL
    edge = Edge(box, policy).start()
    for _ in range(40):
        try:
            stream = wire.Stream(edge.plain, source=STRANGER)
            check(stream.is_closed(3), "the connection stays open")
            stream.close()
        except ConnectionResetError:
            pass  # so soon that it shows in connect
    reason = "policy.plaintext_signalling"
    count = edge.metric("callgate_sip_request_refused_total", transport="tcp", reason=reason)
    check(count == 40, f"{count} of 40 counted as {reason}")
    # The exempted peer is served all the while.
    lab = wire.Stream(edge.plain, source=LAB)
    lab.send(wire.request("OPTIONS", "sip:127.0.0.1", "TCP", LAB))
    check(lab.final().status == 200, "the exempted peer is not served")
    edge.stop()
    rows = audited(edge)
    check(0 < len(rows) < 12, f"{len(rows)} audit records of 40 connections")


@case()
def malformed_datagrams_are_audited_and_not_amplified(box):
    """What cannot be read is counted by its reason and audited; no answer is larger than it."""
    edge = Edge(box, LAB_POLICY).start()
    datagrams = wire.Datagrams(edge.plain, LAB)
    via = b"Via: SIP/2.0/UDP 127.0.0.2:5999;branch=z9hG4bK%d;rport\r\n"
    rest = b"From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: %d\r\nCSeq: x OPTIONS\r\n\r\n"
    sent = []
    for number in range(30):
        sent.append(b"OPTIONS sip:b@h SIP/2.0\r\n" + via % number + rest % number)
        datagrams.send(sent[-1])
    largest = max(map(len, sent))
    answers = []
    while answer := datagrams.receive(0.7):
        answers.append(answer)
    datagrams.close()
    check(all(len(it.raw) <= largest for it in answers), "an answer is larger than its request")
    count = edge.metric("callgate_sip_request_refused_total", reason="sip.malformed")
    check(count == 30, f"{count} of 30 counted as sip.malformed")
    edge.stop()
    rows = audited(edge)
    check(0 < len(rows) < 12, f"{len(rows)} audit records of 30 datagrams")


@case()
def known_trunks_learn_the_reason(box):
    """The local trunk may not use UDP; its refusal says so in Warning: 399."""
    edge = Edge(box, LAB_POLICY).start()
    answers, size = refusals_to(edge, "127.0.0.1", 1)
    check(len(answers) == 1 and answers[0].status == 403, f"{[it.start for it in answers]}")
    warning = answers[0].header("Warning")
    check(warning.startswith("399 ") and "policy.plaintext_signalling" in warning, warning)
    check(len(answers[0].raw) <= size, "the answer is larger than the request")
    edge.stop()


@case()
def expired_exemptions_are_refused(box):
    """After its last day the exempted peer is refused again, with the reason."""
    edge = Edge(box, exempted("old", OLD, PAST) + LAB_POLICY).start()
    answers, _ = refusals_to(edge, OLD, 1)
    check(len(answers) == 1 and answers[0].status == 403, f"{[it.start for it in answers]}")
    warning = answers[0].header("Warning")
    check("policy.exemption_expired" in warning, f"Warning: {warning}")
    edge.set_policy(exempted("old", OLD, PAST) + LOCAL)
    wait_for("the port closes with the last exemption", lambda: not udp_is_open(edge), 10)
    edge.stop()


@case()
def reload_opens_and_closes(box):
    """A new policy is taken on SIGHUP and on a change of the file; a bad one is not."""
    edge = Edge(box, LOCAL).start()
    check(not udp_is_open(edge), "UDP is open at the start")
    edge.set_policy(LAB_POLICY)
    edge.hup()
    wait_for("SIGHUP opens UDP", lambda: udp_is_open(edge), 5)
    edge.set_policy(LOCAL)
    wait_for("the changed file closes UDP", lambda: not udp_is_open(edge), 6)
    edge.set_policy(LAB_POLICY)
    wait_for("the changed file opens UDP", lambda: udp_is_open(edge), 6)
    before = len(edge.logs())
    edge.set_policy(LOCAL.replace("networks", "netwroks"))
    edge.wait_for_log("netwroks|policy.rejected", 6, since=before)
    time.sleep(1.5)
    check(udp_is_open(edge), "the bad policy closed UDP")
    place_plain_call(box, edge)
    edge.stop()
    listed = edge.command("audit", "list").stdout
    check("policy.rejected" in listed, f"the bad policy is not audited:\n{listed}")
