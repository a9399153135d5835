"""sipp behind stunnel: calls as carriers place them, and requests that must be refused."""

import time
from xml.sax.saxutils import quoteattr

from harness import sipp, wire
from harness.case import case, check, wait_for
from harness.edge import LOCAL_POLICY, Edge

CRYPTO = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{wire.KEY}"
TLS = {"via": "TLS", "transport": "tls", "profile": "RTP/SAVP", "crypto": CRYPTO}
ANSWERED = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:"
CALLER = "+4915735550101"

CERTIFICATE_POLICY = """
[trunk.peering]
from = { certificates = ["client.localhost"] }

[[route]]
when    = { trunk = "peering" }
send_to = { agent = "reception" }
"""


def served(box, policy=LOCAL_POLICY, **options):
    """An edge and a tunnel to it."""
    edge = Edge(box, policy, **options).start()
    return edge, sipp.Tunnel(box, edge)


@case()
def good_call(box):
    """INVITE with SDES, answer, ACK, BYE; the call is in the store with what it was."""
    edge, tunnel = served(box)
    box.secret(CALLER, wire.KEY)
    sipp.run(box, "good", tunnel.port, caller=CALLER, answered=ANSWERED, **TLS)
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    found = (call["reason"], call["trunk"], call["protection"], call["transport"], call["from"])
    wanted = ("call.caller_hung_up", "local", "AES_CM_128_HMAC_SHA1_80", "tls", CALLER)
    check(found == wanted, f"stored {found}")
    check(1_000 <= call["talked_ms"] <= 4_000, f"talked {call['talked_ms']} ms")
    edge.stop()


@case()
def secured_avp_call(box):
    """RTP/AVP with a=crypto counts as SRTP (RFC 8643)."""
    edge, tunnel = served(box)
    fields = dict(TLS, profile="RTP/AVP")
    sipp.run(box, "good", tunnel.port, caller=CALLER, answered=ANSWERED, **fields)
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(call["protection"] == "AES_CM_128_HMAC_SHA1_80", f"stored {call['protection']}")
    edge.stop()


@case()
def client_certificate(box):
    """A trunk known by its certificate alone is served; without one it is a stranger."""
    edge = Edge(box, CERTIFICATE_POLICY, client_ca=True).start()
    certificate = (edge.root / "certs/client.pem", edge.root / "certs/client.key")
    known = sipp.Tunnel(box, edge, certificate=certificate, name="known")
    fields = dict(TLS, caller=CALLER, answered=ANSWERED)
    sipp.run(box, "good", known.port, name="with", **fields)
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(call["trunk"] == "peering", f"trunk {call['trunk']}")
    stream = wire.Stream(edge.tls, edge.authority)
    answer = wire.Call(stream, edge.uri()).invite()
    check(answer.status == 403, f"without a certificate: {answer.start}")
    check(not answer.header("Warning"), "a stranger was told why")
    edge.stop()


@case()
def options_ping(box):
    """A carrier's OPTIONS gets 200 with Allow and Accept."""
    edge, tunnel = served(box)
    sipp.run(box, "options", tunnel.port)
    edge.stop()


