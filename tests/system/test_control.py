"""The control plane by raw gRPC: who gets in, what a refusal says to the letter, what else a stream may bring."""

import re
import time

import grpc
import pytest

from harness import protobuf
from harness.grpclink import Link, LinkClosed
from harness.settings import PACE, STEP
from harness.tunnel import Peer
from harness.wait import stays, wait_until

INVALID_ARGUMENT, DEADLINE_EXCEEDED, ALREADY_EXISTS, PERMISSION_DENIED = 3, 4, 6, 7
RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-[1-9][0-9]{3}")
PUBLISHED_HELLO = bytes.fromhex("12130a03746f6b12036170701a05302e312e352001")


def assert_cut(link):
    """After a refusal the server resets the stream or closes: a deployed client would write on otherwise."""
    link.wait(lambda: link.reset is not None or link.closed, what="a reset or a close after the trailers")


def assert_serves(server, user):
    """The server is well: a new session gets its Welcome."""
    peer = server.peer(user.token).connected()
    peer.close()


# ---- getting in ----


def test_welcome(shared_server, shared_user):
    peer = shared_server.peer(shared_user.token).connected()
    head = dict(peer.link.headers)
    assert head[":status"] == "200" and head["content-type"].startswith("application/grpc")
    assert RANDOM_NAME.fullmatch(peer.welcome["subdomain"])
    # Without certificates of its own, a server with a public name stands behind something that has them.
    assert peer.welcome["public_url"] == f"https://{peer.welcome['subdomain']}.tnl.test/"
    assert peer.welcome["max_concurrent_requests"] == 256
    peer.close()


def test_welcome_announces_what_both_sides_need(shared_server, shared_user):
    peer = shared_server.peer(shared_user.token, features=protobuf.ALL_FEATURES, initial_credit=65536).connected()
    assert peer.welcome["features"] & protobuf.ALL_FEATURES == protobuf.ALL_FEATURES
    assert peer.welcome["initial_credit"] > 0
    assert peer.welcome["session_id"]
    peer.close()


def test_two_sessions_have_two_session_ids(shared_server, shared_user):
    peers = [shared_server.peer(shared_user.token, features=protobuf.ALL_FEATURES).connected() for _ in range(2)]
    assert peers[0].welcome["session_id"] != peers[1].welcome["session_id"]
    assert peers[0].welcome["subdomain"] != peers[1].welcome["subdomain"]
    for peer in peers:
        peer.close()


def test_messages_to_a_deployed_client_hold_nothing_it_does_not_know(shared_server, shared_user):
    """Byte for byte: what the base schema reads, written again, is what came (Welcome may carry additions)."""
    peer = shared_server.peer(shared_user.token).connected()
    with shared_server.visitor(peer.host) as visitor:
        visitor.request("/a?b", "GET", [("X-One", "1")])
        raw = peer.link.next_message()
        frame = protobuf.decode("ServerFrame", raw, protobuf.BASE)
        assert protobuf.encode("ServerFrame", frame, protobuf.BASE) == raw
        head = frame["request_head"]
        assert list(head) == ["method", "path", "headers", "remote_addr"]
        assert (head["method"], head["path"]) == ("GET", "/a?b")
        assert re.fullmatch(r"127\.0\.0\.1:\d+", head["remote_addr"])
        names = [n for n, _ in protobuf.pairs(head["headers"])]
        assert names == [n.lower() for n in names]
        raw = peer.link.next_message()
        assert raw == protobuf.encode("ServerFrame", {"request_id": frame["request_id"], "data": {"end_stream": True}})
        peer.answer(frame["request_id"], 200, [("content-length", "2")], b"ok")
        assert visitor.response().content == b"ok"
    peer.close()


def test_hello_may_come_in_pieces(shared_server, shared_user):
    peer = Peer(shared_server, None, hello=False)
    message = protobuf.encode("ClientFrame", {"hello": {"token": shared_user.token}})
    data = b"\0" + len(message).to_bytes(4, "big") + message
    for i in range(len(data)):
        peer.link.send_bytes(data[i : i + 1])
    peer.connected().close()


