"""
Many tunnel clients in one small process: `peers.py PORT TOKEN COUNT FILE` opens COUNT tunnels, writes their hosts to
FILE, says `ready` and answers each request with 1 KiB. HTTP/2, gRPC and the messages are written by hand, as little of
them as it takes (docs/PROTOCOL.md has the numbers).
"""

import selectors
import socket
import struct
import sys

import proc

AT_ONCE = 64  # greetings under way
FEATURES = 31  # all of them
CREDIT = 64 * 1024
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
BODY = b"x" * 1024


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7


def text(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def count(number, value):
    return varint(number << 3) + varint(value)


def fields(data):
    """(number, value) of each field: an int, or bytes."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 == 0:
            value, at = read_varint(data, at)
        else:
            size, at = read_varint(data, at)
            value = data[at : at + size]
            at += size
        yield key >> 3, value


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def message(payload):
    """A gRPC message in a DATA frame of the one stream."""
    return frame(DATA, 0, 1, b"\0" + struct.pack(">I", len(payload)) + payload)


def literal(name, value):
    """HPACK, without an index, a new name (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADER = text(1, b"content-length") + text(2, str(len(BODY)).encode())
HEAD = text(3, count(1, 200) + text(2, HEADER))
LAST = text(4, text(1, BODY) + count(2, 1))


class Peer:
    """One tunnel. `host` is known once it is open."""

    def __init__(self, port, token):
        self.sock = socket.socket()
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = None
        self.input, self.stream = b"", b""
        self.taken = 0  # bytes whose window was not returned
        head = bytes([0x83, 0x86]) + literal(b":path", b"/kavilo.tunnel.v1.Tunnel/Open")
        head += literal(b":authority", b"localhost") + literal(b"content-type", b"application/grpc")
        hello = text(1, token.encode()) + text(3, b"bench") + count(16, FEATURES) + count(17, CREDIT)
        self.sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"") +
                          frame(HEADERS, END_HEADERS, 1, head + literal(b"te", b"trailers")) + message(text(2, hello)))

    def receive(self):
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the server closed a tunnel")
        self.input += data
        out = []
        while len(self.input) >= 9:
            size = int.from_bytes(self.input[:3], "big")
            if len(self.input) < 9 + size:
                break
            kind, flags = self.input[3], self.input[4]
            payload, self.input = self.input[9 : 9 + size], self.input[9 + size :]
            if kind == DATA:
                self.taken += size
                self.stream += payload
                self.messages(out)
            elif kind == SETTINGS and not flags & ACK:
                out.append(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                out.append(frame(PING, ACK, 0, payload))
            elif kind == GOAWAY or (kind == HEADERS and flags & END_STREAM):
                raise ConnectionError("the server refused a tunnel")
        if self.taken > 32768 - 8192:
            out += [frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", self.taken)) for stream in (0, 1)]
            self.taken = 0
        if out:
            self.sock.sendall(b"".join(out))

    def messages(self, out):
        while len(self.stream) >= 5:
            size = int.from_bytes(self.stream[1:5], "big")
            if len(self.stream) < 5 + size:
                return
            whole, self.stream = self.stream[5 : 5 + size], self.stream[5 + size :]
            self.message(whole, out)

    def message(self, data, out):
        request = 0
        for number, value in fields(data):
            if number == 1:
                request = value
            elif number == 2:  # Welcome
                url = dict(fields(value))[2].decode()
                self.host = url.partition("//")[2].partition("/")[0].partition(":")[0]
            elif number == 3:  # RequestHead
                out += [message(count(1, request) + HEAD), message(count(1, request) + LAST)]
            elif number == 6:  # Ping
                out.append(message(text(7, value)))


def main():
    port, token, wanted, path = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    proc.raise_file_limit(wanted + 100)
    selector = selectors.DefaultSelector()
    started, opening, hosts = 0, set(), []
    while True:
        while started < wanted and len(opening) < AT_ONCE:
            peer = Peer(port, token)
            selector.register(peer.sock, selectors.EVENT_READ, peer)
            opening.add(peer)
            started += 1
        for key, _ in selector.select():
            peer = key.data
            peer.receive()
            if peer.host and peer in opening:
                opening.discard(peer)
                hosts.append(peer.host)
                if len(hosts) == wanted:
                    with open(path, "w", encoding="utf-8") as f:
                        f.write("\n".join(hosts) + "\n")
                    print("ready", flush=True)


if __name__ == "__main__":
    main()
