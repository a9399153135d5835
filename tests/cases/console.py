"""The console in headless Chromium, by clicks and keyboard."""

import base64
import hashlib
import hmac
import re
import signal
import time

from harness import sound
from harness.browser import Browser
from harness.case import case, check, free_ports, wait_for
from harness.edge import Edge

from .browser import open_page, whip

AT_TALK = "return location.pathname === '/console/talk' && document.readyState === 'complete'"


def enter(edge, browser, name="page", **options):
    """A page that is signed in, at Talk."""
    page = browser.page(name, url=f"{edge.origin}/console", lax=False, **options)
    page.ask("fill", selector="#key", text=edge.key())
    page.ask("press", key="Enter")
    page.until("signed in", AT_TALK, 20)
    return page


def talk(page):
    """Calls the agent from Talk, up to its first words."""
    page.ask("click", selector="#call")
    said = "return /encrypted/i.test(document.querySelector('#transcript').innerText)"
    page.until("the agent's first words", said, 30)


def until_state(page, word, seconds=20):
    """Waits until the page's state says something."""
    wanted = re.compile(word, re.IGNORECASE)
    deadline = time.monotonic() + seconds
    while not wanted.search(shown := page.ask("text", selector="#state")):
        check(time.monotonic() < deadline, f"not {word!r} within {seconds} s, but {shown!r}")
        time.sleep(0.2)


def check_complaints(page, *meant):
    """The page has reported no fault and no breach of its content security policy, but for lines
    that are meant."""
    faults = [it for it in page.log() if it.startswith("error")]
    faults = [it for it in faults if not any(text in it for text in meant)]
    check(not faults, f"the page complains: {faults}")


@case(timeout=120)
def a_lost_connection_comes_back(box):
    """The edge stands still until the page has lost it: the page says so, restarts ICE and goes on
    in the same call, which another page follows with its media. Then the edge dies: the page gives
    up and says so."""
    browser = Browser(box, sound.say(box, "opening hours", 48_000, before=30, after=40))
    edge = Edge(box).start()
    page = enter(edge, browser)
    talk(page)
    call = edge.wait_for_call(lambda it: it["state"] == "in_progress", 20)
    looker = enter(edge, browser, "looker")
    looker.ask("goto", url=f"{edge.origin}/console/calls/{call['call_id']}")
    looker.until("live plots", "return document.querySelector('.curves .line')", 30)
    edge.process.send_signal(signal.SIGSTOP)
    try:
        until_state(page, "Reconnecting", 40)
        page.screenshot("console-talk-lost")
    finally:
        edge.process.send_signal(signal.SIGCONT)
    until_state(page, "encrypted again", 40)
    check(len(edge.calls()) == 1, "it is another call")
    edge.kill()
    until_state(page, "Reconnecting", 40)
    until_state(page, "could not be restored", 80)
    check(page.run("return document.activeElement.id") == "call", "the focus is lost")
    browser.close()


@case(timeout=120)
def turn_where_udp_is_blocked(box):
    """A browser that may send no UDP at all, and an edge without ICE-TCP: its media goes by the
    owner's TURN server over TCP, whose login each page gets for itself."""
    port, secret = free_ports(1), "a secret of coturn and callgate"
    turn = box.start(
        "turnserver",
        ["turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--no-udp",
         "--allow-loopback-peers", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1",
         f"--listening-port={port}", "--realm=callgate", "--use-auth-secret",
         f"--static-auth-secret={secret}",
         "--log-file=stdout", "--simple-log", "--verbose", f"--pidfile={box.path('turn.pid')}",
         f"--userdb={box.path('turn.db')}"],
    )  # fmt: skip
    flag = "--webrtc-ip-handling-policy=disable_non_proxied_udp"
    other = "--force-webrtc-ip-handling-policy=disable_non_proxied_udp"
    microphone = sound.say(box, "opening hours", 48_000, before=13, after=40)
    browser = Browser(box, microphone, [flag, other])
    edge = Edge(box)
    config = edge.config.read_text()
    config = re.sub(r'ice_tcp = ".*"', 'ice_tcp = ""', config)
    server = f'{{ url = "turn:127.0.0.1:{port}?transport=tcp", username = "talk", '
    server += f'secret_file = "{box.write("turn.secret", secret)}" }}'
    edge.config.write_text(config.replace("[browsers]", f"[browsers]\nice_servers = [{server}]"))
    edge.start()
    page = enter(edge, browser)
    talk(page)
    page.until("the way", "return /relay/.test(document.querySelector('#details').innerText)", 20)
    page.screenshot("console-talk-turn")
    page.until(
        "the user's words",
        "return /opening hours/i.test(document.querySelector('#transcript').innerText)",
        40,
    )
    page.ask("click", selector="#end")
    # The same for clients of WHIP that ask before their offer.
    key = edge.key()
    status, headers, _ = edge.https_request("OPTIONS", "/whip/reception", key)
    link = headers.get("Link", "")
    check(status == 204 and "turn:127.0.0.1" in link, f"{status} {headers}")
    user, password = re.search(r'username="([^"]*)"; credential="([^"]*)"', link).groups()
    right = hmac.new(secret.encode(), user.encode(), hashlib.sha1).digest()
    check(password == base64.b64encode(right).decode(), f"{link}")
    check(int(user.split(":")[0]) > time.time() + 3600, f"{user}")
    status, headers, _ = edge.https_request("OPTIONS", "/whip/reception", None)
    check(status == 204 and "Link" not in headers, f"{status} {headers}")
    browser.close()
    edge.stop()
    turn.terminate()
    turn.wait(20)


@case(timeout=90)
def a_used_token_stays_used_after_a_restart(box):
    """What a browser token has opened is known to the next process on the same data."""
    edge, browser, page = open_page(box)
    key = edge.key()
    used, fresh = edge.token(key), edge.token(key)
    whip(edge, page, used)
    check(page.run("return call.hangUp()") == 200, "DELETE")
    edge.stop()
    edge.start()
    again = page.run(
        """const again = new Whip(argument.url, argument.token, {});
           return again.start().then(() => 'opened', (error) => error.message)""",
        {"url": f"{edge.origin}/whip/reception", "token": used},
    )
    check("403" in again and "token.used" in again, f"a used token: {again}")
    whip(edge, page, fresh)
    page.run("return call.hangUp()")
    browser.close()
    edge.stop()
