"""What the store keeps and for how long: erased calls, retention, a full disk, a flood of refusals."""

import json
import os
import re
import sqlite3
import time

from harness.case import case, check, wait_for
from harness.edge import BINARY, Edge

DAY_MS = 86_400_000


def log_lines(edge):
    """The edge's JSON log, line by line."""
    lines = [it for it in edge.logs().splitlines() if it.startswith("{")]
    return [json.loads(it) for it in lines]


@case(timeout=90)
def erase_a_call(box):
    """One call is erased while the edge runs and one while it does not; the log says by whom."""
    edge = Edge(box).start()
    box.secret("+4915735550501", "+4915735550502")
    first = edge.load("--hold", "2", "--tone", "440", "--from", "+4915735550501", name="first")
    check(first["answered"] == 1, f"{first['failures']}")
    call = edge.wait_for_call(lambda it: it["state"] == "ended")["call_id"]
    wait_for(
        "the recording is closed",
        lambda: "complete" in edge.command("calls", "show", call, name="show").stdout, 10,
    )

    talk = box.start("talk", [BINARY, "load", "--to", edge.uri(), "--ca", edge.authority,
                              "--hold", "4", "--tone", "440", "--from", "+4915735550502"])
    open_call = edge.wait_for_call(lambda it: it["state"] == "in_progress")["call_id"]
    done = edge.command("calls", "erase", open_call, name="erase-open")
    check(done.returncode == 1 and "in progress" in done.stderr, f"an open call: {done.stderr}")
    done = edge.command("calls", "erase", "call_" + "0" * 24, name="erase-unknown")
    check(done.returncode == 1 and "nothing is kept" in done.stderr, f"unknown: {done.stderr}")

    done = edge.command("calls", "erase", call, name="erase")
    check(done.returncode == 0 and "is erased" in done.stdout, done.stdout + done.stderr)
    done = edge.command("calls", "erase", call, name="erase-again")
    check(done.returncode == 0 and "before" in done.stdout, done.stdout + done.stderr)
    shown = edge.command("calls", "show", call, "--ladder", "--decision", name="erased").stdout
    check("[erased]" in shown and "5735550501" not in shown, shown)
    check("caller_hung_up" in shown and "agent  " not in shown, shown)
    check(len(list((edge.data / "recordings").iterdir())) == 1, "its recording is still there")
    found = edge.command("calls", "list", "--json", "--number", "+4915735550501", name="find")
    check(json.loads(found.stdout) == [], f"found by its number: {found.stdout}")

    talk.wait(20)
    edge.wait_for_call(lambda it: it["state"] == "ended")
    edge.stop()
    done = edge.command("calls", "erase", open_call, name="erase-stopped")
    check(done.returncode == 0, f"without a running edge: {done.stderr}")
    check(list((edge.data / "recordings").iterdir()) == [], "a recording is left")
    audit = edge.command("audit", "list").stdout
    erased = re.findall(r"call\.erased +(operator:\S+) +(call_\S+) (.*)", audit)
    check([it[1] for it in erased] == [call, open_call], f"audited: {audit}")
    check(all("recordings=1 turns=" in it[2] for it in erased), f"{erased}")
    check("573555" not in audit, "the audit log names the caller")
    check(edge.command("audit", "verify").returncode == 0, "the audit log is not whole")


