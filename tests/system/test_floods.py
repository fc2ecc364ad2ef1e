"""
What a hostile visitor can do to others: nothing. Each flood and each slowness is bounded in memory and in time, while a
well-behaved visitor beside it, on the same and only worker, keeps the latency it had before.
"""

import re
import shutil
import statistics
import subprocess
import threading
import time

import pytest

from harness import h2frames as f
from harness.h2frames import (CALM, CONTINUATION, GOAWAY, INTERNAL, PREFACE, PRIORITY, FrameVisitor, data,
                              frame, headers, literal, ping, reset, settings, window)
from harness.http1 import Broken, Visitor
from harness.origin import Origin
from harness.settings import SANITIZER, STEP, MiB
from harness.tunnel import Client, Server
from harness.wait import wait_until

LATENCY_RATIO = 40  # of medians in one run; the machine's other work is in both
GROWTH = 48 * MiB if not SANITIZER else 400 * MiB  # far under what any of the floods would need without limits


@pytest.fixture(scope="module")
def server(module_programs, tmp_path_factory):
    args = ["--workers", "1", "--head-timeout", "500ms", "--idle-timeout", "1s", "--stall-timeout", "500ms"]
    return Server(module_programs, tmp_path_factory.mktemp("server"), args, level="info").start()


@pytest.fixture(scope="module")
def tunnel(module_programs, tmp_path_factory, server):
    origin = Origin()
    client = Client(module_programs, tmp_path_factory.mktemp("client"), server.endpoint, origin.url,
                    server.user().token, label="tunnel", level="info")
    yield client.wait_ready()
    origin.close()


class Neighbour:
    """A visitor who wants one small thing after the other; latency() is the median of some, in seconds."""

    def __init__(self, server, host):
        self.server, self.host = server, host

    def latency(self, count=15):
        times = []
        with self.server.visitor(self.host) as visitor:
            for _ in range(count):
                start = time.monotonic()
                response = visitor.request("/beside").response()
                assert response.status == 200 and response.content
                times.append(time.monotonic() - start)
        return statistics.median(times)


def beside(server, host, attack):
    """Runs attack() in a thread; the neighbour's latency and the server's memory are held while it runs."""
    neighbour = Neighbour(server, host)
    before, memory = neighbour.latency(), server.program.rss()
    failed = []

    def run():
        try:
            attack()
        except BaseException as error:  # pylint: disable=broad-except
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    during = [neighbour.latency()]
    while thread.is_alive():
        during.append(neighbour.latency())
        assert server.program.rss() < memory + GROWTH
    assert not failed, failed
    assert statistics.median(during) < LATENCY_RATIO * max(before, 0.001), (before, during)


def metric(server, name):
    with Visitor(server.admin, "localhost") as visitor:
        visitor.request("/metrics")
        return float(re.search(rf"^{name} (\S+)$", visitor.response().text, re.MULTILINE).group(1))


# ---- HTTP/2: what a connection is ended for ----


def bomb(head):
    """One field of 4000 bytes in the table, and then thousands of references to it, a byte each."""
    return f.block(head) + b"\x40\x01x" + f.integer(4000, 7) + b"y" * 4000 + b"\xbe" * 11000


