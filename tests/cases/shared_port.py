"""One UDP port for the media of all browsers (`[browsers] media_port`)."""

import subprocess

from harness import sound
from harness.browser import RATE, Browser
from harness.case import case, check, wait_for
from harness.edge import Edge

from .browser import GREETING, whip

HEARD = "return call.ear && call.ear.firstSound !== null"


def open_edge(box, pages):
    """An edge whose browsers share a port, so many pages, and the port."""
    microphone = sound.say(box, "opening hours", 48_000, before=60.0, after=40)
    browser = Browser(box, microphone)
    edge = Edge(box, origins=[browser.origin])
    # Below the ports of all edges' media, which begin at 10,000.
    port = 3_000 + edge.https % 6_000
    text = edge.config.read_text()
    edge.config.write_text(text.replace("[browsers]\n", f"[browsers]\nmedia_port = {port}\n"))
    edge.start()
    return edge, browser, [browser.page(f"page{number}") for number in range(pages)], port


def sockets(edge):
    """Local and remote address of each UDP socket of the edge."""
    listing = subprocess.run(["ss", "-unapH"], capture_output=True, text=True, check=True).stdout
    mine = [line.split() for line in listing.splitlines() if f"pid={edge.process.pid}," in line]
    return [(words[3], words[4]) for words in mine]


def port_counts(edge, what):
    """What the shared port has counted."""
    return edge.metric("callgate_browser_port_total", what=what)


def hears_more(page, packets, seconds=30):
    """Waits until a page has received so many packets from now on."""
    before = page.run("return (await call.figures()).received")
    code = "return (await call.figures()).received >= argument"
    page.until(f"{packets} more packets", code, seconds, before + packets)


@case(timeout=120)
def two_pages_talk_over_one_port(box):
    """Two pages at once; one restarts ICE. One UDP port is open, each page has its own socket on
    it, and once they talk nothing of theirs goes through the thread that finds sessions."""
    edge, browser, pages, port = open_edge(box, 2)
    key = edge.key()
    check(sockets(edge)[0][0] == f"127.0.0.1:{port}", f"at the start: {sockets(edge)}")
    for page in pages:
        figures = whip(edge, page, edge.token(key))
        check(figures["dtls"] == "connected" and figures["srtp"], f"{figures}")
    for page in pages:
        page.until("the greeting", HEARD, 10)
    answers = [page.run("return call.answer") for page in pages]
    for answer in answers:
        udp = [line for line in answer.splitlines() if "candidate:" in line and " UDP " in line]
        check(all(f" {port} typ" in line for line in udp) and udp, f"{answer}")

    def each_has_its_own():
        peers = [remote for local, remote in sockets(edge) if not remote.endswith(":*")]
        return len(set(peers)) == len(peers) == 2

    wait_for("a socket for each page", each_has_its_own, 20, every=0.2)
    locals_ = {local for local, _ in sockets(edge)}
    check(locals_ == {f"127.0.0.1:{port}"}, f"other UDP ports are open: {sockets(edge)}")

    handed = port_counts(edge, "handed")
    for page in pages:
        hears_more(page, 250)
    more = port_counts(edge, "handed") - handed
    # Checks of other pairs of candidates may still come; media, 50 packets a second, may not.
    check(more < 100, f"{more} datagrams went through the thread in five seconds")

    pages[0].run("return call.restart()")
    for page in pages:
        hears_more(page, 250)
        check(page.run("return call.peer.connectionState") == "connected", "a call is lost")
    wait_for("a socket for each page", each_has_its_own, 20, every=0.2)
    check({local for local, _ in sockets(edge)} == {f"127.0.0.1:{port}"}, f"{sockets(edge)}")
    for page in pages:
        text = sound.recognise(box, page.heard(), RATE, page.name)
        check(GREETING in text, f"{page.name} heard {text!r}")

    # One hangs up: its socket goes, the other talks on.
    check(pages[0].run("return call.hangUp()") == 200, "DELETE")
    hears_more(pages[1], 100)
    wait_for("one socket less", lambda: len([it for it in sockets(edge) if ":*" not in it[1]]) == 1,
             20, every=0.2)
    check(pages[1].run("return call.hangUp()") == 200, "DELETE")
    for what in ("failed", "lost", "contested"):
        check(port_counts(edge, what) == 0, f"{what}: {port_counts(edge, what)}")
    browser.close()
    edge.stop()


@case(timeout=90)
def a_page_calls_again_over_the_same_port(box):
    """A page is reloaded in mid-call, and calls again while its former call still lives."""
    edge, browser, (page,), port = open_edge(box, 1)
    key = edge.key()
    whip(edge, page, edge.token(key))
    page.until("the greeting", HEARD, 10)
    page.ask("reload")
    figures = whip(edge, page, edge.token(key))
    check(figures["dtls"] == "connected", f"{figures}")
    page.until("the greeting", HEARD, 10)
    hears_more(page, 100)
    check({local for local, _ in sockets(edge)} == {f"127.0.0.1:{port}"}, f"{sockets(edge)}")
    check(page.run("return call.hangUp()") == 200, "DELETE")
    browser.close()
    edge.stop()
