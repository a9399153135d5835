"""What crosses the loopback interface, captured and read by tshark."""

import os
import socket
import time
from dataclasses import dataclass

from .case import check, wait_for


@dataclass(frozen=True)
class Flow:
    """One RTP stream in one direction, as tshark's analysis counts it."""

    source: str
    source_port: int
    target: str
    target_port: int
    ssrc: str
    payload: str
    packets: int
    lost: int


class Capture:
    """Captures until `stop`; then answers questions."""

    def __init__(self, box, name="capture", only="(tcp or udp) and not port 53"):
        self.box, self.name = box, name
        self.path = box.path(f"{name}.pcap")
        # Capturing takes a privilege that the build user need not have.
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        command = [*sudo, "tshark", "-q", "-i", "lo", "-w", self.path, "-f", only]
        self.process = box.start(f"{name}.tshark", command)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))

            def captures():
                said = box.path(f"{name}.tshark.err").read_text()
                check(self.process.poll() is None, f"tshark ended: {said}")
                probe.sendto(b"is anybody there?", probe.getsockname())
                return self.path.exists() and self.path.stat().st_size > 1_000

            wait_for("tshark captures", captures, 10)

    def stop(self):
        """Ends the capture, once what is on its way has been written."""
        time.sleep(0.5)
        self.process.terminate()
        self.process.wait(10)
        return self

    def _read(self, name, *arguments):
        done = self.box.run(f"{self.name}-{name}", ["tshark", "-r", self.path, *arguments])
        check(done.returncode == 0, f"tshark: {done.stderr}")
        return done.stdout.splitlines()

    def fields(self, display, *names, decode=()):
        """Rows of fields of the packets that `display` lets through, as texts."""
        wanted = [it for name in names for it in ("-e", name)]
        as_media = [it for port in decode for it in ("-d", f"udp.port=={port},rtp")]
        rows = self._read(
            f"fields-{names[-1]}", *as_media, "-Y", display, "-T", "fields",
            "-E", "separator=/t", *wanted,
        )  # fmt: skip
        return [row.split("\t") for row in rows]

    def payloads(self, display, field="udp.payload"):
        """The payloads, as bytes."""
        return [bytes.fromhex(row[0].replace(":", "").split(",")[0])
                for row in self.fields(display, field) if row[0]]

    def flows(self, ports):
        """The RTP streams at these ports of ours, in both directions."""
        as_media = [it for port in ports for it in ("-d", f"udp.port=={port},rtp")]
        found = []
        for line in self._read("flows", "-q", *as_media, "-z", "rtp,streams"):
            # Begin, end, source, port, target, port, SSRC, payload, packets, lost (share), ...
            words = line.split()
            if len(words) < 12 or not words[0][0].isdigit():
                continue
            at = next(number for number, it in enumerate(words) if it.startswith("0x"))
            payload = " ".join(words[at + 1 :]).split("(")[0].split()
            found.append(Flow(
                source=words[2], source_port=int(words[3]), target=words[4],
                target_port=int(words[5]), ssrc=words[at], payload=" ".join(payload[:-2]),
                packets=int(payload[-2]), lost=int(payload[-1]),
            ))  # fmt: skip
        return found