FLOODS = {
    "PING": lambda head: ping() * 3000,
    "SETTINGS": lambda head: settings() * 3000,
    "SETTINGS-with-values": lambda head: settings((f.INITIAL_WINDOW, 1), (f.INITIAL_WINDOW, 65535)) * 3000,
    "PRIORITY": lambda head: b"".join(frame(PRIORITY, 0, i * 2 + 1, b"\0\0\0\0\1") for i in range(3000)),
    "WINDOW_UPDATE": lambda head: window(0, 1) * 3000,
    "empty-DATA": lambda head: headers(1, head, end=False) + data(1) * 3000,
    "empty-CONTINUATION": lambda head: headers(1, head, flags=0) + frame(CONTINUATION, 0, 1) * 3000,
    "CONTINUATION": lambda head: headers(1, head, flags=0) + frame(CONTINUATION, 0, 1, literal("x", "y" * 9000)) * 300,
    "rapid-reset": lambda head: b"".join(headers(i, head, end=False) + reset(i) for i in range(1, 8001, 2)),
    "resets-of-ours": lambda head: b"".join(
        headers(i, head, end=False) + window(i, 0x7FFFFFFF) for i in range(1, 8001, 2)),
    "bad-heads": lambda head: b"".join(headers(i, head + [("X", "1")]) for i in range(1, 8001, 2)),
    "HPACK-bombs": lambda head: b"".join(headers(i, bomb(head)) for i in range(1, 801, 2)),
    "many-fields": lambda head: b"".join(headers(i, head + [("x", "1")] * 500) for i in range(1, 801, 2)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood_ends_the_connection(server, tunnel, name):
    """GOAWAY and the end, whatever the frames are and however the visitor goes on."""
    floods = metric(server, "kavilo_edge_floods_total")
    head = [(":method", "POST"), (":scheme", "http"), (":authority", tunnel.host), (":path", "/flood")]
    wire = FLOODS[name](head)
    # Three of the resets together could fill the tunnel: limits by address are for that.
    times = 1 if name in ("rapid-reset", "resets-of-ours") else 3

    def attack():
        for _ in range(times):
            with FrameVisitor(server.edge) as visitor:
                try:
                    for at in range(0, len(wire), 16384):
                        visitor.send(wire[at : at + 16384])
                except Broken:
                    pass
                last = visitor.until(lambda got: got.kind == GOAWAY)
                assert last[-1] is None or last[-1].code in (CALM, INTERNAL), last[-1]
                assert last[-1] is None or visitor.until(lambda got: False)[-1] is None

    beside(server, tunnel.host, attack)
    assert metric(server, "kavilo_edge_floods_total") >= floods + times


def test_acknowledgements_that_nobody_reads(server, tunnel):
    """A visitor that sends PING and reads nothing is not read from any more, and then ended."""

    def attack():
        with FrameVisitor(server.edge, buffer_size=4096) as visitor:
            visitor.sock.settimeout(3 * STEP)
            try:
                while True:
                    visitor.send(ping() * 1000)
            except (Broken, TimeoutError):
                pass

    beside(server, tunnel.host, attack)


def test_requests_of_a_busy_visitor_are_no_flood(server, tunnel):
    """Thousands of requests, resets and windows of an honest visitor on one connection."""
    with FrameVisitor(server.edge) as visitor:
        stream = 1
        for _ in range(40):
            some = range(stream, stream + 100, 2)
            stream += 100
            visitor.send(*[headers(i, visitor.head(tunnel.host)) + window(0, 1000) + window(i, 10) for i in some])
            open_streams = set(some)
            while open_streams:
                got = visitor.next()
                assert got is not None and got.kind not in (GOAWAY, f.RST), got
                if got.end:
                    open_streams.discard(got.stream)


# ---- slowness ----


def test_slow_heads(server, tunnel):
    """The whole head has its time, however the bytes are spread."""

    def attack():
        start = time.monotonic()
        with server.visitor(tunnel.host) as visitor:
            visitor.send(b"GET / HTTP/1.1\r\n")
            with pytest.raises(Broken):
                while time.monotonic() < start + STEP:
                    visitor.send(b"X-A: 1\r\n")
                    time.sleep(0.05)  # the attack's rhythm
        with server.visitor(tunnel.host) as visitor:
            visitor.send(b"GET / HTTP/1.1\r\n")
            response = visitor.response()
            assert response.status == 408 and response.content and visitor.source.at_end()
        for first in (b"", PREFACE[:10], PREFACE, PREFACE + settings() + headers(1, [(":method", "GET")], flags=0)):
            with FrameVisitor(server.edge, hello=False) as visitor:
                visitor.send(first)
                assert visitor.until(lambda got: False)[-1] is None

    beside(server, tunnel.host, attack)


def test_slow_bodies(server, tunnel):
    """Bytes now and then are no crime, and cost nobody else anything (test_slow.py has what ends them)."""

    def attack():
        with server.visitor(tunnel.host) as visitor, FrameVisitor(server.edge) as other:
            visitor.request("/slow", "POST", [("Content-Length", "100000")])
            other.request(1, tunnel.host, "/slow", method="POST", end=False)
            for _ in range(25):
                visitor.send(b"x" * 8)
                other.send(data(1, b"x" * 8))
                time.sleep(0.05)  # the attack's rhythm

    beside(server, tunnel.host, attack)


def test_slow_readers(server, tunnel):
    """Windows of 0, windows of a byte, sockets that nobody reads: they wait, and hold up nobody else."""

    def attack():
        with FrameVisitor(server.edge, pairs=[(f.INITIAL_WINDOW, 0)]) as shut, \
             FrameVisitor(server.edge, pairs=[(f.INITIAL_WINDOW, 1)]) as crawling, \
             server.visitor(tunnel.host, buffer_size=2048) as unread:
            for i in range(1, 41, 2):
                shut.request(i, tunnel.host, "/body?size=1000000")
            crawling.request(1, tunnel.host, "/body?size=1000000")
            unread.request(f"/body?size={64 * MiB}")
            taken = 0
            while taken < 100:
                if crawling.next().kind == f.DATA:
                    taken += 1
                    crawling.send(window(1, 1))
                    time.sleep(0.01)  # the attack's rhythm

    beside(server, tunnel.host, attack)


def test_many_stalled_streams_beside_one_that_flows(server, tunnel):
    """One connection: 100 answers without a window hold up neither an answer that has one nor each other."""
    with FrameVisitor(server.edge, pairs=[(f.INITIAL_WINDOW, 0)]) as visitor:
        for i in range(1, 201, 2):
            visitor.request(i, tunnel.host, "/body?size=200000")
        visitor.send(settings((f.INITIAL_WINDOW, 0)), headers(301, visitor.head(tunnel.host, "/body?size=3000000")))
        visitor.send(window(0, 1 << 24), window(301, 1 << 24))
        got = 0
        while True:
            piece = visitor.next()
            assert piece is not None
            got += len(piece.payload) if piece.kind == f.DATA and piece.stream == 301 else 0
            if piece.end and piece.stream == 301:
                break
        assert got == 3000000


@pytest.mark.skipif(not shutil.which("slowhttptest"), reason="slowhttptest is not installed")
@pytest.mark.parametrize("mode", ["-H", "-B", "-X"])
def test_slowhttptest(server, tunnel, mode):
    """The well-known tool finds the server available, and every slow connection ended."""
    where = "%s:%d" % server.edge
    argv = ["slowhttptest", mode, "-c", "60", "-r", "60", "-i", "1", "-l", "4", "-p", "3", "-d", where, "-u",
            f"http://{tunnel.host}/body?size=2000000"]

    def attack():
        run = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=6 * STEP, check=False)
        text = re.sub(rb"\x1b\[[0-9;]*m", b"", run.stdout).decode()
        assert re.search(r"service available:\s+YES", text), text
        assert not re.search(r"service available:\s+NO", text), text

    beside(server, tunnel.host, attack)


def test_nothing_is_left(server, tunnel):
    """After all of it: the connections are gone, the tunnel serves, and memory is what it was, within reason."""
    wait_until(lambda: metric(server, "kavilo_edge_connections") == 0, 3 * STEP, "the end of all connections", 0.1)
    assert server.fetch(tunnel.host, "/after").status == 200


# ---- limits by address ----


@pytest.fixture(scope="module")
def limited(module_programs, tmp_path_factory, pair):
    """A server that lets an address have 3 connections and one request a second, and believes a proxy at 127.0.0.9."""
    del pair
    args = ["--max-connections-per-address", "3", "--max-requests-per-second", "1", "--trusted-proxies", "127.0.0.9",
            "--proxy-protocol-from", "127.0.0.8"]
    made = Server(module_programs, tmp_path_factory.mktemp("limited"), args, level="info").start()
    origin = Origin()
    client = Client(module_programs, tmp_path_factory.mktemp("client"), made.endpoint, origin.url, made.user().token,
                    label="tunnel", level="info").wait_ready()
    yield made, client.host
    origin.close()


def from_address(limited, address, **how):
    return limited[0].visitor(limited[1], source=(address, 0), **how)


def test_connections_of_an_address(limited):
    """The fourth is reset; another address has its own; a place that is left is free again."""
    server, _ = limited
    held = [from_address(limited, "127.0.0.2") for _ in range(3)]
    for visitor in held:
        visitor.request("/one")
    refused = metric(server, "kavilo_edge_connections_refused_total")
    with pytest.raises(ConnectionError):
        with from_address(limited, "127.0.0.2") as visitor:
            visitor.request("/one").response()
    assert metric(server, "kavilo_edge_connections_refused_total") == refused + 1
    with from_address(limited, "127.0.0.3") as visitor:
        assert visitor.request("/other").response().status == 200
    for visitor in held:
        assert visitor.response().status == 200
        visitor.close()

    def free():
        try:
            with from_address(limited, "127.0.0.2") as visitor:
                return visitor.request("/again").response().status in (200, 429)
        except ConnectionError:
            return False

    wait_until(free, what="the end of a connection")


def statuses(visitor, count, **how):
    got = []
    for _ in range(count):
        response = visitor.request("/many", **how).response()
        response.content  # pylint: disable=pointless-statement
        got.append((response.status, response.fields.get("retry-after")))
    return got


def test_requests_of_an_address(limited):
    """A burst of five, then 429 with Retry-After, over either HTTP; the connection stays."""
    server, host = limited
    with from_address(limited, "127.0.0.4") as visitor:
        got = statuses(visitor, 8)
    assert got[:5] == [(200, None)] * 5 and (429, "1") in got[5:], got
    with from_address(limited, "127.0.0.4") as visitor:
        assert (429, "1") in statuses(visitor, 3)
    assert metric(server, "kavilo_edge_requests_limited_total") >= 2
    with FrameVisitor(server.edge) as visitor:
        for i in range(1, 17, 2):
            visitor.request(i, host)
        assert visitor.answer(15)[0] == 429


def test_addresses_behind_proxies(limited):
    """Who is behind a trusted proxy, or named by a PROXY header, is limited by his own address."""
    with from_address(limited, "127.0.0.9") as visitor:
        for i in range(1, 12):
            assert statuses(visitor, 1, fields=[("X-Forwarded-For", f"198.51.100.{i}")])[0][0] == 200
        got = statuses(visitor, 8, fields=[("X-Forwarded-For", "198.51.100.77")])
        assert (429, "1") in got, got
    held = []
    for i in range(5):
        held.append(from_address(limited, "127.0.0.8"))
        held[-1].send(b"PROXY TCP4 203.0.113.%d 127.0.0.1 1000 80\r\n" % (5 if i < 3 else 6))
        assert statuses(held[-1], 1)[0][0] == 200
    with pytest.raises(ConnectionError):
        with from_address(limited, "127.0.0.8") as visitor:
            visitor.send(b"PROXY TCP4 203.0.113.5 127.0.0.1 1000 80\r\n")
            statuses(visitor, 1)
    for visitor in held:
        visitor.close()
