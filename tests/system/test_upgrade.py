"""WebSocket and every other Upgrade, end to end."""

import asyncio
import json
import os
import socket
import threading

import pytest
import websockets
import websockets.exceptions

from websockets.frames import Opcode

from harness.http1 import Broken, Pattern
from harness.process import RssMeter
from harness.settings import MiB, SANITIZER, STEP
from harness.wait import stays, wait_until
from harness.websocket import H2Socket, IdleService, WebSocketService


@pytest.fixture
def service():
    made = WebSocketService()
    yield made
    made.close()


@pytest.fixture
def socket_to(server, user, service, make_client):
    """A coroutine that opens a WebSocket through the tunnel."""
    client = make_client(server, service.url, user.token)

    def connect(**how):
        return websockets.connect(f"ws://{client.host}/ws?x=1", host=server.edge[0], port=server.edge[1], max_size=None,
                                  ping_interval=None, open_timeout=STEP, **how)

    return connect


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, STEP * 3))


def test_text_binary_and_fragments(socket_to):
    async def talk():
        async with socket_to() as ws:
            for message in ("hello", "", b"\0\xff binary", "ü" * 1000, b"x" * 70000):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["in ", "three ", "fragments"])
            assert await ws.recv() == "in three fragments"

    run(talk())


def test_subprotocol_and_compression_are_negotiated_end_to_end(socket_to):
    async def talk():
        async with socket_to(subprotocols=["chat", "other"]) as ws:
            assert ws.subprotocol == "chat"
            assert any(e.name == "permessage-deflate" for e in ws.extensions)
            await ws.send("a" * 100_000)
            assert await ws.recv() == "a" * 100_000

    run(talk())


def test_pings_both_ways(socket_to):
    async def talk():
        async with socket_to() as ws:
            await asyncio.wait_for(await ws.ping(b"from the visitor"), STEP)
            await ws.send("ping me")
            assert await ws.recv() == "pong came"

    run(talk())


def test_close_codes(socket_to, service):
    async def talk():
        ws = await socket_to()
        await ws.send("close please")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            await ws.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")
        ws = await socket_to()
        await ws.close(4000, "goodbye")

    run(talk())
    wait_until(lambda: (4000, "goodbye") in service.closes, what="the visitor's close code at the service")


LARGE = 64 * MiB if not SANITIZER else 4 * MiB


