"""
One gRPC stream over HTTP/2, seen from either end, on python3-h2: what both the deployed peers and the scripted peers of
the tests stand on. A thread reads the socket; sending blocks on HTTP/2 windows like any honest sender.

    Link.dial(...)      opens the connection and the stream  (a tunnel client's end)
    LinkListener(...)   accepts connections and their stream (a server's end)

What arrives is put in `messages` (whole gRPC messages) and in the attributes `headers`, `trailers`, `reset`, `goaway`,
`closed`; `changed` wakes whoever waits for one of them.
"""

import select
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from .settings import STEP
from .wait import TooLate

OPEN_PATH = "/kavilo.tunnel.v1.Tunnel/Open"

# What deployed clients send, observed on the wire.
CLIENT_SETTINGS = {
    h2.settings.SettingCodes.ENABLE_PUSH: 0,
    h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 4 * 1024 * 1024,
    h2.settings.SettingCodes.MAX_FRAME_SIZE: 16384,
}
CLIENT_CONNECTION_WINDOW = 8 * 1024 * 1024


class LinkClosed(ConnectionError):
    """The stream or its connection is over, so nothing more can be sent or will come."""


class TlsStream:
    """A TLS socket that one thread reads and others write: OpenSSL's object must not be used by two at once."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.setblocking(False)
        self.lock = threading.Lock()

    def recv(self, size):
        while True:
            with self.lock:
                try:
                    return self.sock.recv(size)
                except ssl.SSLWantReadError:
                    pass
            select.select([self.sock], [], [])

    def sendall(self, data):
        view = memoryview(data)
        while view:
            with self.lock:
                try:
                    view = view[self.sock.send(view) :]
                    continue
                except ssl.SSLWantWriteError:
                    pass
            select.select([], [self.sock], [])

    def settimeout(self, seconds):
        """Waits are the reader's own."""

    def __getattr__(self, name):
        return getattr(self.sock, name)


