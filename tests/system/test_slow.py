"""Slow is not dead: bodies that pause, trickle or crawl, with memory in plenty and with memory that is short."""

import hashlib
import json
import select
import signal
import time

import pytest

from harness.h2frames import DATA, INITIAL_WINDOW, RST, FrameVisitor, data, window
from harness.http1 import Broken, Pattern
from harness.settings import STEP
from harness.wait import wait_until

STALL = 0.5  # --stall-timeout of these servers
PAUSE = 8 * STALL  # behind it, behind --idle-timeout, and behind the time that a closed connection lingers
TIMES = ["--stall-timeout", f"{int(STALL * 1000)}ms", "--idle-timeout", "1s"]
HELD = 7  # requests of 128 KiB that leave less than a fifth of the smallest budget


def slow_tunnel(make_server, make_client, make_origin, *args, **how):
    server = make_server("--workers", "1", *TIMES, *args, **how)
    origin = make_origin()
    return server, make_client(server, origin, server.user().token), origin


@pytest.fixture
def plenty(make_server, make_client, make_origin):
    return slow_tunnel(make_server, make_client, make_origin)


@pytest.fixture
def short(make_server, make_client, make_origin):
    """A tunnel whose server has little memory left: requests that wait for their answers have it."""
    server, client, origin = slow_tunnel(make_server, make_client, make_origin, "--memory-budget", "1M")
    holders = [server.visitor(client.host) for _ in range(HELD)]
    for holder in holders:
        holder.request("/wait")
    origin.wait_exchange(HELD)
    yield server, client, origin
    origin.release.set()
    for holder in holders:
        assert holder.response().content == b"released"
        holder.close()


def wait_for_room(server):
    """What an exchange had is given back when both ends of the tunnel have left it."""
    wait_until(lambda: server.metrics()["kavilo_credit_granted_bytes"] <= HELD * 128 * 1024, what="memory given back")


# ---- pauses ----


@pytest.mark.parametrize("size", [60_000, 3_000_000], ids=["in-flight", "held-back"])
@pytest.mark.parametrize("fields", [[], [("Connection", "close")]], ids=["kept", "closed"])
def test_reader_that_pauses(plenty, size, fields):
    """Over HTTP/1: it reads on after the pause and gets every byte, though the connection is at its end meanwhile."""
    server, client, _ = plenty
    with server.visitor(client.host, buffer_size=4096) as visitor:
        visitor.request(f"/body?size={size}", fields=fields)
        time.sleep(PAUSE)
        assert visitor.response().body.digest() == Pattern(size).digest


@pytest.mark.parametrize("size", [60_000, 3_000_000], ids=["in-flight", "held-back"])
@pytest.mark.parametrize("pairs", [[(INITIAL_WINDOW, 0)], []], ids=["window", "socket"])
def test_stream_that_pauses(plenty, size, pairs):
    """Over HTTP/2, a window that stays shut and a socket that is not read."""
    server, client, _ = plenty
    with FrameVisitor(server.edge, pairs=pairs, buffer_size=4096) as visitor:
        visitor.request(1, client.host, f"/body?size={size}")
        time.sleep(PAUSE)
        if pairs:
            visitor.send(window(1, size))
        status, body, _, _ = visitor.answer(1)
        assert (status, hashlib.sha256(body).hexdigest()) == (200, Pattern(size).digest)


def test_upload_that_pauses(plenty):
    server, client, _ = plenty
    with server.visitor(client.host) as visitor, FrameVisitor(server.edge) as other:
        visitor.request("/up", "POST", [("Content-Length", "10")])
        other.request(1, client.host, "/up", method="POST", end=False)
        visitor.send(b"12345")
        other.send(data(1, b"12345"))
        time.sleep(PAUSE)
        visitor.send(b"67890")
        other.send(data(1, b"67890", end=True))
        assert json.loads(visitor.response().content)["size"] == 10
        assert json.loads(other.answer(1)[1])["size"] == 10


