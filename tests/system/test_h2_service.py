"""Local services that speak HTTP/2, played stream by stream: what they see, and what visitors see of them."""

import base64
import hashlib
import socket
import threading

import h2.errors
import pytest

from harness.h2origin import CONNECT, MAX_STREAMS, H2Origin
from harness.http1 import Bytes, Broken, Pattern, chunk, head_bytes, read_response
from harness.settings import MiB
from harness.wait import wait_until

CODES = h2.errors.ErrorCodes


@pytest.fixture
def made():
    origins = []
    yield origins
    for origin in origins:
        origin.close()


@pytest.fixture
def path(shared_server, shared_user, make_client, made):
    """path(handler, settings=…) -> (service, host): a service and a tunnel to it."""

    def make(handler=None, *args, **how):
        service = H2Origin(handler, **how)
        made.append(service)
        return service, make_client(shared_server, service.url, shared_user.token, *args).host

    return make


def answer(stream):
    stream.reply(body=stream.target.encode())


# ---- heads and bodies ----


def test_what_the_service_sees(shared_server, path):
    service, host = path(lambda s: None)
    with shared_server.visitor(host) as visitor:
        visitor.request("/a?b=c", fields=[("TE", "trailers, gzip"), ("Connection", "x-hop, TE"), ("X-Hop", "1"), ("X-One", "1"),
                                          ("Keep-Alive", "3"), ("Cookie", "a=b")])
        stream = service.stream().whole()
        assert stream.pseudo == {":method": "GET", ":path": "/a?b=c", ":scheme": "http", ":authority": host}
        rest = {n for n in stream.fields.names() if not n.startswith("x-forwarded")}
        assert rest == {"x-one", "cookie", "te", "x-real-ip", "via", "cdn-loop"}
        assert stream.fields.one("te") == "trailers" and stream.fields.one("x-forwarded-host") == host
        stream.reply(204)
        assert visitor.response().status == 204


def test_trailers_and_interim_answers(shared_server, path):
    """Trailers cross both ways, between HTTP/1.1 and HTTP/2; the answer begins before the request has ended."""
    service, host = path(lambda s: None)
    with shared_server.visitor(host) as visitor:
        visitor.send(head_bytes(b"POST /t HTTP/1.1", [("Host", host), ("Transfer-Encoding", "chunked")]) + chunk(b"one"))
        stream = service.stream()
        stream.head(103, [("link", "</a>")]).head(200, [("x-a", "1")]).data(b"begun")
        response = visitor.response()
        assert [i.status for i in response.interims] == [103] and response.fields.one("x-a") == "1"
        visitor.send(chunk(b"two") + b"0\r\nX-Sum: 7\r\n\r\n")
        stream.whole()
        assert stream.body == b"onetwo" and stream.trailers == [("x-sum", "7")]
        stream.end([("x-last", "8")])
        assert response.content == b"begun" and response.trailers == [("x-last", "8")]


def test_large_bodies(shared_server, path):
    """Through windows of 64 KiB on both sides."""

    def echo(stream):
        def run():
            stream.head(200)
            stream.whole()
            stream.data(stream.body, end=True)

        threading.Thread(target=run, daemon=True).start()

    service, host = path(echo)
    pattern = Pattern(2 * MiB)
    for body in (pattern.bytes(), iter(pattern)):
        response = shared_server.fetch(host, "/", "POST", body=body)
        assert hashlib.sha256(response.content).hexdigest() == pattern.digest
    assert len(service.connections) == 1


def test_one_stalled_stream_stops_no_other(shared_server, path):
    """A visitor that reads nothing, and an upload that the service takes nothing of, on the connection of a third."""
    service, host = path()
    with shared_server.visitor(host, buffer_size=4096) as idle, shared_server.visitor(host) as sender:
        idle.request("/idle")
        down = service.stream(0).head(200)
        pushing = threading.Thread(target=lambda: down.data(bytes(12 * MiB), end=True), daemon=True)
        pushing.start()
        service.consumes = False
        sender.send(head_bytes(b"PUT /up HTTP/1.1", [("Host", host), ("Content-Length", str(12 * MiB))]))
        sending = threading.Thread(target=lambda: sender.send(bytes(12 * MiB)), daemon=True)
        sending.start()
        up = service.stream(1)
        wait_until(lambda: len(up.body) == 65535, what="the service's window to fill")
        for i in range(20):
            with shared_server.visitor(host) as visitor:
                visitor.request(f"/{i}")
                answer(service.stream(2 + i))
                assert visitor.response().content == b"/%d" % i
        assert len(service.connections) == 1 and pushing.is_alive() and sending.is_alive()
        service.consumes = True
        up.connection.run(lambda h: h.acknowledge_received_data(len(up.body), up.number))
        up.whole()
        up.reply(200, b"ok")
        assert sender.response().content == b"ok"
        assert len(idle.response().content) == 12 * MiB