@case()
def cancel(box):
    """CANCEL right behind the INVITE: 487, or an answered call that the caller ends.

    By hand, since sipp cannot send two requests while an answer to the first may come between."""
    edge = Edge(box).start()
    stream = wire.Stream(edge.tls, edge.authority)
    outcomes = set()
    for _ in range(8):
        call = wire.Call(stream, edge.uri())
        invite = call.build("INVITE", body=wire.sdp())
        head = invite.partition(b"Content-Type")[0].replace(b"INVITE", b"CANCEL")
        stream.send(invite + head + b"Content-Length: 0\r\n\r\n")
        answers = {}
        while len(answers) < 2:
            answer = stream.final()
            answers[answer.header("CSeq").split()[1]] = answer
        check(answers["CANCEL"].status == 200, f"CANCEL: {answers['CANCEL'].start}")
        answer = answers["INVITE"]
        call.to_tag = answer.to_tag()
        outcomes.add(answer.status)
        if answer.status == 200:
            call.target = answer.contact()
            stream.send(call.build("ACK"))
            check(call.ask("BYE").status == 200, "BYE")
        else:
            # The ACK of a refusal belongs to the INVITE's transaction: the same branch.
            ack = head.replace(b"CANCEL", b"ACK")
            to = answer.header("To").encode()
            ack = b"\r\n".join(
                b"To: " + to if it.startswith(b"To:") else it for it in ack.split(b"\r\n")
            )
            stream.send(ack + b"Content-Length: 0\r\n\r\n")
    check(outcomes <= {200, 487}, f"INVITE answered {outcomes}")
    wait_for("no call is left", lambda: edge.metric("callgate_calls") == 0, 5)

    def all_ended():
        calls = edge.calls()
        return calls if [it["state"] for it in calls] == ["ended"] * 8 else None

    reasons = {it["reason"] for it in wait_for("eight calls are stored", all_ended, 5, every=0.3)}
    check(reasons <= {"call.cancelled", "call.caller_hung_up"}, f"ended by {reasons}")
    edge.stop()


@case()
def hold_and_resume(box):
    """A re-INVITE right after the answer holds, another resumes; port and key stay."""
    edge, tunnel = served(box)
    sipp.run(box, "hold", tunnel.port)
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(call["reason"] == "call.caller_hung_up", f"ended by {call['reason']}")
    edge.stop()


@case()
def late_offer(box):
    """An INVITE without SDP is answered with an offer; the ACK's answer makes it a call."""
    edge, tunnel = served(box)
    sipp.run(box, "late", tunnel.port)
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    found = (call["reason"], call["protection"])
    check(found == ("call.caller_hung_up", "AES_CM_128_HMAC_SHA1_80"), f"stored {found}")
    edge.stop()


SDP = f"""v=0
o=sipp 1 1 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=audio 40000 RTP/SAVP 0
{CRYPTO}"""
PLAIN_SDP = SDP.replace("RTP/SAVP", "RTP/AVP").replace(CRYPTO, "a=sendrecv")
HOST = "sip:127.0.0.1"
LONG = "x" * 9_000
ISUP = "Content-Type: application/ISUP;version=itu-t92+\nContent-Disposition: signal;handling={}"


def parts(*others, last="--unique--"):
    """The description and other parts, as one body."""
    each = [f"Content-Type: application/sdp\n\n{SDP}", *others]
    return "".join(f"--unique\n{it}\n" for it in each) + last


FIELDS = """Max-Forwards: 70
From: <sip:sipp@127.0.0.1>;tag=[pid]t[call_number]
To: <{to}>
Call-ID: [call_id]
CSeq: 1 {method}
Contact: <sip:sipp@[local_ip]:[local_port];transport=tls>"""
ACK = """  <send>
    <![CDATA[
      ACK {uri} SIP/2.0
      Via: SIP/2.0/TLS [local_ip]:[local_port];branch=z9hG4bK-refused-[pid];rport
      Max-Forwards: 70
      From: <sip:sipp@127.0.0.1>;tag=[pid]t[call_number]
      [last_To:]
      Call-ID: [call_id]
      CSeq: 1 ACK
      Content-Length: 0

    ]]>
  </send>"""


def refused(name, status, method="INVITE", uri="sip:reception@127.0.0.1", version="SIP/2.0",
            swap=("", ""), extra="", body=SDP, kind="application/sdp", length="[len]",
            vias="SIP/2.0/TLS [local_ip]:[local_port];branch=z9hG4bK-refused-[pid];rport",
            found="SIP/2.0"):
    """The fields of one refusal: what is sent, the status that must come, and what is in it."""
    to = uri if len(uri) < 900 else HOST
    fields = FIELDS.format(to=to, method=method).replace(*swap) if swap[0] else FIELDS.format(
        to=to, method=method
    )
    headers = "\n".join(it for it in (fields, extra) if it)
    return {
        "name": name,
        "method": method, "uri": uri, "version": version, "vias": vias, "headers": headers,
        "type": f"Content-Type: {kind}" if body else "Subject: nothing",
        "length": f"Content-Length: {length}", "body": body, "status": status,
        "check": quoteattr(found)[1:-1],
        "ack": ACK.format(uri=HOST) if method == "INVITE" and status >= 300 else "",
    }  # fmt: skip


