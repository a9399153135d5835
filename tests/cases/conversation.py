"""baresip calls the voice agent over TLS and mandatory SRTP, speaks, presses a key, and listens."""

import json
import re

from harness import search, sound
from harness.case import case, check
from harness.edge import Edge
from harness.phone import Phone

# What is said in the calls, and must be found in no file of the store and no log.
SPOKEN = [
    "opening hours",
    "monday to friday",
    "nine in the morning",
    "five in the afternoon",
    "anything else",
    "thank you for calling",
    "your call is encrypted",
]
GREETING = "your call is encrypted"
ANSWER = "from nine in the morning to five in the afternoon"
GOODBYE = "goodbye"


def converse(box, codec, caller):
    """A whole conversation; the edge (still serving) and the phone."""
    edge = Edge(box).start()
    box.secret(*SPOKEN)
    phone = Phone(box, caller, codec, edge.authority)
    phone.dial(edge.uri())
    at = phone.wait_for_quiet(1.2, 30)
    phone.say("opening hours")
    # The answer, and the question whether there is anything else.
    at = phone.wait_for_speech(12, since=at)
    phone.wait_for_quiet(1.5, 40, since=at)
    phone.press("3")
    phone.wait_log("terminated", 15)
    return edge, phone


def check_heard(box, phone):
    """The caller heard the greeting from its start, the answer and the goodbye."""
    text = sound.recognise(box, phone.heard(), phone.rate)
    for wanted in ("hello this is call gate", GREETING, ANSWER):
        check(wanted in text, f"the caller did not hear {wanted!r} but {text!r}")
    check(text.endswith(GOODBYE), f"the caller's last words heard are not a goodbye: {text!r}")


def check_transcript(edge, call):
    """The transcript holds who said what, in order."""
    shown = edge.command("calls", "show", call["call_id"], "--ladder", name="calls-show")
    check(shown.returncode == 0, f"calls show: {shown.stderr}")
    lines = [it.strip() for it in shown.stdout.splitlines()]
    caller = [it for it in lines if re.match(r"[\d.]+ caller ", it)]
    agent = [it for it in lines if re.match(r"[\d.]+ agent ", it)]
    check(any("opening hours" in it.lower() for it in caller), f"caller's turns: {caller}")
    for wanted in ("your call is encrypted", "from nine in the morning", "thank you for calling"):
        check(any(wanted in it.lower() for it in agent), f"{wanted!r} is not in {agent}")
    check("INVITE sip:reception@" in shown.stdout, "no SIP ladder")
    return shown.stdout


def check_recording(box, edge, call):
    """The exported recording holds the caller left and the voice agent right."""
    folder = box.path("export")
    done = edge.command("calls", "export", call["call_id"], "--to", folder, name="calls-export")
    check(done.returncode == 0, f"calls export: {done.stderr}")
    channels, rate = sound.read_wav(folder / f"{call['call_id']}.wav")
    check(len(channels) == 2, f"{len(channels)} channels")
    left, right = channels
    spoken = [sound.speech_seconds(it, rate) for it in channels]
    # The caller's one sentence lasts a second; the agent's turns some twenty.
    check(0.4 <= spoken[0] <= 4, f"the left channel holds {spoken[0]:.1f} s of speech")
    check(spoken[1] >= 8, f"the right channel holds {spoken[1]:.1f} s of speech")
    said = sound.recognise(box, left, rate, "left")
    check("opening hours" in said, f"left is {said!r}")
    check(ANSWER not in said and GREETING not in said, f"the agent is on the left: {said!r}")
    answered = sound.recognise(box, right, rate, "right")
    for wanted in (GREETING, ANSWER):
        check(wanted in answered, f"right is {answered!r}, without {wanted!r}")
    length = len(left) / rate
    check(abs(length - call["talked_ms"] / 1000) < 1.5, f"{length} s of {call['talked_ms']} ms")
    document = json.loads((folder / f"{call['call_id']}.json").read_text())
    roles = [it["role"] for it in document["transcript"]]
    check({"caller", "agent"} <= set(roles), f"exported turns of {roles}")
    starts = [it["start_ms"] for it in document["transcript"]]
    check(starts == sorted(starts), f"turns out of order: {starts}")


