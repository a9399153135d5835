"""What an operator and an eavesdropper see."""

import signal
import ssl

from harness import sound, wire
from harness.capture import Capture
from harness.case import case, check, wait_for
from harness.edge import Edge
from harness.phone import Phone


@case(timeout=90)
def metrics_and_health(box):
    """Calls, refusals by reason, and relay stages with their drops are counted."""
    edge = Edge(box).start()
    health = edge.health()
    check(health["status"] == "healthy" and health["service"] == "callgate", f"{health}")
    check(edge.get("/health/live")[0] == 200, "no /health/live")
    check(edge.get("/nothing")[0] == 404, "no 404")
    edge.load("--calls", "2", "--hold", "2", "--silent")
    edge.load("--media", "plain", "--silent", "--hold", "1", name="plain")
    edge.wait_for_call(lambda it: it["state"] == "ended")
    check(edge.metric("callgate_call_arrived_total") == 3, "arrived")
    check(edge.metric("callgate_call_answered_total") == 2, "answered")
    ended = edge.metric("callgate_call_ended_total", reason="call.caller_hung_up")
    check(ended == 2, f"ended {ended}")
    refused = edge.metric("callgate_call_ended_total", reason="policy.plaintext_media")
    check(refused == 1, f"refused {refused}")
    samples = edge.metrics()
    stages = {it.split('stage="')[1].split('"')[0] for it in samples if "relay_stage_" in it}
    # DESIGN section 2 names the stages of a packet.
    wanted = {"receive", "demux", "unprotect", "latch", "transform", "tap", "protect", "send"}
    check(wanted <= stages, f"stages counted: {sorted(stages)}")
    drops = [it for it in samples if it.startswith("callgate_relay_stage_drop_total")]
    check(len(drops) > 5 and all('reason="' in it for it in drops), f"drops: {drops}")
    sent = edge.metric("callgate_relay_stage_count_total", stage="send")
    check(sent > 100, f"sent {sent} packets")
    edge.stop()


@case(timeout=90)
def wiretap(box):
    """On the wire: SIP inside TLS only, and media that is noise to whoever has no key."""
    edge = Edge(box).start()
    caller = "+4915735550401"
    capture = Capture(box)
    phone = Phone(box, caller, "PCMU", edge.authority)
    phone.dial(edge.uri())
    at = phone.wait_for_quiet(1.2, 30)
    phone.say("opening hours")
    phone.wait_for_speech(12, since=at)
    phone.hang_up()
    edge.wait_for_call(lambda it: it["state"] == "ended")
    capture.stop()
    keys = phone.keys()
    check(len(keys) >= 2, "no keys in baresip's log")
    # The console and metrics of this very test are on loopback as well: only these ports count.
    signalling = capture.payloads(f"tcp.port == {edge.tls}", "tcp.payload")
    plain = b"".join(signalling)
    check(len(plain) > 3_000, f"{len(plain)} bytes of signalling captured")
    for secret in [b"INVITE ", b"SIP/2.0", b"inline:", caller.encode(), *map(str.encode, keys)]:
        check(secret not in plain, f"{secret[:12]!r} crosses the wire in the clear")
    media = capture.payloads("udp && !icmp")
    media = [it for it in media if len(it) > 160 and it[0] >> 6 == 2]
    check(len(media) > 400, f"{len(media)} media packets captured")
    noise = sound.entropy(b"".join(it[12:160] for it in media))
    box.note(f"{noise:.3f} bits per byte")
    check(noise > 7.95, f"{noise:.2f} bits per byte: that is not encrypted")
    # What the same call would look like without SRTP, so that the figure above means something.
    speech = sound.entropy(sound.pcmu(phone.heard()))
    check(speech < 7, f"plain mu-law has {speech:.2f} bits per byte: the measure is useless")
    edge.stop()


