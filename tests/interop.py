#!/usr/bin/env python3
"""Runs the interop cases: each in a process group of its own, bounded in time, three at a time.

`interop.py [--list] [--jobs N] [--keep] [NAME...]`: names, or beginnings of names. Folders of
failed cases stay in tests/out/, or in the folder that $CALLGATE_TESTS_OUT names.
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.case import CASES, REPOSITORY, Box, Failure, Skip
from harness.edge import BINARY

OUT = Path(os.environ.get("CALLGATE_TESTS_OUT", REPOSITORY / "tests/out")).absolute()
AREAS = [
    "signalling", "plaintext", "conversation", "bridging", "survival", "keeping", "commands",
    "watch", "load", "hostile", "network", "nat", "links", "transferring", "tones", "recorded",
    "compared", "wired", "refusing", "keys", "libraries", "carriers", "browser", "carried",
    "firefox", "handshakes", "console", "console_talk", "console_calls", "certificates",
    "shared_port",
]  # fmt: skip
PASSED, FAILED, SKIPPED = 0, 1, 77
LOGS, FAULTS = "logs.hold_nothing_personal", "logs.hold_no_faults"
# So many failed cases are tried once more, by themselves: a machine that stood still is no fault.
AGAIN = 3


def run_one(name, folder):
    """In the child: one case; its exit code tells how it went."""
    box = Box(folder, CASES[name].driver)
    try:
        CASES[name].run(box)
    except Skip as reason:
        box.write("result.txt", str(reason))
        return SKIPPED
    except Failure as reason:
        line = next(it for it in traceback.extract_tb(reason.__traceback__)[::-1]
                    if "/cases/" in it.filename)
        place = f"{Path(line.filename).name}:{line.lineno}"
        box.write("result.txt", f"{place}: {reason}\n")
        return FAILED
    except Exception:
        box.write("result.txt", traceback.format_exc())
        return FAILED
    finally:
        box.close()
    return PASSED


class Run:
    """What has happened so far."""

    def __init__(self):
        self.lock = threading.Lock()
        self.children = set()
        self.counts = {PASSED: 0, FAILED: 0, SKIPPED: 0}
        self.failed = []

    def tell(self, name, code, seconds, reason="", notes=""):
        """Prints a case's line and counts it."""
        word = {PASSED: "ok", SKIPPED: "skipped"}.get(code, "FAILED")
        code = code if code in self.counts else FAILED
        with self.lock:
            self.counts[code] += 1
            print(f"{word:<8}{name:<42}{seconds:6.1f} s  {notes}".rstrip(), flush=True)
            for line in reason.strip().splitlines()[:40]:
                print(f"        {line}", flush=True)

    def end(self, group):
        """Ends a case's process group: whatever the case started is in it, and nothing else."""
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.children.discard(group)

    def case(self, case):
        """Runs a case in a process group of its own."""
        folder = OUT / case.name
        folder.mkdir(parents=True)
        began = time.monotonic()
        command = [sys.executable, "-B", __file__, "--child", case.name, "--folder", str(folder)]
        child = subprocess.Popen(command, start_new_session=True)
        self.children.add(child.pid)
        try:
            code = child.wait(case.timeout)
        except subprocess.TimeoutExpired:
            code = FAILED
            (folder / "result.txt").write_text(f"not done within {case.timeout} s\n")
        self.end(child.pid)
        child.wait()
        result = folder / "result.txt"
        reason = result.read_text() if result.exists() else ""
        if code != PASSED and not reason:
            reason = f"the case's process ended with {code}"
        notes = folder / "notes.txt"
        notes = "; ".join(notes.read_text().splitlines()) if notes.exists() else ""
        self.tell(case.name, code, time.monotonic() - began, reason, notes)
        if code == PASSED or code == SKIPPED:
            (folder / "passed").touch()
        else:
            self.failed.append(case)

    def again(self):
        """Tries what failed once more; gives the names of the cases that then passed."""
        tried, self.failed = self.failed, []
        if len(tried) > AGAIN:
            return []
        for case in tried:
            self.counts[FAILED] -= 1
            (OUT / case.name).rename(OUT / f"{case.name}.first")
            self.case(case)
        return [it.name for it in tried if it not in self.failed]