REFUSED = [
    refused("two-vias", 200, "OPTIONS", HOST, body="",
            found="branch=z9hG4bK-one.*branch=z9hG4bK-two",
            vias="SIP/2.0/TLS [local_ip]:[local_port];branch=z9hG4bK-one-[pid];rport, "
                 "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK-two"),
    refused("plain-rtp", 488, body=PLAIN_SDP, found="Warning: 399 .*policy.plaintext_media"),
    refused("no-such-user", 404, uri="sip:nobody@127.0.0.1", found="policy.no_route"),
    refused("no-common-codec", 488, body=SDP.replace("SAVP 0", "SAVP 3"),
            found="media.no_common_codec"),
    refused("video-only", 488, body=SDP.replace("m=audio", "m=video")),
    refused("unknown-suite", 488, body=SDP.replace("AES_CM_128_HMAC", "F8_128_HMAC"),
            found="media.no_common_crypto|policy.plaintext_media"),
    refused("broken-sdp", 400, body="v=0\nm=audio"),
    refused("no-max-forwards-left", 483, swap=("Max-Forwards: 70", "Max-Forwards: 0")),
    refused("required-extension", 420, extra="Require: teleport", found="Unsupported: teleport"),
    refused("other-body", 415, body="hello", kind="text/plain"),
    refused("required-part", 415, body=parts(ISUP.format("required") + "\n\nx"),
            kind="multipart/mixed;boundary=unique", found="Accept: .*multipart/mixed"),
    refused("part-without-end", 400, body=parts(last=""), kind="multipart/mixed;boundary=unique"),
    refused("many-parts", 413, body=parts(*["\nx"] * 20), kind="multipart/mixed;boundary=unique"),
    refused("urn", 416, uri="urn:service:sos"),
    refused("short-session", 422, extra="Supported: timer\nSession-Expires: 60",
            found="Min-SE: 90"),
    refused("unknown-method", 501, "TELEPORT", body=""),
    refused("register", 405, "REGISTER", HOST, body="", found="Allow: .*INVITE"),
    refused("bye-of-no-call", 481, "BYE", body="", swap=("To: <sip:reception@127.0.0.1>",
            "To: <sip:reception@127.0.0.1>;tag=gone")),
    refused("other-version", 505, version="SIP/7.0"),
    refused("long-uri", 414, uri=f"sip:{'r' * 1_100}@127.0.0.1"),
    refused("long-header", 513, extra=f"Subject: {LONG}"),
    refused("large-body", 413, body=SDP + "\n" + "\n".join(["a=x:" + "y" * 500] * 80)),
    refused("bad-content-length", 400, length="many"),
    refused("negative-content-length", 400, length="-5"),
    refused("two-call-ids", 400, extra="Call-ID: another"),
    refused("two-max-forwards", 400, extra="Max-Forwards: 69"),
    refused("bad-from", 400, swap=("From: <sip:sipp@127.0.0.1>", "From: <sip:sipp@127.0.0.1")),
    refused("no-contact", 400,
            swap=("\nContact: <sip:sipp@[local_ip]:[local_port];transport=tls>", "")),
]


@case(timeout=90)
def refusals(box):
    """Each request that cannot be served gets its own status, and no call is left."""
    edge, tunnel = served(box)
    failed = []
    for fields in REFUSED:
        try:
            sipp.run(box, "refused", tunnel.port, timeout=4, **fields)
        except AssertionError as error:
            failed.append(str(error)[:600])
        sipp.pause()
    check(not failed, f"{len(failed)} of {len(REFUSED)}:\n" + "\n".join(failed))
    wait_for("no call is left", lambda: edge.metric("callgate_calls") == 0, 5)
    check(edge.is_running(), "the edge died")
    edge.stop()


