"""
A tunnel server that acts as the deployed ones do: it knows the base messages only, announces no features, adds the
X-Forwarded-* fields itself, sends RequestHead, DataChunks and a final end_stream (for a GET too), and drops frames of
requests it no longer knows. What its public edge would do, a test does with request(): there is no listener for
visitors, so that the frames of each request stay in the test's hand.
"""

import queue
import threading
import time

import h2.exceptions

from harness import protobuf
from harness.grpclink import LinkClosed, LinkListener
from harness.settings import STEP
from harness.wait import TooLate, wait_until

ANNOUNCED_MAX = 256


class LegacyExchange:
    """One request in flight; head() and body() read the answer."""

    def __init__(self, session, request_id):
        self.session, self.id = session, request_id
        self.frames = queue.Queue()
        self.status = None
        self.headers = None
        self.upgraded = False

    def send(self, data):
        self.session.send(self.id, data={"data": data})

    def end(self):
        self.session.send(self.id, data={"end_stream": True})

    def cancel(self, reason=1):
        """A visitor has gone: the id is forgotten here, later frames are dropped."""
        self.session.exchanges.pop(self.id, None)
        self.session.send(self.id, cancel={"reason": reason})

    def frame(self, seconds=STEP):
        try:
            frame = self.frames.get(timeout=seconds)
        except queue.Empty:
            raise TooLate(f"no frame for request {self.id} within {seconds} s") from None
        if frame is None:
            raise LinkClosed("the session ended")
        return frame

    def head(self, seconds=STEP):
        frame = self.frame(seconds)
        assert "response_head" in frame, frame
        self.status = frame["response_head"].get("status", 0)
        self.headers = protobuf.pairs(frame["response_head"].get("headers"))
        self.upgraded = frame["response_head"].get("upgraded", False)
        return self

    def pieces(self, seconds=STEP):
        while True:
            frame = self.frame(seconds)
            assert "data" in frame, frame
            if frame["data"].get("data"):
                yield frame["data"]["data"]
            if frame["data"].get("end_stream"):
                self.session.exchanges.pop(self.id, None)
                return

    def body(self):
        return b"".join(self.pieces())

    def value(self, name):
        return next((v for n, v in self.headers if n == name), None)

    def error(self, seconds=STEP):
        """The Error that came instead of an answer, or of the rest of one."""
        while True:
            frame = self.frame(seconds)
            if "error" in frame:
                return frame["error"]
            assert "data" in frame and not frame["data"].get("end_stream"), frame


class LegacySession:
    """One connected client."""

    def __init__(self, server, link, hello):
        self.server, self.link, self.hello = server, link, hello
        self.exchanges = {}
        self.next_id = 1
        self.pongs = []
        self.unknown = []  # frames that a base peer cannot read: an honest client never sends them
        self.ended = threading.Event()

    def send(self, request_id=0, **frame):
        whole = {"request_id": request_id, **frame} if request_id else frame
        self.link.send_message(protobuf.encode("ServerFrame", whole, protobuf.BASE))

    def request(self, method="GET", path="/", headers=(), body=b"", remote_addr="203.0.113.7:4567", upgrade=False,
                host="app.tnl.test", end=True):
        exchange = LegacyExchange(self, self.next_id)
        self.next_id += 1
        self.exchanges[exchange.id] = exchange
        address = remote_addr.rpartition(":")[0].strip("[]")
        fields = [("host", host)] + list(headers)
        fields += [("x-forwarded-for", address), ("x-forwarded-proto", "https"), ("x-forwarded-host", host)]
        head = {"method": method, "path": path, "headers": protobuf.headers(fields), "remote_addr": remote_addr}
        if upgrade:
            head["is_upgrade"] = True
        self.send(exchange.id, request_head=head)
        for piece in [body] if isinstance(body, bytes) else body:
            if piece:
                exchange.send(piece)
        if end and not upgrade:
            exchange.end()
        return exchange

    def ping(self, nonce=42):
        self.send(ping={"nonce": nonce})
        wait_until(lambda: nonce in self.pongs, what=f"Pong {nonce}")

    def run(self):
        try:
            while True:
                message = self.link.next_message(3600)
                frame = protobuf.decode("ClientFrame", message, protobuf.BASE)
                kind = protobuf.kind_of(frame)
                if kind is None:
                    self.unknown.append(protobuf.decode("ClientFrame", message, protobuf.FULL))
                elif kind == "pong":
                    self.pongs.append(frame["pong"].get("nonce", 0))
                elif kind in ("response_head", "data", "error") and frame.get("request_id") in self.exchanges:
                    self.exchanges[frame["request_id"]].frames.put(frame)
        except (LinkClosed, OSError):
            pass
        for exchange in list(self.exchanges.values()):
            exchange.frames.put(None)
        self.ended.set()


class LegacyServer:
    """Listens for tunnel clients. `tokens` are the valid ones; `sessions` all clients so far, newest last."""

    def __init__(self, tokens=("token",), base_host="tnl.test", tls=None, settings=None):
        self.tokens, self.base_host = set(tokens), base_host
        self.refuse_with = None  # (grpc-status, grpc-message) for every Hello from now on
        self.sessions = []
        self.hellos = []  # (time, hello) of every try
        self.live = {}
        self.listener = LinkListener(self._accepted, tls=tls, settings=settings)
        self.endpoint = self.listener.endpoint

    def _refuse(self, link, status, message):
        link.send_headers(
            [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", str(status)),
             ("grpc-message", message)],
            end_stream=True,
        )
        link.wait(lambda: link.over or link.ended, STEP, "the refused client's end")
        link.close()

    def _accepted(self, link):
        try:
            hello = protobuf.decode("ClientFrame", link.next_message(10), protobuf.BASE).get("hello", {})
            self.hellos.append((time.monotonic(), hello))
            if self.refuse_with:
                return self._refuse(link, *self.refuse_with)
            if hello.get("token") not in self.tokens:
                return self._refuse(link, 7, "invalid token")
            name = hello.get("name")
            subdomain = f"{name}-alice-7f0c" if name else f"quick-fox-{3947 + len(self.sessions)}"
            if subdomain in self.live:
                return self._refuse(link, 6, f"tunnel '{name}' is already connected from another client")
            session = LegacySession(self, link, hello)
            link.send_headers([(":status", "200"), ("content-type", "application/grpc")])
            session.send(
                welcome={
                    "subdomain": subdomain,
                    "public_url": f"https://{subdomain}.{self.base_host}/",
                    "max_concurrent_requests": ANNOUNCED_MAX,
                }
            )
            self.live[subdomain] = session
            self.sessions.append(session)
            session.run()
            del self.live[subdomain]
        except (LinkClosed, TooLate, OSError, h2.exceptions.ProtocolError):
            pass
        return None

    def session(self, count=1, seconds=STEP):
        """The count-th session, waited for."""
        wait_until(lambda: len(self.sessions) >= count, seconds, f"session {count} at the deployed server")
        return self.sessions[count - 1]

    def close(self):
        self.listener.close()
