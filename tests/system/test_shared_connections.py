"""State of a kept connection to the local service that must not reach another visitor."""

import contextlib
import signal
import socket
import threading

import h2.config
import h2.connection
import h2.events
import pytest

from harness import protobuf
from harness.scripted import ScriptedServer
from harness.settings import STEP
from harness.wait import wait_until


class Service:
    """HTTP/1 on threads, without the harness's checks: what is behind a head is the next one."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def answer(self, state, method, target, fields):  # pylint: disable=unused-argument
        """(status, fields, body) of a request; `state` is the connection's own."""
        return 200, (), target

    def serve(self, connection):
        buffer, state = b"", {}
        with connection, contextlib.suppress(ConnectionError):
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = connection.recv(65536)
                    if not data:
                        return
                    buffer += data
                head, buffer = buffer.split(b"\r\n\r\n", 1)
                first, *lines = head.split(b"\r\n")
                method, target, _ = first.split(b" ")
                fields = {name.lower(): value.strip() for name, value in (line.split(b":", 1) for line in lines)}
                status, more, body = self.answer(state, method, target, fields)
                more = b"".join(b"%s: %s\r\n" % pair for pair in more)
                content = b"" if method == b"HEAD" else body
                connection.sendall(
                    b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), more, content))

    def close(self):
        self.listener.close()


class Ntlm(Service):
    """Its login belongs to the connection: "T1", then "T3:<user>", and every later request there is the user's."""

    scheme = b"NTLM"

    def answer(self, state, method, target, fields):
        scheme, _, sent = fields.get(b"authorization", b"").partition(b" ")
        if scheme == self.scheme and sent == b"T1":
            state["challenged"] = True
            return 401, [(b"WWW-Authenticate", self.scheme + b" T2")], b"challenge"
        if scheme == self.scheme and sent.startswith(b"T3:") and state.get("challenged"):
            state["user"] = sent[3:]
        if "user" in state:
            return 200, (), b"hello " + state["user"]
        return 401, [(b"WWW-Authenticate", self.scheme)], b"who are you?"


@pytest.fixture
def bodyless():
    """It leaves the bodies of its requests unread, as many do with GET: they are its next requests."""
    service = Service()
    yield service
    service.close()


@pytest.fixture(params=[b"NTLM", b"Negotiate"])
def ntlm(request):
    service = Ntlm()
    service.scheme = request.param
    yield service
    service.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_unread_body_poisons_nothing(server, user, make_client, bodyless, method):
    """A connection whose service may have left a body unread carries no other request."""
    client = make_client(server, bodyless.url, user.token)
    smuggled = b"GET /SMUGGLED HTTP/1.1\r\nHost: x\r\n\r\n"
    for i in range(20):
        with server.visitor(client.host) as attacker:
            attacker.request("/a", method, body=smuggled)
            attacker.response(method)
        with server.visitor(client.host) as victim:
            victim.request(f"/victim-{i}")
            assert victim.response().content == b"/victim-%d" % i
    assert bodyless.connections >= 20, "a connection was used again"


def test_connections_are_kept_for_others(server, user, make_client, bodyless):
    """Without bodies one connection serves all, one after the other."""
    client = make_client(server, bodyless.url, user.token)
    for i in range(10):
        with server.visitor(client.host) as visitor:
            visitor.request(f"/{i}")
            assert visitor.response().content == b"/%d" % i
    assert bodyless.connections == 1


class Talkative(Service):
    """It answers more often than it is asked: once more on each connection when it is told to."""

    def __init__(self):
        self.kept = []
        super().__init__()

    def answer(self, state, method, target, fields):
        return 200, (), target

    def serve(self, connection):
        self.kept.append(connection)
        super().serve(connection)

    def speak(self):
        for connection in self.kept:
            with contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nWRONG")


def test_answer_that_nobody_asked_for(server, user, make_client):
    """It lies in a kept connection's socket when the next request comes: the client, stopped meanwhile, finds both in one
    turn, and the request goes elsewhere."""
    service = Talkative()
    client = make_client(server, service.url, user.token)
    for i in range(10):
        with server.visitor(client.host) as visitor:
            visitor.request(f"/first-{i}")
            assert visitor.response().content == b"/first-%d" % i
            client.program.send_signal(signal.SIGSTOP)
            service.speak()
            visitor.request(f"/second-{i}")
            wait_until(lambda: len(server.program.log(message="request")) == 2 * i + 2, what="the request on its way")
            client.program.send_signal(signal.SIGCONT)
            assert visitor.response().content == b"/second-%d" % i
    service.close()


# ---- logins that belong to a connection ----


def ask(visitor, ntlm, sent=None):
    """(status, content) of a request with these credentials."""
    fields = [("Authorization", f"{ntlm.scheme.decode()} {sent}")] if sent else []
    visitor.request("/", fields=fields)
    response = visitor.response()
    return response.status, response.content