# ---- connections and streams ----


def test_streams_are_limited_by_the_service(shared_server, path):
    """Two at a time on a connection: further ones open connections, eight of them, and then wait for a place."""
    service, host = path(settings={MAX_STREAMS: 2})
    visitors = [shared_server.visitor(host) for _ in range(20)]
    for i, visitor in enumerate(visitors):
        visitor.request(f"/{i}")
    wait_until(lambda: len(service.streams) == 16, what="what eight connections can take")
    assert len(service.connections) == 8 and all(c.most <= 2 for c in service.connections)
    for i in range(20):
        answer(service.stream(i))
    assert sorted(v.response().content for v in visitors) == sorted(b"/%d" % i for i in range(20))
    assert len(service.connections) == 8 and all(c.most <= 2 for c in service.connections)
    for visitor in visitors:
        visitor.close()


def test_no_stream_free_in_time(shared_server, path):
    service, host = path(None, "--response-timeout", "300ms", settings={MAX_STREAMS: 0})
    response = shared_server.fetch(host)
    assert (response.status, response.fields.one("kavilo-error")) == (504, "origin_timeout")
    assert not service.streams


def test_refused_streams_are_sent_again(shared_server, path):
    def refuse_first(stream):
        if len(service.streams) % 2:
            threading.Thread(target=lambda: stream.whole().break_off(CODES.REFUSED_STREAM), daemon=True).start()
        else:
            threading.Thread(target=lambda: stream.whole().reply(200, stream.body), daemon=True).start()

    service, host = path(refuse_first)
    assert shared_server.fetch(host, "/", "POST", body=b"x" * 16384).content == b"x" * 16384
    assert shared_server.fetch(host, "/", "POST", body=iter([b"a", b"b"])).content == b"ab"
    assert len(service.streams) == 4
    response = shared_server.fetch(host, "/", "POST", body=b"x" * 20000)
    assert (response.status, response.fields.one("kavilo-error")) == (502, "origin_other"), "too much to keep"


def test_a_service_that_refuses_always(shared_server, path):
    service, host = path(lambda s: s.break_off(CODES.REFUSED_STREAM))
    response = shared_server.fetch(host)
    assert (response.status, response.fields.one("kavilo-error")) == (502, "origin_other")
    assert len(service.streams) == 3


def test_goaway(shared_server, path):
    """What it says was begun ends on the old connection; the rest goes out again on a new one, POST or not."""
    service, host = path()
    with shared_server.visitor(host) as one, shared_server.visitor(host) as two:
        one.request("/one")
        begun = service.stream(0)
        two.request("/two", "POST", body=b"body")
        old = service.stream(1).whole().connection
        old.run(lambda h: h.close_connection(last_stream_id=begun.number))
        # python3-h2 takes its own GOAWAY for the end; the answer is written around it.
        again = service.stream(2).whole()
        assert again.connection is not old and (again.target, again.body) == ("/two", b"body")
        answer(again)
        assert two.response().content == b"/two"
        old.stream.sendall(b"\0\0\1\1\4" + begun.number.to_bytes(4, "big") + b"\x88" + b"\0\0\2\0\1"
                           + begun.number.to_bytes(4, "big") + b"ok")
        assert one.response().content == b"ok"
        old.wait(lambda: old.closed, "the old connection's end")


def test_a_connection_that_dies(shared_server, path):
    """A GET is sent again, a POST is not; half an answer is cut."""
    service, host = path()
    with shared_server.visitor(host) as one, shared_server.visitor(host) as two, shared_server.visitor(host) as three:
        one.request("/get")
        service.stream(0)
        two.request("/post", "POST", body=b"x")
        service.stream(1).whole()
        three.request("/half")
        service.stream(2).head(200).data(b"half")
        answer_begun = three.response()
        service.connections[0].close(abrupt=True)
        response = two.response()
        assert (response.status, response.fields.one("kavilo-error")) == (502, "origin_closed")
        again = service.stream(3)
        assert again.target == "/get"
        answer(again)
        assert one.response().content == b"/get"
        with pytest.raises(Broken):
            answer_begun.content  # pylint: disable=pointless-statement


# ---- ends ----


@pytest.mark.parametrize("code,error", [(CODES.CANCEL, "origin_closed"), (CODES.INTERNAL_ERROR, "origin_closed"),
                                        (CODES.PROTOCOL_ERROR, "origin_bad_response"),
                                        (CODES.ENHANCE_YOUR_CALM, "origin_other"), (CODES.NO_ERROR, "origin_closed")])