def test_unknown_fields_are_skipped(shared_server, shared_user):
    hello = protobuf.encode("Hello", {"token": shared_user.token}) + protobuf.field(99, 2, b"later")
    peer = Peer(shared_server, None, hello=False)
    peer.link.send_message(protobuf.field(2, 2, hello) + protobuf.field(77, 0, 5))
    peer.connected()
    peer.link.send_message(protobuf.field(1, 0, 3) + protobuf.field(90, 2, b"a message of the future"))
    peer.link.h2_ping()
    peer.link.wait(lambda: peer.link.pings_acked, what="the ack of a PING")
    assert not peer.link.over
    peer.close()


def test_a_real_grpc_client_opens(shared_server, shared_user):
    """python3-grpcio, which nobody here wrote."""
    hello = protobuf.encode("ClientFrame", {"hello": {"token": shared_user.token, "client_version": "x"}})
    done = []

    def frames():
        yield hello
        wait_until(lambda: done, what="the Welcome in the gRPC client")

    with grpc.insecure_channel("%s:%d" % shared_server.control) as channel:
        call = channel.stream_stream("/kavilo.tunnel.v1.Tunnel/Open")(frames(), timeout=STEP)
        welcome = protobuf.decode("ServerFrame", next(call))
        done.append(1)
        assert RANDOM_NAME.fullmatch(welcome["welcome"]["subdomain"])
        call.cancel()


def test_a_real_grpc_client_reads_a_refusal(shared_server):
    """Its direction stays open, as a tunnel client's does: the status must not be lost in the server's close."""
    hello = protobuf.encode("ClientFrame", {"hello": {"token": "nonsense"}})
    for _ in range(5):
        done = []

        def frames(over=done):
            yield hello
            wait_until(lambda: over, what="the refusal in the gRPC client")

        with grpc.insecure_channel("%s:%d" % shared_server.control) as channel:
            call = channel.stream_stream("/kavilo.tunnel.v1.Tunnel/Open")(frames(), timeout=STEP)
            with pytest.raises(grpc.RpcError) as failed:
                next(call)
            done.append(1)
            assert failed.value.code() == grpc.StatusCode.PERMISSION_DENIED, failed.value.details()
            assert failed.value.details() == "invalid token"


def test_a_real_grpc_client_reads_the_end_of_a_session(shared_server, shared_user):
    """The name is taken over: a status that is not OK, behind the messages before it."""
    hello = protobuf.encode("ClientFrame", {"hello": {"token": shared_user.token, "name": "grpc"}})
    done = []

    def frames():
        yield hello
        wait_until(lambda: done, what="the end in the gRPC client")

    with grpc.insecure_channel("%s:%d" % shared_server.control) as channel:
        call = channel.stream_stream("/kavilo.tunnel.v1.Tunnel/Open")(frames(), timeout=STEP)
        assert "welcome" in protobuf.decode("ServerFrame", next(call))
        second = shared_server.peer(shared_user.token, "grpc", takeover=True).connected()
        with pytest.raises(grpc.RpcError) as failed:
            for message in call:
                assert "cancel" in protobuf.decode("ServerFrame", message)
        done.append(1)
        assert failed.value.code() == grpc.StatusCode.ABORTED
        second.close()


# ---- refusals ----


@pytest.mark.parametrize("token", ["", "nonsense", "a" * 52, "a" * 300, "x" * 4000, "tok\0en", "ünï"])
def test_wrong_token(shared_server, token):
    peer = shared_server.peer(token)
    assert peer.refused() == (PERMISSION_DENIED, "invalid token")
    assert_cut(peer.link)


def test_hello_of_a_megabyte(shared_server, shared_user):
    """Nobody's Hello is that large: refused, not collected."""
    peer = shared_server.peer("x" * 1_000_000)
    assert peer.refused()[0] in (INVALID_ARGUMENT, PERMISSION_DENIED, 8)
    assert_serves(shared_server, shared_user)


def test_missing_token(shared_server):
    peer = Peer(shared_server, None, hello=False)
    peer.send(hello={"client_version": "0.1.5"})
    assert peer.refused() == (PERMISSION_DENIED, "invalid token")


