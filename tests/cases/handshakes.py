"""DTLS of two browsers with both of our libraries: versions, pieces, and each lost datagram."""

from harness import sound
from harness.between import BROWSER, EDGE, ML_KEM, Between
from harness.browser import Browser
from harness.case import case, check
from harness.edge import LOCAL_POLICY, Edge

DTLS_1_2, DTLS_1_3 = "FEFD", "FEFC"
FIREFOX_12 = {"media.peerconnection.dtls.version.max": 771}
NO_ML_KEM = {"media.webrtc.enable_pq_hybrid_kex": False, "media.webrtc.send_mlkem_keyshare": False}
NAMED = "[trunk.browsers]"
BY_WEBRTC = LOCAL_POLICY.replace(NAMED, f'{NAMED}\ndtls_library = "webrtc-dtls"')


def open_page(box, policy=LOCAL_POLICY, **options):
    """An edge, a browser whose user says something, and its page."""
    microphone = sound.say(box, "opening hours", 48_000, before=12, after=40)
    browser = Browser(box, microphone, **options)
    box.note(f"{options.get('kind', 'chromium')} {browser.version}")
    edge = Edge(box, policy=policy, origins=[browser.origin]).start()
    return edge, browser, browser.page()


def call(edge, page, key, between, **options):
    """A WHIP session of the page, whose UDP goes through `between`, until the agent is heard; what
    the page knows of its way."""
    options = {"via": between.port, **options}
    wish = {"url": f"{edge.origin}/whip/reception", "token": edge.token(key), "options": options}
    page.run(
        """globalThis.call = new Whip(argument.url, argument.token, argument.options);
           await call.start();""",
        wish,
    )
    between.edge = ("127.0.0.1", page.run("return call.port"))
    page.until("connected", "return call.peer.connectionState === 'connected'", 30)
    page.until("the greeting", "return call.ear && call.ear.firstSound !== null", 30)
    return page.run("return call.figures()")


def hang_up(page):
    """The end of the session."""
    check(page.run("return call.hangUp()") == 200, "DELETE")


def talk(box, version, policy=LOCAL_POLICY, is_split=None, setup=None, **options):
    """One call in this version, up to the first words, under GCM; whether its ClientHello comes in
    several pieces."""
    edge, browser, page = open_page(box, policy, **options)
    between = Between()
    figures = call(edge, page, edge.key(), between, setup=setup)
    hellos = between.hellos()
    box.note(f"{figures['version']} {figures['cipher']} {figures['srtp']}, {len(hellos)} pieces")
    check(figures["version"] == version, f"{figures}")
    check(figures["role"] == ("server" if setup else "client"), f"{figures}")
    # Where the browser is the server, it chooses.
    check(setup or "GCM" in figures["srtp"], f"{figures}")
    if is_split is not None:
        check(any(ML_KEM in it[3] for it in hellos) == is_split, "ML-KEM")
        check((len({it[2] for it in hellos}) > 1) == is_split, f"pieces: {hellos}")
    hang_up(page)
    counted = [edge.metric("callgate_dtls_handshake_total", what=it)
               for it in ("completed", "completed_13", "failed")]  # fmt: skip
    check(counted == [1, int(version == DTLS_1_3), 0], f"{counted}")
    browser.close()
    edge.stop()


def lose_each(box, version, setup=None, **options):
    """Each datagram of a handshake is lost once; the call connects and the agent is heard."""
    edge, browser, page = open_page(box, **options)
    key = edge.key()
    # Its ClientHello comes in two; where it is the server, its flight and its acknowledgement.
    of_browser = 2 if setup else 3
    for sender, count in [(BROWSER, it) for it in range(of_browser)] + [(EDGE, 0), (EDGE, 1)]:
        between = Between({sender: {count}})
        figures = call(edge, page, key, between, setup=setup)
        passed = [len(between.of(it)) for it in (BROWSER, EDGE)]
        box.note(f"{sender} {count}: {passed} in {figures['setup']}")
        check(figures["version"] == version, f"{figures}")
        is_lost = [it.lost for it in between.of(sender)]
        check(is_lost.count(True) == 1, f"{sender} {count}: lost {is_lost}")
        hang_up(page)
    browser.close()
    edge.stop()


@case(timeout=120)
def firefox_in_1_3(box):
    """As it is delivered: DTLS 1.3, an ML-KEM share, a ClientHello in several pieces."""
    talk(box, DTLS_1_3, is_split=True, kind="firefox")


@case(timeout=120)
def firefox_in_1_3_without_ml_kem(box):
    """The same in one piece."""
    talk(box, DTLS_1_3, is_split=False, kind="firefox", preferences=NO_ML_KEM)


@case(timeout=120)
def firefox_in_1_2(box):
    """One that knows no DTLS 1.3."""
    talk(box, DTLS_1_2, kind="firefox", preferences=FIREFOX_12)


@case(timeout=120)
def firefox_by_webrtc_dtls(box):
    """One that offers DTLS 1.3 and ML-KEM to the library that knows neither."""
    talk(box, DTLS_1_2, BY_WEBRTC, is_split=True, kind="firefox")


@case(timeout=180)
def firefox_loses_each_datagram(box):
    """In DTLS 1.3."""
    lose_each(box, DTLS_1_3, kind="firefox")


@case(timeout=120)
def firefox_waits_for_us(box):
    """We are the client of DTLS 1.3."""
    talk(box, DTLS_1_3, setup="passive", kind="firefox")


@case(timeout=120)
def chromium_as_it_is(box):
    """It offers DTLS 1.3 with an ML-KEM share, and AES-CM before GCM: DTLS 1.2, where we choose."""
    talk(box, DTLS_1_2, is_split=True)


@case(timeout=120)
def chromium_waits_for_us(box):
    """We are the client of DTLS 1.3."""
    talk(box, DTLS_1_3, setup="passive")


@case(timeout=120)
def chromium_by_webrtc_dtls(box):
    """The trunk of browsers has chosen the other library."""
    talk(box, DTLS_1_2, BY_WEBRTC)


@case(timeout=180)
def chromium_loses_each_datagram(box):
    """In DTLS 1.2."""
    lose_each(box, DTLS_1_2)


@case(timeout=180)
def chromium_loses_each_datagram_as_server(box):
    """In DTLS 1.3."""
    lose_each(box, DTLS_1_3, setup="passive")
