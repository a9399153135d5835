"""Calls from trunk to trunk: two edges in a row, softphones as callees, transfers."""

import json
import time

from harness import sipp, sound, wire
from harness.case import case, check, free_ports
from harness.edge import BINARY, LOCAL_POLICY, Edge
from harness.phone import Phone

CALLEE = "4915735550199"

# The first edge knows everybody on this machine as one trunk, and dials the second one.
POLICY = """
[trunk.local]
from       = {{ networks = ["127.0.0.0/8"] }}
codecs     = [{inward}]

[trunk.far]
send_to    = ["{send_to}"]
tls        = {{ ca = "{ca}" }}
codecs     = [{outward}]
{more}

[[route]]
send_to = {{ trunk = "far" }}
"""


def quoted(names):
    """A list of words for a policy file."""
    return ", ".join(f'"{name}"' for name in names)


def in_a_row(box, inward=("pcmu",), outward=("pcmu",), more=""):
    """Two edges: calls to the first are carried to the second's voice agent."""
    far = Edge(box, name="far").start()
    policy = POLICY.format(
        inward=quoted(inward),
        outward=quoted(outward),
        send_to=f"sip:reception@127.0.0.1:{far.tls};transport=tls",
        ca=far.authority,
        more=more,
    )
    near = Edge(box, policy, name="near").start()
    return near, far


def conversation(box, near, name, *arguments):
    """A call of the built-in caller, and the words that it heard."""
    heard = box.path(f"{name}.wav")
    command = [BINARY, "load", "--to", near.uri(), "--ca", near.authority, "--calls", "1"]
    done = box.run(name, [*command, "--save", heard, "--json", *arguments], timeout=80)
    check(done.returncode == 0, f"exit {done.returncode}: {done.stderr}{done.stdout}")
    report = json.loads(done.stdout)
    check(report["media"]["packets_rejected"] == 0, f"rejected: {report['media']}")
    (samples,), rate = sound.read_wav(heard)
    return report, sound.recognise(box, samples, rate)


@case(timeout=120)
def two_edges(box):
    """A caller talks with the voice agent behind two edges, over TLS and SRTP on each way."""
    near, far = in_a_row(box)
    report, text = conversation(box, near, "through")
    check(report["calls"][0]["ending"] == "far_end", f"ended by {report['calls'][0]['ending']}")
    for wanted in ("your call is encrypted", "from monday to friday", "thank you for calling"):
        check(wanted in text, f"{wanted!r} is not in {text!r}")
    first = near.wait_for_call(lambda it: it["state"] == "ended")
    check(first["reason"] == "call.callee_hung_up", f"near: {first['reason']}")
    second = far.wait_for_call(lambda it: it["state"] == "ended")
    check(second["reason"] == "call.agent_hung_up", f"far: {second['reason']}")
    shown = near.command("calls", "show", first["call_id"], name="show").stdout
    check("trunk" in shown, shown)
    near.stop()
    far.stop()


@case(timeout=90)
def four_to_six(box):
    """A caller on IPv4, a callee on IPv6: signalling and media cross, either side sees its own."""
    far = Edge(box, LOCAL_POLICY, name="far")
    text = far.config.read_text()
    far.config.write_text(text.replace(f"127.0.0.1:{far.tls}", f"[::1]:{far.tls}"))
    far.start()
    port = free_ports(1)
    more = f'zone       = "six"\n\n[zone.six]\nmedia = "::1"\nlisten.tls = ["[::1]:{port}"]'
    policy = POLICY.format(
        inward=quoted(("pcmu",)), outward=quoted(("pcmu",)), ca=far.authority, more=more,
        send_to=f"sip:reception@[::1]:{far.tls};transport=tls",
    )  # fmt: skip
    near = Edge(box, policy, name="near").start()
    _, text = conversation(box, near, "through")
    check("your call is encrypted" in text, text)
    stored = near.wait_for_call(lambda it: it["state"] == "ended")
    ladder = near.command("calls", "show", stored["call_id"], "--ladder", name="show").stdout
    check("c=IN IP6 ::1" in ladder and "c=IN IP4 127.0.0.1" in ladder, ladder)
    near.stop()
    far.stop()


