"""SIP on a socket, byte by byte: for what a well-behaved peer cannot be made to send."""

import secrets
import socket
import ssl
import threading
import time

from .case import Failure

KEY = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"  # from RFC 4568 section 6.1
SDP_SECURE = (
    "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    "m=audio {port} RTP/SAVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
    f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\na=sendrecv\r\n"
)
SDP_PLAIN = (
    "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    "m=audio {port} RTP/AVP 0 8\r\na=sendrecv\r\n"
)


def sdp(template=SDP_SECURE, host="127.0.0.1", port=40_000):
    """A session description."""
    return template.format(host=host, port=port)


def request(method, uri, transport="TLS", host="127.0.0.1", body="", caller="sip:probe@127.0.0.1",
            call_id=None, cseq=1, from_tag=None, to_tag=None, extra="", length=None, to=None,
            kind="application/sdp"):
    """A request as bytes. `extra` is whole header lines; `length` overrides Content-Length."""
    kind = f"Content-Type: {kind}\r\n" if body else ""
    length = len(body.encode()) if length is None else length
    to_tag = f";tag={to_tag}" if to_tag else ""
    return (
        f"{method} {uri} SIP/2.0\r\n"
        f"Via: SIP/2.0/{transport} {host}:5999;branch=z9hG4bK{secrets.token_hex(8)};rport\r\n"
        f"Max-Forwards: 70\r\nFrom: <{caller}>;tag={from_tag or secrets.token_hex(4)}\r\n"
        f"To: <{to or uri}>{to_tag}\r\nCall-ID: {call_id or secrets.token_hex(8)}\r\n"
        f"CSeq: {cseq} {method}\r\n"
        f"Contact: <sip:probe@{host}:5999;transport={transport.lower()}>\r\n"
        f"{extra}{kind}Content-Length: {length}\r\n\r\n{body}"
    ).encode()


class Message:
    """A message that was received."""

    def __init__(self, raw):
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode(errors="replace").split("\r\n")
        self.start = lines[0]
        self.headers = [tuple(part.strip() for part in it.partition(":")[::2]) for it in lines[1:]]

    @property
    def status(self):
        """The status, 0 for a request."""
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0") else 0

    def header(self, name):
        """The first value of a header, empty where there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def to_tag(self):
        """The tag of To."""
        return self.header("To").partition(";tag=")[2].split(";")[0]

    def contact(self):
        """The URI of Contact."""
        return self.header("Contact").partition("<")[2].partition(">")[0]


class Stream:
    """A SIP connection over TLS, or over plain TCP where there is no authority."""

    def __init__(self, port, authority=None, source="127.0.0.1", certificate=None, timeout=5,
                 host="127.0.0.1"):
        self.socket = socket.socket()
        self.socket.bind((source, 0))
        self.socket.settimeout(timeout)
        self.socket.connect((host, port))
        if authority is not None:
            context = ssl.create_default_context(cafile=str(authority))
            if certificate:
                context.load_cert_chain(*[str(it) for it in certificate])
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        self.buffer = b""

    def send(self, data):
        """Sends bytes."""
        self.socket.sendall(data)

    def receive(self, seconds=5):
        """The next message; `None` where the connection ended or nothing came."""
        deadline = time.monotonic() + seconds
        while True:
            found = self._take()
            if found:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65_536)
            except (TimeoutError, OSError):
                return None
            if not data:
                return None
            self.buffer += data

    def _take(self):
        while self.buffer.startswith(b"\r\n"):
            self.buffer = self.buffer[2:]
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        length = int(Message(head).header("Content-Length") or 0)
        if len(rest) < length:
            return None
        self.buffer = rest[length:]
        return Message(head + found + rest[:length])

    def final(self, seconds=5):
        """The next final response; fails where none comes."""
        deadline = time.monotonic() + seconds
        while True:
            message = self.receive(max(0.01, deadline - time.monotonic()))
            if message is None:
                raise Failure("no final response")
            if message.status >= 200:
                return message

    def is_closed(self, seconds):
        """Whether the far end closes the connection within this time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65_536):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False

    def close(self):
        """Closes it."""
        self.socket.close()


