"""SIP.js and JsSIP, unmodified, call out through a trunk to a carrier's softphone: with a browser
token in place of a password, muted and not, over a socket that goes down in mid-call."""

from harness import sound, tone
from harness.browser import RATE, Browser
from harness.case import case, check, wait_for
from harness.edge import LOCAL_POLICY

from . import tones
from .browser import JS_SIP, ROUTE, SIP_JS, TRUNK, check_tone, in_state, register
from .keys import KEYS

MUTE = {
    SIP_JS: "session.sessionDescriptionHandler.enableSenderTracks(!argument)",
    JS_SIP: "argument ? session.mute() : session.unmute()",
}
# SIP.js comes back when it is told to, JsSIP by itself.
DROP = {
    SIP_JS: """globalThis.registered = null;
               ua.transport.ws.close();
               while (ua.isConnected()) await new Promise((done) => setTimeout(done, 20));
               await ua.reconnect();
               const onAccept = () => { globalThis.registered = registerer.state; };
               await registerer.register({ requestDelegate: { onAccept } });""",
    JS_SIP: "globalThis.registered = null; ua.transport.socket._ws.close();",
}


def hears(who, heard, seconds, rate):
    """What somebody hears from now on, once it is so many seconds."""
    start = len(heard())
    enough = start + int(seconds * rate)
    wait_for(f"{who} hears {seconds} s more", lambda: len(heard()) >= enough, 30, every=0.2)
    return heard()[start:]


def rings(samples, rate, key, other):
    """For how many of its parts of 40 ms both tones of a key are heard, which differs from the
    other key in its lower one."""
    size, (low, high), (not_low, _) = rate // 25, KEYS[key], KEYS[other]
    parts = [samples[at : at + size] for at in range(0, len(samples) - size, size)]
    def level(part, frequency):
        return abs(tone.amplitude(part, rate, frequency))
    return sum(level(it, high) > 500 and level(it, low) > max(500, 2 * level(it, not_low))
               for it in parts)  # fmt: skip


def check_pressed(page, callee, ear):
    """The softphone presses a key, which the page's browser plays."""
    start = len(page.heard(ear))
    callee.press("5")
    wait_for("the key", lambda: rings(page.heard(ear)[start:], RATE, "5", "8") > 1, 20, every=0.3)


def by_library(box, library):
    """A page registers with a token and calls a softphone through a trunk of TLS and SDES-SRTP."""
    browser = Browser(box, tone.microphone(box, tone.LOW, 48_000))
    edge, callee, proof = tones.called(
        box, "PCMA", "AES_CM_128_HMAC_SHA1_80", tone.HIGH, origins=[browser.origin]
    )
    trunk = TRUNK.format(send_to=callee.uri(), codec="pcma", proof=proof)
    edge.set_policy(trunk + LOCAL_POLICY + ROUTE)
    edge.start()
    page = browser.page()
    token = edge.token(edge.key(), tones.CALLEE)
    register(edge, page, library, token.partition(".")[0], token)
    page.run("await dial(argument)", tones.CALLEE)
    in_state(page, "Established", "confirmed", seconds=20)
    page.until("a voice", "return globalThis.ear && ear.firstSound !== null", 20)
    at_page = hears("the page", lambda: page.heard("ear"), 5, RATE)
    check_tone(box, "page", at_page, RATE, tone.HIGH)
    check_tone(box, "softphone", callee.heard(), callee.rate, tone.LOW)

    page.run(MUTE[library], True)
    wait_for("silence", lambda: sound.rms(callee.heard()[-callee.rate :]) < 20, 20, every=0.2)
    page.run(DROP[library])
    page.until("registered again", "return globalThis.registered === 'Registered'", 30)
    silent = hears("the softphone", callee.heard, 1, callee.rate)
    check(sound.rms(silent) < 20, f"a muted page is heard: {sound.rms(silent)}")
    page.run(MUTE[library], False)
    wait_for("sound", lambda: sound.rms(callee.heard()[-callee.rate :]) > 5_000, 20, every=0.2)
    again = hears("the softphone", callee.heard, 5, callee.rate)
    check_tone(box, "softphone, unmuted", again, callee.rate, tone.LOW)
    check_pressed(page, callee, "ear")

    # What the carrier says comes by the new socket.
    callee.hang_up()
    page.until("the end", "return /^(Terminated|ended)/.test(states.at(-1))", 20)
    stored = edge.wait_for_call(lambda it: it["state"] == "ended")
    check(stored["reason"] == "call.callee_hung_up", stored["reason"])
    check(len(edge.calls()) == 1, "the page called more than once")
    browser.close()
    callee.stop()
    edge.stop()


@case(timeout=120)
def sip_js_calls_a_carrier(box):
    """SIP.js comes back when it is told to."""
    by_library(box, SIP_JS)


@case(timeout=120)
def js_sip_calls_a_carrier(box):
    """JsSIP comes back by itself."""
    by_library(box, JS_SIP)
