"""Headless Chromium: WHIP, SIP.js and JsSIP talk to the voice agent and through trunks."""

import json
import time

from harness import sound, tone
from harness.browser import RATE, Browser
from harness.case import case, check, wait_for
from harness.edge import LOCAL_POLICY, Edge
from harness.phone import Phone

from . import tones
from .keys import wait_for_keys

GREETING = "your call is encrypted"
ANSWER = "from nine in the morning to five in the afternoon"
SUITES = ("AEAD_AES_256_GCM", "AEAD_AES_128_GCM", "AES_CM_128_HMAC_SHA1_80")

def open_page(box, policy=LOCAL_POLICY, before=12.0, said="opening hours", flags=()):
    """An edge, a browser whose user says something after `before` seconds, and its page."""
    microphone = sound.say(box, said, 48_000, before=before, after=40)
    browser = Browser(box, microphone, flags)
    edge = Edge(box, policy=policy, origins=[browser.origin]).start()
    return edge, browser, browser.page()


def whip(edge, page, token, called="reception", **options):
    """A WHIP session of the page, up to media; what it knows of its way."""
    page.run(
        """globalThis.call = new Whip(argument.url, argument.token, argument.options);
           await call.start();""",
        {"url": f"{edge.origin}/whip/{called}", "token": token, "options": options},
    )
    page.until("connected", "return call.peer.connectionState === 'connected'", 30)
    return page.run("return call.figures()")


def wait_for_quiet(page, seconds, patience, ear="call.ear"):
    """Waits until the other side has spoken and is done."""
    quiet = f"return {ear} && {ear}.quietFor() > {seconds}"
    page.until("the other side is done", quiet, patience)


def converse(page, ear="call.ear"):
    """Waits until the agent has greeted, has answered, and has asked whether there is more."""
    page.until("the greeting", f"return {ear} && {ear}.firstSound !== null", 30)
    wait_for_quiet(page, 2, 60, ear)
    page.until("the answer", f"return {ear}.quietFor() < 0.3", 60)
    wait_for_quiet(page, 1.5, 60, ear)


def check_conversation(box, edge, page, ear="call.ear"):
    """The page heard greeting and answer; transcript and sealed recording hold both sides."""
    text = sound.recognise(box, page.heard(ear), RATE)
    for wanted in ("hello this is call gate", GREETING, ANSWER):
        check(wanted in text, f"the page did not hear {wanted!r} but {text!r}")
    call = edge.wait_for_call(lambda it: it["state"] == "ended", 15)
    shown = edge.command("calls", "show", call["call_id"], name="calls-show").stdout
    check("opening hours" in shown.lower(), f"the transcript lacks the caller: {shown}")
    check("encrypted" in shown.lower(), f"the transcript lacks the agent: {shown}")
    check(any(it in shown for it in SUITES), f"no SRTP suite is stored: {shown}")
    folder = box.path("export")
    edge.command("calls", "export", call["call_id"], "--to", folder, name="calls-export")
    (left, right), rate = sound.read_wav(folder / f"{call['call_id']}.wav")
    said = sound.recognise(box, left, rate, "left")
    check("opening hours" in said, f"the caller's channel is {said!r}")
    answered = sound.recognise(box, right, rate, "right")
    check(ANSWER in answered, f"the agent's channel is {answered!r}")
    return call


def talk_by_whip(box, policy=LOCAL_POLICY):
    """A browser posts an offer, hears the agent and is heard; a key ends the talk."""
    edge, browser, page = open_page(box, policy)
    box.secret("opening hours")
    whip(edge, page, edge.token(edge.key()))
    page.until("the greeting", "return call.ear && call.ear.firstSound !== null", 5)
    figures = page.run("return call.figures()")
    check(figures["dtls"] == "connected" and figures["srtp"], f"{figures}")
    check(figures["codec"] == "audio/opus", f"{figures}")
    converse(page, "call.ear")
    page.run("call.press('3')")
    page.until("the agent hung up", "return call.states.at(-1) !== 'connected'", 25)
    check_conversation(box, edge, page)
    browser.close()
    edge.stop()


@case(timeout=150)
def whip_talks_to_the_agent(box):
    """As the policy of `make run` has it."""
    talk_by_whip(box)


