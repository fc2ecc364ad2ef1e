"""Stopping in order, and logs that let two sides be compared."""

import json
import re
import signal
import time

import pytest

from harness import protobuf
from harness.http1 import Broken
from harness.settings import PACE, STEP
from harness.wait import stays, wait_until


@pytest.fixture
def path(make_server, make_origin, make_client):
    """path(grace) -> server, user, origin, client."""

    def make(grace="20s", name=None):
        server = make_server(grace=grace)
        user = server.user()
        origin = make_origin()
        return server, user, origin, make_client(server, origin, user.token, name=name)

    return make


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_ends_soon(path, number):
    """Nothing is in flight: it leaves a kept connection the moment for one last request, and is gone."""
    server, _, _, client = path()
    with server.visitor(client.host) as idle:
        idle.request()
        assert idle.response().content
        start = time.monotonic()
        assert server.program.stop(number) == 0
        assert time.monotonic() - start < 6 * PACE, "waited for nothing"
        assert idle.source.at_end()
    client.program.check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_finish(path, number):
    """No new connection, but what runs runs on: a waiting request, a download in the middle, an upload."""
    server, _, origin, client = path()
    waiting = server.visitor(client.host).request("/wait")
    origin.wait_exchange(1)
    loading = server.visitor(client.host, buffer_size=16384).request("/body?size=8000000")
    answer = loading.response()
    sending = server.visitor(client.host).request("/up", "POST", [("Content-Length", "10")])
    sending.send(b"01234")
    origin.wait_exchange(3)
    server.program.send_signal(number)
    wait_until(lambda: _refuses(server), what="new connections are refused")
    sending.send(b"56789")
    origin.release.set()
    assert json.loads(sending.response().content)["size"] == 10
    response = waiting.response()
    assert response.content == b"released"
    assert len(answer.content) == 8000000
    assert server.program.wait_exit() == 0


def _refuses(server):
    """True when nobody accepts on the edge port, or whoever does says 503."""
    try:
        with server.visitor("nobody.tnl.test", timeout=1) as visitor:
            visitor.request()
            return visitor.response().status == 503
    except (OSError, Broken):
        return True


def test_grace_ends(path):
    """A request that never ends is cut after the grace period, visibly, and the server leaves with 0."""
    server, _, origin, client = path(grace="1s")
    hanging = server.visitor(client.host).request("/hang")
    exchange = origin.wait_exchange()
    start = time.monotonic()
    server.program.send_signal(signal.SIGTERM)
    try:
        response = hanging.response()
        assert response.status in (502, 503) and response.fields.one("kavilo-error")
    except Broken:
        pass
    assert server.program.wait_exit() == 0
    assert 0.9 < time.monotonic() - start < 4 * PACE
    wait_until(lambda: exchange.over, what="the local service is freed")


def test_second_signal_ends_at_once(path):
    """Whoever presses Ctrl-C twice does not want to wait."""
    server, _, origin, client = path(grace="60s")
    visitor = server.visitor(client.host).request("/hang")
    origin.wait_exchange()
    server.program.send_signal(signal.SIGINT)
    wait_until(lambda: _refuses(server), what="the drain has begun")
    assert server.program.running()
    server.program.send_signal(signal.SIGINT)
    server.program.wait_exit(5 * PACE)
    visitor.close()


def test_keep_alive_ends_with_the_answer(path):
    """During a drain an answer says `Connection: close`, or the connection ends behind it."""
    server, _, origin, client = path()
    visitor = server.visitor(client.host).request("/wait")
    origin.wait_exchange()
    server.program.send_signal(signal.SIGTERM)
    wait_until(lambda: _refuses(server), what="the drain has begun")
    origin.release.set()
    response = visitor.response()
    assert response.content == b"released"
    assert visitor.source.at_end()
    assert server.program.wait_exit() == 0


def test_drain_is_announced(server, user):
    """Drain to those who know it, then the end of the stream; UNAVAILABLE to a newcomer."""
    ours = server.peer(user.token, features=protobuf.ALL_FEATURES, initial_credit=65536).connected()
    deployed = server.peer(user.token).connected()
    with server.visitor(ours.host) as visitor:
        visitor.request()
        request_id, _ = ours.request()
        assert ours.body(request_id) == b""
        server.program.send_signal(signal.SIGTERM)
        assert "grace_ms" in ours.expect("drain", 0)
        deployed.link.wait_over()
        ours.answer(request_id, 200, content=b"finished")
        assert visitor.response().content == b"finished"
    ours.link.wait_over()
    assert server.program.wait_exit() == 0


