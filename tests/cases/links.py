"""Browsers whose networks differ from what they signal over, change, and lose what they had."""

import json

from harness import sound
from harness.browser import Browser
from harness.case import case, check
from harness.edge import LOCAL_POLICY, Edge
from harness.links import BROWSER_AT, EDGE_AT, EDGE_AT_6, Links

from .browser import whip
from .shared_port import hears_more

# The policy of `make run`, for browsers from everywhere.
POLICY = LOCAL_POLICY.replace('browsers = true, networks = ["127.0.0.0/8", "::1"]',
                              "browsers = true")
HEARD = "return call.ear && call.ear.firstSound !== null"


class Reached(Edge):
    """An edge that browsers reach at a given address."""

    origin = None

    def listen(self, *hosts, first=0, media_port=0):
        """Lets browsers come to these hosts, in HTTPS to the one of that number."""
        text = self.config.read_text()
        https = ["127.0.0.1", *hosts] if "127.0.0.1" not in hosts else hosts
        ports = lambda port, hosts: json.dumps([f"{it}:{port}" for it in hosts])
        for old, new in (
            (f'["127.0.0.1:{self.https}"]', ports(self.https, https)),
            (f'"127.0.0.1:{self.ice_tcp}"', ports(self.ice_tcp, hosts)),
            ("[browsers]\n", f"[browsers]\nmedia_port = {media_port}\nmedia = "
                             f"{json.dumps([it.strip('[]') for it in hosts])}\n"),
        ):  # fmt: skip
            check(old in text, f"no {old} in the configuration")
            text = text.replace(old, new)
        self.config.write_text(text)
        self.origin = f"https://{hosts[first]}:{self.https}"


def candidates(page):
    """Transport and address of each of ours, in the order of the answer."""
    lines = page.run("return call.answer").splitlines()
    words = [line.split() for line in lines if line.startswith("a=candidate:")]
    return [(it[2], it[4]) for it in words]


def goes_by(page, seconds=40, **wanted):
    """Waits until the call's way is so, and sound has come by it."""
    code = """const it = await call.figures();
              return Object.entries(argument).every(([key, value]) => it[key] === value)"""
    page.until(f"a way with {wanted}", code, seconds, wanted)
    hears_more(page, 100)
    check(page.run("return call.peer.connectionState") == "connected", "the call is lost")


@case(timeout=90)
def over_ipv6(box):
    """A page at https://[::1] talks over IPv6, by UDP and by TCP, at ports of its own and at the
    shared one; the answer names IPv4 as well."""
    microphone = sound.say(box, "opening hours", 48_000, before=60.0, after=40)
    browser = Browser(box, microphone)
    page = browser.page()
    for media_port in (0, 1):
        edge = Reached(box, origins=[browser.origin], name=f"edge{media_port}")
        # Below the ports of all edges' media, which begin at 10,000.
        edge.listen("127.0.0.1", "[::1]", first=1, media_port=media_port * edge.ice_tcp)
        edge.start()
        key = edge.key()
        for only in ("udp", "tcp")[: 2 - media_port]:
            whip(edge, page, edge.token(key), only=only, family=6)
            page.until("the greeting", HEARD, 20)
            goes_by(page, protocol=only, to="::1")
            check(page.run("return call.hangUp()") == 200, "DELETE")
        whip(edge, page, edge.token(key))
        both = [(it, host) for it in ("UDP", "TCP") for host in ("::1", "127.0.0.1")]
        check(candidates(page) == both, f"{candidates(page)}")
        check(page.run("return call.hangUp()") == 200, "DELETE")
        edge.stop()
    browser.close()


@case(timeout=120)
def a_browser_loses_one_way_after_the_other(box):
    """A page that has HTTPS over IPv6, and over that no UDP: media goes over IPv4. Then its link is
    gone: it goes by the other one, without a word to the edge. Then UDP is lost altogether, and the
    page restarts ICE: it goes over TCP. The call is the same all the time. The next one begins
    there, though UDP is offered."""
    links = Links(box)
    microphone = sound.say(box, "opening hours", 48_000, before=90.0, after=40)
    with links.inside():
        browser = Browser(box, microphone)
    edge = Reached(box, POLICY, origins=[browser.origin])
    edge.listen(EDGE_AT, f"[{EDGE_AT_6}]", first=1)
    edge.start()
    links.lose_udp(6)
    page, key = browser.page(), edge.key()
    whip(edge, page, edge.token(key))
    found = candidates(page)
    hosts = [EDGE_AT_6, EDGE_AT]
    check(found == [(it, host) for it in ("UDP", "TCP") for host in hosts], f"{found}")
    page.until("the greeting", HEARD, 20)
    goes_by(page, protocol="udp", to=EDGE_AT)
    links.take_down("one")
    goes_by(page, protocol="udp", to=EDGE_AT, **{"from": BROWSER_AT["two"][0]})
    links.lose_udp(4)
    page.run("return call.restart()")
    goes_by(page, protocol="tcp")
    check(page.run("return call.hangUp()") == 200, "DELETE")
    edge.wait_for_call(lambda it: it["state"] == "ended")
    check(len(edge.calls()) == 1, f"more than one call: {edge.calls()}")
    whip(edge, page, edge.token(key))
    goes_by(page, protocol="tcp")
    check(page.run("return call.hangUp()") == 200, "DELETE")
    browser.close()
    edge.stop()
