"""gRPC through the tunnel, and the tunnel's own protocol, with libraries that nobody here wrote."""

import itertools
import threading
from urllib.parse import urlsplit

import grpc
import pytest

from harness import protobuf
from harness.grpcpeer import Calls, NodePackage, NodePeer, Service, channel
from harness.http1 import Visitor, chunk, head_bytes
from harness.settings import ROOT, MiB, STEP
from harness.tunnel import BASE_HOST, Client, Server
from harness.wait import wait_until

Status = grpc.StatusCode
OPEN = "/kavilo.tunnel.v1.Tunnel/Open"


class Path:
    """A server, a gRPC service and a tunnel to it; `calls` is a channel to the edge."""

    def __init__(self, programs, folder, tls):
        self.programs, self.folder, self.tls = programs, folder, tls
        self.server = Server(programs, folder / "server", tls=tls).start()
        self.user = self.server.user()
        self.service = Service(tls)
        self.client = self.tunnel(self.service.url)
        self.calls = channel(self.server, self.client.host)

    numbers = itertools.count(1)

    def tunnel(self, url):
        number = next(Path.numbers)
        env = {"KAVILO_CA_CERT": str(self.tls.ca)} if self.tls else {}
        return Client(self.programs, self.folder / f"client{number}", self.server.endpoint, url, self.user.token, env=env,
                      label=f"tunnel{number}").wait_ready()

    def close(self):
        self.calls.channel.close()
        self.service.close()


@pytest.fixture(scope="module", params=["clear", "tls"])
def path(request, module_programs, tmp_path_factory, pair):
    """h2c to the edge and to the service, or TLS with ALPN to both."""
    made = Path(module_programs, tmp_path_factory.mktemp(request.param), pair if request.param == "tls" else None)
    yield made
    made.close()


def failure_of(call):
    with pytest.raises(grpc.RpcError) as failed:
        call()
    error = failed.value
    return error.code(), error.details(), dict(error.trailing_metadata() or ())


# ---- calls ----


def test_kinds(path):
    calls = path.calls
    assert calls.unary("Echo")(b"hello", timeout=STEP) == b"hello"
    assert calls.unary("Echo")(b"", timeout=STEP) == b""
    assert [m.strip() for m in calls.server_stream("Count")(b"3 10", timeout=STEP)] == [b"0", b"1", b"2"]
    assert list(calls.server_stream("Count")(b"0 10", timeout=STEP)) == []
    assert calls.client_stream("Join")(iter([b"a", b"b"]), timeout=STEP) == b"ab"
    assert calls.client_stream("Join")(iter([]), timeout=STEP) == b""


def test_full_duplex(path):
    """Each message is answered before the next is sent, and the service's end comes after the caller's."""
    answered = threading.Semaphore(1)

    def messages():
        for letter in b"abcde":
            assert answered.acquire(timeout=STEP)
            yield bytes([letter])

    got = []
    for answer in path.calls.stream("Chat")(messages(), timeout=STEP):
        got.append(answer)
        answered.release()
    assert got == [b"A", b"B", b"C", b"D", b"E"]


def test_metadata(path):
    sent = [("x-ascii", "plain"), ("x-two", "1"), ("x-two", "2"), ("x-some-bin", bytes(range(256)))]
    answer, call = path.calls.unary("Echo").with_call(b"m", metadata=sent, timeout=STEP)
    assert answer == b"m"
    first = [tuple(m) for m in call.initial_metadata() if m.key.startswith("x-")]
    last = [tuple(m) for m in call.trailing_metadata() if m.key.startswith("x-")]
    assert first == [("x-first", "1")] + sent and last == [("x-last", "2")] + sent
    method, seen = path.service.seen[-1]
    assert method.endswith("/Echo") and ("x-forwarded-host", path.client.host) in seen
    assert not {"connection", "transfer-encoding", "kavilo-request-id"} & {name for name, _ in seen}


@pytest.mark.parametrize("code", ["NOT_FOUND", "UNAUTHENTICATED", "CANCELLED", "DATA_LOSS"])
def test_errors(path, code):
    status, details, trailers = failure_of(lambda: path.calls.unary("Fail")(f"{code} nothing hére: 100%".encode(), timeout=STEP))
    assert (status, details, trailers["x-why"]) == (Status[code], "nothing hére: 100%", "because")


def test_an_error_behind_messages(path):
    call = path.calls.server_stream("Break")(b"", timeout=STEP)
    assert next(call) == b"one"
    assert failure_of(lambda: next(call))[:2] == (Status.ABORTED, "broke off")


