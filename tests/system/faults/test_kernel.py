"""The kernel gives as little as it may: calls interrupted, told to come again, or moved in part; and no descriptors left."""

import re
import resource
import socket

import pytest

from harness import shims
from harness.http1 import Broken, Pattern, Visitor
from harness.settings import PACE, SANITIZER, STEP
from harness.wait import wait_until

SIZE = 400_000 if not SANITIZER else 100_000


def exercise(server, host, turn):
    """Bodies both ways, trailers, an interim answer, an upgrade, all on one connection; every byte compared."""
    pattern = Pattern(SIZE, f"d{turn}")
    with server.visitor(host) as visitor:
        answer = visitor.request(f"/body?size={SIZE}&seed=d{turn}&chunked=1").response()
        assert (answer.status, answer.body.digest()) == (200, pattern.digest)
        visitor.request("/mirror", "POST", body=pattern)
        answer = visitor.response()
        assert answer.body.digest() == pattern.digest
        assert answer.body.trailers.one("x-mirrored") == str(SIZE)
    with server.visitor(host) as visitor:  # an answer that began before its request ended closes behind it
        visitor.request("/upgrade", fields=[("Connection", "Upgrade"), ("Upgrade", "shout")])
        assert visitor.response().status == 101
        for n in range(20):
            visitor.send(b"call %d;" % n)
            assert visitor.source.exactly(len(b"call %d;" % n)) == b"CALL %d;" % n


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_short_and_interrupted_calls(make_server, make_client, origin, pair, tls, seed):
    """Both programs, one call in three touched."""
    env = shims.io(seed, 33)
    server = make_server(env=env, tls=pair if tls else None, level="debug")
    token = server.user().token
    client = make_client(server, origin, token, env=dict(env), level="debug")
    for turn in range(2):
        exercise(server, client.host, f"{seed}{turn}")
    assert len(client.ready) == 1, "the tunnel was lost"


# ---- no descriptors left ----------------------------------------------------------------------------------------

FEW = 64


def processor_time(program):
    """Seconds of user and system time."""
    with open(f"/proc/{program.pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def serves(server, host):
    try:
        return server.fetch(host, timeout=2 * PACE).status == 200
    except (OSError, Broken):
        return False


def test_server_without_descriptors(make_server, make_client, origin):
    """It rests instead of spinning, who is in is served, and who waits gets in when there is room again."""
    server = make_server(wrap=["prlimit", f"--nofile={FEW}:{FEW}"])
    client = make_client(server, origin, server.user().token)
    with server.visitor(client.host) as inside:
        before = server.program.descriptors() + 2  # the database's files are opened when they are needed
        assert inside.request().response().content
        crowd = [socket.create_connection(server.edge) for _ in range(2 * FEW)]
        server.program.wait_log(message="cannot accept connections, trying again shortly; live ones go on")
        spent, rounds = processor_time(server.program), 0
        for rounds in range(100):
            assert inside.request().response().content
        assert processor_time(server.program) - spent < 1 * PACE, f"the server spins in {rounds} requests"
        for sock in crowd:
            sock.close()
    wait_until(lambda: serves(server, client.host), STEP, "visitors are accepted again")
    wait_until(lambda: server.program.descriptors() <= before, STEP, f"{before} descriptors as before")
    assert len(server.program.log(message="cannot accept connections, trying again shortly; live ones go on")) <= 4
    assert len(client.ready) == 1


def test_client_without_descriptors(server, user, make_client, make_origin):
    """The client has none left for the local service: those visitors are told, the others are served, and all are later."""
    origin = make_origin()
    client = make_client(server, origin, user.token, wrap=["prlimit", f"--nofile={FEW}:{FEW}"])
    visitors = [server.visitor(client.host).request("/wait") for _ in range(2 * FEW)]
    wait_until(lambda: len(origin.exchanges) > FEW // 4, what="requests at the service")
    wait_until(lambda: sum(not waiting(v) for v in visitors) + len(origin.exchanges) >= len(visitors), STEP,
               "every visitor is served or told")
    told = [v.response().status for v in visitors if not waiting(v)]
    assert told and set(told) == {502}
    origin.release.set()
    wait_until(lambda: serves(server, client.host), STEP, "the next request is right")
    for visitor in visitors:
        visitor.close()
    assert len(client.ready) == 1, "the tunnel was lost"


def waiting(visitor):
    """Nothing has come yet."""
    visitor.sock.setblocking(False)
    try:
        return not (visitor.source.buffer or visitor.sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    finally:
        visitor.sock.settimeout(STEP)


def test_soft_limit_is_raised(server, tunnel):
    """Programs are started with a soft limit that is meant for others."""
    for program in (server.program, tunnel.program):
        soft, hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
        assert soft == hard


# ---- no memory left to promise ----------------------------------------------------------------------------------

BUDGET = 1024 * 1024
EXCHANGE = 2 * 64 * 1024  # what an exchange starts with, both directions


def test_memory_budget_spent(make_server, make_client, make_origin):
    """--memory-budget: those who fit are served to the end, the others get 503 and whose side it is, and it recovers."""
    origin = make_origin()
    server = make_server("--memory-budget", "1M")
    client = make_client(server, origin, server.user().token)
    fit = BUDGET // EXCHANGE
    with server.visitor(client.host) as regular:
        inside = [server.visitor(client.host).request("/wait") for _ in range(fit)]
        origin.wait_exchange(fit)
        for _ in range(3):
            refusal = regular.request("/over").response()
            refusal.content  # pylint: disable=pointless-statement
            assert (refusal.status, refusal.fields.get("kavilo-error")) == (503, "server_busy")
        origin.release.set()
        for visitor in inside:
            assert visitor.response().text == "released"
            visitor.close()
        assert regular.request("/after").response().status == 200
    assert metric(server, "kavilo_credit_granted_bytes") == 0


def metric(server, name):
    with Visitor(server.admin, "localhost") as visitor:
        text = visitor.request("/metrics").response().text
    return int(re.search(rf"^{name} (\d+)$", text, re.MULTILINE)[1])
