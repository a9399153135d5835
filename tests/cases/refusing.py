"""sipp as the trunks of a route: what is final, what sends a call on, and callers who give up."""

import re
import socket
import time

from harness import sipp, wire
from harness.case import case, check, free_ports
from harness.edge import Edge

CALLEE = "4915735550951"

TRUNK = """
[trunk.{name}]
send_to           = ["sip:{callee}@127.0.0.1:{port};transport=udp"]
transports        = ["udp"]
codecs            = ["pcmu"]
first_response    = "1s"
srtp              = {{ outbound = "optional" }}
media_from        = ["127.0.0.0/8"]
exempt.signalling = {{ reason = "a test", expires = 2099-01-31 }}
exempt.media      = {{ reason = "a test", expires = 2099-01-31, outbound = true }}
"""
REST = """
[trunk.caller]
from = { networks = ["127.0.0.1/32"] }

[[route]]
send_to = { trunks = [{ name = "first" }, { name = "second" }] }
"""


def edge_to(box, first, second):
    """An edge that calls the port `first`, and then, where it may, `second`."""
    text = "".join(TRUNK.format(name=name, callee=CALLEE, port=port)
                   for name, port in (("first", first), ("second", second)))
    return Edge(box, text + REST).start()


class Listening:
    """A port at which nobody answers; it counts what came."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def invites(self):
        """What came until now: one for each INVITE and each retransmission of it."""
        self.socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.socket.recv(65_536))
        except BlockingIOError:
            return [it for it in found if it.startswith(b"INVITE ")]


def call_to(edge):
    """A call, not yet placed."""
    return wire.Call(wire.Stream(edge.tls, edge.authority), edge.uri(CALLEE))


def final(box, status, cause):
    """The first trunk refuses finally: the second one is not called."""
    second, port = Listening(), free_ports(1)
    callee = sipp.Server(box, "refuses", port, status=status)
    edge = edge_to(box, port, second.port)
    answer = call_to(edge).invite()
    check(answer.status == status, f"{status} became {answer.start}")
    # The callee gave no cause: the caller's network gets that of the status.
    check(answer.header("Reason").startswith(f"Q.850;cause={cause};"), answer.header("Reason"))
    callee.end()
    time.sleep(0.5)
    check(not second.invites(), f"after {status} the second trunk was called")
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    box.note(f"{status}: {stored['reason']}")
    edge.stop()


@case()
def busy(box):
    """486 is final."""
    final(box, 486, 17)


@case()
def declined(box):
    """603 is final."""
    final(box, 603, 21)


def goes_on(box, edge, first):
    """The second trunk answers the call."""
    began = time.monotonic()
    call = call_to(edge)
    answer = call.invite()
    took = time.monotonic() - began
    check(answer.status == 200, answer.start)
    box.note(f"answered after {took:.2f} s")
    check(call.ask("BYE").status == 200, "BYE")
    first()
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["reason"] == "call.caller_hung_up", stored["reason"])
    edge.stop()
    return took


def second_answers(box):
    """sipp as the second trunk; its port."""
    port = free_ports(1)
    callee = sipp.Server(box, "answers", port, name="second", format=0, ptime=20)
    return callee, port


@case()
def unavailable(box):
    """503 sends the call on at once."""
    second, answering = second_answers(box)
    port = free_ports(1)
    first = sipp.Server(box, "refuses", port, status=503)
    took = goes_on(box, edge_to(box, port, answering), first.end)
    check(took < 1, f"answered after {took:.2f} s")
    messages = second.end()
    check(messages.count("INVITE sip:") == 1, "one INVITE")


@case()
def silent(box):
    """Who does not even say 100 is left after `first_response`."""
    second, answering = second_answers(box)
    first = Listening()
    invites = []
    took = goes_on(box, edge_to(box, first.port, answering),
                   lambda: invites.extend(first.invites()))
    check(1 <= took < 3, f"answered after {took:.2f} s")
    check(invites, "the first trunk was not called")
    second.end()


def given_up(box, scenario, ended_by, why=""):
    """A caller who hangs up while it rings: CANCEL with header lines `why`, 487 to the caller, and
    the callee's scenario at its end."""
    second, port = Listening(), free_ports(1)
    callee = sipp.Server(box, scenario, port)
    edge = edge_to(box, port, second.port)
    call = call_to(edge)
    invite = call.build("INVITE", wire.sdp())
    call.stream.send(invite)
    while (ringing := call.stream.receive()) and ringing.status != 180:
        pass
    check(ringing is not None, "it does not ring")
    head = invite.partition(b"Content-Type")[0].replace(b"INVITE", b"CANCEL")
    call.stream.send(head + why.encode() + b"Content-Length: 0\r\n\r\n")
    answers = {}
    while len(answers) < 2:
        answer = call.stream.final()
        answers[answer.header("CSeq").split()[1]] = answer
    check(answers["CANCEL"].status == 200, answers["CANCEL"].start)
    check(answers["INVITE"].status == 487, answers["INVITE"].start)
    to = answers["INVITE"].header("To").encode()
    ack = re.sub(rb"\r\nTo: [^\r]*", lambda _: b"\r\nTo: " + to, head.replace(b"CANCEL", b"ACK"))
    call.stream.send(ack + b"Content-Length: 0\r\n\r\n")
    messages = callee.end()
    check(not second.invites(), "the second trunk was called")
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["reason"] == ended_by, stored["reason"])
    shown = edge.command("calls", "show", stored["call_id"], name="show").stdout
    check(ended_by in shown, shown)
    check(edge.metric("callgate_calls") == 0, "a call is left")
    edge.stop()
    return messages


@case()
def cancelled(box):
    """CANCEL while it rings, since somebody answered elsewhere: nobody has missed the call."""
    why = 'Reason: SIP;cause=200;text="picked up at desk.inside.example"\r\n'
    messages = given_up(box, "cancelled", "call.completed_elsewhere", why)
    check("BYE sip:" not in messages, "a call that never was got a BYE")
    told = messages.partition("CANCEL sip:")[2].partition("\r\n\r\n")[0].splitlines()
    told = [it.strip() for it in told if it.startswith("Reason:")]
    check(told == ['Reason: SIP;cause=200;text="Call completed elsewhere"'], f"told {told}")
    check("inside.example" not in messages, "the caller's network is named")


@case()
def cancel_crosses_the_answer(box):
    """The callee answers as CANCEL comes: ACK and BYE end what it thinks is a call."""
    messages = given_up(box, "crosses", "call.cancelled")
    for method in ("CANCEL", "BYE"):
        told = messages.partition(f"{method} sip:")[2].partition("Content-Length")[0]
        check("Q.850;cause=16" in told, f"{method} without a cause: {told}")
