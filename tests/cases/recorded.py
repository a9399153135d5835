"""Calls between trunks that are recorded: both voices whole, each in its channel, and nothing kept
where a trunk forbids it."""

import json
import os
import time

from harness import search, sound, tone
from harness.case import case, check, environment
from harness.edge import BINARY

from .tones import CALLEE, CM_32, CM_80, SECONDS, check_tone, pair

ALLOWED = 'recording = "allowed"\n'
RECORDED = "record = true\n"


def talk(edge, caller, callee):
    """A call of some seconds; as it is stored."""
    caller.dial(edge.uri(CALLEE))
    time.sleep(SECONDS)
    caller.hang_up()
    callee.wait_log("terminated", 10)
    return edge.wait_for_call(lambda it: it["state"] == "ended")


def exported(box, edge, call):
    """The recording of a call as `calls export` opens it: its channels and rate, its document."""
    folder = box.path("export")
    done = edge.command("calls", "export", call["call_id"], "--to", folder, name="export")
    check(done.returncode == 0, f"calls export: {done.stderr}")
    document = json.loads((folder / f"{call['call_id']}.json").read_text())
    return *sound.read_wav(folder / f"{call['call_id']}.wav"), document


def played(box, edge, call):
    """What `calls play` has a player of this machine play."""
    path = box.path("played.wav")
    box.write("bin/aplay", f"#!/bin/sh\ncat >'{path}'\n").chmod(0o755)
    paths = f"{box.path('bin')}:{os.environ['PATH']}"
    command = [BINARY, "calls", "play", call["call_id"], "--config", edge.config]
    done = box.run("play", command, env=environment() | {"PATH": paths})
    check(done.returncode == 0, f"calls play: {done.stderr}")
    return sound.read_wav(path)


def whole(box, inward, outward, noise_db):
    """Both tones are in the recording, each in its channel, and both were heard whole meanwhile."""
    edge, caller, callee = pair(box, inward, outward, (CM_80, CM_32), more=ALLOWED, route=RECORDED)
    call = talk(edge, caller, callee)
    check(call["recording"], f"stored {call}")
    check_tone(box, "callee", callee.heard(), callee.rate, tone.LOW, noise_db)
    check_tone(box, "caller", caller.heard(), caller.rate, tone.HIGH, noise_db)
    channels, rate, document = exported(box, edge, call)
    check(len(channels) == 2, f"{len(channels)} channels")
    for side, samples, frequency in zip(("left", "right"), channels, (tone.LOW, tone.HIGH)):
        check_tone(box, side, samples, rate, frequency, noise_db)
    length = len(channels[0]) / rate
    check(abs(length - call["talked_ms"] / 1000) < 0.5, f"{length} s of {call['talked_ms']} ms")
    check(not document["transcript"], f"nobody wrote down what was said: {document['transcript']}")
    check(played(box, edge, call)[0] == channels, "`calls play` and `calls export` differ")
    edge.stop()
    raw = channels[0][rate : rate + 40].tobytes()
    found = search.find_bytes(edge.data, raw) + search.find_bytes(edge.data, b"RIFF")
    check(not found, f"audio in the clear: {found}")
    audited = edge.command("audit", "list").stdout
    check("recording.closed" in audited and " complete " in audited, audited)


@case(timeout=90)
def transcoded(box):
    """G.722 to G.711: what is decoded anyhow."""
    whole(box, "G722", "PCMA", -20)


@case(timeout=90)
def forwarded(box):
    """The same codec on both sides: what passes through undecoded."""
    whole(box, "PCMU", "PCMU", -30)


@case(timeout=120)
def switched_off(box):
    """The most restrictive switch wins: neither trunk alone can have a call recorded, nor can a
    route; what is not recorded is nowhere."""
    edge, caller, callee = pair(box, "PCMU", "PCMA", (CM_80, CM_80), more=ALLOWED)
    allowed = (edge.root / "policy.toml").read_text()
    routed, never = allowed + RECORDED, 'recording = "never"\n'
    callee_only, _, last = routed.rpartition(ALLOWED)
    policies = {
        "no route asks for it": allowed,
        "the callee's trunk forbids it": routed.replace(ALLOWED, never, 1),
        "the caller's trunk does not allow it": callee_only + last,
        "both forbid it": routed.replace(ALLOWED, never),
    }
    for version, (what, text) in enumerate(policies.items(), start=1):
        if version > 1:
            edge.set_policy(text)
            edge.hup()
            edge.wait_for_log(f'policy.loaded","version":{version}', 5)
        report = edge.load("--hold", "2", name=f"load-{version}", user=CALLEE)
        check(report["answered"] == 1, f"{what}: {report['failures']}")
        call = edge.wait_for_call(lambda it: it["state"] == "ended")
        check(not call["recording"], f"{what}: stored {call}")
    edge.stop()
    audio = [it for it in edge.data.rglob("*") if it.is_file() and not it.name.startswith("vault.")]
    check(not audio, f"files of calls that keep nothing: {audio}")
    caller.stop()
    callee.stop()
