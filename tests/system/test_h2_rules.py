"""
RFC 9113 and RFC 7541 rule by rule, with raw frames: what a conformance suite asks of a server. Each row is what a
visitor sends and what has to come of it; the same rows run in the clear and over TLS. Where the library does otherwise
than the RFC asks, the row says so, and docs/SECURITY-HTTP.md too.
"""

import functools
import signal

import pytest

from harness import h2frames as f
from harness.h2frames import (ACK, CLOSED, COMPRESSION, CONTINUATION, DATA, END_HEADERS, FLOW, GOAWAY, HEADERS,
                              PADDED, PING, PRIORITIZED, PRIORITY, PROTOCOL, PUSH, RST, SETTINGS, SIZE, WINDOW,
                              FrameVisitor, data, frame, headers, literal, ping, reset, settings, window)
from harness.http1 import Broken
from harness.origin import Origin
from harness.tunnel import Client, Server
from harness.wait import wait_until

SENTINEL = b"sentinel"


# What has to come of a row.


class Connection:
    """GOAWAY with one of these codes, and the end; the end alone for none."""

    def __init__(self, *codes):
        self.codes = codes


class Stream:
    """RST_STREAM with one of these codes; the connection serves on."""

    def __init__(self, stream, *codes):
        self.stream, self.codes = stream, codes


class Status:
    """An answer on that stream."""

    def __init__(self, stream=1, status=200):
        self.stream, self.status = stream, status


class Ignored:
    """Nothing comes of it; the connection serves on."""


def big(n):
    return n.to_bytes(4, "big")


def in_two(stream, fields):
    """A head that is too long for one frame."""
    whole = f.block(fields)
    return [headers(stream, whole[:9000], flags=0), frame(CONTINUATION, END_HEADERS, stream, whole[9000:])]


