"""HTTP/1.1 at the edge through a whole tunnel: connections, framings, statuses, forwarding fields, error replies."""

import base64
import email.utils
import hashlib
import html.parser
import json
import re
import socket
import time

import pytest

from harness import h2visitor
from harness.http1 import Broken, Pattern, chunk, read_response
from harness.origin import fields_of
from harness.process import run
from harness.settings import PACE, STEP
from harness.wait import wait_until


@pytest.fixture
def visit(shared_server, shared_tunnel):
    """visit() -> a Visitor of the shared tunnel."""
    made = []

    def make(**how):
        made.append(shared_server.visitor(shared_tunnel.host, **how))
        return made[-1]

    yield make
    for visitor in made:
        visitor.close()


@pytest.fixture
def fetch(shared_server, shared_tunnel):
    return lambda target="/", **how: shared_server.fetch(shared_tunnel.host, target, **how)


# ---- connections ----


def test_keep_alive(visit):
    visitor = visit()
    for i in range(10):
        visitor.request(f"/{i}")
        response = visitor.response()
        assert json.loads(response.content)["target"] == f"/{i}"
        assert response.keeps_alive and response.version == "HTTP/1.1"


def test_local_connections_are_kept_alive(visit):
    """Requests one after the other need one connection to the local service, not one each."""
    visitor = visit()
    connections = set()
    for _ in range(10):
        connections.add(json.loads(visitor.request().response().content)["connection"])
    assert len(connections) <= 2, connections


def test_connection_close_is_obeyed(visit):
    visitor = visit()
    visitor.request(fields=[("Connection", "close")])
    response = visitor.response()
    response.content  # pylint: disable=pointless-statement
    assert not response.keeps_alive
    assert visitor.source.at_end()


def test_http10(visit):
    visitor = visit()
    visitor.request("/body?size=100000&chunked=1", version="HTTP/1.0")
    response = visitor.response()
    assert "transfer-encoding" not in response.fields
    assert response.body.digest() == Pattern(100000).digest
    assert visitor.source.at_end()


def test_http10_keep_alive(visit):
    visitor = visit()
    for _ in range(2):
        visitor.request("/body?size=10", version="HTTP/1.0", fields=[("Connection", "keep-alive")])
        response = visitor.response()
        assert response.fields.one("connection").lower() == "keep-alive"
        assert len(response.content) == 10


def test_pipelining(visit, shared_tunnel):
    """Twenty requests in one write, a POST with its body among them: twenty answers in order."""
    visitor = visit()
    host = shared_tunnel.host.encode()
    wire = b""
    for i in range(20):
        if i % 5 == 3:
            wire += b"POST /%d HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\n\r\nhello" % (i, host)
        elif i % 5 == 4:
            wire += b"POST /%d HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % (i, host)
        else:
            wire += b"GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n" % (i, host)
    visitor.send(wire)
    for i in range(20):
        seen = json.loads(read_response(visitor.source).content)
        assert seen["target"] == f"/{i}"
        assert seen["size"] == {3: 5, 4: 3}.get(i % 5, 0)


def test_pipelining_behind_a_slow_answer(visit, shared_tunnel):
    """Fast answers wait for the slow one before them."""
    visitor = visit()
    host = shared_tunnel.host.encode()
    visitor.send(b"GET /sse?n=3&gap=0.1 HTTP/1.1\r\nHost: %s\r\n\r\nGET /fast HTTP/1.1\r\nHost: %s\r\n\r\n" % (host, host))
    assert read_response(visitor.source).content == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert json.loads(read_response(visitor.source).content)["target"] == "/fast"


def test_many_pipelined_requests_in_small_writes(visit, shared_tunnel):
    visitor = visit()
    request = b"GET /x HTTP/1.1\r\nHost: %s\r\n\r\n" % shared_tunnel.host.encode()
    wire = request * 10
    for at in range(0, len(wire), 7):
        visitor.send(wire[at : at + 7])
    for _ in range(10):
        assert json.loads(read_response(visitor.source).content)["target"] == "/x"


def test_visitor_half_close_still_gets_the_answer(visit):
    """A client that ends its sending side behind the request (as `nc -N` does) is answered."""
    visitor = visit()
    visitor.request("/sse?n=2&gap=0.1")
    visitor.end()
    assert visitor.response().content == b"data: 0\n\ndata: 1\n\n"


