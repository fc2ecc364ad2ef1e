"""gRPC through the tunnel, between peers that nobody here wrote."""

import grpc
import pytest

from harness.grpcpeer import Service, channel
from harness.settings import MiB, STEP


@pytest.fixture(params=["clear", "tls"])
def path(request, make_server, make_client, pair):
    tls = pair if request.param == "tls" else None
    server = make_server(tls=tls)
    service = Service(tls=tls)
    client = make_client(server, service.url, server.user().token)
    with channel(server, client.host) as calls:
        yield service, calls, client
    service.close()


def test_kinds(path):
    service, calls, _ = path
    assert calls.unary("Echo")(b"hello", timeout=STEP) == b"hello"
    assert [m.strip() for m in calls.server_stream("Count")(b"3 10", timeout=STEP)] == [b"0", b"1", b"2"]
    assert calls.client_stream("Join")(iter([b"a", b"b"]), timeout=STEP) == b"ab"
    assert list(calls.stream("Chat")(iter([b"a", b"b"]), timeout=STEP)) == [b"A", b"B"]


def test_errors(path):
    _, calls, _ = path
    with pytest.raises(grpc.RpcError) as failure:
        calls.unary("Fail")("NOT_FOUND nothing hére: 100%".encode(), timeout=STEP)
    assert (failure.value.code(), failure.value.details()) == (grpc.StatusCode.NOT_FOUND, "nothing hére: 100%")
    assert ("x-why", "because") in [tuple(m) for m in failure.value.trailing_metadata()]


def test_large(path):
    _, calls, _ = path
    data = bytes(range(256)) * (8 * MiB // 256)
    assert calls.unary("Echo")(data, timeout=STEP * 3) == data
