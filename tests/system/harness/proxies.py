"""
Proxies between a client and its server: real ones from Debian as throw-away processes on free ports, and ones that a test
plays itself, to the byte.
"""

import base64
import shutil
import socket
import ssl
import struct
import threading

import pytest

from .process import base_environment
from .wait import wait_until


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


class RealProxies:
    """tinyproxy(), danted(), microsocks(): each starts one and returns its HOST:PORT. close() ends them."""

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder
        self.started = []

    def _start(self, name, argv, port):
        program = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
        if not program:
            pytest.skip(f"{name} is not installed")
        started = self.programs.start(f"{name}{port}", [program, *argv], self.folder, base_environment(self.folder))
        self.started.append(started)
        started.wait(lambda: _listens(port), what=f"port {port}")
        started.expected_to_end = True
        return f"127.0.0.1:{port}"

    def _file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def tinyproxy(self, *lines):
        port = free_port()
        settings = [f"Port {port}", "Listen 127.0.0.1", "Timeout 600", *lines]
        return self._start("tinyproxy", ["-d", "-c", self._file(f"tinyproxy{port}.conf", "\n".join(settings) + "\n")], port)

    def danted(self, *rules):
        port = free_port()
        settings = [
            "logoutput: stderr", f"internal: 127.0.0.1 port = {port}", "external: lo", "clientmethod: none", "socksmethod: none",
            "user.privileged: root", "user.unprivileged: root", "client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }", *rules,
            "socks pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }",
        ]
        pid = self.folder / f"danted{port}.pid"
        return self._start("danted", ["-p", pid, "-f", self._file(f"danted{port}.conf", "\n".join(settings) + "\n")], port)

    def microsocks(self, *args):
        port = free_port()
        return self._start("microsocks", ["-i", "127.0.0.1", "-p", str(port), *args], port)

    def close(self):
        for program in self.started:
            if program.running():
                program.process.terminate()
                program.wait_exit()


class ScriptedProxy:
    """Gives each connection to `play(proxy, sock)` in a thread of its own. `asked` is what clients asked for."""

    def __init__(self, play, tls=None):
        self.play, self.tls = play, tls
        self.asked, self.sockets = [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            self.play(self, sock)
        except (OSError, ssl.SSLError, ValueError):
            pass
        sock.close()

    def wait_asked(self, count=1):
        wait_until(lambda: len(self.asked) >= count, what=f"{count} requests to the proxy")
        return self.asked[count - 1]

    def close(self):
        for sock in [self.listener, *self.sockets]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()


# ---- what a scripted proxy plays ----


def read_head(sock):
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(4096)
        if not data:
            raise OSError("the client left")
        head += data
    return head.decode()


def read_exactly(sock, size):
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise OSError("the client left")
        data += more
    return data


def relay(sock, target):
    """Joins the two until one ends."""
    far = socket.create_connection(target, timeout=10)
    far.settimeout(None)

    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except (OSError, ssl.SSLError, ValueError):
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    back = threading.Thread(target=pump, args=(far, sock), daemon=True)
    back.start()
    pump(sock, far)
    back.join(10)
    far.close()


def connect_to(target, credentials=None):
    """An HTTP proxy that leads every CONNECT to `target`; with "user:password" it wants them."""
    wanted = credentials and "Basic " + base64.b64encode(credentials.encode()).decode()

    def play(proxy, sock):
        head = read_head(sock)
        proxy.asked.append(head)
        if wanted and f"\r\nProxy-Authorization: {wanted}\r\n" not in head:
            sock.sendall(b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n')
            return
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        relay(sock, target)

    return play


def says(answer):
    """An HTTP proxy that answers every CONNECT with these bytes and closes."""

    def play(proxy, sock):
        proxy.asked.append(read_head(sock))
        sock.sendall(answer)

    return play


def socks_to(target=None, method=0, verdict=0, reply=0):
    """A SOCKS5 proxy that chooses `method` and leads to `target`, or refuses by the codes given."""

    def play(proxy, sock):
        read_exactly(sock, read_exactly(sock, 2)[1])
        sock.sendall(bytes([5, method]))
        if method == 2:
            user = read_exactly(sock, read_exactly(sock, 2)[1])
            password = read_exactly(sock, read_exactly(sock, 1)[0])
            proxy.asked.append((user.decode(), password.decode()))
            sock.sendall(bytes([1, verdict]))
        kind = read_exactly(sock, 4)[3]
        host = read_exactly(sock, {1: 4, 4: 16}.get(kind) or read_exactly(sock, 1)[0])
        port = struct.unpack(">H", read_exactly(sock, 2))[0]
        proxy.asked.append((kind, host, port))
        sock.sendall(bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        if reply == 0:
            relay(sock, target)

    return play
