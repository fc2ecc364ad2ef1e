"""kavilo-tunnel against a scripted server: its Hello, its frames, its obedience to credit, and its way with trouble."""

import json
import re
import signal
import threading

import pytest

from harness import protobuf
from harness.http1 import Pattern
from harness.scripted import ScriptedServer
from harness.settings import MiB, PACE
from harness.wait import wait_until

TOKEN = "t" * 52


@pytest.fixture
def scripted():
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def session(scripted, origin, make_client):
    """A welcomed client with the usual service; session.client is the program."""
    client = make_client(scripted.endpoint, origin, TOKEN, name="app", ready=False)
    welcomed = scripted.next().welcome()
    client.wait_ready()
    welcomed.client = client
    return welcomed


def value(head, name):
    return next((v for n, v in protobuf.pairs(head.get("headers")) if n == name), None)


# ---- opening ----


def test_hello(scripted, origin, make_client):
    make_client(scripted.endpoint, origin, TOKEN, name="app", ready=False)
    first = scripted.next()
    assert first.hello["token"] == TOKEN and first.hello["name"] == "app"
    assert re.fullmatch(r"\d+\.\d+\.\d+", first.hello["client_version"])
    assert first.hello["features"] & protobuf.ALL_FEATURES == protobuf.ALL_FEATURES
    assert first.hello["initial_credit"] > 0
    assert len(first.hello["instance_id"]) == 16
    assert not first.hello.get("takeover")
    fields = dict(first.link.headers)
    assert (fields[":method"], fields[":path"]) == ("POST", "/kavilo.tunnel.v1.Tunnel/Open")
    assert fields["te"] == "trailers" and fields["content-type"].startswith("application/grpc")
    assert "authorization" not in fields, "the token is in Hello"


def test_hello_of_a_random_name(scripted, origin, make_client):
    make_client(scripted.endpoint, origin, TOKEN, ready=False)
    assert "name" not in scripted.next().hello


def test_takeover_is_asked_for_once(scripted, origin, make_client):
    """An evicted client that reconnects by itself must not fight for the name."""
    make_client(scripted.endpoint, origin, TOKEN, "--takeover", name="app", ready=False)
    first = scripted.next()
    assert first.hello["takeover"] is True
    first.welcome()
    first.send(cancel={"reason": 55})
    first.end(6, "taken over")
    second = scripted.next()
    assert not second.hello.get("takeover")
    assert second.hello["instance_id"] == first.hello["instance_id"], "one process, one instance id"


def test_three_lines_come_from_welcome(scripted, origin, make_client):
    client = make_client(scripted.endpoint, origin, TOKEN, name="app", ready=False)
    session = scripted.next()
    client.program.check()
    assert client.program.stdout() == ""
    session.welcome()
    client.wait_ready()
    assert client.program.stdout() == (
        "  kavilo-tunnel ready\n"
        "  public URL: https://app-alice-7f0c.tnl.test/\n"
        f"  forwarding to: {origin.url}\n"
    )


@pytest.mark.parametrize("status", [7, 3])
def test_refusals_that_do_not_heal(scripted, origin, make_client, status):
    client = make_client(scripted.endpoint, origin, TOKEN, name="app", ready=False)
    scripted.next().refuse(status, "a%20reason%2C said clearly")
    assert client.program.wait_exit() not in (0, 2)
    assert "a reason, said clearly" in client.program.stderr()
    assert client.program.stdout() == ""


@pytest.mark.parametrize("status", [6, 14, 4, 8, 13, 2, 1])
def test_refusals_that_may_heal(scripted, origin, make_client, status):
    client = make_client(scripted.endpoint, origin, TOKEN, name="app", ready=False)
    scripted.next().refuse(status, "not now")
    scripted.next(5 * PACE).welcome()
    client.wait_ready()
    assert "not now" in client.program.stderr()


def test_control_bytes_of_a_server_do_not_reach_the_terminal(scripted, origin, make_client):
    client = make_client(scripted.endpoint, origin, TOKEN, name="app", ready=False)
    scripted.next().refuse(7, "%1B%5B2Jcleared%0Aforged line")
    client.program.wait_exit()
    assert "\x1b" not in client.program.stderr() and "\nforged" not in client.program.stderr()