def test_resets_by_the_service(shared_server, resetting, code, error):
    response = shared_server.fetch(resetting, f"/{int(code)}", "POST", body=b"x")
    assert (response.status, response.fields.one("kavilo-error")) == (502, error)
    with shared_server.visitor(resetting) as visitor:
        visitor.request(f"/half/{int(code)}")
        with pytest.raises(Broken):
            visitor.response().content  # pylint: disable=expression-not-assigned


@pytest.fixture
def resetting(path):
    def handler(stream):
        if stream.target.startswith("/half/"):
            stream.head(200).data(b"half")
        stream.break_off(int(stream.target.rpartition("/")[2]))

    return path(handler)[1]


def test_visitors_that_leave(shared_server, path):
    """Before and in the middle of the answer, and of an upload: the service hears CANCEL, the connection stays."""
    service, host = path()
    for i, begun in enumerate((False, True)):
        with shared_server.visitor(host) as visitor:
            visitor.request("/x")
            stream = service.stream(i)
            if begun:
                stream.head(200).data(b"begun")
                visitor.response()
            visitor.abort()
        stream.connection.wait(lambda s=stream: s.reset is not None, "the reset")
        assert stream.reset == CODES.CANCEL
    with shared_server.visitor(host) as visitor:
        visitor.send(head_bytes(b"PUT /up HTTP/1.1", [("Host", host), ("Content-Length", "10")]) + b"half")
        stream = service.stream(2)
        wait_until(lambda: stream.body == b"half", what="half a body")
    stream.connection.wait(lambda: stream.reset is not None, "the reset of an upload")
    assert not stream.ended and len(service.connections) == 1


def test_an_answer_before_the_request_has_ended(shared_server, path):
    """The visitor gets it whole; what is left of the request is called off."""
    service, host = path()
    with shared_server.visitor(host) as visitor:
        visitor.send(head_bytes(b"PUT /up HTTP/1.1", [("Host", host), ("Content-Length", "10")]) + b"half")
        stream = service.stream()
        stream.reply(413, b"no")
        assert visitor.response().content == b"no"
        stream.connection.wait(lambda: stream.reset is not None, "the reset")


# ---- what is no HTTP/2 service ----


def test_services_that_are_none(shared_server, shared_user, make_client, make_origin, made):
    def ask(url):
        response = shared_server.fetch(make_client(shared_server, url, shared_user.token, "--connect-timeout", "300ms").host)
        return response.status, response.fields.one("kavilo-error")

    plain = make_origin(surprises=True)
    assert ask(f"h2c://127.0.0.1:{plain.port}") == (502, "origin_bad_response")
    assert [e.request.method for e in plain.exchanges] == ["PRI"], "nothing but the preface"
    plain.close()
    assert ask(f"h2c://127.0.0.1:{plain.port}") == (502, "origin_refused")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert ask("h2c://127.0.0.1:%d" % silent.getsockname()[1]) == (504, "origin_connect_timeout")
    clear = H2Origin(answer)
    made.append(clear)
    assert ask(clear.url.replace("h2c", "https")) == (502, "origin_tls")


@pytest.mark.parametrize("farewell", [b"", b"\0\0\x08\7" + bytes(13)], ids=["closed", "goaway"])
def test_a_service_that_ends_before_it_serves(shared_server, shared_user, make_client, farewell):
    """It allows no stream, and each connection ends at once: the visitor hears so instead of dials without end."""
    dialled = []

    def serve(listener):
        while True:
            try:
                sock = listener.accept()[0]
            except OSError:
                return
            dialled.append(sock)
            with sock:
                sock.sendall(b"\0\0\6\4\0\0\0\0\0" + b"\0\3\0\0\0\0")
                source = Bytes(sock)
                source.until(b"\0\0\0\4\1\0\0\0\0")  # it has been read
                sock.sendall(farewell)
                sock.shutdown(socket.SHUT_WR)
                source.to_end()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        client = make_client(shared_server, "h2c://127.0.0.1:%d" % listener.getsockname()[1], shared_user.token,
                             "--response-timeout", "2s")
        response = shared_server.fetch(client.host)
        assert (response.status, response.fields.one("kavilo-error")) == (502, "origin_closed")
        assert len(dialled) <= 8
        listener.shutdown(socket.SHUT_RDWR)


# ---- TLS ----