@case(timeout=150, driver="epoll")
def whip_talks_by_webrtc_dtls(box):
    """The trunk of browsers names the other library of handshakes; by epoll."""
    named = "[trunk.browsers]"
    talk_by_whip(box, LOCAL_POLICY.replace(named, f'{named}\ndtls_library = "webrtc-dtls"'))


@case(timeout=120, alone=True)
def the_first_word_comes_soon(box):
    """Twenty calls, one after the other: from our answer to media and to the agent's first sound.
    The figures are notes; what is checked is that each call hears its greeting from the start."""
    edge, browser, page = open_page(box)
    key = edge.key()
    found = {"connected": [], "sound": []}
    for _ in range(20):
        whip(edge, page, edge.token(key))
        page.until("the greeting", "return call.ear && call.ear.firstSound !== null", 5)
        times = page.run("return { ...call.times, sound: call.ear.firstSound }")
        for name, values in found.items():
            values.append(times[name] - times["answered"])
        check(page.run("return call.hangUp()") == 200, "DELETE")
    for name, values in found.items():
        values.sort()
        box.note(f"{name}: p50 {values[9]:.0f} ms, p95 {values[18]:.0f} ms after the answer")
    browser.close()
    edge.stop()


@case(timeout=90)
def whip_keeps_to_its_rules(box):
    """Statuses, headers, CORS, tokens used twice, foreign origins."""
    edge, browser, page = open_page(box)
    key = edge.key()
    token = edge.token(key)
    status, headers, body = edge.https_request("POST", "/whip/reception", None, "v=0")
    check(status == 401 and "bearer" in headers["www-authenticate"].lower(), f"{status} {body}")
    status, _, body = edge.https_request("POST", "/whip/reception", token, "v=0")
    check(status == 415, f"{status} {body}")
    sdp = {"content-type": "application/sdp"}
    status, _, body = edge.https_request("POST", "/whip/reception", token, "rubbish", sdp)
    check(status in (400, 422), f"{status} {body}")
    check(json.loads(body)["code"], f"no code: {body}")
    foreign = {**sdp, "origin": "https://evil.example"}
    status, headers, _ = edge.https_request("POST", "/whip/reception", token, "v=0", foreign)
    check(status == 403 and not headers["access-control-allow-origin"], f"{status} {headers}")
    status, _, _ = edge.https_request("POST", "/whip/nobody", token, "v=0", sdp)
    check(status == 403, f"a token for the reception calls somebody else: {status}")
    whip(edge, page, token)
    exposed = page.run("return [call.etag, call.location]")
    check(all(exposed), f"headers are not exposed to the page: {exposed}")
    second = page.run(
        """try { await new Whip(argument.url, argument.token).start(); return 'opened'; }
           catch (error) { return error.message; }""",
        {"url": f"{edge.origin}/whip/reception", "token": token},
    )
    check(second.startswith(("403", "409", "429")), f"a token opened two sessions: {second}")
    check(page.run("return call.hangUp()") == 200, "DELETE")
    status, _, _ = edge.https_request("DELETE", page.run("return call.location"), token)
    check(status in (404, 410), f"deleted twice: {status}")
    call = edge.wait_for_call(lambda it: it["state"] == "ended", 10)
    check(call["state"] == "ended", f"{call}")
    browser.close()
    edge.stop()


@case(timeout=90)
def whip_over_tcp_where_udp_is_blocked(box):
    """A network that lets only TCP through: media goes over ICE-TCP (RFC 6544)."""
    edge, browser, page = open_page(box)
    figures = whip(edge, page, edge.token(edge.key()), only="tcp")
    check(figures["protocol"] == "tcp", f"{figures}")
    page.until("the greeting", "return call.ear && call.ear.firstSound !== null", 5)
    wait_for_quiet(page, 1.2, 30)
    text = sound.recognise(box, page.heard(), RATE)
    check(GREETING in text, f"over TCP the page heard {text!r}")
    page.run("return call.hangUp()")
    browser.close()
    edge.stop()


@case(timeout=90)
def a_browser_changes_its_network(box):
    """ICE restart by PATCH: other addresses, other credentials, the same call."""
    edge, browser, page = open_page(box)
    whip(edge, page, edge.token(edge.key()))
    page.until("the greeting", "return call.ear && call.ear.firstSound !== null", 5)
    page.run("return call.restart()")
    before = page.run("return call.figures()")
    time.sleep(4)
    after = page.run("return call.figures()")
    check(after["received"] - before["received"] > 150, f"{before} -> {after}")
    check(page.run("return call.peer.connectionState") == "connected", "the call is lost")
    page.run("return call.hangUp()")
    call = edge.wait_for_call(lambda it: it["state"] == "ended", 10)
    check(call, "no call")
    browser.close()
    edge.stop()