@case()
def broken_streams(box):
    """Bytes that are no SIP end their connection only; the next caller is served at once."""
    edge = Edge(box).start()
    invite = wire.request("INVITE", edge.uri(), body=wire.sdp())
    head, _, body = invite.partition(b"\r\n\r\n")
    for name, data in {
        "garbage": b"\x00\x01\xff" * 3_000 + b"\r\n\r\n",
        "http": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "no Content-Length": head[: head.rindex(b"\r\n")] + b"\r\n\r\n" + body,
        "bare line feeds": invite.replace(b"\r\n", b"\n"),
        "endless header": b"INVITE sip:a@b SIP/2.0\r\nSubject: " + b"x" * 200_000,
        "promised gigabyte": head.replace(b"Length: ", b"Length: 99999") + b"\r\n\r\n",
    }.items():
        stream = wire.Stream(edge.tls, edge.authority)
        try:
            stream.send(data)
        except OSError:
            pass  # closed before all was taken: that is the point
        check(stream.is_closed(14), f"{name}: the connection stays open")
        stream.close()
        stream = wire.Stream(edge.tls, edge.authority)
        stream.send(wire.request("OPTIONS", edge.uri()))
        check(stream.final(1).status == 200, f"after {name}: OPTIONS not answered")
        stream.close()
    # A body longer than announced: what is left over ends the connection.
    stream = wire.Stream(edge.tls, edge.authority)
    options = wire.request("OPTIONS", edge.uri(), body=wire.sdp())
    stream.send(options + b"left over, no SIP\r\n\r\n")
    check(stream.is_closed(14), "left over bytes: the connection stays open")
    # sipp cannot match answers to these. (Answers to the malformed are limited per second.)
    time.sleep(1)
    stream = wire.Stream(edge.tls, edge.authority)
    for name, wrong in {"other method": b"1 BYE", "too large": b"99999999999 INVITE"}.items():
        stream.send(invite.replace(b"CSeq: 1 INVITE", b"CSeq: " + wrong))
        check(stream.final().status == 400, f"CSeq of {name}")
    check(edge.is_running(), "the edge died")
    edge.stop()


@case()
def keep_alive(box):
    """A double CRLF gets its CRLF back (RFC 5626 section 3.5.1)."""
    edge = Edge(box).start()
    stream = wire.Stream(edge.tls, edge.authority)
    stream.send(b"\r\n\r\n")
    check(stream.socket.recv(10) == b"\r\n", "no pong")
    edge.stop()


COMPACT = """INVITE sip:reception@127.0.0.1 SIP/2.0\r
v: SIP/2.0/TLS 127.0.0.1:5999;branch=z9hG4bKcompact{n};rport , SIP/2.0/UDP\r
 192.0.2.9:5060;branch=z9hG4bKsecond\r
max-forwards : 70\r
f: "A \\"quoted\\" <name>; here" <sip:a%40b;x=1@127.0.0.1;user=phone>;tag=c{n}\r
t: <sip:reception@127.0.0.1>\r
i: compact-{n}@[2001:db8::1]\r
CSeq:\r
  1\r
  INVITE\r
m: <sip:probe@[2001:db8::1]:5999;transport=tls>\r
P-Asserted-Identity: <tel:+49-30-1234567>\r
X-Unknown: \xff\xfe anything\r
k: timer\r
x: 1800;refresher=uac\r
c: application/sdp\r
l: {length}\r
\r
{body}"""


@case()
def unusual_but_right(box):
    """Compact forms, folded lines, two Vias in one header, IPv6, escapes, tel: URIs: all taken."""
    edge = Edge(box).start()
    stream = wire.Stream(edge.tls, edge.authority)
    body = wire.sdp()
    text = COMPACT.format(n=1, length=len(body), body=body)
    stream.send(text.encode("latin-1"))
    answer = stream.final()
    check(answer.status == 200, answer.start)
    head = answer.raw.partition(b"\r\n\r\n")[0].decode()
    first, second = head.find("z9hG4bKcompact1"), head.find("z9hG4bKsecond")
    check(0 < first < second, f"the Vias came back as\n{head}")
    check("received=127.0.0.1" in head and f"rport={stream.socket.getsockname()[1]}" in head, head)
    check("refresher=uac" in answer.header("Session-Expires"), head)
    call = wire.Call(stream, answer.contact())
    call.call_id, call.tag, call.to_tag = "compact-1@[2001:db8::1]", "c1", answer.to_tag()
    stream.send(call.build("ACK"))
    check(call.ask("BYE").status == 200, "BYE")
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["from"] == "+49301234567", f"the asserted caller: {stored['from']}")
    edge.stop()


