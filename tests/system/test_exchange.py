"""One request between a visitor and a scripted client that has all features: credit, trailers, resets, wrong answers."""

import pytest

from harness import protobuf
from harness.http1 import Broken, Pattern, chunk, read_response
from harness.settings import MiB, PACE
from harness.wait import TooLate, stays, wait_until

WINDOW = 65536


@pytest.fixture
def peer(shared_server, shared_user):
    """A connected scripted client with every feature, windows of 64 KiB."""
    peer = shared_server.peer(shared_user.token, features=protobuf.ALL_FEATURES, initial_credit=WINDOW).connected()
    yield peer
    peer.close()


def quiet(peer, seconds=0.3):
    """Nothing but pings comes for a while."""
    try:
        frame = peer.receive(seconds)
    except TooLate:
        return
    raise AssertionError(f"silence expected: {str(frame)[:200]}")


def collect(peer, request_id, size):
    """Body bytes of the request until `size` of them are there."""
    got = b""
    while len(got) < size:
        frame = peer.receive()
        assert frame["request_id"] == request_id
        if "data" in frame:
            got += frame["data"].get("data", b"")
    return got


# ---- the visitor's request ----


def test_request_as_the_client_sees_it(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/x?y=%20#".replace("#", ""), "POST", [("X-A", "1"), ("X-a", "2"), ("Accept", "*/*")], b"hello")
        request_id, head = peer.request()
        assert (head["method"], head["path"]) == ("POST", "/x?y=%20")
        fields = protobuf.pairs(head["headers"])
        assert [v for n, v in fields if n == "x-a"] == ["1", "2"]
        assert ("content-length", "5") in fields
        assert ("host", peer.host) in fields
        assert not head.get("is_upgrade")
        assert peer.body(request_id) == b"hello"
        peer.answer(request_id, 201, [("x-b", b"\xc3\xa9"), ("content-length", "0")])
        response = visitor.response()
        assert response.status == 201 and response.fields.one("x-b") == "\u00c3\u00a9"


def test_ids_are_never_reused(shared_server, peer):
    seen = set()
    with shared_server.visitor(peer.host) as visitor:
        for _ in range(20):
            visitor.request()
            request_id, _ = peer.request()
            assert request_id != 0 and request_id not in seen
            seen.add(request_id)
            assert peer.body(request_id) == b""
            peer.answer(request_id, 204)
            assert visitor.response().status == 204


def test_upload_never_exceeds_credit(shared_server, shared_user):
    peer = shared_server.peer(shared_user.token, features=protobuf.ALL_FEATURES, initial_credit=1000).connected()
    pattern = Pattern(100_000).bytes()
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/up", "POST", body=pattern)
        request_id, _ = peer.request()
        assert collect(peer, request_id, 1000) == pattern[:1000]
        quiet(peer)
        peer.send(request_id, credit={"bytes": 1})
        assert collect(peer, request_id, 1) == pattern[1000:1001]
        quiet(peer, 0.1)
        peer.send(request_id, credit={"bytes": 50_000})
        assert collect(peer, request_id, 50_000) == pattern[1001:51001]
        quiet(peer, 0.1)
        peer.send(request_id, credit={"bytes": 1_000_000})
        assert peer.body(request_id) == pattern[51001:]
        peer.answer(request_id, 204)
        assert visitor.response().status == 204
    peer.close()


def test_no_credit_at_all(shared_server, shared_user):
    """initial_credit 0: heads and empty bodies pass, a body waits for its first Credit."""
    peer = shared_server.peer(shared_user.token, features=protobuf.ALL_FEATURES, initial_credit=0).connected()
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/up", "POST", body=b"hello")
        request_id, _ = peer.request()
        quiet(peer)
        peer.send(request_id, credit={"bytes": 100})
        assert peer.body(request_id) == b"hello"
        peer.answer(request_id, 204)
        assert visitor.response().status == 204
        visitor.request("/empty")
        request_id, _ = peer.request()
        assert peer.body(request_id) == b""
        peer.answer(request_id, 204)
        assert visitor.response().status == 204
    peer.close()


def test_a_stalled_upload_does_not_stall_the_others(shared_server, peer):
    big = Pattern(4 * MiB).bytes()
    with shared_server.visitor(peer.host, timeout=30) as slow, shared_server.visitor(peer.host) as quick:
        slow.sock.setblocking(False)
        try:
            slow.sock.send(b"POST /slow HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n" % (peer.host.encode(), len(big)))
            while True:
                slow.sock.send(big[:WINDOW])  # until the socket takes no more: the server has stopped reading
        except BlockingIOError:
            pass
        slow_id, _ = peer.request()
        collect(peer, slow_id, WINDOW)
        for _ in range(5):
            quick.request("/quick", "POST", body=b"x" * 1000)
            frame = peer.receive()
            assert frame["request_id"] != slow_id and "request_head" in frame
            assert peer.body(frame["request_id"]) == b"x" * 1000
            peer.answer(frame["request_id"], 200, [("content-length", "1")], b"!")
            assert quick.response().content == b"!"


def test_upload_frames_are_small(shared_server, peer):
    """Exchanges interleave: no frame of a body is larger than the peers agreed in docs/PROTOCOL.md."""
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/up", "POST", body=b"x" * WINDOW)
        request_id, _ = peer.request()
        total = 0
        while total < WINDOW:
            data = peer.expect("data", request_id)
            assert len(data.get("data", b"")) <= 64 * 1024
            total += len(data.get("data", b""))
        peer.answer(request_id, 204)


def test_request_trailers(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/up", "POST", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])
        visitor.send(chunk(b"data") + b"0\r\nX-Sum: 7\r\n\r\n")
        request_id, _ = peer.request()
        assert collect(peer, request_id, 4) == b"data"
        assert protobuf.pairs(peer.expect("trailers", request_id)["headers"]) == [("x-sum", "7")]
        peer.answer(request_id, 204)
        assert visitor.response().status == 204


def test_forbidden_trailers_do_not_pass(shared_server, peer):
    """Fields of framing and routing behind a body: left out, or the whole request is refused."""
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/up", "POST", [("Transfer-Encoding", "chunked")])
        visitor.send(b"0\r\nContent-Length: 9\r\nHost: evil\r\nTransfer-Encoding: chunked\r\nX-Fine: 1\r\n\r\n")
        request_id, _ = peer.request()
        frame = peer.receive()
        if "reset" in frame:
            assert visitor.response().status == 400
            return
        assert protobuf.pairs(frame["trailers"]["headers"]) == [("x-fine", "1")], frame
        peer.answer(request_id, 204)
        assert visitor.response().status == 204


# ---- the answer ----


def test_answer_may_come_before_the_body_ends(shared_server, peer):
    """A service that answers while it reads: both directions run at once."""
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/up", "POST", [("Transfer-Encoding", "chunked")])
        request_id, _ = peer.request()
        peer.send(request_id, response_head={"status": 200})
        response = visitor.response()
        pieces = iter(response.body)
        for i in range(5):
            visitor.send(chunk(b"ping%d" % i))
            assert collect(peer, request_id, 5) == b"ping%d" % i
            peer.send(request_id, data={"data": b"pong%d" % i})
            assert next(pieces) == b"pong%d" % i
        visitor.send(b"0\r\n\r\n")
        assert peer.body(request_id) == b""
        peer.send(request_id, data={"end_stream": True})
        assert list(pieces) == []
        assert response.body.complete


def test_interim_answers_and_trailers(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/", fields=[("TE", "trailers")])
        request_id, head = peer.request()
        assert ("te", "trailers") in protobuf.pairs(head["headers"])
        peer.send(request_id, response_head={"status": 103, "headers": protobuf.headers([("link", "</a.css>")])})
        peer.send(request_id, response_head={"status": 200, "headers": protobuf.headers([("trailer", "x-sum")])})
        peer.send(request_id, data={"data": b"body"})
        peer.send(request_id, trailers={"headers": protobuf.headers([("x-sum", "12"), ("x-two", "b")])})
        response = visitor.response()
        assert response.content == b"body"
        assert [(i.status, i.fields.one("link")) for i in response.interims] == [(103, "</a.css>")]
        assert response.trailers == [("x-sum", "12"), ("x-two", "b")]


def test_http10_visitor_gets_no_chunks_and_no_interim(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/", version="HTTP/1.0")
        request_id, _ = peer.request()
        peer.send(request_id, response_head={"status": 103})
        peer.answer(request_id, 200, content=b"plain")
        response = visitor.response()
        assert response.interims == [] and "transfer-encoding" not in response.fields
        assert response.content == b"plain"


def test_download_credit_follows_the_visitor(shared_server, peer):
    """A visitor who reads nothing: the client's credit ends, below 4 MiB with all sockets full; another visitor is
    served meanwhile; then the slow one reads on and gets every byte."""
    pattern = Pattern(12 * MiB).bytes()
    credit = peer.welcome["initial_credit"]
    assert credit <= MiB
    sent = 0
    with shared_server.visitor(peer.host, buffer_size=32768, timeout=30 * PACE) as slow:
        slow.request("/slow")
        slow_id, _ = peer.request()
        assert peer.body(slow_id) == b""
        peer.send(slow_id, response_head={"status": 200, "headers": protobuf.headers([("content-length", str(len(pattern)))])})

        def push():
            nonlocal sent
            while sent < min(credit, len(pattern)):
                piece = pattern[sent : min(credit, sent + 16384)]
                peer.send(slow_id, data={"data": piece})
                sent += len(piece)

        push()
        while True:
            try:
                frame = peer.receive(0.5)
            except TooLate:
                break
            assert frame["request_id"] == slow_id and "credit" in frame, frame
            credit += frame["credit"]["bytes"]
            push()
        assert sent == credit < 8 * MiB, f"{credit} bytes granted to a visitor who reads nothing"
        with shared_server.visitor(peer.host) as quick:
            quick.request("/quick")
            quick_id, _ = peer.request()
            assert peer.body(quick_id) == b""
            peer.answer(quick_id, content=b"quick")
            assert quick.response().content == b"quick"
        response = slow.response()
        got = bytearray()
        for piece in response.body:
            got += piece
            while sent < len(pattern) and peer.link.messages:
                frame = peer.receive()
                if "credit" in frame:
                    credit += frame["credit"]["bytes"]
                    push()
            if len(got) >= sent - 16384 and sent < len(pattern):
                credit += peer.expect("credit", slow_id)["bytes"]
                push()
        assert bytes(got) == pattern


def truncated(response):
    """The answer is visibly incomplete."""
    with pytest.raises(Broken):
        response.body.read()
    assert not response.body.complete
    return True


@pytest.mark.parametrize("framing", [[("content-length", "100")], []], ids=["length", "chunked"])
@pytest.mark.parametrize("how", ["reset", "error", "gone", "cancel"])
def test_answer_that_breaks_off(shared_server, shared_user, framing, how):
    """However the client's side fails in the middle, the visitor can tell: never a complete-looking answer."""
    peer = shared_server.peer(shared_user.token, features=protobuf.ALL_FEATURES, initial_credit=WINDOW).connected()
    with shared_server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        peer.send(request_id, response_head={"status": 200, "headers": protobuf.headers(framing)})
        peer.send(request_id, data={"data": b"x" * 50})
        response = visitor.response()
        assert response.body.source.exactly(50 if framing else 4)
        if how == "reset":
            peer.send(request_id, reset={"code": 16, "message": "m"})
        elif how == "error":
            peer.send(request_id, error={"code": 0, "message": "read failed"})
        elif how == "cancel":
            peer.send(request_id, cancel={"reason": 1})
        else:
            peer.close(abrupt=True)
        assert visitor.source.at_end() if framing else truncated_chunks(visitor)
    peer.close()


def truncated_chunks(visitor):
    """The connection ends without the last chunk."""
    try:
        rest = visitor.source.to_end()
    except Broken:
        return True
    assert not rest.endswith(b"0\r\n\r\n"), rest
    return True


@pytest.mark.parametrize("how", ["reset", "error", "gone"])
def test_failure_before_the_answer(shared_server, shared_user, how):
    peer = shared_server.peer(shared_user.token, features=protobuf.ALL_FEATURES, initial_credit=WINDOW).connected()
    with shared_server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        if how == "reset":
            peer.send(request_id, reset={"code": 0, "message": "m"})
        elif how == "error":
            peer.send(request_id, error={"code": 0, "message": "m"})
        else:
            peer.close(abrupt=True)
        response = visitor.response()
        assert response.status == 502
        assert response.fields.one("kavilo-error")
        response.content  # pylint: disable=pointless-statement
    peer.close()


@pytest.mark.parametrize("code,status,name", [(0, 502, "origin_other"), (1, 502, "origin_refused"),
                                              (2, 504, "origin_connect_timeout"), (4_000_000, 502, "origin_other")])
def test_error_codes(shared_server, peer, code, status, name):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        peer.send(request_id, error={"code": code, "message": "secret detail"})
        response = visitor.response()
        assert (response.status, response.fields.one("kavilo-error")) == (status, name)
        assert b"secret detail" not in response.content
        visitor.request()  # the connection goes on
        again, _ = next_request(peer)
        peer.answer(again, 204)
        assert visitor.response().status == 204


def next_request(peer):
    """The next request head, whatever comes before it."""
    while True:
        frame = peer.receive()
        if "request_head" in frame:
            return frame["request_id"], frame["request_head"]


def header(name, value):
    return {"status": 200, "headers": [{"name": name, "value": value}]}


@pytest.mark.parametrize(
    "head",
    [
        header("x-a", b"a\r\nx-injected: 1"),
        header("x-a", b"a\nx-injected: 1"),
        header("x-a", b"a\0b"),
        header("x-a\r\nx-injected", b"1"),
        header("x a", b"1"),
        header("", b"1"),
        header("x:a", b"1"),
        header(":status", b"200"),
        {"status": 0},
        {"status": 99},
        {"status": 1000},
        {"status": 2**31},
        {},
        {"status": 101},
        {"status": 101, "upgraded": True},
        header("content-length", b"1, 2"),
        header("content-length", b"-1"),
        header("content-length", b"ten"),
        header("content-length", b"99999999999999999999999"),
        {"status": 200, "headers": protobuf.headers([("content-length", "1"), ("content-length", "2")])},
    ],
    ids=lambda h: str(h).replace(" ", "")[:60],
)
def test_answer_heads_that_cannot_be(shared_server, shared_user, head):
    """Nothing of it reaches the visitor: 502, and never an injected field."""
    peer = shared_server.peer(shared_user.token, features=protobuf.ALL_FEATURES, initial_credit=WINDOW).connected()
    with shared_server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        peer.send(request_id, response_head=head)
        peer.send(request_id, data={"end_stream": True})
        response = visitor.response()
        assert response.status == 502, response
        assert "x-injected" not in response.fields and "x-a" not in response.fields
        assert response.fields.one("kavilo-error") in ("origin_bad_response", "protocol", "client_gone")
    peer.close()


@pytest.mark.parametrize("status", [204, 304])
def test_bodies_that_cannot_be_are_dropped(shared_server, peer, status):
    """Content behind a 204 or 304 would be read as the next answer."""
    with shared_server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        peer.answer(request_id, status, content=b"HTTP/1.1 200 OK\r\n\r\n")
        assert visitor.response().status == status
        try:
            visitor.request("/next")
            again, head = next_request(peer)
            assert head["path"] == "/next"
            peer.answer(again, 200, content=b"right")
            assert visitor.response().content == b"right"
        except Broken as closed:
            assert "closed" in str(closed) or "Reset" in str(closed)


def test_body_behind_head_is_dropped(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/", "HEAD")
        request_id, _ = peer.request()
        peer.answer(request_id, 200, [("content-length", "5")], b"hello")
        response = visitor.response("HEAD")
        assert response.fields.one("content-length") == "5"
        visitor.request("/next")
        again, _ = next_request(peer)
        peer.answer(again, 200, content=b"right")
        assert visitor.response().content == b"right"


@pytest.mark.parametrize("sent", [5, 15])
def test_length_that_does_not_hold(shared_server, peer, sent):
    """Content-Length 10 and other than ten bytes: the visitor gets at most ten and an end that shows the failure."""
    with shared_server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        peer.answer(request_id, 200, [("content-length", "10")], b"x" * sent)
        try:
            response = visitor.response()
            if sent < 10:
                assert truncated(response)
            else:
                assert visitor.source.to_end() in (b"x" * 10, b"")
        except Broken:
            pass


def test_data_before_the_head(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        peer.send(request_id, data={"data": b"x"})
        assert visitor.response().status == 502


def test_two_heads(shared_server, peer):
    """A second final head for one request never reaches the visitor as bytes of anything."""
    with shared_server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        peer.send(request_id, response_head={"status": 200})
        peer.send(request_id, response_head={"status": 404})
        peer.send(request_id, data={"data": b"x"})
        peer.send(request_id, data={"end_stream": True})
        try:
            response = visitor.response()
            assert response.status in (200, 502)
            assert b"404" not in response.content
        except Broken:
            pass


def test_hop_by_hop_fields_of_an_answer_do_not_pass(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        peer.answer(request_id, 200, [("connection", "x-mine, close"), ("x-mine", "1"), ("keep-alive", "timeout=5"),
                                      ("transfer-encoding", "chunked"), ("proxy-authenticate", "Basic"),
                                      ("upgrade", "h2c"), ("x-stays", "1")], b"body")
        response = visitor.response()
        assert response.content == b"body"
        for gone in ("x-mine", "keep-alive", "upgrade"):
            assert gone not in response.fields
        assert response.fields.one("x-stays") == "1" and response.keeps_alive


# ---- who leaves ----


@pytest.mark.parametrize("when", ["before the answer", "in the answer", "in the upload"])
def test_visitor_leaves(shared_server, peer, when):
    """The client is told with a Reset, so that the local service's work ends."""
    visitor = shared_server.visitor(peer.host)
    if when == "in the upload":
        visitor.request("/up", "POST", [("Content-Length", "100")])
        visitor.send(b"x" * 10)
        request_id, _ = peer.request()
        assert collect(peer, request_id, 10) == b"x" * 10
    else:
        visitor.request()
        request_id, _ = peer.request()
        assert peer.body(request_id) == b""
        if when == "in the answer":
            peer.send(request_id, response_head={"status": 200})
            peer.send(request_id, data={"data": b"x"})
            visitor.response()
    visitor.abort()
    assert peer.expect("reset", request_id)["code"] == 32


@pytest.mark.parametrize("framing", [("Content-Length", "100"), ("Transfer-Encoding", "chunked")], ids=["length", "chunked"])
def test_visitor_leaves_an_upload_to_a_deployed_client(shared_server, shared_user, framing):
    """No end_stream; and no Cancel, which would end a chunked body as if it were complete. Behind a Content-Length a
    short body is visible, so there a Cancel is fine."""
    peer = shared_server.peer(shared_user.token).connected()
    visitor = shared_server.visitor(peer.host)
    visitor.request("/up", "POST", [framing])
    visitor.send(b"x" * 10 if framing[0] == "Content-Length" else chunk(b"x" * 10))
    request_id, _ = peer.request()
    visitor.abort()
    try:
        while True:
            frame = peer.receive(1)
            assert frame.get("request_id") == request_id, frame
            if "cancel" in frame:
                assert framing[0] == "Content-Length", "a Cancel completes a chunked body"
            else:
                assert not frame["data"].get("end_stream"), "a truncated upload was ended as if complete"
    except (TooLate, ConnectionError):
        pass
    peer.close()


def test_capacity(server, user):
    """max_concurrent_requests is a promise: one more gets 503, and a place is free again after an answer."""
    small = server
    peer = small.peer(user.token, features=protobuf.ALL_FEATURES, initial_credit=WINDOW).connected()
    limit = peer.welcome["max_concurrent_requests"]
    visitors, ids = [], []
    for i in range(limit):
        visitor = small.visitor(peer.host)
        visitor.request(f"/{i}")
        visitors.append(visitor)
        ids.append(next_request(peer)[0])
    with small.visitor(peer.host) as extra:
        extra.request()
        response = extra.response()
        assert (response.status, response.text.strip()) == (503, "tunnel is at its concurrent-request capacity")
        assert response.fields.one("kavilo-error") == "tunnel_busy"
    peer.answer(ids[0], 204)
    assert visitors[0].response().status == 204
    visitors[0].request("/again")
    again, _ = next_request(peer)
    for i, request_id in enumerate(ids[1:] + [again]):
        peer.answer(request_id, 200, [("content-length", "3")], b"%03d" % i)
    for i, visitor in enumerate(visitors[1:] + visitors[:1]):
        assert visitor.response().content == b"%03d" % i
        visitor.close()
    peer.close()


def test_max_concurrent_flag(make_server):
    server = make_server("--max-concurrent", "2")
    user = server.user()
    peer = server.peer(user.token, features=protobuf.ALL_FEATURES, initial_credit=WINDOW).connected()
    assert peer.welcome["max_concurrent_requests"] == 2
    visitors = [server.visitor(peer.host).request(f"/{i}") for i in range(2)]
    ids = [next_request(peer)[0] for _ in visitors]
    assert server.fetch(peer.host).status == 503
    for request_id in ids:
        peer.answer(request_id, 204)
    for visitor in visitors:
        assert visitor.response().status == 204
        visitor.close()
    peer.close()


def test_gone_visitors_free_their_places(make_server):
    """Whoever leaves takes no place once the client has confirmed it: three times the capacity, all aborted, then one
    that stays."""
    server = make_server("--max-concurrent", "4")
    user = server.user()
    peer = server.peer(user.token, features=protobuf.ALL_FEATURES, initial_credit=WINDOW).connected()
    for _ in range(12):
        visitor = server.visitor(peer.host).request()
        request_id, _ = next_request(peer)
        visitor.abort()
        while True:
            frame = peer.receive()
            if "reset" in frame:
                assert frame["request_id"] == request_id
                peer.send(request_id, reset={"code": 0})
                break
    with server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = next_request(peer)
        peer.answer(request_id, 204)
        assert visitor.response().status == 204
    stays(lambda: not peer.link.over, 0.1, "the session")
    peer.close()


def test_pipelined_requests_are_answered_in_order(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        head = b"GET /%d HTTP/1.1\r\nHost: " + peer.host.encode() + b"\r\n\r\n"
        visitor.send(b"".join(head % i for i in range(5)))
        for i in range(5):
            request_id, got = next_request(peer)
            assert got["path"] == f"/{i}"
            peer.answer(request_id, 200, [("content-length", "1")], b"%d" % i)
        for i in range(5):
            assert read_response(visitor.source).content == b"%d" % i


def test_upgrade_with_half_close(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/raw", fields=[("Connection", "Upgrade"), ("Upgrade", "raw/1")])
        visitor.send(b"early")  # before the 101: may go on only behind it
        request_id, head = peer.request()
        assert head["is_upgrade"]
        fields = protobuf.pairs(head["headers"])
        assert ("upgrade", "raw/1") in fields
        quiet(peer, 0.2)
        peer.send(request_id, response_head={"status": 101, "upgraded": True, "headers": protobuf.headers(
            [("upgrade", "raw/1"), ("connection", "upgrade")])})
        response = visitor.response()
        assert response.status == 101 and response.fields.one("upgrade") == "raw/1"
        assert "upgrade" in response.fields.one("connection").lower()
        assert collect(peer, request_id, 5) == b"early"
        visitor.end()
        assert peer.body(request_id) == b""
        for piece in (b"still", b"going"):
            peer.send(request_id, data={"data": piece})
        peer.send(request_id, data={"end_stream": True})
        assert visitor.source.to_end() == b"stillgoing"


def test_upgrade_half_close_of_the_service(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/raw", fields=[("Connection", "Upgrade"), ("Upgrade", "raw/1")])
        request_id, _ = peer.request()
        peer.send(request_id, response_head={"status": 101, "upgraded": True, "headers": protobuf.headers(
            [("upgrade", "raw/1"), ("connection", "upgrade")])})
        peer.send(request_id, data={"data": b"last", "end_stream": True})
        assert visitor.response().status == 101
        assert visitor.source.exactly(4) == b"last"
        assert visitor.source.at_end()
        visitor.send(b"after")
        assert collect(peer, request_id, 5) == b"after"
        visitor.close()
        wait_until(lambda: peer.link.messages, what="the visitor's end")


def test_refused_upgrade(shared_server, peer):
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/raw", fields=[("Connection", "Upgrade"), ("Upgrade", "raw/1")])
        request_id, _ = peer.request()
        peer.answer(request_id, 426, [("content-length", "2")], b"no")
        response = visitor.response()
        assert (response.status, response.content) == (426, b"no")
