"""The console's Talk as a person uses it: keyboard and clicks in headless Chromium."""

import re

from harness import sound
from harness.browser import Browser
from harness.case import case, check, wait_for
from harness.edge import LOCAL_POLICY, Edge

from .console import check_complaints, enter, until_state

SAID = "return /{}/i.test(document.querySelector('#transcript').innerText)"
# A second agent to choose from, and room for one call at a time.
POLICY = LOCAL_POLICY.replace("[trunk.browsers]", "[trunk.browsers]\nlimits = { calls = 1 }") + """
[[route]]
name    = "annex"
when    = { called = { exact = "annex" } }
send_to = { agent = "annex" }
"""
# Keeps what the meters show, and an ear at the microphone itself, before the page mutes it.
WATCH = """
const media = navigator.mediaDevices;
const real = media.getUserMedia.bind(media);
media.getUserMedia = async (wish) => {
  const stream = await real(wish);
  const ear = new AudioContext();
  const look = ear.createAnalyser();
  ear.createMediaStreamSource(stream.clone()).connect(look);
  const samples = new Float32Array(look.fftSize);
  globalThis.mouth = { heard: 0, quiet: 0 };
  setInterval(() => {
    look.getFloatTimeDomainData(samples);
    if (samples.some((it) => Math.abs(it) > 0.05)) mouth = { heard: mouth.heard + 1, quiet: 0 };
    else mouth.quiet += 1;
  }, 50);
  return stream;
};
globalThis.seen = { me: [], other: [] };
setInterval(() => {
  for (const who of ["me", "other"]) {
    const place = document.getElementById(who);
    const word = place.querySelector(".word").textContent;
    seen[who].push([place.querySelector("meter").value, word]);
  }
}, 50);
"""


def microphone(box):
    """Somebody who speaks into the greeting, and again after it; the rest is silence."""
    (said,), rate = sound.read_wav(sound.say(box, "opening hours", 48_000))
    whole = sound.silence(3, rate) + said + sound.silence(9, rate) + said + sound.silence(40, rate)
    path = box.path("microphone.wav")
    sound.write_wav(path, whole, rate)
    return path


def focused(page):
    """The element that the keyboard acts on."""
    return page.run(
        """const { activeElement: it } = document;
           return it.id || it.ariaLabel || it.textContent"""
    )


def tab_to(page, wanted, key="Tab"):
    """Goes with the keyboard alone."""
    for _ in range(40):
        if focused(page) == wanted:
            return
        page.ask("press", key=key)
    check(False, f"the keyboard does not reach {wanted!r}")


def levels(page, who):
    """What a meter has shown so far, and the words beside it."""
    seen = page.run("return seen[argument].splice(0)", who)
    return max((it[0] for it in seen), default=0), {it[1] for it in seen}


def sign_in(edge, browser):
    """By keyboard, with a wrong key first; no page and no store of the browser has the key."""
    page = browser.page(url=f"{edge.origin}/console?to=/console/talk", lax=False)
    page.ask("fill", selector="#key", text="sk_call2me_wrong")
    page.ask("press", key="Enter")
    page.until("an error", "return document.querySelector('[aria-invalid=true]')", 20)
    page.screenshot("console-sign-in-wrong")
    page.ask("fill", selector="#key", text=edge.key())
    page.ask("press", key="Enter")
    page.until("signed in", "return location.pathname === '/console/talk'", 20)
    page.until("the page", "return document.readyState === 'complete'", 20)
    return page


def check_secrets(edge, page):
    """The session is a cookie that no script reads; nothing else of the key stays anywhere."""
    (cookie,) = page.ask("cookies")
    wanted = {"name": "__Host-callgate", "path": "/", "httpOnly": True, "secure": True}
    wanted["sameSite"] = "Strict"
    for name, value in wanted.items():
        check(cookie[name] == value, f"the cookie's {name} is {cookie[name]!r}")
    held = page.run(
        """return [location.href, document.cookie, document.documentElement.outerHTML,
             JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.referrer]"""
    )
    for text in held:
        for secret in (edge.key(), cookie["value"]):
            check(secret not in text, f"a secret is in the page: {text[:200]}")