def test_clients_are_back_within_seconds(server, user, make_origin, make_client):
    clients = [make_client(server, make_origin(), user.token, name=f"n{i}") for i in range(4)]
    server.program.stop()
    start = time.monotonic()
    server.again()
    for client in clients:
        client.wait_ready(2, seconds=10 * PACE)
        assert server.fetch(client.host).status == 200
    assert time.monotonic() - start < 6 * PACE


# ---- the client ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_client_stops_in_order(server, user, origin, make_client, number):
    client = make_client(server, origin, user.token, name="laptop")
    host = client.host
    assert client.program.stop(number, 3 * PACE) == 0
    # At once: by the time the process has gone, or a moment later, the name is free.
    wait_until(lambda: server.fetch(host).status == 502, 1 * PACE, "the name is free")
    server.peer(user.token, "laptop").connected().close()


def test_client_that_is_stopped_while_it_waits(origin, make_client):
    """In the middle of its back-off, and in the middle of a dial that nobody answers."""
    client = make_client("http://127.0.0.1:1", origin, "x" * 52, ready=False)
    client.program.wait(lambda: client.program.stderr(), what="a failed try")
    assert client.program.stop(seconds=3 * PACE) in (0, 130, 143)


def test_client_stop_ends_requests_truthfully(server, tunnel, origin):
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/hang")
        exchange = origin.wait_exchange()
        tunnel.program.send_signal(signal.SIGTERM)
        try:
            response = visitor.response()
            assert response.status == 502
        except Broken:
            pass
        assert tunnel.program.wait_exit() == 0
        wait_until(lambda: exchange.over, what="the local service is freed")


# ---- logs ----


def lines_of(program):
    """Every line of its standard error as JSON."""
    found = []
    for line in program.stderr().splitlines():
        entry = json.loads(line)
        assert isinstance(entry, dict)
        found.append(entry)
    return found


def test_json_logs_are_json(server, tunnel):
    for target in ("/", "/die?after=head", '/"quoted"\\'):
        server.fetch(tunnel.host, target, fields=[("X-A", "\u00ff\u00fe")])
    tunnel.program.stop()
    server.program.stop()
    for program in (server.program, tunnel.program):
        lines = lines_of(program)
        assert lines
        for line in lines:
            assert line["level"] in ("debug", "info", "warn", "error") and line["message"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["time"])


def test_session_ids_match(server, tunnel):
    ids = {line["session"] for line in tunnel.program.log() if "session" in line}
    assert len(ids) == 1
    assert server.program.log(session=ids.pop())


def test_request_ids_match(server, tunnel):
    """One request, one id, in both logs and on the error page."""
    assert server.fetch(tunnel.host, "/needle-in-the-log").status == 200
    (line,) = tunnel.program.wait(lambda: tunnel.program.log(path=re.compile("needle")), what="the request in its log")
    assert server.program.log(request=line["request"])
    session = tunnel.program.log(message="tunnel up")[0]["session"]
    assert line["request"].startswith(session)
    failed = server.fetch(tunnel.host, "/die?after=nothing").fields.one("kavilo-request-id")
    for program in (server.program, tunnel.program):
        program.wait_log(request=failed)


def test_quiet_logs(make_server, make_origin, make_client):
    """At `error` a working tunnel says nothing at all; text is the default format."""
    server = make_server()
    user = server.user()
    client = make_client(server, make_origin(), user.token, level="error")
    assert server.fetch(client.host).status == 200
    stays(lambda: client.program.stderr() == "", 0.2, "an empty log")


def test_failures_say_what_for_whom_and_what_next(server, user, origin, make_client):
    """A lost server: the line names the endpoint, the reason and the next try."""
    client = make_client(server, origin, user.token)
    server.program.kill()
    line = client.program.wait(lambda: client.program.log(level=re.compile("warn|error")), STEP, "a line")[0]
    text = json.dumps(line)
    assert re.search(r"\b(again|retry|retrying|redial\w*|reconnect\w*|next try)\b", text), text
    assert any(isinstance(v, int) for k, v in line.items() if k.endswith("_ms")), "says when"