@pytest.mark.parametrize("url", ["https://x.test/\n  forged", "https://x.test/\x1b[2J", "", "x" * 100_000])
def test_strange_public_urls(scripted, origin, make_client, url):
    """A server's words are not printed with control bytes in them."""
    client = make_client(scripted.endpoint, origin, TOKEN, name="app", ready=False)
    scripted.next().welcome(public_url=url)
    wait_until(lambda: client.program.stdout() or client.program.stderr().count("\n") > 3 or not scripted.tries.empty(),
               what="a reaction")
    assert "\x1b" not in client.program.stdout() and "\n  forged" not in client.program.stdout()
    client.program.check()


# ---- requests ----


def test_get(session):
    head, body, _ = session.answer(session.request("GET", "/a?b", [("x-one", "1"), ("x-one", "2")]))
    seen = json.loads(body)
    assert head["status"] == 200 and (seen["method"], seen["target"]) == ("GET", "/a?b")
    assert ["host", "app.tnl.test"] in [[n.lower(), v] for n, v in seen["fields"]]
    assert [v for n, v in seen["fields"] if n.lower() == "x-one"] == ["1", "2"]
    names = [n for n, _ in protobuf.pairs(head["headers"])]
    assert names == [n.lower() for n in names]
    assert "transfer-encoding" not in names and "connection" not in names


def test_upload_and_credit(session):
    """What the client grants is enough to go on, and never more than a service takes."""
    pattern = Pattern(2_000_000)
    data = pattern.bytes()
    credit = session.hello["initial_credit"]
    request_id = session.request("POST", "/up", [("content-length", str(len(data)))], end=False)
    sent = 0
    while sent < len(data):
        while sent < min(credit, len(data)):
            piece = data[sent : min(sent + 16384, credit)]
            session.send(request_id, data={"data": piece})
            sent += len(piece)
        if sent < len(data):
            credit += session.expect("credit", request_id)["bytes"]
    session.send(request_id, data={"end_stream": True})
    _, body, _ = session.answer(request_id)
    assert json.loads(body)["sha256"] == pattern.digest


def test_download_obeys_credit(scripted, origin, make_client):
    client = make_client(scripted.endpoint, origin, TOKEN, ready=False)
    session = scripted.next().welcome(initial_credit=1000)
    client.wait_ready()
    whole = Pattern(50_000).bytes()
    request_id = session.request("GET", "/body?size=50000")
    assert session.expect("response_head", request_id)["status"] == 200
    got = b""
    for step in (1000, 1, 30_000, 18_999):
        want = len(got) + step
        if step != 1000:
            session.send(request_id, credit={"bytes": step})
        while len(got) < want:
            data = session.expect("data", request_id)
            got += data.get("data", b"")
        assert len(got) == want
        if want < 50_000:
            session.quiet(0.15)
    assert got == whole
    assert data.get("end_stream") or session.expect("data", request_id) == {"end_stream": True}


def test_stalled_download_stalls_nobody_else(session):
    """No credit for one answer: others go on, and the service of the stalled one is held back, not read empty."""
    stalled = session.request("GET", "/body?size=50000000")
    session.expect("response_head", stalled)
    got = 0
    while got < 65536:
        got += len(session.expect("data", stalled)["data"])
    before = session.client.program.rss()
    for _ in range(5):
        head, _, _ = session.answer(session.request("GET", "/quick"))
        assert head["status"] == 200
    assert session.client.program.rss() - before < 8 * MiB
    session.send(stalled, reset={"code": 32})


def test_trailers_and_interims(session):
    request_id = session.request("GET", "/interim")
    assert session.expect("response_head", request_id)["status"] == 103
    assert session.expect("response_head", request_id)["status"] == 102
    head, body, _ = session.answer(request_id)
    assert (head["status"], body) == (200, b"final")
    head, body, trailers = session.answer(session.request("GET", "/trailers", [("te", "trailers")]))
    assert body == b"body" and trailers == [("x-check", "abc"), ("x-other", "d e f")]


def test_request_trailers(session):
    request_id = session.request("POST", "/up", body=b"data", end=False)
    session.send(request_id, trailers={"headers": protobuf.headers([("x-sum", "7")])})
    _, body, _ = session.answer(request_id)
    assert [[n.lower(), v] for n, v in json.loads(body)["trailers"]] == [["x-sum", "7"]]


