"""Parties that are carried to somebody else: to the voice agent, and pages of WHIP, which nothing can
be offered to once their session stands."""

from harness import sound, tone
from harness.browser import RATE, Browser
from harness.case import case, check, wait_for
from harness.edge import LOCAL_POLICY, Edge
from harness.phone import Phone

from . import tones
from .browser import (
    ACCEPT,
    JS_SIP,
    SIP_JS,
    TRUNK,
    check_tone,
    in_state,
    register,
    taken,
    wait_for_quiet,
    whip,
)
from .transferring import CALLER, desk

# The voice agent hands its caller on, after a word to the callee where it announces.
AGENT = """
voice = "slt"
start = "connect"
[step.connect]
transfer    = "+{callee}"
{announced}
failed      = "sorry"
[step.sorry]
goodbye = "I cannot hear you. Please call again. Goodbye."
"""

ANNOUNCED = """
announce    = "Your call is encrypted."
announce_to = "Say opening hours, address, or goodbye. Or press one, two, or three."
accept      = "1"
"""

ROUTES = """
[[route]]
when    = {{ called = {{ pattern = "*{callee}" }} }}
{then}
"""

FURTHER = 'send_to = { trunk = "callee" }'
REFUSED = "refuse = { status = 603 }"


def page_with_agent(box, announced="", then=FURTHER):
    """A page of WHIP that says a low tone, and talks to an agent that will hand it on to a softphone
    behind a trunk of TLS and SDES-SRTP, which says a high one."""
    browser = Browser(box, tone.microphone(box, tone.LOW, 48_000))
    edge, callee, proof = tones.called(
        box, "PCMA", "AES_CM_128_HMAC_SHA1_80", tone.HIGH, origins=[browser.origin]
    )
    trunk = TRUNK.format(send_to=callee.uri(), codec="pcma", proof=proof)
    routes = ROUTES.format(callee=tones.CALLEE, then=then)
    before, route, after = LOCAL_POLICY.partition("[[route]]")
    edge.set_policy(trunk + before + routes + route + after)
    agent = AGENT.format(callee=tones.CALLEE, announced=announced)
    (edge.root / "agents/reception.toml").write_text(agent)
    edge.start()
    page = browser.page()
    whip(edge, page, edge.token(edge.key()), codec="opus")
    return edge, browser, page, callee


def check_both_hear(box, page, callee):
    """The page and the softphone hear each other's tones."""
    start = len(callee.heard())
    wait_for("sound at the callee", lambda: len(callee.heard()) > start + 6 * callee.rate or None, 30)
    check_tone(box, "browser", page.heard(), RATE, tone.HIGH)
    check_tone(box, "softphone", callee.heard(), callee.rate, tone.LOW)


def end(edge, browser, page, callee):
    """The softphone hangs up, and the page hears of it."""
    callee.hang_up()
    page.until("the end", "return call.states.at(-1) !== 'connected'", 20)
    browser.close()
    edge.stop()


@case(timeout=120)
def a_page_is_handed_on_by_the_agent(box):
    """The agent carries a page of WHIP to a carrier's softphone; its media session stays."""
    edge, browser, page, callee = page_with_agent(box)
    edge.wait_for_log("transfer.done", 30)
    check_both_hear(box, page, callee)
    check(page.run("return call.peer.connectionState") == "connected", "the page has lost its way")
    end(edge, browser, page, callee)


@case(timeout=120)
def a_page_is_announced_by_the_agent(box):
    """The same, after the agent has told the callee, who presses a key."""
    edge, browser, page, callee = page_with_agent(box, ANNOUNCED)
    callee.wait_for_quiet(1.0, 40)
    callee.press("1")
    edge.wait_for_log("transfer.done", 20)
    check_both_hear(box, page, callee)
    end(edge, browser, page, callee)


@case(timeout=120)
def the_agent_is_back_with_a_page(box):
    """Nobody may be dialled: the agent speaks with the page again, which hears it."""
    edge, browser, page, callee = page_with_agent(box, then=REFUSED)
    page.until("the agent hung up", "return call.states.at(-1) !== 'connected'", 40)
    text = sound.recognise(box, page.heard(), RATE)
    check("please call again" in text, f"the page heard {text!r}")
    callee.stop()
    browser.close()
    edge.stop()


PAGE = "page"
TONES = {"alice": 937.5, "bob": tone.LOW, PAGE: tone.HIGH}