@case(timeout=90)
def retention(box):
    """What is older than the configuration allows is gone after a start, and nothing else."""
    edge = Edge(box, extra="\n[retention]\nrecordings = 1\ntranscripts = 2\ncalls = 3\n").start()
    report = edge.load("--calls", "4", "--hold", "2", "--tone", "440")
    check(report["answered"] == 4, f"{report['failures']}")
    edge.wait_for_call(lambda it: it["state"] == "ended")
    edge.stop()
    calls = [it["call_id"] for it in edge.calls()]
    # Nobody waits for days: the calls are made older, each by half a day more than an age.
    database = sqlite3.connect(edge.data / "vault.db")
    for age, call in enumerate(calls):
        key = bytes.fromhex(call.removeprefix("call_"))
        older = age * DAY_MS + DAY_MS // 2
        for table, column in (("call", "id"), ("recording", "call")):
            database.execute(
                f"UPDATE {table} SET started = started - ? WHERE {column} = ?", (older, key)
            )
    database.commit()
    database.close()
    edge.start()
    edge.wait_for_log("vault.retention.swept", 20)

    def sections(call):
        shown = json.loads(edge.command("calls", "show", call, "--json", name="show").stdout)
        return shown["recordings"][0]["state"], len(shown["transcript"]) > 0

    kept = [sections(it) for it in calls[:3]]
    wanted = [("complete", True), ("erased", True), ("erased", False)]
    check(kept == wanted, f"kept: {kept}")
    check([it["call_id"] for it in edge.calls()] == calls[:3], "the oldest call is still listed")
    check(len(list((edge.data / "recordings").iterdir())) == 1, "recordings are left")
    audit = edge.command("audit", "list").stdout
    swept = re.findall(r"retention\.swept .*(recordings=.*)", audit)
    check(swept == ["recordings=2 transcripts=1 calls=1"], f"audited: {audit}")
    edge.stop()
    check(edge.command("audit", "verify").returncode == 0, "the audit log is not whole")


@case(timeout=90)
def refused_calls_flood(box):
    """A trunk that floods calls which are refused fills neither the store nor the log."""
    edge = Edge(box).start()
    count = 400
    report = edge.load(
        "--calls", str(count), "--rate", "100", "--hold", "1", "--silent", "--media", "plain",
    )
    check(report["answered"] == 0, f"{report}")
    ended = edge.metric("callgate_call_ended_total", reason="policy.plaintext_media")
    check(ended == count, f"{ended} of {count} are counted")
    calls = edge.calls()
    # Five in a minute, and the flood may lie in two.
    check(5 <= len(calls) <= 10, f"{len(calls)} are stored")
    done = edge.command("explain", "--call", calls[0]["call_id"], name="explain")
    check("policy.plaintext_media" in done.stdout, f"an example is not whole: {done.stdout}")
    shown = edge.command("calls", "show", calls[0]["call_id"], "--ladder", name="show").stdout
    check("INVITE sip:" in shown and "SIP/2.0 488" in shown, f"no ladder: {shown}")
    edge.stop()
    lines = log_lines(edge)
    told = [it for it in lines if it["event"] == "call.ended"]
    check(len(told) == len(calls), f"{len(told)} ends are logged")
    more = [it for it in lines if it["event"] == "call.refused.more"]
    left_out = sum(it["calls"] for it in more)
    check(left_out + len(calls) == count, f"{left_out} are told as left out: {more}")
    audit = edge.command("audit", "list", "--count", "1000").stdout
    audited = re.findall(r"call\.refused\.more +trunk:local +reason=\S+ calls=(\d+)", audit)
    check(sum(int(it) for it in audited) == left_out, f"audited: {audited}")


@case(timeout=60)
def logs_for_machines(box):
    """A JSON log is one object a line, with each field of an event under its own name."""
    edge = Edge(box).start()
    box.secret("+4915735550503")
    edge.load("--hold", "1", "--silent", "--from", "+4915735550503")
    call = edge.wait_for_call(lambda it: it["state"] == "ended")["call_id"]
    edge.stop()
    raw = edge.box.path("edge.serve.err").read_text().splitlines()
    lines = [json.loads(it) for it in raw]
    check(len(lines) > 5, "hardly a line")
    for line in lines:
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["time"]), f"{line}")
        check(line["level"] in ("debug", "info", "warn", "error") and line["event"], f"{line}")
    select = '.event == "call.ended" and .reason == "call.caller_hung_up" and .talked_us > 900000'
    path = edge.box.path("edge.serve.err")
    done = box.run("jq", ["jq", "-r", f"select({select}) | .call", path])
    check(done.stdout.split() == [call], f"jq found {done.stdout!r} {done.stderr!r}")
    reported = [it for it in lines if it["event"] == "relay.session.reported"]
    check(all(it["call"] == call and isinstance(it["sent"], int) for it in reported), f"{reported}")
    check("573555" not in "".join(raw), "the log names the caller")