class Link:
    """See the top of the file. `auto_window` False keeps received windows until give_window() is called."""

    def __init__(self, sock, client_side, auto_window=True):
        self.sock = TlsStream(sock) if isinstance(sock, ssl.SSLSocket) else sock
        self.client_side = client_side
        self.auto_window = auto_window
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=client_side, header_encoding="utf-8", validate_inbound_headers=False)
        )
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.sending = threading.Lock()
        self.stream = None
        self.messages = []
        self.partial = bytearray()
        self.answered = False  # a server's head has gone out
        self.unread = bytearray()  # not yet a whole frame
        self.preface = not client_side
        self.headers = None
        self.trailers = None
        self.reset = None  # the error code of a RST_STREAM
        self.ended = False  # END_STREAM from the far end
        self.goaway = None
        self.closed = None  # why the connection is over, as text
        self.remote_settings = {}
        self.pings_acked = 0
        self.unreturned = 0

    # ---- opening ----

    @classmethod
    def dial(cls, endpoint, tls=None, path=OPEN_PATH, method="POST", extra=(), headers=None, server_name=None,
             source=None, timeout=STEP, auto_window=True, end_stream=False, sock=None):
        """endpoint: "http://host:port" or "https://…". headers replaces the whole list that deployed clients
        send; `sock` is a connection that was made before."""
        url = urlsplit(endpoint)
        sock = sock or socket.create_connection((url.hostname, url.port), timeout=timeout, source_address=source)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if url.scheme == "https":
            sock = tls.wrap_socket(sock, server_hostname=server_name or url.hostname)
            assert sock.selected_alpn_protocol() == "h2"
        link = cls(sock, client_side=True, auto_window=auto_window)
        with link.lock:
            link.h2.local_settings = h2.settings.Settings(client=True, initial_values=CLIENT_SETTINGS)
            link.h2.initiate_connection()
            link.h2.increment_flow_control_window(CLIENT_CONNECTION_WINDOW - 65535)
            link.stream = 1
            if headers is None:
                headers = [
                    (":method", method),
                    (":scheme", url.scheme),
                    (":path", path),
                    (":authority", f"{url.hostname}:{url.port}"),
                    ("te", "trailers"),
                    ("content-type", "application/grpc"),
                    ("user-agent", "tonic/0.12.3"),
                ] + list(extra)
            link.h2.send_headers(1, headers, end_stream=end_stream)
            link._flush()
        link._start()
        return link

    def _start(self):
        self.sock.settimeout(None)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    # ---- the reading thread ----

    def _read(self):
        why = "closed by the far end"
        try:
            while True:
                data = self.sock.recv(262144)
                if not data:
                    break
                with self.lock:
                    for piece in self._frames(data):
                        for event in self.h2.receive_data(piece):
                            self._event(event)
                    self._flush()
                    self.changed.notify_all()
        except (OSError, ValueError, h2.exceptions.ProtocolError) as error:  # ValueError: select on a closed socket
            why = f"{type(error).__name__}: {error}"
        with self.lock:
            self.closed = self.closed or why
            self.changed.notify_all()
            self.sock.close()  # whoever reads the far end's FIN answers with his own

    def _frames(self, data):
        """What has come as whole frames. Behind a GOAWAY the streams that it lets live go on (RFC 9113, 6.8), which
        python3-h2 does not know: its connection is made open again before the next frame."""
        self.unread += data
        if self.preface:
            if len(self.unread) < 24:
                return
            self.preface = False
            yield bytes(self.unread[:24])
            del self.unread[:24]
        while len(self.unread) >= 9:
            size = 9 + int.from_bytes(self.unread[:3], "big")
            if size > 9 + 16384:
                raise h2.exceptions.ProtocolError(f"a frame of {size - 9} bytes")
            if len(self.unread) < size:
                return
            frame = bytes(self.unread[:size])
            del self.unread[:size]
            if self.goaway == 0:
                self.h2.state_machine.state = (
                    h2.connection.ConnectionState.CLIENT_OPEN if self.client_side else h2.connection.ConnectionState.SERVER_OPEN
                )
            yield frame

    def _event(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.stream, self.headers = event.stream_id, event.headers
        elif isinstance(event, h2.events.ResponseReceived):
            self.headers = event.headers
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers = event.headers
        elif isinstance(event, h2.events.DataReceived):
            self._data(event.data)
            if self.auto_window:
                self._window(event.flow_controlled_length)
            else:
                self.unreturned += event.flow_controlled_length
        elif isinstance(event, h2.events.StreamEnded):
            self.ended = True
            if not self.client_side:
                self._answer_end()
        elif isinstance(event, h2.events.StreamReset):
            self.reset = event.error_code
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.error_code
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self.remote_settings.update({int(k): v.new_value for k, v in event.changed_settings.items()})
        elif isinstance(event, h2.events.PingAckReceived):
            self.pings_acked += 1

    def _answer_end(self):
        """A server answers the end of a client's direction with its own: a status, as gRPC servers do by themselves."""
        try:
            status = [("grpc-status", "0")]
            if not self.answered:
                status = [(":status", "200"), ("content-type", "application/grpc")] + status
            self.h2.send_headers(self.stream, status, end_stream=True)
        except h2.exceptions.ProtocolError:
            pass  # it has ended already

    def _data(self, data):
        self.partial += data
        while len(self.partial) >= 5:
            size = int.from_bytes(self.partial[1:5], "big")
            if len(self.partial) < 5 + size:
                break
            assert self.partial[0] == 0, "a compressed message"
            self.messages.append(bytes(self.partial[5 : 5 + size]))
            del self.partial[: 5 + size]

    def _window(self, size):
        if not size:
            return
        try:
            self.h2.increment_flow_control_window(size)
            if self.reset is None and not self.ended:
                self.h2.increment_flow_control_window(size, self.stream)
        except (h2.exceptions.StreamClosedError, KeyError):
            pass

    def give_window(self):
        """Returns all the windows that auto_window=False has kept."""
        with self.lock:
            self._window(self.unreturned)
            self.unreturned = 0
            self._flush()

    def _flush(self):
        data = self.h2.data_to_send()
        if data and not self.closed:
            try:
                self.sock.sendall(data)
            except (OSError, ssl.SSLError) as error:
                self.closed = self.closed or f"{type(error).__name__}: {error}"

    # ---- sending ----

    @property
    def over(self):
        return self.closed or self.reset is not None or (self.client_side and self.ended)

    def send_message(self, message, timeout=STEP, compressed=0):
        self.send_bytes(bytes([compressed]) + len(message).to_bytes(4, "big") + message, timeout)

    def send_bytes(self, data, timeout=STEP, end_stream=False):
        """DATA of the stream, whatever it holds; waits for windows at most `timeout`."""
        deadline = time.monotonic() + timeout
        view = memoryview(data)
        with self.sending, self.lock:
            while view:
                if self.over:
                    raise LinkClosed(f"closed={self.closed} reset={self.reset} ended={self.ended}")
                room = min(self.h2.local_flow_control_window(self.stream), self.h2.max_outbound_frame_size, len(view))
                if room <= 0:
                    if not self.changed.wait(max(0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                        raise TooLate(f"no HTTP/2 window for {len(view)} bytes within {timeout} s")
                    continue
                try:
                    self.h2.send_data(self.stream, bytes(view[:room]))
                except h2.exceptions.ProtocolError as error:
                    raise LinkClosed(str(error)) from error
                self._flush()
                view = view[room:]
            if end_stream:
                self.h2.end_stream(self.stream)
                self._flush()

    def send_headers(self, pairs, end_stream=False):
        with self.lock:
            self.answered = True
            self.h2.send_headers(self.stream, pairs, end_stream=end_stream)
            self._flush()

    def h2_ping(self, payload=b"kavilo--"):
        with self.lock:
            self.h2.ping(payload)
            self._flush()

    def reset_stream(self, code=h2.errors.ErrorCodes.CANCEL):
        with self.lock:
            self.h2.reset_stream(self.stream, code)
            self._flush()

    def send_raw(self, data):
        """Bytes behind the back of the HTTP/2 library."""
        with self.lock:
            self.sock.sendall(data)

    # ---- waiting ----

    def wait(self, predicate, timeout=STEP, what="an event on the link"):
        deadline = time.monotonic() + timeout
        with self.lock:
            while True:
                value = predicate()
                if value:
                    return value
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TooLate(f"not within {timeout} s: {what} (closed={self.closed}, reset={self.reset})")
                self.changed.wait(left)

    def next_message(self, timeout=STEP):
        """The next whole message; LinkClosed when none can come any more."""

        def ready():
            return self.messages or self.closed or self.trailers or self.reset is not None or self.ended

        self.wait(ready, timeout, "a gRPC message")
        with self.lock:
            if self.messages:
                return self.messages.pop(0)
        raise LinkClosed(f"closed={self.closed} trailers={self.trailers} reset={self.reset}")

    def status(self, timeout=STEP):
        """(grpc-status, grpc-message) that ended the stream, from trailers or a trailers-only head."""

        def found():
            for block in (self.trailers, self.headers):
                fields = dict(block or ())
                if "grpc-status" in fields:
                    return fields
            assert not self.closed, f"the connection ended without grpc-status: {self.closed}"
            return None

        fields = self.wait(found, timeout, "grpc-status")
        return int(fields["grpc-status"]), fields.get("grpc-message", "")

    def wait_over(self, timeout=STEP):
        self.wait(lambda: self.over or self.ended, timeout, "the end of the stream")

    def close(self, abrupt=False):
        """abrupt: a TCP reset, as a killed machine's kernel would not even send; otherwise an orderly FIN."""
        try:
            if abrupt:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            # The kernel keeps the socket for as long as the reader sits in recv: it is woken up first.
            self.sock.shutdown(socket.SHUT_RD if abrupt else socket.SHUT_RDWR)
        except OSError:
            pass  # closed already
        if threading.current_thread() is not self.reader:
            self.reader.join(1)  # it closes the socket
        with self.lock:
            self.closed = self.closed or "closed here"
            self.sock.close()
            self.changed.notify_all()


class LinkListener:
    """A server's end: calls accepted(link) in a thread of its own for each connection whose stream is open."""

    def __init__(self, accepted, host="127.0.0.1", tls=None, settings=None):
        self.accepted = accepted
        self.tls = tls
        self.settings = settings or {}
        self.links = []
        self.stopping = False
        self.socket = socket.create_server((host, 0))
        self.port = self.socket.getsockname()[1]
        self.endpoint = f"{'https' if tls else 'http'}://{host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            link = Link(sock, client_side=False)
            with link.lock:
                link.h2.local_settings = h2.settings.Settings(client=False, initial_values=self.settings)
                link.h2.initiate_connection()
                link._flush()
            self.links.append(link)
            link._start()
            link.wait(lambda: link.headers or link.closed, STEP, "the client's stream")
            if link.headers and not self.stopping:
                self.accepted(link)
        except (OSError, ssl.SSLError, TooLate, LinkClosed):
            sock.close()

    def close(self):
        self.stopping = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
        for link in self.links:
            link.close()
