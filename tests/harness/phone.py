"""baresip as a softphone: SIP over TLS or UDP, SDES-SRTP or plain RTP, a WAV as its microphone."""

import re
import socket
import subprocess
import time
from pathlib import Path

from . import sound, tone
from .case import Skip, check, free_ports, wait_for

MODULES = Path("/usr/lib/baresip/modules")
# Module, clock rate and channels of what the player gets, by codec as baresip names it.
CODECS = {
    "PCMU": ("g711", 8_000, 1),
    "PCMA": ("g711", 8_000, 1),
    "G722": ("g722", 16_000, 1),
    "opus": ("opus", 48_000, 2),
}

CONFIGURATION = """\
poll_method epoll
sip_listen {address}:{sip}
{trust}
net_interface {address}
rtp_ports {rtp}-{rtp_last}
audio_player aubridge,nowhere
audio_source aufile,{microphone}
audio_alert aubridge,alert
ausrc_srate {rate}
auplay_srate {rate}
ausrc_channels {channels}
auplay_channels {channels}
audio_level no
opus_bitrate 32000
snd_path {dumps}
cons_listen 127.0.0.1:{console}
module_path {modules}
module cons.so
module {codec_module}.so
module aufile.so
module aubridge.so
module srtp.so
module sndfile.so
module uuid.so
module_tmp account.so
module_app menu.so
"""


class Phone:
    """One baresip with one account."""

    def __init__(self, box, caller, codec="PCMU", authority=None, encrypted=True,
                 transport="tls", address="127.0.0.1", name="phone", answers=False,
                 tone_at=None, ptime=None, certificate=None):
        """`tone_at` Hz is what it says all the time, instead of nothing; `certificate` (one PEM
        file) lets it be called over TLS."""
        self.box, self.name, self.caller, self.address = box, name, caller, address
        module, self.rate, self.channels = CODECS[codec]
        for needed in (module, "aufile", "aubridge", "srtp", "sndfile", "cons"):
            if not (MODULES / f"{needed}.so").exists():
                raise Skip(f"baresip has no {needed}.so")
        folder = box.path(name)
        (folder / "dumps").mkdir(parents=True)
        self.dumps = folder / "dumps"
        self.sip = free_ports(4, address)
        self.console_port = free_ports(1)
        # Phones of other cases have other SIP ports, at least four away, and so other media ports.
        first = 41_000 + (self.sip - 2_000) // 4 * 8
        self.rtp_ports = range(first, first + 8)
        microphone = folder / "quiet.wav"
        if tone_at:
            microphone = tone.microphone(box, tone_at, self.rate, self.channels)
        else:
            sound.write_wav(microphone, sound.silence(120, self.rate), self.rate, self.channels)
        trust = f"sip_cafile {authority}\n" if authority else ""
        trust += f"sip_certificate {certificate}\n" if certificate else ""
        text = CONFIGURATION.format(
            address=address, sip=self.sip, rtp=first, rtp_last=first + 7,
            microphone=microphone, rate=self.rate, channels=self.channels, dumps=self.dumps,
            trust=trust, console=self.console_port, modules=MODULES, codec_module=module,
        )
        box.write(f"{name}/config", text)
        answering = ";answermode=auto" if answers else ""
        security = ";mediaenc=srtp-mand" if encrypted else ""
        packets = f";ptime={ptime}" if ptime else ""
        account = (
            f"<sip:{caller}@{address}:{self.sip};transport={transport}>"
            f";regint=0{security};audio_codecs={codec}{packets}{answering}\n"
        )
        box.write(f"{name}/accounts", account)
        box.write(f"{name}/contacts", "")
        box.secret(caller)
        self.process = box.start(f"{name}.log", ["baresip", "-f", folder, "-v", "-s"])
        self.console = wait_for("baresip is ready", self._console, 10)

    def _console(self):
        check(self.process.poll() is None, f"baresip ended: {self.log()[-2000:]}")
        if "baresip is ready" not in self.log():
            return None
        return socket.create_connection(("127.0.0.1", self.console_port), timeout=5)

    def log(self):
        """What it printed, the SIP trace included."""
        texts = [self.box.path(f"{self.name}.log.{end}") for end in ("out", "err")]
        return "".join(it.read_text(errors="replace") for it in texts if it.exists())

    def command(self, text):
        """A command of its console."""
        self.console.sendall(f"/{text}\n".encode())

    def dial(self, uri):
        """Calls, and waits for the answer."""
        self.command(f"dial {uri}")
        self.wait_log("Call established", 15)
        return self

    def wait_log(self, text, seconds):
        """Waits until it logs this."""
        return wait_for(f"baresip: {text!r}", lambda: text in self.log() or None, seconds)

    def say(self, text):
        """Speaks into the call, once."""
        path = sound.say(self.box, text, self.rate, self.channels, after=90)
        self.command(f"ausrc aufile,{path}")
        self.wait_log(f"loading input file '{path}'", 5)
        return time.monotonic()

    def press(self, key):
        """Presses a key for a moment (RFC 4733)."""
        self.console.sendall(key.encode())
        time.sleep(0.2)
        self.console.sendall(b"\x04")

    def uri(self):
        """Whom to dial to reach it over TLS: baresip's TLS port is the one after its SIP port."""
        return f"sip:{self.caller}@{self.address}:{self.sip + 1};transport=tls"

    def hang_up(self):
        """Ends the call."""
        self.command("hangup")

    def keys(self):
        """The SRTP keys of the call, as its signalling carried them."""
        return re.findall(r"inline:([A-Za-z0-9+/=]+)", self.log())

    def heard(self):
        """What it has heard until now, at `rate`."""
        files = sorted(self.dumps.glob("*-dec.wav"))
        if not files:
            return sound.silence(0, self.rate)
        return sound.read_growing_wav(files[0], self.channels)

    def heard_seconds(self):
        """How long it has been hearing."""
        return len(self.heard()) / self.rate

    def wait_for_speech(self, seconds, since=0.0):
        """Waits until somebody speaks after `since` (seconds of what it heard)."""

        def speaks():
            parts = sound.spoken_parts(self.heard()[int(since * self.rate) :], self.rate)
            return since + parts[0][0] if parts else None

        return wait_for("the voice agent speaks", speaks, seconds, every=0.2)

    def wait_for_quiet(self, quiet, seconds, since=0.0):
        """Waits until somebody has spoken after `since` and then been silent for `quiet`."""

        def is_quiet():
            tail = self.heard()[int(since * self.rate) :]
            silent = sound.quiet_seconds(tail, self.rate)
            return silent is not None and silent >= quiet

        wait_for("the voice agent has finished", is_quiet, seconds, every=0.2)
        return self.heard_seconds()

    def stop(self):
        """Ends the phone."""
        self.console.close()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