@case(timeout=150)
def a_page_is_joined_with_another_call(box):
    """SIP.js has a call from a page of WHIP and one with JsSIP, and joins the two. The page cannot
    move; JsSIP comes to it, and each hears the other."""
    browsers = {
        user: Browser(box, tone.microphone(box, frequency, 48_000), name=f"browser-{user}")
        for user, frequency in TONES.items()
    }
    edge = Edge(box, origins=[it.origin for it in browsers.values()]).start()
    alice, bob, page = (browsers[user].page(user) for user in TONES)
    register(edge, alice, SIP_JS, "alice")
    register(edge, bob, JS_SIP, "bob")
    page.run(
        """globalThis.call = new Whip(argument.url, argument.token, {});
           globalThis.starting = call.start().then(() => true, (error) => error.message);""",
        {"url": f"{edge.origin}/whip/alice", "token": edge.token(edge.key(), "alice")},
    )
    alice.until("it rings", "return globalThis.ringing", 20)
    alice.run(ACCEPT)
    in_state(alice, "Established")
    page.until("connected", "return call.peer.connectionState === 'connected'", 20)
    alice.run("globalThis.first = session; await hold(true)")
    taken(alice, bob, "bob")
    before = page.run("return call.peer.remoteDescription.sdp")
    alice.run("await session.refer(first)")
    over = "return states.filter((it) => it === 'Terminated').length === 2"
    alice.until("both are over", over, 20)
    edge.wait_for_log("transfer.done", 20)
    for who, ear, far in ((page, "call.ear", "bob"), (bob, "ear", PAGE)):
        start = len(who.heard(ear))
        wait_for("sound", lambda who=who, ear=ear, start=start:  # noqa: B023
                 len(who.heard(ear)) > start + 6 * RATE or None, 40)
        check_tone(box, who.name, who.heard(ear), RATE, TONES[far])
    check(page.run("return call.peer.remoteDescription.sdp") == before, "the page was offered something")
    check(page.run("return call.hangUp()") == 200, "DELETE")
    bob.until("the end", "return states.some((it) => it.startsWith('ended'))", 20)
    for browser in browsers.values():
        browser.close()
    edge.stop()


@case(timeout=120)
def referred_to_the_agent(box):
    """baresip carries its callee, a softphone behind a trunk, to the voice agent: the callee hears
    the greeting from its start, and the transcript holds it."""
    edge, callee = desk(box)
    phone = Phone(box, CALLER, authority=edge.authority)
    phone.dial(edge.uri("4915735550102"))
    callee.wait_log("Call established", 20)
    heard = callee.heard_seconds()
    phone.command("transfer sip:reception@127.0.0.1")
    edge.wait_for_log("transfer.done", 20)
    phone.wait_log("terminated", 20)
    callee.wait_for_quiet(1.2, 40, since=heard)
    text = sound.recognise(box, callee.heard(), callee.rate)
    check("hello this is call gate" in text, f"the callee heard {text!r}")
    callee.hang_up()
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["reason"] == "call.callee_hung_up", stored["reason"])
    shown = edge.command("calls", "show", stored["call_id"], name="show").stdout
    check("encrypted" in shown.lower(), shown)
    phone.stop()
    callee.stop()
    edge.stop()


@case(timeout=150)
def what_a_carrier_sees_of_a_browser(box):
    """A token's caller and name, an account's, the trunk's, or nobody: never the token's id, and
    never what the page says of itself."""
    browser = Browser(box, tone.microphone(box, tone.LOW, 48_000))
    edge, callee, proof = tones.called(
        box, "PCMA", "AES_CM_128_HMAC_SHA1_80", tone.HIGH, origins=[browser.origin]
    )
    trunk = TRUNK.format(send_to=callee.uri(), codec="pcma", proof=proof)
    route = ROUTES.format(callee=tones.CALLEE, then=FURTHER)
    edge.set_policy(trunk + LOCAL_POLICY.replace("[[route]]", route + "\n[[route]]", 1))
    edge.start()
    key = edge.key()

    page = browser.page()
    for terms, shown in (
        ({"caller": "+498912345678", "name": "Ann Example"}, '"Ann Example" <sip:+498912345678@'),
        ({}, "<sip:anonymous@anonymous.invalid>"),
    ):
        seen = len(callee.log())
        token = edge.token(key, tones.CALLEE, **terms)
        whip(edge, page, token, tones.CALLEE)
        invite = callee.log()[seen:]
        check(shown in invite, f"the carrier does not see {shown!r}")
        check(token.partition(".")[0] not in invite, "the carrier sees the token's id")
        check(page.run("return call.hangUp()") == 200, "DELETE")
        wait_for("the end", lambda seen=seen: "session closed" in callee.log()[seen:] or None, 20)
    browser.close()
    callee.stop()
    edge.stop()
