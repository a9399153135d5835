"""A TLS client on a newer OpenSSL than the system's: `post_quantum.py PORT AUTHORITY`.

Prints the OpenSSL, the protocol, the group that the keys were exchanged with, and the answer to an
OPTIONS as JSON. Runs in the environment that deploy/setup.sh makes for it.
"""

import json
import socket
import sys

from OpenSSL import SSL

REQUEST = (
    "OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:5999;branch=z9hG4bKpq;rport\r\n"
    "Max-Forwards: 70\r\nFrom: <sip:pq@127.0.0.1>;tag=1\r\nTo: <sip:127.0.0.1>\r\n"
    "Call-ID: post-quantum\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)


def main(port, authority):
    """One handshake and one request."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(authority)
    context.set_verify(SSL.VERIFY_PEER, lambda *found: bool(found[-1]))
    plain = socket.create_connection(("127.0.0.1", int(port)), 5)
    plain.settimeout(None)  # a socket that waits by itself; the case is bounded in time
    client = SSL.Connection(context, plain)
    client.set_connect_state()
    client.do_handshake()
    client.sendall(REQUEST.encode())
    print(
        json.dumps(
            {
                "openssl": SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode(),
                "protocol": client.get_protocol_version_name(),
                "group": client.get_group_name(),
                "answer": client.recv(65_536).decode(errors="replace").split("\r\n")[0],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