def log_in(visitor, ntlm):
    assert ask(visitor, ntlm)[0] == 401
    assert ask(visitor, ntlm, "T1") == (401, b"challenge")
    return ask(visitor, ntlm, "T3:alice")


def test_login_is_one_visitors(server, user, make_client, ntlm):
    """The handshake completes on one connection, which serves that visitor on and nobody else."""
    client = make_client(server, ntlm.url, user.token)
    with server.visitor(client.host) as alice:
        assert log_in(alice, ntlm) == (200, b"hello alice")
        for _ in range(3):
            with server.visitor(client.host) as stranger:
                assert ask(stranger, ntlm)[0] == 401
                assert ask(alice, ntlm) == (200, b"hello alice")
                assert ask(stranger, ntlm)[0] == 401
    with server.visitor(client.host) as stranger:
        assert ask(stranger, ntlm)[0] == 401


def test_each_visitor_has_a_login(server, user, make_client, ntlm):
    client = make_client(server, ntlm.url, user.token)
    with server.visitor(client.host) as alice, server.visitor(client.host) as bob:
        assert ask(alice, ntlm, "T1") == ask(bob, ntlm, "T1") == (401, b"challenge")
        assert ask(bob, ntlm, "T3:bob") == (200, b"hello bob")
        assert ask(alice, ntlm, "T3:alice") == (200, b"hello alice")
        assert ask(bob, ntlm) == (200, b"hello bob")
        assert ask(alice, ntlm) == (200, b"hello alice")


def test_login_behind_a_shared_proxy_is_not_kept(make_server, make_client, ntlm):
    """A connection of a trusted proxy carries many visitors: what it logged in ends with its answer."""
    server = make_server("--trusted-proxies", "127.0.0.1")
    client = make_client(server, ntlm.url, server.user().token)
    with server.visitor(client.host) as proxy:
        assert ask(proxy, ntlm, "T1") == (401, b"challenge")
        assert ask(proxy, ntlm, "T3:alice")[0] == 401
        assert ask(proxy, ntlm)[0] == 401


class H2Visitor:
    """One HTTP/2 connection, a request after the other."""

    def __init__(self, address, host):
        self.host = host
        self.sock = socket.create_connection(address, timeout=STEP)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def ask(self, ntlm, sent=None):
        number = self.h2.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", self.host)]
        if sent:
            fields.append(("authorization", f"{ntlm.scheme.decode()} {sent}"))
        self.h2.send_headers(number, fields, True)
        status, content = None, b""
        while True:
            self.sock.sendall(self.h2.data_to_send())
            data = self.sock.recv(65536)
            assert data, "the connection was closed"
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    content += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return status, content


def test_login_over_http2(server, user, make_client, ntlm):
    client = make_client(server, ntlm.url, user.token)
    with H2Visitor(server.edge, client.host) as alice, H2Visitor(server.edge, client.host) as stranger:
        assert alice.ask(ntlm, "T1") == (401, b"challenge")
        assert alice.ask(ntlm, "T3:alice") == (200, b"hello alice")
        assert stranger.ask(ntlm)[0] == 401
        assert alice.ask(ntlm) == (200, b"hello alice")


@pytest.mark.parametrize("features", [None, protobuf.ALL_FEATURES & ~protobuf.VISITOR, protobuf.ALL_FEATURES])
def test_login_without_visitors_of_the_server(make_client, ntlm, features):
    """A server that does not say whose connection it is: what is logged in closes after its answer."""
    scripted = ScriptedServer()
    client = make_client(scripted.endpoint, ntlm.url, "t" * 52, name="app", ready=False)
    session = scripted.next().welcome(features=features)
    client.wait_ready()
    for sent in ("T1", "T3:alice", None):
        fields = [("authorization", f"{ntlm.scheme.decode()} {sent}")] if sent else []
        head, _, _ = session.answer(session.request(fields=fields))
        assert head["status"] == 401
    scripted.close()


def test_visitor_is_told_to_those_who_know_it(server, user):
    """Requests of one connection have one number, others another; a client without the feature is told none."""
    for features in (protobuf.ALL_FEATURES, protobuf.ALL_FEATURES & ~protobuf.VISITOR):
        peer = server.peer(user.token, features=features, initial_credit=65536).connected()
        told = []
        for requests in (2, 1):
            with server.visitor(peer.host) as visitor:
                for _ in range(requests):
                    visitor.request("/")
                    request_id, head = peer.request()
                    assert peer.receive()["data"]["end_stream"]
                    told.append(head.get("visitor_connection", 0))
                    peer.answer(request_id)
                    visitor.response().content  # pylint: disable=expression-not-assigned
        if features & protobuf.VISITOR:
            assert told[0] == told[1] != 0 and told[2] not in (0, told[0])
        else:
            assert told == [0, 0, 0]
        peer.close()