def start_by_keyboard(page):
    """Chooses an agent, and calls it; the focus follows."""
    tab_to(page, "agent")
    about = page.ask("text", selector="#about")
    check("annex" in about, f"the first agent is {about!r}")
    page.ask("press", key="ArrowDown")
    chosen = page.run("return document.querySelector('#agent').value")
    check(chosen == "reception", f"chosen: {chosen}")
    check("annex" not in page.ask("text", selector="#about"), "another agent, the same words")
    tab_to(page, "call")
    page.ask("press", key="Enter")
    page.until("the call", "return document.activeElement.id === 'end'", 20)


def mute_and_unmute(page):
    """While the page is muted, neither it nor the edge hears who speaks into the microphone."""
    tab_to(page, "mute", "Shift+Tab")
    page.ask("press", key="Space")
    page.until("muted", "return document.querySelector('#me .word').textContent === 'muted'", 20)
    pressed = "return document.querySelector('#mute').getAttribute('aria-pressed')"
    check(page.run(pressed) == "true", "mute is not pressed")
    until_state(page, "encrypted", 30)
    levels(page, "me")
    page.until("the agent's first words", SAID.format("encrypted"), 30)
    page.until("somebody spoke", "return mouth.heard > 3 && mouth.quiet > 30", 40)
    loudest, words = levels(page, "me")
    check(loudest < 0.05 and words == {"muted"}, f"muted, and yet {loudest} {words}")
    loudest, words = levels(page, "other")
    check(loudest > 0.1 and "speaking" in words, f"the agent's meter: {loudest} {words}")
    check(not page.run("return document.querySelector('.turn.caller')"), "muted, and yet heard")
    page.ask("press", key="Space")
    check(page.run(pressed) == "false", "mute is still pressed")


def check_details(edge, page):
    """What the page says of the connection is what the edge has of it."""
    shown = "return /AES/.test(document.querySelector('#details').innerText)"
    page.until("details", shown, 20)
    details = page.ask("text", selector="#details")
    call = edge.wait_for_call(lambda it: it["state"] == "in_progress" and it["codec"], 20)
    suite = call["protection"].split()[-1]
    check(suite in details, f"{call['protection']} is not in {details}")
    check(call["codec"].lower() in details.lower(), f"{call['codec']} is not in {details}")
    check("DTLS-SRTP" in call["protection"] and "DTLS 1." in details, f"{call} {details}")
    first, last = re.search(r"ports += \[(\d+), (\d+)\]", edge.config.read_text()).groups()
    port = int(re.search(r"to 127\.0\.0\.1:(\d+) \(host\)", details).group(1))
    check(int(first) <= port <= int(last), f"{port} is no media port of {first} to {last}")
    return call


@case(timeout=150)
def a_person_talks_to_an_agent(box):
    """Signs in, chooses an agent, mutes, speaks, presses keys and hangs up, by keyboard, while
    somebody else has the call's page open, which follows it and then plays its recording."""
    browser = Browser(box, microphone(box))
    edge = Edge(box, policy=POLICY)
    annex = (edge.root / "agents/reception.toml").read_text()
    annex = re.sub(r"(?m)^description = .*", 'description = "of the annex"', annex)
    (edge.root / "agents/annex.toml").write_text(annex)
    edge.start()
    page = sign_in(edge, browser)
    check_secrets(edge, page)
    page.run(WATCH)
    start_by_keyboard(page)
    mute_and_unmute(page)
    call = edge.wait_for_call(lambda it: it["state"] == "in_progress", 20)
    looker = enter(edge, browser, "looker")
    looker.ask("goto", url=f"{edge.origin}/console/calls/{call['call_id']}")
    looker.run("globalThis.isSame = true")
    spoken = "return /opening hours/i.test(document.querySelector('.turn.caller')?.innerText)"
    page.until("the user's words", spoken, 40)
    loudest, words = levels(page, "me")
    check(loudest > 0.1 and "speaking" in words, f"the user's meter: {loudest} {words}")
    page.until("the answer", SAID.format("nine in the morning"), 40)
    page.screenshot("console-talk")
    page.until("its latency", SAID.format("answered after \\d+ ms"), 20)
    check_details(edge, page)
    looker.until("the turn over there", SAID.format("nine in the morning"), 30)
    looker.screenshot("console-call-live")
    # Keys: by keyboard within the keypad, and by a click.
    tab_to(page, "1")
    page.ask("press", key="2")
    page.until("the address", SAID.format("harbour"), 30)
    page.ask("click", selector="[data-key='1']")
    page.until("the hours again", "return document.querySelectorAll('.turn.agent').length > 4", 30)
    wait_for("the keys", lambda: "[keys 1]" in page.ask("text", selector="#transcript"), 30)
    check("2 1" in page.ask("text", selector="#sent"), "the page does not say which keys it sent")
    tab_to(page, "end", "Shift+Tab")
    page.ask("press", key="Enter")
    until_state(page, "You hung up")
    check(focused(page) == "call", f"the focus is on {focused(page)!r}")
    call = edge.wait_for_call(lambda it: it["state"] == "ended", 20)
    check(call["reason"] == "call.caller_hung_up", f"{call}")
    look_at_it(edge, looker, call)
    check_complaints(page, "status of 40")
    check_complaints(looker)
    browser.close()
    edge.stop()


