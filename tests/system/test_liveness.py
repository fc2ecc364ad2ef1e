"""
Who is dead and who is only slow: a peer that vanished in any way is known as dead within 15 s on both sides, and a peer
that is slow, or was asked by somebody who slept himself, is not.
"""

import mmap
import re
import signal
import struct
import threading
import time

import pytest

from harness import protobuf
from harness.origin import Origin
from harness.proxy import Proxy
from harness.settings import BIN, PACE, SANITIZER
from harness.tunnel import Visitor
from harness.wait import wait_until

PROMISE = 15  # seconds, by default
SLACK = 2 * PACE  # for a busy machine: the promise is about the programs

LOST = re.compile("^tunnel lost")
DEAD = re.compile("^nothing (was heard for too long|that was sent arrives)$")  # whichever is noticed first
GONE = re.compile("^tunnel (closed|gone)")


class Scene:
    """A server on one host and a client on another, and a visitor whose request is in flight."""

    def __init__(self, namespaces, make_server, make_client, args=()):
        self.near, self.far = namespaces.pair()
        self.namespaces = namespaces
        self.server = make_server(*args, wrap=self.near.wrap, control=f"{self.near.address}:0")
        self.origin = self.far.inside(Origin)
        self.client = make_client(self.server, self.origin, self.server.user().token, *args, wrap=self.far.wrap)
        self.answer = None
        self.visitor = self.visit()
        self.visitor.request("/hang")
        self.origin.wait_exchange()

    def visit(self):
        return self.near.inside(lambda: Visitor(self.server.edge, self.client.host, timeout=(PROMISE + 10) * PACE))

    def start(self):
        threading.Thread(target=self._wait_for_answer, daemon=True).start()

    def _wait_for_answer(self):
        try:
            response = self.visitor.response()
            self.answer = (response.status, response.fields.one("kavilo-error"))
        except Exception as error:  # pylint: disable=broad-except
            self.answer = error

    def power_off(self, namespace, program):
        """Not even the kernel of that host says a last word."""
        namespace.unplug()
        program.kill()
        self.namespaces.delete(namespace)

    def close(self):
        self.visitor.close()
        self.origin.close()


# What breaks, and who is left to notice.
FAULTS = {
    "nothing passes": (lambda s: s.far.drop("input", "output"), "both"),
    "nothing comes to the client": (lambda s: s.far.drop("input"), "both"),
    "nothing comes from the client": (lambda s: s.far.drop("output"), "both"),
    "the wire is unplugged": (lambda s: s.far.unplug(), "both"),
    "the client is stopped": (lambda s: s.client.program.send_signal(signal.SIGSTOP), "server"),
    "the server is stopped": (lambda s: s.server.program.send_signal(signal.SIGSTOP), "client"),
    "the client's host loses power": (lambda s: s.power_off(s.far, s.client.program), "server"),
    "the server's host loses power": (lambda s: s.power_off(s.near, s.server.program), "client"),
}


@pytest.fixture
def scenes(namespaces, make_server, make_client):
    made = []

    def make(*args):
        made.append(Scene(namespaces, make_server, make_client, args))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.mark.first
@pytest.mark.patience(240)
def test_dead_peers_are_known_within_15_seconds(scenes):
    """Every fault at once, each on a wire of its own, with the default settings on both sides."""
    stage = {name: scenes() for name in FAULTS}
    waiting, took = {}, {}
    for name, scene in stage.items():
        fault, who = FAULTS[name]
        fault(scene)
        start = time.monotonic()
        scene.start()
        if who in ("both", "server"):
            waiting[name, "server"] = (start, lambda s=scene: s.server.program.log(message=GONE))
            waiting[name, "visitor"] = (start, lambda s=scene: s.answer)
        if who in ("both", "client"):
            waiting[name, "client"] = (start, lambda s=scene: s.client.program.log(message=LOST))

    def all_known():
        for key, (start, known) in list(waiting.items()):
            if known():
                took[key] = time.monotonic() - start
                del waiting[key]
        return not waiting

    try:
        wait_until(all_known, PROMISE + 10 * PACE, "everybody knows", every=0.05)
    finally:
        print("unnoticed:", list(waiting), "noticed:", {k: round(v, 1) for k, v in took.items()})
    assert max(took.values()) <= PROMISE + SLACK
    for name, scene in stage.items():
        if FAULTS[name][1] != "client":
            assert scene.answer == (502, "client_gone"), f"{name}: {scene.answer}"
            with scene.visit() as late:
                late.request()
                response = late.response()
                assert (response.status, response.fields.one("kavilo-error")) == (502, "no_tunnel"), name


# ---- shorter, where the promise itself is not measured ----

PINGS = ["--ping-interval", f"{200 * PACE}ms", "--ping-timeout", f"{PACE}s"]


