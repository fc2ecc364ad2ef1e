"""
However many workers the server has, what visitors and services see is the same. The kernel picks the worker that a
connection lands on, so there are enough of them that visitors of every worker meet tunnels of every other. Under
ThreadSanitizer (`./dev tsan -k workers`) this is where a race would show.
"""

import json
import threading

import pytest

from harness.http1 import Pattern
from harness.settings import SANITIZER

WORKERS = (1, 2, 4)
TUNNELS = 4  # and two visitors at once at each
ROUNDS = 3 if not SANITIZER else 2
LARGE = Pattern(700_000, "w")

# Differ from one request to the next by their nature.
PERSONAL = {"date", "host", "via", "cdn-loop", "x-forwarded-host", "x-forwarded-for", "x-real-ip", "connection"}

# (method, target, fields, body)
TABLE = [
    ("GET", "/quick", [], None),
    ("GET", "/nothing-there?a=b", [("X-Twice", "1"), ("X-Twice", "2")], None),
    ("HEAD", "/body?size=5000", [], None),
    ("GET", f"/body?size={LARGE.size}&seed=w", [], None),
    ("GET", f"/body?size={LARGE.size}&seed=w&chunked=1", [], None),
    ("POST", "/up", [], LARGE.bytes()),
    ("PUT", "/up", [], [b"a" * 70_000, b"b", b"c" * 3]),
    ("POST", "/mirror", [], [bytes([i]) * 20_000 for i in range(9)]),
    ("GET", "/trailers", [], None),
    ("GET", "/interim", [], None),
    ("GET", "/status?code=204", [], None),
    ("GET", "/status?code=500", [], None),
    ("GET", "/sse?n=3&gap=0.01", [], None),
]


def impersonal(fields):
    return [(n.lower(), v) for n, v in fields if n.lower() not in PERSONAL]


def plain(response):
    """What of an answer has to be the same whoever asks."""
    content, fields = response.content, impersonal(response.fields)
    if response.fields.get("content-type") == "application/json":  # what the service saw
        seen = json.loads(content)
        content = {**seen, "fields": impersonal(seen["fields"]), "connection": 0, "number": 0}
        fields = [f for f in fields if f[0] != "content-length"]
    interims = [(i.status, impersonal(i.fields)) for i in response.interims]
    return response.status, fields, content, list(response.trailers), interims


def received(head):
    """What of a request has to be the same at the service."""
    lines = head.decode("latin-1").split("\r\n")
    return [lines[0]] + [line for line in lines[1:] if line.partition(":")[0].lower() not in PERSONAL]


def upgraded(visitor):
    """A raw stream both ways, both of its ends."""
    visitor.request("/upgrade", fields=[("Connection", "Upgrade"), ("Upgrade", "x")])
    status = visitor.response().status
    seen = b""
    for word in (b"abc", b"d" * 50_000):
        visitor.send(word)
        seen += visitor.source.exactly(len(word))
    visitor.end()
    return status, seen + visitor.source.to_end()


class Crowd:
    """Visitors of some tunnels at once: each goes through the whole table, on one connection and then on many."""

    def __init__(self, server, hosts):
        self.server, self.results, self.errors = server, [], []
        self.lock = threading.Lock()
        threads = [threading.Thread(target=self.visit, args=(host, i)) for i, host in enumerate(2 * hosts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def visit(self, host, number):
        try:
            for turn in range(ROUNDS):
                seen = self.on_one(host) if (number + turn) % 2 else self.on_many(host)
                with self.server.visitor(host) as visitor:
                    seen.append(upgraded(visitor))
                with self.lock:
                    self.results.append(seen)
        except Exception as error:  # pylint: disable=broad-except
            self.errors.append(error)

    def on_one(self, host):
        """A connection closes behind an answer that overtook its request, which is a matter of moments."""
        seen, visitor = [], None
        for method, target, fields, body in TABLE:
            visitor = visitor or self.server.visitor(host)
            visitor.request(target, method, fields, body)
            response = visitor.response(method)
            seen.append(plain(response))
            if not response.keeps_alive:
                visitor.close()
                visitor = None
        if visitor:
            visitor.close()
        return seen

    def on_many(self, host):
        seen = []
        for method, target, fields, body in TABLE:
            with self.server.visitor(host) as visitor:
                visitor.request(target, method, fields, body)
                seen.append(plain(visitor.response(method)))
        return seen


@pytest.mark.patience(240)
def test_results_are_the_same_for_any_number_of_workers(make_server, make_origin, make_client):
    """The first result of one worker is the measure of all."""
    answers, heads = None, None
    for workers in WORKERS:
        server = make_server("--workers", str(workers))
        token = server.user().token
        origins = [make_origin() for _ in range(TUNNELS)]
        clients = [make_client(server, origin, token) for origin in origins]
        crowd = Crowd(server, [client.host for client in clients])
        assert not crowd.errors, crowd.errors
        assert len(crowd.results) == 2 * TUNNELS * ROUNDS
        answers = answers or crowd.results[0]
        for result in crowd.results:
            for row, ours, theirs in zip(TABLE + ["upgrade"], result, answers):
                assert ours == theirs, (workers, row)
        seen = sorted({tuple(received(head)) for origin in origins for head in origin.heads})
        heads = heads or seen
        assert seen == heads, workers
        assert server.program.threads() > workers
        for client in clients:  # before the server, whose port is anybody's then
            client.program.stop()
        server.program.stop()