# ---- framings and methods ----


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 65536, 1_000_003])
@pytest.mark.parametrize("framing", ["", "&chunked=1", "&until_close=1"], ids=["length", "chunked", "until-close"])
def test_downloads(fetch, size, framing):
    response = fetch(f"/body?size={size}{framing}")
    assert response.content == Pattern(size).bytes()
    if not framing:
        assert response.fields.one("content-length") == str(size)


@pytest.mark.parametrize("size", [0, 1, 16384, 65537, 1_000_003])
@pytest.mark.parametrize("chunked", [False, True])
def test_uploads(fetch, size, chunked):
    pattern = Pattern(size)
    seen = json.loads(fetch("/up", method="POST", body=pattern if chunked else pattern.bytes()).content)
    assert (seen["size"], seen["sha256"]) == (size, pattern.digest)
    fields = fields_of(seen)
    if not chunked:
        assert fields.one("content-length") == str(size) and "transfer-encoding" not in fields


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY", "X-OWN!#$%&'*+.^_`|~"])
def test_methods_pass(fetch, method):
    assert json.loads(fetch("/m", method=method).content)["method"] == method


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
def test_bodies_of_unusual_methods(fetch, method):
    seen = json.loads(fetch("/m", method=method, body=b"content").content)
    assert (seen["method"], seen["size"]) == (method, 7)


def test_head(visit):
    """The length it would have, no content, and the connection in step."""
    visitor = visit()
    visitor.request("/body?size=12345", "HEAD")
    response = visitor.response("HEAD")
    assert response.status == 200 and response.fields.one("content-length") == "12345"
    visitor.request("/after")
    assert json.loads(visitor.response().content)["target"] == "/after"


@pytest.mark.parametrize("code", [204, 304])
def test_statuses_without_body(visit, code):
    visitor = visit()
    visitor.request(f"/status?code={code}")
    response = visitor.response()
    assert response.status == code and response.content == b""
    assert "transfer-encoding" not in response.fields
    assert response.fields.one("etag") == '"e"'
    visitor.request("/after")
    assert json.loads(visitor.response().content)["target"] == "/after"


def test_crumbs_of_a_cookie_are_one_field(server, user, make_origin, make_client):
    """Browsers send each cookie in a field of its own over HTTP/2 (RFC 9113, 8.2.3): more than there may be fields."""
    seen = []

    def handler(ex):
        seen.append(ex.request.fields.all("cookie"))
        ex.reply("ok")

    client = make_client(server, make_origin(handler), user.token)
    for count in (1, 2, 129, 600):
        crumbs = [f"c{i}={i}" for i in range(count)]
        fields = [("cookie", crumb) for crumb in crumbs]
        fields.insert(1, ("x-between", "1"))
        (status, _, _, _), = h2visitor.fetch(server.edge, client.host, ["/"], fields=fields)
        assert status == 200 and seen.pop() == ["; ".join(crumbs)]


def test_own_answers_have_a_date(server):
    """RFC 9110, 6.6.1: over HTTP/1 and HTTP/2, for gRPC too."""
    def is_now(text):
        return abs(email.utils.parsedate_to_datetime(text).timestamp() - time.time()) < 60 * PACE

    with server.visitor("nobody.tnl.test") as visitor:
        visitor.request("/")
        response = visitor.response()
        assert is_now(response.fields.one("date")) and response.content
        visitor.send(b"GET / HTTP/9.9\r\n\r\n")
        response = visitor.response()
        assert response.status == 400 and is_now(response.fields.one("date"))
    (status, fields, _, _), = h2visitor.fetch(server.edge, "nobody.tnl.test", ["/"])
    assert status == 502 and is_now(fields["date"])