class SmallDisk(Edge):
    """An edge whose data folder is a file system of a few megabytes, in a name space of its own:
    nothing is mounted for anybody else, and it is gone with the edge."""

    SIZE = "8m"

    def __init__(self, box):
        super().__init__(box)
        self.data.mkdir(mode=0o700)

    def logs(self):
        """Under another name: that writes fail here is no fault."""
        paths = [self.box.path(f"{self.name}.on-a-small-disk.{it}") for it in ("out", "err")]
        return "\n".join(it.read_text(errors="replace") for it in paths if it.exists())

    def start(self, patience=30):
        """Starts it there."""
        script = f'mount -t tmpfs -o size={self.SIZE},mode=700 tmpfs "$1" && shift && exec "$@"'
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh",
                   self.data, BINARY, "serve", "--config", self.config]
        self.process = self.box.start(f"{self.name}.on-a-small-disk", command)

        def serves():
            check(self.process.poll() is None, f"callgate did not start:\n{self.logs()[-3000:]}")
            return self.health() is not None

        wait_for("callgate serves", serves, patience)
        return self

    def command(self, *arguments, name=None, timeout=60):
        """Another command of callgate, in the same place."""
        inside = ["nsenter", "--preserve-credentials", "--user", "--mount",
                  "--target", self.process.pid, "--"]
        command = [*inside, BINARY, *arguments, "--config", self.config]
        return self.box.run(name or f"{self.name}.{arguments[0]}", command, timeout=timeout)

    @property
    def filler(self):
        """A file that takes the rest of the disk."""
        return f"/proc/{self.process.pid}/root{self.data}/filler"

    def fill(self):
        """Leaves no byte."""
        with open(self.filler, "wb", buffering=0) as file:
            for size in (65_536, 4_096, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    pass

    def memory(self):
        """Megabytes that it holds."""
        status = open(f"/proc/{self.process.pid}/status", encoding="utf-8").read()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


@case(timeout=150)
def full_disk(box):
    """The disk fills in mid-call: calls go on, the operator is told, and nothing taken is lost."""
    edge = SmallDisk(box).start()
    talk = box.path("talk.json")
    talking = box.start("talk", [BINARY, "load", "--to", edge.uri(), "--ca", edge.authority,
                                 "--hold", "22", "--tone", "440", "--report", talk])
    call = edge.wait_for_call(lambda it: it["state"] == "in_progress")["call_id"]
    time.sleep(3)
    edge.fill()
    edge.wait_for_log("vault.write.failed", 10)
    health = wait_for("degraded", lambda: (it := edge.health())["status"] == "degraded" and it, 5)
    check(health["checks"]["edge"] == "vault", f"{health}")
    before = edge.memory()
    meanwhile = edge.load("--calls", "20", "--rate", "10", "--hold", "2", "--silent", name="full")
    check(meanwhile["answered"] == 20, f"calls on a full disk: {meanwhile['failures']}")
    grown = edge.memory() - before
    check(grown < 64, f"{grown:.0f} MB more")
    # What was acknowledged before is there for whoever looks.
    check([it["call_id"] for it in edge.calls()] == [call], "the list on a full disk")

    os.unlink(edge.filler)
    wait_for("healthy again", lambda: edge.health()["status"] == "healthy", 10)
    edge.wait_for_log("vault.write.recovered", 5)
    talking.wait(40)
    report = json.loads(talk.read_text())
    check(report["answered"] == 1 and not report["failures"], f"the call that went on: {report}")
    edge.wait_for_call(lambda it: it["state"] == "ended")
    wait_for("all are over", lambda: all(it["state"] == "ended" for it in edge.calls()), 10)
    calls = edge.calls()
    check(len(calls) == 21, f"{len(calls)} calls are stored")
    after = edge.load("--hold", "2", "--tone", "440", name="after")
    check(after["answered"] == 1, f"the call after: {after['failures']}")
    last = edge.wait_for_call(lambda it: it["state"] == "ended")["call_id"]
    folder = box.path("export")
    for each in (call, last):
        done = edge.command("calls", "export", each, "--to", folder, name=f"export-{each}")
        check((folder / f"{each}.wav").stat().st_size > 60_000, f"its recording: {done.stderr}")
    shown = edge.command("calls", "show", call, name="show").stdout
    check("recording: " in shown and "unfinished" in shown, f"the cut recording: {shown}")
    audit = edge.command("audit", "list", "--count", "1000").stdout
    recovered = re.findall(r"vault\.recovered +edge +(seconds=.*)", audit)
    check(len(recovered) == 1 and "records_lost=0" in recovered[0], f"audited: {audit}")
    box.note(recovered[0])
    verified = edge.command("audit", "verify")
    check(verified.returncode == 0, f"audit verify: {verified.stdout}{verified.stderr}")
    edge.stop()
    check("panicked" not in edge.logs(), "a fault")


def certificate(box, folder, issuer, subject, days):
    """A server certificate that ends in so many days, with its authority."""
    def openssl(name, *arguments):
        done = box.run(f"openssl-{name}", ["openssl", *arguments])
        check(done.returncode == 0, f"openssl {name}: {done.stderr}")

    folder.mkdir(exist_ok=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("ca", "req", "-x509", *key, "-days", "300", "-subj", f"/CN={issuer}",
            "-keyout", folder / "made.key", "-out", folder / "ca.pem")
    openssl("request", "req", *key, "-subj", f"/CN={subject}",
            "-keyout", folder / "server.key", "-out", folder / "made.csr")
    names = box.write("names.txt", "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("sign", "x509", "-req", "-in", folder / "made.csr", "-CA", folder / "ca.pem",
            "-CAkey", folder / "made.key", "-days", str(days), "-extfile", names,
            "-out", folder / "server.pem")
    os.chmod(folder / "server.key", 0o600)


@case(timeout=60)
def certificates_near_their_end(box):
    """A development certificate is renewed in its last week; an operator's is only warned of."""
    edge = Edge(box, name="development")
    certs = edge.root / "certs"
    certificate(box, certs, "callgate development authority", "callgate development server", 3)
    before = (certs / "server.pem").read_bytes()
    edge.start()
    check((certs / "server.pem").read_bytes() != before, "it was not renewed")
    check("transport.certificate.renewed" in edge.logs(), "nobody was told")
    days = (edge.metric("callgate_certificate_not_after_seconds") - time.time()) / 86_400
    check(390 < days < 398, f"good for {days} days")
    report = edge.load("--hold", "1", "--silent")
    check(report["answered"] == 1, f"a call with the new one: {report['failures']}")
    edge.stop()

    edge = Edge(box, name="operator")
    certs = edge.root / "certs"
    certificate(box, certs, "a real authority", "sip.operator.example", 10)
    before = (certs / "server.pem").read_bytes()
    edge.start()
    check((certs / "server.pem").read_bytes() == before, "an operator's certificate was touched")
    told = [it for it in log_lines(edge) if it["event"] == "transport.certificate.ending"]
    check([it["days"] for it in told] == [9], f"warned: {told}")
    report = edge.load("--hold", "1", "--silent", name="operator-load")
    check(report["answered"] == 1, f"a call: {report['failures']}")
    edge.stop()
