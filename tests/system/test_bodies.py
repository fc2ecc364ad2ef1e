"""Large, slow and many: every byte right, memory flat, nobody waiting for somebody else."""

import hashlib
import json
import threading
import time

import pytest

from harness.http1 import Broken, Pattern, Visitor, chunk
from harness.process import RssMeter
from harness.settings import HEAVY, MiB, PACE, STEP
from harness.wait import wait_until

FLAT = 24 * MiB


@pytest.mark.patience(240)
@pytest.mark.parametrize("framing", ["", "&chunked=1"], ids=["length", "chunked"])
def test_large_download(server, tunnel, framing):
    pattern = Pattern(HEAVY, "down")
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/body?size=1000000")
        visitor.response().content  # pylint: disable=expression-not-assigned
        meter = RssMeter(server.program, tunnel.program)
        visitor.request(f"/body?size={HEAVY}&seed=down{framing}")
        response = visitor.response()
        sha = hashlib.sha256()
        for piece in response.body:
            sha.update(piece)
            meter.sample()
        assert sha.hexdigest() == pattern.digest and response.body.size == HEAVY
        meter.check(FLAT)


@pytest.mark.patience(240)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_large_upload(server, tunnel, chunked):
    pattern = Pattern(HEAVY, "up")
    server.fetch(tunnel.host, "/up", method="POST", body=b"x" * 1_000_000)
    with server.visitor(tunnel.host) as visitor:
        meter = RssMeter(server.program, tunnel.program)
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(HEAVY))
        visitor.request("/up", "POST", [framing])
        for piece in pattern:
            visitor.send(chunk(piece) if chunked else piece)
            meter.sample()
        if chunked:
            visitor.send(b"0\r\n\r\n")
        visitor.sock.settimeout(STEP * 3)
        seen = json.loads(visitor.response().content)
        assert (seen["size"], seen["sha256"]) == (HEAVY, pattern.digest)
        meter.check(FLAT)


def test_server_sent_events_keep_their_rhythm(server, tunnel):
    """Gaps of 200 ms at the service are gaps at the visitor: nothing is held back."""
    times = []
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/sse?n=6&gap=0.2")
        response = visitor.response()
        assert response.fields.one("content-type") == "text/event-stream"
        for piece in response.body:
            assert piece == b"data: %d\n\n" % len(times)
            times.append(time.monotonic())
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert len(times) == 6
    assert all(gap > 0.1 for gap in gaps) and sum(gaps) < 1.0 + 0.5 * PACE, gaps


def test_small_pieces_pass_at_once(server, user, make_origin, make_client):
    """Ping-pong of single bytes: each waits for the one before, so a held-back byte would be a hang."""

    def handler(ex):
        ex.head(200, [("Transfer-Encoding", "chunked")])
        for piece in ex.body:
            ex.send(chunk(piece))
        ex.send(b"0\r\n\r\n")

    client = make_client(server, make_origin(handler), user.token)
    with server.visitor(client.host) as visitor:
        visitor.request("/", "POST", [("Transfer-Encoding", "chunked")])
        response = visitor.response()
        pieces = iter(response.body)
        start = time.monotonic()
        for i in range(200):
            visitor.send(chunk(bytes([i])))
            assert next(pieces) == bytes([i])
        assert time.monotonic() - start < 4 * PACE, "about 20 ms a round trip: something waits for something"
        visitor.send(b"0\r\n\r\n")
        assert list(pieces) == []


def test_two_hundred_slow_requests_at_once(server, tunnel, origin):
    """All of them at the local service together, all of them answered."""
    visitors = []
    for i in range(200):
        visitor = server.visitor(tunnel.host, timeout=STEP * 2)
        visitor.request(f"/wait?{i}")
        visitors.append(visitor)
    wait_until(lambda: len(origin.exchanges) == 200, STEP * 2, "200 requests at the local service at once")
    assert server.fetch(tunnel.host, "/quick").status == 200
    origin.release.set()
    for visitor in visitors:
        assert visitor.response().content == b"released"
        visitor.close()


def test_stalled_readers_do_not_stall_others_or_grow_memory(server, tunnel):
    """32 visitors who ask for a lot and read nothing; memory is bounded and a quick one is quick."""
    server.fetch(tunnel.host, "/body?size=5000000")
    meter = RssMeter(server.program, tunnel.program)
    stalled = []
    for _ in range(32):
        visitor = server.visitor(tunnel.host, buffer_size=16384, timeout=STEP * 3)
        visitor.request("/body?size=20000000&seed=stalled")
        stalled.append(visitor)
    answers = [visitor.response() for visitor in stalled]
    assert {answer.status for answer in answers} == {200}
    for _ in range(30):
        assert server.fetch(tunnel.host, "/quick").status == 200
        meter.sample()
    assert server.fetch(tunnel.host, "/body?size=10000000").content == Pattern(10_000_000).bytes()
    meter.check(96 * MiB)
    # One of them wakes up and gets every byte; the others leave.
    assert answers[7].body.digest() == Pattern(20_000_000, "stalled").digest
    for visitor in stalled:
        visitor.abort()
    assert server.fetch(tunnel.host, "/quick").status == 200


