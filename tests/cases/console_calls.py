"""The console's Calls and Call, and what holds for every page of it: what a screen reader reads,
the keyboard, contrast, narrow windows and the content security policy."""

import difflib
import os
import re

from harness.browser import FOLDER, Browser
from harness.case import case, check
from harness.edge import Edge

from .console import check_complaints, enter

GOLDEN = FOLDER / "golden"
NUMBER = "+4915735550501"
ROWS = "return document.querySelectorAll('table.calls tbody tr').length"
# What differs from run to run.
CHANGING = [
    (r"call_[0-9a-f]{24}", "CALL"), (r"key_[0-9a-f]{16}", "KEY"), (r"FOLDER\S*?/certs", "CERTS"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"), (r"[0-9a-f-]{16,}\S*", "ID"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"), (r"\d+(\.\d+)? ?(ms|s)\b", "SPAN"), (r"\b\d:\d\d\.\d", "AT"),
    (r"\d+ packets heard, \d+ sent", "PACKETS"), (r"\d+\.\d ?%", "SHARE"),
    (r"\d\.\d \((good|fair|poor)\)", "SCORE"),
    (r"(SPAN|SHARE|\d\.\d) throughout|median \S+, worst \S+ at AT", "OVER TIME"),
]  # fmt: skip


def filtered(page, **fields):
    """Fills the form and sends it; how many rows there are."""
    page.run("document.querySelector('.filter a').click()")
    page.until("an empty form", "return location.search === ''", 20)
    for name, value in fields.items():
        if name == "outcome":
            page.run("document.querySelector('#outcome').value = argument", value)
        else:
            page.ask("fill", selector=f"#{name}", text=value)
    page.ask("click", selector=".filter button")
    loaded = "return location.search && document.readyState === 'complete'"
    page.until("the page", loaded, 20)
    for name, value in fields.items():
        kept = page.run(f"return document.querySelector('#{name}').value")
        check(kept == value, f"{name} is {kept!r} after the search")
    return page.run(ROWS)


def check_filters(edge, page):
    """What is looked for is what is found, and it stays with older pages."""
    page.ask("goto", url=f"{edge.origin}/console/calls")
    found = page.run(ROWS)
    check(found == 50, f"the first page has {found} calls")
    page.ask("click", selector="[rel='next']")
    page.until("older calls", f"{ROWS} === 3", 20)
    page.ask("click", selector=".pages a")
    page.until("the newest", f"{ROWS} === 50", 20)
    for fields, wanted in (
        ({"outcome": "failed"}, 2),
        ({"outcome": "policy.no_route"}, 2),
        ({"outcome": "call.caller_hung_up"}, 50),
        ({"outcome": "trunk.busy"}, 0),
        ({"outcome": "in_progress"}, 0),
        ({"agent": "reception"}, 50),
        ({"agent": "reception", "outcome": "failed"}, 0),
        ({"trunk": "local", "number": "+49 157 3555 0501"}, 1),
        ({"trunk": "browsers"}, 0),
        ({"since": "2999-01-01"}, 0),
    ):
        found = filtered(page, **fields)
        check(found == wanted, f"{fields}: {found} calls")
        if not wanted:
            shown = page.ask("text", selector="main")
            check("No call is like that" in shown, f"nothing is said: {shown}")
    filtered(page, outcome="failed")
    shown = page.ask("text", selector="tbody tr")
    check("no route" in shown and "callgate explain" in shown, f"a failed call: {shown}")
    filtered(page, outcome="call.caller_hung_up")
    page.ask("click", selector="[rel='next']")
    page.until("an older one", f"{ROWS} === 1", 20)
    check("outcome=call.caller_hung_up" in page.ask("url"), "the second page has no filter")


