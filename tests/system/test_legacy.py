"""One side is already ours, the other is still a deployed one: what it does wrong has to be lived with."""

import json
import signal
import threading
import time

import pytest

from harness.http1 import Broken, Pattern, chunk
from harness.origin import fields_of
from harness.settings import MiB, PACE, SANITIZER, STEP
from harness.wait import wait_until
from legacy_client import LegacyClient
from legacy_server import LegacyServer

LARGE = 64 * MiB if not SANITIZER else 24 * MiB
SAFE_FRAMES = 31


@pytest.fixture
def legacy(server, user):
    """legacy(origin, …) -> a connected deployed client of our server."""
    made = []

    def make(origin, **how):
        made.append(LegacyClient(server.endpoint, user.token, origin.url, **{"retry": False, **how}))
        return made[-1]

    yield make
    for client in made:
        client.close()


# ---- our server, a deployed client ----


def test_request_and_answer(server, legacy, origin):
    client = legacy(origin).connected()
    assert client.welcome["max_concurrent_requests"] == 256
    response = server.fetch(client.host, "/a?b=c", fields=[("X-One", "1")])
    seen = json.loads(response.content)
    assert (response.status, seen["method"], seen["target"]) == (200, "GET", "/a?b=c")
    assert response.fields.one("content-length") == str(len(response.content))


def test_server_adds_and_removes_fields_for_it(server, legacy, origin):
    """It adds no X-Forwarded-* and strips nothing: what the service and the visitor see is the server's work."""
    client = legacy(origin).connected()
    response = server.fetch(client.host, "/", fields=[("Connection", "X-Mine"), ("X-Mine", "1"), ("Keep-Alive", "5")])
    fields = fields_of(json.loads(response.content))
    assert fields.one("x-forwarded-for") == "127.0.0.1" and fields.one("x-forwarded-host") == client.host
    assert fields.one("x-forwarded-proto") == "http" and fields.one("x-real-ip") == "127.0.0.1"
    for gone in ("connection", "x-mine", "keep-alive"):
        assert gone not in fields, gone
    response = server.fetch(client.host, "/body?size=1000&chunked=1")
    assert response.content == Pattern(1000).bytes()
    assert response.fields.all("transfer-encoding") in (["chunked"], [])


def test_keep_alive_and_statuses(server, legacy, origin):
    client = legacy(origin).connected()
    with server.visitor(client.host) as visitor:
        for code in (204, 304, 200, 404, 500):
            visitor.request(f"/status?code={code}")
            response = visitor.response()
            assert response.status == code
            response.content  # pylint: disable=pointless-statement
        visitor.request("/body?size=99", "HEAD")
        assert visitor.response("HEAD").fields.one("content-length") == "99"
        visitor.request("/after")
        assert json.loads(visitor.response().content)["target"] == "/after"


@pytest.mark.parametrize("size", [0, 1, 65536, 5_000_000, LARGE], ids=str)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_uploads_in_few_frames(server, legacy, make_origin, size, chunked):
    """At most 31 data frames whatever the size, and none of 4 MiB, even while the service reads nothing at first."""
    gate = threading.Event()
    seen = []

    def handler(ex):
        if ex.request.method == "POST":
            gate.wait(20)
            seen.append(ex.body.digest())
        ex.reply("ok")

    client = legacy(make_origin(handler)).connected()
    pattern = Pattern(size, "legacy")
    with server.visitor(client.host, timeout=STEP * 3) as visitor:
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size))
        visitor.request("/up", "POST", [framing])
        errors = []

        def push():
            try:
                for piece in pattern:
                    visitor.send(chunk(piece) if chunked else piece)
                if chunked:
                    visitor.send(b"0\r\n\r\n")
            except Broken as error:
                errors.append(error)

        pusher = threading.Thread(target=push)
        pusher.start()
        if size < LARGE:
            pusher.join(STEP)
        else:
            assert server.fetch(client.host).text == "ok", "others go on"
        gate.set()
        pusher.join(STEP * 3)
        assert not errors
        assert visitor.response().content == b"ok"
    assert seen == [pattern.digest]
    assert client.overflowed == []
    assert max(client.frames_of.values()) <= SAFE_FRAMES + 1, client.frames_of  # 31 of data and the empty end


def test_trickling_upload_is_not_held_back(server, legacy, origin):
    """Coalescing ends after a pause: the service sees the first bytes before the visitor sends more."""
    client = legacy(origin).connected()
    with server.visitor(client.host) as visitor:
        visitor.request("/up", "POST", [("Content-Length", "20")])
        visitor.send(b"x" * 10)
        exchange = origin.wait_exchange()
        wait_until(lambda: exchange.body.size == 10, 3 * PACE, "the first bytes at the service")
        visitor.send(b"y" * 10)
        assert json.loads(visitor.response().content)["size"] == 20