@case(timeout=120)
def a_reload_in_mid_call_is_the_end_of_that_call_only(box):
    """The page is gone without a word: consent ends its call, while it has begun another one."""
    edge, browser, page = open_page(box)
    key = edge.key()
    whip(edge, page, edge.token(key))
    page.ask("reload")
    figures = whip(edge, page, edge.token(key))
    check(figures["dtls"] == "connected", f"{figures}")
    # RFC 7675: 30 s without a check.
    def is_over():
        calls = edge.calls()
        return len(calls) == 2 and calls[1]["state"] == "ended"

    wait_for("the first call's end", is_over, 45, every=1)
    check(page.run("return call.peer.connectionState") == "connected", "the second call is lost")
    page.run("return call.hangUp()")
    browser.close()
    edge.stop()


SIP_JS = """
const { domain, url, user, password } = argument;
const uri = SIP.UserAgent.makeURI(`sip:${user}@${domain}`);
globalThis.ua = new SIP.UserAgent({
  uri, transportOptions: { server: url }, displayName: user,
  authorizationUsername: user, authorizationPassword: password, logLevel: "warn",
  delegate: {
    onInvite: (invitation) => {
      globalThis.session = invitation;
      watch(invitation);
      globalThis.ringing = invitation.remoteIdentity.uri.user;
    },
  },
});
globalThis.states = [];
globalThis.watch = (session) => {
  session.stateChange.addListener((state) => {
    states.push(state);
    if (state !== "Established") return;
    const stream = new MediaStream();
    const { peerConnection } = session.sessionDescriptionHandler;
    peerConnection.getReceivers().forEach((it) => stream.addTrack(it.track));
    globalThis.ear ??= new Ear(stream);
  });
};
globalThis.dial = async (user) => {
  globalThis.session = new SIP.Inviter(ua, SIP.UserAgent.makeURI(`sip:${user}@${domain}`), {
    sessionDescriptionHandlerOptions: { constraints: { audio: raw, video: false } },
  });
  watch(session);
  await session.invite();
};
globalThis.hold = (on) =>
  session.invite({
    sessionDescriptionHandlerOptionsReInvite: { hold: on },
    sessionDescriptionHandlerModifiers: on ? [SIP.Web.holdModifier] : [],
  });
await ua.start();
globalThis.registerer = new SIP.Registerer(ua, { expires: 120 });
registerer.stateChange.addListener((state) => { globalThis.registered = state; });
await registerer.register();
"""

JS_SIP = """
const { domain, url, user, password } = argument;
globalThis.states = [];
globalThis.ua = new JsSIP.UA({
  sockets: [new JsSIP.WebSocketInterface(url)], uri: `sip:${user}@${domain}`, password,
  authorization_user: user, register_expires: 120, session_timers: true,
});
ua.on("registered", () => { globalThis.registered = "Registered"; });
ua.on("registrationFailed", ({ cause }) => { globalThis.registered = `failed: ${cause}`; });
ua.on("newRTCSession", ({ session, originator }) => {
  globalThis.session = session;
  if (originator === "remote") globalThis.ringing = session.remote_identity.uri.user;
  for (const state of ["progress", "accepted", "confirmed", "ended", "failed", "hold", "unhold"]) {
    session.on(state, (event) => states.push(event?.cause ? `${state}: ${event.cause}` : state));
  }
  const listen = (peer) => peer.addEventListener("track", ({ streams, track }) => {
    globalThis.ear ??= new Ear(streams[0] ?? new MediaStream([track]));
  });
  if (session.connection) listen(session.connection);
  else session.on("peerconnection", ({ peerconnection }) => listen(peerconnection));
});
globalThis.dial = (user) => ua.call(`sip:${user}@${domain}`, {
  mediaConstraints: { audio: raw, video: false }, rtcOfferConstraints: {},
});
ua.start();
"""


def register(edge, page, agent, user="alice", password=None):
    """Has one of both user agents register, as an account or with what else is its password."""
    domain = f"127.0.0.1:{edge.https}"
    wish = {"domain": domain, "url": f"wss://{domain}/sip", "user": user}
    wish["password"] = password or edge.account(user)
    page.run(agent, wish)
    page.until("registered", "return globalThis.registered === 'Registered'", 10)