def transcoded(box, inward, outward, codec):
    """Different codecs on both sides: the words get through."""
    near, far = in_a_row(box, (inward,), (outward,))
    _, text = conversation(box, near, "through", "--codecs", codec)
    check("your call is encrypted" in text, text)
    near.stop()
    far.stop()


@case(timeout=90)
def a_law_to_u_law(box):
    """G.711 to G.711 of the other law."""
    transcoded(box, "pcma", "pcmu", "pcma")


@case(timeout=90)
def opus_to_g711(box):
    """A wideband caller, a narrowband callee."""
    transcoded(box, "opus", "pcmu", "opus")


@case(timeout=90)
def g711_to_g722(box):
    """A narrowband caller, a wideband callee."""
    transcoded(box, "pcmu", "g722", "pcmu")


@case(timeout=60)
def refused_by_the_callee(box):
    """What the callee says reaches the caller as a status, and nothing else of it does."""
    near, far = in_a_row(box)
    since = len(far.logs())
    far.set_policy(BUSY)
    far.wait_for_log("policy.loaded", since=since)
    stream = wire.Stream(near.tls, near.authority)
    call = wire.Call(stream, near.uri())
    answer = call.invite()
    check(answer.status == 486, answer.start)
    check(str(far.tls).encode() not in answer.raw, answer.start)
    stored = near.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["reason"] == "trunk.busy", f"stored {stored['reason']}")
    near.stop()
    far.stop()


@case(timeout=60)
def nobody_there(box):
    """A trunk that takes no connection: 502 with its reason, at once."""
    policy = POLICY.format(
        inward=quoted(("pcmu",)), outward=quoted(("pcmu",)),
        send_to="sip:127.0.0.1:9;transport=tls", ca="", more="",
    ).replace('tls        = { ca = "" }\n', "")
    near = Edge(box, policy, name="near").start()
    stream = wire.Stream(near.tls, near.authority)
    answer = wire.Call(stream, near.uri()).invite()
    check(answer.status == 502, answer.start)
    check("trunk.unreachable" in answer.header("Warning"), answer.start)
    near.stop()


@case(timeout=90)
def softphone_is_called(box):
    """baresip is called over exempted UDP and plain RTP, with another codec than the caller's."""
    phone = Phone(
        box, CALLEE, codec="PCMA", encrypted=False, transport="udp", name="callee", answers=True
    )
    policy = POLICY.format(
        inward=quoted(("pcmu",)),
        outward=quoted(("pcma",)),
        send_to=f"sip:{CALLEE}@127.0.0.1:{phone.sip};transport=udp",
        ca="",
        more=EXEMPT,
    )
    near = Edge(box, policy.replace('tls        = { ca = "" }\n', ""), name="near").start()
    words = "thank you for calling"
    wav = sound.say(box, words, 16_000, 1, after=1)
    report = near.load("--wav", wav, "--hold", "6", "--codecs", "pcmu")
    check(report["answered"] == 1, f"failed: {report['failures']}")
    check(report["media"]["packets_received"] > 200, f"received: {report['media']}")
    text = sound.recognise(box, phone.heard(), phone.rate)
    check(words in text, f"the callee heard {text!r}")
    log = phone.log()
    check("PCMA" in log, "the callee's codec")
    for leak in (f"127.0.0.1:{near.tls};", "callgate-load"):
        check(leak not in log, f"{leak} reached the callee")
    near.stop()
    phone.stop()


EXEMPT = """
transports        = ["udp"]
srtp              = { outbound = "optional" }
media_from        = ["127.0.0.0/8"]
exempt.signalling = { reason = "a test", expires = 2099-01-31 }
exempt.media      = { reason = "a test", expires = 2099-01-31, outbound = true }
"""

BUSY = """
[trunk.local]
from = { networks = ["127.0.0.0/8"] }

[[route]]
refuse = { status = 486 }
"""