def look_at_it(edge, page, call):
    """The page that followed the call has become that of a call that is over, and plays it."""
    news = "return /The call ended/.test(document.querySelector('#news').innerText)"
    page.until("the end", news, 20)
    page.until("the recording", "return document.querySelector('.axis .wave')?.complete", 30)
    check(page.run("return globalThis.isSame"), "the page was loaded anew")
    shown = page.ask("text", selector="main")
    for wanted in ("Caller hung up", "call.caller_hung_up", "Route 1 (reception)", "INVITE sip:"):
        check(wanted in shown, f"no {wanted!r} in {shown}")
    check("Hang up this call" not in shown, "there is something to hang up")
    check(re.search(r"answered after \d+ ms", shown), f"no latency: {shown}")
    check(len(re.findall(r"MOS 4\.\d", shown)) >= 1, f"no quality: {shown}")
    play(page)
    # Both channels of the recording, and none of what was said while the page was muted.
    folder = edge.box.path("export")
    edge.command("calls", "export", call["call_id"], "--to", folder, name="calls-export")
    (left, right), rate = sound.read_wav(folder / f"{call['call_id']}.wav")
    said = sound.recognise(edge.box, left, rate, "left")
    check(said == "opening hours", f"the caller's channel is {said!r}")
    check(sound.speech_seconds(right, rate) > 10, "the agent's channel is silent")


def play(page):
    """The player, its waveform and the turns: by keyboard and by clicks."""
    page.run("globalThis.player = document.querySelector('.axis audio')")
    length = page.until("the length", "return player.duration > 10 && player.duration", 20)
    drawn = page.run(
        """const answer = await fetch(document.querySelector('.wave').src);
           const picture = new DOMParser().parseFromString(await answer.text(), 'image/svg+xml');
           return [...picture.querySelectorAll('path')].map((path) =>
             [...path.getAttribute('d').matchAll(/ ([\\d.]+)V([\\d.]+)/g)]
               .filter(([, top, bottom]) => bottom - top > 8).length)"""
    )
    check(len(drawn) == 2 and min(drawn) > 5, f"loud steps of the two channels: {drawn}")
    tab_to(page, "Place in the recording")
    page.ask("press", key="Space")
    page.until("it plays", "return !player.paused && player.currentTime > 0.3", 20)
    page.ask("press", key="Space")
    page.until("it pauses", "return player.paused", 20)
    page.ask("press", key="End")
    page.until("the end", f"return player.currentTime > {length - 0.5}", 20)
    page.ask("press", key="Home")
    page.until("the beginning", "return player.currentTime === 0", 20)
    page.ask("press", key="ArrowRight")
    page.until("a step", "return player.currentTime === 1", 20)
    words = page.run("return document.querySelector('.lanes').getAttribute('aria-valuetext')")
    check(re.fullmatch(r"0:01\.\d of 0:\d\d\.\d", words), f"the slider says {words!r}")
    page.ask("point", selector=".lanes", x=0.5)
    middle = f"return player.currentTime >= {length} * 0.48 && player.currentTime"
    found = page.until("the middle", middle, 20)
    check(found < length * 0.8, f"a click in the middle went to {found} of {length} s")
    head = page.run("return parseFloat(document.querySelector('.head').style.left)")
    check(45 < head < 80, f"the head is at {head} %")
    page.ask("click", selector=".turn.caller button.when")
    start = page.run("return Number(document.querySelector('.turn.caller').dataset.start) / 1000")
    there = f"return player.currentTime >= {start} - 1 && player.currentTime"
    at = page.until("the turn", there, 20)
    check(at < start + 8, f"a turn at {start} s went to {at} s")
    page.until("the turn is marked", "return document.querySelector('.turn.caller.now')", 20)
    page.run("player.pause()")


