"""Upgrades and restarts as operators and service managers do them, and visitors who must not notice."""

import ctypes
import os
import select
import signal
import socket
import threading
import time

import hpack

from .http1 import Broken, Bytes, Visitor
from .settings import STEP
from .wait import wait_until

_PR_SET_CHILD_SUBREAPER = 36


# ---- visitors ----


def _has_news(sock):
    return bool(select.select([sock], [], [], 0)[0])


class Poller:
    """Asks for / a hundred times a second until stop(). What fails is kept, as text; nothing is tried twice."""

    interval = 0.01

    def __init__(self, address, host):
        self.address, self.host = address, host
        self.done = 0
        self.slowest = 0.0
        self.failures = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        due = time.monotonic()
        while not self.stopping.is_set():
            start = time.monotonic()
            try:
                status = self.ask()
                if status != 200:
                    self.failures.append(f"request {self.done}: status {status}")
            except (OSError, ValueError) as error:
                self.failures.append(f"request {self.done}: {type(error).__name__}: {error}")
                self.forget()
            self.done += 1
            self.slowest = max(self.slowest, time.monotonic() - start)
            due = max(due + self.interval, time.monotonic())
            self.stopping.wait(due - time.monotonic())
        self.forget()

    def ask(self):
        raise NotImplementedError

    def forget(self):
        """The connection is of no use any more."""

    def more(self, count=20):
        """Waits until so many more requests are answered."""
        enough = self.done + count
        wait_until(lambda: self.done >= enough, 3 * STEP, f"{type(self).__name__} asks on")

    def stop(self):
        self.stopping.set()
        self.thread.join(3 * STEP)
        assert not self.thread.is_alive()
        assert not self.failures, f"{type(self).__name__}: {len(self.failures)} of {self.done}: {self.failures[:5]}"


class Fresh(Poller):
    """HTTP/1.1, a connection for each request."""

    def ask(self):
        with Visitor(self.address, self.host, timeout=3 * STEP) as visitor:
            visitor.request("/", fields=[("Connection", "close")])
            response = visitor.response()
            response.content  # pylint: disable=pointless-statement
            return response.status


class KeepAlive(Poller):
    """HTTP/1.1 on one connection until an answer says that it closes."""

    visitor = None
    connections = 0

    def ask(self):
        if self.visitor and _has_news(self.visitor.sock):
            self.forget()  # closed while it was idle, as any client would see before it asks again
        if not self.visitor:
            self.visitor = Visitor(self.address, self.host, timeout=3 * STEP)
            self.connections += 1
        self.visitor.request("/")
        response = self.visitor.response()
        response.content  # pylint: disable=pointless-statement
        if not response.keeps_alive:
            self.forget()
        return response.status

    def forget(self):
        if self.visitor:
            self.visitor.close()
        self.visitor = None


class Http2(Poller):
    """HTTP/2 with prior knowledge, one connection until a GOAWAY. By hand: python3-h2 ends everything at a GOAWAY."""

    source = None
    connections = 0

    def _open(self):
        sock = socket.create_connection(self.address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.source = Bytes(sock, 3 * STEP)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.stream, self.leaving = -1, False
        self.connections += 1
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self._frame(4, 0, 0) +
                     self._frame(8, 0, 0, (1 << 30).to_bytes(4, "big")))

    @staticmethod
    def _frame(kind, flags, stream, payload=b""):
        return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload

    def _read(self):
        head = self.source.exactly(9)
        return head[3], head[4], int.from_bytes(head[5:], "big"), self.source.exactly(int.from_bytes(head[:3], "big"))

    def _hear(self):
        """One frame that belongs to no answer, or to ours: (type, flags, stream, payload)."""
        kind, flags, stream, payload = self._read()
        if kind == 4 and not flags & 1:  # SETTINGS
            self.source.sock.sendall(self._frame(4, 1, 0))
        elif kind == 6 and not flags & 1:  # PING
            self.source.sock.sendall(self._frame(6, 1, 0, payload))
        elif kind == 7:  # GOAWAY: streams up to this one are still answered
            if int.from_bytes(payload[:4], "big") < self.stream:
                raise Broken("refused by GOAWAY without a notice before")
            self.leaving = True
        return kind, flags, stream, payload

    def _look(self):
        """What came since the last answer: a GOAWAY or the end means another connection."""
        try:
            while not self.leaving and (self.source.buffer or _has_news(self.source.sock)):
                self._hear()
        except Broken as end:
            if str(end) != "closed":
                raise
            self.leaving = True
        if self.leaving:
            self.forget()

    def ask(self):
        if self.source:
            self._look()
        if not self.source:
            self._open()
        self.stream += 2
        block = self.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", self.host), (":path", "/")])
        self.source.sock.sendall(self._frame(1, 5, self.stream, block))
        status = None
        while True:
            kind, flags, stream, payload = self._hear()
            if kind == 1:  # HEADERS
                status = int(dict(self.decoder.decode(payload))[":status"])
            elif kind == 3:  # RST_STREAM
                raise Broken(f"reset with {int.from_bytes(payload, 'big')}")
            if kind in (0, 1) and stream == self.stream and flags & 1:
                break
        if self.leaving:
            self.forget()
        return status

    def forget(self):
        if self.source:
            self.source.sock.close()
        self.source = None