@functools.lru_cache
def rules(host):
    """(name, frames behind our SETTINGS, what comes of them). Paths with "refused" never reach the local service."""

    def request(path="/fine", method="GET", fields=(), without=(), scheme="http", authority=host):
        pseudo = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
        return [(n, v) for n, v in pseudo if n not in without] + list(fields)

    def bad_request(*fields, without=()):
        return headers(1, request("/refused", fields=fields, without=without))

    bad = request("/refused")
    post = request("/broken", "POST")
    good = request()
    opened = headers(1, post, end=False)
    return [
        # 4.1, 5.5: what is unknown is ignored
        ("4.1 unknown frame type", [frame(0x16, 0, 0, b"12345678")], Ignored()),
        ("4.1 unknown frame type on a stream", [opened, frame(0x17, 0xFF, 1, b"x"), data(1, b"", True)], Status()),
        ("4.1 undefined flags", [frame(PING, 0xFE, 0, SENTINEL[::-1])], Ignored()),
        ("4.1 reserved bit", [frame(PING, 0, 0x80000000, SENTINEL[::-1])], Ignored()),
        ("5.5 extension inside a header block",
         [headers(1, good, flags=0), frame(0x16, 0, 0, b"")], Connection(PROTOCOL)),
        # 4.2: sizes
        ("4.2 DATA over MAX_FRAME_SIZE", [opened, frame(DATA, 1, 1, b"x" * 16385)], Connection(SIZE)),
        ("4.2 HEADERS over MAX_FRAME_SIZE", [frame(HEADERS, 5, 1, b"x" * 16385)], Connection(SIZE)),
        ("4.2 largest DATA", [opened, frame(DATA, 1, 1, b"x" * 16384)], Status()),
        # 4.3: header blocks
        ("4.3 bad index", [headers(1, b"\xff\xff\xff\xff\x0f")], Connection(COMPRESSION)),
        ("4.3 PRIORITY inside a header block",
         [headers(1, good, flags=0), frame(PRIORITY, 0, 1, b"\0\0\0\0\1")], Connection(PROTOCOL)),
        ("4.3 other stream's HEADERS inside", [headers(1, good, flags=0), headers(3, good)], Connection(PROTOCOL)),
        ("4.3 DATA inside", [headers(1, good, end=False, flags=0), data(1, b"x")], Connection(PROTOCOL)),
        # 5.1: states. Idle
        ("5.1 idle: DATA", [data(1, b"x", True)], Connection(PROTOCOL, CLOSED)),
        ("5.1 idle: RST_STREAM", [reset(1)], Connection(PROTOCOL)),
        ("5.1 idle: WINDOW_UPDATE", [window(1, 100)], Connection(PROTOCOL)),
        ("5.1 idle: CONTINUATION", [frame(CONTINUATION, END_HEADERS, 1, f.block(good))], Connection(PROTOCOL)),
        ("5.1 idle: PRIORITY", [frame(PRIORITY, 0, 1, b"\0\0\0\0\1")], Ignored()),
        # Half-closed by the visitor: errors of the stream by the RFC, of the connection by the library (5.4.2)
        ("5.1 half-closed: DATA", [headers(1, request("/wait")), data(1, b"x", True)], Connection(CLOSED)),
        ("5.1 half-closed: HEADERS", [headers(1, request("/wait")), headers(1, good)], Connection(CLOSED)),
        ("5.1 half-closed: CONTINUATION",
         [headers(1, request("/wait")), frame(CONTINUATION, 4, 1, f.block(good))], Connection(PROTOCOL)),
        ("5.1 half-closed: WINDOW_UPDATE", [headers(1, request()), window(1, 1)], Status()),
        ("5.1 half-closed: PRIORITY", [headers(1, request()), frame(PRIORITY, 0, 1, b"\0\0\0\0\1")], Status()),
        # Closed. The library forgets closed streams, so late frames are skipped as those that crossed a reset are
        ("5.1 closed: DATA after RST_STREAM", [opened, reset(1), data(1, b"x", True)], Ignored()),
        ("5.1 closed: HEADERS after RST_STREAM", [opened, reset(1), headers(1, good)], Ignored()),
        ("5.1 closed: CONTINUATION", [opened, reset(1), frame(CONTINUATION, 4, 1, b"")], Connection(PROTOCOL)),
        ("5.1 closed: WINDOW_UPDATE", [opened, reset(1), window(1, 1)], Ignored()),
        ("5.1 closed: RST_STREAM", [opened, reset(1), reset(1)], Ignored()),
        ("5.1 closed: PRIORITY", [opened, reset(1), frame(PRIORITY, 0, 1, b"\0\0\0\0\1")], Ignored()),
        # 5.1.1: identifiers
        ("5.1.1 even stream", [headers(2, good)], Connection(PROTOCOL)),
        ("5.1.1 lower stream, never opened", [headers(5, request()), headers(3, good)], Connection(PROTOCOL, CLOSED)),
        ("5.1.1 any odd stream to begin with", [headers(4321, request())], Status(4321)),
        # 5.3: priorities are deprecated but well-formed
        ("5.3.1 HEADERS depend on themselves",
         [frame(HEADERS, 5 | PRIORITIZED, 1, b"\0\0\0\1\1" + f.block(bad))], Connection(PROTOCOL)),
        ("5.3.1 PRIORITY depends on itself", [frame(PRIORITY, 0, 1, b"\0\0\0\1\1")], Connection(PROTOCOL)),
        ("5.3 HEADERS with priority", [frame(HEADERS, 5 | PRIORITIZED, 1, b"\0\0\0\0\1" + f.block(good))], Status()),
        # 6.1 DATA
        ("6.1 DATA on stream 0", [data(0, b"x")], Connection(PROTOCOL)),
        ("6.1 padding over the payload", [opened, frame(DATA, 1 | PADDED, 1, b"\x06abcde")], Connection(PROTOCOL)),
        ("6.1 padding field missing", [opened, frame(DATA, 1 | PADDED, 1, b"")], Connection(SIZE, PROTOCOL)),
        ("6.1 padded DATA", [opened, frame(DATA, 1 | PADDED, 1, b"\x03abc\0\0\0")], Status()),
        # 6.2 HEADERS
        ("6.2 HEADERS on stream 0", [headers(0, good)], Connection(PROTOCOL)),
        ("6.2 padding over the payload", [frame(HEADERS, 5 | PADDED, 1, b"\xffabc")], Connection(PROTOCOL)),
        ("6.2 padded HEADERS", [frame(HEADERS, 5 | PADDED, 1, b"\x02" + f.block(good) + b"\0\0")], Status()),
        ("6.2 too short for its flags",
         [frame(HEADERS, 5 | PADDED | PRIORITIZED, 1, b"\0\0")], Connection(SIZE, PROTOCOL)),
        # 6.3 PRIORITY
        ("6.3 PRIORITY on stream 0", [frame(PRIORITY, 0, 0, b"\0\0\0\1\1")], Connection(PROTOCOL)),
        # a stream error by the RFC; the library's is the connection's (5.4.2 allows that)
        ("6.3 PRIORITY of 4 bytes", [opened, frame(PRIORITY, 0, 1, b"\0\0\0\1")], Connection(SIZE)),
        # 6.4 RST_STREAM
        ("6.4 RST_STREAM on stream 0", [reset(0)], Connection(PROTOCOL)),
        ("6.4 RST_STREAM of 3 bytes", [opened, frame(RST, 0, 1, b"\0\0\0")], Connection(SIZE)),
        ("6.4 RST_STREAM with an unknown code", [opened, reset(1, 0xFFFF)], Ignored()),
        # 6.5 SETTINGS
        ("6.5 ACK with payload", [frame(SETTINGS, ACK, 0, b"\0\0\0\0\0\0")], Connection(SIZE)),
        ("6.5 SETTINGS on a stream", [frame(SETTINGS, 0, 1, b"")], Connection(PROTOCOL)),
        ("6.5 length no multiple of 6", [frame(SETTINGS, 0, 0, b"\0\2\0")], Connection(SIZE)),
        ("6.5 ACK that nobody waits for",
         [settings(ack=True), settings(ack=True), settings(ack=True)], Connection(PROTOCOL)),
        ("6.5.2 ENABLE_PUSH 2", [settings((f.ENABLE_PUSH, 2))], Connection(PROTOCOL)),
        ("6.5.2 INITIAL_WINDOW_SIZE over 2^31-1", [settings((f.INITIAL_WINDOW, 1 << 31))], Connection(FLOW)),
        ("6.5.2 MAX_FRAME_SIZE 16383", [settings((f.MAX_FRAME, 16383))], Connection(PROTOCOL)),
        ("6.5.2 MAX_FRAME_SIZE 2^24", [settings((f.MAX_FRAME, 1 << 24))], Connection(PROTOCOL)),
        ("6.5.2 unknown setting", [settings((0xABCD, 1))], Ignored()),
        ("6.5.3 the last of two values counts",
         [settings((f.INITIAL_WINDOW, 100), (f.INITIAL_WINDOW, 1)), headers(1, request())], Status()),
        ("8441 ENABLE_CONNECT_PROTOCOL from a client", [settings((8, 1))], Ignored()),
        ("8441 ENABLE_CONNECT_PROTOCOL 2", [settings((8, 2))], Connection(PROTOCOL)),
        # 6.6 PUSH_PROMISE
        ("6.6 PUSH_PROMISE from a client",
         [opened, frame(PUSH, END_HEADERS, 1, b"\0\0\0\2" + f.block(good))], Connection(PROTOCOL)),
        # 6.7 PING
        ("6.7 PING on a stream", [frame(PING, 0, 1, b"12345678")], Connection(PROTOCOL)),
        ("6.7 PING of 6 bytes", [frame(PING, 0, 0, b"123456")], Connection(SIZE)),
        ("6.7 PING ACK that nobody waits for", [ping(b"12345678", ack=True)], Ignored()),
        # 6.8 GOAWAY
        ("6.8 GOAWAY on a stream", [frame(GOAWAY, 0, 1, big(0) + big(0))], Connection(PROTOCOL)),
        ("6.8 GOAWAY too short", [frame(GOAWAY, 0, 0, b"1234")], Connection(SIZE)),
        ("6.8 requests before a GOAWAY are served", [headers(1, good), frame(GOAWAY, 0, 0, big(0) + big(0))], Status()),
        # 6.9 WINDOW_UPDATE
        ("6.9 increment 0 for the connection", [window(0, 0)], Connection(PROTOCOL)),
        # as above
        ("6.9 increment 0 for a stream", [opened, window(1, 0)], Connection(PROTOCOL)),
        ("6.9 length 3", [frame(WINDOW, 0, 0, b"\0\0\1")], Connection(SIZE)),
        ("6.9.1 connection window over 2^31-1", [window(0, 0x7FFFFFFF), window(0, 0x7FFFFFFF)], Connection(FLOW)),
        ("6.9.1 stream window over 2^31-1", [opened, window(1, 0x7FFFFFFF)], Stream(1, FLOW)),
        # an error of the connection by the RFC, of the stream by the library
        ("6.9.2 SETTINGS makes a window over 2^31-1",
         [opened, window(1, 0x7FFF0000 - 65535 - 1), settings((f.INITIAL_WINDOW, 0x7FFFFFFF))], Stream(1, FLOW)),
        ("6.9 the reserved bit of an increment", [window(0, 0x80000001)], Ignored()),
        # 6.10 CONTINUATION
        ("6.10 a head in three",
         [headers(1, f.block(good)[:7], flags=0), frame(CONTINUATION, 0, 1, f.block(good)[7:9]),
          frame(CONTINUATION, END_HEADERS, 1, f.block(good)[9:])], Status()),
        ("6.10 CONTINUATION on stream 0",
         [headers(1, good, flags=0), frame(CONTINUATION, END_HEADERS, 0, b"")], Connection(PROTOCOL)),
        ("6.10 of another stream",
         [headers(1, good, flags=0), frame(CONTINUATION, END_HEADERS, 3, b"")], Connection(PROTOCOL)),
        ("6.10 behind END_HEADERS",
         [headers(1, request("/wait")), frame(CONTINUATION, END_HEADERS, 1, f.block(good))], Connection(PROTOCOL)),
        ("6.10 behind DATA", [opened, data(1, b"x"), frame(CONTINUATION, END_HEADERS, 1, b"")], Connection(PROTOCOL)),
        # 8.1: messages
        ("8.1 trailers without END_STREAM",
         [opened, data(1, b"x"), headers(1, [("x-t", "1")], end=False)], Stream(1, PROTOCOL)),
        ("8.1 pseudo-field in trailers", [opened, data(1, b"x"), headers(1, [(":path", "/")])], Stream(1, PROTOCOL)),
        ("8.1 trailers", [opened, data(1, b"x"), headers(1, [("x-t", "1")])], Status()),
        ("8.1.1 length over the body",
         [headers(1, post + [("content-length", "2")], end=False), data(1, b"x", True)], Stream(1, PROTOCOL)),
        ("8.1.1 length under the body",
         [headers(1, post + [("content-length", "2")], end=False), data(1, b"xxx", True)], Stream(1, PROTOCOL)),
        ("8.1.1 length under the body in two",
         [headers(1, post + [("content-length", "2")], end=False), data(1, b"xx"),
          data(1, b"x", True)], Stream(1, PROTOCOL)),
        ("8.1.1 length without a body", [headers(1, bad + [("content-length", "2")])], Stream(1, PROTOCOL)),
        ("8.1.1 two lengths",
         [headers(1, bad + [("content-length", "0"), ("content-length", "0")])], Stream(1, PROTOCOL)),
        ("8.1.1 length is no number", [headers(1, bad + [("content-length", "+0")])], Stream(1, PROTOCOL)),
        ("8.1.1 length list", [headers(1, bad + [("content-length", "0, 0")])], Stream(1, PROTOCOL)),
        ("8.1.1 empty length", [headers(1, bad + [("content-length", "")])], Stream(1, PROTOCOL)),
        # 8.2.1: field validity
        ("8.2.1 upper case", [bad_request(("X-Upper", "1"))], Stream(1, PROTOCOL)),
        ("8.2.1 upper case pseudo-field", [headers(1, [(":METHOD", "GET")] + bad)], Stream(1, PROTOCOL)),
        ("8.2.1 empty name", [bad_request(("", "1"))], Stream(1, PROTOCOL)),
        ("8.2.1 colon in a name", [bad_request(("a:b", "1"))], Stream(1, PROTOCOL)),
        ("8.2.1 space in a name", [bad_request(("a b", "1"))], Stream(1, PROTOCOL)),
        ("8.2.1 space behind a name", [bad_request(("content-length ", "1"))], Stream(1, PROTOCOL)),
        ("8.2.1 CR LF in a name", [bad_request(("a\r\nb", "1"))], Stream(1, PROTOCOL)),
        ("8.2.1 NUL in a name", [bad_request(("a\0", "1"))], Stream(1, PROTOCOL)),
        ("8.2.1 0x7f in a name", [bad_request(("a\x7f", "1"))], Stream(1, PROTOCOL)),
        ("8.2.1 0x80 in a name", [bad_request(("a\x80", "1"))], Stream(1, PROTOCOL)),
        ("8.2.1 CR LF in a value", [bad_request(("a", "b\r\nx: y"))], Stream(1, PROTOCOL)),
        ("8.2.1 LF in a value", [bad_request(("a", "b\nx: y"))], Stream(1, PROTOCOL)),
        ("8.2.1 CR in a value", [bad_request(("a", "b\rc"))], Stream(1, PROTOCOL)),
        ("8.2.1 NUL in a value", [bad_request(("a", "b\0c"))], Stream(1, PROTOCOL)),
        ("8.2.1 space in front of a value", [bad_request(("a", " b"))], Stream(1, PROTOCOL)),
        ("8.2.1 space behind a value", [bad_request(("a", "b "))], Stream(1, PROTOCOL)),
        ("8.2.1 tab behind a value", [bad_request(("a", "b\t"))], Stream(1, PROTOCOL)),
        # 8.2.2: connection-specific fields
        ("8.2.2 Connection", [bad_request(("connection", "close"))], Stream(1, PROTOCOL)),
        ("8.2.2 Keep-Alive", [bad_request(("keep-alive", "1"))], Stream(1, PROTOCOL)),
        ("8.2.2 Proxy-Connection", [bad_request(("proxy-connection", "close"))], Stream(1, PROTOCOL)),
        ("8.2.2 Transfer-Encoding", [bad_request(("transfer-encoding", "chunked"))], Stream(1, PROTOCOL)),
        ("8.2.2 Transfer-Encoding in upper case", [bad_request(("Transfer-Encoding", "chunked"))], Stream(1, PROTOCOL)),
        ("8.2.2 Upgrade", [bad_request(("upgrade", "h2c"))], Stream(1, PROTOCOL)),
        ("8.2.2 TE other than trailers", [bad_request(("te", "gzip"))], Stream(1, PROTOCOL)),
        ("8.2.2 TE trailers and more", [bad_request(("te", "trailers, chunked"))], Stream(1, PROTOCOL)),
        ("8.2.2 TE trailers", [headers(1, request(fields=[("te", "trailers")]))], Status()),
        # 8.3: pseudo-fields
        ("8.3 unknown", [headers(1, [(":x", "1")] + bad)], Stream(1, PROTOCOL)),
        ("8.3 of responses", [headers(1, [(":status", "200")] + bad)], Stream(1, PROTOCOL)),
        ("8.3 behind a regular field", [headers(1, [("x", "1")] + bad)], Stream(1, PROTOCOL)),
        ("8.3 :path behind a regular field",
         [headers(1, request(without=[":path"]) + [("x", "1"), (":path", "/refused")])], Stream(1, PROTOCOL)),
        ("8.3.1 no :method", [bad_request(without=[":method"])], Stream(1, PROTOCOL)),
        ("8.3.1 no :scheme", [bad_request(without=[":scheme"])], Stream(1, PROTOCOL)),
        ("8.3.1 no :path", [bad_request(without=[":path"])], Stream(1, PROTOCOL)),
        ("8.3.1 no :authority, no Host", [bad_request(without=[":authority"])], Stream(1, PROTOCOL)),
        ("8.3.1 Host for :authority", [headers(1, request(without=[":authority"]) + [("host", host)])], Status()),
        ("8.3.1 Host as :authority", [headers(1, request(fields=[("host", host)]))], Status()),
        ("8.3.1 Host other than :authority", [bad_request(("host", "other.test"))], Stream(1, PROTOCOL)),
        ("8.3.1 two Hosts",
         [headers(1, request("/refused", without=[":authority"]) + [("host", host),
          ("host", "other.test")])], Stream(1, PROTOCOL)),
        ("8.3.1 two Hosts behind :authority",
         [bad_request(("host", host), ("host", "other.test"))], Stream(1, PROTOCOL)),
        ("8.3.1 empty Host", [bad_request(("host", ""), without=[":authority"])], Stream(1, PROTOCOL)),
        ("8.3.1 two :method", [headers(1, [(":method", "GET")] + bad)], Stream(1, PROTOCOL)),
        ("8.3.1 two :path", [headers(1, [(":path", "/")] + bad)], Stream(1, PROTOCOL)),
        ("8.3.1 two :scheme", [headers(1, [(":scheme", "http")] + bad)], Stream(1, PROTOCOL)),
        ("8.3.1 two :authority", [headers(1, [(":authority", host)] + bad)], Stream(1, PROTOCOL)),
        ("8.3.1 empty :path", [headers(1, request(""))], Stream(1, PROTOCOL)),
        ("8.3.1 :path without slash", [headers(1, request("refused"))], Stream(1, PROTOCOL)),
        ("8.3.1 absolute :path", [headers(1, request("http://other.test/refused"))], Stream(1, PROTOCOL)),
        ("8.3.1 :path *", [headers(1, request("*"))], Stream(1, PROTOCOL)),
        ("8.3.1 :path * in another scheme", [headers(1, request("*", scheme="ftp"))], Stream(1, PROTOCOL)),
        ("8.3.1 OPTIONS *", [headers(1, request("*", "OPTIONS"))], Status()),
        ("8.3.1 :scheme ftp", [headers(1, request("/refused", scheme="ftp"))], Stream(1, PROTOCOL)),
        ("8.3.1 :scheme smuggles",
         [headers(1, request("/refused", scheme="http://other.test/x?"))], Stream(1, PROTOCOL)),
        ("8.3.1 space in :path", [headers(1, request("/refused HTTP/1.1"))], Stream(1, PROTOCOL)),
        ("8.3.1 CR LF in :path", [headers(1, request("/refused HTTP/1.1\r\nx: y"))], Stream(1, PROTOCOL)),
        ("8.3.1 fragment in :path", [headers(1, request("/refused#x"))], Stream(1, PROTOCOL)),
        ("8.3.1 0x80 in :path", [headers(1, request("/refused\x80"))], Stream(1, PROTOCOL)),
        ("8.3.1 space in :method", [headers(1, request("/refused", "GET /x HTTP/1.1"))], Stream(1, PROTOCOL)),
        ("8.3.1 CR LF in :method", [headers(1, request("/refused", "GET\r\nx: y"))], Stream(1, PROTOCOL)),
        ("8.3.1 empty :method", [headers(1, request("/refused", ""))], Stream(1, PROTOCOL)),
        ("8.3.1 user info in :authority",
         [headers(1, request("/refused", authority="u@" + host))], Stream(1, PROTOCOL)),
        ("8.3.1 path in :authority", [headers(1, request("/refused", authority=host + "/x"))], Stream(1, PROTOCOL)),
        ("8.3.1 CR LF in :authority",
         [headers(1, request("/refused", authority=host + "\r\nx: y"))], Stream(1, PROTOCOL)),
        ("8.3.1 list in :authority",
         [headers(1, request("/refused", authority=host + ", other.test"))], Stream(1, PROTOCOL)),
        # 8.5, RFC 8441: CONNECT
        ("8.5 CONNECT to anywhere",
         [headers(1, [(":method", "CONNECT"), (":authority", "other.test:443")], end=False)], Stream(1, PROTOCOL)),
        ("8.5 CONNECT with :path", [headers(1, request("/refused", "CONNECT"), end=False)], Stream(1, PROTOCOL)),
        ("8441 :protocol without CONNECT", [headers(1, [(":protocol", "websocket")] + bad)], Stream(1, PROTOCOL)),
        ("8441 two :protocol",
         [headers(1, [(":protocol", "websocket"), (":protocol", "x")] + request("/refused", "CONNECT"),
          end=False)], Stream(1, PROTOCOL)),
        ("8441 no :path",
         [headers(1, [(":protocol", "websocket")] + request(method="CONNECT", without=[":path"]),
          end=False)], Stream(1, PROTOCOL)),
        ("8441 :protocol smuggles",
         [headers(1, [(":protocol", "a\r\nx: y")] + request("/refused", "CONNECT"), end=False)], Stream(1, PROTOCOL)),
        *[(f"8441 :protocol {protocol} is HTTP again or several",
           [headers(1, [(":protocol", protocol)] + request("/refused", "CONNECT"), end=False)], Status(1, 400))
          for protocol in ("h2c", "H2C", "h2", "h2c-14", "h3", "HTTP/2.0", "http/1.1", "TLS/1.2", "h2c, websocket",
                           "websocket, h2c", "websocket,", "a/", "a b")],
        # 7541: decoding
        ("7541 2.3.3 index 0", [headers(1, b"\x80")], Connection(COMPRESSION)),
        ("7541 2.3.3 index over the tables", [headers(1, b"\xbe")], Connection(COMPRESSION)),
        ("7541 2.3.3 name index over the tables", [headers(1, b"\x7e\x01a")], Connection(COMPRESSION)),
        ("7541 4.2 size update over SETTINGS", [headers(1, b"\x3f\xe2\x1f" + f.block(good))], Connection(COMPRESSION)),
        ("7541 4.2 size update behind a field", [headers(1, f.block(good) + b"\x20")], Connection(COMPRESSION)),
        ("7541 4.2 size update in front", [headers(1, b"\x20" + f.block(good))], Status()),
        ("7541 5.1 integer too large",
         [headers(1, b"\x00\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x7f")], Connection(COMPRESSION)),
        ("7541 5.2 string over the block", [headers(1, b"\x00\x0aab")], Connection(COMPRESSION)),
        ("7541 5.2 Huffman padding of 8 bits", [headers(1, b"\x00\x01a\x84\x49\x50\x9f\xff")], Connection(COMPRESSION)),
        ("7541 5.2 Huffman padding of zeros", [headers(1, b"\x00\x01a\x83\x49\x50\x90")], Connection(COMPRESSION)),
        ("7541 5.2 Huffman EOS",
         [headers(1, b"\x00\x01a\x84\xff\xff\xff\xff")], Connection(COMPRESSION)),
        ("7541 6.1 cut block", [headers(1, b"\x00\x01")], Connection(COMPRESSION)),
        ("8.2.3 crumbs over the limit", [headers(1, request(fields=[("cookie", "a")] * 1100))], Status(1, 431)),
        # ours: sizes, with an answer (8.1.1 lets a server answer a bad request)
        ("head over the limits: fields", [headers(1, request(fields=[("x", "1")] * 200))], Status(1, 431)),
        ("head over the limits: bytes",
         [headers(1, request(fields=[("x", "y" * 4000)] * 4), flags=0),
          *[frame(CONTINUATION, 0, 1, literal("x", "y" * 16000))] * 2, frame(CONTINUATION, 4, 1, b"")], Status(1, 431)),
        ("target over the limits", in_two(1, request("/" + "x" * 16384)), Status(1, 414)),
        ("target at the limits", in_two(1, request("/" + "x" * 16383)), Status(1, 200)),
        ("a head over the limits with a body",
         [headers(1, request("/refused", "POST", [("x", "1")] * 200), end=False)], Status(1, 431)),
    ]


