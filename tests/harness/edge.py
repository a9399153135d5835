"""The real `callgate serve`, with a configuration of its own on free ports."""

import http.client
import json
import os
import re
import shutil
import signal
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from .case import REPOSITORY, check, free_ports, wait_for

BINARY = Path(os.environ.get("CALLGATE_BIN", "target/debug/callgate"))
BINARY = BINARY if BINARY.is_absolute() else REPOSITORY / BINARY
LOCAL_POLICY = (REPOSITORY / "policies/local.toml").read_text()

CONFIGURATION = """\
[listen]
tls     = ["127.0.0.1:{tls}"]
tcp     = ["127.0.0.1:{plain}"]
udp     = ["127.0.0.1:{plain}"]
https   = ["127.0.0.1:{https}"]
http    = ["127.0.0.1:{http}"]
metrics = "127.0.0.1:{metrics}"

[browsers]
origins = {origins}
ice_tcp = "127.0.0.1:{ice_tcp}"

[tls]
certificate = "{root}/certs/server.pem"
key         = "{root}/certs/server.key"
client_ca   = "{client_ca}"

[media]
ports  = [{media}, {media_last}]
driver = "{driver}"

[policy]
files = ["{root}/policy.toml"]

[agents]
directory = "{root}/agents"
processes = {helpers}

[vault]
data  = "{root}/data"
key   = "{root}/keys/vault.key"
heads = "{root}/keys/audit-heads"

[log]
format = "json"
level  = "debug"
"""


