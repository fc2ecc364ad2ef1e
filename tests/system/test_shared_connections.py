"""State of a kept connection to the local service that must not reach another visitor."""

import socket
import threading

import pytest


class Bodyless:
    """A service that leaves the bodies of its requests unread, as many do with GET: they are its next requests."""

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
            self.connections += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        buffer = b""
        with connection:
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = connection.recv(65536)
                    if not data:
                        return
                    buffer += data
                head, buffer = buffer.split(b"\r\n\r\n", 1)
                body = head.split(b" ")[1]
                answer = b"" if head.startswith(b"HEAD ") else body
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), answer))

    def close(self):
        self.listener.close()


@pytest.fixture
def bodyless():
    service = Bodyless()
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
