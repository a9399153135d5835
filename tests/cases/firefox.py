"""Headless Firefox, as it is delivered: WHIP and SIP.js talk to the voice agent. Its DTLS is looked
at in `handshakes`."""

import time

from harness import sound
from harness.browser import Browser
from harness.case import case, check
from harness.edge import Edge

from .browser import SIP_JS, check_conversation, converse, in_state, register, whip


def open_page(box, before=12.0):
    """An edge, a Firefox whose user says something after `before` seconds, and its page."""
    box.secret("opening hours")
    microphone = sound.say(box, "opening hours", 48_000, before=before, after=40)
    browser = Browser(box, microphone, kind="firefox")
    box.note(f"Firefox {browser.version}")
    edge = Edge(box, origins=[browser.origin]).start()
    return edge, browser, browser.page()


@case(timeout=180)
def whip_talks_to_the_agent(box):
    """It posts an offer, hears the agent and is heard; a key ends the talk."""
    edge, browser, page = open_page(box)
    figures = whip(edge, page, edge.token(edge.key()))
    check(figures["codec"] in (None, "audio/opus"), f"{figures}")
    converse(page, "call.ear")
    page.run("call.press('3')")
    page.until("the agent hung up", "return call.states.at(-1) !== 'connected'", 30)
    check_conversation(box, edge, page)
    browser.close()
    edge.stop()


@case(timeout=120)
def it_changes_its_network(box):
    """ICE restart by PATCH: other credentials, the same handshake, the same call."""
    edge, browser, page = open_page(box)
    whip(edge, page, edge.token(edge.key()))
    page.until("the greeting", "return call.ear && call.ear.firstSound !== null", 30)
    page.run("return call.restart()", patience=60)
    before = page.run("return call.figures()")
    more = "return (await call.figures()).received > argument"
    page.until("media goes on", more, 30, before["received"] + 150)
    check(page.run("return call.peer.connectionState") == "connected", "the call is lost")
    check(edge.metric("callgate_dtls_handshake_total", what="completed") == 1, "another handshake")
    page.run("return call.hangUp()")
    edge.wait_for_call(lambda it: it["state"] == "ended", 20)
    browser.close()
    edge.stop()


@case(timeout=180)
def sip_js_talks_to_the_agent(box):
    """SIP.js, unmodified, over WSS: registers, calls, listens, holds, presses a key."""
    edge, browser, page = open_page(box)
    register(edge, page, SIP_JS)
    page.run("await dial('reception')")
    in_state(page, "Established", seconds=30)
    converse(page, "ear")
    page.run("await hold(true)")
    time.sleep(1)
    page.run("await hold(false)")
    time.sleep(1)
    check(page.run("return session.state") == "Established", page.log())
    check(page.run("return session.sessionDescriptionHandler.sendDtmf('3')"), "no key was sent")
    in_state(page, "Terminated", seconds=30)
    check_conversation(box, edge, page, "ear")
    page.run("await registerer.unregister(); await ua.stop()")
    browser.close()
    edge.stop()
