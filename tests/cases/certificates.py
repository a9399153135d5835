"""Certificates by ACME: Pebble, the test server of Let's Encrypt, certifies a running edge."""

import json
import socket
import ssl
import subprocess

from harness import wire
from harness.case import case, check, free_ports, wait_for
from harness.edge import Edge

DOMAIN = "edge.callgate.test"
ACME = """
[acme]
domains   = ["{domain}"]
directory = "https://127.0.0.1:{port}/dir"
agree     = true
account   = "{root}/keys/acme-account.json"
ca        = "{ca}"
"""


def start_pebble(box, http, certificate, key):
    """An authority that asks the edge's HTTP port, whatever the domain; the port of its directory."""
    ports = free_ports(3)
    names = ["pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]
    names += ["-dns01", f"127.0.0.1:{ports + 2}", "-management", ""]
    names += ["-http01", "", "-https01", "", "-tlsalpn01", ""]
    box.start("names", names)
    configuration = {
        "pebble": {
            "listenAddress": f"127.0.0.1:{ports}",
            "managementListenAddress": f"127.0.0.1:{ports + 1}",
            "certificate": str(certificate),
            "privateKey": str(key),
            "httpPort": http,
            "tlsPort": http,
        }
    }
    file = box.write("pebble.json", json.dumps(configuration))
    environment = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "5", "PATH": "/usr/bin"}
    command = ["pebble", "-config", file, "-dnsserver", f"127.0.0.1:{ports + 2}"]
    box.start("pebble", command, env=environment)

    def listens():
        try:
            return socket.create_connection(("127.0.0.1", ports), timeout=1).close() or True
        except OSError:
            return False

    wait_for("pebble listens", listens, 10)
    return ports


def shown(port):
    """Issuer and names of the certificate that a port shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        with context.wrap_socket(plain, server_hostname=DOMAIN) as stream:
            leaf = ssl.DER_cert_to_PEM_cert(stream.getpeercert(binary_form=True))
    wanted = ["openssl", "x509", "-noout", "-issuer", "-ext", "subjectAltName"]
    return subprocess.run(wanted, input=leaf, capture_output=True, text=True, check=True).stdout


@case(timeout=90)
def by_acme(box):
    """The first certificate is a development one; the authority's takes its place while it serves."""
    other = Edge(box, name="other")
    check(other.command("certs").returncode == 0, "certificates for the authority's own port")
    folder = other.root / "certs"
    edge = Edge(box)
    port = start_pebble(box, edge.http, folder / "server.pem", folder / "server.key")
    text = ACME.format(domain=DOMAIN, port=port, root=edge.root, ca=folder / "ca.pem")
    edge.config.write_text(edge.config.read_text() + text)
    edge.start()
    issued = wait_for("Pebble's certificate", lambda: "Pebble" in shown(edge.tls), 40, every=0.5)
    check(issued, "no certificate")
    for listener in (edge.tls, edge.https):
        check("Pebble" in shown(listener) and DOMAIN in shown(listener), shown(listener))
    for file in (edge.root / "certs/acme.pem", edge.root / "keys/acme-account.json"):
        check(file.stat().st_mode & 0o077 == 0, f"{file.name} can be read by others")
    edge.wait_for_log("transport.certificate.renewed")
    # Kept over a restart, and the account with it.
    edge.stop()
    edge.start()
    check("Pebble" in shown(edge.tls), "the certificate is gone after a restart")
    context = ssl._create_unverified_context()
    plain = socket.create_connection(("127.0.0.1", edge.tls), timeout=5)
    stream = wire.Stream.__new__(wire.Stream)
    stream.socket, stream.buffer = context.wrap_socket(plain), b""
    answer = wire.Call(stream, edge.uri()).invite()
    check(answer.status == 200, answer.start)
    stream.close()
    check("PRIVATE KEY" not in edge.logs(), "a key in the log")
    edge.kill()