def logs_hold_nothing_personal(folders):
    """No log of any edge holds a caller, a spoken word or a key; what it did find."""
    found, files = [], 0
    secrets = set()
    for folder in folders:
        path = folder / "secrets.json"
        if path.exists():
            secrets |= {json.loads(line) for line in path.read_text().splitlines()}
    words = sorted(secrets | {it.lstrip("+") for it in secrets})
    for folder in folders:
        for path in sorted(folder.glob("*.serve.*")):
            files += 1
            text = path.read_text(errors="replace").lower()
            found += [f"{path.relative_to(OUT)}: {it!r}" for it in words if it.lower() in text]
    return found, files, len(words)


def logs_hold_no_faults(folders):
    """No edge met a fault of its own; what was found."""
    faults = ("panicked", "vault.write.failed", "provider.failed", "thread '")
    return [
        f"{path.relative_to(OUT)}: {line[:300]}"
        for folder in folders
        for path in sorted(folder.glob("*.serve.*"))
        for line in path.read_text(errors="replace").splitlines()
        if any(it in line for it in faults)
    ]


def lanes(cases, jobs, run):
    """Those that may have company in `jobs` lanes, then the others one by one."""
    waiting = [it for it in cases if not it.alone]
    lock = threading.Lock()

    def lane():
        while True:
            with lock:
                if not waiting:
                    return
                case = waiting.pop(0)
            run.case(case)

    threads = [threading.Thread(target=lane) for _ in range(jobs)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for case in cases:
        if case.alone:
            run.case(case)


def main():
    """The whole run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep the folders of passed cases too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for area in AREAS:
        importlib.import_module(f"cases.{area}")
    if options.child:
        return run_one(options.child, options.folder)
    wanted = [it for it in CASES.values() if it.name.startswith(tuple(options.names) or "")]
    if options.list:
        print("\n".join([it.name for it in wanted] + [LOGS, FAULTS]))
        return 0
    if not BINARY.exists():
        print(f"no {BINARY}: build it, or use tests/run.sh")
        return 2
    if not wanted:
        print(f"no case begins with {' or '.join(options.names)}")
        return 2
    # The longest first, so that the lanes end together.
    wanted.sort(key=lambda it: -it.timeout)
    shutil.rmtree(OUT, ignore_errors=True)
    run, began = Run(), time.monotonic()
    try:
        lanes(wanted, options.jobs, run)
        unsteady = run.again()
    except KeyboardInterrupt:
        for group in list(run.children):
            run.end(group)
        os._exit(130)
    folders = [OUT / it.name for it in wanted]
    faults = []
    found, files, words = logs_hold_nothing_personal(folders)
    if files and words:
        notes = f"{words} secrets in {files} logs"
        run.tell(LOGS, FAILED if found else PASSED, 0, "\n".join(found), notes)
        faults = logs_hold_no_faults(folders)
        run.tell(FAULTS, FAILED if faults else PASSED, 0, "\n".join(faults))
    # What pages looked like stays: a person is to look at them.
    (OUT / "screenshots").mkdir(exist_ok=True)
    for folder in folders:
        for picture in folder.glob("*.png"):
            shutil.copy(picture, OUT / "screenshots")
        if (folder / "passed").exists() and not options.keep and not found + faults:
            shutil.rmtree(folder)
    passed, failed, skipped = (run.counts[it] for it in (PASSED, FAILED, SKIPPED))
    if failed:
        print(f"folders of what failed: {OUT}")
    if unsteady:
        print(f"passed only when they were tried again: {', '.join(unsteady)}")
    print(f"all cases: {time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