@case(timeout=150)
def what_goes_wrong_is_said(box):
    """An operator hangs up and is asked before; the page is left in mid-call; there is no room, no
    microphone, no valid token, no session, and at last no edge."""
    browser = Browser(box, microphone(box))
    edge = Edge(box, policy=POLICY).start()
    page = enter(edge, browser)
    call = begin(edge, page)
    looker = enter(edge, browser, "looker")
    # No room for a second call.
    looker.ask("click", selector="#call")
    until_state(looker, "no room for another call")
    looker.screenshot("console-talk-full", whole=False)
    # The form that ends a call asks, and Escape is a no.
    looker.ask("goto", url=f"{edge.origin}/console/calls?outcome=in_progress")
    looker.ask("click", selector="tbody a")
    looker.until("the call's page", "return document.querySelector('#ending')", 20)
    looker.ask("click", selector="#ending button")
    looker.until("a question", "return document.querySelector('#sure').open", 20)
    check("Keep the call" in focused(looker), f"the focus is on {focused(looker)!r}")
    looker.screenshot("console-call-sure", whole=False)
    looker.ask("press", key="Escape")
    looker.until("no question", "return !document.querySelector('#sure').open", 20)
    check(page.run("return !document.querySelector('#end').disabled"), "Escape hung up")
    looker.ask("click", selector="#ending button")
    looker.until("a question", "return document.querySelector('#sure').open", 20)
    looker.ask("press", key="Tab")
    looker.ask("press", key="Enter")
    until_state(page, "An operator ended the call")
    check_end(edge, call, "call.operator_hung_up")
    looker.until("the end", "return !document.querySelector('#ending')", 30)
    # A reload in mid-call: the page asks, the call ends, and the page says so.
    call = begin(edge, page)
    page.ask("reload")
    check("dialog: beforeunload" in page.log(), f"nobody was asked: {page.log()}")
    until_state(page, "You left the page")
    link = page.run("return document.querySelector('#more').href")
    check(link.endswith(call["call_id"]), f"the page leads to {link}")
    check_end(edge, call, "call.caller_hung_up")
    page.screenshot("console-talk-left", whole=False)
    # No microphone.
    flags = ["--use-fake-ui-for-media-stream=deny"]
    refusing = Browser(box, microphone(box), flags, name="refusing")
    deaf = enter(edge, refusing, "deaf")
    deaf.ask("click", selector="#call")
    until_state(deaf, "microphone is not allowed")
    check(focused(deaf) == "call", f"the focus is on {focused(deaf)!r}")
    deaf.screenshot("console-talk-denied", whole=False)
    refusing.close()
    # A token that is none any more, as after an hour.
    page.run(
        """const real = fetch;
           globalThis.fetch = (path, options) => {
             if (options?.headers?.Authorization) options.headers.Authorization = "Bearer bt_gone";
             return real(path, options);
           };"""
    )
    page.ask("click", selector="#call")
    until_state(page, "Load it again")
    page.screenshot("console-talk-token", whole=False)
    # Signed out in another tab.
    looker.ask("goto", url=f"{edge.origin}/console/talk")
    looker.run("await fetch('/console/sign-out', { method: 'POST' })")
    looker.ask("click", selector="#call")
    looker.until("led to sign in", "return location.search === '?to=/console/talk'", 20)
    # No edge.
    page.ask("reload")
    edge.kill()
    page.ask("click", selector="#call")
    until_state(page, "The edge cannot be reached")
    page.screenshot("console-talk-gone", whole=False)
    browser.close()


def check_end(edge, call, reason):
    """The call has ended, for this reason."""

    def ended():
        (found,) = [it for it in edge.calls() if it["call_id"] == call["call_id"]]
        return found["state"] == "ended" and found

    found = wait_for("the call's end", ended, 20, every=0.3)
    check(found["reason"] == reason, f"{found}")


def begin(edge, page):
    """A call of the page, once it is up; the edge's record of it."""
    before = len(edge.calls())
    page.ask("click", selector="#call")
    until_state(page, "encrypted", 30)
    wait_for("the call", lambda: len(edge.calls()) > before, 20, every=0.3)
    return edge.calls()[0]