def asking(box, port, user, secret):
    """An edge that calls a trunk which asks for credentials, and what `check` warns of it."""
    policy = POLICY.format(
        inward=quoted(("pcma",)), outward=quoted(("pcma",)),
        send_to=f"sip:{CALLEE}@127.0.0.1:{port};transport=udp", ca="",
        more=f'{EXEMPT}\ndigest = {{ user = "{user}", password_file = "{secret}" }}',
    )  # fmt: skip
    near = Edge(box, policy.replace('tls        = { ca = "" }\n', ""), name="near").start()
    return near, near.command("check").stderr


def asked(box, more):
    """A trunk of sipp's asks for credentials before INVITE and BYE; sipp says whether they fit."""
    user, password = "edge-4711", "of my mother: the maiden name"
    secret = box.write("password", password + "\n")
    secret.chmod(0o600)
    box.secret(password)
    port = free_ports(1)
    trunk = sipp.Server(box, "asks", port, more=more, user=user, password=password)
    near, warned = asking(box, port, user, secret)
    check("hashes of this password cross plaintext" in warned, warned)
    call = wire.Call(wire.Stream(near.tls, near.authority), near.uri())
    answer = call.invite()
    check(answer.status == 200, answer.start)
    check(call.ask("BYE").status == 200, "the BYE")
    messages = trunk.end()
    check(messages.count("INVITE sip:") == 2 and messages.count("BYE sip:") == 2, "each once more")
    stored = near.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["reason"] == "call.caller_hung_up", stored["reason"])
    near.stop()


@case(timeout=60)
def asked_for_credentials(box):
    """A trunk asks with MD5 and qop; the INVITE, its ACK and the BYE show what it wants."""
    asked(box, 'qop="auth", algorithm=MD5')


@case(timeout=60)
def asked_as_of_old(box):
    """A trunk asks without qop, as RFC 2069 had it."""
    asked(box, 'opaque="x y"')


@case(timeout=60)
def wrong_password(box):
    """A password that the trunk does not take: the caller learns 502 and is asked nothing."""
    secret = box.write("password", "guessed\n")
    secret.chmod(0o644)
    port = free_ports(1)
    trunk = sipp.Server(
        box, "asks", port, more='qop="auth"', user="edge", password="another", fails=True
    )
    near, warned = asking(box, port, "edge", secret)
    check("can be read by everybody" in warned, warned)
    answer = wire.Call(wire.Stream(near.tls, near.authority), near.uri()).invite()
    check(answer.status == 502, answer.start)
    check("trunk.credentials_refused" in answer.header("Warning"), answer.header("Warning"))
    check(not answer.header("WWW-Authenticate"), "the caller is asked nothing")
    trunk.end()
    near.stop()


# sipp's trunks, each called by numbers of its own.
SIPP = """
[trunk.{name}]
send_to        = ["{send_to}"]
codecs         = ["pcmu"]
media_inactive = "10m"
{more}

[[route]]
when    = {{ called = {{ prefix = "{prefix}" }} }}
send_to = {{ trunk = "{name}" }}
"""
CALLERS = """
[trunk.local]
from           = { networks = ["127.0.0.0/8"] }
codecs         = ["pcmu"]
media_inactive = "10m"
"""


def trunk(name, prefix, port, more=EXEMPT, over="udp"):
    """A trunk of sipp's, and its route."""
    send_to = f"sip:{prefix}00@127.0.0.1:{port};transport={over}"
    return SIPP.format(name=name, prefix=prefix, send_to=send_to, more=more)


REFUSES = """  <send retrans="500">
    <![CDATA[
      SIP/2.0 422 Session Interval Too Small
      [last_Via:]
      [last_From:]
      [last_To:];tag=[pid]s[call_number]
      [last_Call-ID:]
      [last_CSeq:]
      Min-SE: 2000
      Content-Length: 0

    ]]>
  </send>
  <recv request="ACK"/>
  <recv request="INVITE">
    <action>
      <ereg regexp="2000" search_in="hdr" header="Session-Expires:" check_it="true" assign_to="raised"/>
      <ereg regexp="2000" search_in="hdr" header="Min-SE:" check_it="true" assign_to="least"/>
    </action>
  </recv>
  <Reference variables="raised,least"/>
"""
REFRESHED = """
  <recv request="UPDATE" timeout="60000">
    <action>
      <ereg regexp="^ *90;refresher=uac" search_in="hdr" header="Session-Expires:" check_it="true" assign_to="again"/>
    </action>
  </recv>
  <Reference variables="again"/>
  <send>
    <![CDATA[
      SIP/2.0 200 OK
      [last_Via:]
      [last_From:]
      [last_To:]
      [last_Call-ID:]
      [last_CSeq:]
      Contact: <sip:sipp@[local_ip]:[local_port]>
      Require: timer
      Session-Expires: 90;refresher=uac
      Content-Length: 0

    ]]>
  </send>"""


