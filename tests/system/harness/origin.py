"""
Local services that a test controls to the byte. An Origin accepts connections, parses requests with the strict reader
of http1.py, records them and gives each to `handler(exchange)` in the connection's own thread.

`app` is the handler most tests use: it picks what to do by the path (see its table at the end of the file).
"""

import json
import socket
import ssl
import threading
import time
from urllib.parse import parse_qs

from .http1 import Body, Broken, Bytes, Fields, Pattern, Request, body_framing, chunk, head_bytes
from .settings import STEP
from .wait import wait_until


class Exchange:
    """One request on one connection. `number` counts the requests of the connection from 1."""

    def __init__(self, origin, connection, request, number):
        self.origin, self.connection, self.request, self.number = origin, connection, request, number
        framing, length = body_framing(request.fields)
        self.body = Body(connection.source, framing or "length", length)
        self.arrived = time.monotonic()
        self.error = None  # a Broken of the connection while the exchange ran
        self.over = False
        self.keep = (request.fields.get("connection") or "").lower() != "close"

    @property
    def path(self):
        return self.request.path

    @property
    def args(self):
        return {k: v[-1] for k, v in parse_qs(self.request.query).items()}

    def send(self, data):
        try:
            self.connection.sock.sendall(data)
        except (OSError, ssl.SSLError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error

    def head(self, status=200, fields=(), reason="OK"):
        self.send(head_bytes(f"HTTP/1.1 {status} {reason}".encode(), fields))

    def reply(self, content=b"", status=200, fields=(), reason="OK"):
        """A whole answer with Content-Length."""
        if isinstance(content, str):
            content = content.encode()
        head = head_bytes(f"HTTP/1.1 {status} {reason}".encode(), list(fields) + [("Content-Length", str(len(content)))])
        self.send(head + (b"" if self.request.method == "HEAD" else content))

    def reply_json(self, value, status=200, fields=()):
        self.reply(json.dumps(value), status, list(fields) + [("Content-Type", "application/json")])

    def visitor_gone(self, seconds=STEP):
        """Waits until the connection is closed from the other side; nothing may come before that."""
        self.connection.sock.settimeout(seconds)
        return self.connection.source.at_end()

    def close(self, abort=False):
        self.keep = False
        self.connection.close(abort)


class Connection:
    def __init__(self, sock, peer, number):
        self.sock, self.peer, self.number = sock, peer, number
        self.source = Bytes(sock, 3600)  # a pooled connection may wait for its next request
        self.closed = False

    def close(self, abort=False):
        if abort:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        else:
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.sock.close()
        self.closed = True


class Origin:
    """See the top of the file. `host` decides the family; tls is an ssl.SSLContext; `raw` gets (connection) and does
    everything itself, unparsed."""

    def __init__(self, handler=None, host="127.0.0.1", tls=None, raw=None, port=0, backlog=512):
        self.handler = handler or app
        self.raw = raw
        self.tls = tls
        self.host = host
        self.exchanges = []
        self.connections = []
        self.open = 0
        self.heads = []  # raw heads in order of arrival
        self.surprises = []  # what no service may ever receive: bytes that are no HTTP/1.1, exceptions of a handler
        self.lock = threading.Lock()
        self.release = threading.Event()  # for handlers that wait until the test says so
        self.socket = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=backlog
        )
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return self.url_of(f"[{self.host}]" if ":" in self.host else self.host)

    def url_of(self, host):
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def _accept(self):
        while True:
            try:
                sock, peer = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(sock, peer), daemon=True).start()

    def _connection(self, sock, peer):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            connection = Connection(sock, peer, len(self.connections) + 1)
            self.connections.append(connection)
            self.open += 1
        try:
            if self.tls:
                sock.settimeout(STEP)
                sock = self.tls.wrap_socket(sock, server_side=True)
                connection.sock, connection.source = sock, Bytes(sock, 3600)
            if self.raw:
                self.raw(connection)
            else:
                self._requests(connection)
        except (Broken, OSError, ssl.SSLError):
            pass
        except Exception as error:  # pylint: disable=broad-except
            self.surprises.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()
            with self.lock:
                self.open -= 1

    def _requests(self, connection):
        number = 0
        while not connection.closed:
            try:
                raw = connection.source.until(b"\r\n\r\n")
            except Broken:
                if connection.source.buffer:
                    self.surprises.append(f"half a head: {connection.source.buffer[:200]!r}")
                return
            number += 1
            self.heads.append(raw)
            try:
                exchange = Exchange(self, connection, Request(raw), number)
            except Broken as error:
                self.surprises.append(f"{error}: {raw[:300]!r}")
                return
            self.exchanges.append(exchange)
            try:
                self.handler(exchange)
                if not connection.closed and not exchange.body.complete:
                    for _ in exchange.body:
                        pass
            except Broken as error:
                exchange.error = error
                return
            finally:
                exchange.over = True
            if not exchange.keep:
                return

    @property
    def last(self):
        """The newest exchange."""
        return self.exchanges[-1]

    def wait_exchange(self, count=1, seconds=STEP):
        wait_until(lambda: len(self.exchanges) >= count, seconds, f"request number {count} at the local service")
        return self.exchanges[count - 1]

    def stop_listening(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()

    def close(self):
        self.release.set()
        self.stop_listening()
        for connection in list(self.connections):
            connection.close()


# ---- the usual service ----


def echo(ex):
    """What was received, as JSON."""
    digest = ex.body.digest()
    ex.reply_json(
        {
            "method": ex.request.method,
            "target": ex.request.target,
            "fields": ex.request.fields,
            "size": ex.body.size,
            "sha256": digest,
            "trailers": ex.body.trailers,
            "connection": ex.connection.number,
            "number": ex.number,
        }
    )


def body(ex):
    """?size=N&seed=S[&chunked=1][&until_close=1]: a Pattern."""
    args = ex.args
    pattern = Pattern(int(args.get("size", 0)), args.get("seed", 1))
    for _ in ex.body:
        pass
    if args.get("chunked"):
        ex.head(200, [("Transfer-Encoding", "chunked")])
        for piece in pattern:
            ex.send(chunk(piece))
        ex.send(b"0\r\n\r\n")
    elif args.get("until_close"):
        ex.head(200, [("Connection", "close")])
        for piece in pattern:
            ex.send(piece)
        ex.close()
    else:
        ex.head(200, [("Content-Length", str(pattern.size))])
        if ex.request.method != "HEAD":
            for piece in pattern:
                ex.send(piece)


def mirror(ex):
    """The request's body comes back while it still arrives, chunk by chunk."""
    ex.head(200, [("Transfer-Encoding", "chunked"), ("Trailer", "X-Mirrored")])
    for piece in ex.body:
        ex.send(chunk(piece))
    ex.send(b"0\r\nX-Mirrored: %d\r\n\r\n" % ex.body.size)


def status(ex):
    """?code=N: an answer with that status."""
    code = int(ex.args["code"])
    for _ in ex.body:
        pass
    if code in (204, 304):
        ex.head(code, [("ETag", '"e"')], "No Body")
    else:
        ex.reply(f"status {code}", code, reason="Anything At All")


def sse(ex):
    """?n=N&gap=S: events with pauses."""
    ex.head(200, [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")])
    for i in range(int(ex.args.get("n", 5))):
        if i:
            time.sleep(float(ex.args.get("gap", 0.2)))  # the service's own rhythm, which the test measures
        ex.send(chunk(b"data: %d\n\n" % i))
    ex.send(b"0\r\n\r\n")


def wait(ex):
    """Answers when the test sets origin.release."""
    for _ in ex.body:
        pass
    ex.origin.release.wait(60)
    ex.reply("released")


def hang(ex):
    """Never answers; ends when the connection is closed from the other side."""
    for _ in ex.body:
        pass
    ex.visitor_gone(60)
    ex.close()


def die(ex):
    """?after=head|body|nothing|chunk[&abort=1]: closes in the middle."""
    after, abort = ex.args["after"], bool(ex.args.get("abort"))
    for _ in ex.body:
        pass
    if after == "head":
        ex.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    elif after == "body":
        ex.head(200, [("Content-Length", "1000")])
        ex.send(b"x" * 500)
    elif after == "chunk":
        ex.head(200, [("Transfer-Encoding", "chunked")])
        ex.send(chunk(b"x" * 500))
        ex.send(b"1f4\r\nxxxxx")
    ex.close(abort)


def trailers(ex):
    for _ in ex.body:
        pass
    ex.head(200, [("Transfer-Encoding", "chunked"), ("Trailer", "X-Check, X-Other")])
    ex.send(chunk(b"body") + b"0\r\nX-Check: abc\r\nX-Other: d e f\r\n\r\n")


def interim(ex):
    for _ in ex.body:
        pass
    ex.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
    ex.send(b"HTTP/1.1 102 Processing\r\n\r\n")
    ex.reply("final")


def early(ex):
    """Answers without reading the body, as a service that refuses an upload does."""
    ex.reply("enough", 403, [("Connection", "close")])
    ex.keep = False
    ex.body.complete = True


def upgrade(ex):
    """Any Upgrade: 101, then every byte comes back upper-cased; after the visitor's end "BYE", then our end."""
    ex.send(
        head_bytes(
            b"HTTP/1.1 101 Switching Protocols",
            [("Connection", "Upgrade"), ("Upgrade", ex.request.fields.get("upgrade") or "none")],
        )
    )
    source = ex.connection.source
    try:
        while True:
            ex.send(source.some().upper())
    except Broken as end:
        if str(end) != "closed":
            raise
    ex.send(b"BYE")
    ex.close()


ROUTES = {
    "/body": body,
    "/mirror": mirror,
    "/status": status,
    "/sse": sse,
    "/wait": wait,
    "/hang": hang,
    "/die": die,
    "/trailers": trailers,
    "/interim": interim,
    "/early": early,
    "/upgrade": upgrade,
}


def app(ex):
    """ROUTES by path; everything else is echo."""
    if (ex.request.fields.get("expect") or "").lower() == "100-continue":
        ex.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    ROUTES.get(ex.path, echo)(ex)


def fields_of(value):
    """The fields of an echo's JSON as Fields."""
    return Fields((n, v) for n, v in value["fields"])
