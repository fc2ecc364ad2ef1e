"""What one tenant of a server must not do to another, or to the server: cookies under the common base host, loops."""

import contextlib
import json
import os
import threading

import pytest

from harness import h2visitor
from harness.http1 import chunk
from harness.process import run
from harness.tunnel import BASE_HOST
from harness.wait import wait_until

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


# ---- shares of a tunnel ----


VISITOR, OTHER = "203.0.113.7", "198.51.100.1"


@pytest.fixture
def shared(make_server):
    """A server that believes this machine about who visits: a tunnel has eight places, and four for the still ones."""
    return make_server("--trusted-proxies", "127.0.0.1", "--max-concurrent", "8", "--max-idle-streams", "4")


def ask_as(visitor, address, target="/", method="GET", fields=(), **how):
    return visitor.request(target, method, fields=[("X-Forwarded-For", address), *fields], **how)


def status_as(server, host, address):
    with server.visitor(host) as visitor:
        response = ask_as(visitor, address).response()
        response.content  # pylint: disable=pointless-statement
        return response.status, response.fields.get("kavilo-error")


def test_one_visitor_leaves_room_for_others(shared, make_client, make_origin):
    """Uploads that never end, from one address: it gets three quarters, and others are served."""
    origin = make_origin()
    client = make_client(shared, origin, shared.user().token)
    with contextlib.ExitStack() as stack:
        uploads = [stack.enter_context(shared.visitor(client.host)) for _ in range(6)]
        for upload in uploads:
            ask_as(upload, VISITOR, "/up", "POST", [("Content-Length", "100000")]).send(b"x")
        origin.wait_exchange(6)
        assert status_as(shared, client.host, VISITOR) == (429, "visitor_busy")
        assert status_as(shared, client.host, OTHER) == (200, None)
        assert status_as(shared, client.host, "2001:db8::1") == (200, None)
        uploads[0].abort()
        wait_until(lambda: status_as(shared, client.host, VISITOR) == (200, None), what="room for one more")


def test_proxies_and_this_machine_share_with_no_one(shared, make_client, make_origin):
    """Who speaks for many gets all there is, and then the tunnel is full."""
    origin = make_origin()
    client = make_client(shared, origin, shared.user().token)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            ask_as(stack.enter_context(shared.visitor(client.host)), "127.0.0.1", "/wait")
        origin.wait_exchange(8)
        assert status_as(shared, client.host, OTHER) == (503, "tunnel_busy")
        origin.release.set()


@pytest.mark.first
@pytest.mark.patience(120)
def test_streams_that_are_still_lock_nobody_out(shared, make_client, make_origin):
    """Event streams that say nothing have places of their own, and come back to work when they say something."""
    gate = threading.Event()

    def service(ex):
        if ex.request.target != "/events":
            ex.reply("quick")
            return
        ex.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        gate.wait(100)
        ex.send(chunk(b"data: news\n\n") + b"0\r\n\r\n")

    client = make_client(shared, make_origin(service), shared.user().token)
    with contextlib.ExitStack() as stack:
        streams = []
        for i in range(8):
            streams.append(stack.enter_context(shared.visitor(client.host)))
            assert ask_as(streams[-1], f"203.0.113.{i}", "/events").response().status == 200
        assert status_as(shared, client.host, OTHER) == (503, "tunnel_busy")
        wait_until(lambda: status_as(shared, client.host, OTHER) == (200, None), 30, what="four of them are still")
        gate.set()
        for stream in streams:
            assert stream.source.until(b"0\r\n\r\n")
