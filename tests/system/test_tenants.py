"""What one tenant of a server must not do to another, or to the server: cookies under the common base host, loops."""

import json
import os

import pytest

from harness import h2visitor
from harness.process import run
from harness.tunnel import BASE_HOST

PARENT = BASE_HOST.partition(".")[2]
COOKIES = [f"a=1; Domain={BASE_HOST}; Path=/", f"b=2; domain=.{BASE_HOST}", f"c=3; Domain={PARENT}", "d=4; Path=/x"]
CONFINED = ["a=1; Path=/", "b=2", "c=3", "d=4; Path=/x"]


def service(ex):
    """Cookies in an interim head, in the final one and in the trailers."""
    lines = b"".join(b"Set-Cookie: %s\r\n" % cookie.encode() for cookie in COOKIES)
    ex.send(b"HTTP/1.1 103 Early Hints\r\n" + lines + b"\r\n")
    ex.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + lines + b"\r\n2\r\nok\r\n0\r\n" + lines + b"\r\n")


def test_cookies_stay_with_their_host(server, user, make_origin, make_client):
    client = make_client(server, make_origin(service), user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/")
        response = visitor.response()
        assert response.fields.all("set-cookie") == CONFINED
        assert [interim.fields.all("set-cookie") for interim in response.interims] == [CONFINED]
        assert response.content == b"ok" and "set-cookie" not in response.trailers
    (status, fields, _, complete), = h2visitor.fetch(server.edge, client.host, ["/"])
    assert (status, complete) == (200, True)
    assert fields["set-cookie"] == CONFINED[-1], "the last of them: a dict has one"


@pytest.mark.parametrize("more", [["--http1.1"], ["--http2-prior-knowledge"]], ids=["h1", "h2"])
@pytest.mark.parametrize("family", [False, True])
def test_a_jar_holds_nothing_for_neighbours(make_server, make_origin, make_client, tmp_path, more, family):
    """curl, which believes a Domain as browsers do, sends another tenant nothing, unless they are one family."""
    server = make_server(*(["--shared-cookies"] if family else []))
    token = server.user().token
    client = make_client(server, make_origin(service), token)
    neighbour = make_client(server, make_origin(lambda ex: ex.reply_json(ex.request.fields.all("cookie"))), token)

    def visit(host):
        port = server.edge[1]
        return run(["curl", "-sS", *more, "-c", tmp_path / "jar", "-b", tmp_path / "jar", "--resolve",
                    f"{host}:{port}:127.0.0.1", f"http://{host}:{port}/"], dict(os.environ)).stdout

    assert visit(client.host) == "ok"
    assert visit(neighbour.host) == ('["a=1; b=2"]' if family else "[]")


def test_tenants_of_one_family(make_server, make_origin, make_client):
    server = make_server("--shared-cookies")
    client = make_client(server, make_origin(service), server.user().token)
    response = server.fetch(client.host)
    assert response.fields.all("set-cookie") == COOKIES


# ---- loops ----


def assert_loop(server, host):
    """Either HTTP ends with the answer, after a handful of requests; from there on it is one of the service."""
    before = server.metrics()["kavilo_edge_requests_total"]
    response = server.fetch(host)
    assert (response.status, response.content) == (508, b"this tunnel leads back to itself")
    (status, _, _, _), = h2visitor.fetch(server.edge, host, ["/"])
    assert status == 508
    assert server.metrics()["kavilo_edge_requests_total"] - before <= 8


@pytest.mark.parametrize("field", [("Via", "1.1 {host}"), ("CDN-Loop", "x, {host}:80; y=z")])
def test_request_that_has_passed_already(server, tunnel, field):
    name, value = field
    response = server.fetch(tunnel.host, fields=[(name, value.format(host=tunnel.host.upper()))])
    assert response.status == 508
    assert response.fields.one("kavilo-error") == "loop" and response.fields.one("kavilo-error-side") == "tunnel"
    assert server.fetch(tunnel.host, fields=[(name, value.format(host="other.test"))]).status == 200


@pytest.mark.parametrize("scheme", ["http", "h2c"])
def test_tunnel_to_its_own_edge(server, user, make_client, scheme):
    client = make_client(server, f"{scheme}://127.0.0.1:{server.edge[1]}", user.token)
    assert_loop(server, client.host)


def test_loop_of_two_tunnels(server, user, make_client):
    """Each leads to the other."""
    url, args = f"http://127.0.0.1:{server.edge[1]}", "--host-header"
    first = make_client(server, url, user.token, "--name", "first", args, f"second-{user.slug}.{BASE_HOST}")
    make_client(server, url, user.token, "--name", "second", args, first.host)
    assert_loop(server, first.host)


def test_chain_of_tunnels_is_no_loop(server, user, make_client, make_origin):
    """A service behind two tunnels of one server is reached, and sees both passes."""
    origin = make_origin(lambda ex: ex.reply_json([ex.request.fields.all("via"), ex.request.fields.all("cdn-loop")]))
    last = make_client(server, origin, user.token)
    first = make_client(server, f"http://127.0.0.1:{server.edge[1]}", user.token, "--host-header", last.host)
    vias, loops = json.loads(server.fetch(first.host).content)
    assert vias == [f"1.1 {first.host}", f"1.1 {last.host}"]
    assert loops == [first.host, last.host]
