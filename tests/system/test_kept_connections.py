"""Kept connections to a service that closes them when they are idle: no request is lost to that."""

import threading
import time

import pytest

UNTOLD = 1.0  # idle so long a connection is trusted with a POST unless more is known


class Idler:
    """A service that does not answer on a connection which was idle for longer than `keeps`: it is closing it. With
    `closes` it does so then, without having been asked."""

    def __init__(self, make_origin, keeps=None, closes=False, fields=()):
        self.keeps, self.closes, self.fields = keeps, closes, list(fields)
        self.answered = {}
        self.closed = threading.Event()
        self.origin = make_origin(self.handle, surprises=True)

    def handle(self, ex):
        before = self.answered.get(ex.connection)
        if before and self.keeps and time.monotonic() - before > self.keeps:
            ex.close()
            return
        for _ in ex.body:
            pass
        ex.reply(str(ex.connection.number), fields=self.fields)
        now = self.answered[ex.connection] = time.monotonic()
        if self.closes:
            threading.Timer(self.keeps, self.close_idle, (ex.connection, now)).start()

    def close_idle(self, connection, since):
        if self.answered[connection] == since:
            connection.close()
            self.closed.set()


@pytest.fixture
def ask(server, user, make_client):
    """ask(service) -> a function that makes a request and returns the connection it was answered on."""

    def start(service):
        client = make_client(server, service.origin, user.token)

        def request(method, pause=0):
            time.sleep(pause)  # the service's clock is what is tested
            response = server.fetch(client.host, "/", method, body=b"x" if method == "POST" else None)
            assert response.status == 200, response
            return int(response.text)

        return request

    return start


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_request_meets_the_idle_close(make_origin, ask, method):
    request = ask(Idler(make_origin, keeps=UNTOLD + 0.2))
    assert request("POST") == request("POST") == 1, "one that was just used is used again"
    assert request(method, UNTOLD + 0.5) == 2


def test_time_that_the_service_tells(make_origin, ask):
    request = ask(Idler(make_origin, fields=[("Keep-Alive", "timeout=20")]))
    assert request("POST") == request("POST", UNTOLD + 0.5) == 1


def test_time_that_is_learned_from_a_close(make_origin, ask):
    """A service that is faster than what is usual: half of its time is what a POST may count on."""
    service = Idler(make_origin, keeps=0.6, closes=True)
    request = ask(service)
    assert request("GET") == 1
    assert service.closed.wait(10)
    assert request("POST") == 2
    assert request("POST", 0.45) == 3


def test_time_that_is_learned_from_what_was_kept(make_origin, ask):
    """Requests that can be sent again try old connections, and so find out."""
    request = ask(Idler(make_origin))
    assert request("GET") == request("GET", 5 * UNTOLD) == 1
    assert request("POST", UNTOLD + 0.3) == 1
    assert request("POST", 3.5 * UNTOLD) == 2