@case()
def within_a_call(box):
    """UPDATE, INFO, OPTIONS, a repeated INVITE and nonsense within a call; a key by INFO counts."""
    edge = Edge(box).start()
    stream = wire.Stream(edge.tls, edge.authority)
    call = wire.Call(stream, edge.uri())
    check(call.invite().status == 200, "INVITE")
    check(call.ask("OPTIONS").status == 200, "OPTIONS")
    check(call.ask("UPDATE").status == 200, "UPDATE without an offer")
    answer = call.ask("UPDATE", body=wire.sdp().replace("a=sendrecv", "a=inactive"))
    check(answer.status == 200 and b"a=inactive" in answer.body, "UPDATE with an offer")
    answer = call.ask("INVITE", body=wire.sdp(wire.SDP_PLAIN))
    check(answer.status == 488, f"a re-INVITE that drops SRTP: {answer.start}")
    check(call.ask("INVITE", body=wire.sdp()).status == 200, "a re-INVITE after a refused one")
    answer = call.ask("REFER", extra="Refer-To: <sip:b@127.0.0.1>\r\n")
    check(answer.status == 603, f"REFER of a call with a voice agent: {answer.start}")
    check(call.ask("TELEPORT").status == 501, "an unknown method")
    call.cseq = 0
    check(call.ask("OPTIONS").status == 500, "an old CSeq")
    call.cseq = 50
    # The third choice of the menu is goodbye.
    key = "Signal=3\r\nDuration=160\r\n"
    info = call.build("INFO", body=key, cseq=51)
    time.sleep(1)
    stream.send(info.replace(b"application/sdp", b"application/dtmf-relay"))
    check(stream.final().status == 200, "INFO")
    message = stream.receive(30)
    check(message is not None and message.start.startswith("BYE "), "the voice agent hangs up")
    stream.send(b"SIP/2.0 200 OK\r\n" + b"".join(
        f"{name}: {value}\r\n".encode() for name, value in message.headers
        if name.lower() in ("via", "from", "to", "call-id", "cseq")
    ) + b"Content-Length: 0\r\n\r\n")
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["reason"] == "call.agent_hung_up", f"ended by {stored['reason']}")
    edge.stop()


@case()
def several_parts(box):
    """An offer next to ISUP and a location, an answer within alternatives: both are calls."""
    edge = Edge(box).start()
    box.secret(wire.KEY)
    stream = wire.Stream(edge.tls, edge.authority)
    isup = ISUP.format("optional").replace("\n", "\r\n") + "\r\n\r\n\1\0\x60\r\n--\x0a"
    place = "Content-Type: application/pidf+xml\r\nContent-ID: <place@h>\r\n\r\n<presence/>"
    offer = f"Content-Type: application/sdp\r\n\r\n{wire.sdp()}"
    body = "".join(f"--one two\r\n{it}\r\n" for it in (isup, offer, place)) + "--one two--\r\n"
    call = wire.Call(stream, edge.uri())
    plain = b"Content-Type: application/sdp\r\n"
    mixed = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="one two"\r\n'
    stream.send(call.build("INVITE", body=body).replace(plain, mixed, 1))
    answer = stream.final()
    check(answer.status == 200, answer.start)
    check(b"RTP/SAVP" in answer.body, answer.body.decode())
    call.to_tag, call.target = answer.to_tag(), answer.contact()
    stream.send(call.build("ACK"))
    check(call.ask("BYE").status == 200, "BYE")

    late = wire.Call(stream, edge.uri())
    stream.send(late.build("INVITE"))
    answer = stream.final()
    check(answer.status == 200, answer.start)
    lines = [it for it in answer.body.decode().split("\r\n") if "HMAC_SHA1_80" in it]
    chosen = wire.sdp().replace("a=crypto:1", lines[0].split(" ")[0])
    body = f"--b\r\nContent-Type: application/sdp\r\n\r\n{chosen}\r\n--b--"
    late.to_tag, late.target = answer.to_tag(), answer.contact()
    other = b"Content-Type: multipart/alternative;boundary=b\r\n"
    stream.send(late.build("ACK", body=body).replace(plain, other, 1))
    time.sleep(0.5)
    check(late.ask("BYE").status == 200, "BYE")

    wanted = [("call.caller_hung_up", "AES_CM_128_HMAC_SHA1_80")] * 2
    wait_for("both are stored as calls",
             lambda: [(it["reason"], it["protection"]) for it in edge.calls()] == wanted, 5,
             every=0.3)
    edge.stop()


