"""The peers against the published bytes and against each other: what the other tests stand on has to stand itself."""

import json
import threading

import pytest

from harness import protobuf
from harness.http1 import Pattern
from harness.wait import wait_until
from legacy_client import LegacyClient
from legacy_server import LegacyServer

pytestmark = pytest.mark.peers

# The published messages: (frame, hexadecimal, content).
PUBLISHED = [
    ("ClientFrame", "12130a03746f6b12036170701a05302e312e352001",
     {"hello": {"token": "tok", "name": "app", "client_version": "0.1.5", "takeover": True}}),
    ("ServerFrame", "121f0a03737562121568747470733a2f2f7375622e746e6c2e746573742f188002",
     {"welcome": {"subdomain": "sub", "public_url": "https://sub.tnl.test/", "max_concurrent_requests": 256}}),
    ("ServerFrame", "08071a280a0347455412042f613f621a090a04686f737412016822103230332e302e3131332e373a34353637",
     {"request_id": 7, "request_head": {"method": "GET", "path": "/a?b", "headers": protobuf.headers([("host", "h")]),
                                        "remote_addr": "203.0.113.7:4567"}}),
    ("ServerFrame", "080722021001", {"request_id": 7, "data": {"end_stream": True}}),
    ("ClientFrame", "08071a2308c80112130a0e636f6e74656e742d6c656e67746812013212090a03782d621202c3a9",
     {"request_id": 7, "response_head": {"status": 200, "headers": protobuf.headers([("content-length", "2"),
                                                                                   ("x-b", b"\xc3\xa9")])}}),
    ("ClientFrame", "080722040a026f6b", {"request_id": 7, "data": {"data": b"ok"}}),
    ("ClientFrame", "080722021001", {"request_id": 7, "data": {"end_stream": True}}),
    ("ServerFrame", "08081a4a0a0347455412022f771a150a0a636f6e6e656374696f6e1207557067726164651a140a07757067726164651209"
                    "776562736f636b657422103230332e302e3131332e373a343536372801",
     {"request_id": 8, "request_head": {"method": "GET", "path": "/w",
                                        "headers": protobuf.headers([("connection", "Upgrade"), ("upgrade", "websocket")]),
                                        "remote_addr": "203.0.113.7:4567", "is_upgrade": True}}),
    ("ClientFrame", "08081a31086512140a07757067726164651209776562736f636b657412150a0a636f6e6e656374696f6e12075570677261"
                    "64651801",
     {"request_id": 8, "response_head": {"status": 101,
                                         "headers": protobuf.headers([("upgrade", "websocket"), ("connection", "Upgrade")]),
                                         "upgraded": True}}),
    ("ClientFrame", "080822060a0268691001", {"request_id": 8, "data": {"data": b"hi", "end_stream": True}}),
    ("ServerFrame", "3202082a", {"ping": {"nonce": 42}}),
    ("ClientFrame", "3a02082a", {"pong": {"nonce": 42}}),
    ("ServerFrame", "08092a020801", {"request_id": 9, "cancel": {"reason": 1}}),
    ("ClientFrame", "08034238080112346572726f722073656e64696e67207265717565737420666f722075726c2028687474703a2f2f3132372e"
                    "302e302e313a312f7829",
     {"request_id": 3, "error": {"code": 1, "message": "error sending request for url (http://127.0.0.1:1/x)"}}),
]


@pytest.mark.parametrize("name,text,content", PUBLISHED, ids=[f"{p[0]}-{protobuf.kind_of(p[2])}-{i}"
                                                             for i, p in enumerate(PUBLISHED)])
def test_published_bytes(name, text, content):
    for schema in (protobuf.BASE, protobuf.FULL):
        assert protobuf.decode(name, bytes.fromhex(text), schema) == content
        assert protobuf.encode(name, content, schema).hex() == text


def test_unknown_numbers_are_skipped():
    data = protobuf.encode("ServerFrame", {"request_id": 5, "credit": {"bytes": 9}})
    assert protobuf.decode("ServerFrame", data, protobuf.BASE) == {"request_id": 5}
    for wire_type, payload in ((0, 7), (2, b"abc"), (1, b"12345678"), (5, b"1234")):
        assert protobuf.decode("ServerFrame", protobuf.field(15, wire_type, payload), protobuf.BASE) == {}