class Edge:
    """One edge; `start` it, `stop` or `kill` it, and start it again on the same data."""

    def __init__(self, box, policy=LOCAL_POLICY, helpers=1, client_ca=False, extra="", name="edge",
                 origins=()):
        self.box, self.name = box, name
        self.root = box.path(name)
        first = free_ports(6)
        self.tls, self.plain, self.metrics_port = first, first + 1, first + 2
        self.https, self.http, self.ice_tcp = first + 3, first + 4, first + 5
        media = 10_000 + (first % 700) * 32
        self.root.mkdir()
        shutil.copytree(REPOSITORY / "deploy/agents", self.root / "agents")
        self.set_policy(policy)
        self.authority = self.root / "certs/ca.pem"
        self.config = box.write(
            f"{name}/callgate.toml",
            CONFIGURATION.format(
                tls=self.tls,
                plain=self.plain,
                metrics=self.metrics_port,
                https=self.https,
                http=self.http,
                ice_tcp=self.ice_tcp,
                origins=json.dumps(list(origins)),
                media=media,
                driver=box.driver,
                media_last=media + 399,
                root=self.root,
                helpers=helpers,
                client_ca=self.authority if client_ca else "",
            )
            + extra,
        )
        self.process = None
        if client_ca:
            # The bundle must be there before the edge reads it.
            self.command("certs")

    @property
    def data(self):
        """Where the vault keeps its files."""
        return self.root / "data"

    def uri(self, user="reception"):
        """Whom to call."""
        return f"sip:{user}@127.0.0.1:{self.tls};transport=tls"

    @property
    def origin(self):
        """Where browsers find it."""
        return f"https://127.0.0.1:{self.https}"

    def set_policy(self, text):
        """Puts a policy where the edge reads it, in one step, so that it never reads half."""
        fresh = self.root / "policy.toml.new"
        fresh.write_text(text)
        fresh.rename(self.root / "policy.toml")

    def start(self, patience=30):
        """Starts it and waits until it serves."""
        command = [BINARY, "serve", "--config", self.config]
        self.process = self.box.start(f"{self.name}.serve", command)

        def serves():
            check(self.process.poll() is None, f"callgate did not start:\n{self.logs()[-3000:]}")
            return self.health() is not None

        wait_for("callgate serves", serves, patience)
        if self.box.driver != "auto":
            self.wait_for_log(rf'relay.driver.chosen.*"{self.box.driver}"')
        return self

    def stop(self, patience=45):
        """Asks it to end, and wants it to end well."""
        panics = self.metric("callgate_relay_stage_count_total", what="panics")
        check(panics == 0, f"{panics} sessions ended by a fault")
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(patience)
        check(code == 0, f"callgate ended with {code}:\n{self.logs()[-3000:]}")

    def kill(self):
        """Ends it as a power cut of the process would."""
        self.process.kill()
        self.process.wait()

    def hup(self):
        """Has it read its files again."""
        self.process.send_signal(signal.SIGHUP)

    def is_running(self):
        """Whether it still runs."""
        return self.process.poll() is None

    def logs(self):
        """All that it has printed."""
        texts = []
        for end in ("out", "err"):
            path = self.box.path(f"{self.name}.serve.{end}")
            texts.append(path.read_text(errors="replace") if path.exists() else "")
        return "\n".join(texts)

    def wait_for_log(self, pattern, seconds=10, since=0):
        """Waits for a log line, looking at what was logged after `since` characters."""
        return wait_for(
            f"log line {pattern!r}", lambda: re.search(pattern, self.logs()[since:]), seconds
        )

    def get(self, path):
        """An HTTP GET on the metrics port: status and text."""
        url = f"http://127.0.0.1:{self.metrics_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def health(self):
        """The health document, `None` where nobody answers."""
        try:
            return json.loads(self.get("/health")[1])
        except OSError:
            return None

    def metrics(self):
        """Every sample by its name and labels, as they are written."""
        samples = {}
        for line in self.get("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def metric(self, name, **labels):
        """The sum of a metric over the samples that have these labels."""
        total = 0.0
        for sample, value in self.metrics().items():
            if sample.split("{")[0] == name:
                if all(f'{key}="{want}"' in sample for key, want in labels.items()):
                    total += value
        return total

    def command(self, *arguments, name=None, timeout=60):
        """Runs another command of callgate with this configuration."""
        name = name or f"{self.name}.{arguments[0]}"
        return self.box.run(name, [BINARY, *arguments, "--config", self.config], timeout=timeout)

    def key(self, *options):
        """An API key: the workspace's first, or one that is made with these options."""
        if not options:
            # Printed with the first start.
            return re.search(r"sk_call2me_[\w-]+", self.logs()).group()
        done = self.command("keys", "create", "--name", "tests", *options, name="keys-create")
        found = re.search(r"sk_call2me_[\w-]+", done.stdout)
        check(done.returncode == 0 and found, f"keys create: {done.stdout}{done.stderr}")
        return found.group()

    def account(self, name):
        """A fresh account's password."""
        done = self.command("keys", "account", name, name=f"account-{name}")
        check(done.returncode == 0, f"keys account: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def https_request(self, method, path, key=None, body=None, headers=()):
        """An HTTPS request with a key: status, headers and body."""
        trust = ssl.create_default_context(cafile=self.authority)
        connection = http.client.HTTPSConnection("127.0.0.1", self.https, timeout=10, context=trust)
        headers = dict(headers)
        if key:
            headers["authorization"] = f"Bearer {key}"
        if isinstance(body, (dict, list)):
            body, headers["content-type"] = json.dumps(body), "application/json"
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def token(self, key, called="reception", **claims):
        """A browser token."""
        wish = {"called": called, **claims}
        status, _, body = self.https_request("POST", "/v1/browser-tokens", key, wish)
        check(status == 201, f"browser-tokens: {status} {body}")
        return json.loads(body)["token"]

    def calls(self):
        """The stored calls, newest first, with all that had happened when this was asked."""
        time.sleep(0.3)  # limit vault.gather_ms is 100
        done = self.command("calls", "list", "--json", "--count", "1000", name="calls-list")
        check(done.returncode == 0, f"calls list: {done.stderr}")
        return json.loads(done.stdout)

    def wait_for_call(self, wanted, seconds=10):
        """The newest call, once `wanted` holds for it."""

        def find():
            calls = self.calls()
            return calls[0] if calls and wanted(calls[0]) else None

        return wait_for("a stored call", find, seconds, every=0.3)

    def load(self, *arguments, name="load", timeout=60, user="reception"):
        """Places calls with the built-in caller; its JSON report."""
        report = self.box.path(f"{name}.json")
        command = [BINARY, "load", "--to", self.uri(user), "--ca", self.authority]
        done = self.box.run(name, [*command, "--report", report, *arguments], timeout=timeout)
        check(report.exists(), f"callgate load made no report:\n{done.stdout}{done.stderr}")
        return json.loads(report.read_text())
