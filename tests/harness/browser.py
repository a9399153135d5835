"""Headless Chromium, driven by playwright-core, and Firefox, by its own protocol, both through
`tests/browser/drive.mjs`."""

import array
import base64
import itertools
import json
import queue
import subprocess
import threading

from .case import REPOSITORY, check, environment, wait_for

FOLDER = REPOSITORY / "tests/browser"
EXECUTABLES = {"chromium": "/usr/bin/chromium", "firefox": "/usr/bin/firefox-esr"}
RATE = 16_000


class Browser:
    """One browser; its microphone plays a WAV again and again. `options` are those of `launch` in
    the driver of its kind: `flags` of Chromium, `preferences` of Firefox, which has one page."""

    def __init__(self, box, microphone=None, flags=(), name="browser", kind="chromium", **options):
        self.box, self.name = box, name
        self.answers, self.ids, self.lock = {}, itertools.count(1), threading.Lock()
        with open(box.path(f"{name}.err"), "ab") as err:
            self.process = subprocess.Popen(
                ["node", FOLDER / "drive.mjs", kind, EXECUTABLES[kind]],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True,
                env=environment() | {"HOME": str(box.folder)}, cwd=FOLDER,
            )  # fmt: skip
        box.processes.append(self.process)
        threading.Thread(target=self._read, daemon=True).start()
        self.origin = self.ask("origin", 60)
        microphone = str(microphone) if microphone else None
        options |= {"flags": flags} if flags else {}
        self.version = self.ask("launch", 60, microphone=microphone, **options)

    def _read(self):
        for line in self.process.stdout:
            answer = json.loads(line)
            self.answers[answer["id"]].put(answer)

    def ask(self, does, patience=30, **arguments):
        """Has the driver do something; its answer."""
        ident, waiting = next(self.ids), queue.Queue()
        self.answers[ident] = waiting
        with self.lock:
            self.process.stdin.write(json.dumps({"id": ident, "does": does, **arguments}) + "\n")
            self.process.stdin.flush()
        try:
            answer = waiting.get(timeout=patience)
        except queue.Empty:
            check(False, f"the browser did not {does} within {patience} s")
        check("error" not in answer, f"{does}: {answer.get('error')}")
        return answer["value"]

    def page(self, name="page", url=None, **options):
        """Opens a page, by default the tests' own."""
        self.ask("open", 40, page=name, url=url, **options)
        return Page(self, name)

    def close(self):
        """Ends it."""
        self.ask("end")


class Page:
    """A page of its own browser context."""

    def __init__(self, browser, name):
        self.browser, self.name = browser, name

    def ask(self, does, patience=30, **arguments):
        """Has the driver do something with this page."""
        return self.browser.ask(does, patience, page=self.name, **arguments)

    def run(self, code, argument=None, patience=30):
        """Runs a function's body in the page; what it returns."""
        return self.ask("run", patience, code=code, argument=argument)

    def until(self, what, code, seconds, argument=None):
        """Waits until the code returns something true, and returns it."""
        return wait_for(what, lambda: self.run(code, argument), seconds, every=0.2)

    def heard(self, ear="call.ear"):
        """All that an ear in the page has heard: samples at 16 kHz."""
        data = base64.b64decode(self.run(f"return {ear} ? {ear}.take() : ''"))
        samples = array.array("h")
        samples.frombytes(data[: len(data) // 2 * 2])
        return samples

    def screenshot(self, name, whole=True):
        """A picture into the case's folder."""
        self.ask("screenshot", path=str(self.browser.box.path(f"{name}.png")), whole=whole)

    def log(self):
        """What the page has told its console."""
        return self.ask("log")
