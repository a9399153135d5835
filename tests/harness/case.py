"""Cases: how they are declared, and the box in which one runs."""

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CASES = {}


class Failure(AssertionError):
    """The product, or a peer, did not do what the case wants."""


class Skip(Exception):
    """A peer on this machine lacks what the case needs."""


@dataclass(frozen=True)
class Case:
    """One case."""

    name: str
    run: object
    timeout: float
    alone: bool
    driver: str


def case(timeout=60, alone=False, name=None, driver=""):
    """Declares a case. `alone` keeps others from running beside it: it measures time. Its edges
    reach their media sockets by `driver`, else by the one that $CALLGATE_TEST_DRIVER names, else by
    the one that they choose."""

    def declare(function):
        area = function.__module__.rsplit(".", 1)[-1]
        full = f"{area}.{name or function.__name__}"
        CASES[full] = Case(full, function, timeout, alone, driver)
        return function

    return declare


def check(condition, message):
    """Fails the case with `message` unless the condition holds."""
    if not condition:
        raise Failure(message)


def wait_for(what, probe, seconds, every=0.05):
    """Waits until `probe` returns something true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds} s")
        time.sleep(every)


def environment():
    """Ours without the variables that would configure the edge."""
    return {key: value for key, value in os.environ.items() if not key.startswith("CALLGATE_")}


# Where browsers go to nobody, whatever is there (WHATWG Fetch, "bad port").
UNSAFE = {2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697}


def free_ports(count=1, address="127.0.0.1"):
    """So many ports in a row that are free for TCP and UDP, below the kernel's ephemeral ones."""
    start = 2_000 + (os.getpid() * 37 + time.monotonic_ns() // 1_000) % 7_000
    for first in list(range(start, 9_900 - count)) + list(range(2_000, start)):
        held = []
        if UNSAFE.intersection(range(first, first + count)):
            continue
        try:
            for port in range(first, first + count):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    held.append(socket.socket(socket.AF_INET, kind))
                    held[-1].bind((address, port))
            return first
        except OSError:
            continue
        finally:
            for each in held:
                each.close()
    raise Failure("no free port")


class Box:
    """The folder and the processes of one case. All that was started here ends here."""

    def __init__(self, folder, driver=""):
        self.folder = Path(folder)
        self.driver = driver or os.environ.get("CALLGATE_TEST_DRIVER", "auto")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = []

    def path(self, name):
        """A path in the case's folder."""
        return self.folder / name

    def write(self, name, content):
        """Writes a file into the case's folder."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
        return path

    def secret(self, *texts):
        """Notes what no log may hold; looked for once all cases have run."""
        with open(self.path("secrets.json"), "a", encoding="utf-8") as file:
            for text in texts:
                file.write(json.dumps(text) + "\n")

    def note(self, text):
        """A figure worth a place beside the case's line."""
        with open(self.path("notes.txt"), "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def start(self, name, command, **options):
        """Starts a process whose output goes to `name`.out and `name`.err."""
        out = open(self.path(f"{name}.out"), "ab")
        err = open(self.path(f"{name}.err"), "ab")
        options.setdefault("env", environment())
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("cwd", self.folder)
        process = subprocess.Popen([str(it) for it in command], stdout=out, stderr=err, **options)
        out.close()
        err.close()
        self.processes.append(process)
        return process

    def run(self, name, command, timeout=30, **options):
        """Runs a process to its end; returns it with what it printed."""
        options.setdefault("env", environment())
        options.setdefault("cwd", self.folder)
        done = subprocess.run(
            [str(it) for it in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            **options,
        )
        self.write(f"{name}.out", done.stdout)
        self.write(f"{name}.err", done.stderr)
        done.stdout = done.stdout.decode(errors="replace")
        done.stderr = done.stderr.decode(errors="replace")
        return done

    def close(self):
        """Ends what still runs, by its id."""
        for process in reversed(self.processes):
            end(process)


def end(process, patience=5):
    """Asks a process to end, and ends it where it does not."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