def test_reset_content_has_no_content(server, user, make_origin, make_client):
    """205: what a service sends with it is dropped (RFC 9110, 15.3.6), over both, and the connection stays in step."""
    origin = make_origin(lambda ex: ex.reply("none" if ex.request.target == "/205" else "next", 205 if ex.request.target == "/205" else 200))
    client = make_client(server, origin, user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/205")
        response = visitor.response()
        assert (response.status, response.content) == (205, b"") and response.fields.one("content-length") == "0"
        visitor.request("/after")
        assert visitor.response().content == b"next"
    (status, fields, sha, complete), _ = h2visitor.fetch(server.edge, client.host, ["/205", "/after"])
    assert (status, sha, complete) == (205, hashlib.sha256(b"").hexdigest(), True) and "content-length" not in fields


@pytest.mark.parametrize("code", [200, 201, 202, 206, 301, 302, 307, 400, 401, 404, 418, 429, 499, 500, 502, 503, 504, 599])
def test_statuses_pass(fetch, code):
    """The service's own answers, failures too, are its own: not followed, not replaced, not marked as ours."""
    response = fetch(f"/status?code={code}")
    assert (response.status, response.text) == (code, f"status {code}")
    assert "kavilo-error" not in response.fields


def test_redirects_are_not_followed(server, user, make_origin, make_client):
    origin = make_origin(lambda ex: ex.reply("", 302, [("Location", "/elsewhere")]))
    client = make_client(server, origin, user.token)
    response = server.fetch(client.host)
    assert response.status == 302 and response.fields.one("location") == "/elsewhere"
    assert len(origin.exchanges) == 1


def test_bodies_are_not_decoded(server, user, make_origin, make_client):
    packed = b"\x1f\x8b\x08\x00not really gzip"
    client = make_client(server, make_origin(lambda ex: ex.reply(packed, 200, [("Content-Encoding", "gzip")])), user.token)
    response = server.fetch(client.host, fields=[("Accept-Encoding", "gzip")])
    assert response.content == packed and response.fields.one("content-encoding") == "gzip"


@pytest.mark.parametrize(
    "target",
    ["/", "/a/../b", "/a//b", "/%2e%2e/%2F", "/a;b=c", "/?", "/?a=b&c=%26", "/a?b?c", "/~user/'()*!$,", "//x", "/a%00b",
     "/" + "x" * 8000, "/ü".encode().decode("latin-1")],
    ids=lambda t: t[:20],
)
def test_targets_pass_as_they_are(fetch, target):
    """Paths are not normalised. (Bytes above 0x7f are no URI characters: they may be refused, never changed.)"""
    response = fetch(target)
    if any(ord(c) > 127 for c in target) and response.status == 400:
        return
    assert json.loads(response.content)["target"] == target


def test_options_star(fetch):
    assert json.loads(fetch("*", method="OPTIONS").content)["target"] == "*"


@pytest.mark.parametrize("port", ["", ":80"])
@pytest.mark.parametrize("host", [None, "other.test"])
def test_absolute_form(shared_server, shared_tunnel, port, host):
    """Its host is routed by and passed on, whatever Host says (RFC 9112, 3.2.2)."""
    with shared_server.visitor(shared_tunnel.host) as visitor:
        visitor.request(f"http://{shared_tunnel.host}{port}/abs?x=1", host=host)
        seen = json.loads(visitor.response().content)
    assert seen["target"] == "/abs?x=1"
    fields = fields_of(seen)
    assert fields.all("host") == [shared_tunnel.host + port] == fields.all("x-forwarded-host")


# ---- continue, interim answers, trailers ----


def test_expect_continue(visit):
    visitor = visit()
    visitor.request("/up", "POST", [("Expect", "100-continue"), ("Content-Length", "5")])
    response = read_head(visitor)
    assert response == 100
    visitor.send(b"hello")
    assert json.loads(visitor.response().content)["size"] == 5


def read_head(visitor):
    return int(visitor.source.until(b"\r\n\r\n").split(b" ")[1])


def test_expect_continue_without_waiting(visit):
    """A body that comes at once needs no 100, and gets its answer either way."""
    visitor = visit()
    visitor.request("/up", "POST", [("Expect", "100-continue")], b"hello")
    assert json.loads(visitor.response().content)["size"] == 5
    assert json.loads(visitor.request("/after").response().content)["target"] == "/after"


def test_expect_something_else(visit):
    visitor = visit()
    visitor.request("/up", "POST", [("Expect", "miracles")], b"hello")
    assert visitor.response().status in (200, 400, 417)


def test_curl_upload_with_expect(shared_server, shared_tunnel, tmp_path):
    """curl waits for the 100 with a large body."""
    file = tmp_path / "upload"
    file.write_bytes(Pattern(3_000_000).bytes())
    done = run(
        ["curl", "-sS", "--http1.1", "--connect-to", f"{shared_tunnel.host}:80:%s:%d" % shared_server.edge, "-T", str(file),
         "-H", "Expect: 100-continue", "--expect100-timeout", "30", "-w", "\n%{http_code} %{time_total}",
         f"http://{shared_tunnel.host}/up"], {"PATH": "/usr/bin:/bin"}, seconds=STEP * 3)
    assert done.returncode == 0, done.stderr
    seen, _, numbers = done.stdout.rpartition("\n")
    assert json.loads(seen)["sha256"] == Pattern(3_000_000).digest
    assert numbers.startswith("200 ") and float(numbers.split()[1]) < 20


def test_interim_answers(fetch):
    response = fetch("/interim")
    assert response.text == "final"
    assert [i.status for i in response.interims] == [103, 102]
    assert response.interims[0].fields.one("link") == "</a.css>; rel=preload"


def test_answer_trailers(fetch):
    response = fetch("/trailers", fields=[("TE", "trailers")])
    assert response.text == "body"
    assert dict((n.lower(), v) for n, v in response.trailers) == {"x-check": "abc", "x-other": "d e f"}


def test_request_trailers(visit):
    visitor = visit()
    visitor.request("/up", "POST", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])
    visitor.send(chunk(b"data") + b"0\r\nX-Sum: 7\r\n\r\n")
    seen = json.loads(visitor.response().content)
    assert [[n.lower(), v] for n, v in seen["trailers"]] == [["x-sum", "7"]]


