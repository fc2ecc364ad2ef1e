"""What one tenant of a server must not do to another: cookies under the common base host."""

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