@pytest.mark.first
def test_endless_trickle_stays_in_the_queue(server, legacy, make_origin):
    """Forty small writes with pauses, a service that reads nothing: still at most 31 frames."""
    gate = threading.Event()
    seen = []

    def handler(ex):
        gate.wait(40)
        seen.append(ex.body.read())
        ex.reply("ok")

    client = legacy(make_origin(handler)).connected()
    with server.visitor(client.host) as visitor:
        visitor.request("/up", "POST", [("Transfer-Encoding", "chunked")])
        for i in range(40):
            visitor.send(chunk(b"%04d" % i))
            time.sleep(0.22)  # the visitor's own rhythm, slower than the server's patience of 200 ms
        visitor.send(b"0\r\n\r\n")
        gate.set()
        assert visitor.response().content == b"ok"
    assert seen == [b"".join(b"%04d" % i for i in range(40))]
    assert client.overflowed == []


def test_body_of_a_get(server, legacy, origin):
    """It drops a GET's body unless the head says chunked; so the head says chunked."""
    client = legacy(origin).connected()
    seen = json.loads(server.fetch(client.host, "/", body=b"content").content)
    assert (seen["method"], seen["size"]) == ("GET", 7)


def test_more_open_bodies_than_it_can_take(make_server, make_origin):
    """257 uploads at once: the server counts, the last one gets 503, and the client drops none in silence."""
    server = make_server("--max-concurrent", "1000")
    user = server.user()
    client = LegacyClient(server.endpoint, user.token, make_origin().url, retry=False).connected()
    visitors = []
    for i in range(256):
        visitor = server.visitor(client.host)
        visitor.request(f"/{i}", "POST", [("Content-Length", "10")])
        visitor.send(b"01234")
        visitors.append(visitor)
    wait_until(lambda: len(client.frames_of) == 256, what="256 requests at the client")
    with server.visitor(client.host) as extra:
        extra.request("/extra", "POST", [("Content-Length", "10")])
        extra.send(b"01234")
        response = extra.response()
        assert (response.status, response.fields.one("kavilo-error")) == (503, "tunnel_busy")
    assert client.dropped == []
    for visitor in visitors:
        visitor.send(b"56789")
    for visitor in visitors:
        assert json.loads(visitor.response().content)["size"] == 10
        visitor.close()
    assert server.fetch(client.host).status == 200
    client.close()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_broken_upload_never_looks_complete(server, legacy, origin, chunked):
    """The visitor vanishes in the middle. Cancel would end the body as if complete; so the service sees a break or
    still waits, never an end."""
    client = legacy(origin, retry=True).connected()
    visitor = server.visitor(client.host)
    visitor.request("/up", "POST", [("Transfer-Encoding", "chunked") if chunked else ("Content-Length", "100")])
    visitor.send(chunk(b"x" * 50) if chunked else b"x" * 50)
    exchange = origin.wait_exchange()
    wait_until(lambda: exchange.body.size == 50, what="the beginning at the service")
    visitor.abort()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and not exchange.over:
        time.sleep(0.02)
    assert not exchange.body.complete
    wait_until(lambda: server.fetch(client.host).status == 200, 10 * PACE, "the tunnel serves")


def test_visitor_leaves_a_download(server, legacy, origin):
    """Cancel is ignored by it; what still comes is dropped, and the tunnel serves on."""
    client = legacy(origin).connected()
    visitor = server.visitor(client.host)
    visitor.request("/body?size=20000000")
    visitor.response().body.source.exactly(1000)
    visitor.abort()
    for _ in range(5):
        assert server.fetch(client.host).status == 200
    assert client.sessions == 1