def test_unknown_method(path):
    assert failure_of(lambda: path.calls.unary("Nothing")(b"", timeout=STEP))[0] == Status.UNIMPLEMENTED


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_calls_that_are_given_up(path, how):
    """The service sees it at once, not at the end of its own patience."""
    path.service.hanging.clear()
    path.service.cancelled.clear()
    call = path.calls.unary("Hang").future(b"", timeout=0.3 if how == "deadline" else STEP)
    if how == "cancel":
        assert path.service.hanging.wait(STEP)
        call.cancel()
        assert call.cancelled()
    else:
        assert failure_of(call.result)[0] == Status.DEADLINE_EXCEEDED
        assert path.service.hanging.wait(STEP)
    assert path.service.cancelled.wait(STEP / 2)


def test_large_messages(path):
    data = bytes(range(256)) * (9 * MiB // 256)
    assert path.calls.unary("Echo")(data, timeout=STEP * 3) == data


def test_two_hundred_calls_on_one_channel(path):
    calls = [path.calls.unary("Echo").future(b"%d" % i * 1000, timeout=STEP * 3) for i in range(200)]
    assert [call.result() for call in calls] == [b"%d" % i * 1000 for i in range(200)]


def test_a_stalled_stream_stops_no_other(path):
    stalled = path.calls.server_stream("Count")(b"150 65536", timeout=STEP * 3)
    assert len(next(stalled)) == 65536
    for i in range(20):
        assert path.calls.unary("Echo")(b"%d" % i, timeout=STEP) == b"%d" % i
    assert sum(len(m) for m in stalled) == 149 * 65536


def test_trailers_for_http1(path):
    """A gRPC call as an HTTP/1.1 exchange: whoever is between us and the caller may speak that."""
    how = {"tls": path.tls.client()} if path.tls else {}
    with Visitor(path.server.edge, path.client.host, **how) as visitor:
        fields = [("Host", path.client.host), ("TE", "trailers"), ("Content-Type", "application/grpc"),
                  ("Transfer-Encoding", "chunked")]
        visitor.send(head_bytes(b"POST /kavilo.test.Peer/Echo HTTP/1.1", fields) + chunk(b"\0\0\0\0\2hi") + b"0\r\n\r\n")
        response = visitor.response()
        assert response.content == b"\0\0\0\0\2hi" and response.fields.one("content-type") == "application/grpc"
        assert (response.trailers.one("grpc-status"), response.trailers.one("x-last")) == ("0", "2")


# ---- failures on the way ----


def test_failures_are_unavailable(path):
    def ask(host, **how):
        with Calls(path.server.edge, host, path.tls) as calls:
            return failure_of(lambda: calls.unary("Echo")(b"", timeout=STEP, **how))

    status, details, trailers = ask(f"nobody.{BASE_HOST}")
    assert (status, details) == (Status.UNAVAILABLE, "no active tunnel for this hostname")
    assert (trailers["kavilo-error"], trailers["kavilo-error-side"]) == ("no_tunnel", "tunnel")
    gone = Service()
    gone.close()
    status, details, trailers = ask(path.tunnel(gone.url).host)
    assert (status, details) == (Status.UNAVAILABLE, "the local service is not accepting connections")
    assert trailers["kavilo-error"] == "origin_refused"


def test_a_tunnel_that_goes_in_the_middle(path):
    client = path.tunnel(path.service.url)
    with channel(path.server, client.host) as calls:
        gate = threading.Event()

        def messages():
            yield b"a"
            gate.wait(STEP)

        chat = calls.stream("Chat")(messages(), timeout=STEP)
        assert next(chat) == b"A"
        client.program.kill()
        status, details, trailers = failure_of(lambda: next(chat))
        gate.set()
    assert (status, trailers["kavilo-error"]) == (Status.UNAVAILABLE, "client_gone")
    assert details == "the tunnel was disconnected before the answer was complete"


# ---- @grpc/grpc-js ----


@pytest.fixture(scope="module")
def node():
    """node(argv…) -> a NodePeer; or a skip with the reason."""
    reason = NodePackage.unavailable()
    if reason:
        pytest.skip(reason)
    made = []

    def make(*argv):
        made.append(NodePeer(*argv))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


def test_node_calls(path, node):
    path.service.cancelled.clear()
    result = node("call", "%s:%d" % path.server.edge, path.client.host, *([path.tls.ca] if path.tls else [])).wait("echo")
    assert result == {
        "echo": ["hello", ["plain"], ["0001feff"]],
        "fail": [Status.NOT_FOUND.value[0], "nothing hére"],
        "large": True,
        "many": 200,
        "deadline": Status.DEADLINE_EXCEEDED.value[0],
        "cancel": Status.CANCELLED.value[0],
        "chat": ["A", "B", "C", 0],
    }
    assert path.service.cancelled.wait(STEP)


def test_node_serves(path, node):
    service = node("serve", *([path.tls.cert, path.tls.key] if path.tls else []))
    url = "%s://127.0.0.1:%d" % ("https" if path.tls else "h2c", service.wait("port")["port"])
    with channel(path.server, path.tunnel(url).host) as calls:
        answer, call = calls.unary("Echo").with_call(b"x" * 3_000_000, metadata=[("x-a-bin", b"\0\1")], timeout=STEP)
        assert answer == b"x" * 3_000_000
        assert ("x-a-bin", b"\0\1") in [tuple(m) for m in call.trailing_metadata()]
        assert list(calls.stream("Chat")(iter([b"a", b"b"]), timeout=STEP)) == [b"A", b"B"]
        assert failure_of(lambda: calls.unary("Fail")(b"no", timeout=STEP))[:2] == (Status.NOT_FOUND, "no")
        hanging = calls.unary("Hang").future(b"", timeout=STEP)
        service.wait("hanging")
        hanging.cancel()
        service.wait("cancelled")


# ---- tunnel clients by other libraries ----


def test_node_opens_a_tunnel(path, node):
    """At both ports at once: welcomed, answered, asked; refused with a wrong token, and at a wrong path."""
    ports = ["%s:%d" % path.server.control, "%s:%d" % path.server.edge]
    peer = node("open", ROOT / "proto" / "tunnel.proto", path.user.token, ",".join(ports), BASE_HOST,
                *([path.tls.ca] if path.tls else []))
    for address in ports:
        url = peer.wait("url", address=address)["url"]
        assert peer.wait("pong", address=address)["pong"] == "42"
        response = path.server.fetch(urlsplit(url).hostname, "/asked")
        assert (response.status, response.content) == (200, b"/asked")
        refused = peer.wait("code", address=address, token="wrong")
        assert (refused["code"], refused["details"]) == (Status.PERMISSION_DENIED.value[0], "invalid token")
        assert peer.wait("code", address=address, path=OPEN + "s")["code"] == Status.UNIMPLEMENTED.value[0]


def test_control_plane_takes_no_call_of_a_tenant(path):
    """On a tunnel's host the control plane's path is the tenant's own."""
    hello = protobuf.encode("ClientFrame", {"hello": {"token": path.user.token}})
    code, _ = failure_of(lambda: next(path.calls.channel.stream_stream(OPEN)(iter([hello]), timeout=STEP)))[:2]
    assert code == Status.UNIMPLEMENTED
    assert path.service.seen[-1][0] == OPEN


@pytest.mark.parametrize("port", ["control", "edge"])
def test_grpcio_opens_a_tunnel(path, port):
    frames = []
    more = threading.Condition()

    def send(**frame):
        with more:
            frames.append(protobuf.encode("ClientFrame", frame))
            more.notify()

    def outgoing():
        while True:
            with more:
                assert more.wait_for(lambda: frames, STEP)
                frame = frames.pop(0)
            if frame is None:
                return
            yield frame

    with Calls(getattr(path.server, port), BASE_HOST, path.tls) as calls:
        send(hello={"token": path.user.token, "client_version": "py"})
        call = calls.channel.stream_stream(OPEN)(outgoing(), timeout=STEP)
        heard = (protobuf.decode("ServerFrame", message) for message in call)
        subdomain = next(heard)["welcome"]["subdomain"]
        send(ping={"nonce": 42})
        assert next(frame for frame in heard if "ping" not in frame)["pong"] == {"nonce": 42}
        response = []
        asking = threading.Thread(target=lambda: response.append(path.server.fetch(f"{subdomain}.{BASE_HOST}", "/asked")))
        asking.start()
        request = next(frame for frame in heard if "request_head" in frame)
        assert request["request_head"]["path"] == "/asked"
        send(request_id=request["request_id"], response_head={"status": 204})
        send(request_id=request["request_id"], data={"end_stream": True})
        asking.join(STEP)
        assert response[0].status == 204
        call.cancel()
        wait_until(lambda: path.server.fetch(f"{subdomain}.{BASE_HOST}").status == 502, what="the name's end")
        with more:
            frames.append(None)
            more.notify()

    def refusal(path_asked):
        hello = protobuf.encode("ClientFrame", {"hello": {"token": "wrong"}})
        with Calls(getattr(path.server, port), BASE_HOST, path.tls) as calls:
            return failure_of(lambda: next(calls.channel.stream_stream(path_asked)(iter([hello]), timeout=STEP)))

    assert refusal(OPEN)[:2] == (Status.PERMISSION_DENIED, "invalid token")
    assert refusal(OPEN + "s")[0] == Status.UNIMPLEMENTED
