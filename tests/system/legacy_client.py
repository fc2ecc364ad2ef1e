"""
A tunnel client that acts as the deployed ones do (0.1.0 to 0.1.5), weaknesses included: docs of the protocol list them,
and the server has to live with every one. It knows the base messages only and forwards to a real local service.

What it does wrong, on purpose:
- A request's body has a queue of 32 frames and no back-pressure. A frame too many, and the request dies: its body ends
  where the queue ends, as if complete, and nothing is ever sent back.
- Above 256 open request bodies a new request is dropped without a word.
- Cancel ends an unfinished body as if it were complete; after end_stream it is ignored.
- Hop-by-hop fields pass in both directions, no X-Forwarded-* is added, a GET's body is dropped unless the head carries
  transfer-encoding: chunked; 1xx answers, trailers and reason phrases are lost; upgrades have no half-close.
- Whatever ended the session, it tries again: 1, 2, 4 … 60 seconds.
"""

import queue
import socket
import threading
from urllib.parse import urlsplit

from harness import protobuf
from harness.grpclink import Link, LinkClosed
from harness.http1 import Broken, Bytes, chunk, head_bytes, read_response
from harness.wait import TooLate, wait_until

QUEUE_FRAMES = 32
OPEN_BODIES = 256
END = object()


class _Request:
    """One request: its body's queue, and whether it died of an overflow."""

    def __init__(self, request_id, head):
        self.id = request_id
        self.head = head
        self.headers = protobuf.pairs(head.get("headers"))
        self.frames = queue.Queue(QUEUE_FRAMES)
        self.sender_open = True
        self.dead = False
        self.sock = None

    def value(self, name):
        return next((v for n, v in self.headers if n == name), None)

    def body(self):
        """The frames, until their sender has gone: an end, a Cancel and an overflow all look the same from here."""
        while True:
            try:
                item = self.frames.get(timeout=0.05 if not self.sender_open else 0.2)
            except queue.Empty:
                if not self.sender_open:
                    return
                continue
            if item is END:
                return
            yield item


