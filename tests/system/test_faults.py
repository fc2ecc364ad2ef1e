"""Something breaks: the local service, the visitor, the client, or whoever writes garbage. The truth is told, the rest
goes on."""

import random
import socket
import threading
import time

import pytest

from harness import h2visitor
from harness.http1 import Broken, Pattern
from harness.origin import Origin
from harness.protobuf import CLOCKS
from harness.settings import PACE, STEP
from harness.tunnel import host_port
from harness.wait import wait_until


def error_of(response):
    response.content  # pylint: disable=pointless-statement
    return response.status, response.fields.get("kavilo-error")


# ---- the local service ----


def test_service_down_and_back(server, user, make_origin, make_client):
    """502 while nobody listens, and no reason for the client to end; when it is back, so are the answers."""
    origin = make_origin()
    client = make_client(server, origin, user.token)
    assert server.fetch(client.host).status == 200
    origin.close()
    for _ in range(3):
        assert error_of(server.fetch(client.host)) == (502, "origin_refused")
    again = make_origin(port=origin.port)
    assert server.fetch(client.host).status == 200
    assert len(again.exchanges) == 1
    assert len(client.ready) == 1


def test_service_down_from_the_start(server, user, make_origin, make_client):
    origin = make_origin()
    origin.close()
    client = make_client(server, origin, user.token)
    response = server.fetch(client.host)
    assert error_of(response) == (502, "origin_refused")
    assert "local service" in response.text