def plain_http(sock):
    """One HTTP/1.1 request, answered with its target; an upgrade with a raw echo."""
    source = Bytes(sock)
    lines = source.until(b"\r\n\r\n").split(b"\r\n")
    if any(line.lower().startswith(b"upgrade:") for line in lines):
        sock.sendall(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        sock.sendall(source.some().upper())
        source.to_end()
        return
    target = lines[0].split()[1]
    sock.sendall(head_bytes(b"HTTP/1.1 200 OK", [("Content-Length", str(len(target))), ("Connection", "close")]) + target)


def test_tls_chooses(shared_server, path, pair):
    """ALPN decides; upgrades go over HTTP/1.1 where HTTP/2 has no way for them."""
    service, host = path(answer, tls=pair, alpn=("h2", "http/1.1"), h1=plain_http)
    with shared_server.visitor(host) as visitor:
        assert visitor.request("/one").response().content == b"/one"
        assert service.streams[0].pseudo[":scheme"] == "https"
    with shared_server.visitor(host) as visitor:
        visitor.request("/up", fields=[("Connection", "upgrade"), ("Upgrade", "echo")])
        assert visitor.response().status == 101
        visitor.send(b"hello")
        assert visitor.source.exactly(5) == b"HELLO"
    assert len(service.streams) == 1
    for alpn in (("http/1.1",), ()):
        service, host = path(tls=pair, alpn=alpn, h1=plain_http)
        visitors = [shared_server.visitor(host).request(f"/{i}", "POST", body=b"x" * i) for i in range(5)]
        assert [v.response().content for v in visitors] == [b"/%d" % i for i in range(5)]
        assert not service.streams
        for visitor in visitors:
            visitor.close()


def test_a_refused_request_goes_over_http1(shared_server, path, pair):
    """The service ends HTTP/2 in the middle of the request, which it has not begun with, and speaks HTTP/1.1 from then
    on. The body is there again, what is left of it too."""

    def echo(sock):
        source = Bytes(sock)
        source.until(b"\r\n\r\n")
        sock.sendall(head_bytes(b"HTTP/1.1 200 OK", [("Content-Length", "16384"), ("Connection", "close")])
                     + source.exactly(16384))

    service, host = path(tls=pair, alpn=("h2", "http/1.1"), h1=echo)
    body = Pattern(16384).bytes()
    with shared_server.visitor(host) as visitor:
        visitor.send(head_bytes(b"POST / HTTP/1.1", [("Host", host), ("Content-Length", "16384")]) + body[:12000])
        stream = service.stream()
        stream.connection.wait(lambda: len(stream.body) == 12000, "most of the body")
        service.tls.set_alpn_protocols(["http/1.1"])
        stream.connection.run(lambda h: h.close_connection(last_stream_id=0))
        visitor.send(body[12000:])
        assert visitor.response().content == body


# ---- upgrades ----

KEY = base64.b64encode(b"0123456789abcdef").decode()
UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "13")]


def test_websocket_by_extended_connect(shared_server, path):
    """RFC 8441: each direction ends by itself, and the visitor's key is answered for a service that never saw it."""
    service, host = path(settings={CONNECT: 1})
    with shared_server.visitor(host) as visitor:
        visitor.request("/ws", fields=UPGRADE)
        stream = service.stream()
        assert stream.pseudo == {":method": "CONNECT", ":path": "/ws", ":scheme": "http", ":authority": host,
                                 ":protocol": "websocket"}
        assert "sec-websocket-key" not in stream.fields and stream.fields.one("sec-websocket-version") == "13"
        stream.head(200, [("sec-websocket-protocol", "chat")])
        response = visitor.response()
        accept = hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert response.status == 101 and response.fields.one("sec-websocket-protocol") == "chat"
        assert response.fields.one("sec-websocket-accept") == base64.b64encode(accept).decode()
        visitor.send(b"up")
        wait_until(lambda: stream.body == b"up", what="raw bytes")
        stream.data(b"down")
        assert visitor.source.exactly(4) == b"down"
        visitor.end()
        stream.whole()
        stream.data(b"last words", end=True)
        assert visitor.source.to_end() == b"last words"


def test_bytes_before_the_101(shared_server, path):
    """What the visitor sends too early, and even its end, follows when the service has taken the upgrade."""
    service, host = path(settings={CONNECT: 1})
    with shared_server.visitor(host) as visitor:
        visitor.request("/ws", fields=UPGRADE)
        visitor.send(b"early")
        visitor.end()
        stream = service.stream()
        stream.head(200)
        assert visitor.response().status == 101
        assert stream.whole().body == b"early"
        stream.data(b"late", end=True)
        assert visitor.source.to_end() == b"late"


def test_upgrades_that_are_refused(shared_server, path):
    """By a status of the service's own; and by a service without extended CONNECT, which is asked as if for a page."""
    service, host = path(lambda s: s.reply(403, b"no"), settings={CONNECT: 1})
    response = shared_server.fetch(host, "/ws", fields=UPGRADE[1:] + [("Connection", "upgrade")])
    assert (response.status, response.content) == (403, b"no")
    service, host = path(lambda s: s.reply(426, b"not here"))
    with shared_server.visitor(host) as visitor:
        visitor.request("/ws", fields=UPGRADE)
        assert (read_response(visitor.source).status, service.streams[0].method) == (426, "GET")
        assert service.streams[0].ended