@pytest.mark.first
def test_large_messages(socket_to):
    """One message of 64 MiB there and back, in one frame."""
    message = os.urandom(MiB) * (LARGE // MiB)

    async def talk():
        async with socket_to(compression=None) as ws:
            await ws.send(message)
            assert await ws.recv() == message

    run(talk())


@pytest.mark.parametrize("with_tls", [False, pytest.param(True, marks=pytest.mark.first)], ids=["h2c", "tls"])
def test_over_http2(make_server, service, make_client, pair, with_tls):
    """RFC 8441: text, fragments, ping, a large message, close code; and an ordinary answer where nobody upgrades."""
    server = make_server(tls=pair if with_tls else None)
    client = make_client(server, service.url, server.user().token)
    ws = H2Socket(server.edge, client.host, tls=server.tls.client(["h2"]) if with_tls else None)
    assert ws.status == 200
    ws.send(b"hello", Opcode.TEXT)
    assert ws.receive() == (Opcode.TEXT, b"hello")
    ws.send(b"in ", Opcode.TEXT, fin=False)
    ws.send(b"two", Opcode.CONT)
    assert ws.receive() == (Opcode.TEXT, b"in two")
    ws.send(b"are you there", Opcode.PING)
    assert ws.receive() == (Opcode.PONG, b"are you there")
    if with_tls:
        message = os.urandom(MiB) * (LARGE // MiB)
        ws.send(message)
        ws.sock.settimeout(10 * STEP)  # nothing comes before the service has unmasked and joined all of it
        assert ws.receive() == (Opcode.BINARY, message)
    ws.send(b"close please", Opcode.TEXT)
    assert ws.receive() == (Opcode.CLOSE, (4321).to_bytes(2, "big") + b"as you wish")
    ws.close()


@pytest.mark.parametrize("status", [403, 426])
def test_refusal_over_http2_keeps_its_body(server, user, make_origin, make_client, status):
    client = make_client(server, make_origin(lambda ex: ex.reply("no, because", status, [("Upgrade", "other")])), user.token)
    ws = H2Socket(server.edge, client.host)
    assert ws.status == status
    ws.wait_end()
    assert bytes(ws.data) == b"no, because"
    ws.close()


def test_a_thousand_idle_sockets(make_server, make_client, capsys):
    """Each is kept, answers at the end, and costs the programs little meanwhile."""
    count = 1000 if not SANITIZER else 100
    server = make_server("--max-concurrent", str(count + 10))
    service = IdleService()
    client = make_client(server, service.url, server.user().token)
    head = f"GET / HTTP/1.1\r\nHost: {client.host}\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n".encode()

    async def open_one(limit):
        async with limit:
            reader, writer = await asyncio.open_connection(*server.edge)
            writer.write(head)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            return reader, writer

    async def talk():
        limit = asyncio.Semaphore(50)
        first = await open_one(limit)
        meter = RssMeter(server.program, client.program)
        opened = await asyncio.gather(*[open_one(limit) for _ in range(count - 1)])
        meter.check(count * 24 * 1024)
        for reader, writer in [first, *opened]:
            writer.write(b"x")
        for reader, writer in [first, *opened]:
            assert await reader.readexactly(1) == b"x"
            writer.close()
        return {p.name: (meter.peak[p] - meter.start[p]) // count for p in meter.programs}

    used = asyncio.run(asyncio.wait_for(talk(), STEP * 4))
    with capsys.disabled():
        print(f" bytes a socket: {used} ", end="")
    service.close()


def test_many_sockets(socket_to, service):
    async def talk():
        sockets = await asyncio.gather(*[socket_to() for _ in range(100)])
        for i, ws in enumerate(sockets):
            await ws.send(str(i))
        for i, ws in enumerate(sockets):
            assert await ws.recv() == str(i)
        assert service.open == 100
        for ws in sockets:
            await ws.close()

    run(talk())
    wait_until(lambda: service.open == 0, what="all sockets closed at the service")


def test_visitor_vanishes(socket_to, service):
    """A TCP reset at the visitor's: the service notices."""

    async def talk():
        ws = await socket_to()
        await ws.send("x")
        await ws.recv()
        ws.transport.abort()

    run(talk())
    wait_until(lambda: service.open == 0, what="the service notices")


# ---- other protocols ----


UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "echo/1")]


def test_operator_says_which_upgrades(make_server, make_origin, make_client):
    """What is not on the list is an ordinary request over HTTP/1 and 400 over HTTP/2."""
    server = make_server("--upgrades", "other,ECHO")
    client = make_client(server, make_origin(), server.user().token)
    with server.visitor(client.host) as visitor:
        visitor.request("/upgrade", fields=UPGRADE)
        assert visitor.response().status == 101
    with server.visitor(client.host) as visitor:
        visitor.request("/plain", fields=[("Connection", "Upgrade"), ("Upgrade", "websocket")])
        response = visitor.response()
        assert response.status == 200
        fields = dict(json.loads(response.content)["fields"])
        assert "upgrade" not in {name.lower() for name in fields}
    ws = H2Socket(server.edge, client.host)
    assert ws.status == 400
    ws.close()


def test_raw_upgrade_with_half_close(server, tunnel):
    """The visitor ends his side; the service reads the end, says its last words, and they arrive."""
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/upgrade", fields=UPGRADE)
        response = visitor.response()
        assert response.status == 101 and response.fields.one("upgrade") == "echo/1"
        visitor.send(b"hello")
        assert visitor.source.exactly(5) == b"HELLO"
        visitor.end()
        assert visitor.source.to_end() == b"BYE"


def test_upgrade_carries_everything(server, tunnel):
    """Megabytes through an upgraded connection, both ways at once."""
    pattern = Pattern(8 * MiB if not SANITIZER else 2 * MiB)
    upper = pattern.bytes().upper()
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/upgrade", fields=UPGRADE)
        visitor.response()

        def write():
            for piece in pattern:
                visitor.send(piece)
            visitor.end()

        writer = threading.Thread(target=write)
        writer.start()
        got = visitor.source.to_end()
        writer.join(STEP)
        assert got == upper + b"BYE"


def test_bytes_behind_the_request_wait_for_101(server, user, make_origin, make_client):
    """What a visitor sends before 101 is no request of its own and reaches the service only after its 101."""
    seen = []
    gate = threading.Event()

    def handler(ex):
        ex.connection.sock.settimeout(0.3)
        try:
            seen.append(ex.connection.source.some())
        except (TimeoutError, socket.timeout):
            seen.append(b"")
        ex.connection.sock.settimeout(None)
        gate.set()
        ex.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\n")
        ex.send(ex.connection.source.exactly(5))
        ex.close()

    client = make_client(server, make_origin(handler), user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/raw", fields=UPGRADE)
        visitor.send(b"early")
        assert gate.wait(STEP)
        assert visitor.response().status == 101
        assert visitor.source.exactly(5) == b"early"
    assert seen == [b""]


@pytest.mark.parametrize("early", [b"", b"raw"], ids=["alone", "with raw bytes"])
def test_body_of_an_upgrade_comes_first(server, user, make_origin, make_client, early):
    """As docker exec has it: a body with its length, then the switch. The service has the body before its 101, and what
    the visitor sent behind it only after that."""
    seen = []

    def handler(ex):
        seen.append((ex.request.fields.one("upgrade"), ex.body.read()))
        ex.connection.sock.settimeout(0.3)
        try:
            seen.append(ex.connection.source.some())
        except (TimeoutError, socket.timeout):
            seen.append(b"")
        ex.connection.sock.settimeout(STEP)
        ex.send(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        ex.send(ex.connection.source.exactly(3).upper())
        ex.close()

    client = make_client(server, make_origin(handler), user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/exec/1/start", "POST", [("Connection", "Upgrade"), ("Upgrade", "tcp"),
                                                  ("Content-Type", "application/json")], b'{"Tty":false}')
        visitor.send(early)
        assert visitor.response().status == 101
        if not early:
            visitor.send(b"raw")
        assert visitor.source.to_end() == b"RAW"
    assert seen == [("tcp", b'{"Tty":false}'), b""]


@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
def test_refused_upgrade_with_a_body(server, user, make_origin, make_client, read):
    """Whether the service reads the body or not: an ordinary answer, and the visitor's next request is one again."""
    def handler(ex):
        if read:
            ex.body.read()
        ex.reply("no" if ex.number == 1 else "next", 426 if ex.request.target == "/up" else 200)

    client = make_client(server, make_origin(handler, surprises=not read), user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/up", "POST", UPGRADE, b"x" * 1000)
        response = visitor.response()
        assert (response.status, response.content) == (426, b"no")
        if response.fields.get("connection") != "close":
            visitor.request("/next")
            assert visitor.response().status == 200


def test_upgrade_that_ends_in_its_body(server, user, make_origin, make_client):
    """The service sees the break, and no upgrade."""
    origin = make_origin(lambda ex: ex.body.read(), surprises=True)
    client = make_client(server, origin, user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/up", "POST", [*UPGRADE, ("Content-Length", "100")]).send(b"x")
        exchange = origin.wait_exchange(1)
        visitor.end()
        wait_until(lambda: exchange.over, what="the break at the service")
        assert not exchange.body.complete


def test_refused_upgrade_is_an_ordinary_answer(server, user, make_origin, make_client):
    client = make_client(server, make_origin(lambda ex: ex.reply("no", 403)), user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/raw", fields=UPGRADE)
        response = visitor.response()
        assert (response.status, response.text) == (403, "no")
        if response.keeps_alive:
            visitor.request("/again")
            assert visitor.response().text == "no"


def test_smuggling_behind_a_refused_upgrade(server, user, make_origin, make_client):
    """Bytes behind an Upgrade that is refused are either the next request in order or nothing, never both's."""
    origin = make_origin(lambda ex: ex.reply(ex.request.target))
    client = make_client(server, origin, user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/first", fields=UPGRADE)
        visitor.request("/second")
        assert visitor.response().text == "/first"
        try:
            assert visitor.response().text == "/second"
        except Broken:
            pass
    assert [ex.request.target for ex in origin.exchanges] in (["/first"], ["/first", "/second"])


@pytest.mark.parametrize("abrupt", [False, True])
def test_service_ends_an_upgrade(server, user, make_origin, make_client, abrupt):
    def handler(ex):
        ex.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\nlast words")
        ex.connection.source.exactly(2)
        ex.close(abort=abrupt)

    client = make_client(server, make_origin(handler), user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/raw", fields=UPGRADE)
        assert visitor.response().status == 101
        assert visitor.source.exactly(10) == b"last words"
        visitor.send(b"go")
        assert visitor.source.at_end()


def test_last_words_of_a_service_that_reads_no_more(server, user, make_origin, make_client):
    """It ends its side and leaves with input unread: its words arrive, and then its end, while the visitor still sends."""

    def leave(connection):
        connection.source.until(b"\r\n\r\n")
        connection.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\n")
        connection.source.exactly(2)
        connection.sock.sendall(b"last words")
        connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.close()

    client = make_client(server, make_origin(raw=leave), user.token)
    for attempt in range(20):
        with server.visitor(client.host) as visitor:
            visitor.request("/raw", fields=UPGRADE)
            assert visitor.response().status == 101
            visitor.send(b"go" + b"x" * 200_000)
            assert visitor.source.to_end() == b"last words"

            def is_told():
                try:
                    visitor.send(b"is anybody there?")
                except Broken:
                    return True
                return False

            if attempt == 0:
                wait_until(is_told, what="the visitor learns that nobody reads")


def test_idle_upgrade_is_left_alone(server, tunnel):
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/upgrade", fields=UPGRADE)
        visitor.response()
        visitor.sock.settimeout(0.05)

        def silent():
            try:
                visitor.source.some()
            except (TimeoutError, socket.timeout):
                return True
            return False

        stays(silent, 1.5, "an idle upgraded connection")
        visitor.sock.settimeout(STEP)
        visitor.send(b"still here")
        assert visitor.source.exactly(10) == b"STILL HERE"


@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_idle_timeout(make_server, service, make_client, protocol):
    """--upgrade-idle-timeout ends a socket that carries nothing, and not one that pings now and then."""
    server = make_server("--upgrade-idle-timeout", "2s")
    client = make_client(server, service.url, server.user().token)

    def talk_over_h1():
        async def talk():
            async with websockets.connect(f"ws://{client.host}/", host=server.edge[0], port=server.edge[1],
                                          ping_interval=0.1, open_timeout=STEP) as busy:
                idle = await websockets.connect(f"ws://{client.host}/", host=server.edge[0], port=server.edge[1],
                                                ping_interval=None, open_timeout=STEP)
                with pytest.raises(websockets.exceptions.ConnectionClosed):
                    await idle.recv()
                await asyncio.sleep(0.5)  # the busy one is older than the time-out by now, and used all the time
                await busy.send("still here")
                assert await busy.recv() == "still here"

        run(talk())

    def talk_over_h2():
        ws = H2Socket(server.edge, client.host)
        for _ in range(5):
            ws.send(b"ping me", Opcode.TEXT)
            assert ws.receive()[0] == Opcode.PING
            ws.send(b"from the service", Opcode.PONG)
            assert ws.receive() == (Opcode.TEXT, b"pong came")
        ws.wait_end()
        ws.close()

    talk_over_h1() if protocol == "h1" else talk_over_h2()
    wait_until(lambda: service.open == 0, what="the service's sockets are closed")


def test_client_gone_ends_an_upgrade(server, tunnel):
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/upgrade", fields=UPGRADE)
        visitor.response()
        tunnel.program.kill()
        assert visitor.source.at_end()