class LegacyClient:
    """Connects, serves and reconnects in a thread of its own until close(). `origin` is the local service's URL."""

    def __init__(self, endpoint, token, origin, name=None, takeover=None, tls=None, retry=True, version="0.1.5"):
        self.endpoint, self.token, self.origin, self.name = endpoint, token, urlsplit(origin), name
        self.takeover, self.tls, self.retry, self.version = takeover, tls, retry, version
        self.welcome = None
        self.sessions = 0
        self.refusals = []  # (grpc-status, grpc-message) of each failed try
        self.dropped = []  # ids of requests over OPEN_BODIES
        self.overflowed = []  # ids of requests that died of their queue
        self.requests = {}
        self.frames_of = {}  # id -> data frames received, for what a test has to say about coalescing
        self.link = None
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()

    def connected(self, sessions=1):
        wait_until(lambda: self.sessions >= sessions, what=f"session {sessions} of the deployed client {self.refusals}")
        return self

    @property
    def host(self):
        return urlsplit(self.welcome["public_url"]).hostname

    # ---- session ----

    def _run(self):
        delay = 1
        while not self.stopping.is_set():
            if self._session():
                delay = 1
            if not self.retry:
                return
            self.stopping.wait(delay)
            delay = min(60, delay * 2)

    def _session(self):
        """One session from dialling to its end; True if it got as far as Welcome."""
        worked = False
        try:
            self.link = link = Link.dial(self.endpoint, tls=self.tls)
            hello = {"token": self.token}
            if self.name is not None:
                hello["name"] = self.name
            hello["client_version"] = self.version
            if self.takeover:
                hello["takeover"] = True
            self._send(link, 0, hello=hello)
            while True:
                frame = protobuf.decode("ServerFrame", link.next_message(3600), protobuf.BASE)
                if "welcome" in frame:
                    self.welcome = frame["welcome"]
                    worked = True
                    self.sessions += 1
                else:
                    self._frame(link, frame)
        except (LinkClosed, OSError, TooLate):
            if self.link is not None and not worked:
                try:
                    self.refusals.append(self.link.status(0.1))
                except (AssertionError, LinkClosed):
                    pass
        finally:
            if self.link is not None:
                self.link.close()
            for request in list(self.requests.values()):
                request.sender_open = False
            self.requests.clear()
        return worked

    def _send(self, link, request_id, **frame):
        whole = {"request_id": request_id, **frame} if request_id else frame
        link.send_message(protobuf.encode("ClientFrame", whole, protobuf.BASE), timeout=3600)

    def _frame(self, link, frame):
        request_id = frame.get("request_id", 0)
        if "ping" in frame:
            self._send(link, 0, pong=frame["ping"])
        elif "request_head" in frame:
            self._open(link, _Request(request_id, frame["request_head"]))
        elif "data" in frame:
            self._data(request_id, frame["data"])
        elif "cancel" in frame:
            if request_id == 0:
                raise LinkClosed("cancelled by the server")
            request = self.requests.pop(request_id, None)
            if request is not None:
                request.sender_open = False

    def _open(self, link, request):
        if len(self.requests) >= OPEN_BODIES:
            self.dropped.append(request.id)
            return
        self.requests[request.id] = request
        self.frames_of[request.id] = 0
        serve = self._upgrade if request.head.get("is_upgrade") else self._forward
        threading.Thread(target=self._guarded, args=(serve, link, request), daemon=True).start()

    def _data(self, request_id, data):
        request = self.requests.get(request_id)
        if request is None:
            return
        self.frames_of[request_id] += 1
        try:
            if data.get("data"):
                request.frames.put_nowait(data["data"])
            if data.get("end_stream"):
                if not data.get("data"):
                    request.frames.put_nowait(END)
                request.sender_open = False
                del self.requests[request_id]
        except queue.Full:
            self.overflowed.append(request_id)
            request.dead = True
            request.sender_open = False
            del self.requests[request_id]

    # ---- the local side ----

    def _guarded(self, serve, link, request):
        try:
            serve(link, request)
        except (LinkClosed, TooLate):
            pass
        except (Broken, OSError) as error:
            self._error(link, request, 0, str(error))
        finally:
            if request.sock is not None:
                request.sock.close()

    def _error(self, link, request, code, message):
        if request.dead:
            return
        try:
            self._send(link, request.id, error={"code": code, "message": message})
        except (LinkClosed, TooLate):
            pass

    def _connect(self, link, request):
        try:
            request.sock = socket.create_connection((self.origin.hostname, self.origin.port), timeout=10)
            return True
        except OSError as error:
            code = 2 if isinstance(error, TimeoutError) else 1
            url = f"{self.origin.scheme}://{self.origin.netloc}{request.head.get('path', '/')}"
            self._error(link, request, code, f"error sending request for url ({url})")
            return False

    def _forward(self, link, request):
        if not self._connect(link, request):
            return
        method = request.head.get("method", "GET")
        chunked = request.value("transfer-encoding") == "chunked"
        length = None if chunked else request.value("content-length")
        has_body = length is not None or chunked or method not in ("GET", "HEAD")
        if method in ("GET", "HEAD") and not chunked:
            has_body = False
        fields = [(n, v) for n, v in request.headers if not (chunked and n == "content-length")]
        if has_body and length is None and not chunked:
            chunked = True
            fields.append(("transfer-encoding", "chunked"))
        request.sock.sendall(head_bytes(f"{method} {request.head.get('path', '/')} HTTP/1.1".encode("latin-1"), fields))
        request.sock.settimeout(None)
        reader = threading.Thread(target=self._guarded, args=(self._answer, link, request), daemon=True)
        reader.start()
        if has_body:
            self._upload(request, chunked, length)
        reader.join()

    @staticmethod
    def _upload(request, chunked, length):
        sent = 0
        try:
            for piece in request.body():
                request.sock.sendall(chunk(piece) if chunked else piece)
                sent += len(piece)
            if chunked:
                request.sock.sendall(b"0\r\n\r\n")
            elif sent < int(length):
                request.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # a service that answers early and closes; its answer is still read

    def _answer(self, link, request):
        source = Bytes(request.sock, None)
        response = read_response(source, request.head.get("method", "GET"))
        self._head(link, request, response)
        for piece in response.body:
            self._reply(link, request, data={"data": piece})
        self._reply(link, request, data={"end_stream": True})

    def _head(self, link, request, response, **more):
        headers = protobuf.headers([(n.lower(), v) for n, v in response.fields])
        self._reply(link, request, response_head={"status": response.status, "headers": headers, **more})

    def _reply(self, link, request, **frame):
        if not request.dead:
            self._send(link, request.id, **frame)

    def _upgrade(self, link, request):
        if not self._connect(link, request):
            return
        request.sock.settimeout(None)
        line = f"{request.head.get('method', 'GET')} {request.head.get('path', '/')} HTTP/1.1".encode("latin-1")
        request.sock.sendall(head_bytes(line, request.headers))
        source = Bytes(request.sock, None)
        response = read_response(source)
        if response.status != 101:
            self._head(link, request, response)
            for piece in response.body:
                self._reply(link, request, data={"data": piece})
            self._reply(link, request, data={"end_stream": True})
            return
        self._head(link, request, response, upgraded=True)

        def inbound():
            try:
                for piece in request.body():
                    request.sock.sendall(piece)
                request.sock.shutdown(socket.SHUT_RDWR)  # no half-close: the visitor's end ends both directions
            except OSError:
                pass

        threading.Thread(target=inbound, daemon=True).start()
        try:
            while True:
                self._reply(link, request, data={"data": source.some()})
        except Broken:
            pass
        self._reply(link, request, data={"end_stream": True})

    def close(self):
        self.stopping.set()
        self.retry = False
        if self.link is not None:
            self.link.close()
