"""
Flow control under load: who does not read slows down nobody else, memory stays where the limits say, everything that
was granted comes back, and a long way is filled. Other tests run beside these, so that rates say little: looked at is what
requests cost, and a long way's rate only coarsely. With KAVILO_FLOW=full (`./dev bench --only flow`) sizes and bars are
those of docs/PERFORMANCE.md, for a machine with nothing else to do.
"""

import re
import shutil
import socket
import statistics
import subprocess
import threading
import time

import pytest

from harness import delay, front
from harness.origin import Origin
from harness.process import RssMeter
from harness.settings import FULL, MiB, SANITIZER, STEP
from harness.tunnel import Client
from harness.wait import wait_until

from test_ops import Metrics

STALLED = 64
SIZE = 256 * MiB
ROUNDS, SECONDS = (5, 5) if FULL else (1, 1)
KEPT = 0.9  # of the rate, beside stalled visitors
ALONG, TRIES = (0.8, 3) if FULL else (0.4, 5)  # of one TCP connection's rate on a long way
TRIP = 0.1

COST = 2  # times the processor time of a request alone: a stalled exchange is not looked at again and again

# As in src/base/limits.h and docs/FLOW-CONTROL.md: an exchange and direction takes its window and a read, a connection
# its unsent output and a frame.
LIMIT_WINDOW, LIMIT_WINDOW_MAX, LIMIT_READ = 64 * 1024, 4 * MiB, 64 * 1024
CONNECTION = 320 * 1024
SLACK = 8 * MiB  # what malloc and the libraries keep


def report(text):
    if FULL:
        print(f"\n  {text}", flush=True)


def shown(ratios):
    return " ".join(f"{r:.2f}" for r in ratios)


def grown(meter):
    return ", ".join(f"{p.name} grew by {(meter.peak[p] - meter.start[p]) / MiB:.1f} MiB" for p in meter.programs)


# ---- a service as fast as nginx, with places where nothing moves ----


class Service:
    """nginx with /body (1 KiB) and /bulk (a large file); /stall goes to a service that reads nothing behind a head."""

    def __init__(self, programs, folder):
        if why := front.missing(front.NGINX):
            pytest.skip(why)
        www = folder / "www"
        www.mkdir(parents=True)
        (www / "body").write_bytes(b"x" * 1024)
        with open(www / "bulk", "wb") as f:
            f.truncate(SIZE)
        self.stall = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.nginx = front.nginx(programs, folder, lambda address: f"""
            types {{ }} keepalive_requests 10000000; client_max_body_size 0;
            server {{
                listen {address};
                location / {{ root {www}; }}
                location /stall {{
                    proxy_pass http://127.0.0.1:{self.stall.getsockname()[1]};
                    proxy_request_buffering off; proxy_http_version 1.1;
                }}
            }}""")
        self.url = "http://%s:%d" % self.nginx.address


@pytest.fixture
def service(programs, tmp_path):
    made = Service(programs, tmp_path / "service")
    yield made
    made.stall.close()


@pytest.fixture
def fast_tunnel(make_server, make_client, service):
    """A server, a client and the service, logging as in earnest. Whatever they do, they end with nothing left over."""
    server = make_server("--max-concurrent", "1000", level="info")
    return server, make_client(server, service.url, server.user().token, level="info")


def wrk(server, client, seconds):
    """32 visitors, and every answer is right: requests a second, and processor time of both programs a request."""
    before = server.program.processor_seconds() + client.program.processor_seconds()
    done = subprocess.run(["wrk", "-t1", "-c32", f"-d{seconds}s", "--timeout", "10s", "-H", f"Host: {client.host}",
                           "http://%s:%d/body" % server.edge], capture_output=True, text=True, check=True, timeout=60)
    assert "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout, done.stdout
    spent = server.program.processor_seconds() + client.program.processor_seconds() - before
    rate, count = (float(re.search(what, done.stdout)[1]) for what in (r"Requests/sec:\s+([\d.]+)", r"(\d+) requests in"))
    return rate, spent / count


