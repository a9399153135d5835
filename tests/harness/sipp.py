"""sipp, which has no TLS in Debian, and stunnel, which gives it some."""

import socket
import time

from .case import REPOSITORY, check, free_ports, wait_for

SCENARIOS = REPOSITORY / "tests/sipp"


class Tunnel:
    """stunnel from a plain port here to the edge's TLS port."""

    def __init__(self, box, edge, source="127.0.0.1", certificate=None, name="stunnel"):
        self.port = free_ports()
        identity = ""
        if certificate:
            identity = f"cert = {certificate[0]}\nkey = {certificate[1]}\n"
        text = (
            f"foreground = yes\npid =\nsyslog = no\n[sip]\nclient = yes\n"
            f"accept = 127.0.0.1:{self.port}\nconnect = 127.0.0.1:{edge.tls}\nlocal = {source}\n"
            f"CAfile = {edge.authority}\nverifyChain = yes\ncheckIP = 127.0.0.1\n{identity}"
        )
        config = box.write(f"{name}.conf", text)
        self.process = box.start(name, ["stunnel4", config])
        wait_for("stunnel listens", self._listens, 5)

    def _listens(self):
        check(self.process.poll() is None, "stunnel ended")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False


class Gate:
    """stunnel as a carrier's TLS side: it lets in who shows the certificate `wanted`, to the TCP
    port `inside`."""

    def __init__(self, box, inside, certificate, wanted):
        self.port = free_ports()
        text = (
            f"foreground = yes\npid =\nsyslog = no\n[sip]\naccept = 127.0.0.1:{self.port}\n"
            f"connect = 127.0.0.1:{inside}\ncert = {certificate[0]}\nkey = {certificate[1]}\n"
            f"CAfile = {wanted}\nverify = 2\n"
        )
        self.process = box.start("gate", ["stunnel4", box.write("gate.conf", text)])
        wait_for("stunnel listens", lambda: is_taken(self.port, socket.SOCK_STREAM), 5)


def run(box, scenario, port, mode="t1", address="127.0.0.1", timeout=15, name=None, media=None,
        **fields):
    """Runs one call of a scenario and wants it to end as it says; `fields` fill its @NAME@.
    `media` is the port of its media."""
    name = name or scenario
    text = (SCENARIOS / f"{scenario}.xml").read_text()
    for key, value in fields.items():
        text = text.replace(f"@{key.upper()}@", str(value))
    path = box.write(f"{name}.xml", text)
    command = [
        "sipp", f"127.0.0.1:{port}", "-sf", path, "-m", "1", "-t", mode, "-i", address,
        "-p", free_ports(1, address), "-nostdin", "-timeout", f"{timeout}s", "-timeout_error",
        "-trace_err", "-error_file", box.path(f"{name}.errors"),
        "-trace_msg", "-message_file", box.path(f"{name}.messages"),
    ]  # fmt: skip
    if media:
        command += ["-mi", address, "-mp", media]
    done = box.run(name, command, timeout=timeout + 10)
    errors = box.path(f"{name}.errors")
    said = errors.read_text(errors="replace")[-1_500:] if errors.exists() else done.stderr[-1_500:]
    check(done.returncode == 0, f"sipp {name}: exit {done.returncode}: {said}")
    messages = box.path(f"{name}.messages")
    return messages.read_text(errors="replace") if messages.exists() else ""


class Server:
    """sipp as who is called, for one call, over UDP or as `mode` says; `fails` where its scenario ends in an error.
    With `media` it sends back all that comes to that port."""

    def __init__(self, box, scenario, port, fails=False, name=None, media=None, mode="u1",
                 timeout=40, **fields):
        self.box, self.name, self.fails = box, name or scenario, fails
        self.patience = timeout + 5
        text = (SCENARIOS / f"{scenario}.xml").read_text()
        for key, value in fields.items():
            text = text.replace(f"@{key.upper()}@", str(value))
        path = box.write(f"{self.name}.xml", text)
        command = [
            "sipp", "-sf", path, "-m", "1", "-t", mode, "-i", "127.0.0.1", "-p", port,
            "-nostdin", "-timeout", f"{timeout}s", "-timeout_error",
            "-trace_err", "-error_file", box.path(f"{self.name}.errors"),
            "-trace_msg", "-message_file", box.path(f"{self.name}.messages"),
        ]  # fmt: skip
        if media:
            command += ["-mi", "127.0.0.1", "-mp", media, "-rtp_echo"]
        self.process = box.start(self.name, command)
        # It opens its socket at once and says nothing of it.
        kind = socket.SOCK_DGRAM if mode == "u1" else socket.SOCK_STREAM
        wait_for("sipp listens", lambda: is_taken(port, kind), 5)

    def end(self):
        """Waits for its end and wants it as the scenario says; what was sent and received."""
        code = self.process.wait(self.patience)
        errors = self.box.path(f"{self.name}.errors")
        said = errors.read_text(errors="replace")[-1_500:] if errors.exists() else ""
        check((code != 0) == self.fails, f"sipp {self.name}: exit {code}: {said}")
        messages = self.box.path(f"{self.name}.messages")
        return messages.read_text(errors="replace") if messages.exists() else ""


def is_taken(port, kind=socket.SOCK_DGRAM):
    """Whether somebody has this port here, of UDP or as `kind` says."""
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
            return False
        except OSError:
            return True


def pause():
    """Stays below limit transport.refusals_per_second, which bounds answers to malformed ones."""
    time.sleep(0.25)
