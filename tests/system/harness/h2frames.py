"""
HTTP/2 frame by frame (RFC 9113), for a visitor that may do what no library would. Header blocks are written by hand, as
literals without indexing, and read with python3-hpack.
"""

import socket
import ssl
import struct

import hpack

from .http1 import Broken, Bytes
from .settings import STEP

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 1, 1, 4, 8, 32

NO_ERROR, PROTOCOL, INTERNAL, FLOW, TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION, CONNECT, CALM = range(12)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADERS = range(1, 7)
CONNECT_PROTOCOL = 8


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """One frame; `length` lies about the payload's."""
    return struct.pack("!I", len(payload) if length is None else length)[1:] + bytes([kind, flags]) + struct.pack(
        "!I", stream
    ) + payload


def integer(value, bits, first=0):
    """An integer of HPACK's with this prefix (RFC 7541, 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out = [first | limit]
    value -= limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out + [value])


def literal(name, value):
    """A field as a literal without indexing, nothing of it checked."""
    name, value = (part if isinstance(part, bytes) else part.encode("latin-1") for part in (name, value))
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields):
    return b"".join(literal(name, value) for name, value in fields)


def headers(stream, fields, end=True, flags=END_HEADERS):
    made = fields if isinstance(fields, bytes) else block(fields)
    return frame(HEADERS, flags | (END_STREAM if end else 0), stream, made)


def data(stream, payload=b"", end=False):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def settings(*pairs, ack=False):
    return frame(SETTINGS, ACK if ack else 0, 0, b"".join(struct.pack("!HI", key, value) for key, value in pairs))


def window(stream, increment):
    return frame(WINDOW, 0, stream, struct.pack("!I", increment))


def reset(stream, code=CANCEL):
    return frame(RST, 0, stream, struct.pack("!I", code))


def ping(payload=b"\0" * 8, ack=False):
    return frame(PING, ACK if ack else 0, 0, payload)


class Frame:
    """One that was received. fields: of a header block, decoded; code: of RST_STREAM and GOAWAY."""

    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload
        self.fields = None
        self.code = None
        if kind == RST:
            self.code = struct.unpack("!I", payload)[0]
        elif kind == GOAWAY:
            self.last, self.code = struct.unpack("!II", payload[:8])

    @property
    def end(self):
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    @property
    def status(self):
        return int(dict(self.fields or []).get(":status", 0))

    def __repr__(self):
        what = self.fields or self.payload[:40]
        return f"<type {self.kind} flags {self.flags} stream {self.stream} code {self.code} {what!r}>"


class FrameVisitor:
    """A connection to the edge. Says the preface and its SETTINGS unless `hello` is False, and acknowledges ours."""

    def __init__(self, address, tls=None, hello=True, pairs=(), timeout=STEP, server_name="localhost",
                 buffer_size=None):
        sock = socket.socket()
        if buffer_size:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
        sock.settimeout(timeout)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            sock = tls.wrap_socket(sock, server_hostname=server_name)
            assert sock.selected_alpn_protocol() == "h2"
        self.sock = sock
        self.source = Bytes(sock, timeout)
        self.decoder = hpack.Decoder()
        self.decoder.max_allowed_table_size = 4096
        self.scheme = "https" if tls else "http"
        self.settings = {}
        if hello:
            self.send(PREFACE + settings(*pairs))

    def send(self, *frames):
        try:
            self.sock.sendall(b"".join(frames))
        except (ConnectionError, ssl.SSLError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error

    def request(self, stream, host, path="/", fields=(), method="GET", end=True):
        self.send(headers(stream, self.head(host, path, fields, method), end))

    def head(self, host, path="/", fields=(), method="GET"):
        pseudo = [(":method", method), (":scheme", self.scheme), (":authority", host), (":path", path)]
        return pseudo + list(fields)

    def next(self):
        """The next frame, or None at the end of the connection. SETTINGS are acknowledged on the way."""
        try:
            head = self.source.exactly(9)
            payload = self.source.exactly(int.from_bytes(head[:3], "big"))
        except Broken:
            return None
        got = Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        if got.kind == HEADERS:
            got.fields = self.decoder.decode(payload)
        elif got.kind == SETTINGS and not got.flags & ACK:
            for at in range(0, len(payload), 6):
                key, value = struct.unpack("!HI", payload[at : at + 6])
                self.settings[key] = value
            try:
                self.send(settings(ack=True))
            except Broken:
                pass
        return got

    def until(self, wanted):
        """Frames up to the first for which `wanted(frame)` holds; the end of the connection is a frame too, None."""
        frames = []
        while True:
            frames.append(self.next())
            if frames[-1] is None or wanted(frames[-1]):
                return frames

    def answer(self, stream):
        """(status, body, trailers, interim statuses) of a stream; Broken when it is reset or the connection ends."""
        status, body, trailers, interim = None, bytearray(), None, []
        while True:
            got = self.next()
            if got is None or (got.kind == RST and got.stream == stream and got.code != NO_ERROR):
                raise Broken(f"instead of an answer: {got}")
            if got.stream != stream:
                continue
            if got.kind == HEADERS and status is None:
                if got.status < 200:
                    interim.append(got.status)
                else:
                    status = got.status
            elif got.kind == HEADERS:
                trailers = got.fields
            elif got.kind == DATA:
                body += got.payload
                if got.payload:
                    self.send(window(0, len(got.payload)), *([] if got.end else [window(stream, len(got.payload))]))
            if got.end:
                return status, body, trailers, interim

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
