"""The control port and those who never become a client: they take no room from anybody else."""

import contextlib
import socket
import time

import pytest

from harness import protobuf
from harness.grpclink import Link, LinkClosed
from harness.settings import STEP
from harness.tunnel import Peer
from harness.wait import wait_until

FEW = 400  # descriptors


@contextlib.contextmanager
def bare(address, count):
    """So many TCP connections that say nothing; those that the server turned away at once are left out."""
    crowd = []
    try:
        for _ in range(count):
            with contextlib.suppress(ConnectionResetError):
                crowd.append(socket.create_connection(address, timeout=STEP))
        yield crowd
    finally:
        for sock in crowd:
            sock.close()


def is_open(sock):
    sock.setblocking(False)
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def refused(server):
    return server.metrics()["kavilo_control_connections_refused_total"]


@pytest.mark.parametrize("limit", [(), ("--max-connections-per-address", "50")], ids=["descriptors", "address"])
def test_flood_of_the_control_port(make_server, make_client, origin, limit):
    """Visitors are served meanwhile, a client is on its way in, and the operator can look."""
    server = make_server(*limit, wrap=["prlimit", f"--nofile={FEW}:{FEW}"])
    user = server.user()
    client = make_client(server, origin, user.token)
    with bare(server.control, FEW + 20):
        wait_until(lambda: refused(server) > 0, what="strangers turned away")
        for _ in range(20):
            assert server.fetch(client.host, timeout=STEP).status == 200
        if not limit:
            another = make_client(server, origin, user.token)
            assert server.fetch(another.host).status == 200


def test_flood_of_the_edge(make_server, make_client, origin):
    """The same the other way round: a client comes in while visitors have taken all that they can get."""
    server = make_server(wrap=["prlimit", f"--nofile={FEW}:{FEW}"])
    user = server.user()
    with bare(server.edge, FEW + 20):
        server.program.wait_log(message="cannot accept connections, trying again shortly; live ones go on")
        make_client(server, origin, user.token)
        assert server.metrics()["kavilo_tunnels_active"] == 1


def test_limit_by_address(make_server):
    """It holds for those who are not known yet, and for no client."""
    server = make_server("--max-connections-per-address", "3")
    token = server.user().token
    peers = [server.peer(token).connected() for _ in range(5)]
    with bare(server.control, 5) as crowd:
        wait_until(lambda: sum(map(is_open, crowd)) == 3, what="three of five left")
        wait_until(lambda: refused(server) == 2, what="two of five turned away")
    for peer in peers:
        peer.close()


def test_trusted_proxies_speak_for_many(make_server):
    server = make_server("--max-connections-per-address", "3", "--trusted-proxies", "127.0.0.1")
    token = server.user().token
    with bare(server.control, 8) as crowd:
        server.peer(token).connected().close()
        assert all(map(is_open, crowd)) and refused(server) == 0


@pytest.mark.first
def test_ten_seconds_from_the_connection_on(server):
    """A stream that opens late has no ten seconds of its own: that would make eighteen."""
    made = time.monotonic()
    with socket.create_connection(server.control, timeout=STEP) as sock:
        wait_until(lambda: time.monotonic() - made > 8, 10, "most of the time gone")
        assert Link.dial(server.endpoint, sock=sock).status(20)[0] == 4
    assert time.monotonic() - made < 17


def test_messages_before_hello_are_few(server, user):
    """Unknown ones are skipped, as additions need it, but not without end."""
    peer = Peer(server, None, hello=False)
    message = protobuf.encode("ClientFrame", {"ping": {"nonce": 1}})
    with pytest.raises(LinkClosed):
        for _ in range(20000):
            peer.link.send_message(message)
    server.peer(user.token).connected().close()


def test_some_messages_before_hello(server, user):
    peer = Peer(server, None, hello=False)
    for _ in range(20):
        peer.link.send_message(protobuf.field(99, 2, b"x"))
    peer.send(hello={"token": user.token})
    peer.connected().close()