def in_state(page, *wanted, seconds=10):
    """Waits for a state of the session."""
    wanted = json.dumps(wanted)
    page.until(f"a state of {wanted}", f"return {wanted}.includes(states.at(-1))", seconds)


@case(timeout=150)
def sip_js_talks_to_the_agent(box):
    """SIP.js, unmodified: registers, calls, listens, holds, presses a key."""
    edge, browser, page = open_page(box)
    box.secret("opening hours")
    register(edge, page, SIP_JS)
    page.run("await dial('reception')")
    in_state(page, "Established")
    page.until("the greeting", "return globalThis.ear && ear.firstSound !== null", 5)
    converse(page, "ear")
    page.run("await hold(true)")
    time.sleep(1)
    page.run("await hold(false)")
    time.sleep(1)
    check(page.run("return session.state") == "Established", page.log())
    sent = page.run("return session.sessionDescriptionHandler.sendDtmf('3')")
    check(sent, "SIP.js did not send the key")
    in_state(page, "Terminated", seconds=25)
    check_conversation(box, edge, page, "ear")
    page.run("await registerer.unregister(); await ua.stop()")
    browser.close()
    edge.stop()


@case(timeout=150)
def js_sip_talks_to_the_agent(box):
    """JsSIP, unmodified: registers, calls, listens, holds, presses a key by INFO."""
    edge, browser, page = open_page(box)
    box.secret("opening hours")
    register(edge, page, JS_SIP, "bob")
    page.run("dial('reception')")
    in_state(page, "confirmed")
    page.until("the greeting", "return globalThis.ear && ear.firstSound !== null", 5)
    converse(page, "ear")
    page.run("session.hold()")
    in_state(page, "hold")
    time.sleep(1)  # it says so before its re-INVITE is answered
    check(page.run("return session.unhold()"), "JsSIP is not ready to resume")
    in_state(page, "unhold")
    time.sleep(1)
    page.run("session.sendDTMF('3', { transportType: 'INFO' })")
    page.until("the end", "return states.some((it) => it.startsWith('ended'))", 25)
    check_conversation(box, edge, page, "ear")
    page.run("ua.stop()")
    browser.close()
    edge.stop()


@case(timeout=120)
def browsers_call_each_other(box):
    """SIP.js calls the account that JsSIP has registered; both hear the other, both may hang up."""
    policy = LOCAL_POLICY
    edge, browser, page = open_page(box, policy, before=0.5, said="opening hours")
    register(edge, page, SIP_JS, "alice")
    other = browser.page("other")
    register(edge, other, JS_SIP, "bob")
    page.run("await dial('bob')")
    other.until("it rings", "return globalThis.ringing", 10)
    check(other.run("return ringing") == "alice", other.run("return ringing"))
    other.run("session.answer({ mediaConstraints: { audio: raw, video: false } })")
    in_state(page, "Established")
    in_state(other, "confirmed")
    for each in (page, other):
        each.until("a voice", "return globalThis.ear && ear.firstSound !== null", 10)
    other.run("session.terminate()")
    in_state(page, "Terminated")
    browser.close()
    edge.stop()


TRUNK = """
[trunk.callee]
from    = {{ networks = ["127.0.0.1"] }}
send_to = ["{send_to}"]
codecs  = ["{codec}"]
{proof}
"""

ROUTE = """
[[route]]
when    = { trunk = "browsers" }
send_to = { trunk = "callee" }
"""


def check_tone(box, who, samples, rate, frequency):
    """A tone got through. What Chromium hears is stretched now and then: phase is not looked at."""
    end = samples[-4 * rate :]
    found = tone.measure(end, rate, frequency)
    box.note(f"{who}: {found}")
    check(found.seconds > 3 and found.noise_db < -8, f"{who} heard {found}")
    check(abs(found.level_db) < 3, f"{who}, level: {found}")