@case()
def lost_connections(box):
    """A connection lost between 200 and ACK: who comes back talks on, who does not is missed."""
    edge = Edge(box).start()
    stream = wire.Stream(edge.tls, edge.authority)
    back, gone = wire.Call(stream, edge.uri()), wire.Call(stream, edge.uri())
    for call in (back, gone):
        stream.send(call.build("INVITE", body=wire.sdp()))
        answer = stream.final()
        check(answer.status == 200, answer.start)
        call.to_tag, call.target = answer.to_tag(), answer.contact()
    stream.close()
    time.sleep(1)
    stream = wire.Stream(edge.tls, edge.authority)
    stream.send(back.build("ACK"))
    back.stream = stream
    # Limit call.flow_return_ms is 5,000.
    lost = edge.wait_for_call(lambda it: it["state"] == "ended", 8)
    check(lost["reason"] == "transport.flow_lost", f"ended by {lost['reason']}")
    check(edge.metric("callgate_calls") == 1, "the other call is gone")
    check(back.ask("BYE").status == 200, "BYE over the new connection")
    wait_for("no call is left", lambda: edge.metric("callgate_calls") == 0, 5)
    reasons = sorted(it["reason"] for it in edge.calls())
    check(reasons == ["call.caller_hung_up", "transport.flow_lost"], f"{reasons}")
    edge.stop()


@case()
def behind_nat(box):
    """With advertised addresses, Contact and SDP name them, not the local ones."""
    extra = '[advertise]\nhost = "sip.voice.example"\nmedia = "203.0.113.5"\n'
    edge = Edge(box, extra=extra).start()
    stream = wire.Stream(edge.tls, edge.authority)
    call = wire.Call(stream, edge.uri())
    answer = call.invite()
    check(answer.status == 200, answer.start)
    check("sip.voice.example" in answer.contact(), f"Contact: {answer.contact()}")
    check(b"c=IN IP4 203.0.113.5" in answer.body, answer.body.decode())
    check(b"127.0.0.1" not in answer.body, "the local address is told")
    check(call.ask("BYE").status == 200, "BYE")
    edge.stop()


@case()
def headers_missing(box):
    """Without a header that all need: 400 where an answer can find its way, or nothing."""
    edge = Edge(box).start()
    invite = wire.request("INVITE", edge.uri(), body=wire.sdp())
    for name in (b"Via", b"From", b"To", b"Call-ID", b"CSeq", b"Contact"):
        lines = [it for it in invite.split(b"\r\n") if not it.startswith(name + b":")]
        stream = wire.Stream(edge.tls, edge.authority)
        stream.send(b"\r\n".join(lines))
        answer = stream.receive(0.5)
        status = answer.status if answer else None
        check(status in (None, 400), f"without {name.decode()}: {status}")
        check(answer is not None or name != b"Contact", "without Contact: no answer")
        stream.close()
    check(edge.metric("callgate_calls") == 0, "one of them became a call")
    counted = edge.metric("callgate_sip_request_refused_total", reason="sip.malformed")
    check(counted == 6, f"{counted} of 6 counted")
    edge.stop()