@case()
def certificates_reload(box):
    """SIGHUP takes a new certificate without a word to open calls; a bad one is not taken."""
    edge = Edge(box).start()
    stream = wire.Stream(edge.tls, edge.authority)
    before = stream.socket.getpeercert(binary_form=True)
    call = wire.Call(stream, edge.uri())
    answer = call.invite()
    check(answer.status == 200, answer.start)
    other = Edge(box, name="other")
    made = other.command("certs")
    check(made.returncode == 0, made.stderr)
    for name in ("server.pem", "server.key", "ca.pem"):
        (edge.root / "certs" / name).write_bytes((other.root / "certs" / name).read_bytes())
    edge.hup()
    edge.wait_for_log("transport.certificates.reloaded", 5)
    fresh = wire.Stream(edge.tls, edge.authority)
    after = fresh.socket.getpeercert(binary_form=True)
    check(after != before, "the old certificate is still shown")
    answer = call.ask("OPTIONS")
    check(answer.status == 200, f"within the open call: {answer.start}")

    (edge.root / "certs/server.pem").write_text("no certificate")
    edge.hup()
    edge.wait_for_log("transport.certificates.rejected", 5)
    again = wire.Stream(edge.tls, edge.authority)
    check(again.socket.getpeercert(binary_form=True) == after, "the bad certificate did harm")
    answer = call.ask("BYE")
    check(answer.status == 200, f"BYE: {answer.start}")
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["reason"] == "call.caller_hung_up", f"ended by {stored['reason']}")
    edge.stop()


@case()
def tls_versions(box):
    """TLS 1.2 and 1.3 are spoken, nothing older; a caller who trusts nobody is not fooled."""
    edge = Edge(box).start()

    def connect(version, authority=edge.authority):
        context = ssl.create_default_context(cafile=str(authority))
        context.minimum_version = context.maximum_version = version
        # Debian's OpenSSL must be told before it even offers the old ones.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with wire.socket.create_connection(("127.0.0.1", edge.tls), timeout=5) as plain:
            return context.wrap_socket(plain, server_hostname="127.0.0.1").version()

    check(connect(ssl.TLSVersion.TLSv1_3) == "TLSv1.3", "TLS 1.3")
    check(connect(ssl.TLSVersion.TLSv1_2) == "TLSv1.2", "TLS 1.2")
    for version in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1):
        try:
            spoken = connect(version)
        except (ssl.SSLError, OSError):
            continue
        check(False, f"{spoken} is spoken")
    edge.stop()


@case(timeout=90)
def drain(box):
    """SIGTERM: the open call goes on to its end, new ones get 503, then the edge ends."""
    edge = Edge(box).start()
    stream = wire.Stream(edge.tls, edge.authority)
    call = wire.Call(stream, edge.uri())
    check(call.invite().status == 200, "the first call")
    edge.process.send_signal(signal.SIGTERM)
    wait_for("health says draining", lambda: edge.get("/health")[0] == 503, 5)
    check("draining" in edge.get("/health")[1], "health does not say why")
    answer = wire.Call(stream, edge.uri()).invite()
    check(answer.status == 503 and answer.header("Retry-After"), f"a new call: {answer.raw!r}")
    check(call.ask("OPTIONS").status == 200, "the open call")
    check(call.ask("BYE").status == 200, "BYE of the open call")
    code = edge.process.wait(10)
    check(code == 0, f"exit {code}")
    reasons = sorted(it["reason"] for it in edge.calls())
    check(reasons == ["call.caller_hung_up", "edge.draining"], f"stored: {reasons}")


@case(timeout=60)
def cut(box):
    """A second signal cuts what is left: the peer gets BYE, and the call is stored as ended."""
    edge = Edge(box).start()
    call = wire.Call(wire.Stream(edge.tls, edge.authority), edge.uri())
    check(call.invite().status == 200, "the call")
    edge.process.send_signal(signal.SIGTERM)
    wait_for("health says draining", lambda: edge.get("/health")[0] == 503, 5)
    edge.process.send_signal(signal.SIGINT)
    bye = call.stream.receive(5)
    check(bye and bye.start.startswith("BYE "), f"no BYE but {bye and bye.start}")
    check(edge.process.wait(15) == 0, "exit")
    (stored,) = edge.calls()
    check(stored["state"] == "ended", f"stored as {stored['state']}")
    check(stored["reason"] == "call.operator_hung_up", f"stored: {stored['reason']}")

