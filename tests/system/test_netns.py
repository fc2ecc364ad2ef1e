"""Faults that loopback cannot have: two hosts on a wire, and the wire goes dead. Needs root and iproute2."""

import time

import pytest

from harness.origin import Origin
from harness.process import base_environment, run
from harness.settings import PACE, TUNNELD
from harness.tunnel import Client, Visitor
from harness.wait import wait_until

pytestmark = [pytest.mark.first, pytest.mark.patience(150)]


class Hosts:
    """The server on one host, clients on the other; visitors come from the server's own."""

    def __init__(self, namespaces, make_server):
        self.near, self.far = namespaces.pair()
        self.server = make_server(wrap=self.near.wrap, control=f"{self.near.address}:0")
        self.user = self.server.user()

    def fetch(self, host):
        visitor = self.near.inside(lambda: Visitor(self.server.edge, host, timeout=25 * PACE))
        with visitor:
            response = visitor.request(fields=[("Connection", "close")]).response()
            return response.status, response.text


@pytest.fixture
def hosts(namespaces, make_server):
    return Hosts(namespaces, make_server)


@pytest.fixture
def service():
    made = []

    def make(namespace, text):
        made.append(namespace.inside(lambda: Origin(lambda ex: ex.reply(text))))
        return made[-1]

    yield make
    for origin in made:
        origin.close()


def test_failover_when_the_network_of_the_holder_vanishes(hosts, namespaces, service, make_client):
    """A's wire goes dead without a word: within 15 s the name is free and B, which was waiting, has it. A, plugged in
    again, finds the name taken and does not disturb."""
    a = make_client(hosts.server, service(hosts.far, "A"), hosts.user.token, name="laptop", wrap=hosts.far.wrap)
    assert hosts.fetch(a.host) == (200, "A")
    b = make_client(hosts.server, service(hosts.near, "B"), hosts.user.token, name="laptop", wrap=hosts.near.wrap, ready=False)
    b.program.wait(lambda: "already connected from another client" in b.program.stderr(), what="B is refused")
    start = time.monotonic()
    hosts.far.unplug()
    b.wait_ready(seconds=50 * PACE)
    took = time.monotonic() - start
    # 15 s until A is dead, and B's own pause, which has grown to 16 s at most by then.
    assert took < 36 * PACE, took
    assert hosts.fetch(b.host) == (200, "B")
    hosts.far.plug()
    a.program.wait(lambda: "already connected from another client" in a.program.stderr(), 60, "A finds the name taken")
    assert hosts.fetch(b.host) == (200, "B")


def test_wire_that_is_dead_for_long(hosts, make_client):
    """Longer than the deadline of both sides: a request in flight gets the truth, not a hang, and the local service is
    freed; plugged in again, the client needs no help."""
    origin = hosts.far.inside(Origin)
    a = make_client(hosts.server, origin, hosts.user.token, name="laptop", wrap=hosts.far.wrap)
    visitor = hosts.near.inside(lambda: Visitor(hosts.server.edge, a.host, timeout=25 * PACE))
    visitor.request("/hang")
    hanging = origin.wait_exchange()
    hosts.far.unplug()
    response = visitor.response()
    assert (response.status, response.fields.one("kavilo-error")) == (502, "client_gone")
    visitor.close()
    assert hosts.fetch(a.host)[0] == 502
    hosts.far.plug()
    a.wait_ready(2, seconds=40 * PACE)
    assert hosts.fetch(a.host)[0] == 200
    wait_until(lambda: hanging.over, 30 * PACE, "the local service is freed")
    origin.close()


def test_short_interruption_is_survived(hosts, service, make_client):
    """Three seconds without a wire: TCP and the tunnel take it, with no reconnect; a request waits it out."""
    a = make_client(hosts.server, service(hosts.far, "A"), hosts.user.token, wrap=hosts.far.wrap)
    assert hosts.fetch(a.host) == (200, "A")
    hosts.far.unplug()
    visitor = hosts.near.inside(lambda: Visitor(hosts.server.edge, a.host, timeout=30 * PACE))
    visitor.request()
    time.sleep(3)  # the fault itself
    hosts.far.plug()
    assert visitor.response().content == b"A"
    visitor.close()
    assert len(a.ready) == 1


def test_no_flag_at_all(namespaces, programs, tmp_path):
    """`serve` on a laptop: base host localhost, SQLite under the user's data folder, loopback only, the usual ports."""
    host, _ = namespaces.pair()
    home = tmp_path / "home"
    home.mkdir()
    environment = base_environment(home)
    program = programs.start("tunneld", host.wrap + [TUNNELD, "serve", "--log-format", "json"], home, environment)
    line = program.wait_log(message="listening")
    assert (line["edge"], line["control"]) == ("127.0.0.1:8080", "127.0.0.1:7777")
    assert line.get("admin", "127.0.0.1:9090") == "127.0.0.1:9090"
    with pytest.raises(OSError):
        host.inside(lambda: Visitor((host.address, 8080), "x.localhost", timeout=2))
    for argv in (["create-user", "--email", "a@b.c"], ["issue-token", "--email", "a@b.c", "--name", "x"]):
        made = run([TUNNELD, "admin", *argv], environment, cwd=home)
        assert made.returncode == 0, made
    assert (home / ".local/share/kavilo-tunnel/tunneld.db").exists()
    origin = host.inside(lambda: Origin(lambda ex: ex.reply("hello")))
    client = Client(programs, tmp_path / "client", None, str(origin.port), made.stdout.strip(), wrap=host.wrap).wait_ready()
    assert client.public_url == f"http://{client.subdomain}.localhost:8080/"
    visitor = host.inside(lambda: Visitor(("127.0.0.1", 8080), f"{client.host}:8080"))
    assert visitor.request().response().content == b"hello"
    visitor.close()
    origin.close()