def test_large_download(server, legacy, origin):
    client = legacy(origin).connected()
    pattern = Pattern(LARGE // 2, "d")
    response = server.visitor(client.host, timeout=STEP * 3)
    response.request(f"/body?size={pattern.size}&seed=d")
    assert response.response().body.digest() == pattern.digest
    response.close()


@pytest.mark.first
def test_one_stalled_visitor(server, legacy, origin):
    """No credit there: a visitor who reads nothing pauses the link for five seconds, then is given up, and the others
    are served again."""
    client = legacy(origin).connected()
    stalled = server.visitor(client.host, buffer_size=16384)
    stalled.request("/body?size=60000000")
    stalled.response()
    server.program.wait_log(15 * PACE, reason="visitor_slow")
    with server.visitor(client.host) as other:
        other.request("/body?size=3000000&seed=o")
        assert other.response().body.digest() == Pattern(3_000_000, "o").digest
    assert server.fetch(client.host, "/quick").status == 200
    with pytest.raises(Broken):
        while True:
            stalled.source.some()
    assert client.sessions == 1


def test_upgrade(server, legacy, origin):
    client = legacy(origin).connected()
    with server.visitor(client.host) as visitor:
        visitor.request("/upgrade", fields=[("Connection", "Upgrade"), ("Upgrade", "echo/1")])
        response = visitor.response()
        assert response.status == 101 and response.fields.one("upgrade") == "echo/1"
        for i in range(100):
            visitor.send(b"m%03d" % i)
            assert visitor.source.exactly(4) == b"M%03d" % i
        visitor.end()
        assert visitor.source.to_end() in (b"", b"BYE")


def test_upgraded_flood(server, legacy, make_origin):
    """Twenty writes through an upgrade whose service reads nothing for a while: the server does not make more frames of
    them than its 32-frame queue holds."""
    gate = threading.Event()
    got = []

    def handler(ex):
        ex.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        gate.wait(20)
        got.append(ex.connection.source.exactly(200_000))
        ex.send(b"done")
        ex.close()

    client = legacy(make_origin(handler)).connected()
    with server.visitor(client.host) as visitor:
        visitor.request("/raw", fields=[("Connection", "Upgrade"), ("Upgrade", "x")])
        assert visitor.response().status == 101
        data = Pattern(200_000).bytes()
        for at in range(0, len(data), 10_000):
            visitor.send(data[at : at + 10_000])
        gate.set()
        assert visitor.source.exactly(4) == b"done"
    assert got == [data] and client.overflowed == []


def test_service_down(server, legacy, make_origin):
    origin = make_origin()
    client = legacy(origin).connected()
    origin.close()
    response = server.fetch(client.host)
    assert (response.status, response.fields.one("kavilo-error")) == (502, "origin_refused")


@pytest.mark.parametrize("after", ["body", "chunk"])
def test_answer_that_breaks_off(server, legacy, origin, after):
    client = legacy(origin).connected()
    with server.visitor(client.host) as visitor:
        visitor.request(f"/die?after={after}")
        with pytest.raises(Broken):
            visitor.response().body.read()
    assert server.fetch(client.host).status == 200


def test_expect_continue_is_answered_by_the_server(server, legacy, origin):
    client = legacy(origin).connected()
    with server.visitor(client.host) as visitor:
        visitor.request("/up", "POST", [("Expect", "100-continue"), ("Content-Length", "5")])
        assert visitor.source.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        visitor.send(b"hello")
        assert json.loads(visitor.response().content)["size"] == 5


def test_name_conflict_and_failover(server, legacy, make_origin):
    first = legacy(make_origin(lambda ex: ex.reply("A")), name="laptop").connected()
    second = legacy(make_origin(lambda ex: ex.reply("B")), name="laptop", retry=True)
    wait_until(lambda: second.refusals, what="the refusal")
    assert second.refusals[0] == (6, "tunnel 'laptop' is already connected from another client")
    assert server.fetch(first.host).text == "A"
    first.close()
    second.connected()
    assert server.fetch(second.host).text == "B"


def test_takeover_by_ours(server, user, legacy, make_origin, make_client):
    """Our client takes the name of a deployed one, which reads Cancel as the end of its session and is then refused."""
    old = legacy(make_origin(lambda ex: ex.reply("old")), name="laptop", retry=True).connected()
    new = make_client(server, make_origin(lambda ex: ex.reply("new")), user.token, "--takeover", name="laptop")
    assert server.fetch(new.host).text == "new"
    wait_until(lambda: old.refusals, what="the old one is refused")
    assert server.fetch(new.host).text == "new"


def test_server_stop(server, legacy, origin):
    """It knows no Drain: its requests in flight finish, then its stream ends, and it comes back by itself."""
    client = legacy(origin, retry=True).connected()
    visitor = server.visitor(client.host).request("/wait")
    origin.wait_exchange()
    server.program.send_signal(signal.SIGTERM)
    origin.release.set()
    assert visitor.response().content == b"released"
    assert server.program.wait_exit() == 0
    server.again()
    client.connected(2)
    assert server.fetch(client.host).status == 200


# ---- a deployed server, our client ----


@pytest.fixture
def old_server():
    server = LegacyServer(tokens=("t" * 52,))
    yield server
    for session in server.sessions:
        assert session.unknown == [], f"frames that a deployed server cannot read: {session.unknown[:5]}"
    server.close()


@pytest.fixture
def session(old_server, origin, make_client):
    client = make_client(old_server.endpoint, origin, "t" * 52, name="laptop")
    made = old_server.session()
    made.client = client
    return made


def test_ours_at_a_deployed_server(session):
    assert session.client.host == "laptop-alice-7f0c.tnl.test"
    answer = session.request("GET", "/a?b=c").head()
    assert answer.status == 200 and json.loads(answer.body())["target"] == "/a?b=c"
    session.ping()


def test_ours_keeps_the_forwarding_fields_of_the_server(session):
    """The deployed server has set them; the client neither doubles nor removes them."""
    fields = fields_of(json.loads(session.request("GET", "/").head().body()))
    assert fields.one("x-forwarded-for") == "203.0.113.7"
    assert fields.one("x-forwarded-proto") == "https" and fields.one("x-forwarded-host") == "app.tnl.test"


def test_ours_uploads_without_credit(session):
    """A deployed server pushes as fast as it can: ours neither loses nor hoards it, however slow the service is."""
    pattern = Pattern(LARGE // 4, "u")
    done = []

    def push():
        done.append(session.request("POST", "/up", [("content-length", str(pattern.size))], pattern))

    pusher = threading.Thread(target=push)
    pusher.start()
    pusher.join(STEP * 3)
    seen = json.loads(done[0].head(STEP * 3).body())
    assert (seen["size"], seen["sha256"]) == (pattern.size, pattern.digest)


def test_ours_downloads_without_credit(session):
    pattern = Pattern(LARGE // 4, "d")
    answer = session.request("GET", f"/body?size={pattern.size}&seed=d").head()
    assert answer.value("content-length") == str(pattern.size)
    assert answer.body() == pattern.bytes()


def test_ours_sends_no_additions(session):
    """No interim heads, no trailers, no half-close, no Reset: the fixture fails on any frame it cannot read."""
    assert session.request("GET", "/interim").head().status == 200
    answer = session.request("GET", "/trailers", [("te", "trailers")]).head()
    assert answer.body() == b"body"
    assert session.request("GET", "/sse?n=3&gap=0.01").head().body() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_ours_upgrades_as_a_whole(session, origin):
    exchange = session.request("GET", "/upgrade", [("connection", "upgrade"), ("upgrade", "x")], upgrade=True).head()
    assert exchange.upgraded and exchange.status == 101
    exchange.send(b"hello")
    assert next(exchange.pieces()) == b"HELLO"
    exchange.end()
    wait_until(lambda: origin.last.over, what="the service's connection is closed")
    assert session.request("GET", "/after").head().status == 200


@pytest.mark.parametrize("path,code", [("/die?after=nothing", 0), ("/die?after=head", 0)])
def test_ours_reports_old_codes(session, path, code):
    assert session.request("GET", path).error().get("code", 0) == code


def test_ours_reports_refused_connections(old_server, make_origin, make_client):
    origin = make_origin()
    origin.close()
    make_client(old_server.endpoint, origin, "t" * 52)
    assert old_server.session().request("GET", "/x").error()["code"] == 1


def test_ours_never_completes_a_broken_answer(session):
    """Error, not end_stream, behind half an answer."""
    exchange = session.request("GET", "/die?after=body").head()
    assert exchange.status == 200
    assert exchange.error().get("code", 0) == 0


def test_ours_takes_cancel_for_an_abort(session, origin):
    exchange = session.request("POST", "/up", [("content-length", "100")], b"half", end=False)
    upload = origin.wait_exchange()
    wait_until(lambda: upload.body.size == 4, what="the beginning at the service")
    exchange.cancel()
    wait_until(lambda: upload.over, what="the service's connection is closed")
    assert not upload.body.complete
    assert session.request("GET", "/after").head().status == 200


def test_ours_comes_back_to_a_deployed_server(old_server, session):
    session.link.close()
    again = old_server.session(2, 10 * PACE)
    assert again.request("GET", "/x").head().status == 200


def test_ours_waits_for_a_name_at_a_deployed_server(old_server, session, make_origin, make_client):
    second = make_client(old_server.endpoint, make_origin(lambda ex: ex.reply("B")), "t" * 52, name="laptop", ready=False)
    wait_until(lambda: len(old_server.hellos) >= 3, 10 * PACE, "a second try")
    assert "tunnel 'laptop' is already connected from another client" in second.program.stderr()
    session.client.program.stop()
    second.wait_ready(seconds=15 * PACE)
    assert old_server.session(2).request("GET", "/").head().body() == b"B"


def test_ours_and_a_wrong_token_at_a_deployed_server(old_server, origin, make_client):
    client = make_client(old_server.endpoint, origin, "wrong", ready=False)
    assert client.program.wait_exit() == 1
    assert "invalid token" in client.program.stderr()