def test_intervals_are_options(scenes):
    """With shorter intervals both sides know sooner."""
    scene = scenes(*PINGS)
    scene.far.drop("input", "output")
    scene.server.program.wait_log(message=GONE)
    scene.client.program.wait_log(message=LOST, error=DEAD)


@pytest.mark.first
@pytest.mark.patience(240)
def test_slow_line_is_not_dead(make_server, make_client, make_origin):
    """Away from the client, 14 KiB/s: its PINGs wait behind an answer for longer than its patience, and the server, which
    hears it all the time, has little to say. The same towards a client that never asks by itself."""
    size = 80 * 1024
    content = bytes(size)
    server = make_server("--ping-interval", f"{PACE}s", "--ping-timeout", f"{2 * PACE}s")
    user = server.user()
    with Proxy(server.control, receive_buffer=4096) as line:
        client = make_client(line.endpoint, make_origin(lambda ex: ex.reply(content)), user.token, "--ping-interval",
                             f"{200 * PACE}ms", "--ping-timeout", f"{1800 * PACE}ms")
        line.rate = 14 * 1024 // PACE
        response = server.fetch(client.host, timeout=60 * PACE)
        assert response.content == content
        assert len(client.ready) == 1 and not client.program.log(message=LOST)
        client.program.stop()
        line.rate = None
        peer = server.peer(user.token, features=protobuf.ALL_FEATURES, initial_credit=1 << 20, endpoint=line.endpoint).connected()
        line.rate = 14 * 1024 // PACE
        with server.visitor(peer.host, timeout=60 * PACE) as visitor:
            visitor.request("/", "POST", body=content)
            request_id, _ = peer.request()
            received = 0
            while received < size:
                frame = peer.receive(30 * PACE)
                received += len(frame.get("data", {}).get("data", b""))
            line.rate = None
            peer.answer(request_id, 204)
            assert visitor.response().status == 204
        peer.close()


def test_who_slept_himself_asks_again(make_server):
    """The server's process is stopped for longer than its patience while the peer lives: what the peer said meanwhile is
    in the socket, and is read before a verdict."""
    server = make_server("--ping-interval", f"{500 * PACE}ms", "--ping-timeout", f"{PACE}s")
    peer = server.peer(server.user().token, features=protobuf.ALL_FEATURES).connected()
    peer.link.wait(lambda: peer.link.messages, what="a first Ping")
    for _ in range(2):
        server.program.send_signal(signal.SIGSTOP)
        for _ in range(4):
            time.sleep(0.4 * PACE)  # the fault itself
            peer.link.h2_ping()
        acked = peer.link.pings_acked
        server.program.send_signal(signal.SIGCONT)
        peer.link.wait(lambda before=acked: peer.link.pings_acked >= before + 4, what="the server's answers")
    with server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        peer.answer(request_id, 204)
        assert visitor.response().status == 204
    peer.close()


# ---- a machine that slept ----


class BootClock:
    """tests/shims/fault_boottime.c: env to start a program with, sleep() to have slept."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "boottime"
        file.write_bytes(bytes(8))
        self.slept = 0
        self.env = {"LD_PRELOAD": str(BIN / "tests" / "fault_boottime.so"), "FAULT_BOOTTIME": str(file)}
        if SANITIZER:
            self.env["ASAN_OPTIONS"] = "exitcode=99:detect_leaks=1:verify_asan_link_order=0"
        with open(file, "r+b") as opened:
            self.map = mmap.mmap(opened.fileno(), 8)

    def sleep(self, seconds):
        self.slept += seconds
        struct.pack_into("=q", self.map, 0, self.slept)


OTHER_HOSTS = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']


def test_after_a_sleep_the_client_redials_at_once(namespaces, make_server, origin, make_client, tmp_path):
    """The clocks part by a minute: the client does not wait for a deadline, and looks the server's name up again, which
    has another address by now. A short nap changes nothing."""
    assert namespaces  # what makes those makes mount namespaces too
    old = make_server(control="127.0.0.2:0")
    new = make_server(control=f"127.0.0.3:{old.control[1]}", database=old.env["DATABASE_URL"])
    user = old.user()
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.2 tnl.here.test\n")
    clock = BootClock(tmp_path / "clock")
    client = make_client(f"http://tnl.here.test:{old.control[1]}", origin, user.token, env=clock.env, name="laptop",
                         wrap=[*OTHER_HOSTS, hosts])
    assert old.fetch(client.host).status == 200
    hosts.write_text("127.0.0.3 tnl.here.test\n")
    clock.sleep(10)
    time.sleep(1.5)  # longer than a look at the clocks takes
    assert not client.program.log(message=re.compile("slept"))
    clock.sleep(60)
    client.program.wait_log(message=re.compile("slept"), slept_ms=60000)
    client.wait_ready(2)
    assert new.fetch(client.host).status == 200
    assert old.fetch(client.host).status == 502
