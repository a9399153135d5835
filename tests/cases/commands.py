"""Commands that read files: `check` and `explain`."""

import itertools
import re
import shutil
from pathlib import Path

from harness import wire
from harness.case import REPOSITORY, case, check
from harness.edge import LOCAL_POLICY, Edge

BROKEN = """\
[trunk.acme]
from       = { networks = ["198.51.100.0/24"] }
transprots = ["tls"]

[trunk.lab]
from       = { networks = ["203.0.113.7/99"] }
transports = ["tls", "udp"]

[[route]]
when    = { trunk = "acne" }
send_to = { agent = "receptoin" }
"""


@case()
def check_points_at_errors(box):
    """Each error with its line and column, and what was probably meant."""
    edge = Edge(box, BROKEN)
    done = edge.command("check")
    check(done.returncode == 1, f"exit {done.returncode}")
    text = done.stderr
    places = re.findall(r"policy\.toml:(\d+):(\d+): error: (.*)", text)
    check((("3", "1") in {it[:2] for it in places}), f"no error at 3:1:\n{text}")
    check("transports" in text and "did you mean" in text, f"no suggestion:\n{text}")

    # With the unknown word corrected, the compiler sees the rest.
    edge.set_policy(BROKEN.replace("transprots", "transports"))
    done = edge.command("check", name="check-2")
    text = done.stderr
    places = [(int(line), what) for line, _, what in re.findall(
        r"policy\.toml:(\d+):(\d+): error: (.*)", text)]
    check(done.returncode == 1, f"exit {done.returncode}")
    for line in (6, 10):
        check(line in [it[0] for it in places], f"no error in line {line}:\n{text}")
    check("`acme`" in text, f"`acne` is not taken for `acme`:\n{text}")
    check(all("^" in it for it in text.split("\n\n")[:-1] if "error:" in it), f"no caret:\n{text}")
    served = edge.command("serve", name="serve-broken", timeout=10)
    check(served.returncode == 2 and "policy.toml:6" in served.stderr, f"serve: {served.stderr}")

    # Plaintext without an exemption is an error too.
    text = BROKEN
    for wrong, right in (("transprots", "transports"), ("/99", "/32"), ("acne", "acme")):
        text = text.replace(wrong, right)
    edge.set_policy(text)
    done = edge.command("check", name="check-3")
    check(done.returncode == 1 and "policy.toml:7:" in done.stderr, f"line 7:\n{done.stderr}")
    check("exempt.signalling" in done.stderr, f"no way out:\n{done.stderr}")


@case()
def check_accepts_what_ships(box):
    """The shipped policies, voice agents and defaults have no error."""
    edge = Edge(box, LOCAL_POLICY)
    done = edge.command("check", "--strict")
    check(done.returncode == 0, f"local.toml: {done.stdout}{done.stderr}")
    check("2 trunks" in done.stdout and "0 warnings" in done.stdout, done.stdout)
    done = edge.command("check", REPOSITORY / "policies/example.toml", name="example")
    check(done.returncode == 0, f"example.toml: {done.stdout}{done.stderr}")


@case()
def check_points_at_configuration(box):
    """An unknown key of the configuration is an error with its place, in file and environment."""
    edge = Edge(box)
    edge.config.write_text(edge.config.read_text().replace("processes", "proceses"))
    done = edge.command("check")
    check(done.returncode == 1, f"exit {done.returncode}")
    check(re.search(r"callgate\.toml:\d+:1", done.stderr), done.stderr)
    check("`processes`" in done.stderr, f"no suggestion: {done.stderr}")


@case()
def check_points_at_voice_agents(box):
    """A voice agent's flow that leads nowhere is an error with its place."""
    edge = Edge(box)
    path = edge.root / "agents/reception.toml"
    text = path.read_text()
    path.write_text(text.replace('next = "menu"', 'next = "menus"'))
    done = edge.command("check")
    line = 1 + text[: text.index('next = "menu"')].count("\n")
    check(done.returncode == 1, f"exit {done.returncode}")
    check(f"reception.toml:{line}:" in done.stderr, f"not line {line}: {done.stderr}")


