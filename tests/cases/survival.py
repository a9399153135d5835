"""What survives a `kill -9` in mid-call, and whether the audit log shows what was done to it."""

import shutil
import sqlite3
import time

from harness import sound
from harness.case import case, check
from harness.edge import Edge
from harness.phone import Phone

# Audio is sealed at least every half second (DESIGN invariant 11 allows one); the rest is for the
# clocks of two processes and the way of a packet.
LOST_SECONDS = 1.0
SLACK_SECONDS = 0.5


@case(timeout=150)
def kill_in_mid_call(box):
    """Finished calls and turns are kept, the recording to the last second, and life goes on."""
    edge = Edge(box).start()
    report = edge.load("--hold", "3", "--tone", "440", "--from", "+4915735550301", name="before")
    check(report["answered"] == 1, f"the call before: {report['failures']}")
    edge.wait_for_call(lambda it: it["state"] == "ended")

    phone = Phone(box, "+4915735550302", "PCMA", edge.authority)
    phone.dial(edge.uri())
    answered = time.monotonic()
    at = phone.wait_for_quiet(1.2, 30)
    phone.say("opening hours")
    at = phone.wait_for_speech(12, since=at)
    time.sleep(2.5)  # the agent is in the middle of its answer
    edge.kill()
    talked = time.monotonic() - answered
    phone.stop()

    edge.start()
    calls = edge.calls()
    states = [(it["from"], it["state"]) for it in calls]
    wanted = [("+4915735550302", "lost"), ("+4915735550301", "ended")]
    check(states == wanted, f"after the restart: {states}")
    lost, finished = calls
    shown = edge.command("calls", "show", lost["call_id"], name="show-lost").stdout
    for turn in ("opening hours", "your call is encrypted", "lost: the edge died"):
        check(turn in shown.lower(), f"{turn!r} is not in\n{shown}")
    folder = box.path("export")
    done = edge.command("calls", "export", lost["call_id"], "--to", folder, name="export-lost")
    check(done.returncode == 0, f"export: {done.stderr}")
    (left, right), rate = sound.read_wav(folder / f"{lost['call_id']}.wav")
    missing = talked - len(left) / rate
    box.note(f"{missing:.2f} s of audio lost")
    check(missing <= LOST_SECONDS + SLACK_SECONDS, f"{missing:.2f} s of {talked:.2f} s are lost")
    said = sound.recognise(box, left, rate, "left")
    check("opening hours" in said, f"left is {said!r}")
    answer = sound.recognise(box, right, rate, "right")
    check("your call is encrypted" in answer, f"right is {answer!r}")

    done = edge.command(
        "calls", "export", finished["call_id"], "--to", folder, name="export-before"
    )
    check(done.returncode == 0, f"the finished call: {done.stderr}")
    channels, rate = sound.read_wav(folder / f"{finished['call_id']}.wav")
    check(len(channels[0]) / rate > 2, "the finished call's recording is cut")

    report = edge.load("--hold", "2", "--tone", "440", name="after")
    check(report["answered"] == 1, f"the call after: {report['failures']}")
    edge.stop()
    verified = edge.command("audit", "verify")
    check(verified.returncode == 0, f"audit verify: {verified.stdout}")


TAMPERING = {
    "edited": "UPDATE audit SET kind = 'nothing.happened' WHERE seq = 3",
    "blanked": "UPDATE audit SET details = zeroblob(length(details)) WHERE kind = 'policy.loaded'",
    "dropped": "DELETE FROM audit WHERE seq = 3",
    "cut": "DELETE FROM audit WHERE seq >= (SELECT max(seq) - 1 FROM audit)",
    "reordered": "UPDATE audit SET seq = CASE seq WHEN 2 THEN -3 WHEN 3 THEN -2 ELSE seq END;"
    "UPDATE audit SET seq = -seq WHERE seq < 0",
    "emptied": "DELETE FROM audit",
}


@case()
def audit_shows_tampering(box):
    """`audit verify` accepts the log as it is and finds every kind of change."""
    edge = Edge(box).start()
    report = edge.load("--calls", "2", "--hold", "1", "--tone", "440")
    check(report["answered"] == 2, f"{report['failures']}")
    edge.wait_for_call(lambda it: it["state"] == "ended")
    edge.stop()
    verified = edge.command("audit", "verify")
    check(verified.returncode == 0, verified.stdout + verified.stderr)
    check("the audit log is whole" in verified.stdout, verified.stdout)
    for name, sql in TAMPERING.items():
        slug = name.replace(" ", "-")
        copy = box.path(f"copy-{slug}")
        shutil.copytree(edge.data, copy)
        database = sqlite3.connect(copy / "vault.db")
        count = database.execute("SELECT count(*) FROM audit").fetchone()[0]
        check(count >= 4, f"only {count} audit records")
        # Whoever has the file can take the triggers away first.
        database.executescript("DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete;" + sql)
        database.commit()
        database.close()
        verified = edge.command(
            "audit", "verify", "--database", copy / "vault.db", name=f"verify-{slug}"
        )
        output = verified.stdout + verified.stderr
        check(verified.returncode == 1 and "FOUND" in output, f"{name}: not found:\n{output}")
    # Without taking the trigger away the database itself refuses.
    database = sqlite3.connect(edge.data / "vault.db")
    try:
        database.execute(TAMPERING["dropped"])
        refused = False
    except sqlite3.IntegrityError:
        refused = True
    database.close()
    check(refused, "the database lets a record be deleted")


@case()
def recording_shows_tampering(box):
    """A recording with a flipped byte, cut short, or put in another's place is not played."""
    edge = Edge(box).start()
    report = edge.load("--calls", "2", "--hold", "3", "--tone", "440")
    check(report["answered"] == 2, f"{report['failures']}")
    edge.wait_for_call(lambda it: it["state"] == "ended")
    edge.stop()
    calls = [it["call_id"] for it in edge.calls()]
    files = sorted((edge.data / "recordings").iterdir())
    check(len(calls) == 2 and len(files) == 2, f"{len(calls)} calls, {len(files)} recordings")
    good = [it.read_bytes() for it in files]

    def export(name):
        """The exit codes and messages of exporting both calls."""
        done = [
            edge.command("calls", "export", it, "--to", box.path(name), name=f"{name}-{it}")
            for it in calls
        ]
        return [it.returncode for it in done], " ".join(it.stderr for it in done)

    check(export("as-it-is")[0] == [0, 0], "a good recording is not exported")
    middle = len(good[0]) // 2
    flipped = good[0][:middle] + bytes([good[0][middle] ^ 1]) + good[0][middle + 1 :]
    for name, contents in {
        "flipped": [flipped, good[1]],
        "cut": [good[0][:middle], good[1]],
        "swapped": [good[1], good[0]],
    }.items():
        for path, content in zip(files, contents):
            path.write_bytes(content)
        codes, said = export(name)
        wrong = 2 if name == "swapped" else 1
        check(sum(it != 0 for it in codes) == wrong, f"{name}: exit codes {codes}: {said}")
        check("panicked" not in said and said.strip(), f"{name}: {said!r}")
        box.note(f"{name}: {said.strip().splitlines()[0][:90]}")