def test_published_hello_is_understood(shared_server):
    """The published bytes carry a token nobody has: the refusal of it, not of the message, has to come."""
    peer = Peer(shared_server, None, hello=False)
    peer.link.send_message(PUBLISHED_HELLO)
    assert peer.refused() == (PERMISSION_DENIED, "invalid token")


def test_almost_right_token(shared_server, shared_user):
    token = shared_user.token
    for wrong in (token[:-1], token + "a", token.upper(), " " + token, token[:-1] + ("a" if token[-1] != "a" else "b")):
        assert shared_server.peer(wrong).refused() == (PERMISSION_DENIED, "invalid token")


def test_revoked_token_is_refused(server, user):
    server.peer(user.token).connected().close()
    server.sql("DELETE FROM api_tokens")

    def refused():
        peer = server.peer(user.token)
        try:
            peer.connected()
        except LinkClosed:
            return peer.refused()
        finally:
            peer.close()
        return None

    # "within seconds": a token check may be remembered for a moment.
    assert wait_until(refused, 5 * PACE, "the refusal of a deleted token") == (PERMISSION_DENIED, "invalid token")


@pytest.mark.parametrize(
    "name",
    ["", "-", "-a", "A", "Laptop", "a_b", "a.b", "a b", "a/b", "ä", "xn--ä", "a\n", "a\0b", "a" * 63, "a" * 64,
     "a" * 70_000, "*", "%61", "xn--a", "ab-"],
    ids=lambda n: repr(n)[:12] + str(len(n)),
)
def test_names_that_are_no_label(shared_server, shared_user, name):
    peer = shared_server.peer(shared_user.token, name)
    status, message = peer.refused()
    assert status == INVALID_ARGUMENT
    assert message and message != "invalid token"
    assert_cut(peer.link)
    assert shared_server.sql("SELECT count(*) FROM tunnels WHERE name = ?", name) == [(0,)]


def test_longest_name(shared_server, shared_user):
    room = 63 - 1 - len(shared_user.slug)
    assert shared_server.peer(shared_user.token, "n" * (room + 1)).refused()[0] == INVALID_ARGUMENT
    peer = shared_server.peer(shared_user.token, "n" * room).connected()
    assert peer.welcome["subdomain"] == "n" * room + "-" + shared_user.slug
    peer.close()


def test_live_name(shared_server, shared_user):
    first = shared_server.peer(shared_user.token, "laptop").connected()
    second = shared_server.peer(shared_user.token, "laptop")
    assert second.refused() == (ALREADY_EXISTS, "tunnel 'laptop' is already connected from another client")
    assert_cut(second.link)
    assert not first.link.over
    first.close()


def test_subdomain_of_another_account(server):
    """`a-b` of the slug `c` and `a` of the slug `b-c` meet in a-b-c."""
    first, second = server.user("one@example.com"), server.user("two@example.com")
    server.sql("UPDATE users SET slug = 'c' WHERE email = ?", first.email)
    server.sql("UPDATE users SET slug = 'b-c' WHERE email = ?", second.email)
    holder = server.peer(first.token, "a-b").connected()
    assert holder.welcome["subdomain"] == "a-b-c"
    status, message = server.peer(second.token, "a").refused()
    assert status == ALREADY_EXISTS
    assert message and "already connected" not in message
    holder.close()
    status, again = server.peer(second.token, "a", takeover=True).refused()
    assert (status, again) == (ALREADY_EXISTS, message), "neither a closed session nor --takeover gives it away"
    assert server.sql("SELECT count(*) FROM tunnels") == [(1,)]


@pytest.mark.first
def test_no_hello(shared_server):
    """DEADLINE_EXCEEDED after ten seconds, for a silent client and for one that trickles."""
    silent, trickling = Peer(shared_server, None, hello=False), Peer(shared_server, None, hello=False)
    trickling.link.send_bytes(b"\0\0\0")
    start = time.monotonic()
    assert silent.refused(15 * PACE)[0] == DEADLINE_EXCEEDED
    took = time.monotonic() - start
    assert 9 < took < 12 * PACE, took
    assert trickling.refused(5)[0] == DEADLINE_EXCEEDED
    for peer in (silent, trickling):
        assert_cut(peer.link)