@pytest.fixture(scope="module")
def edges(module_programs, tmp_path_factory, pair):
    """A clear path and one with TLS, with a local service for both: {name: (server, client, origin)}."""
    made = {}
    for name, tls in (("clear", None), ("tls", pair)):
        origin = Origin()
        server = Server(module_programs, tmp_path_factory.mktemp("server"), tls=tls).start()
        client = Client(module_programs, tmp_path_factory.mktemp("client"), server.endpoint, origin.url,
                        server.user().token, label=f"tunnel-{name}", env={"KAVILO_CA_CERT": str(pair.ca)})
        made[name] = (server, client.wait_ready(), origin)
    yield made
    for _, _, origin in made.values():
        origin.close()
        assert not origin.surprises, origin.surprises


@pytest.fixture(scope="module", params=["clear", "tls"])
def edge(request, edges):  # pylint: disable=redefined-outer-name
    return edges[request.param]


def visit(edge, **how):
    server = edge[0]
    return FrameVisitor(server.edge, tls=server.tls.client(("h2",)) if server.tls else None, **how)


def serves_on(visitor, host, stream):
    visitor.send(ping(SENTINEL))
    frames = visitor.until(lambda got: got.kind == PING and got.payload == SENTINEL)
    assert frames[-1] is not None, frames
    visitor.request(stream, host, "/after")
    assert visitor.answer(stream)[0] == 200


