"""Sides of the network: zones with listeners of their own; and keys that a quantum computer cannot
find out later."""

import json
import socket
import ssl
import time

from harness import wire
from harness.case import REPOSITORY, case, check, free_ports, wait_for
from harness.edge import Edge

from .plaintext import LATER

OUTSIDE, INSIDE = "127.0.0.1", "127.0.0.5"
OPENSSL = REPOSITORY / "target/peers/openssl/bin/python"

POLICY = """
[zone.inside]
listen.tls = ["127.0.0.5:{port}"]
listen.udp = ["127.0.0.5:{port}"]
advertise  = "inside.example"

[trunk.outside]
from = {{ networks = ["127.0.0.0/8"] }}

[trunk.inside]
from = {{ networks = ["127.0.0.0/8"] }}
zone = "inside"
{more}

[[route]]
when    = {{ trunk = "{served}", called = {{ exact = "reception" }} }}
send_to = {{ agent = "reception" }}
"""


def policy(port, served="inside", more=""):
    """A policy with a zone at 127.0.0.5."""
    return POLICY.format(port=port, served=served, more=more)


class Zoned(wire.Stream):
    """A TLS connection to a listener of a zone."""

    def __init__(self, edge, port):
        plain = socket.create_connection((INSIDE, port), 5)
        context = ssl.create_default_context(cafile=str(edge.authority))
        # The development certificate names 127.0.0.1 and localhost.
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.buffer = b""


def is_open(edge, port):
    """Whether somebody listens at the zone's TLS address."""
    try:
        Zoned(edge, port).close()
        return True
    except OSError:
        return False


@case()
def trunks_are_known_at_their_zone_only(box):
    """The same peer is one trunk at a zone's listener and another at the edge's own."""
    port = free_ports(1, INSIDE)
    edge = Edge(box, policy(port)).start()
    inside = wire.Call(Zoned(edge, port), "sip:reception@127.0.0.5")
    answer = inside.invite()
    check(answer.status == 200, f"inside: {answer.start}")
    contact = answer.contact()
    check(f"inside.example:{port}" in contact, f"inside Contact: {contact}")
    check(inside.ask("BYE").status == 200, "BYE inside")
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(call["trunk"] == "inside", f"stored as {call['trunk']}")

    outside = wire.Call(wire.Stream(edge.tls, edge.authority), edge.uri())
    answer = outside.invite()
    check(answer.status == 404, f"outside: {answer.start}")
    call = edge.wait_for_call(lambda it: it["trunk"] == "outside")
    check(call["reason"] == "policy.no_route", f"stored {call['reason']}")

    # A zone that no trunk is at knows nobody.
    edge.set_policy(policy(port).replace('zone = "inside"', ""))
    edge.hup()
    edge.wait_for_log('policy.loaded","version":2', 5)
    lost = wire.Call(Zoned(edge, port), "sip:reception@127.0.0.5")
    answer = lost.invite()
    check(answer.status == 403 and not answer.header("Warning"), f"nobody: {answer.start}")
    count = edge.metric("callgate_sip_request_refused_total", reason="policy.unknown_peer")
    check(count >= 1, "not counted as an unknown peer")
    edge.stop()


@case()
def zones_open_and_close_with_the_policy(box):
    """A reload opens what is new and closes what is gone; other connections do not notice."""
    first, second = free_ports(1, INSIDE), free_ports(1, "127.0.0.6")
    edge = Edge(box, policy(first)).start()
    own = wire.Stream(edge.tls, edge.authority)
    zoned = Zoned(edge, first)
    call = wire.Call(zoned, "sip:reception@127.0.0.5")
    check(call.invite().status == 200, "the call inside")

    more = policy(first) + f'[zone.other]\nlisten.tls = ["{INSIDE}:{second}"]\n'
    edge.set_policy(more)
    edge.hup()
    wait_for("the new zone is open", lambda: is_open(edge, second), 5)
    check(call.ask("OPTIONS").status == 200, "the open call noticed")
    edge.set_policy(policy(first))
    edge.hup()
    wait_for("the new zone is closed", lambda: not is_open(edge, second), 5)

    # UDP of the zone opens with an exemption of its own trunk, and not of another's.
    probe = wire.Datagrams(edge.plain)
    probe.socket.connect((INSIDE, first))
    check(probe.is_refused(), "UDP is open without an exemption")
    exempt = f'exempt.signalling = {{ reason = "interop", expires = {LATER} }}'
    edge.set_policy(policy(first, more=f'transports = ["tls", "udp"]\n{exempt}'))
    edge.hup()
    wait_for("UDP of the zone is open", lambda: not udp_refused(first), 5)
    check(udp_refused(edge.plain, OUTSIDE), "UDP of the edge's own side is open too")

    own.send(wire.request("OPTIONS", edge.uri()))
    check(own.final().status == 200, "the edge's own connection noticed")
    check(call.ask("BYE").status == 200, "the open call noticed")
    edge.stop()


def udp_refused(port, host=INSIDE):
    """Whether nobody listens there."""
    probe = wire.Datagrams(port)
    probe.socket.connect((host, port))
    try:
        return probe.is_refused()
    finally:
        probe.close()


@case()
def an_address_that_is_not_there_yet_is_tried_again(box):
    """A zone's address that somebody else holds is told once, and opened when it is free."""
    port = free_ports(1, INSIDE)
    taken = socket.socket()
    taken.bind((INSIDE, port))
    taken.listen()
    edge = Edge(box, policy(port)).start()
    edge.wait_for_log("transport.listener.failed", 5)
    check(edge.health()["status"] != "healthy", f"health says {edge.health()}")
    time.sleep(2.5)
    count = edge.logs().count("transport.listener.failed")
    check(count == 1, f"told {count} times")
    taken.close()
    wait_for("the zone is open", lambda: is_open(edge, port), 5)
    wait_for("health is well", lambda: edge.health()["status"] == "healthy", 5)
    edge.stop()


@case()
def overlaps_are_found_by_check(box):
    """`check` refuses a zone that listens where the edge itself does."""
    edge = Edge(box)
    text = policy(edge.tls).replace("127.0.0.5", "127.0.0.1")
    edge.set_policy(text)
    done = edge.command("check")
    check(done.returncode == 1 and "[listen] of the edge has tls" in done.stderr, done.stderr)
    edge.set_policy(policy(edge.tls).replace("127.0.0.5", "224.0.0.5"))
    done = edge.command("check")
    check(done.returncode == 1 and "multicast" in done.stderr, done.stderr)


@case()
def openssl_exchanges_keys_post_quantum(box):
    """OpenSSL and the edge agree on X25519MLKEM768 without being told to, and speak SIP."""
    edge = Edge(box).start()
    client = REPOSITORY / "tests/harness/post_quantum.py"
    done = box.run("post-quantum", [OPENSSL, "-B", client, edge.tls, edge.authority])
    check(done.returncode == 0, done.stderr)
    found = json.loads(done.stdout)
    check(found["group"] == "X25519MLKEM768", f"{found}")
    check(found["protocol"] == "TLSv1.3", f"{found}")
    check(found["answer"] == "SIP/2.0 200 OK", f"{found}")
    box.note(found["openssl"])
    edge.stop()
