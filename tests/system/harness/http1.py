"""
HTTP/1.1 by hand, for both ends of the path: the visitor's and the local service's. The reader is strict on purpose, so
that whatever the programs write wrongly is noticed here, and it keeps the raw bytes of heads for the tests to see.
"""

import hashlib
import socket
import ssl

from .settings import STEP

READ = 64 * 1024


class Broken(ConnectionError):
    """The other side closed or reset in the middle of something, or wrote what is no HTTP/1.1."""


class Bytes:
    """A buffered socket reader whose every read has the same deadline for progress."""

    def __init__(self, sock, timeout=STEP):
        self.sock = sock
        self.sock.settimeout(timeout)
        self.buffer = b""

    def _more(self):
        try:
            data = self.sock.recv(READ)
        except (ConnectionError, ssl.SSLError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
        if not data:
            raise Broken("closed")
        self.buffer += data

    def until(self, mark, most=1 << 20):
        """Up to and with `mark`."""
        while mark not in self.buffer:
            if len(self.buffer) > most:
                raise Broken(f"no {mark!r} in {most} bytes")
            self._more()
        at = self.buffer.index(mark) + len(mark)
        out, self.buffer = self.buffer[:at], self.buffer[at:]
        return out

    def exactly(self, n):
        return b"".join(self.pieces(n))

    def pieces(self, n):
        """n bytes in the pieces they come in."""
        while n:
            piece = self.some(n)
            n -= len(piece)
            yield piece

    def some(self, most=READ):
        if not self.buffer:
            self._more()
        out, self.buffer = self.buffer[:most], self.buffer[most:]
        return out

    def to_end(self):
        """Everything up to an orderly end of the connection."""
        out = self.buffer
        self.buffer = b""
        while True:
            try:
                data = self.sock.recv(READ)
            except (ConnectionError, ssl.SSLError) as error:
                raise Broken(f"{type(error).__name__}: {error}") from error
            if not data:
                return out
            out += data

    def at_end(self):
        """True when the connection ends here, in order or by a reset; Broken when bytes come instead."""
        if self.buffer:
            raise Broken(f"bytes instead of the end: {self.buffer[:80]!r}")
        try:
            data = self.sock.recv(READ)
        except (ConnectionError, ssl.SSLError):
            return True
        if data:
            raise Broken(f"bytes instead of the end: {data[:80]!r}")
        return True


class Fields(list):
    """Header fields in order, as (name, value) text; names compare without case."""

    def all(self, name):
        return [v for n, v in self if n.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return ", ".join(values) if values else default

    def one(self, name):
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values}"
        return values[0]

    def __contains__(self, name):
        return bool(self.all(name))

    def names(self):
        return [n.lower() for n, _ in self]


def parse_fields(lines):
    fields = Fields()
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip() or b"\n" in line or b"\r" in line:
            raise Broken(f"bad field line {line!r}")
        fields.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
    return fields


class Body:
    """One body being read. After the end: `complete`, `trailers`, `size`, `chunks` (a count)."""

    def __init__(self, source, framing, length=0):
        self.source, self.framing, self.length = source, framing, length
        self.trailers = Fields()
        self.complete = False
        self.size = 0
        self.chunks = 0

    def __iter__(self):
        for piece in self._pieces():
            self.size += len(piece)
            yield piece
        self.complete = True

    def _pieces(self):
        if self.framing == "length":
            yield from self.source.pieces(self.length)
        elif self.framing == "chunked":
            while True:
                line = self.source.until(b"\r\n", 1024)[:-2]
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    break
                self.chunks += 1
                yield from self.source.pieces(size)
                if self.source.exactly(2) != b"\r\n":
                    raise Broken("no CRLF behind a chunk")
            lines = []
            while (line := self.source.until(b"\r\n")[:-2]) != b"":
                lines.append(line)
            self.trailers = parse_fields(lines)
        elif self.framing == "close":
            while True:
                try:
                    yield self.source.some()
                except Broken as end:
                    if str(end) != "closed":
                        raise
                    return

    def read(self):
        return b"".join(self)

    def digest(self):
        """SHA-256 of the body, read and forgotten piece by piece."""
        sha = hashlib.sha256()
        for piece in self:
            sha.update(piece)
        return sha.hexdigest()


def body_framing(fields):
    """("chunked"|"length"|None, length) of a message; both at once is Broken."""
    codings, lengths = fields.all("transfer-encoding"), fields.all("content-length")
    if codings and lengths:
        raise Broken(f"two framings: {codings} and {lengths}")
    if codings:
        if codings != ["chunked"]:
            raise Broken(f"transfer-encoding {codings}")
        return "chunked", 0
    if lengths:
        if len(lengths) != 1 or not lengths[0].isdigit():
            raise Broken(f"content-length {lengths}")
        return "length", int(lengths[0])
    return None, 0


class Request:
    """What a service received: method, target, version, fields, raw (the head's bytes)."""

    def __init__(self, raw):
        self.raw = raw
        lines = raw[:-4].split(b"\r\n")
        words = lines[0].split(b" ")
        if len(words) != 3:
            raise Broken(f"bad request line {lines[0]!r}")
        self.method, self.target, self.version = (w.decode("latin-1") for w in words)
        self.fields = parse_fields(lines[1:])

    @property
    def path(self):
        return self.target.partition("?")[0]

    @property
    def query(self):
        return self.target.partition("?")[2]


class Response:
    """What a visitor received. `body` is a Body to be read; `interims` are the 1xx heads before it."""

    def __init__(self, raw, source, method, interims):
        self.raw = raw
        self.interims = interims
        lines = raw[:-4].split(b"\r\n")
        words = lines[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or len(words[1]) != 3:
            raise Broken(f"bad status line {lines[0]!r}")
        self.version = words[0].decode()
        self.status = int(words[1])
        self.reason = words[2].decode("latin-1") if len(words) > 2 else ""
        self.fields = parse_fields(lines[1:])
        if method == "HEAD" or self.status in (204, 304) or self.status < 200:
            self.body = Body(source, "length", 0)
        else:
            framing, length = body_framing(self.fields)
            self.body = Body(source, framing or "close", length)
        self._content = None

    @property
    def content(self):
        if self._content is None:
            self._content = self.body.read()
        return self._content

    @property
    def text(self):
        return self.content.decode()

    @property
    def trailers(self):
        return self.body.trailers

    @property
    def keeps_alive(self):
        return (self.fields.get("connection") or "").lower() != "close"

    def __repr__(self):
        return f"<{self.status} {dict(self.fields)} {(self._content or b'')[:200]!r}>"


def read_response(source, method="GET"):
    """The next final response on `source`, 1xx ones before it collected; a 101 is final."""
    interims = []
    while True:
        response = Response(source.until(b"\r\n\r\n"), source, method, interims)
        if response.status >= 200 or response.status == 101:
            return response
        interims.append(response)


def head_bytes(start, fields):
    return b"\r\n".join([start] + [f"{n}: {v}".encode("latin-1") for n, v in fields]) + b"\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Visitor:
    """One connection to the edge. `host` is what the Host field says."""

    def __init__(self, address, host, tls=None, timeout=STEP, buffer_size=None, source=None):
        self.host = host
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if buffer_size:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
        if source:
            sock.bind(source)
        sock.settimeout(timeout)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            sock = tls.wrap_socket(sock, server_hostname=host.split(":")[0])
        self.sock = sock
        self.source = Bytes(sock, timeout)

    def send(self, data):
        try:
            self.sock.sendall(data)
        except (ConnectionError, ssl.SSLError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error

    def request(self, target="/", method="GET", fields=(), body=None, host=None, version="HTTP/1.1"):
        """Sends a request; body: None, bytes (Content-Length), or an iterable of bytes (chunked)."""
        fields = [("Host", host or self.host)] + list(fields)
        if isinstance(body, bytes):
            fields.append(("Content-Length", str(len(body))))
        elif body is not None:
            fields.append(("Transfer-Encoding", "chunked"))
        head = head_bytes(f"{method} {target} {version}".encode("latin-1"), fields)
        if body is None or isinstance(body, bytes):
            self.send(head + (body or b""))
        else:
            self.send(head)
            for piece in body:
                self.send(chunk(piece))
            self.send(b"0\r\n\r\n")
        return self

    def response(self, method="GET"):
        return read_response(self.source, method)

    def end(self):
        """Half-close: nothing more will be sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()

    def abort(self):
        """A TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Pattern:
    """A body of `size` bytes, never twice the same block, made piece by piece; `digest` is its SHA-256."""

    PIECE = 256 * 1024

    def __init__(self, size, seed=1):
        self.size, self.seed = size, seed
        self._base = hashlib.shake_128(str(seed).encode()).digest(self.PIECE - 16)
        self._digest = None

    def __iter__(self):
        done = 0
        while done < self.size:
            piece = done.to_bytes(16, "big") + self._base
            piece = piece[: self.size - done]
            done += len(piece)
            yield piece

    def bytes(self):
        return b"".join(self)

    @property
    def digest(self):
        if self._digest is None:
            sha = hashlib.sha256()
            for piece in self:
                sha.update(piece)
            self._digest = sha.hexdigest()
        return self._digest


