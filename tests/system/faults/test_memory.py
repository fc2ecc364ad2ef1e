"""
Memory runs out at each allocation in turn, in both programs, through connect, request, upload, upgrade and close: what was
being done may fail, truthfully; the program stays, leaks nothing, and does the next thing right.

The suite tries a sample of the allocations. KAVILO_EVERY_ALLOCATION=1 tries all of them.
"""

import os
import pathlib
import random
import signal
import socket

import pytest

from harness import protobuf
from harness.http1 import Broken, Pattern
from harness.grpclink import LinkClosed
from harness.settings import PACE, SANITIZER, STEP
from harness.shims import FOR_EVER, Memory
from harness.wait import TooLate, wait_until

EVERY = bool(os.environ.get("KAVILO_EVERY_ALLOCATION"))
SEED = 6
FAILED = (AssertionError, ConnectionError, OSError, LinkClosed, Broken)
SWITCHED = protobuf.headers([("connection", "upgrade"), ("upgrade", "websocket")])
GIVE_UP = 0.4 * PACE  # what a failed allocation may leave the other side waiting for, before the test lets go


def numbers(count, sample):
    """Which allocations fail, one a round."""
    if EVERY:
        return range(1, count + 1)
    rng = random.Random(SEED)
    return sorted(rng.sample(range(1, count + 1), min(count, sample)))


class Sweep:
    """Runs `round_trip` with the failure at each number, and as often with everything from that number on failing."""

    def __init__(self, memory, program):
        self.memory, self.program = memory, program

    def count(self, round_trip):
        counts = []
        for _ in range(3):
            self.memory.count()
            round_trip()
            counts.append(self.memory.disarm()[0])
        return max(counts)

    def run(self, round_trip, right, sample):
        right()
        maps = pathlib.Path(f"/proc/{self.program.pid}/maps").read_text()
        total = self.count(round_trip)
        assert total > 50, "the shim is not in the program's way"
        failures = 0
        for last in (None, FOR_EVER):
            for number in numbers(total, sample):
                self.memory.arm(number, last)
                try:
                    round_trip()
                except FAILED:
                    pass
                failures += self.memory.disarm()[1]
                try:
                    right()
                except (TooLate, *FAILED) as error:
                    mode = "alone" if last is None else "and all behind it"
                    raise AssertionError(f"allocation {number} of {total} failed, {mode}, at\n{self.memory.place(maps)}") from error
        assert failures > 0
        return total


def peer_request(peer):
    """The next request's id and head; what belongs to earlier ones is skipped."""
    while "request_head" not in (frame := peer.receive(GIVE_UP)):
        pass
    return frame["request_id"], frame["request_head"]


def exercise(server, token):
    """Connect, request, upload, upgrade, close, by a client that the test plays; ends at the first thing that fails."""
    peer = server.peer(token, features=31, initial_credit=65536, seconds=GIVE_UP)
    try:
        peer.welcome = peer.expect("welcome", seconds=GIVE_UP)
        with server.visitor(peer.host, timeout=GIVE_UP) as visitor:
            visitor.request("/a?b", fields=[("Accept", "text/html")])
            number, _ = peer_request(peer)
            peer.answer(number, headers=[("content-type", "text/plain")], content=b"x" * 20_000)
            assert len(visitor.response().content) == 20_000
            visitor.request("/up", "POST", [("Content-Length", "30000")])
            visitor.send(bytes(30_000))
            number, _ = peer_request(peer)
            size = 0
            while size < 30_000:
                frame = peer.receive(GIVE_UP)
                size += len(frame.get("data", {}).get("data", b""))
            peer.answer(number, 204)
            assert visitor.response().status == 204
            visitor.request("/ws", fields=[("Connection", "Upgrade"), ("Upgrade", "websocket")])
            number, _ = peer_request(peer)
            peer.send(number, response_head={"status": 101, "headers": SWITCHED, "upgraded": True})
            assert visitor.response().status == 101
            visitor.send(b"hello")
            while b"hello" not in peer.receive(GIVE_UP).get("data", {}).get("data", b""):
                pass
            peer.send(number, data={"data": b"HELLO"})
            assert visitor.source.exactly(5) == b"HELLO"
        server.fetch("nobody.tnl.test", timeout=GIVE_UP)
    finally:
        peer.close(abrupt=True)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.patience(3600 if EVERY else 240 * PACE)
