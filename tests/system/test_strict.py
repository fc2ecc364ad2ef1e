"""What two parsers could read differently is refused, and not one byte of it reaches a local service: over TCP and TLS.
test_h2_rules.py has the same for HTTP/2."""

import pytest

from harness.http1 import Broken, head_bytes
from harness.origin import Origin
from harness.tunnel import Client, Server
from harness.wait import wait_until

GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n"
HOST = b"Host: @HOST@\r\n"
END = b"\r\n"


def row(name, wire, *statuses):
    return pytest.param(wire, statuses or (400,), id=name)


REFUSED = [
    # one framing or none
    row("length-and-chunked", POST + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    row("chunked-and-length", POST + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
    row("two-lengths", POST + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    row("length-list", POST + HOST + b"Content-Length: 3, 4\r\n\r\nabcd"),
    row("empty-length", POST + HOST + b"Content-Length: \r\n\r\n"),
    row("length-plus", POST + HOST + b"Content-Length: +3\r\n\r\nabc"),
    row("length-minus", POST + HOST + b"Content-Length: -3\r\n\r\nabc"),
    row("length-hex", POST + HOST + b"Content-Length: 0x3\r\n\r\nabc"),
    row("length-space", POST + HOST + b"Content-Length: 1 0\r\n\r\nabc"),
    row("length-point", POST + HOST + b"Content-Length: 3.0\r\n\r\nabc"),
    row("length-overflow", POST + HOST + b"Content-Length: 18446744073709551619\r\n\r\nabc", 400, 413),
    row("length-huge", POST + HOST + b"Content-Length: " + b"9" * 100 + b"\r\n\r\nabc", 400, 413),
    row("te-identity", POST + HOST + b"Transfer-Encoding: identity\r\n\r\n"),
    row("te-gzip", POST + HOST + b"Transfer-Encoding: gzip\r\n\r\n", 400, 501),
    row("te-chunked-gzip", POST + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, 501),
    row("te-chunked-twice", POST + HOST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    row("te-two-lines", POST + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    row("te-xchunked", POST + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, 501),
    row("te-quoted", POST + HOST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400, 501),
    row("te-vtab", POST + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    row("te-tab", POST + HOST + b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n"),
    row("te-space-behind", POST + HOST + b"Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n"),
    row("te-tab-behind", POST + HOST + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n"),
    row("te-folded", POST + HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    row("te-space-before-colon", POST + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    row("te-nul", POST + HOST + b"Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n"),
    row("te-lf-inside", POST + HOST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    row("te-cr-inside", POST + HOST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    row("te-comma", POST + HOST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 400, 501),
    row("te-parameter", POST + HOST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400, 501),
    row("te-twice-equal", POST + HOST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n"),
    row("te-and-length-0", POST + HOST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    row("te-identity-and-length", POST + HOST + b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc"),
    row("length-equal-list", POST + HOST + b"Content-Length: 3, 3\r\n\r\nabc"),
    row("length-equal-lines", POST + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    row("length-space-behind", POST + HOST + b"Content-Length: 3 \r\n\r\nabc"),
    row("length-tab", POST + HOST + b"Content-Length:\t3\r\n\r\nabc"),
    row("length-vtab", POST + HOST + b"Content-Length: \x0b3\r\n\r\nabc"),
    row("length-quoted", POST + HOST + b'Content-Length: "3"\r\n\r\nabc'),
    row("length-comma-behind", POST + HOST + b"Content-Length: 3,\r\n\r\nabc"),
    row("length-underscore", POST + HOST + b"Content-Length: 1_0\r\n\r\nabc"),
    row("get-length-and-chunked", GET + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    row("expect-other", POST + HOST + b"Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", 400, 417),
    row("expect-list", POST + HOST + b"Expect: 100-continue, x\r\nContent-Length: 3\r\n\r\nabc", 400, 417),
    row("expect-twice", POST + HOST + b"Expect: 100-continue\r\n" * 2 + b"Content-Length: 3\r\n\r\nabc", 400, 417),
    row("h2-preface-late", GET[:-2] + b" PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    row("te-gzip-chunked", POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    row("te-empty", POST + HOST + b"Transfer-Encoding: \r\n\r\n0\r\n\r\n"),
    row("te-http10", b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    # lines
    row("bare-lf", b"GET / HTTP/1.1\n" + HOST.replace(b"\r", b"") + b"\n"),
    row("bare-lf-in-fields", GET + HOST + b"X-A: 1\nX-B: 2\r\n\r\n"),
    row("bare-cr", GET + HOST + b"X-A: 1\rX-B: 2\r\n\r\n"),
    row("bare-cr-end", GET + HOST + b"X-A: 1\r\r\n\r\n"),
    row("obs-fold", GET + HOST + b"X-A: 1\r\n 2\r\n\r\n"),
    row("obs-fold-tab", GET + HOST + b"X-A: 1\r\n\t2\r\n\r\n"),
    row("fold-first", GET + b" Host: @HOST@\r\n\r\n"),
    row("space-before-colon", GET + HOST + b"Content-Length : 3\r\n\r\nabc"),
    row("tab-before-colon", GET + HOST + b"X-A\t: 3\r\n\r\n"),
    row("no-colon", GET + HOST + b"X-A\r\n\r\n"),
    row("empty-name", GET + HOST + b": 1\r\n\r\n"),
    row("nul-in-value", GET + HOST + b"X-A: 1\x002\r\n\r\n"),
    row("nul-in-name", GET + HOST + b"X\x00A: 1\r\n\r\n"),
    row("nul-in-target", b"GET /a\x00b HTTP/1.1\r\n" + HOST + END),
    row("control-in-value", GET + HOST + b"X-A: 1\x012\r\n\r\n"),
    row("del-in-value", GET + HOST + b"X-A: 1\x7f2\r\n\r\n"),
    row("bytes-in-name", GET + HOST + b"X-\xc3\xa9: 1\r\n\r\n"),
    row("brackets-in-name", GET + HOST + b"X(A): 1\r\n\r\n"),
    row("utf16", "GET / HTTP/1.1\r\n\r\n".encode("utf-16le")),
    # request line
    row("no-version", b"GET /\r\n" + HOST + END),
    row("two-spaces", b"GET  / HTTP/1.1\r\n" + HOST + END),
    row("tab-for-space", b"GET\t/\tHTTP/1.1\r\n" + HOST + END),
    row("space-in-target", b"GET /a b HTTP/1.1\r\n" + HOST + END),
    row("trailing-space", b"GET / HTTP/1.1 \r\n" + HOST + END),
    row("leading-space", b" GET / HTTP/1.1\r\n" + HOST + END),
    row("fragment", b"GET /a#b HTTP/1.1\r\n" + HOST + END),
    row("no-slash", b"GET a HTTP/1.1\r\n" + HOST + END),
    row("empty-target", b"GET  HTTP/1.1\r\n" + HOST + END),
    row("star-get", b"GET * HTTP/1.1\r\n" + HOST + END),
    row("bad-method", b"GE(T / HTTP/1.1\r\n" + HOST + END),
    row("version-1.2x", b"GET / HTTP/1.10\r\n" + HOST + END, 400, 505),
    row("version-2.0", b"GET / HTTP/2.0\r\n" + HOST + END, 400, 505),
    row("version-0.9", b"GET / HTTP/0.9\r\n" + HOST + END, 400, 505),
    row("version-lower", b"GET / http/1.1\r\n" + HOST + END, 400, 505),
    row("version-word", b"GET / HTTQ/1.1\r\n" + HOST + END, 400, 505),
    row("connect", b"CONNECT @HOST@:443 HTTP/1.1\r\n" + HOST + END, 400, 405, 501),
    row("absolute-user", b"GET http://user@@HOST@/ HTTP/1.1\r\n" + HOST + END),
    row("absolute-host-twice", b"GET http://@HOST@/ HTTP/1.1\r\n" + HOST + HOST + END),
    row("absolute-no-host", b"GET http://@HOST@/ HTTP/1.1\r\n\r\n"),
    row("absolute-backslash", b"GET http://@HOST@\\@other.test/ HTTP/1.1\r\n" + HOST + END),
    row("absolute-ftp", b"GET ftp://@HOST@/ HTTP/1.1\r\n" + HOST + END),
    # host
    row("no-host", GET + END),
    row("two-hosts", GET + HOST + b"Host: other.test\r\n\r\n"),
    row("two-equal-hosts", GET + HOST + HOST + END),
    row("empty-host", GET + b"Host: \r\n\r\n"),
    row("host-with-path", GET + b"Host: @HOST@/x\r\n\r\n"),
    row("host-with-user", GET + b"Host: user@@HOST@\r\n\r\n"),
    row("host-with-space", GET + b"Host: a b\r\n\r\n"),
    row("host-list", GET + b"Host: @HOST@, other.test\r\n\r\n"),
    row("host-bad-port", GET + b"Host: @HOST@:port\r\n\r\n"),
    row("host-huge-port", GET + b"Host: @HOST@:99999999\r\n\r\n", 400, 502),
    row("host-bad-v6", GET + b"Host: [::1\r\n\r\n"),
    row("host-nul", GET + b"Host: @HOST@\x00.evil\r\n\r\n"),
    row("host-non-ascii", GET + b"Host: \xc3\xa9.tnl.test\r\n\r\n"),
    row("host-long", GET + b"Host: " + b"a." * 200 + b"test\r\n\r\n", 400, 502),
    # sizes
    row("head-too-large", GET + HOST + b"X-A: " + b"x" * 40000 + b"\r\n\r\n", 431),
    row("too-many-fields", GET + HOST + b"X-A: 1\r\n" * 500 + END, 431),
    row("target-too-long", b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n" + HOST + END, 414),
    row("method-too-long", b"G" * 40000, 400, 414, 431, 501),
]

BAD_CHUNKS = [
    b"g\r\n",
    b"-1\r\n",
    b"+1\r\na\r\n",
    b" 1\r\na\r\n",
    b"0x1\r\na\r\n",
    b"1 \r\na\r\n0\r\n\r\n",
    b"\r\n",
    b"1\na\r\n",
    b"1\r\nab\r\n",
    b"1\r\na\n",
    b"1\r\na\r\r\n",
    b"fffffffffffffffff\r\n",
    b"10000000000000000\r\n",
    b"1;" + b"e" * 5000 + b"\r\na\r\n",
    b"1;a=\x00\r\na\r\n",
    b"1;a=\n\r\na\r\n",
    b"0\r\nX-A 1\r\n\r\n",
    b"0\r\n X: 1\r\n\r\n",
    b"0\r\nX: 1\n\r\n",
    b"0\r\nX: \x00\r\n\r\n",
    b"0\r\n" + b"X: 1\r\n" * 3000 + b"\r\n",
    b"0\n\n",
    b"0\r\n\n",
    b"0\r\n\rX: 1\r\n\r\n",
    b"0x0\r\n\r\n",
    b"00000000000000000001\r\na\r\n0\r\n\r\n",
    b"1 ;a\r\na\r\n0\r\n\r\n",
    b"1; a\r\na\r\n0\r\n\r\n",
    b"1;a\rb\r\na\r\n0\r\n\r\n",
    b'1;a="\n"\r\na\r\n0\r\n\r\n',
    b'1;a="\r\nb"\r\na\r\n0\r\n\r\n',
    b"1;\r\na\r\n0\r\n\r\n",
    b"1\t\r\na\r\n0\r\n\r\n",
    b"1_0\r\na\r\n0\r\n\r\n",
    b"1\r\naXX0\r\n\r\n",
    b"2\r\na\r\n0\r\n\r\n",
    b"0\r\nX : 1\r\n\r\n",
]


@pytest.fixture(scope="module", params=["tcp", "tls"])
def path(request, module_programs, tmp_path_factory, pair):
    """A server, in the clear or with TLS, a client and the service behind it."""
    origin = Origin()
    tls = pair if request.param == "tls" else None
    server = Server(module_programs, tmp_path_factory.mktemp("server"), tls=tls).start()
    client = Client(module_programs, tmp_path_factory.mktemp("client"), server.endpoint, origin.url,
                    server.user().token, label="tunnel", env={"KAVILO_CA_CERT": str(pair.ca)})
    yield server, client.wait_ready(), origin
    origin.close()
    assert not origin.surprises, origin.surprises


def send_tolerantly(visitor, wire):
    try:
        visitor.send(wire)
    except Broken:
        pass


@pytest.mark.parametrize("wire,statuses", REFUSED)
def test_refused(path, wire, statuses):
    """A clear refusal, the connection closed, nothing at the local service; what follows is no second request."""
    server, tunnel, origin = path
    before = len(origin.heads)
    with server.visitor(tunnel.host) as visitor:
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: @HOST@\r\n\r\n"
        send_tolerantly(visitor, (wire + smuggled).replace(b"@HOST@", tunnel.host.encode()))
        response = visitor.response()
        assert response.status in statuses, response
        assert response.fields.one("kavilo-error")
        if response.status != 502:
            response.content  # pylint: disable=pointless-statement
            assert visitor.source.at_end()
            assert len(origin.heads) == before, origin.heads[before:]
    assert not any(b"/smuggled" in head for head in origin.heads[before:]) or response.status == 502


@pytest.mark.parametrize("wire", BAD_CHUNKS, ids=lambda w: repr(w)[2:24])
def test_bad_chunks(path, wire):
    """400 or a close; the local service never sees a whole request, nor what follows as one."""
    server, tunnel, origin = path
    before = len(origin.exchanges)
    with server.visitor(tunnel.host) as visitor:
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: @HOST@\r\n\r\n"
        head = POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        send_tolerantly(visitor, (head + wire + smuggled).replace(b"@HOST@", tunnel.host.encode()))
        try:
            response = visitor.response()
            assert response.status == 400, response
            response.content  # pylint: disable=pointless-statement
        except Broken:
            pass
        assert visitor.source.at_end()
    for exchange in origin.exchanges[before:]:
        wait_until(lambda ex=exchange: ex.over, what="the end of the exchange at the local service")
        assert not exchange.body.complete, "a broken body arrived as a whole one"
        assert exchange.request.target != "/smuggled"


ACCEPTED = [
    row("absolute-port", b"GET http://@HOST@:80/x HTTP/1.1\r\n" + HOST + END),
    row("absolute-wins-over-host", b"GET http://@HOST@/x HTTP/1.1\r\nHost: other.test\r\n\r\n"),
    row("empty-port", GET + b"Host: @HOST@:\r\n\r\n"),
    row("next-minor-version", GET[:-2].replace(b"1.1", b"1.2") + b"\r\n" + HOST + END),
    row("upgrade-twice", GET + HOST + b"Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n"),
    row("upgrade-odd", GET + HOST + b"Connection: upgrade\r\nUpgrade: a b\r\n\r\n"),
    row("one-empty-line-first", b"\r\n" + GET + HOST + END),
    row("no-space-after-colon", GET + b"Host:@HOST@\r\n\r\n"),
    row("spaces-around-value", GET + b"Host: \t @HOST@ \t \r\n\r\n"),
    row("case-of-names", GET + b"hOsT: @HOST@\r\n\r\n"),
    row("te-case", POST + HOST + b"Transfer-Encoding: ChUnKeD\r\n\r\n1\r\na\r\n0\r\n\r\n"),
    row("chunk-extension", POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n1;a=b;c\r\na\r\n0\r\n\r\n"),
    row("chunk-leading-zeros", POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n0001\r\na\r\n000\r\n\r\n"),
    row("chunk-upper-hex", POST + HOST + b"Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"),
    row("trailer-te", POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    row("trailer-length", POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n"),
    row("trailer-host", POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nHost: other.test\r\n\r\n"),
    row("length-leading-zeros", POST + HOST + b"Content-Length: 003\r\n\r\nabc"),
    row("obs-text", GET + HOST + b"X-A: \xff\xfe\r\n\r\n"),
    row("host-with-port", GET + b"Host: @HOST@:8080\r\n\r\n"),
    row("unknown-upgrade-ignored-or-passed", GET + HOST + b"Upgrade: h2c\r\n\r\n"),
]


@pytest.mark.parametrize("wire,statuses", ACCEPTED)
@pytest.mark.parametrize("piecewise", [False, True], ids=["whole", "byte-by-byte"])
def test_accepted(path, wire, statuses, piecewise):
    """The other side of strictness: what RFC 9112 allows is served, in one piece and byte by byte."""
    server, tunnel, _ = path
    del statuses
    wire = wire.replace(b"@HOST@", tunnel.host.encode())
    with server.visitor(tunnel.host) as visitor:
        if piecewise:
            for i in range(len(wire)):
                visitor.send(wire[i : i + 1])
        else:
            visitor.send(wire)
        assert visitor.response().status == 200


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: @HOST@\r\n\r\n"

# What is no attack to us, and would be one to a service that reads it otherwise: (name, wire, bodies that arrive)
DEFUSED = [
    row("length-in-another-spelling", POST + HOST + b"Content_Length: 50\r\nContent-Length: 3\r\n\r\nabc"),
    row("coding-in-another-spelling", POST + HOST + b"Transfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n"),
    row("length-named-by-connection", POST + HOST + b"Connection: content-length\r\nContent-Length: 3\r\n\r\nabc"),
    row("host-named-by-connection", GET + HOST + b"Connection: host, close\r\n\r\n"),
    row("body-of-a-get", GET + HOST + b"Content-Length: 3\r\n\r\nabc"),
    row("request-as-a-body",
        POST + HOST + b"Content-Length: 52\r\n\r\nGET /inside HTTP/1.1\r\nHost: other.test\r\nX: 1234567\r\n\r\n"),
    row("request-as-a-chunk",
        POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n1a\r\nGET /inside HTTP/1.1\r\nX: y\r\n0\r\n\r\n"),
    row("h2c-upgrade",
        GET + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
    row("te-field", GET + HOST + b"TE: chunked, trailers\r\nTrailer: content-length\r\n\r\n"),
    row("rewritten-url",
        GET + HOST + b"X-Original-URL: /x\r\nX-Forwarded-Host: other.test\r\nForwarded: host=other.test\r\n\r\n"),
]


@pytest.mark.parametrize("wire,statuses", DEFUSED)
def test_defused(path, wire, statuses):
    """Each is one request with one framing for the service; what follows is the next one, and the last is the last."""
    del statuses
    server, tunnel, origin = path
    before = len(origin.exchanges)
    last = GET.replace(b"/", b"/last", 1) + HOST + END
    with server.visitor(tunnel.host) as visitor:
        visitor.send((wire + last).replace(b"@HOST@", tunnel.host.encode()))
        for _ in range(2 if b"close" not in wire else 1):
            response = visitor.response()
            assert response.status == 200 and response.content
    requests = [exchange.request for exchange in origin.exchanges[before:]]
    assert [r.target for r in requests] == ["/", "/last"][: len(requests)]
    first = requests[0]
    assert first.fields.all("host") == [tunnel.host] and len(first.fields.all("content-length")) <= 1
    for name in ("content_length", "transfer_encoding", "upgrade", "http2-settings"):
        assert name not in first.fields, first.raw
    assert first.fields.get("te") in (None, "trailers")
    for name in ("keep-alive", "proxy-connection"):
        assert name not in first.fields, first.raw
    assert "other.test" not in (first.fields.get("x-forwarded-host") or "")


def test_unread_body_of_an_early_answer(path):
    """CL.0: a service that answers without reading leaves a body in the pipe, never a request."""
    server, tunnel, origin = path
    before = len(origin.heads)
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/early", "POST", [("Content-Length", "2000000")])
        send_tolerantly(visitor, SMUGGLED.replace(b"@HOST@", tunnel.host.encode()))
        response = visitor.response()
        assert response.status == 403 and response.content == b"enough"
        assert visitor.source.at_end()
    for _ in range(3):
        assert server.fetch(tunnel.host, "/fine").status == 200
    assert not any(b"smuggled" in head for head in origin.heads[before:])


def test_what_arrives_is_written_anew(server, user, make_origin, make_client):
    """The local service receives one framing, one Host, and no trace of how the visitor wrote the request."""
    origin = make_origin()
    client = make_client(server, origin, user.token)
    with server.visitor(client.host) as visitor:
        visitor.send(b"POST /x HTTP/1.1\r\nhOST:   %s  \r\ntransfer-ENCODING: chunked\r\nx-a:b\r\n\r\n"
                     b"0003;ext=1\r\nabc\r\n00\r\n\r\n" % client.host.encode())
        assert visitor.response().status == 200
    request = origin.last.request
    assert request.version == "HTTP/1.1"
    assert request.fields.all("host") == [client.host] and request.fields.one("x-a") == "b"
    assert origin.last.body.size == 3 and origin.last.body.complete
    assert b"ext=1" not in request.raw and b"\n " not in request.raw


def test_service_that_answers_twice(server, user, make_origin, make_client):
    """Bytes behind a complete answer are not the next visitor's answer."""

    def twice(ex):
        ex.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")

    client = make_client(server, make_origin(twice), user.token)
    with server.visitor(client.host) as visitor:
        for _ in range(3):
            visitor.request()
            assert visitor.response().content == b"first"


BAD_ANSWERS = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nX A: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: 1\x00\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40,
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: surprise\r\n\r\nraw",
    b"\0" * 100,
]


@pytest.mark.parametrize("wire", BAD_ANSWERS, ids=lambda w: repr(w)[2:40])
def test_answers_that_are_no_http(server, user, make_origin, make_client, wire):
    """502 with whose fault it is; never the raw bytes, never a hang; the next request is served."""
    bad = [True]

    def handler(ex):
        if bad:
            bad.pop()
            ex.send(wire)
            ex.close()
        else:
            ex.reply("fine")

    client = make_client(server, make_origin(handler), user.token)
    with server.visitor(client.host) as visitor:
        visitor.request()
        response = visitor.response()
        assert response.status == 502, response
        assert response.fields.one("kavilo-error") in ("origin_bad_response", "origin_closed")
        assert b"SSH" not in response.content
    assert server.fetch(client.host).text == "fine"


def test_a_head_that_never_ends_of_a_gone_visitor(shared_server, shared_tunnel, shared_origin):
    before = len(shared_origin.heads)
    with shared_server.visitor(shared_tunnel.host) as visitor:
        visitor.send(head_bytes(b"GET / HTTP/1.1", [("Host", shared_tunnel.host)])[:-2])
    assert shared_server.fetch(shared_tunnel.host, "/fine").status == 200
    assert len(shared_origin.heads) == before + 1