def test_slow_reader_gets_everything(server, tunnel):
    pattern = Pattern(6 * MiB, "slow")
    with server.visitor(tunnel.host, buffer_size=8192) as visitor:
        visitor.request(f"/body?size={pattern.size}&seed=slow")
        response = visitor.response()
        got = bytearray()
        quick = 0
        for piece in response.body:
            got += piece
            if len(got) // MiB > quick:
                quick += 1
                assert server.fetch(tunnel.host, "/quick").status == 200
        assert bytes(got) == pattern.bytes()


def test_uploads_are_not_collected_before_they_are_forwarded(server, tunnel, origin):
    """The service sees the first bytes of an upload whose rest the visitor has not even sent."""
    with server.visitor(tunnel.host) as visitor:
        visitor.request("/up", "POST", [("Content-Length", "1000000")])
        visitor.send(b"x" * 1000)
        exchange = origin.wait_exchange()
        wait_until(lambda: exchange.body.size == 1000, what="the first bytes at the service")
        visitor.send(b"y" * 999_000)
        assert json.loads(visitor.response().content)["size"] == 1_000_000


def test_slow_service_holds_back_a_fast_upload(server, user, make_origin, make_client):
    """A service that reads nothing: the visitor is stopped, memory stays, others go on, then every byte arrives."""
    gate = threading.Event()
    seen = []

    def handler(ex):
        if ex.path == "/slow":
            gate.wait(60)
            seen.append(ex.body.digest())
        ex.reply("ok")

    client = make_client(server, make_origin(handler), user.token)
    server.fetch(client.host)
    pattern = Pattern(32 * MiB, "u")
    meter = RssMeter(server.program, client.program)
    with server.visitor(client.host, timeout=STEP * 3) as visitor:
        visitor.request("/slow", "POST", [("Content-Length", str(pattern.size))])
        sent = [0]

        def push():
            for piece in pattern:
                visitor.send(piece)
                sent[0] += len(piece)

        pusher = threading.Thread(target=push)
        pusher.start()
        for _ in range(20):
            assert server.fetch(client.host, "/quick").text == "ok"
            meter.sample()
        assert sent[0] < pattern.size, "32 MiB were swallowed while the service read nothing"
        meter.check(FLAT)
        gate.set()
        pusher.join(STEP * 3)
        assert visitor.response().content == b"ok"
    assert seen == [pattern.digest]


def test_mixed_traffic(server, tunnel):
    """Eight visitors, each with its own mix on its own connection, hashes compared."""
    errors = []

    def visit(seed):
        try:
            with Visitor(server.edge, tunnel.host, timeout=STEP * 3) as visitor:
                for i in range(12):
                    size = (seed * 7919 + i * 104729) % 300_000
                    if i % 3 == 0:
                        visitor.request(f"/body?size={size}&seed={seed}")
                        assert visitor.response().body.digest() == Pattern(size, seed).digest
                    elif i % 3 == 1:
                        visitor.request(f"/body?size={size}&seed={seed}&chunked=1")
                        assert visitor.response().body.digest() == Pattern(size, seed).digest
                    else:
                        pattern = Pattern(size, seed)
                        visitor.request("/up", "POST", body=pattern if i % 2 else pattern.bytes())
                        assert json.loads(visitor.response().content)["sha256"] == pattern.digest
        except Exception as error:  # pylint: disable=broad-except
            errors.append(f"{seed}: {type(error).__name__} {error}")

    threads = [threading.Thread(target=visit, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STEP * 5)
    assert errors == []


@pytest.mark.parametrize("direction", ["down", "up"])
def test_abandoned_transfers_leave_nothing(server, tunnel, origin, direction):
    """Sixty visitors leave in the middle: memory, descriptors and places are as before."""

    def abandon():
        visitor = server.visitor(tunnel.host)
        try:
            if direction == "down":
                visitor.request("/body?size=50000000")
                visitor.response().body.source.exactly(100_000)
            else:
                visitor.request("/up", "POST", [("Content-Length", "50000000")])
                visitor.send(b"x" * 300_000)
        except Broken:
            pass
        visitor.abort()

    for _ in range(5):
        abandon()
    server.fetch(tunnel.host)
    wait_until(lambda: origin.open <= 2, what="the first abandoned connections are closed")
    meter = RssMeter(server.program, tunnel.program)
    before = server.program.descriptors(), tunnel.program.descriptors()
    for _ in range(60):
        abandon()

    def settled():
        return (server.program.descriptors() <= before[0] + 2 and tunnel.program.descriptors() <= before[1] + 4
                and all(ex.over for ex in origin.exchanges))

    wait_until(settled, STEP * 2, f"descriptors back to {before}")
    assert server.fetch(tunnel.host, "/quick").status == 200
    meter.check(FLAT)