@case()
def explain_from_a_file(box):
    """For an INVITE in a file: every rule tried, the verdict, and what would flip it."""
    edge = Edge(box, LOCAL_POLICY)
    good = wire.request("INVITE", "sip:reception@127.0.0.1", body=wire.sdp())
    path = box.write("good.sip", good.decode().replace("\r\n", "\n"))
    done = edge.command("explain", path, name="accepted")
    check(done.returncode == 0, f"exit {done.returncode}: {done.stderr}")
    for wanted in ("local", "ACCEPTED", "voice agent reception", "reception"):
        check(wanted in done.stdout, f"no {wanted!r}:\n{done.stdout}")

    done = edge.command("explain", path, "--source", "198.51.100.9:5061", name="stranger")
    check(done.returncode == 1, f"exit {done.returncode}")
    for wanted in ("REFUSED with 403", "policy.unknown_peer", "198.51.100.9", "Smallest change"):
        check(wanted in done.stdout, f"no {wanted!r}:\n{done.stdout}")

    plain = wire.request("INVITE", "sip:reception@127.0.0.1", body=wire.sdp(wire.SDP_PLAIN))
    path = box.write("plain.sip", plain)
    done = edge.command("explain", path, name="plain-rtp")
    check(done.returncode == 1, f"exit {done.returncode}")
    for wanted in ("REFUSED with 488", "policy.plaintext_media", "exempt.media"):
        check(wanted in done.stdout, f"no {wanted!r}:\n{done.stdout}")

    done = edge.command("explain", path, "--transport", "udp", name="udp")
    check("policy.plaintext_signalling" in done.stdout, done.stdout)
    box.write("broken.sip", "INVITE\n\n")
    done = edge.command("explain", box.path("broken.sip"), name="broken")
    check(done.returncode == 2 and "broken.sip" in done.stderr, done.stderr)


@case()
def explain_a_stored_call(box):
    """A call in the store is explained with what was observed then."""
    edge = Edge(box).start()
    edge.load("--media", "plain", "--silent", "--hold", "1")
    call = edge.wait_for_call(lambda it: it["state"] == "ended")
    done = edge.command("explain", "--call", call["call_id"])
    check(done.returncode == 1, f"exit {done.returncode}: {done.stderr}")
    check("policy.plaintext_media" in done.stdout, done.stdout)
    edge.stop()


NEWCOMER = (
    (None, "callgate needs Rust 1.95 or newer: install it with rustup, then run this again."),
    ("1.80.1", "callgate needs Rust 1.95 or newer; this is 1.80.1: run 'rustup update stable'."),
)


@case()
def make_run_without_rust(box):
    """`make run` of a new user without Rust, or with an old one: one line says so, nothing is
    installed and nothing is made."""
    tree, home, tools = box.path("tree"), box.path("home"), box.path("tools")
    for folder in (tree, home, tools):
        folder.mkdir()
    shutil.copy(REPOSITORY / "Makefile", tree)
    shutil.copytree(REPOSITORY / "deploy", tree / "deploy")
    kept = ("cargo", "rustc", "rustup", "sudo", "apt-get")
    for program in itertools.chain(Path("/bin").iterdir(), Path("/usr/bin").iterdir()):
        if not program.name.startswith(kept) and not (tools / program.name).is_symlink():
            (tools / program.name).symlink_to(program)
    before = sorted(tree.rglob("*"))
    for version, wanted in NEWCOMER:
        if version:
            for name in ("cargo", "rustc"):
                (tools / name).write_text(f"#!/bin/sh\necho '{name} {version} (of a test)'\n")
                (tools / name).chmod(0o755)
        env = {"HOME": str(home), "PATH": str(tools)}
        done = box.run(f"make-{version}", ["/usr/bin/make", "run"], cwd=tree, env=env)
        check(done.returncode != 0, f"exit {done.returncode}: {done.stdout}")
        said = [it for it in done.stderr.splitlines() if not it.startswith("make:")]
        check((said, done.stdout) == ([wanted], ""), f"{done.stdout}{done.stderr}")
        check(sorted(tree.rglob("*")) == before and not list(home.iterdir()), "something was made")