# ---- streams that are wrong ----


def wrong_first(name, message):
    return pytest.param(message, id=name)


@pytest.mark.parametrize(
    "message",
    [
        wrong_first("data", protobuf.encode("ClientFrame", {"request_id": 1, "data": {"data": b"x"}})),
        wrong_first("garbage", b"\xff" * 40),
        wrong_first("cut", bytes.fromhex("1213")),
        wrong_first("group", protobuf.varint(2 << 3 | 3)),
        wrong_first("token-as-number", protobuf.field(2, 2, protobuf.field(1, 0, 5))),
        wrong_first("endless-varint", b"\x08" + b"\x80" * 30),
        wrong_first("huge-length", b"\x12\xff\xff\xff\xff\x7f"),
    ],
)
def test_first_message_that_is_no_hello(shared_server, shared_user, message):
    peer = Peer(shared_server, None, hello=False)
    peer.link.send_message(message)
    status, text = peer.refused()
    assert status != 0 and text
    assert_cut(peer.link)
    assert_serves(shared_server, shared_user)


@pytest.mark.parametrize(
    "message",
    [wrong_first("empty", b""), wrong_first("no-oneof", protobuf.encode("ClientFrame", {"request_id": 5})),
     wrong_first("unknown", protobuf.field(99, 2, b"x"))],
)
def test_messages_without_a_known_body_are_skipped_before_hello(shared_server, shared_user, message):
    peer = Peer(shared_server, None, hello=False)
    peer.link.send_message(message)
    peer.send(hello={"token": shared_user.token})
    peer.connected().close()


@pytest.mark.parametrize("hello", [True, False])
def test_compressed_message(shared_server, shared_user, hello):
    peer = shared_server.peer(shared_user.token).connected() if hello else Peer(shared_server, None, hello=False)
    peer.link.send_message(protobuf.encode("ClientFrame", {"ping": {"nonce": 1}}), compressed=1)
    assert peer.link.status()[0] != 0
    assert_cut(peer.link)
    assert_serves(shared_server, shared_user)


@pytest.mark.parametrize("size", [4 * 1024 * 1024 + 1, 0xFFFFFFFF])
def test_message_over_the_cap(shared_server, shared_user, size):
    """The announcement of its size is enough to be refused: nothing of it is waited for or kept."""
    peer = shared_server.peer(shared_user.token).connected()
    peer.link.send_bytes(b"\0" + size.to_bytes(4, "big"))
    assert peer.link.status()[0] != 0
    assert_cut(peer.link)
    assert_serves(shared_server, shared_user)


def test_garbage_inside_a_session_ends_it(shared_server, shared_user):
    peer = shared_server.peer(shared_user.token, "garbler").connected()
    peer.link.send_message(b"\xff" * 100)
    assert peer.link.status()[0] != 0
    assert_cut(peer.link)
    shared_server.peer(shared_user.token, "garbler").connected().close()


def test_frames_of_unknown_requests_are_dropped(shared_server, shared_user):
    peer = shared_server.peer(shared_user.token, features=protobuf.ALL_FEATURES, initial_credit=65536).connected()
    for request_id in (1, 999, 2**63):
        peer.send(request_id, response_head={"status": 200})
        peer.send(request_id, data={"data": b"x", "end_stream": True})
        peer.send(request_id, error={"code": 1, "message": "late"})
        peer.send(request_id, credit={"bytes": 1000})
        peer.send(request_id, reset={"code": 1})
        peer.send(request_id, trailers={})
        peer.send(request_id, cancel={"reason": 1})
    peer.send(ping={"nonce": 1})
    peer.expect("pong")  # all of it has been read: the next request is the first one's namesake
    with shared_server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        peer.answer(request_id, content=b"alive")
        assert visitor.response().content == b"alive"
    peer.close()