@pytest.fixture
def pair_of_peers(make_origin):
    """A deployed server, a deployed client with a local service, and their session."""
    origin = make_origin()
    server = LegacyServer()
    client = LegacyClient(server.endpoint, "token", origin.url, retry=False)
    yield server.session(), client.connected(), origin
    client.close()
    server.close()


def test_get_and_upload(pair_of_peers):
    session, _, _ = pair_of_peers
    answer = session.request("GET", "/a?b=c", [("x-one", "1")]).head()
    seen = json.loads(answer.body())
    assert (answer.status, seen["method"], seen["target"]) == (200, "GET", "/a?b=c")
    assert ["x-forwarded-for", "203.0.113.7"] in seen["fields"]
    pattern = Pattern(3_000_000)
    answer = session.request("POST", "/up", [("content-length", "3000000")], pattern).head()
    assert json.loads(answer.body())["sha256"] == pattern.digest


def test_download_and_ping(pair_of_peers):
    session, _, _ = pair_of_peers
    pattern = Pattern(9_000_000, "s")
    answer = session.request("GET", "/body?size=9000000&seed=s&chunked=1").head()
    assert answer.value("transfer-encoding") == "chunked", "a deployed client strips nothing"
    assert answer.body() == pattern.bytes()
    session.ping()


def test_upgrade(pair_of_peers):
    session, _, _ = pair_of_peers
    exchange = session.request("GET", "/upgrade", [("connection", "upgrade"), ("upgrade", "x")], upgrade=True)
    assert exchange.head().upgraded and exchange.status == 101
    exchange.send(b"hello")
    assert next(exchange.pieces()) == b"HELLO"
    exchange.end()
    assert b"BYE" not in exchange.body(), "no half-close: the service's last words are lost"


def test_connect_refused(make_origin):
    origin = make_origin()
    server = LegacyServer()
    client = LegacyClient(server.endpoint, "token", origin.url, retry=False)
    origin.close()
    error = server.session().request("GET", "/x").error()
    assert error["code"] == 1 and error["message"].startswith("error sending request for url (http://127.0.0.1:")
    client.close()
    server.close()


def test_queue_overflow_kills_the_request_in_silence(make_origin):
    """33 frames while the local service reads nothing: nothing comes back, and the body looks complete."""
    gate = threading.Event()
    ended = []

    def handler(ex):
        gate.wait(20)
        body = ex.body.read()
        ended.append((len(body), ex.body.complete))
        ex.reply("late")

    origin = make_origin(handler)
    server = LegacyServer()
    client = LegacyClient(server.endpoint, "token", origin.url, retry=False)
    session = server.session()
    frame = b"x" * 1_000_000
    exchange = session.request("POST", "/up", [], [frame] * 60)
    wait_until(lambda: client.overflowed == [exchange.id], what="the overflow")
    gate.set()
    wait_until(lambda: ended, what="the local service's end of the body")
    assert ended[0][1] and ended[0][0] < 60_000_000
    assert exchange.frames.empty()
    assert session.request("GET", "/").head().body() == b"late", "the session lives on"
    client.close()
    server.close()


def test_cancel_completes_an_unfinished_body(pair_of_peers):
    session, _, origin = pair_of_peers
    exchange = session.request("POST", "/up", [], b"half", end=False)
    wait_until(lambda: origin.exchanges, what="the request")
    exchange.cancel()
    wait_until(lambda: origin.last.body.complete, what="the body's false end")
    assert origin.last.body.size == 4


def test_open_bodies_limit(make_origin):
    origin = make_origin()
    server = LegacyServer()
    client = LegacyClient(server.endpoint, "token", origin.url, retry=False)
    session = server.session()
    for _ in range(257):
        session.request("POST", "/up", [], b"", end=False)
    wait_until(lambda: client.dropped == [257], what="the dropped request")
    client.close()
    server.close()


def test_refusals(make_origin):
    server = LegacyServer()
    first = LegacyClient(server.endpoint, "token", make_origin().url, name="app", retry=False).connected()
    second = LegacyClient(server.endpoint, "token", make_origin().url, name="app", retry=False)
    third = LegacyClient(server.endpoint, "wrong", make_origin().url, retry=False)
    wait_until(lambda: second.refusals and third.refusals, what="both refusals")
    assert second.refusals == [(6, "tunnel 'app' is already connected from another client")]
    assert third.refusals == [(7, "invalid token")]
    assert first.welcome["subdomain"] == "app-alice-7f0c"
    for client in (first, second, third):
        client.close()
    server.close()