class Stalled:
    """Visitors in the middle of a transfer that take nothing, or whose service takes nothing."""

    def __init__(self, server, host, upload):
        self.visitors = []
        for _ in range(STALLED):
            visitor = server.visitor(host, buffer_size=16384)
            self.visitors.append(visitor)
            if upload:
                visitor.request("/stall", "POST", [("Content-Length", str(SIZE))])
            else:
                visitor.request("/bulk")
                visitor.response().body.source.exactly(100_000)
        if upload:
            self.fill()

    def fill(self):
        """Every visitor sends until nothing more is taken for a while."""
        block = bytes(65536)
        for visitor in self.visitors:
            visitor.sock.setblocking(False)
        quiet = time.monotonic()
        while time.monotonic() - quiet < 0.3:
            for visitor in self.visitors:
                try:
                    visitor.sock.send(block)
                    quiet = time.monotonic()
                except BlockingIOError:
                    pass
            time.sleep(0.005)  # the pace of the attempts

    def leave(self, service):
        """The visitors go, and whoever read nothing of them, too: a socket that is not read does not tell that its peer
        has gone, so by itself a stalled upload ends with the deadline for progress."""
        for visitor in self.visitors:
            visitor.abort()
        service.stall.setblocking(False)
        try:
            while True:
                service.stall.accept()[0].close()
        except BlockingIOError:
            pass


def nothing_is_booked(server):
    """Every credit and every chunk of an exchange is back."""
    m = Metrics(server)
    return m("kavilo_credit_granted_bytes") == 0


@pytest.mark.first
@pytest.mark.patience(240)
@pytest.mark.parametrize("upload", [False, True], ids=["downloads", "uploads"])
def test_stalled_transfers_hold_up_nobody(fast_tunnel, service, upload):
    server, client = fast_tunnel
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    wrk(server, client, 1)
    meter = RssMeter(server.program, client.program)
    idle_chunks = Metrics(server)("kavilo_chunks_live")
    rates, costs, granted = [], [], 0
    for _ in range(ROUNDS):
        alone = wrk(server, client, SECONDS)
        stalled = Stalled(server, client.host, upload)
        beside = wrk(server, client, SECONDS)
        rates.append(beside[0] / alone[0])
        costs.append(beside[1] / alone[1])
        granted = max(granted, Metrics(server)("kavilo_credit_granted_bytes"))
        assert STALLED * 2 * LIMIT_WINDOW <= granted <= STALLED * 2 * LIMIT_WINDOW_MAX
        # Both directions are booked, and the client books the same.
        bound = granted + STALLED * 2 * LIMIT_READ + (STALLED + 32) * 2 * CONNECTION
        meter.sample()
        meter.check(bound + SLACK)
        stalled.leave(service)
        wait_until(lambda: nothing_is_booked(server), STEP, "all credit is back")
        wait_until(lambda: Metrics(server)("kavilo_chunks_live") <= idle_chunks + 2, STEP, "all chunks are freed")
    report(f"{STALLED} stalled {'uploads' if upload else 'downloads'}: {shown(rates)} of the rate kept, {shown(costs)} of "
           f"the processor time a request; granted {granted / MiB:.1f} MiB, bound {bound / MiB:.0f} MiB; {grown(meter)}")
    if not SANITIZER:  # they are slow to fill the sockets' buffers, and are at it still
        assert statistics.median(costs) <= COST, costs
    if FULL:
        assert statistics.median(rates) >= KEPT, rates


# ---- large bodies ----