def test_server(make_server, tmp_path, pair, tls):
    memory = Memory(tmp_path)
    server = make_server(env=memory.env, tls=pair if tls else None, level="info")
    token = server.user().token
    sweep = Sweep(memory, server.program)

    def right():
        server.program.check()
        exercise(server, token)
        wait_until(lambda: server.program.descriptors() <= before, STEP, f"{before} descriptors as before")

    before = server.program.descriptors() + 2  # the database's files are opened by the first connect
    sweep.run(lambda: exercise(server, token), right, 4 if SANITIZER else 12)


def test_server_with_ever_more_connections(make_server, tmp_path):
    """Tables that grow with the number of connections (libuv's ends the process when it cannot) are no exception."""
    memory = Memory(tmp_path)
    server = make_server(env=memory.env)
    crowd = []
    for number in range(600):
        memory.arm(1 + number % 4)
        crowd.append(socket.create_connection(server.edge))
        server.program.wait(lambda: memory.shared.get(2) >= 1, what="allocations for a connection")
    memory.disarm()
    server.program.check()
    for sock in crowd:
        sock.close()
    exercise(server, server.user().token)


def through(server, client):
    """Request, upload and upgrade through a real client."""
    with server.visitor(client.host, timeout=GIVE_UP) as visitor:
        assert visitor.request("/body?size=30000&seed=m").response().content == Pattern(30_000, "m").bytes()
        visitor.request("/mirror", "POST", [("Transfer-Encoding", "chunked")])
        visitor.send(b"6\r\nmirror\r\n0\r\n\r\n")
        assert visitor.response().content == b"mirror"
        visitor.request("/upgrade", fields=[("Connection", "Upgrade"), ("Upgrade", "shout")])
        assert visitor.response().status == 101
        visitor.send(b"hello")
        assert visitor.source.exactly(5) == b"HELLO"


def served(server, client):
    try:
        through(server, client)
    except FAILED:
        return False
    return True


@pytest.mark.patience(3600 if EVERY else 240 * PACE)
def test_client(make_server, make_origin, make_client, tmp_path):
    """One process a round: from its start over its first tunnel to its end."""
    server = make_server(level="info")
    user = server.user()
    origin = make_origin(surprises=True)

    def start(memory):
        return make_client(server, origin, user.token, ready=False, env=dict(memory.env), level="info")

    def life(client):
        """Its first tunnel and what goes through it, as far as it comes."""
        try:
            client.wait_ready(seconds=GIVE_UP)
            through(server, client)
        except FAILED:
            pass

    memory = Memory(tmp_path / "counted")
    memory.count()
    client = start(memory)
    life(client)
    assert client.program.stop() == 0
    total = memory.disarm()[0]
    assert total > 50, "the shim is not in the program's way"
    for last in (None, FOR_EVER):
        for number in numbers(total, 3 if SANITIZER else 12):
            memory = Memory(tmp_path / f"m{number}-{'one' if last is None else 'all'}")
            memory.arm(number, last)
            client = start(memory)
            client.program.expected_to_end = True
            what = f"allocation {number} of {total} failed{' and all behind it' if last else ''}"
            life(client)
            memory.disarm()
            wait_until(lambda c=client: c.ready or not c.program.running(), STEP, f"{what}: it is ready or ends")
            if client.program.running():
                wait_until(lambda c=client: served(server, c), STEP, f"{what}: the next request is right")
                client.program.send_signal(signal.SIGTERM)
                assert client.program.wait_exit() == 0, what
            else:
                # Before its first line libuv registers a handler for forks, and aborts where there is no memory for it.
                unborn = -signal.SIGABRT if not client.program.stderr() else 1
                assert client.program.wait_exit() in (1, 2, unborn), f"{what}: {client.program.stderr()}"