def test_both_directions_at_once(visit):
    """The service mirrors while the visitor still sends: nothing waits for the end of anything."""
    visitor = visit()
    visitor.request("/mirror", "POST", [("Transfer-Encoding", "chunked")])
    response = visitor.response()
    pieces = iter(response.body)
    for i in range(20):
        visitor.send(chunk(b"%05d" % i))
        got = b""
        while len(got) < 5:
            got += next(pieces)
        assert got == b"%05d" % i
    visitor.send(b"0\r\n\r\n")
    assert list(pieces) == []
    assert dict((n.lower(), v) for n, v in response.trailers) == {"x-mirrored": "100"}


def assert_upload_is_refused(visitor, target, size):
    try:
        visitor.request(target, "POST", body=Pattern(size).bytes())
    except Broken:
        pass
    response = visitor.response()
    assert (response.status, response.text) == (403, "enough")


def test_early_answer_to_an_upload(visit):
    """The service refuses without reading: the visitor gets that answer, not a reset."""
    assert_upload_is_refused(visit(), "/early", 2_000_000)


@pytest.mark.parametrize("sized, ends_first", [(True, True), (True, False), (False, True)])
def test_answer_of_a_service_that_leaves_at_once(server, user, make_origin, make_client, sized, ends_first):
    """What it said counts, whether the client learns by reading or by writing that it left."""

    def leave(connection):
        connection.sock.recv(100)
        length = b"Content-Length: 6\r\n" if sized else b""
        connection.sock.sendall(b"HTTP/1.1 403 No\r\nConnection: close\r\n%s\r\nenough" % length)
        if ends_first:
            connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.close()  # the rest of the request is unread: a reset

    tunnel = make_client(server, make_origin(raw=leave), user.token)
    for _ in range(30):
        with server.visitor(tunnel.host) as visitor:
            assert_upload_is_refused(visitor, "/up", 300_000)


# ---- forwarding fields ----


def test_forwarding_fields(fetch, shared_server, shared_tunnel):
    fields = fields_of(json.loads(fetch("/").content))
    assert fields.one("x-forwarded-for") == "127.0.0.1"
    assert fields.one("x-real-ip") == "127.0.0.1"
    assert fields.one("x-forwarded-proto") == "http"
    assert fields.one("x-forwarded-host") == shared_tunnel.host
    assert fields.one("host") == shared_tunnel.host


def test_visitors_cannot_forge_forwarding_fields(fetch, shared_tunnel):
    """No proxy is trusted unless it is named: what a stranger says of himself is worth nothing."""
    forged = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Host", "evil.test"),
              ("X-Real-IP", "6.6.6.6"), ("x-forwarded-for", "7.7.7.7")]
    fields = fields_of(json.loads(fetch("/", fields=forged).content))
    assert fields.all("x-real-ip") == ["127.0.0.1"]
    assert fields.all("x-forwarded-proto") == ["http"]
    assert fields.all("x-forwarded-host") == [shared_tunnel.host]
    assert fields.get("x-forwarded-for").endswith("127.0.0.1")
    assert "6.6.6.6" not in fields.get("x-forwarded-for")