def test_half_close_of_an_upgrade(session):
    fields = [("connection", "upgrade"), ("upgrade", "echo/1")]
    request_id = session.request("GET", "/upgrade", fields, end=False, is_upgrade=True)
    head = session.expect("response_head", request_id)
    assert head["status"] == 101 and head["upgraded"] and value(head, "upgrade") == "echo/1"
    session.send(request_id, data={"data": b"abc"})
    assert session.expect("data", request_id)["data"] == b"ABC"
    session.send(request_id, data={"end_stream": True})
    got, ended = b"", False
    while not ended:
        frame = session.receive()
        if "credit" in frame:
            continue
        got += frame["data"].get("data", b"")
        ended = frame["data"].get("end_stream", False)
    assert got == b"BYE"


@pytest.mark.parametrize("how", ["reset", "cancel"])
def test_visitor_gone(session, origin, how):
    """The local service's connection is closed, whatever the service is doing."""
    waiting = session.request("GET", "/hang")
    sending = session.request("POST", "/up", [("content-length", "100")], body=b"x" * 10, end=False)
    loading = session.request("GET", "/body?size=50000000")
    wait_until(lambda: len(origin.exchanges) == 3, what="three requests at the service")
    for request_id in (waiting, sending, loading):
        session.send(request_id, **{how: {"code": 32} if how == "reset" else {"reason": 1}})
    wait_until(lambda: all(ex.over for ex in origin.exchanges), what="the service is freed")
    upload = next(ex for ex in origin.exchanges if ex.path == "/up")
    assert not upload.body.complete and upload.error is not None
    while session.link.messages:
        session.receive()
    head, _, _ = session.answer(session.request("GET", "/after"))
    assert head["status"] == 200


@pytest.mark.parametrize(
    "path,codes",
    [("/die?after=nothing", (18,)), ("/die?after=head", (18, 19)), ("/die?after=body", (18,)), ("/die?after=chunk", (18,))],
)
def test_error_codes_of_a_dying_service(session, path, codes):
    session.request("GET", path)
    while True:
        frame = session.receive()
        assert not frame.get("data", {}).get("end_stream"), "a broken answer was ended as if complete"
        failed = frame.get("error") or frame.get("reset")
        if failed:
            assert failed["code"] in codes
            break


def test_error_code_of_an_absent_service(scripted, make_origin, make_client):
    origin = make_origin()
    origin.close()
    client = make_client(scripted.endpoint, origin, TOKEN, ready=False)
    session = scripted.next().welcome()
    client.wait_ready()
    session.request("GET", "/")
    frame = session.receive()
    frame = frame.get("error") or frame.get("reset")
    assert frame["code"] == 1 and len(frame.get("message", "")) <= 1024


# ---- trouble ----


def wrong_head(**changes):
    head = {"method": "GET", "path": "/", "headers": protobuf.headers([("host", "h")]), "remote_addr": "203.0.113.7:1"}
    head.update(changes)
    return head


@pytest.mark.parametrize(
    "head",
    [
        wrong_head(method="GE T"),
        wrong_head(method=""),
        wrong_head(method="GET / HTTP/1.1\r\nx: y"),
        wrong_head(path="/ HTTP/1.1\r\nx-injected: 1"),
        wrong_head(path="nopath"),
        wrong_head(path=""),
        wrong_head(path="/a b"),
        wrong_head(headers=protobuf.headers([("host", "h"), ("x", "a\r\nx-injected: 1")])),
        wrong_head(headers=protobuf.headers([("host", "h"), ("x\r\nx-injected", "1")])),
        wrong_head(headers=protobuf.headers([("host", "h"), ("host", "i")])),
        wrong_head(headers=protobuf.headers([("host", "h"), ("content-length", "1"), ("content-length", "2")])),
        wrong_head(headers=protobuf.headers([("host", "h"), ("content-length", "x")])),
        wrong_head(headers=protobuf.headers([("host", "h")] + [("x", "y")] * 5000)),
        wrong_head(is_upgrade=True),
    ],
    ids=lambda h: str({k: v for k, v in h.items() if v != wrong_head().get(k)}).replace(" ", "")[:60],
)
def test_request_heads_that_cannot_be(session, origin, head):
    """Not even a compromised server can smuggle bytes to the local service; the session goes on."""
    session.next_id = 2
    session.send(1, request_head=head)
    session.send(1, data={"end_stream": True})
    frame = session.receive()
    assert frame["request_id"] == 1 and ("error" in frame or "reset" in frame), frame
    head, _, _ = session.answer(session.request("GET", "/after"))
    assert head["status"] == 200
    assert [ex.request.target for ex in origin.exchanges] == ["/after"]


