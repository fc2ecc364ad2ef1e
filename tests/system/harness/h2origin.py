"""
A local service that speaks HTTP/2, played by the test stream by stream, on python3-h2.

    service = H2Origin(handler)          handler(stream) when a request's head is in, on the connection's thread
    service = H2Origin()                 without one, the test takes streams from service.streams and answers them

A stream's request is in `method`, `fields`, `body`, `trailers`, `ended`; `reset` is the code of an RST_STREAM that came.
What comes in is acknowledged at once unless `service.consumes` is False.
"""

import socket
import ssl
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from .grpclink import TlsStream
from .http1 import Fields
from .settings import STEP
from .wait import wait_until

MAX_STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
CONNECT = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL


class Stream:
    def __init__(self, connection, number, fields):
        self.connection, self.number = connection, number
        self.pseudo = {n: v for n, v in fields if n.startswith(":")}
        self.fields = Fields((n, v) for n, v in fields if not n.startswith(":"))
        self.method, self.target = self.pseudo[":method"], self.pseudo.get(":path")
        self.body = bytearray()
        self.trailers = None
        self.ended = False
        self.reset = None

    def head(self, status=200, fields=(), end=False):
        self.connection.run(lambda h: h.send_headers(self.number, [(":status", str(status))] + list(fields), end))
        return self

    def data(self, data=b"", end=False):
        """Waits for the peer's windows."""
        view = memoryview(data)
        while view or end:
            with self.connection.changed:
                room = min(self.connection.window(self), self.connection.h2.max_outbound_frame_size)
                if view and room <= 0:
                    assert self.connection.changed.wait(STEP), "no window in time"
                    continue
                piece, view = bytes(view[:room]), view[room:]
                last, end = end and not view, end and bool(view)
                self.connection.run(lambda h, p=piece, e=last: h.send_data(self.number, p, e))
        return self

    def end(self, trailers=None):
        if trailers:
            self.connection.run(lambda h: h.send_headers(self.number, list(trailers), True))
        else:
            self.connection.run(lambda h: h.end_stream(self.number))

    def reply(self, status=200, body=b"", fields=()):
        self.head(status, fields)
        self.data(body, end=True)

    def break_off(self, code):
        self.connection.run(lambda h: h.reset_stream(self.number, code))

    def whole(self):
        """Waits for the request's end."""
        self.connection.wait(lambda: self.ended, "the request's end")
        return self


class Connection:
    def __init__(self, origin, sock, stream):
        self.origin, self.sock, self.stream = origin, sock, stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=origin.settings)
        self.changed = threading.Condition(threading.RLock())
        self.streams = {}
        self.most = 0  # streams open at once
        self.closed = False
        self.goaway = None

    def run(self, what):
        with self.changed:
            what(self.h2)
            self.flush()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.stream.sendall(data)

    def window(self, stream):
        """0 or less also when the stream has gone: the wait for it then fails the test."""
        try:
            return self.h2.local_flow_control_window(stream.number)
        except h2.exceptions.ProtocolError:
            return 0

    def wait(self, predicate, what):
        with self.changed:
            assert self.changed.wait_for(predicate, STEP), f"not in time: {what}"

    def close(self, abrupt=False):
        if abrupt:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def serve(self):
        try:
            self.run(lambda h: h.initiate_connection())
            while True:
                data = self.stream.recv(65536)
                if not data:
                    break
                self.take(data)
        except (OSError, h2.exceptions.ProtocolError) as error:
            self.origin.errors.append(error)
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def take(self, data):
        new = []
        with self.changed:
            for event in self.h2.receive_data(data):
                self.note(event, new)
            self.most = max(self.most, self.h2.open_inbound_streams)
            self.flush()
            self.changed.notify_all()
        for stream in new:
            self.origin.streams.append(stream)
            if self.origin.handler:
                self.origin.handler(stream)

    def note(self, event, new):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RequestReceived):
            stream = self.streams[event.stream_id] = Stream(self, event.stream_id, event.headers)
            new.append(stream)
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            if self.origin.consumes and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = Fields(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset) and stream:
            stream.reset = event.error_code
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.error_code


class H2Origin:
    """Listens on a port of loopback. tls: a Pair; alpn: what it chooses from."""

    def __init__(self, handler=None, settings=None, tls=None, alpn=("h2",), h1=None):
        self.handler, self.settings, self.h1 = handler, settings or {}, h1
        self.tls = tls.server(alpn) if tls else None
        self.consumes = True
        self.connections, self.streams, self.errors = [], [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "%s://127.0.0.1:%d" % ("https" if tls else "h2c", self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._greet, args=(sock,), daemon=True).start()

    def _greet(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            try:
                sock = self.tls.wrap_socket(sock, server_side=True)
            except (OSError, ssl.SSLError) as error:
                self.errors.append(error)
                return
            if sock.selected_alpn_protocol() != "h2":
                self.h1(sock)
                return
        connection = Connection(self, sock, TlsStream(sock) if self.tls else sock)
        self.connections.append(connection)
        connection.serve()

    def stream(self, number=0):
        """Waits for a request: the first, the second, …"""
        return wait_until(lambda: self.streams[number] if len(self.streams) > number else None,
                          what=f"request {number} at the service")

    def close(self):
        self.listener.close()
        for connection in self.connections:
            connection.close()
