"""A server that is replaced while it works: SIGUSR2, and a restart under sockets that a service manager holds. Visitors
poll all the while, on new connections, kept ones and HTTP/2, and not one of their requests may fail."""

import os
import re
import signal
import socket
import threading

import pytest

from harness.handover import Fresh, Http2, KeepAlive, Succession, Supervisor
from harness.http1 import Pattern
from harness.process import Died
from harness.settings import STEP, TUNNELD, MiB
from harness.wait import wait_until
from legacy_client import LegacyClient


@pytest.fixture
def succession(make_server):
    """succession(...) -> a Succession of a started server; its processes end with the test."""
    made = []

    def make(*args, **how):
        made.append(Succession(make_server(*args, **how)))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Download:
    """A large body, read in a thread as slowly as it is told."""

    def __init__(self, server, host, size=64 * MiB):
        self.pattern = Pattern(size)
        self.visitor = server.visitor(host, buffer_size=65536, timeout=3 * STEP)
        self.visitor.request(f"/body?size={size}")
        self.response = self.visitor.response()
        self.go = threading.Event()
        self.digest = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        self.go.wait(6 * STEP)
        with self.visitor:
            self.digest = self.response.body.digest()

    def finish(self):
        self.go.set()
        self.thread.join(6 * STEP)
        assert self.digest == self.pattern.digest


def open_websocket(server, host):
    visitor = server.visitor(host, timeout=3 * STEP)
    visitor.request("/upgrade", fields=[("Connection", "Upgrade"), ("Upgrade", "websocket")])
    assert visitor.response().status == 101
    return visitor


def say(websocket, word):
    websocket.send(word)
    assert websocket.source.exactly(len(word)) == word.upper()


@pytest.mark.first
@pytest.mark.patience(90)
def test_upgrade_is_not_noticed(succession, make_origin, make_client):
    """Two clients with two tunnels each, named and random, through one upgrade with a download and a WebSocket in flight,
    then ten upgrades in a row. Names stay."""
    line = succession("--workers", "2", grace="20s")
    server = line.server
    users = [server.user("a@example.com"), server.user("b@example.com")]
    origin = make_origin()
    clients = [make_client(server, origin, user.token, name=name) for user in users for name in ("app", None)]
    hosts = [client.host for client in clients]
    download, websocket = Download(server, hosts[0]), open_websocket(server, hosts[1])
    say(websocket, b"before")
    pollers = [Fresh(server.edge, hosts[0]), KeepAlive(server.edge, hosts[1]), Http2(server.edge, hosts[2]),
               Fresh(server.edge, hosts[3])]
    for poller in pollers:
        poller.more()
    first = line.pid
    line.upgrade()
    for client in clients:
        client.wait_ready(2)
    say(websocket, b"after")
    for poller in pollers:
        poller.more()
    assert line.ended(first) is None, "the old process stays for what is in flight"
    download.finish()
    say(websocket, b"still there")
    websocket.close()
    assert line.wait_ended(first) == 0, "and goes when it is done"
    for _ in range(10):
        line.upgrade()
    for poller in pollers:
        poller.more()
        poller.stop()
    assert [client.host for client in clients] == hosts, "random names survive as well"
    assert pollers[1].connections > 5 and pollers[2].connections > 5, "they were sent on"


class Script:
    """The server's program as a script that the operator changes between upgrades: it adds options of the day."""

    def __init__(self, folder):
        folder.mkdir(exist_ok=True)
        self.file, self.options = folder / "kavilo-tunneld", folder / "options"
        self.write()

    def write(self, options=""):
        self.options.write_text(options)
        self.replace(
            'for a; do [ "$a" = --log-level ] && break; args+=("$a"); done\n'  # what the last run added is behind it
            f'exec -a "$0" {TUNNELD} "${{args[@]}}" --log-level debug $(cat {self.options})\n'
        )

    def replace(self, lines, mode=0o755):
        """As a package does it: the file that may be running is not written to."""
        new = self.file.with_suffix(".new")
        new.write_text("#!/bin/bash\n" + lines)
        new.chmod(mode)
        new.rename(self.file)


@pytest.fixture
def scripted(make_server, tmp_path):
    """scripted(options) -> a Succession of a server behind a Script, and that Script."""
    made = []

    def make(options, **how):
        script = Script(tmp_path / "script")
        script.write(options)
        server = make_server(start=False, **how)
        server.argv[0] = script.file
        server.argv = server.argv[: server.argv.index("--log-level")]
        for name, address in server.listen.items():
            server.argv += [f"--{name}-listen", address]
        server.listen = {}
        made.append(Succession(server.start()))
        return made[-1], script

    yield make
    for one in made:
        one.close()


