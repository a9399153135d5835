"""The console in headless Chromium, by clicks and keyboard."""

import time

from harness import sound
from harness.browser import Browser
from harness.case import case, check, wait_for
from harness.edge import Edge


@case(timeout=150)
def as_a_person_uses_it(box):
    """Signs in, talks to the agent by keyboard and clicks, and looks at the call; screenshots stay
    with the case. The pages' content security policy is in force."""
    microphone = sound.say(box, "opening hours", 48_000, before=13, after=40)
    browser = Browser(box, microphone)
    edge = Edge(box).start()
    key = edge.key()
    page = browser.page(url=f"{edge.origin}/console", lax=False)
    page.screenshot("console-sign-in")
    page.ask("fill", selector="#key", text="sk_call2me_wrong")
    page.ask("press", key="Enter")
    page.until("an error", "return document.querySelector('[aria-invalid=true]')", 5)
    page.ask("fill", selector="#key", text=key)
    page.ask("press", key="Enter")
    page.until("signed in", "return location.pathname !== '/console'", 5)
    page.ask("goto", url=f"{edge.origin}/console/talk")
    page.run("document.querySelector('#call').focus()")
    page.ask("press", key="Enter")
    page.until("the call", "return !document.querySelector('#end').disabled", 10)
    page.until(
        "the agent's first words",
        "return /encrypted/i.test(document.querySelector('#transcript').innerText)",
        25,
    )
    page.screenshot("console-talk")
    page.until(
        "the user's words",
        "return /opening hours/i.test(document.querySelector('#transcript').innerText)",
        30,
    )
    details = page.ask("text", selector="#details")
    check(any(word in details for word in ("AEAD_AES", "AES_CM")), f"no suite: {details}")
    wait_for("the answer", lambda: "nine" in page.ask("text", selector="#transcript"), 30)
    page.screenshot("console-talk-answered")
    page.ask("click", selector="[data-key='3']")
    page.until("the agent hung up", "return document.querySelector('#end').disabled", 30)
    call = edge.wait_for_call(lambda it: it["state"] == "ended", 15)
    for name, options in (
        ("light", {}),
        ("dark", {"dark": True}),
        ("phone", {"viewport": {"width": 360, "height": 740}}),
    ):
        page.ask("look", **options)
        page.ask("goto", url=f"{edge.origin}/console/calls")
        page.screenshot(f"console-calls-{name}")
        page.ask("goto", url=f"{edge.origin}/console/calls/{call['call_id']}")
        page.until("the waveform", "return document.querySelector('svg, canvas')", 10)
        time.sleep(1)
        page.screenshot(f"console-call-{name}")
        wide = page.run("return document.documentElement.scrollWidth > innerWidth + 1")
        check(not wide, f"{name}: the page is wider than its window")
    shown = page.ask("text", selector="main")
    check("opening hours" in shown.lower(), f"the call's page lacks the transcript: {shown[:500]}")
    # Statuses that are meant: the wrong key, and the DELETE of a session that the agent had ended.
    faults = [it for it in page.log() if it.startswith("error") and "status of 40" not in it]
    check(not faults, f"the pages complain: {page.log()}")
    browser.close()
    edge.stop()
