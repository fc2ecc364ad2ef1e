"""Answers as services send them: sloppy, large, and cut."""

import contextlib
import json
import os
import threading

import h2.errors
import h2.exceptions
import pytest

from harness.h2frames import DATA, RST, FrameVisitor, window
from harness.h2origin import H2Origin
from harness.http1 import Broken, Pattern, chunk
from harness.process import run
from harness.settings import MiB

# ---- sloppy ones ----

CHUNKS = b"2\r\nok\r\n0\r\n\r\n"
# What nginx and Caddy serve of a sloppy service, because there is one way to read it: (name, wire, kept open)
SLOPPY_ANSWERS = [
    ("lf", b"HTTP/1.1 200 OK\nContent-Type: text/plain\nContent-Length: 2\n\nok", True),
    ("lf-and-crlf", b"HTTP/1.1 200 OK\r\nX-A: 1\nContent-Length: 2\r\n\nok", True),
    ("lf-chunks", b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n", True),
    ("lf-trailers", b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\nX-A: 1\n\n", True),
    ("lf-until-close", b"HTTP/1.0 200 OK\nContent-Type: text/plain\n\nok", False),
    ("chunks-and-length", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n" + CHUNKS, False),
    ("length-and-chunks", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, False),
    ("chunks-and-bad-length", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, False),
    ("chunks-in-http10", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, False),
    ("identity", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", True),
    ("identity-until-close", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", False),
    ("space-before-colon", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", True),
    ("space-behind-chunk-size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0 \r\n\r\n", True),
    ("odd-chunk-extension", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 ; a=(b)\r\nok\r\n0\r\n\r\n", True),
    ("trailer-length", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 7\r\n\r\n",
     True),
    ("equal-lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok", True),
    ("no-reason", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", True),
    ("next-minor-version", b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
]


@pytest.mark.parametrize("name,wire,kept", SLOPPY_ANSWERS, ids=[row[0] for row in SLOPPY_ANSWERS])
@pytest.mark.parametrize("piecewise", [False, True], ids=["whole", "byte-by-byte"])
def test_sloppy_answers(server, user, make_origin, make_client, name, wire, kept, piecewise):
    """Served as what it says, with one framing of our own; the connection is kept where its state is beyond doubt."""
    connections = []

    def handler(ex):
        connections.append(ex.connection)
        for piece in [wire[i : i + 1] for i in range(len(wire))] if piecewise else [wire]:
            ex.send(piece)
        if name.endswith("until-close"):
            ex.close()

    client = make_client(server, make_origin(handler), user.token)
    with server.visitor(client.host) as visitor:
        for _ in range(2):
            visitor.request()
            response = visitor.response()
            assert (response.status, response.content) == (200, b"ok"), response
            framings = response.fields.all("content-length") + response.fields.all("transfer-encoding")
            assert len(framings) == 1, framings
    assert (len(set(connections)) == 1) == kept


# ---- large heads ----


def large(fields, size):
    """So many fields, Content-Length with them, of so many bytes with their line ends and the first line."""
    fields = [(f"x-{i}", "v") for i in range(fields - 2)]
    used = len(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n") + sum(len(n) + len(v) + 4 for n, v in fields)
    return fields + [("x-rest", "r" * (size - used - len("x-rest: \r\n")))]


def seen_by_curl(server, host, version):
    """(status, body, fields) as curl has them."""
    done = run(["curl", "-sS", version, "--resolve", f"{host}:{server.edge[1]}:127.0.0.1", "-w",
                "\n%{http_code}\n%{header_json}", f"http://{host}:{server.edge[1]}/"], dict(os.environ))
    assert done.returncode == 0, done
    body, status, fields = done.stdout.split("\n", 2)
    return int(status), body, json.loads(fields)


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("over_h2", [False, True], ids=["service-h1", "service-h2"])
@pytest.mark.parametrize("fields,size,fits", [(256, 9000, True), (20, 65000, True), (257, 9000, False), (20, 67000, False)])
def test_large_heads(shared_server, shared_user, make_origin, make_client, version, over_h2, fields, size, fits):
    """As many fields and bytes as documented arrive, every one of them; above that a 502 has the right words."""
    head = large(fields, size)
    if over_h2:
        head.append(("content-length", "2"))
        service = H2Origin(lambda stream: stream.head(200, head).data(b"ok", end=True))
    else:
        service = make_origin(lambda ex: ex.reply("ok", fields=head))
    client = make_client(shared_server, service.url, shared_user.token)
    for _ in range(2):
        status, body, got = seen_by_curl(shared_server, client.host, version)
        if fits:
            assert (status, body) == (200, "ok")
            assert all(got[name] == [value] for name, value in head)
        else:
            assert (status, got["kavilo-error"]) == (502, ["origin_head_too_large"])
            assert "64 KiB or 256 fields" in body
    if over_h2:
        service.close()


# ---- answers that break off ----

GOOD = Pattern(2 * MiB, "good").bytes()  # more than what is anywhere on the way at once


def broken_service(kind):
    """A handler whose answer is good for a while."""

    def handler(ex):
        framing = ("Content-Length", str(2 * len(GOOD))) if kind == "short" else ("Transfer-Encoding", "chunked")
        ex.head(200, [framing])
        ex.send(GOOD if kind == "short" else chunk(GOOD))
        if kind == "bad-chunk":
            ex.send(b"nothing\r\n")
        ex.close()

    return handler


def break_stream(stream):
    with contextlib.suppress(h2.exceptions.ProtocolError, AssertionError):  # the visitor may leave before
        stream.head(200).data(GOOD)
        stream.break_off(h2.errors.ErrorCodes.INTERNAL_ERROR)


@pytest.fixture(params=["short", "chunked", "bad-chunk", "service-h2"])
def broken(request, shared_server, shared_user, make_origin, make_client):
    if request.param != "service-h2":
        service = make_origin(broken_service(request.param))
    else:
        service = H2Origin(lambda stream: threading.Thread(target=break_stream, args=(stream,), daemon=True).start())
        request.addfinalizer(service.close)
    return make_client(shared_server, service.url, shared_user.token).host, request.param


def collect(response):
    """(what came of the body, the Broken that ended it)."""
    got = bytearray()
    try:
        for piece in response.body:
            got += piece
    except Broken as end:
        return bytes(got), str(end)
    return bytes(got), None


def test_what_was_good_arrives(shared_server, broken):
    """All of it, and then an end that nobody takes for the answer's."""
    host, _ = broken
    with shared_server.visitor(host) as visitor:
        visitor.request()
        got, end = collect(visitor.response())
        assert got == GOOD
        assert end == "closed"


def test_what_was_good_arrives_over_http2(shared_server, broken):
    host, _ = broken
    with FrameVisitor(shared_server.edge) as visitor:
        visitor.request(1, host)
        got = bytearray()
        while (frame := visitor.next()).kind != RST:
            if frame.kind == DATA:
                got += frame.payload
                visitor.send(window(0, len(frame.payload)), window(1, len(frame.payload)))
            assert not frame.end
        assert got == GOOD and frame.code
        visitor.request(3, host)
        assert visitor.until(lambda got: got.stream == 3)[-1].fields


def test_what_was_good_arrives_over_http10(shared_server, broken):
    """Where the connection's end is the answer's, the end is a reset, but for a length that says it."""
    host, kind = broken
    with shared_server.visitor(host) as visitor:
        visitor.request(version="HTTP/1.0")
        got, end = collect(visitor.response())
        assert got == GOOD
        assert end == "closed" if kind == "short" else "ConnectionResetError" in end


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("wire", [b"zz\r\n", b"\r\n", b"10000000000000000\r\nx"], ids=["no-size", "empty", "overflow"])
def test_body_that_is_wrong_from_the_start(shared_server, shared_user, make_origin, make_client, version, wire):
    """A 502 that says so: nobody has heard of the answer yet."""

    def handler(ex):
        ex.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)
        ex.close()

    client = make_client(shared_server, make_origin(handler), shared_user.token)
    status, _, fields = seen_by_curl(shared_server, client.host, version)
    assert (status, fields["kavilo-error"]) == (502, ["origin_bad_response"])