def check_tree(page, name):
    """The page as a screen reader reads it is that of the golden file."""
    tree = page.ask("aria").replace(str(page.browser.box.folder), "FOLDER")
    for pattern, word in CHANGING:
        tree = re.sub(pattern, word, tree)
    path = GOLDEN / f"{name}.yml"
    if os.environ.get("CALLGATE_REGENERATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(tree + "\n")
    page.browser.box.write(f"{name}.yml", tree + "\n")
    lines = difflib.unified_diff(path.read_text().splitlines(), tree.splitlines(), lineterm="", n=1)
    changes = "\n".join(lines)
    check(not changes, f"{name} reads otherwise:\n{changes}")


def check_keyboard(page, name):
    """Every control is reached by Tab, once, in the order of the page, and shows that it is; then
    the keyboard leaves the page."""
    page.run(
        """const { body } = document;
           body.tabIndex = -1;
           body.focus();
           body.removeAttribute("tabindex");
           globalThis.controls = [...document.querySelectorAll(
             "a[href], button, input, select, summary, audio[controls], [tabindex='0']")]
             .filter((it) => !it.matches(":disabled") && it.type !== "hidden"
               && it.checkVisibility() && !it.closest("dialog:not([open])"));"""
    )
    count, reached = page.run("return controls.length"), []
    for _ in range(count * 4 + 20):
        page.ask("press", key="Tab")
        place, shown = page.run(
            """const { activeElement: it } = document;
               const style = getComputedStyle(it);
               const box = it.getBoundingClientRect();
               const isSeen = box.width > 0 && box.right > 0 && box.left < innerWidth;
               return [controls.indexOf(it), it === document.body || (isSeen &&
                 style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2)]"""
        )
        if place < 0:
            break
        check(shown, f"{name}: the focus on control {place} is not seen")
        # Some have several stops of their own, such as players and dates.
        if not reached or reached[-1] != place:
            reached.append(place)
    else:
        check(False, f"{name}: the keyboard does not leave the page: {reached}")
    check(reached == list(range(count)), f"{name}: {reached} of {count} controls are reached")


def check_layouts(page, name, keyboard=True):
    """Light, dark and as narrow as a telephone: no fault that axe-core finds, nothing wider than
    the window; a picture of each."""
    for look, options in (
        ("light", {}),
        ("dark", {"dark": True}),
        ("phone", {"viewport": {"width": 360, "height": 740}}),
    ):
        page.ask("look", **options)
        page.run("await Promise.all(document.getAnimations().map((it) => it.finished))")
        faults = page.ask("axe", 60)
        check(not faults, f"{name}, {look}: " + "\n".join(faults))
        wide = page.run("return document.documentElement.scrollWidth - innerWidth")
        check(wide <= 0, f"{name}, {look}: {wide} pixels wider than its window")
        page.screenshot(f"console-{name}-{look}")
    page.ask("look")
    if keyboard:
        check_keyboard(page, name)


def check_policy(page):
    """Nothing but the edge's own files runs or is loaded, and the browser says what was refused."""
    policy = page.run(
        "return (await fetch(location.href)).headers.get('content-security-policy')"
    )
    for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'",
                 "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"):  # fmt: skip
        check(part in policy.split("; "), f"no {part} in {policy}")
    check("unsafe" not in policy, f"{policy}")
    check_complaints(page)
    refused = page.run(
        """const refused = [];
           addEventListener("securitypolicyviolation", (it) => refused.push(it.effectiveDirective));
           const put = (name, values) =>
             document.body.append(Object.assign(document.createElement(name), values));
           put("script", { textContent: "globalThis.isBad = true" });
           put("img", { src: "https://127.0.0.2/picture.png" });
           put("iframe", { src: "https://127.0.0.2/" });
           const text = document.createElement("p");
           text.setAttribute("style", "color: red");
           await fetch("https://127.0.0.2/").catch(() => {});
           await new Promise((done) => setTimeout(done, 100));
           return [refused.sort().join(" "), globalThis.isBad ?? false]"""
    )
    wanted = "connect-src frame-src img-src script-src-elem style-src-attr"
    check(refused == [wanted, False], f"refused: {refused}")


@case(timeout=150)
def an_operator_looks_for_a_call(box):
    """Two failed calls and fifty-one that were not: filters, pages, and every page of the console
    in light, dark and narrow windows, by keyboard and as a screen reader reads it."""
    browser = Browser(box)
    edge = Edge(box).start()
    edge.load("--calls", "50", "--rate", "25", "--hold", "0.5", "--silent", name="many")
    edge.load("--calls", "2", user="nobody", name="failing")
    edge.load("--hold", "6", "--tone", "440", "--from", NUMBER, name="one")
    page = browser.page(url=f"{edge.origin}/console", lax=False, zone="Europe/Berlin")
    check_tree(page, "sign-in")
    check_layouts(page, "sign-in")
    page.ask("shut")
    page = enter(edge, browser, zone="Europe/Berlin")
    check_tree(page, "talk")
    check_layouts(page, "talk")
    check_filters(edge, page)
    filtered(page, outcome="failed")
    check_layouts(page, "calls-failed", keyboard=False)
    filtered(page, number=NUMBER)
    check_tree(page, "calls")
    check_layouts(page, "calls")
    page.ask("click", selector="tbody a")
    page.until("the recording", "return document.querySelector('.axis .wave')?.complete", 30)
    page.until("its player", "return document.querySelector('.axis audio').readyState > 0", 30)
    # How far the agent came, and what the peer has reported yet, is not the same in every run.
    page.run(
        """const more = [...document.querySelectorAll("#transcript .turn:not(:first-child)")];
           const trying = [...document.querySelectorAll("#ladder li")]
             .filter((it) => it.innerText.includes("SIP/2.0 100"));
           const reported = [...document.querySelectorAll("#media tr, #media .strip")]
             .filter((it) => /^(Round trip|\\w+ on the way)/.test(it.innerText.trim()));
           [...more, ...trying, ...reported].forEach((it) => it.remove());"""
    )
    check_tree(page, "call")
    check_layouts(page, "call")
    check_copies(page)
    check_policy(page)
    filtered_page = f"{edge.origin}/console/calls?outcome=failed"
    page.ask("goto", url=filtered_page)
    page.ask("click", selector="tbody a")
    page.until("the call", "return document.querySelector('.verdict.failed')", 20)
    top = page.ask("text", selector=".verdict")
    for wanted in ("failed", "No route", "explain", "this edge's policy", "policy.no_route"):
        check(wanted in top, f"no {wanted!r} at the top: {top}")
    check_layouts(page, "call-failed", keyboard=False)
    page.ask("motion", reduced=True)
    moves = page.run(
        """return [...document.querySelectorAll("*")].filter((it) =>
             getComputedStyle(it).transitionDuration !== "0s").length"""
    )
    check(moves == 0, f"{moves} elements move")
    browser.close()
    edge.stop()


def check_copies(page):
    """What is copied is what stands there; times have the reader's zone as well."""
    page.ask("allow", permissions=["clipboard-read", "clipboard-write"])
    page.ask("click", selector="h1 button.copy")
    page.until("it was copied", "return document.querySelector('#told').textContent", 20)
    copied = page.run("return navigator.clipboard.readText()")
    ident = page.run("return document.querySelector('#seen').dataset.call")
    check(copied == ident, f"copied: {copied!r}")
    shown = page.ask("text", selector="#summary")
    check("UTC" in shown and "Europe/Berlin" in shown, f"times: {shown}")
    check("SIP Call-ID" in shown, f"no Call-ID: {shown}")
