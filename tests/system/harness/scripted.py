"""A tunnel server that does nothing by itself, for tests of the client: the test reads its Hello and sends every frame."""

import queue
import time

import h2.exceptions

from . import protobuf
from .grpclink import LinkListener
from .settings import STEP
from .wait import TooLate


class ScriptedSession:
    """One try of a client, its Hello read."""

    def __init__(self, link, hello):
        self.link, self.hello = link, hello
        self.arrived = time.monotonic()
        self.next_id = 1

    def welcome(self, features=protobuf.ALL_FEATURES, initial_credit=65536, subdomain="app-alice-7f0c", **more):
        self.link.send_headers([(":status", "200"), ("content-type", "application/grpc")])
        message = {"subdomain": subdomain, "public_url": f"https://{subdomain}.tnl.test/", "max_concurrent_requests": 256}
        if features is not None:
            message.update(features=features, initial_credit=initial_credit, session_id="0123456789abcdef")
        message.update(more)
        self.send(welcome=message)
        return self

    def refuse(self, status, message=""):
        """A trailers-only answer, then the end of the connection."""
        self.link.send_headers(
            [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", str(status)), ("grpc-message", message)],
            end_stream=True,
        )

    def end(self, status=0, message=""):
        """Trailers behind a session, unless the client has ended it already."""
        try:
            self.link.send_headers([("grpc-status", str(status)), ("grpc-message", message)], end_stream=True)
        except h2.exceptions.ProtocolError:
            pass

    def send(self, request_id=0, **frame):
        whole = {"request_id": request_id, **frame} if request_id else frame
        self.link.send_message(protobuf.encode("ServerFrame", whole))

    def receive(self, seconds=STEP):
        """The next frame that is no Ping; Pings are answered."""
        while True:
            frame = protobuf.decode("ClientFrame", self.link.next_message(seconds))
            if "ping" not in frame:
                return frame
            self.send(pong=frame["ping"])

    def expect(self, kind, request_id=None, seconds=STEP):
        frame = self.receive(seconds)
        assert kind in frame, f"{kind} expected: {str(frame)[:300]}"
        if request_id is not None:
            assert frame.get("request_id", 0) == request_id, frame
        return frame[kind]

    def quiet(self, seconds=0.3):
        try:
            frame = self.receive(seconds)
        except TooLate:
            return
        raise AssertionError(f"silence expected: {str(frame)[:300]}")

    def request(self, method="GET", path="/", fields=(), body=b"", end=True, host="app.tnl.test", **more):
        """Opens a request; its id."""
        request_id = self.next_id
        self.next_id += 1
        head = {
            "method": method,
            "path": path,
            "headers": protobuf.headers([("host", host)] + list(fields)),
            "remote_addr": "203.0.113.7:4567",
            **more,
        }
        self.send(request_id, request_head=head)
        if body:
            self.send(request_id, data={"data": body})
        if end:
            self.send(request_id, data={"end_stream": True})
        return request_id

    def answer(self, request_id):
        """(head, body, trailers) of a whole answer; Credit frames, and what confirms the end of others, are skipped."""
        head, body = None, b""
        while True:
            frame = self.receive()
            if "credit" in frame or ("reset" in frame and frame["request_id"] != request_id):
                continue
            assert frame.get("request_id") == request_id, frame
            if "response_head" in frame:
                head = frame["response_head"]
            elif "trailers" in frame:
                return head, body, protobuf.pairs(frame["trailers"].get("headers"))
            else:
                assert "data" in frame, frame
                body += frame["data"].get("data", b"")
                if frame["data"].get("end_stream"):
                    return head, body, []


class ScriptedServer:
    """Listens; next() is the next client's try."""

    def __init__(self, tls=None):
        self.tries = queue.Queue()
        self.listener = LinkListener(self._accepted, tls=tls)
        self.endpoint = self.listener.endpoint

    def _accepted(self, link):
        hello = protobuf.decode("ClientFrame", link.next_message())["hello"]
        self.tries.put(ScriptedSession(link, hello))

    def next(self, seconds=STEP):
        try:
            return self.tries.get(timeout=seconds)
        except queue.Empty:
            raise TooLate(f"no client within {seconds} s") from None

    def close(self):
        self.listener.close()