def check_sealed(box, edge, phone):
    """No file of the store holds a word, the number or a key, in any encoding tried."""
    texts = [*SPOKEN, "encrypted", "afternoon", phone.caller, phone.caller.lstrip("+")]
    found, files = search.find(edge.data, texts)
    check(files >= 2, f"only {files} files in the store")
    check(not found, "found in the store: " + "; ".join(found))
    keys = phone.keys()
    check(len(keys) >= 2, "baresip's log shows no SRTP keys")
    box.secret(*keys)
    for key in keys:
        check(not search.find_bytes(edge.data, key.encode()), "an SRTP key is in the store")
    secret = edge.root / "keys/vault.key"
    check(secret.stat().st_mode & 0o777 == 0o600, "others may read the key-encryption key")
    # The search itself can find: each encoding is planted and looked for.
    for number, (name, wanted) in enumerate(search.encodings(phone.caller)):
        planted = box.path(f"planted/{number}")
        planted.mkdir(parents=True)
        (planted / "file").write_bytes(b"\x07" * 5 + wanted + b"\x07")
        check(search.find(planted, [phone.caller])[0], f"the search cannot find {name}")


def whole_conversation(codec, caller):
    """The case for one codec."""

    def run(box):
        edge, phone = converse(box, codec, caller)
        call = edge.wait_for_call(lambda it: it["state"] == "ended")
        check(call["reason"] == "call.agent_hung_up", f"ended by {call['reason']}")
        check(call["codec"].lower() == codec.lower(), f"stored codec {call['codec']}")
        check(call["protection"].startswith("AES_CM_128"), f"stored {call['protection']}")
        check(call["from"] == caller, f"stored caller {call['from']}")
        check("BYE sip:" in phone.log(), "the voice agent sent no BYE")
        shown = check_transcript(edge, call)
        check(not [key for key in phone.keys() if key in shown], "the ladder shows a key")
        found = edge.command("calls", "list", "--number", caller, name="by-number")
        check(call["call_id"] in found.stdout, "not found by the caller's number")
        check_heard(box, phone)
        check_recording(box, edge, call)
        edge.stop()
        check_sealed(box, edge, phone)
        verified = edge.command("audit", "verify")
        check(verified.returncode == 0 and "whole" in verified.stdout, verified.stdout)

    return run


# One of them by epoll, whatever the kernel allows.
for name, digits in (("PCMU", "201"), ("PCMA", "202"), ("G722", "203"), ("opus", "204")):
    driver = "epoll" if name == "PCMA" else ""
    declare = case(timeout=150, name=name.lower(), driver=driver)
    declare(whole_conversation(name, f"+4915735550{digits}"))


@case(timeout=90)
def barge_in(box):
    """A caller who speaks over the greeting stops it; the transcript is cut there."""
    edge = Edge(box).start()
    box.secret(*SPOKEN)
    phone = Phone(box, "+4915735550205", "G722", edge.authority)
    phone.dial(edge.uri())
    at = phone.wait_for_speech(15)
    phone.say("opening hours opening hours")
    began = phone.heard_seconds()
    phone.wait_for_quiet(0.5, 10, since=at)
    parts = sound.spoken_parts(phone.heard(), phone.rate, gap_ms=450)
    # Undisturbed, greeting and menu take more than eight seconds.
    box.note(f"silent {parts[0][1] - began:.2f} s after the caller's voice")
    check(parts[0][1] - parts[0][0] < 5, f"the agent went on for {parts}")
    check(parts[0][1] - began < 1.2, f"the agent went on until {parts[0][1] - began:.2f} s")
    phone.hang_up()
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    shown = edge.command("calls", "show", call["call_id"], name="calls-show").stdout
    check(" --" in shown, f"no turn is marked as interrupted:\n{shown}")
    edge.stop()


@case(timeout=120)
def switched_off(box):
    """With recording and transcript off at the trunk, neither is kept; the call is."""
    policy = """
[trunk.local]
from       = { networks = ["127.0.0.0/8"] }
recording  = "never"
transcript = "never"

[[route]]
send_to = { agent = "reception" }
"""
    edge = Edge(box, policy).start()
    phone = Phone(box, "+4915735550206", "PCMA", edge.authority)
    phone.dial(edge.uri())
    phone.wait_for_quiet(1.0, 30)
    phone.hang_up()
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(not call["recording"] and not call["transcript"], f"stored {call}")
    shown = edge.command("calls", "show", call["call_id"], name="calls-show").stdout
    check(" agent " not in shown, shown)
    check("recording: none, a trunk does not allow it" in shown, shown)
    edge.stop()
    audio = [it for it in edge.data.rglob("*") if it.is_file() and not it.name.startswith("vault.")]
    check(not audio, f"files of a call that keeps nothing: {audio}")
