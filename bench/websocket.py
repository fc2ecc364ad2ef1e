"""
Round trips through WebSocket: a service that echoes, and visitors that each send a small message, wait for it to come
back, and send the next. Both are small event loops in processes of their own; messages are whole frames of 32 bytes.
"""

import multiprocessing
import selectors
import socket
import statistics
import time

import proc
from load import P50, P99, cpu_figures
from programs import fail

TEXT = b"0123456789abcdef0123456789abcdef"
REPLY = bytes([0x82, len(TEXT)]) + TEXT
MASKED = bytes([0x82, 0x80 | len(TEXT), 0, 0, 0, 0]) + TEXT  # a mask of zeros is a mask
SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")  # for the key of RFC 6455, 1.3
ROUND_TRIPS = "round trips/s"


def _serve(listener):
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    switched, partial = set(), {}
    while True:
        for key, _ in selector.select():
            s = key.fileobj
            if s is listener:
                s, _ = listener.accept()
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(s, selectors.EVENT_READ)
                partial[s] = b""
                continue
            try:
                data = s.recv(65536)
            except OSError:
                data = b""
            if not data:
                selector.unregister(s)
                s.close()
                switched.discard(s)
                del partial[s]
                continue
            data = partial[s] + data
            if s not in switched:
                partial[s] = data
                if data.endswith(b"\r\n\r\n"):
                    switched.add(s)
                    partial[s] = b""
                    s.sendall(SWITCH)
            else:
                whole = len(data) // len(MASKED)
                partial[s] = data[whole * len(MASKED):]
                s.sendall(REPLY * whole)


class Echo:
    """The service, in a process of its own; `with` ends it."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.process = multiprocessing.Process(target=_serve, args=(self.listener,), daemon=True)
        self.process.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()
        self.listener.close()


def _connect(way):
    s = socket.create_connection(("127.0.0.1", way.port), 10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.sendall(f"GET /ws HTTP/1.1\r\nHost: {way.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = s.recv(1)
        if not more:
            fail(f"{way.name}: no WebSocket: {head!r}")
        head += more
    if not head.startswith(b"HTTP/1.1 101 "):
        fail(f"{way.name}: no WebSocket: {head!r}")
    return s


def round_trips(way, connections, seconds):
    """One run: {figure: number}."""
    sockets = [_connect(way) for _ in range(connections)]
    poll = selectors.DefaultSelector()
    sent, times = {}, []
    meter = proc.Meter(way.processes)
    begin = now = time.perf_counter()
    for s in sockets:
        poll.register(s, selectors.EVENT_READ)
        sent[s] = now
        s.sendall(MASKED)
    while now - begin < seconds:
        ready = poll.select(10)
        if not ready:
            fail(f"{way.name}: a WebSocket message was lost")
        for key, _ in ready:
            s = key.fileobj
            data = s.recv(65536)
            while 0 < len(data) < len(REPLY):
                data += s.recv(65536)
            if data != REPLY:
                fail(f"{way.name}: a WebSocket echoed {data!r}")
            now = time.perf_counter()
            times.append(now - sent[s])
            sent[s] = now
            s.sendall(MASKED)
    spent = cpu_figures(meter, len(times))
    for s in sockets:
        s.close()
    times.sort()
    return {ROUND_TRIPS: len(times) / (now - begin), P50: statistics.median(times) * 1000,
            P99: times[len(times) * 99 // 100] * 1000, **spent}