def test_ping_is_answered(shared_server, shared_user):
    peer = shared_server.peer(shared_user.token, features=protobuf.ALL_FEATURES, initial_credit=65536).connected()
    peer.send(ping={"nonce": 77})
    assert peer.expect("pong") == {"nonce": 77}
    peer.link.h2_ping()
    peer.link.wait(lambda: peer.link.pings_acked == 1, what="the ack of an HTTP/2 PING")
    peer.close()


@pytest.mark.parametrize(
    "how",
    [{"path": "/kavilo.tunnel.v1.Tunnel/Close"}, {"path": "/"}, {"path": "/kavilo.tunnel.v2.Tunnel/Open"},
     {"method": "GET", "end_stream": True}],
    ids=str,
)
def test_other_paths_and_methods(shared_server, shared_user, how):
    link = Link.dial(shared_server.endpoint, **how)
    head = dict(link.wait(lambda: link.headers, what="an answer"))
    assert head[":status"] != "200" or head.get("grpc-status", "0") != "0"
    link.close()
    assert_serves(shared_server, shared_user)


def test_other_content_type(shared_server):
    host = "%s:%d" % shared_server.control
    link = Link.dial(
        shared_server.endpoint,
        headers=[(":method", "POST"), (":scheme", "http"), (":path", "/kavilo.tunnel.v1.Tunnel/Open"),
                 (":authority", host), ("content-type", "application/json")],
    )
    head = dict(link.wait(lambda: link.headers, what="an answer"))
    assert head[":status"] in ("404", "415") or head.get("grpc-status", "0") != "0"
    link.close()


def test_end_of_stream_frees_the_name(shared_server, shared_user):
    """An orderly END_STREAM and a RST_STREAM, the connection left open."""
    for end in (lambda link: link.send_bytes(b"", end_stream=True), lambda link: link.reset_stream()):
        peer = shared_server.peer(shared_user.token, "ender").connected()
        end(peer.link)

        def free():
            again = shared_server.peer(shared_user.token, "ender")
            try:
                again.connected()
                return True
            except LinkClosed:
                return False
            finally:
                again.close()

        wait_until(free, what="the name is free")


# ---- liveness ----


@pytest.mark.first
def test_silence(shared_server, shared_user):
    """Peers that answer pings live for ever; those that answer none, deployed or ours, are dead within 15 s and their
    names free."""
    kinds = {"silent": None, "silent-too": protobuf.ALL_FEATURES}
    living = [shared_server.peer(shared_user.token, features=features).connected() for features in kinds.values()]
    dead = [shared_server.peer(shared_user.token, name, features=f).connected() for name, f in kinds.items()]
    for peer in dead:
        peer.link.lock.acquire()  # so its reading thread can neither ack a PING nor see a Ping
    start = time.monotonic()
    held = set(kinds)

    def free():
        for peer in living:
            peer.answer_pings()
        for name in list(held):
            again = shared_server.peer(shared_user.token, name)
            try:
                again.connected()
                held.remove(name)
            except LinkClosed:
                assert again.refused()[0] == ALREADY_EXISTS
            finally:
                again.close()
        return not held

    wait_until(free, 20 * PACE, "the dead peers' names are free", every=0.25)
    assert time.monotonic() - start > 4, "declared dead without being asked"
    for peer in living:
        assert not peer.link.over
        with shared_server.visitor(peer.host) as visitor:
            visitor.request()
            request_id, _ = peer.request()
            peer.answer(request_id, content=b"alive")
            assert visitor.response().content == b"alive"
        peer.close()
    for peer in dead:
        peer.link.lock.release()
        peer.close()


def test_session_goes_on_while_others_are_refused(shared_server, shared_user):
    """A is not disturbed by a crowd of wrong Hellos beside it."""
    peer = shared_server.peer(shared_user.token, "calm").connected()
    for _ in range(20):
        assert shared_server.peer(shared_user.token, "calm").refused()[0] == ALREADY_EXISTS
        assert shared_server.peer("wrong").refused()[0] == PERMISSION_DENIED
    stays(lambda: not peer.link.over and not peer.link.messages, 0.2, "A's session is untouched")
    peer.close()