@case(timeout=60)
def reliable_ringing(box):
    """100rel both ways: the callee's 183 is acknowledged by PRACK, and so is ours by the caller. A
    callee that wants a longer session (422) is asked once more."""
    first = free_ports(2)
    ports = [first, first + 1]
    near = Edge(box, CALLERS + trunk("early", "4915", ports[0]) + trunk("long", "4916", ports[1]))
    near.start()
    early = sipp.Server(box, "reliable", ports[0])
    asked = sipp.Server(box, "timed", ports[1], refuses=REFUSES, expires="2000;refresher=uas",
                        refreshed="")
    crypto = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{wire.KEY}"
    sipp.run(box, "pracks", sipp.Tunnel(box, near).port, called="491500", crypto=crypto)
    messages = early.end()
    check(messages.count("PRACK sip:") == 1, "one PRACK")
    call = wire.Call(wire.Stream(near.tls, near.authority), near.uri("491600"))
    check(call.invite().status == 200, "after a 422")
    check(call.ask("BYE").status == 200, "BYE")
    asked.end()
    stored = [it["reason"] for it in near.calls()]
    check(stored == ["call.caller_hung_up"] * 2, f"stored {stored}")
    near.stop()


@case(timeout=120)
def session_timers(box):
    """A callee's session of 90 s is refreshed after 45; one that the callee never refreshes, though
    it said so, ends after 60 (RFC 4028 section 10). Nearly all of this case is waiting."""
    first = free_ports(2)
    ports = [first, first + 1]
    near = Edge(box, CALLERS + trunk("ours", "4915", ports[0]) + trunk("theirs", "4916", ports[1]))
    near.start()
    fields = {"refuses": "", "timeout": 90}
    ours = sipp.Server(box, "timed", ports[0], name="ours", expires="90;refresher=uac",
                       refreshed=REFRESHED, **fields)
    theirs = sipp.Server(box, "timed", ports[1], name="theirs", expires="90;refresher=uas",
                         refreshed="", **fields)
    began = time.monotonic()
    calls = [wire.Call(wire.Stream(near.tls, near.authority, timeout=90), near.uri(f"{it}00"))
             for it in (4915, 4916)]
    for call in calls:
        check(call.invite().status == 200, "INVITE")
    check("UPDATE sip:" not in theirs.end(), "their refresh was ours")
    took = time.monotonic() - began
    check(55 <= took <= 75, f"the one without a refresh ended after {took:.1f} s")
    ended = near.wait_for_call(lambda it: it["state"] == "ended")
    check(ended["reason"] == "call.session_expired", ended["reason"])
    bye = calls[1].stream.receive(10)
    check(bye is not None and bye.start.startswith("BYE "), "the caller was not told")
    check(calls[0].ask("BYE").status == 200, "the one that was refreshed is gone")
    check("UPDATE sip:" in ours.end(), "no refresh")
    near.stop()


