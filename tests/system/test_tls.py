"""TLS at the edge and at the control port, certificates from files."""

import socket
import ssl

import pytest

from harness.http1 import Pattern
from harness.process import run
from harness.settings import PACE, STEP
from harness.tunnel import BASE_HOST
from harness.wait import wait_until


@pytest.fixture
def tls_server(make_server, pair):
    return make_server(tls=pair)


@pytest.fixture
def tls_tunnel(tls_server, origin, make_client):
    """A whole path with TLS on both public sides."""
    return make_client(tls_server, origin, tls_server.user().token)


def test_whole_path(tls_server, tls_tunnel):
    assert tls_tunnel.public_url.startswith("https://")
    response = tls_server.fetch(tls_tunnel.host, "/body?size=3000000")
    assert response.content == Pattern(3_000_000).bytes()


def test_forwarded_proto(tls_server, tls_tunnel, origin):
    assert tls_server.fetch(tls_tunnel.host).status == 200
    assert origin.last.request.fields.one("x-forwarded-proto") == "https"


def test_upload_and_keep_alive(tls_server, tls_tunnel):
    pattern = Pattern(2_000_000, "t")
    with tls_server.visitor(tls_tunnel.host) as visitor:
        for _ in range(3):
            visitor.request("/up", "POST", body=pattern.bytes())
            assert pattern.digest.encode() in visitor.response().content


def test_curl_over_tls(tls_server, tls_tunnel, pair):
    """A client nobody here wrote, verifying the chain."""
    done = run(
        ["curl", "-sS", "--http1.1", "--cacert", str(pair.ca), "--connect-to", f"{tls_tunnel.host}:443:%s:%d" % tls_server.edge,
         "-w", "%{http_code} %{ssl_verify_result}", "-o", "/dev/null", f"https://{tls_tunnel.host}/"],
        {"PATH": "/usr/bin:/bin"},
    )
    assert done.stdout == "200 0", done


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_versions(tls_server, tls_tunnel, pair, version):
    context = pair.client()
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    with tls_server.visitor(tls_tunnel.host, tls=context) as visitor:
        assert visitor.request().response().status == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_are_refused(tls_server, pair):
    context = pair.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_server.visitor("x." + BASE_HOST, tls=context)


@pytest.mark.parametrize("port", ["edge", "control"])
def test_plain_text_at_a_tls_port(tls_server, tls_tunnel, port):
    with socket.create_connection(getattr(tls_server, port), timeout=STEP) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            assert b"200 OK" not in sock.recv(65536)
        except ConnectionError:
            pass
    assert tls_server.fetch(tls_tunnel.host).status == 200


def test_handshakes_that_stop(tls_server, tls_tunnel, pair):
    """Connections stuck in the handshake are nobody else's trouble."""
    hello = ssl.MemoryBIO()
    incoming = ssl.MemoryBIO()
    handshake = pair.client().wrap_bio(incoming, hello, server_hostname="x." + BASE_HOST)
    with pytest.raises(ssl.SSLWantReadError):
        handshake.do_handshake()
    first_flight = hello.read()
    stuck = []
    for cut in (0, 1, 5, 20, len(first_flight) - 1, len(first_flight)):
        sock = socket.create_connection(tls_server.edge, timeout=STEP)
        sock.sendall(first_flight[:cut])
        stuck.append(sock)
    assert tls_server.fetch(tls_tunnel.host).status == 200
    for sock in stuck:
        sock.close()


def test_client_does_not_trust_a_stranger(tls_server, origin, make_client, authority):
    """Without --ca-cert the test's authority is unknown: no Hello, so no token, is sent to whoever that is."""
    user = tls_server.user()
    client = make_client(tls_server.endpoint, origin, user.token, ready=False)
    client.program.wait(lambda: "certificate" in client.program.stderr().lower(), what="a sentence about the certificate")
    assert client.ready == []
    assert not tls_server.program.log(token=user.token)


def test_client_checks_the_name(make_server, authority, origin, make_client):
    """A valid certificate of somebody else is no better."""
    other = authority.issue("other", "other.test")
    server = make_server(tls=other)
    user = server.user()
    client = make_client(server, origin, user.token, ready=False)
    client.program.wait(lambda: "certificate" in client.program.stderr().lower()
                        or "name" in client.program.stderr().lower(), what="a sentence")
    assert client.ready == []


def test_expired_certificate(make_server, authority, origin, make_client):
    old = authority.issue("old", "127.0.0.1", "*.tnl.test", days=-1)
    server = make_server(tls=old)
    user = server.user()
    client = make_client(server, origin, user.token, ready=False)
    client.program.wait(lambda: "expired" in client.program.stderr().lower(), what="a sentence that says `expired`")
    assert client.ready == []


def test_ca_from_flag_and_environment(tls_server, origin, make_client, pair):
    user = tls_server.user()
    for how in ({"env": {"KAVILO_CA_CERT": str(pair.ca)}}, {}):
        argv = [] if how else ["--ca-cert", str(pair.ca)]
        client = make_client(tls_server.endpoint, origin, user.token, *argv, **how)
        assert tls_server.fetch(client.host).status == 200


def test_http_endpoint_at_a_tls_port(tls_server, origin, make_client):
    """The wrong scheme: said, retried, not crashed."""
    client = make_client("http://%s:%d" % tls_server.control, origin, "x" * 52, ready=False)
    client.program.wait(lambda: client.program.stderr(), what="a sentence")
    client.program.check()


def test_https_endpoint_at_a_plain_port(server, origin, make_client):
    client = make_client("https://%s:%d" % server.control, origin, "x" * 52, ready=False)
    client.program.wait(lambda: client.program.stderr(), what="a sentence")
    client.program.check()


def test_peer_over_tls(tls_server):
    user = tls_server.user()
    peer = tls_server.peer(user.token, "laptop").connected()
    assert peer.welcome["public_url"].startswith(f"https://laptop-{user.slug}.{BASE_HOST}")
    assert tls_server.peer("wrong").refused() == (7, "invalid token")
    peer.close()


def test_websocket_and_half_close_over_tls(tls_server, tls_tunnel):
    with tls_server.visitor(tls_tunnel.host) as visitor:
        visitor.request("/upgrade", fields=[("Connection", "Upgrade"), ("Upgrade", "echo/1")])
        assert visitor.response().status == 101
        visitor.send(b"hello")
        assert visitor.source.exactly(5) == b"HELLO"
        visitor.sock.settimeout(STEP)
        plain = visitor.sock.unwrap  # sends close_notify: the visitor's end of his direction
        try:
            plain()
        except (ssl.SSLError, OSError):
            pass
    wait_until(lambda: tls_server.fetch(tls_tunnel.host).status == 200, 5 * PACE, "the tunnel serves on")


def test_visitor_gone_without_close_notify(tls_server, tls_tunnel, origin):
    """A TCP end without close_notify in an upload is a truncation, not an end."""
    visitor = tls_server.visitor(tls_tunnel.host)
    visitor.request("/up", "POST", [("Transfer-Encoding", "chunked")])
    visitor.send(b"3\r\nabc\r\n")
    exchange = origin.wait_exchange()
    wait_until(lambda: exchange.body.size == 3, what="the beginning at the service")
    visitor.abort()
    wait_until(lambda: exchange.over, what="the service notices")
    assert not exchange.body.complete