def test_stop_waits_for_who_pauses(make_server, make_client, make_origin):
    """A closed connection whose last bytes the visitor takes slowly is work in flight."""
    server, client, _ = slow_tunnel(make_server, make_client, make_origin, grace="1m")
    size = 3_000_000
    with server.visitor(client.host, buffer_size=4096) as visitor:
        visitor.request(f"/body?size={size}", fields=[("Connection", "close")])
        response = visitor.response()
        server.program.send_signal(signal.SIGTERM)
        time.sleep(PAUSE)
        assert response.body.digest() == Pattern(size).digest


# ---- memory is short ----


def test_stalled_reader_gives_its_memory_up(short):
    """Cut, so that it does not look complete."""
    server, client, _ = short
    with server.visitor(client.host, buffer_size=4096) as visitor:
        visitor.request("/body?size=3000000")
        response = visitor.response()
        poll = select.poll()
        poll.register(visitor.sock, select.POLLERR)
        assert poll.poll(STEP * 1000), "the reader was not cut"
        with pytest.raises(Broken):
            response.body.digest()


def test_stalled_stream_gives_its_memory_up(short):
    """That stream alone: another one of the same connection is answered."""
    server, client, _ = short
    with FrameVisitor(server.edge, pairs=[(INITIAL_WINDOW, 0)]) as visitor:
        visitor.request(1, client.host, "/body?size=3000000")
        assert visitor.until(lambda got: got is None or got.kind == RST)[-1].stream == 1
        wait_for_room(server)
        visitor.request(3, client.host, "/body?size=10")
        visitor.send(window(3, 10))
        assert visitor.answer(3)[:2] == (200, Pattern(10).bytes())


def test_stalled_uploads_give_their_memory_up(short):
    server, client, _ = short
    with server.visitor(client.host) as visitor:
        visitor.request("/up", "POST", [("Content-Length", "10")])
        visitor.send(b"12345")
        response = visitor.response()
        assert (response.status, response.fields.one("kavilo-error")) == (408, "visitor_slow")
    wait_for_room(server)
    with FrameVisitor(server.edge) as visitor:
        visitor.request(1, client.host, "/up", method="POST", end=False)
        visitor.send(data(1, b"12345"))
        assert visitor.answer(1)[0] == 408


def test_trickling_uploads_are_spared(short):
    """A byte now and then is life."""
    server, client, _ = short
    count = 30
    with server.visitor(client.host) as visitor:
        visitor.request("/up", "POST", [("Content-Length", str(count))])
        for _ in range(count):
            visitor.send(b"x")
            time.sleep(0.1)  # the visitor's pace
        assert json.loads(visitor.response().content)["size"] == count
    with FrameVisitor(server.edge) as visitor:
        visitor.request(1, client.host, "/up", method="POST", end=False)
        for i in range(count):
            visitor.send(data(1, b"x", end=i == count - 1))
            time.sleep(0.1)  # the visitor's pace
        assert json.loads(visitor.answer(1)[1])["size"] == count


def test_crawling_readers_are_spared(short):
    """Some kilobytes a second, far below what the kernel holds for the connection."""
    server, client, _ = short
    with server.visitor(client.host, buffer_size=4096) as visitor:
        visitor.request("/body?size=600000")
        response = visitor.response()
        sha = hashlib.sha256()
        for i, piece in enumerate(response.body):
            sha.update(piece)
            if i < 30:
                time.sleep(0.1)  # the visitor's pace
        assert sha.hexdigest() == Pattern(600_000).digest
    with FrameVisitor(server.edge, pairs=[(INITIAL_WINDOW, 1)]) as visitor:
        visitor.request(1, client.host, "/body?size=5000")
        got = 0
        while got < 30:
            frame = visitor.next()
            if frame.kind == DATA:
                got += len(frame.payload)
                time.sleep(0.1)  # the visitor's pace
                visitor.send(window(1, 1))
        visitor.send(window(1, 5000))
        while got < 5000:
            frame = visitor.next()
            got += len(frame.payload) if frame.kind == DATA else 0
            assert frame.kind != RST