def test_hop_by_hop_fields_do_not_pass(fetch):
    gone = [("Connection", "keep-alive, X-Mine"), ("X-Mine", "1"), ("Keep-Alive", "timeout=5"), ("Proxy-Connection", "x"),
            ("Proxy-Authorization", "Basic eDp5"), ("TE", "gzip"), ("Kavilo-Session", "forged"), ("X-Stays", "1")]
    fields = fields_of(json.loads(fetch("/", fields=gone).content))
    for name in ("x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "kavilo-session"):
        assert name not in fields, name
    assert "gzip" not in (fields.get("te") or "")
    assert fields.one("x-stays") == "1"


def test_fields_pass_as_they_are(fetch):
    """Order of equal names, case of values, obs-text, empty values, many of them."""
    sent = [("X-A", "1"), ("X-B", "Ünï".encode().decode("latin-1")), ("X-A", "2, 3"), ("X-Empty", ""), ("Cookie", "a=1"),
            ("Cookie", "b=2"), ("Authorization", "Bearer visitor's own"), ("X-Tab", "a\tb"), ("User-Agent", "t/1")]
    sent += [(f"X-Many-{i}", str(i)) for i in range(60)]
    fields = fields_of(json.loads(fetch("/", fields=sent).content))
    assert fields.all("x-a") == ["1", "2, 3"]
    assert fields.one("x-b") == sent[1][1] and fields.one("x-tab") == "a\tb" and fields.one("x-empty") == ""
    assert "; ".join(fields.all("cookie")) == "a=1; b=2"
    assert fields.one("authorization") == "Bearer visitor's own" and fields.one("user-agent") == "t/1"
    for i in range(60):
        assert fields.one(f"x-many-{i}") == str(i)


def test_answer_fields_pass(server, user, make_origin, make_client):
    cookies = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"), ("X-Cased", "VaLue"), ("Server", "own/1"),
               ("Date", "Mon, 01 Jan 2024 00:00:00 GMT"), ("X-Empty", "")]
    client = make_client(server, make_origin(lambda ex: ex.reply("x", 200, cookies)), user.token)
    fields = server.fetch(client.host).fields
    assert fields.all("set-cookie") == ["a=1; Path=/", "b=2"]
    for name, value in cookies[2:]:
        assert fields.one(name) == value


def test_host_header_flag(server, user, origin, make_client):
    client = make_client(server, origin, user.token, "--host-header", "inner.example:81")
    fields = fields_of(json.loads(server.fetch(client.host).content))
    assert fields.all("host") == ["inner.example:81"]
    assert fields.one("x-forwarded-host") == client.host


# ---- error replies ----

SENTENCE = "no active tunnel for this hostname"


@pytest.mark.parametrize("accept", [None, "*/*", "text/plain", "image/png", "garbage;;;,q="])
def test_error_as_text(shared_server, accept):
    response = shared_server.fetch("nobody.tnl.test", fields=[("Accept", accept)] if accept else [])
    assert (response.status, response.text.rstrip("\n")) == (502, SENTENCE)
    assert response.fields.one("content-type").startswith("text/plain")
    assert response.fields.one("kavilo-error") == "no_tunnel"


@pytest.mark.parametrize("accept", ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                                    "application/json;q=0.1, text/html"])
def test_error_as_html(shared_server, accept):
    response = shared_server.fetch("nobody.tnl.test", fields=[("Accept", accept)])
    assert response.status == 502 and response.fields.one("content-type").startswith("text/html")
    assert response.fields.one("kavilo-error") == "no_tunnel"
    page = response.text
    assert page.lower().startswith("<!doctype html>") and SENTENCE in page.lower()
    parser = html.parser.HTMLParser()
    parser.feed(page)
    parser.close()