def test_other_number_of_workers(scripted, make_origin, make_client):
    """Visitors wait at the sockets of each worker: all of them are listened to, whatever the number of threads is now."""
    line, script = scripted("--workers 3")
    server = line.server
    client = make_client(server, make_origin(), server.user().token, name="app")
    pollers = [Fresh(server.edge, client.host), Fresh(server.edge, client.host)]
    for workers in (1, 4):
        script.write(f"--workers {workers}")
        line.upgrade()
        assert server.program.log(message="listening")[-1]["workers"] == workers
        for poller in pollers:
            poller.more()
    for poller in pollers:
        poller.stop()


def test_failing_upgrades(scripted, make_origin, make_client):
    """A program that cannot run, an option that cannot be, a database that is none, a pid
    file that cannot be written, one that hangs until the server is
    told to stop: the old process says so and goes on."""
    line, script = scripted("")
    server = line.server
    client = make_client(server, make_origin(), server.user().token, name="app")
    poller = KeepAlive(server.edge, client.host)

    def fails(count):
        line.server.program.expected_to_end = True
        os.kill(line.pid, signal.SIGUSR2)
        wait_until(lambda: len(server.program.log(message=re.compile("^upgrade failed"))) == count, what="it says so")
        poller.more(5)

    script.replace("", 0o644)
    fails(1)
    script.write("--workers none")
    fails(2)
    script.write("--database-url sqlite:/dev/null/none.db")
    fails(3)
    script.write("--pid-file /dev/null/none.pid")
    fails(4)
    poller.stop()
    assert poller.connections == 1
    assert client.ready == client.ready[:1], "no client was sent away"
    script.replace("exec sleep 60\n")
    os.kill(line.pid, signal.SIGUSR2)
    wait_until(lambda: len(server.program.log(message=re.compile("a successor is starting"))) == 5, what="it starts")
    os.kill(line.pid, signal.SIGUSR2)
    server.program.wait_log(message="an upgrade is under way already")


def test_deployed_clients_come_over(succession, make_origin):
    """They know no Drain: their session ends when it is idle, their visitors wait at the successor until they are back,
    and another client of the user cannot slip in."""
    line = succession()
    server = line.server
    user, origin = server.user(), make_origin()
    client = LegacyClient(server.endpoint, user.token, origin.url, name="old").connected()
    poller = Fresh(server.edge, client.host)
    try:
        poller.more()
        line.upgrade()
        assert server.peer(user.token, "old", instance_id=b"i" * 16).refused()[0] == 6
        poller.more()
        poller.stop()
        assert poller.slowest > 0.5, "they waited"
    finally:
        client.close()


@pytest.mark.first
def test_restart_on_held_sockets(make_server, make_origin, make_client):
    """SIGTERM and a new process on the same sockets, as systemd does it with socket units."""
    server = make_server(start=False, grace="20s")
    supervisor = Supervisor(server)
    try:
        supervisor.start()
        users = [server.user("a@example.com"), server.user("b@example.com")]
        origin = make_origin()
        clients = [make_client(server, origin, user.token, name=name) for user in users for name in ("one", "two")]
        pollers = [Fresh(server.edge, clients[0].host), KeepAlive(server.edge, clients[1].host),
                   Http2(server.edge, clients[2].host), Fresh(server.edge, clients[3].host)]
        for poller in pollers:
            poller.more()
        download = Download(server, clients[0].host, 8 * MiB)
        download.go.set()
        for _ in range(2):
            supervisor.restart()
            for poller in pollers:
                poller.more()
        download.finish()
        for poller in pollers:
            poller.stop()
    finally:
        supervisor.close()


def test_handed_over_sockets_are_looked_at(make_server):
    """Names that nobody knows, and sockets that are none."""
    for name, kind, said in (("edgy", "listen", "edgy"), ("edge", "idle", "does not listen"), ("edge", "file", "TCP")):
        server = make_server(start=False)
        supervisor = Supervisor(server)
        given = {"listen": supervisor.sockets.pop("edge"), "idle": socket.socket(), "file": open("/dev/null", "rb")}
        supervisor.sockets = {name: given[kind]}
        with pytest.raises(Died, match=said):
            supervisor.start()
        assert server.program.wait_exit() == 2
        for one in given.values():
            one.close()
        supervisor.close()


def test_a_predecessor_that_falls_silent(make_server):
    """In the middle of its list: the successor serves with what it was told, and any other name may yet come."""
    server = make_server(start=False)
    supervisor = Supervisor(server)
    ours, supervisor.sockets["succession"] = socket.socketpair()
    try:
        ours.sendall(b"kavilo-sessions 1\ntold 0123456789 " + b"61" * 16 + b" named\nhalf-to 0123456789 " + b"61" * 16)
        supervisor.start(3 * STEP)
        assert ours.recv(1) == b"\0"
        assert server.program.log(message=re.compile("did not tell all of its sessions"))
        assert server.program.log(message="taking over from another process")[0]["expected_sessions"] == 1
    finally:
        ours.close()
        supervisor.close()