# ---- processes that are not our children's, but theirs ----


class Succession:
    """A server and the processes that succeed it by SIGUSR2. Orphans become the test's own children."""

    def __init__(self, server):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.server = server
        self.pids = [server.program.pid]
        self.statuses = {}

    @property
    def pid(self):
        return self.pids[-1]

    def _listening(self):
        return [line["pid"] for line in self.server.program.log(message="listening")]

    def upgrade(self):
        """SIGUSR2; returns when the successor serves."""
        count = len(self._listening())
        self.server.program.expected_to_end = True
        os.kill(self.pid, signal.SIGUSR2)
        wait_until(lambda: len(self._listening()) > count, 2 * STEP, "the successor serves")
        self.pids.append(self._listening()[-1])

    def ended(self, pid):
        """Its status once it has ended, else None."""
        if pid == self.server.program.pid:
            return self.server.program.process.poll()
        if pid not in self.statuses:
            try:
                done, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                return None  # its parent still lives
            if done == 0:
                return None
            self.statuses[pid] = os.waitstatus_to_exitcode(status)
        return self.statuses[pid]

    def wait_ended(self, pid, seconds=3 * STEP):
        wait_until(lambda: self.ended(pid) is not None, seconds, f"process {pid} ends")
        return self.ended(pid)

    def close(self):
        """Ends the last one; every process has to have left with 0."""
        if self.ended(self.pid) is None:
            os.kill(self.pid, signal.SIGTERM)
        assert [self.wait_ended(pid) for pid in self.pids] == [0] * len(self.pids)


class Supervisor:
    """Holds the listening sockets as systemd does for Type=notify, and starts the server on them again and again."""

    def __init__(self, server):
        self.server = server
        self.sockets = {}
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = str(server.folder / "notify")
        self.notices.bind(path)
        self.notices.setblocking(False)
        self.said = []
        server.env["NOTIFY_SOCKET"] = path
        for name in ("edge", "control", "admin"):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            sock.listen(512)
            self.sockets[name] = sock
            setattr(server, name, sock.getsockname())

    def start(self, patience=STEP):
        """execve of the server by a child that has the sockets at 3, 4, 5 and knows its own process id."""
        fds = [sock.fileno() for sock in self.sockets.values()]
        code = (
            "import os,sys\n"
            "fds = [os.dup2(os.dup(int(f)), 60 + i, True) for i, f in enumerate(sys.argv[1].split(','))]\n"
            "[os.dup2(f, 3 + i, True) for i, f in enumerate(fds)]\n"
            "[os.close(f) for f in fds]\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=sys.argv[2])\n"
            "os.execv(sys.argv[3], sys.argv[3:])\n"
        )
        argv = ["/usr/bin/python3", "-c", code, ",".join(map(str, fds)), ":".join(self.sockets)] + self.server.argv
        server = self.server
        server.program = server.programs.start(f"tunneld{next(server.starts)}", argv, server.folder, server.env,
                                               pass_fds=fds)
        self.wait_said("READY=1", patience)

    def restart(self):
        del self.said[:]
        assert self.server.program.stop(seconds=3 * STEP) == 0
        self.wait_said("STOPPING=1")
        self.start()

    def wait_said(self, word, seconds=STEP):
        def heard():
            try:
                while True:
                    self.said += self.notices.recv(4096).decode().splitlines()
            except BlockingIOError:
                return word in self.said

        self.server.program.wait(heard, seconds, f"says {word}")

    def close(self):
        for sock in [*self.sockets.values(), self.notices]:
            sock.close()
