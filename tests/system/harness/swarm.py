"""
Thousands of tunnel clients in one thread: each holds its stream open, answers HTTP/2 PINGs and dials again as our client
does. They carry no requests. A connection's bytes are written out here, because a library's object for each would cost
more than the server under test.
"""

import collections
import random
import select
import socket
import time

import hpack

from . import protobuf
from .grpclink import OPEN_PATH

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7


def _frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _hello(token, name):
    fields = [(":method", "POST"), (":scheme", "http"), (":path", OPEN_PATH), (":authority", "tunnel"), ("te", "trailers"),
              ("content-type", "application/grpc"), ("user-agent", "swarm")]
    hello = {"token": token, **({"name": name} if name else {}), "client_version": "0.2.0"}
    message = protobuf.encode("ClientFrame", {"hello": hello}, protobuf.FULL)
    return (_PREFACE + _frame(_HEADERS, 4, 1, hpack.Encoder().encode(fields))
            + _frame(_DATA, 0, 1, b"\0" + len(message).to_bytes(4, "big") + message))


class Member:
    """One client. `welcome` is its Welcome while it is up."""

    def __init__(self, swarm, token, name):
        self.swarm = swarm
        self.hello = _hello(token, name)
        self.name = name
        self.sock = None
        self.welcome = None
        self.failures = 0
        self.pending = b""
        self.received = bytearray()

    def dial(self):
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.welcome = None
        self.pending = self.hello
        self.received.clear()
        self.sock.connect_ex(self.swarm.address)
        self.swarm.watch(self, select.EPOLLOUT)

    def lost(self, why):
        """At once after a tunnel that worked, otherwise with the back-off of "Naming and routing"."""
        self.swarm.forget(self, why)
        wait = random.uniform(0, 0.25)
        if not self.welcome:
            wait = min(60, 2**self.failures) * random.uniform(0.75, 1)
            self.failures += 1
        self.welcome = None
        self.swarm.later(self, wait)

    def ready(self, events):
        try:
            if events & select.EPOLLOUT and self.pending:
                self.pending = self.pending[self.sock.send(self.pending) :]
                self.swarm.watch(self, select.EPOLLOUT if self.pending else select.EPOLLIN)
            elif events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionError("closed")
                self.received += data
                self.frames()
        except BlockingIOError:
            pass
        except OSError as error:
            self.lost(str(error) if type(error) is ConnectionError else type(error).__name__)  # pylint: disable=unidiomatic-typecheck

    def frames(self):
        while len(self.received) >= 9:
            size = int.from_bytes(self.received[:3], "big")
            if len(self.received) < 9 + size:
                return
            kind, flags, payload = self.received[3], self.received[4], bytes(self.received[9 : 9 + size])
            del self.received[: 9 + size]
            if kind == _PING and not flags & 1:
                self.sock.send(_frame(_PING, 1, 0, payload))
            elif kind == _SETTINGS and not flags & 1:
                self.sock.send(_frame(_SETTINGS, 1, 0, b""))
            elif kind == _HEADERS and flags & 1:
                status = dict(hpack.Decoder().decode(payload)) if not self.welcome else {}
                raise ConnectionError(f"refused: {status.get('grpc-status')} {status.get('grpc-message')}")
            elif kind in (_RST_STREAM, _GOAWAY):
                raise ConnectionError("ended")
            elif kind == _DATA and not self.welcome:
                self.welcome = protobuf.decode("ServerFrame", payload[5:], protobuf.FULL)["welcome"]
                self.failures = 0


class Swarm:
    """`members` as (token, name or None). run() is the only thing that moves it."""

    def __init__(self, address, members):
        self.address = address
        self.epoll = select.epoll()
        self.by_descriptor = {}
        self.waiting = []  # (when, member)
        self.failures = collections.Counter()
        self.members = [Member(self, token, name) for token, name in members]

    def watch(self, member, events):
        fd = member.sock.fileno()
        if fd in self.by_descriptor:
            self.epoll.modify(fd, events)
        else:
            self.epoll.register(fd, events)
            self.by_descriptor[fd] = member

    def forget(self, member, why):
        self.failures[why] += 1
        fd = member.sock.fileno()
        del self.by_descriptor[fd]
        self.epoll.unregister(fd)
        member.sock.close()

    def later(self, member, seconds):
        self.waiting.append((time.monotonic() + seconds, member))

    def start(self):
        for member in self.members:
            self.later(member, 0)

    @property
    def up(self):
        return sum(1 for member in self.members if member.welcome)

    def run(self, seconds, until=lambda: False):
        """Moves until something is so, asked a few times a second; the seconds that took, or None when they ran out."""
        began = time.monotonic()
        asked = 0
        while (now := time.monotonic()) < began + seconds:
            if now - asked > 0.05:
                if until():
                    return now - began
                asked = now
                due = [m for when, m in self.waiting if when <= now]
                self.waiting = [(when, m) for when, m in self.waiting if when > now]
                for member in due:
                    member.dial()
            for fd, events in self.epoll.poll(0.02, 512):
                if fd in self.by_descriptor:
                    self.by_descriptor[fd].ready(events)
        return None

    def close(self):
        for member in list(self.by_descriptor.values()):
            member.sock.close()
        self.epoll.close()