def to_carrier(box, codec, suite):
    """A browser calls a softphone through a trunk of TLS and SDES-SRTP: a tone each way, keys, hold
    and resumption by the softphone."""
    browser = Browser(box, tone.microphone(box, tone.LOW, 48_000))
    edge, callee, proof = tones.called(box, codec, suite, tone.HIGH, origins=[browser.origin])
    trunk = TRUNK.format(send_to=callee.uri(), codec=codec.lower(), proof=proof)
    edge.set_policy(trunk + LOCAL_POLICY + ROUTE)
    edge.start()
    page = browser.page()
    token = edge.token(edge.key(), tones.CALLEE)
    figures = whip(edge, page, token, tones.CALLEE, codec="opus")
    check(figures["codec"] in (None, "audio/opus"), f"{figures}")
    page.until("a voice", "return call.ear && call.ear.firstSound !== null", 10)
    time.sleep(6)
    check_tone(box, "browser", page.heard(), RATE, tone.HIGH)
    check_tone(box, "softphone", callee.heard(), callee.rate, tone.LOW)
    page.run("call.press('7')")
    wait_for_keys(callee, "7")
    callee.command("hold")
    time.sleep(1.5)
    callee.command("resume")
    time.sleep(5)
    check_tone(box, "browser, resumed", page.heard(), RATE, tone.HIGH)
    callee.hang_up()
    page.until("the end", "return call.states.at(-1) !== 'connected'", 15)
    browser.close()
    edge.stop()


@case(timeout=120)
def to_a_carrier_in_g711(box):
    """Opus under DTLS-SRTP on one side, A-law under SDES-SRTP on the other."""
    to_carrier(box, "PCMA", "AES_CM_128_HMAC_SHA1_80")


@case(timeout=120)
def to_a_carrier_in_g722(box):
    """Opus on one side, G.722 on the other."""
    to_carrier(box, "G722", "AES_CM_128_HMAC_SHA1_80")


@case(timeout=120)
def a_carrier_calls_a_browser(box):
    """A softphone dials an account; SIP.js rings, answers, is heard and hears, and hangs up."""
    browser = Browser(box, tone.microphone(box, tone.LOW, 48_000))
    edge = Edge(box, origins=[browser.origin]).start()
    page = browser.page()
    register(edge, page, SIP_JS)
    phone = Phone(box, tones.CALLER, "PCMU", edge.authority, tone_at=tone.HIGH)
    phone.command(f"dial {edge.uri('alice')}")
    page.until("it rings", "return globalThis.ringing", 10)
    page.run(
        """await session.accept({
             sessionDescriptionHandlerOptions: { constraints: { audio: raw, video: false } } })"""
    )
    in_state(page, "Established")
    phone.wait_log("Call established", 10)
    time.sleep(6)
    check_tone(box, "browser", page.heard("ear"), RATE, tone.HIGH)
    heard = tone.measure(phone.heard()[-4 * phone.rate :], phone.rate, tone.LOW)
    box.note(f"softphone: {heard}")
    check(heard.seconds > 2, f"the softphone heard {heard}")
    page.run("await session.bye()")
    phone.wait_log("terminated", 10)
    browser.close()
    edge.stop()


@case(timeout=120)
def a_call_survives_a_dropped_socket(box):
    """The WebSocket goes down in mid-call: media goes on, SIP.js reconnects, and hangs up."""
    edge, browser, page = open_page(box)
    register(edge, page, SIP_JS)
    page.run("await dial('reception')")
    in_state(page, "Established")
    page.until("the greeting", "return globalThis.ear && ear.firstSound !== null", 5)
    page.run("ua.transport.ws ? ua.transport.ws.close() : ua.transport._ws.close()")
    page.until("the socket is gone", "return !ua.isConnected()", 10)
    page.run("await ua.reconnect(); await registerer.register()", patience=20)
    check(page.run("return session.state") == "Established", "the call ended with the socket")
    before = len(page.heard("ear"))
    time.sleep(2)
    check(len(page.heard("ear")) > before + RATE, "media has stopped")
    page.run("await session.bye()")
    in_state(page, "Terminated")
    edge.wait_for_call(lambda it: it["state"] == "ended", 10)
    browser.close()
    edge.stop()


TONES = {"alice": 937.5, "bob": tone.LOW, "carol": tone.HIGH}
# Either library's way to take a call.
ACCEPT = """
const constraints = { audio: raw, video: false };
if (session.answer) session.answer({ mediaConstraints: constraints });
else await session.accept({ sessionDescriptionHandlerOptions: { constraints } });
"""
ROUTE_TO_CAROL = """
[[route]]
when    = { called = { exact = "carol" } }
send_to = { account = "carol" }
"""