@pytest.mark.parametrize("row", range(len(rules("a.test"))), ids=[row[0].replace(" ", "-") for row in rules("a.test")])
def test_rule(edge, row):
    _, client, origin = edge
    host = client.host
    _, frames, wanted = rules(host)[row]
    before = len(origin.heads)
    with visit(edge) as visitor:
        wire = b"".join(frames)
        try:
            visitor.send(wire)
        except Broken:
            assert isinstance(wanted, Connection)
        if isinstance(wanted, Connection):
            last = visitor.until(lambda got: got.kind == GOAWAY and got.code)
            assert last[-1] is None and not wanted.codes or last[-1] is not None and last[-1].code in wanted.codes, last
            assert visitor.until(lambda got: False)[-1] is None
        elif isinstance(wanted, Stream):
            last = visitor.until(lambda got: got.kind in (RST, GOAWAY) or got.status >= 200)
            assert last[-1] and last[-1].kind == RST and last[-1].stream == wanted.stream, last
            assert last[-1].code in wanted.codes, last
            serves_on(visitor, host, 1001)
        elif isinstance(wanted, Status):
            assert visitor_status(visitor, wanted.stream) == wanted.status
        else:
            visitor.send(ping(b"firstone"))
            seen = visitor.until(lambda got: got.kind == PING and got.payload == b"firstone")
            assert seen[-1] is not None, seen
            assert not [got for got in seen if got.kind in (RST, GOAWAY)], seen
            serves_on(visitor, host, 1001)
    origin.release.set()
    assert not any(b"refused" in head or b"x: y" in head for head in origin.heads[before:])