class Call:
    """A call placed by hand over a stream: INVITE, ACK, requests within it, BYE."""

    def __init__(self, stream, uri, caller="sip:probe@127.0.0.1", host="127.0.0.1"):
        self.stream, self.uri, self.caller, self.host = stream, uri, caller, host
        self.call_id, self.tag, self.cseq = secrets.token_hex(8), secrets.token_hex(4), 1
        self.to_tag, self.target = None, uri

    def build(self, method, body="", cseq=None, extra="", kind="application/sdp"):
        """A request of this call."""
        return request(
            method, self.target, call_id=self.call_id, from_tag=self.tag, to_tag=self.to_tag,
            cseq=cseq or self.cseq, body=body, caller=self.caller, extra=extra, to=self.uri,
            kind=kind, host=self.host,
        )

    def invite(self, body=None):
        """Places it; the final response."""
        self.stream.send(self.build("INVITE", body=sdp() if body is None else body))
        answer = self.stream.final()
        self.to_tag = answer.to_tag()
        if answer.status == 200:
            self.target = answer.contact()
            self.stream.send(self.build("ACK"))
        return answer

    def ask(self, method, body="", extra="", kind="application/sdp"):
        """A request within it; the final response to it."""
        self.cseq += 1
        self.stream.send(self.build(method, body=body, extra=extra, kind=kind))
        answer = self.stream.final()
        if method == "INVITE":
            self.stream.send(self.build("ACK"))
        return answer


class Callee(threading.Thread):
    """Who is called over UDP: answers with the session description that `describe` makes of the
    offer, takes every other request, and keeps them all."""

    def __init__(self, describe, address="127.0.0.1"):
        super().__init__(daemon=True)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.address = f"[{address}]" if ":" in address else address
        self.port = self.socket.getsockname()[1]
        self.describe, self.requests = describe, []
        self.start()

    def uri(self, user):
        """Whom to dial."""
        return f"sip:{user}@{self.address}:{self.port};transport=udp"

    def named(self, method):
        """The requests of a method, each once."""
        found = {it.header("CSeq"): it for it in list(self.requests)
                 if it.start.startswith(f"{method} ")}
        return list(found.values())

    def run(self):
        while True:
            try:
                raw, source = self.socket.recvfrom(65_536)
            except OSError:
                return
            request = Message(raw)
            if request.status:
                continue
            self.requests.append(request)
            if not request.start.startswith("ACK "):
                self.socket.sendto(self.answer(request), source)

    def answer(self, request):
        """A 200."""
        body = self.describe(request) if request.start.startswith("INVITE ") else ""
        to = request.header("To")
        kept = [f"{key}: {value}" for key, value in request.headers
                if key.lower() in ("via", "from", "call-id", "cseq", "record-route")]
        kept.append(f"To: {to}" if ";tag=" in to else f"To: {to};tag=callee")
        if body:
            kept.append("Content-Type: application/sdp")
        kept.append(f"Contact: <sip:callee@{self.address}:{self.port}>")
        kept.append(f"Content-Length: {len(body)}")
        return ("SIP/2.0 200 OK\r\n" + "\r\n".join(kept) + f"\r\n\r\n{body}").encode()


class Datagrams:
    """A UDP socket that speaks SIP from one source address."""

    def __init__(self, port, source="127.0.0.1"):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self.host = source

    def is_refused(self):
        """Whether nobody listens at the port (the kernel says so on the second try)."""
        try:
            for _ in range(3):
                self.socket.send(b"\r\n\r\n")
                time.sleep(0.05)
        except ConnectionRefusedError:
            return True
        return False

    def send(self, data):
        """Sends one datagram."""
        self.socket.send(data)

    def receive(self, seconds=2):
        """The next message, or `None`."""
        self.socket.settimeout(seconds)
        try:
            return Message(self.socket.recv(65_536))
        except (TimeoutError, OSError):
            return None

    def close(self):
        """Closes it."""
        self.socket.close()