@pytest.mark.patience(600)
@pytest.mark.skipif(not FULL, reason="10 GiB each way: KAVILO_FLOW=full; test_bodies.py has 256 MiB")
@pytest.mark.parametrize("upload", [False, True], ids=["down", "up"])
def test_ten_gibibytes_at_flat_memory(make_server, make_client, make_origin, upload):
    size = 10 * 1024 * MiB
    block = bytes(MiB)

    def handler(ex):
        if upload:
            got, left = memoryview(bytearray(MiB)), size - len(ex.connection.source.buffer)
            while left:
                left -= ex.connection.sock.recv_into(got, min(left, MiB))
            ex.connection.source.buffer, ex.body.complete = b"", True
            ex.reply(b"all")
        else:
            ex.head(200, [("Content-Length", str(size))])
            for _ in range(size // len(block)):
                ex.send(block)

    server = make_server()
    client = make_client(server, make_origin(handler), server.user().token, level="info")
    meter, begin = RssMeter(server.program, client.program), time.monotonic()
    with server.visitor(client.host) as visitor:
        if upload:
            visitor.request("/", "POST", [("Content-Length", str(size))])
            for _ in range(size // len(block)):
                visitor.send(block)
                meter.sample()
            assert visitor.response().content == b"all"
        else:
            visitor.request("/")
            response, got = visitor.response(), memoryview(bytearray(MiB))
            left = size - len(response.body.source.buffer)
            while left:
                left -= visitor.sock.recv_into(got, min(left, MiB))
                meter.sample()
    seconds = time.monotonic() - begin
    meter.check(24 * MiB)
    report(f"10 GiB {'up' if upload else 'down'} in {seconds:.0f} s: {grown(meter)}")
    wait_until(lambda: nothing_is_booked(server), STEP, "all credit is back")


# ---- a long way ----


def receive(sock, size):
    """Seconds that size bytes took to come."""
    begin, got, buffer = time.monotonic(), 0, bytearray(MiB)
    sock.settimeout(STEP * 3)
    while got < size:
        n = sock.recv_into(buffer, min(MiB, size - got))
        assert n, f"closed after {got} of {size} bytes"
        got += n
    return time.monotonic() - begin


def send(sock, size):
    sock.settimeout(STEP * 3)
    for _ in range(size // MiB):
        sock.sendall(bytes(MiB))


class Plain:
    """One TCP connection from `near` to `far` and back: what the way itself gives."""

    def __init__(self, near, far):
        listener = far.inside(lambda: socket.create_server((far.address, 0)))
        self.near = near.inside(lambda: socket.create_connection((far.address, listener.getsockname()[1]), STEP))
        self.far = listener.accept()[0]
        listener.close()

    def seconds(self, size, upload):
        source, sink = (self.near, self.far) if upload else (self.far, self.near)
        thread = threading.Thread(target=send, args=(source, size))
        thread.start()
        took = receive(sink, size)
        thread.join()
        for s in (self.near, self.far):
            s.close()
        return took


@pytest.mark.first
@pytest.mark.patience(300)
@pytest.mark.skipif(bool(delay.unavailable()), reason=str(delay.unavailable()))
@pytest.mark.skipif(bool(SANITIZER), reason="says how fast, which sanitized programs are not")
def test_one_transfer_fills_a_long_way(namespaces, programs, make_server, make_client, tmp_path):
    """100 ms there and back between server and client. A window that did not grow would be 64 KiB each 100 ms: 2 % of
    what TCP reaches here."""
    near, far = namespaces.long_pair(programs, tmp_path / "delay", TRIP / 2)
    server = make_server(wrap=near.wrap, control=f"{near.address}:0")
    user = server.user()
    size = (256 if FULL else 32) * MiB
    done = threading.Event()

    def handler(ex):
        if ex.request.method == "POST":
            left = size - len(ex.connection.source.buffer)
            receive(ex.connection.sock, left)
            ex.connection.source.buffer, ex.body.complete = b"", True
            done.set()
            ex.reply(b"all")
        else:
            ex.head(200, [("Content-Length", str(size))])
            send(ex.connection.sock, size)

    service = far.inside(lambda: Origin(handler))
    client: Client = make_client(server, service.url, user.token, wrap=far.wrap)

    def through_tunnel(upload):
        visitor = near.inside(lambda: server.visitor(client.host, timeout=STEP * 3))
        begin = time.monotonic()
        if upload:
            visitor.request("/", "POST", [("Content-Length", str(size))])
            send(visitor.sock, size)
            assert visitor.response().content == b"all"
        else:
            visitor.request("/")
            receive(visitor.sock, size - len(visitor.response().body.source.buffer))
        visitor.close()
        return time.monotonic() - begin

    try:
        for upload in (False, True):
            ratios = []
            for _ in range(TRIES):
                plain = Plain(near, far).seconds(size, upload)
                ratios.append(plain / through_tunnel(upload))
                if not FULL and ratios[-1] >= ALONG:
                    break
            report(f"{size // MiB} MiB {'up' if upload else 'down'} over {TRIP * 1000:.0f} ms: "
                   f"{shown(ratios)} of one TCP connection's rate, lately {size / MiB / plain:.1f} MiB/s")
            assert (statistics.median(ratios) if FULL else max(ratios)) >= ALONG, (upload, ratios)
    finally:
        service.close()