def test_service_down_refuses_an_upload_at_once(server, user, make_origin, make_client):
    origin = make_origin()
    origin.close()
    client = make_client(server, origin, user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/up", "POST", [("Content-Length", "100000000")])
        visitor.send(b"x" * 100)
        assert error_of(visitor.response()) == (502, "origin_refused")


def test_unknown_service_host(server, user, make_client):
    client = make_client(server, "http://no-such-host.invalid:80", user.token)
    status, code = error_of(server.fetch(client.host))
    assert (status, code) == (502, "origin_unreachable")


@pytest.mark.first
def test_service_that_accepts_no_connection(server, user, make_client):
    """A full backlog: SYNs are dropped, the connect times out, 504."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    address = listener.getsockname()
    fillers = []
    for _ in range(8):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(address)
        fillers.append(filler)
    client = make_client(server, f"http://127.0.0.1:{address[1]}", user.token)
    with server.visitor(client.host, timeout=25 * PACE) as visitor:
        visitor.request()
        assert error_of(visitor.response()) == (504, "origin_connect_timeout")
    for filler in fillers:
        filler.close()
    listener.close()


@pytest.mark.parametrize("abort", ["", "&abort=1"], ids=["fin", "reset"])
@pytest.mark.parametrize("after", ["nothing", "head"])
def test_service_closes_before_its_answer(server, tunnel, after, abort):
    assert error_of(server.fetch(tunnel.host, f"/die?after={after}{abort}")) == (502, "origin_closed")
    assert server.fetch(tunnel.host).status == 200


@pytest.mark.parametrize("abort", ["", "&abort=1"], ids=["fin", "reset"])
@pytest.mark.parametrize("after", ["body", "chunk"])
def test_service_closes_inside_its_answer(server, tunnel, after, abort):
    """The visitor gets what there was and an end that is visibly none."""
    with server.visitor(tunnel.host) as visitor:
        visitor.request(f"/die?after={after}{abort}")
        try:
            response = visitor.response()
        except Broken:
            return  # a reset may overtake the little there was
        if response.status == 502:
            assert abort
            return
        assert response.status == 200
        with pytest.raises(Broken):
            response.body.read()
        assert response.body.size <= 505 and not response.body.complete
    assert server.fetch(tunnel.host).status == 200


def test_service_that_closes_idle_connections(server, user, make_origin, make_client):
    """A pooled connection that the service has closed meanwhile is no visitor's problem."""
    origin = make_origin()
    client = make_client(server, origin, user.token)
    for i in range(5):
        assert server.fetch(client.host).status == 200
        for connection in origin.connections:
            connection.close()
        wait_until(lambda: origin.open == 0, what=f"round {i}: all local connections are closed")


def answer_once(ex):
    """Answers a connection's first request, and closes it when another comes."""
    if ex.number > 1:
        ex.close()
    else:
        ex.reply("fine")


def test_service_that_closes_when_the_request_arrives(server, user, make_origin, make_client):
    """The race of keep-alive: a reused connection dies under a request. A GET is tried again, a POST is not."""
    served = []

    def handler(ex):
        served.append(ex.request.method)
        answer_once(ex)

    client = make_client(server, make_origin(handler), user.token)
    for _ in range(4):
        assert server.fetch(client.host).text == "fine"
    posts = 0
    for _ in range(4):
        response = server.fetch(client.host, method="POST", body=b"x")
        assert error_of(response) in ((200, None), (502, "origin_closed"))
        posts += 1
    assert served.count("POST") == posts, "a POST was sent twice"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_body_that_died_with_a_reused_connection(server, user, make_origin, make_client, method):
    """PUT and DELETE may be repeated, but not without the body that has left already."""
    bodies = []

    def handler(ex):
        if ex.request.method == method:
            bodies.append(b"".join(ex.body))
        answer_once(ex)

    client = make_client(server, make_origin(handler), user.token)
    for _ in range(4):
        assert server.fetch(client.host).text == "fine"
        assert error_of(server.fetch(client.host, method=method, body=b"hello")) in ((200, None), (502, "origin_closed"))
    assert set(bodies) == {b"hello"}


def test_hanging_service_and_leaving_visitor(server, tunnel, origin):
    """The local service notices that nobody waits any more."""
    for _ in range(3):
        visitor = server.visitor(tunnel.host)
        visitor.request("/hang")
        count = len(origin.exchanges)
        exchange = origin.wait_exchange(max(1, count))
        visitor.abort()
        wait_until(lambda ex=exchange: ex.over, what="the local service's connection is closed")


def test_slow_service(server, user, origin, make_client):
    """No answer within --response-timeout: 504, the service's connection is closed, whose side it is."""
    client = make_client(server, origin, user.token, "--response-timeout", "700ms")
    with server.visitor(client.host) as visitor:
        start = time.monotonic()
        visitor.request("/hang")
        status, code = error_of(visitor.response())
        assert (status, code) == (504, "origin_timeout")
        assert 0.6 < time.monotonic() - start < 3 * PACE
        wait_until(lambda: origin.last.over, what="the local service is freed")
        visitor.request("/sse?n=4&gap=0.4")
        assert visitor.response().content.count(b"data") == 4, "an answer that has begun may take its time"


@pytest.mark.first
def test_client_that_never_answers(make_server):
    """A moment later than the time that it told: 504 on the tunnel's side."""
    server = make_server()
    peer = server.peer(server.user().token, features=31 | CLOCKS, initial_credit=65536, response_timeout_ms=100).connected()
    with server.visitor(peer.host, timeout=20 * PACE) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        assert error_of(visitor.response()) == (504, "client_timeout")
        assert peer.body(request_id) == b""
        assert peer.expect("reset", request_id)["code"] == 54
    peer.close()


@pytest.mark.parametrize("client_waits", ["0", "1m"])
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_server_with_a_clock_of_its_own(make_server, make_client, origin, client_waits, version):
    """The operator's --response-timeout counts whatever the client allows, and the 504 says that it is the server's."""
    server = make_server("--response-timeout", "300ms")
    client = make_client(server, origin, server.user().token, "--response-timeout", client_waits)
    if version == "2":
        (status, fields, _, _), = h2visitor.fetch(server.edge, client.host, ["/hang"])
        assert (status, fields["kavilo-error"], fields["kavilo-error-side"]) == (504, "server_timeout", "server")
    else:
        with server.visitor(client.host) as visitor:
            visitor.request("/hang")
            response = visitor.response()
            assert error_of(response) == (504, "server_timeout")
            assert response.fields.one("kavilo-error-side") == "server"
    wait_until(lambda: origin.last.over, what="the local service is freed")


def test_client_of_the_first_generation_has_the_servers_clock(make_server):
    server = make_server("--response-timeout", "300ms")
    peer = server.peer(server.user().token).connected()
    with server.visitor(peer.host) as visitor:
        visitor.request()
        assert error_of(visitor.response()) == (504, "server_timeout")
    peer.close()


# ---- the visitor ----


@pytest.mark.parametrize("abrupt", [False, True], ids=["fin", "reset"])
def test_visitor_gone_in_a_download(server, tunnel, origin, abrupt):
    visitor = server.visitor(tunnel.host)
    visitor.request("/body?size=500000000")
    visitor.response().body.source.exactly(100_000)
    exchange = origin.last
    if abrupt:
        visitor.abort()
    else:
        visitor.close()
    wait_until(lambda: exchange.over, what="the local service notices")
    assert exchange.error is not None


@pytest.mark.parametrize("framing", [("Content-Length", "1000000"), ("Transfer-Encoding", "chunked")], ids=["length", "chunked"])
@pytest.mark.parametrize("abrupt", [False, True], ids=["fin", "reset"])
def test_visitor_gone_in_an_upload(server, tunnel, origin, framing, abrupt):
    """The local service sees a broken connection, never a body that looks complete."""
    visitor = server.visitor(tunnel.host)
    visitor.request("/up", "POST", [framing])
    visitor.send(b"x" * 1000 if framing[0] == "Content-Length" else b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    exchange = origin.wait_exchange()
    wait_until(lambda: exchange.body.size == 1000, what="the beginning at the local service")
    if abrupt:
        visitor.abort()
    else:
        visitor.close()
    wait_until(lambda: exchange.over, what="the local service notices")
    assert exchange.error is not None and not exchange.body.complete


def test_visitor_gone_is_no_error_in_the_log(server, tunnel, origin):
    visitor = server.visitor(tunnel.host)
    visitor.request("/hang")
    exchange = origin.wait_exchange()
    visitor.abort()
    wait_until(lambda: exchange.over, what="the local service notices")
    for program in (server.program, tunnel.program):
        loud = program.log(level="error") + program.log(level="warn")
        loud = [line for line in loud if "base host" not in str(line).lower() and "suffix" not in str(line).lower()]
        assert loud == []


# ---- the client ----


def test_client_killed_in_a_download(server, tunnel):
    """Never a complete-looking answer."""
    answers = []
    for framing in ("", "&chunked=1"):
        visitor = server.visitor(tunnel.host)
        visitor.request(f"/body?size=500000000{framing}")
        answers.append(visitor.response().body)
    readers = [iter(body) for body in answers]
    for reader in readers:
        assert next(reader)
    tunnel.program.kill()
    for body, reader in zip(answers, readers):
        with pytest.raises(Broken):
            for _ in reader:
                pass
        assert not body.complete


def test_client_killed_before_the_answer(server, tunnel, origin):
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/hang")
        origin.wait_exchange()
        tunnel.program.kill()
        response = visitor.response()
        assert error_of(response) == (502, "client_gone")
        visitor.request("/after")
        assert error_of(visitor.response()) == (502, "no_tunnel")


def test_client_killed_in_an_upload(server, tunnel, origin):
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/up", "POST", [("Content-Length", "1000000")])
        visitor.send(b"x" * 1000)
        exchange = origin.wait_exchange()
        tunnel.program.kill()
        try:
            assert error_of(visitor.response()) == (502, "client_gone")
        except Broken:
            pass
        wait_until(lambda: exchange.over, what="the local service notices")
        assert not exchange.body.complete


def test_server_killed_with_traffic(server, user, origin, make_client):
    """kill -9 of the server under load: the local service's work is freed, the client comes back, nothing is wrong."""
    client = make_client(server, origin, user.token, name="laptop")
    visitors = [server.visitor(client.host).request("/hang") for _ in range(5)]
    wait_until(lambda: len(origin.exchanges) == 5, what="five requests at the service")
    server.program.kill()
    for visitor in visitors:
        assert visitor.source.at_end()
    wait_until(lambda: all(ex.over for ex in origin.exchanges), what="the local service is freed")
    server.again()
    client.wait_ready(2, seconds=15 * PACE)
    assert server.fetch(client.host).status == 200


def test_many_rounds_of_kill(server, user, origin, make_client):
    """Clients come, carry and are killed: the server holds nothing of them afterwards."""
    host = None
    for _ in range(3):
        client = make_client(server, origin, user.token)
        host = client.host
        with server.visitor(client.host) as visitor:
            visitor.request("/hang")
            client.program.kill()
            assert error_of(visitor.response()) in ((502, "client_gone"), (502, "no_tunnel"))
    wait_until(lambda: server.fetch(host).status == 502, what="the last one is gone")
    baseline = server.program.descriptors()
    for _ in range(5):
        client = make_client(server, origin, user.token)
        assert server.fetch(client.host).status == 200
        client.program.kill()
    wait_until(lambda: server.program.descriptors() <= baseline, what=f"{baseline} descriptors again")


# ---- garbage ----

GARBAGE = {
    "nothing": b"",
    "zeros": b"\0" * 70000,
    "ones": b"\xff" * 70000,
    "lines": b"\r\n" * 30000,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "h2-preface-only": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "h2-preface-cut": b"PRI * HTTP/2.0\r\n\r\nS",
    "h2-garbage": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 5000,
    "h2-huge-frame": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + b"x" * 100_000,
    "h2-bad-settings": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x05\x04\x00\x00\x00\x00\x00abcde",
    "h2-data-on-0": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\1\0\0\0\0\0\0x",
    "h2-bad-hpack": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\4\1\5\0\0\0\1\xff\xff\xff\xff",
    "h2-continuation-flood": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\1\1\0\0\0\0\1\x82"
    + b"\0\0\1\x09\0\0\0\0\1\x82" * 20000,
    "h2-ping-flood": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x08\x06\0\0\0\0\0abcdefgh" * 30000,
    "h2-settings-flood": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" * 30000,
    "h2-rapid-reset": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
    + b"".join(b"\0\0\4\1\5" + i.to_bytes(4, "big") + b"\x82\x84\x86\x87" + b"\0\0\4\3\0" + i.to_bytes(4, "big")
               + b"\0\0\0\x08" for i in range(1, 20001, 2)),
    "half-head": b"GET / HTTP/1.1\r\nHost: x",
    "long-line": b"GET /" + b"a" * 200_000,
    "random": random.Random(7).randbytes(200_000),
}


@pytest.mark.parametrize("port", ["edge", "control", "admin"])
@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_on_any_port(shared_server, shared_tunnel, shared_user, port, what):
    """Whoever writes it is disconnected or waits for his deadline; the process and the others do not notice."""
    address = getattr(shared_server, port)
    if address is None:
        pytest.skip("the server has no admin listener")
    with socket.create_connection(address, timeout=STEP) as sock:
        sock.settimeout(0.3)
        try:
            sock.sendall(GARBAGE[what])
            sock.recv(65536)
        except OSError:
            pass
        assert shared_server.fetch(shared_tunnel.host).status == 200
        shared_server.peer(shared_user.token).connected().close()


def test_garbage_from_the_server(programs, make_client, origin):
    """A control port that is something else: the client says so and goes on trying; it does not fall over."""
    for data in (b"SSH-2.0-x\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\x04\0\0\0\0\0" + b"\xff" * 1000, b""):
        service = Origin(raw=lambda connection, d=data: (connection.sock.sendall(d), connection.close()))
        client = make_client(f"http://127.0.0.1:{service.port}", origin, "x" * 52, ready=False)
        wait_until(lambda s=service: len(s.connections) >= 2, 10 * PACE, "a second try")
        client.program.check()
        assert client.program.stderr()
        client.program.stop()
        service.close()


def test_half_open_crowd(server, tunnel):
    """500 connections that say nothing: the next visitor is served at once."""
    crowd = [socket.create_connection(server.edge, timeout=STEP) for _ in range(500)]
    start = time.monotonic()
    assert server.fetch(tunnel.host).status == 200
    assert time.monotonic() - start < 2 * PACE
    for sock in crowd:
        sock.close()
    wait_until(lambda: server.program.descriptors() < 100, what="their descriptors are free again")


def test_database_file_lost(server, tunnel):
    """The store goes away under a running server: live tunnels serve on."""
    server.database_file.unlink()
    for _ in range(5):
        assert server.fetch(tunnel.host).status == 200


def test_visitors_during_reconnects(server, user, origin, make_client):
    """A visitor polling while clients come and go gets right answers or clear errors, never a hang, never a mix-up."""
    stop = threading.Event()
    seen, wrong = set(), []
    first = make_client(server, origin, user.token, name="laptop")
    host = first.host

    def poll():
        pattern = Pattern(20_000, "p")
        while not stop.is_set():
            try:
                response = server.fetch(host, "/body?size=20000&seed=p")
                seen.add(response.status)
                if response.status == 200 and response.content != pattern.bytes():
                    wrong.append("body")
                if response.status not in (200, 502):
                    wrong.append(response.status)
            except Broken:
                seen.add("broken")
            except OSError as error:
                wrong.append(str(error))

    pollers = [threading.Thread(target=poll) for _ in range(3)]
    for poller in pollers:
        poller.start()
    try:
        for _ in range(4):
            first.program.kill()
            first = make_client(server, origin, user.token, name="laptop")
            assert server.fetch(host).status == 200
    finally:
        stop.set()
        for poller in pollers:
            poller.join(STEP * 2)
    assert not wrong, wrong[:5]
    assert 200 in seen


def test_address_of_the_listeners_is_loopback(server):
    """Nothing listens on the outside unless it is told to."""
    (line,) = server.program.log(message="listening")
    for name in ("edge", "control", "admin"):
        if name in line:
            assert host_port(line[name])[0] == "127.0.0.1"