def test_error_page_loads_and_runs_nothing(shared_server):
    """Only the one style, by its hash; and nobody caches it, frames it, or guesses at its type."""
    response = shared_server.fetch("nobody.tnl.test", fields=[("Accept", "text/html")])
    style = re.search(r"<style>(.*)</style>", response.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = response.fields.one("content-security-policy")
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';") and "frame-ancestors 'none'" in policy
    assert response.fields.one("cache-control") == "no-store"
    assert response.fields.one("x-content-type-options") == "nosniff"
    page = response.text.lower()
    assert '<html lang="en">' in page and "<title>no active tunnel" in page and 'name="viewport"' in page
    for word in ("<script", "src=", "href=", "url(", "@import", "style="):
        assert word not in page, word
    assert len(response.content) < 5000


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/plain;q=0.5", "text/html;q=0,application/json"])
def test_error_as_json(shared_server, accept):
    response = shared_server.fetch("nobody.tnl.test", fields=[("Accept", accept)])
    assert response.status == 502 and response.fields.one("content-type") == "application/json"
    value = json.loads(response.content)
    assert (value["error"], value["message"], value["status"]) == ("no_tunnel", SENTENCE, 502)
    assert value["side"] == "tunnel" and value["request_id"]


def test_error_names_nothing_internal(shared_server):
    """The host and path a stranger sent are not echoed unescaped into a page; no version, no address, no path."""
    response = shared_server.fetch("nobody.tnl.test", "/<script>alert(1)</script>", fields=[("Accept", "text/html")])
    page = response.text
    assert "<script>alert" not in page
    for secret in ("127.0.0.1", "sqlite", "/src/", "0.2.0"):
        assert secret not in page


def test_error_to_head_has_no_body(visit, shared_server):
    visitor = shared_server.visitor("nobody.tnl.test")
    visitor.request("/", "HEAD")
    response = visitor.response("HEAD")
    assert response.status == 502 and response.content == b""
    try:
        visitor.request("/")
        assert visitor.response().text.rstrip("\n") == SENTENCE
    except Broken:
        assert not response.keeps_alive, "closed although it said it would not"
    visitor.close()


def test_error_to_an_upload_comes_before_its_end(shared_server):
    """502 at once, not after a gigabyte; and what is left of the body is never read as a request."""
    with shared_server.visitor("nobody.tnl.test") as visitor:
        visitor.request("/up", "POST", [("Content-Length", "1000000000")])
        visitor.send(b"GET /smuggled HTTP/1.1\r\nHost: nobody.tnl.test\r\n\r\n")
        response = visitor.response()
        assert response.status == 502
        response.content  # pylint: disable=pointless-statement
        assert visitor.source.at_end()


# ---- body limit ----


@pytest.fixture(scope="module")
def limited(module_programs, tmp_path_factory, shared_origin):
    from harness.tunnel import Client, Server  # pylint: disable=import-outside-toplevel

    server = Server(module_programs, tmp_path_factory.mktemp("limited"), ["--max-request-body-bytes", "10000"]).start()
    user = server.user()
    client = Client(module_programs, tmp_path_factory.mktemp("limited-client"), server.endpoint, shared_origin.url,
                    user.token, label="tunnel-limited")
    return server, client.wait_ready()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size,status", [(10000, 200), (10001, 413), (5_000_000, 413)])
def test_body_limit(limited, chunked, size, status):
    server, client = limited
    with server.visitor(client.host) as visitor:
        try:
            visitor.request("/up", "POST", body=Pattern(size) if chunked else Pattern(size).bytes())
        except Broken:
            assert status == 413
        response = visitor.response()
        assert response.status == status
        response.content  # pylint: disable=pointless-statement
        if status == 413:
            assert response.fields.one("kavilo-error") == "body_too_large"
        else:
            assert json.loads(response.content)["size"] == size


def test_body_limit_is_told_before_the_body_is_sent(limited):
    server, client = limited
    with server.visitor(client.host) as visitor:
        visitor.request("/up", "POST", [("Expect", "100-continue"), ("Content-Length", "10001")])
        response = visitor.response()
        assert response.status == 413 and response.interims == []


def test_upload_over_the_limit_looks_complete_to_nobody(limited, shared_origin):
    """The local service, which has seen the beginning, sees the connection break, not an end."""
    server, client = limited

    def arrived():
        return next((each for each in shared_origin.exchanges if each.request.target == "/up?broken"), None)

    with server.visitor(client.host) as visitor:
        visitor.request("/up?broken", "POST", [("Transfer-Encoding", "chunked")])
        visitor.send(chunk(b"x" * 9000))
        exchange = wait_until(arrived, what="the request: one of the test before may come late, too")
        wait_until(lambda: exchange.body.size == 9000, what="the beginning at the local service")
        visitor.send(chunk(b"x" * 9000))
        assert visitor.response().status == 413
        wait_until(lambda: exchange.over, what="the break at the local service")
        assert exchange.error is not None and not exchange.body.complete