def test_framing_fields_are_the_clients_own(session, origin):
    """transfer-encoding and connection of a wire head are not written through to the service."""
    fields = [("transfer-encoding", "gzip"), ("connection", "close, x-mine"), ("x-mine", "1"), ("keep-alive", "5")]
    _, body, _ = session.answer(session.request("POST", "/up", fields, body=b"abc"))
    assert json.loads(body)["size"] == 3
    request = origin.last.request
    assert request.fields.get("transfer-encoding") in (None, "chunked")
    assert "keep-alive" not in request.fields


@pytest.mark.parametrize(
    "frame",
    [
        {"data": {"data": b"x"}},
        {"data": {"end_stream": True}},
        {"cancel": {"reason": 1}},
        {"reset": {"code": 1}},
        {"credit": {"bytes": 5}},
        {"trailers": {}},
    ],
    ids=lambda f: next(iter(f)),
)
def test_frames_of_unknown_requests(session, frame):
    session.send(4711, **frame)
    session.next_id = 5000
    head, _, _ = session.answer(session.request("GET", "/after"))
    assert head["status"] == 200


def test_more_than_its_credit(session, origin):
    """A server that sends more than was granted: the request is reset, the session and the memory are not touched."""
    gate = threading.Event()
    origin.handler = lambda ex: (gate.wait(20), ex.close())
    request_id = session.request("POST", "/slow", [("content-length", "100000000")], end=False)
    for _ in range(400):  # far over the largest window and what the sockets behind it hold
        session.send(request_id, data={"data": b"x" * 65536})
    try:
        while True:
            frame = session.receive()
            if "reset" in frame:
                assert frame["request_id"] == request_id and frame["reset"]["code"] == 49
                break
            assert "credit" in frame, frame
    finally:
        gate.set()
    origin.handler = lambda ex: ex.reply("ok")
    head, _, _ = session.answer(session.request("GET", "/after"))
    assert head["status"] == 200


@pytest.mark.parametrize("message", [b"\xff" * 50, b"\x12"], ids=["garbage", "cut"])
def test_garbage_from_the_server_ends_the_session(scripted, session, message):
    session.link.send_message(message)
    session.link.wait_over()
    assert scripted.next(5 * PACE).hello["name"] == "app"
    session.client.program.check()


def test_compressed_message_ends_the_session(scripted, session):
    session.link.send_message(b"\x32\x00", compressed=1)
    session.link.wait_over()
    scripted.next(5 * PACE)
    session.client.program.check()


def test_ping_is_answered(session):
    session.send(ping={"nonce": 42})
    assert session.expect("pong", 0) == {"nonce": 42}
    session.link.h2_ping()
    session.link.wait(lambda: session.link.pings_acked, what="the ack of an HTTP/2 PING")


def test_drain_opens_a_second_session(scripted, session, origin):
    """Drain: a new session at once, by the same name and instance; the old one finishes what it has."""
    waiting = session.request("GET", "/wait")
    origin.wait_exchange()
    session.send(drain={"grace_ms": 20000})
    second = scripted.next(5 * PACE)
    assert second.hello["instance_id"] == session.hello["instance_id"] and second.hello["name"] == "app"
    second.welcome()
    head, _, _ = second.answer(second.request("GET", "/new"))
    assert head["status"] == 200
    assert not session.link.over, "the old session is still there"
    origin.release.set()
    head, body, _ = session.answer(waiting)
    assert body == b"released"
    session.end(14, "restarting")
    head, _, _ = second.answer(second.request("GET", "/newer"))
    assert head["status"] == 200


def test_stop_is_orderly(session):
    """SIGTERM: the stream is ended, not left to a time-out."""
    session.client.program.send_signal(signal.SIGTERM)
    session.link.wait(lambda: session.link.ended or session.link.reset is not None or session.link.closed,
                      what="the end of the stream")
    assert session.client.program.wait_exit() == 0


@pytest.mark.first
def test_dead_server_is_left(scripted, origin, make_client):
    """A server that answers neither PING nor Ping is dead within 15 s or so: the client dials again."""
    client = make_client(scripted.endpoint, origin, TOKEN, name="app", ready=False)
    session = scripted.next().welcome()
    client.wait_ready()
    with session.link.lock:
        again = scripted.next(25 * PACE)
        assert again.arrived - session.arrived > 4
    again.welcome()
    client.wait_ready(2)
