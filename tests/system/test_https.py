"""Visitors on their way to https: the port that redirects, and the field that has browsers skip it (HSTS)."""

import socket

import pytest

from harness.http1 import Bytes
from harness.process import run
from harness.settings import STEP
from harness.tunnel import BASE_HOST, Client, Server, host_port

HSTS = "strict-transport-security"


@pytest.fixture(scope="module")
def https(module_programs, tmp_path_factory, pair):
    """A server that redirects, and the address where it does."""
    args = ["--redirect-listen", "127.0.0.1:0", "--hsts", "31536000,includeSubDomains"]
    server = Server(module_programs, tmp_path_factory.mktemp("server"), args, tls=pair).start()
    server.redirect = host_port(server.program.log(message="listening")[0]["redirect"])
    return server


@pytest.fixture(scope="module")
def https_tunnel(module_programs, tmp_path_factory, https, shared_origin, pair):
    client = Client(module_programs, tmp_path_factory.mktemp("client"), https.endpoint, shared_origin.url,
                    https.user().token, env={"KAVILO_CA_CERT": str(pair.ca)})
    return client.wait_ready()


def ask(server, raw):
    """What the redirecting port answers to these bytes, up to the connection's end."""
    with socket.create_connection(server.redirect, timeout=STEP) as sock:
        sock.sendall(raw)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    "method, host, target, path",
    [
        ("GET", "a." + BASE_HOST, "/x/../y?q=1&r=%2f;", "/x/../y?q=1&r=%2f;"),
        ("GET", "A.Tnl.Test.:8080", "/", "/"),
        ("POST", "a." + BASE_HOST, "/", "/"),
        ("HEAD", "a." + BASE_HOST, "/", "/"),
        ("GET", BASE_HOST, "/", "/"),
        ("GET", "a." + BASE_HOST, f"http://a.{BASE_HOST}/abs?x", "/abs?x"),
        ("OPTIONS", "a." + BASE_HOST, "*", ""),
        pytest.param("GET", "a." + BASE_HOST, "/" + "l" * 16000, "/" + "l" * 16000, id="a long target"),
    ],
)
def test_redirects(https, method, host, target, path):
    """308, to the same host and target, on the port that the public URLs have."""
    answer = ask(https, f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    name = host.lower().partition(":")[0].rstrip(".")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 308 Permanent Redirect"
    assert f"location: https://{name}:{https.edge[1]}{path}" in [line.replace("Location", "location") for line in lines]
    assert body == b""
    assert HSTS not in head.decode().lower()  # RFC 6797, 7.2: not in the clear


@pytest.mark.parametrize(
    "raw, status",
    [
        (b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", 502),
        (b"GET / HTTP/1.1\r\nHost: a.b.xtnl.test\r\n\r\n", 502),
        (b"GET / HTTP/1.1\r\nHost: xtnl.test\r\n\r\n", 502),
        (b"GET / HTTP/1.1\r\nHost: a.tnl.test@example.com\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.tnl.test\r\nHost: b.tnl.test\r\n\r\n", 400),
        (b"GET http://example.com/ HTTP/1.1\r\nHost: a.tnl.test\r\n\r\n", 502),
        (b"GET //example.com/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a.tnl.test\n\n", 400),
        (b"GET /\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a.tnl.test\r\nX: " + b"x" * 40000 + b"\r\n\r\n", 431, id="a long head"),
    ],
)
def test_redirects_nobody_elsewhere(https, raw, status):
    answer = ask(https, raw)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"ocation:" not in answer


def test_redirect_in_pieces_and_given_up(https):
    """A head that comes byte by byte, connections that say nothing or half of it: nobody waits for them."""
    silent = [socket.create_connection(https.redirect, timeout=STEP) for _ in range(3)]
    silent[1].sendall(b"GET / HT")
    silent[2].close()
    with socket.create_connection(https.redirect, timeout=STEP) as sock:
        for byte in b"GET /b HTTP/1.1\r\nHost: a.tnl.test\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert b"308 Permanent" in sock.recv(65536)
    for sock in silent:
        sock.close()


def test_curl_follows(https, https_tunnel, pair):
    """A whole way in, with method and body: what a redirect of another kind would lose."""
    here = "%s:%d" % https.redirect
    done = run(
        ["curl", "-sSL", "--cacert", pair.ca, "--connect-to", f"{https_tunnel.host}:80:{here}", "--connect-to",
         f"{https_tunnel.host}:{https.edge[1]}:%s:%d" % https.edge, "--data", "some", "-w", "%{http_code} %{num_redirects}",
         "-o", "/dev/null", f"http://{https_tunnel.host}/up"],
        {"PATH": "/usr/bin:/bin"},
    )
    assert done.stdout == "200 1", done


def test_hsts(https, https_tunnel, pair):
    """On every answer over TLS, HTTP/1 and HTTP/2, the edge's own errors too; the service's own word stands."""
    said = ["max-age=31536000; includeSubDomains"]
    assert https.fetch(https_tunnel.host).fields.all(HSTS) == said
    assert https.fetch("nobody." + BASE_HOST).fields.all(HSTS) == said
    for host in (https_tunnel.host, "nobody." + BASE_HOST):
        done = run(
            ["curl", "-sS", "--http2", "--cacert", pair.ca, "--connect-to", f"{host}:443:%s:%d" % https.edge, "-D", "-",
             "-o", "/dev/null", f"https://{host}/"],
            {"PATH": "/usr/bin:/bin"},
        )
        assert done.stdout.startswith("HTTP/2 ") and f"\r\n{HSTS}: {said[0]}\r\n" in done.stdout, done


def test_hsts_of_the_service(https, make_origin, make_client):
    origin = make_origin(lambda ex: ex.reply(b"x", 200, [("Strict-Transport-Security", "max-age=60")]))
    client = make_client(https, origin, https.user("bob@example.com").token)
    assert https.fetch(client.host).fields.all(HSTS) == ["max-age=60"]


def test_none_by_default(make_server, pair, origin, make_client):
    server = make_server(tls=pair)
    assert server.program.log(message="listening")[0]["redirect"] == "none"
    client = make_client(server, origin, server.user().token)
    assert HSTS not in server.fetch(client.host).fields


def test_redirect_drains(make_server, pair):
    """A connection that waits for its request does not hold the end up."""
    server = make_server("--redirect-listen", "127.0.0.1:0", tls=pair, grace="30s")
    redirect = host_port(server.program.log(message="listening")[0]["redirect"])
    with socket.create_connection(redirect, timeout=STEP) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        assert server.program.stop() == 0
        try:
            assert sock.recv(100) == b""
        except ConnectionError:
            pass


def test_settings_that_make_no_sense(make_server, pair):
    server = make_server(start=False)
    for args, sentence in (
        (["--redirect-listen", "127.0.0.1:0", "--public-scheme", "http"], "--redirect-listen leads to https"),
        (["--hsts", "60"], "--hsts is used with --tls-mode files only"),
        (["--hsts", "60;preload"], "--hsts '60;preload': it has to be SECONDS or"),
        (["--hsts", "60,x"], "SECONDS,includeSubDomains"),
        (["--hsts", "99999999999"], "SECONDS,includeSubDomains"),
        (["--redirect-listen", "nowhere"], "--redirect-listen"),
    ):
        done = run(server.argv + args, server.env)
        assert done.returncode == 2 and sentence in done.stderr, done


@pytest.mark.parametrize("port", ["edge", "control"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT"])
def test_plain_http_on_a_tls_port(https, port, method):
    """An answer that says what is wrong, in the language of who asked."""
    with socket.create_connection(https.edge if port == "edge" else https.control, timeout=STEP) as sock:
        sock.sendall(f"{method} / HTTP/1.1\r\nHost: a.tnl.test\r\nContent-Length: 0\r\n\r\n".encode())
        answer = Bytes(sock, STEP).to_end()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n") and body == b"this port speaks HTTPS: ask for it with https://\n"
    assert f"Content-Length: {len(body)}".encode() in head


@pytest.mark.parametrize("names,warned", [
    (("tnl.test", "*.tnl.test"), []),
    (("tnl.test",), ["*.tnl.test"]),
    (("*.tnl.test",), ["tnl.test"]),
    (("else.test", "*.else.test"), ["*.tnl.test", "tnl.test"]),
    (("*.x.tnl.test", "tnl.test"), ["*.tnl.test"]),
])
def test_names_that_no_certificate_has_are_told_at_the_start(make_server, authority, names, warned):
    server = make_server(tls=authority.issue("some" + str(len(names)), *names))
    lines = [line for line in server.program.log(level="warn") if line["message"].startswith("no certificate is for")]
    assert [line["host"] for line in lines] == warned
    assert all(line["certificates_for"] == ", ".join(names) for line in lines)