def visitor_status(visitor, stream):
    """The final status, with windows given so that even one of a single byte comes to its end."""
    got = visitor.until(lambda it: it.stream == stream and (it.kind == RST or it.status >= 200))
    assert got[-1] is not None and got[-1].kind == HEADERS, got
    return got[-1].status


# ---- HTTP/2 in use ----


def test_many_streams_at_once(edge):
    """128 announced, and all of them answered. One more is an error of the stream by the RFC (5.1.2), of the connection
    by the library."""
    _, client, origin = edge
    origin.release.clear()
    with visit(edge) as visitor:
        visitor.send(ping(SENTINEL))
        visitor.until(lambda got: got.kind == PING)
        assert visitor.settings[f.MAX_STREAMS] == 128 and visitor.settings[f.CONNECT_PROTOCOL] == 1
        for i in range(128):
            visitor.request(2 * i + 1, client.host, "/wait")
        origin.release.set()
        ended = set()
        while len(ended) < 128:
            got = visitor.next()
            if got.kind == HEADERS:
                assert got.status == 200
            if got.kind == DATA and got.payload:
                visitor.send(window(0, len(got.payload)))
            if got.end:
                ended.add(got.stream)


    origin.release.clear()
    with visit(edge) as visitor:
        visitor.send(ping(SENTINEL))
        visitor.until(lambda got: got.kind == PING)
        for i in range(129):
            visitor.request(2 * i + 1, client.host, "/wait" if i < 128 else "/refused")
        assert visitor.until(lambda got: got.kind == GOAWAY)[-1].code == PROTOCOL
    origin.release.set()
    assert not any(b"refused" in head for head in origin.heads[-200:])


