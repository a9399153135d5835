"""The built-in caller."""

import json

from harness import sound
from harness.case import case, check
from harness.edge import BINARY, Edge


@case(alone=True)
def five_calls(box):
    """Five calls at a time: all answered, nothing lost."""
    edge = Edge(box).start()
    report = edge.load("--calls", "5", "--hold", "8")
    check((report["placed"], report["answered"]) == (5, 5), f"failed: {report['failures']}")
    setup, jitter = report["setup_ms"], report["jitter_ms"]
    box.note(f"set-up at most {setup['max']:.1f} ms, jitter at most {jitter['max']:.1f} ms")
    check(report["media"]["packets_lost"] == 0, f"lost: {report['media']}")
    check(report["media"]["packets_rejected"] == 0, f"rejected: {report['media']}")
    check(report["media"]["packets_received"] > 5 * 300, f"received: {report['media']}")
    check(len(report["calls"]) == 5, f"{len(report['calls'])} calls listed")
    edge.wait_for_call(lambda it: it["state"] == "ended")
    check(len(edge.calls()) == 5, "not every call is stored")
    edge.stop()


@case(timeout=100)
def first_call(box):
    """The call that `serve` suggests holds a conversation, and saves what it hears."""
    edge = Edge(box).start()
    heard = box.path("heard.wav")
    done = edge.box.run(
        "load", [*load_command(edge), "--calls", "1", "--save", heard, "--json"], timeout=80
    )
    check(done.returncode == 0, f"exit {done.returncode}: {done.stderr}")
    report = json.loads(done.stdout)
    check(report["calls"][0]["ending"] == "far_end", f"ended by {report['calls'][0]['ending']}")
    (samples,), rate = sound.read_wav(heard)
    text = sound.recognise(box, samples, rate)
    for wanted in ("your call is encrypted", "from monday to friday", "thank you for calling"):
        check(wanted in text, f"{wanted!r} is not in {text!r}")
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(call["reason"] == "call.agent_hung_up", f"ended by {call['reason']}")
    check(call["protection"] == "AEAD_AES_256_GCM", f"GCM is not preferred: {call['protection']}")
    edge.stop()


def load_command(edge):
    """`callgate load` to this edge."""
    return [BINARY, "load", "--to", edge.uri(), "--ca", edge.authority]


@case()
def refused_calls_say_why(box):
    """A call that is refused fails with status and reason, in the table and in the exit code."""
    edge = Edge(box).start()
    done = box.run(
        "load", [*load_command(edge), "--media", "plain", "--tone", "440", "--hold", "1"]
    )
    check(done.returncode == 1, f"exit {done.returncode}")
    check("488 policy.plaintext_media" in done.stdout, done.stdout)
    edge.stop()


@case()
def every_suite(box):
    """Each SRTP suite carries a call, late offers too."""
    edge = Edge(box).start()
    for suite in (
        "AEAD_AES_256_GCM",
        "AEAD_AES_128_GCM",
        "AES_CM_128_HMAC_SHA1_80",
        "AES_CM_128_HMAC_SHA1_32",
    ):
        options = ("--suites", suite, "--silent", "--hold", "1.5")
        report = edge.load(*options, name=f"load-{suite}")
        check(report["answered"] == 1, f"{suite}: {report['failures']}")
        check(report["calls"][0]["suite"] == suite, f"{suite}: {report['calls'][0]['suite']}")
        check(report["media"]["packets_received"] > 40, f"{suite}: {report['media']}")
    report = edge.load("--late-offer", "--silent", "--hold", "1.5", name="load-late")
    check(report["answered"] == 1, f"late offer: {report['failures']}")
    check(report["media"]["packets_received"] > 40, f"late offer: {report['media']}")
    edge.stop()