@case(timeout=60)
def our_certificate(box):
    """A carrier that insists on the certificate of one trunk's: with it the call goes through;
    another one's is refused, and the reason says what is wrong."""
    shown, key = box.path("trunk.pem"), box.path("trunk.key")
    done = box.run("openssl", [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "30", "-subj", "/CN=edge", "-addext", "subjectAltName=DNS:edge.example",
        "-keyout", key, "-out", shown,
    ])  # fmt: skip
    check(done.returncode == 0, done.stderr)
    near = Edge(box, CALLERS, client_ca=True)
    inside = free_ports(1)
    certificate = (near.root / "certs/server.pem", near.root / "certs/server.key")
    gate = sipp.Gate(box, inside, certificate, shown)
    plain = EXEMPT.replace('transports        = ["udp"]\n', "")
    plain = "\n".join(it for it in plain.splitlines() if not it.startswith("exempt.signalling"))
    ca = f'ca = "{near.authority}"'
    ours = f'{plain}\ntls = {{ {ca}, certificate = "{shown}", key = "{key}" }}'
    near.set_policy(CALLERS + trunk("known", "4915", gate.port, ours, "tls")
                    + trunk("unknown", "4916", gate.port, f"{plain}\ntls = {{ {ca} }}", "tls"))
    near.start()
    callee = sipp.Server(box, "answers", inside, mode="t1", format=0, ptime=20)
    stream = wire.Stream(near.tls, near.authority)
    answer = wire.Call(stream, near.uri("491600")).invite()
    check(answer.status == 502, answer.start)
    check("trunk.certificate_refused" in answer.header("Warning"), answer.header("Warning"))
    call = wire.Call(stream, near.uri("491500"))
    answer = call.invite()
    check(answer.status == 200, f"{answer.start} {answer.header('Warning')}")
    check(call.ask("BYE").status == 200, "BYE")
    callee.end()
    stored = [it["reason"] for it in near.calls()]
    check(stored == ["call.caller_hung_up", "trunk.certificate_refused"], f"stored {stored}")
    near.stop()


ZONES = """
[zone.{name}]
media           = "{media}"
media_advertise = "{told}"
{listen}
"""


@case(timeout=60)
def told_addresses(box):
    """Behind NAT: descriptions name the address of each leg's zone, of either family, and nothing
    of the other one's."""
    parties = {}
    for name, host in (("four", "IN IP4 127.0.0.1"), ("six", "IN IP6 ::1")):
        head = f"v=0\r\no=- 1 1 {host}\r\ns=-\r\nc={host}\r\nt=0 0\r\n"
        body = f"{head}m=audio 40000 RTP/AVP 0\r\n"
        parties[name] = wire.Callee(lambda _, body=body: body, host.split()[-1])
    told = {"inside": "192.0.2.7", "four": "198.51.100.7", "six": "2001:db8::7"}
    text = CALLERS.replace("[trunk.local]", '[trunk.local]\nzone = "inside"')
    text += ZONES.format(name="inside", media="127.0.0.1", told=told["inside"], listen="")
    for prefix, (name, party) in zip(("4915", "4916"), parties.items()):
        more = f'{EXEMPT}\nzone = "{name}"'
        more = more.replace("127.0.0.0/8", "::1" if name == "six" else "127.0.0.0/8")
        send_to = party.uri(f"{prefix}00")
        text += SIPP.format(name=name, prefix=prefix, send_to=send_to, more=more)
        listen = f'listen.udp = ["[::1]:{free_ports(1)}"]' if name == "six" else ""
        media = "::1" if name == "six" else "127.0.0.1"
        text += ZONES.format(name=name, media=media, told=told[name], listen=listen)
    near = Edge(box, text).start()
    for prefix, (name, party) in zip(("4915", "4916"), parties.items()):
        call = wire.Call(wire.Stream(near.tls, near.authority), near.uri(f"{prefix}00"))
        answer = call.invite()
        check(answer.status == 200, f"{name}: {answer.start} {answer.header('Warning')}")
        offer = party.named("INVITE")[-1].body.decode()
        family = "IP6" if name == "six" else "IP4"
        check(f"c=IN {family} {told[name]}\r\n" in offer, f"{name} is told {offer}")
        said = answer.body.decode()
        check(f"c=IN IP4 {told['inside']}\r\n" in said, f"the caller is told {said}")
        for text in (offer, said):
            check("127.0.0.1" not in text and "::1" not in text, f"a local address: {text}")
        check(told["inside"] not in offer and told[name] not in said, "the other side's address")
        check(call.ask("BYE").status == 200, "BYE")
    near.stop()