def test_trailers_interim_heads_and_resets(edge):
    _, client, origin = edge
    with visit(edge) as visitor:
        visitor.request(1, client.host, "/trailers")
        status, body, trailers, _ = visitor.answer(1)
        assert (status, body) == (200, b"body") and ("x-check", "abc") in trailers
        visitor.request(3, client.host, "/interim")
        assert visitor.answer(3)[3] == [103, 102]
        visitor.send(headers(5, visitor.head(client.host, "/echo", [("expect", "100-continue")], "POST"), end=False))
        assert visitor.until(lambda got: got.stream == 5)[-1].status == 100
        visitor.send(data(5, b"abc"), headers(5, [("x-sum", "3")]))
        status, body, _, _ = visitor.answer(5)
        assert status == 200 and b'"size": 3' in body and b"x-sum" in body.lower()
        # a reset goes through to the service, and one of the service's comes back
        visitor.request(7, client.host, "/hang")
        # not the newest: floods of other tests may still be arriving
        hanging = wait_until(lambda: next((ex for ex in origin.exchanges if ex.path == "/hang"), None), what="the request")
        visitor.send(reset(7))
        wait_until(lambda: hanging.over, what="the service to be told")
        visitor.request(9, client.host, "/die?after=body&abort=1")
        last = visitor.until(lambda got: got.stream == 9 and got.kind == RST)
        assert last[-1].code == f.INTERNAL
        visitor.request(11, client.host)
        assert visitor.answer(11)[0] == 200


