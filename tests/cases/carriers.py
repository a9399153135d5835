"""Browsers and a carrier in the clear, which its trunk is exempted for; pages that are loaded again
in mid-call."""

import time

from harness import tone
from harness.browser import RATE, Browser
from harness.case import case, check, wait_for
from harness.edge import LOCAL_POLICY, Edge
from harness.phone import Phone

from . import tones
from .bridging import EXEMPT
from .browser import ROUTE, SIP_JS, check_tone, in_state, register, whip
from .keys import wait_for_keys
from .libraries import check_pressed, hears

TRUNK = """
[trunk.callee]
send_to = ["sip:{callee}@127.0.0.2:{port};transport=udp"]
codecs  = ["pcmu"]
{exempt}
"""


def reload(edge, page, callee):
    """The page is loaded again: the carrier hears of it, long before the page would be missed."""
    ended = "session closed"
    before, since = callee.log().count(ended), time.monotonic()
    page.ask("reload")
    wait_for("BYE", lambda: callee.log().count(ended) > before, 25)
    took = time.monotonic() - since
    edge.box.note(f"BYE {took:.1f} s after the page was loaded again")


@case(timeout=120)
def in_the_clear(box):
    """A page calls a softphone over UDP with plain RTP, by WHIP and then, loaded again, by SIP.js
    with a token, which stays its own when it is loaded once more: tones and keys each way."""
    # What a page asks for as it goes outlives what lets the driver trust our certificate.
    flags = ["--ignore-certificate-errors"]
    browser = Browser(box, tone.microphone(box, tone.LOW, 48_000), flags)
    callee = Phone(
        box, tones.CALLEE, "PCMU", encrypted=False, transport="udp", address="127.0.0.2",
        name="callee", answers=True, tone_at=tone.HIGH,
    )  # fmt: skip
    trunk = TRUNK.format(callee=tones.CALLEE, port=callee.sip, exempt=EXEMPT)
    edge = Edge(box, trunk + LOCAL_POLICY + ROUTE, origins=[browser.origin]).start()
    page, key = browser.page(), edge.key()

    token = edge.token(key, tones.CALLEE, scopes=["call"])
    whip(edge, page, token, tones.CALLEE, codec="opus", leaves=True)
    page.until("a voice", "return call.ear && call.ear.firstSound !== null", 20)
    check_tone(box, "page", hears("the page", page.heard, 5, RATE), RATE, tone.HIGH)
    check_tone(box, "softphone", callee.heard(), callee.rate, tone.LOW)
    check("RTP/AVP " in callee.log(), "the softphone was not offered plain RTP")
    page.run("call.press('7')")
    wait_for_keys(callee, "7")
    check_pressed(page, callee, "call.ear")
    reload(edge, page, callee)

    token = edge.token(key, tones.CALLEE)
    identity = token.partition(".")[0], token
    register(edge, page, SIP_JS, *identity)
    page.run("await dial(argument)", tones.CALLEE)
    in_state(page, "Established", seconds=20)
    page.until("a voice", "return globalThis.ear && ear.firstSound !== null", 20)
    reload(edge, page, callee)
    register(edge, page, SIP_JS, *identity)
    reasons = [it["reason"] for it in edge.calls()]
    check(reasons == ["call.caller_hung_up"] * 2, f"stored {reasons}")
    browser.close()
    callee.stop()
    edge.stop()