def three_who_speak(box):
    """An edge and three browsers, each with a page that says a tone of its own: alice has SIP.js,
    bob and carol JsSIP."""
    browsers = {
        user: Browser(box, tone.microphone(box, frequency, 48_000), name=f"browser-{user}")
        for user, frequency in TONES.items()
    }
    policy = LOCAL_POLICY + ROUTE_TO_CAROL
    edge = Edge(box, policy=policy, origins=[it.origin for it in browsers.values()]).start()
    pages = []
    for user, browser in browsers.items():
        pages.append(browser.page(user))
        register(edge, pages[-1], SIP_JS if user == "alice" else JS_SIP, user)
    return edge, browsers.values(), *pages


def taken(caller, page, user):
    """One page calls another one's account; both hear the other."""
    caller.run("await dial(argument)", user)
    page.until("it rings", "return globalThis.ringing", 10)
    page.run(ACCEPT)
    for each in (caller, page):
        in_state(each, "Established", "confirmed")
    page.until("a voice", "return globalThis.ear && ear.firstSound !== null", 10)


def check_joined(box, one, other):
    """Two parties that a third one has joined hear each other."""
    time.sleep(6)
    for page, far in ((one, other), (other, one)):
        check_tone(box, page.name, page.heard("ear"), RATE, TONES[far.name])


@case(timeout=150)
def blind_transfer(box):
    """SIP.js calls one account and refers it to another one, who answers: these two talk."""
    edge, browsers, alice, bob, carol = three_who_speak(box)
    taken(alice, bob, "bob")
    carol_is = f"sip:carol@127.0.0.1:{edge.https}"
    alice.run("await session.refer(SIP.UserAgent.makeURI(argument))", carol_is)
    carol.until("it rings", "return globalThis.ringing", 10)
    carol.run(ACCEPT)
    in_state(alice, "Terminated")
    check_joined(box, bob, carol)
    bob.run("session.terminate()")
    carol.until("the end", "return states.some((it) => it.startsWith('ended'))", 10)
    for browser in browsers:
        browser.close()
    edge.stop()


SHOWN = "return pc().remoteDescription.sdp.match(/a=fingerprint:.*/)[0]"
SIP_JS_PEER = "globalThis.pc = () => session.sessionDescriptionHandler.peerConnection"
JS_SIP_PEER = "globalThis.pc = () => session.connection"


@case(timeout=150)
def attended_transfer(box):
    """SIP.js holds one account, asks another one, and joins the two: the second one's browser, with
    JsSIP, moves into the first call, with a new handshake."""
    edge, browsers, alice, bob, carol = three_who_speak(box)
    taken(alice, bob, "bob")
    alice.run("globalThis.first = session; await hold(true)")
    bob.until("it is held", "return session.isOnHold().remote", 10)
    taken(alice, carol, "carol")
    carol.run(JS_SIP_PEER)
    before = carol.run(SHOWN)
    alice.run("await first.refer(session)")
    over = "return states.filter((it) => it === 'Terminated').length === 2"
    alice.until("both are over", over, 10)
    check(carol.run(SHOWN) != before, "carol was shown the same certificate")
    check_joined(box, bob, carol)
    check(carol.run("return pc().connectionState") == "connected", carol.log())
    carol.run("session.terminate()")
    bob.until("the end", "return states.some((it) => it.startsWith('ended'))", 10)
    for browser in browsers:
        browser.close()
    edge.stop()


@case(timeout=150)
def attended_transfer_by_js_sip(box):
    """The same the other way about: JsSIP joins the two, and SIP.js is the one that moves."""
    edge, browsers, alice, bob, carol = three_who_speak(box)
    taken(bob, carol, "carol")
    bob.run("globalThis.first = session; session.hold()")
    carol.until("it is held", "return session.isOnHold().remote", 10)
    taken(bob, alice, "alice")
    alice.run(SIP_JS_PEER)
    before = alice.run(SHOWN)
    bob.run("first.refer(argument, { replaces: session })", f"sip:alice@127.0.0.1:{edge.https}")
    over = "return states.filter((it) => it.startsWith('ended')).length === 2"
    bob.until("both are over", over, 10)
    check(alice.run(SHOWN) != before, "alice was shown the same certificate")
    check_joined(box, carol, alice)
    check(alice.run("return pc().connectionState") == "connected", alice.log())
    alice.run("await session.bye()")
    carol.until("the end", "return states.some((it) => it.startsWith('ended'))", 10)
    for browser in browsers:
        browser.close()
    edge.stop()
