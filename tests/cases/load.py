"""The built-in caller."""

import json

from harness import sound
from harness.case import REPOSITORY, case, check, free_ports
from harness.edge import BINARY, Edge

# The edge knows us as one trunk, and dials the load tester's own callee as the other.
BETWEEN = """
[trunk.local]
from       = {{ networks = ["127.0.0.1/32"] }}

[trunk.far]
send_to    = ["sip:127.0.0.1:{port};transport=tls"]
tls        = {{ ca = "{root}/certs/ca.pem" }}

[[route]]
when    = {{ trunk = "local", called = {{ prefix = "+4930" }} }}
send_to = {{ trunk = "far" }}
"""


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


def between(box):
    """An edge that dials the load tester's own callee, and the port that it listens at."""
    port = free_ports()
    edge = Edge(box, BETWEEN.format(port=port, root=box.path("edge")))
    edge.command("certs")
    return edge.start(), port


def scenario(box, edge, port, name, *settings, timeout=100):
    """Runs a shipped scenario with both roles; its report, its page and how it ended."""
    report, page = box.path(f"{name}.json"), box.path(f"{name}.html")
    words = [
        f"callee.certificate={edge.root}/certs/server.pem",
        f"callee.key={edge.root}/certs/server.key",
        *settings,
    ]
    command = [BINARY, "load", "--scenario", REPOSITORY / f"benches/scenarios/{name}.toml"]
    command += ["--to", edge.uri("+4930{token}"), "--answer", f"127.0.0.1:{port}"]
    command += ["--ca", edge.authority, "--report", report, "--html", page]
    command += [argument for word in words for argument in ("--set", word)]
    done = box.run(name, command, timeout=timeout)
    check(report.exists(), f"no report:\n{done.stdout}{done.stderr}")
    found = json.loads(report.read_text())
    check("<svg" in page.read_text(), "the page has no plot")
    own = found["own"]
    valid = "valid" if found["is_valid"] else f"not valid: {'; '.join(found['invalid_because'])}"
    box.note(f"{name}: {own['behind']} of {own['ticks']} ticks late; {valid}")
    return found, done


def in_order(found, *names):
    """Checks that these expectations hold; times are another matter on a busy machine."""
    for judged in found["expectations"]:
        if judged["expectation"].split(" ")[0] in names:
            check(judged["holds"], f"{judged['expectation']}: {judged['found']}")


@case(alone=True, timeout=150)
def trunk_to_trunk(box):
    """Callers and callees of one run on both sides of an edge find each other; media is whole."""
    edge, port = between(box)
    quick = ("stage.0.for=3s", "stage.1.for=3s", "limits.calls=40", "caller.2.talk=12s")
    found, _ = scenario(box, edge, port, "trunk-to-trunk", *quick)
    in_order(found, "answered", "paired", "through", "injected")
    through = found["through"]
    check(through["paired"] >= 20, f"paired: {through}")
    check(through["unstamped"] == 0 and through["packets"] > 20 * 2 * 150, f"{through}")
    kinds = {it["name"]: it for it in found["kinds"]}
    check(kinds["gives up while it rings"]["answered"] == 0, f"{kinds}")
    check(found["callees"]["media"]["packets_rejected"] == 0, f"{found['callees']['media']}")
    delay = through["delay_ms"]
    box.note(f"one way p50 {delay['p50']:.2f} ms, p99 {delay['p99']:.2f} ms")
    edge.stop()


@case(alone=True, timeout=150)
def hostile(box):
    """Bad actors of every kind beside good calls: nothing gets in, nothing gets out."""
    edge, port = between(box)
    found, done = scenario(
        box,
        edge,
        port,
        "hostile",
        "stage.0.for=8s",
        f"actor.1.to=sip:+49301234567@127.0.0.1:{edge.plain};transport=udp",
        f"actor.4.to={edge.uri('nobody')}",
    )
    for actor in found["actors"]:
        check(actor["has_passed"], f"{actor['name']}: {actor['verdict']} {actor['outcomes']}")
    in_order(found, "answered", "injected", "replayed", "to", "got")
    check(done.returncode == 0, f"exit {done.returncode}: {done.stdout}")
    by_kind = {it["kind"]: it for it in found["actors"]}
    check(len(by_kind) == 6, f"{list(by_kind)}")
    for kind in ("stranger_rtp", "srtp_replay"):
        check(by_kind[kind]["packets"] > 300, f"{kind} sent {by_kind[kind]['packets']}")
        check("nothing injected" in by_kind[kind]["verdict"], by_kind[kind]["verdict"])
    edge.stop()


@case()
def scenario_errors(box):
    """What is wrong in a scenario is told with its place and a suggestion; nothing is sent."""
    file = box.write("wrong.toml", '[[stage]]\nrate = 1\nfor = "10s"\n\n[[callr]]\n')
    done = box.run("wrong", [BINARY, "load", "--scenario", file])
    check(done.returncode == 2, f"exit {done.returncode}")
    check("wrong.toml:5:3" in done.stderr, done.stderr)
    check("did you mean `caller`?" in done.stderr, done.stderr)