def test_several_hosts_on_one_connection(edge):
    """The certificate covers every tunnel, so any may be asked for; a host that is no tunnel's gets 502, as ever."""
    server, client, _ = edge
    with visit(edge) as visitor:
        visitor.request(1, client.host)
        visitor.request(3, "nobody-here-1000." + server.base_host)
        visitor.request(5, "other.example")
        visitor.request(7, client.host)
        assert [visitor.answer(i)[0] for i in (1,)] == [200]
        with visit(edge) as again:
            for stream, host, status in ((1, "other.example", 502), (3, client.host, 200), (5, server.base_host, 502)):
                again.request(stream, host)
                assert again.answer(stream)[0] == status


def test_drain_in_two_steps(programs, tmp_path, make_origin):
    """GOAWAY for all streams first, and the last one that is served when the visitor has read it; what is in flight
    ends, and what was on its way is served."""
    origin = make_origin()
    server = Server(programs, tmp_path / "server", grace="10s").start()
    client = Client(programs, tmp_path / "client", server.endpoint, origin.url, server.user().token).wait_ready()
    with FrameVisitor(server.edge) as visitor:
        visitor.request(1, client.host, "/wait")
        origin.wait_exchange()
        server.program.send_signal(signal.SIGTERM)
        first = visitor.until(lambda got: got.kind == GOAWAY)[-1]
        assert (first.last, first.code) == (0x7FFFFFFF, 0)
        asked = visitor.until(lambda got: got.kind == PING)[-1]
        visitor.request(3, client.host, "/on-its-way")
        visitor.send(ping(asked.payload, ack=True))
        *before, last = visitor.until(lambda got: got.kind == GOAWAY)
        assert (last.last, last.code) == (3, 0)
        origin.release.set()
        ended = {got.stream for got in before if got.end}  # the second may be answered already
        while len(ended) < 2:
            got = visitor.next()
            assert got is not None and got.kind != RST
            if got.end:
                ended.add(got.stream)
        assert visitor.until(lambda got: False)[-1] is None
    server.program.wait_exit()
