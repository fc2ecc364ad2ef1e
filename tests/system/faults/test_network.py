"""Names that cannot be asked for, a server that is not there yet, and a wall clock that somebody sets."""

import calendar
import re
import time

import pytest

from harness.settings import PACE, STEP
from harness.shims import Names, WallClock
from harness.wait import wait_until

NAME = "tunnel.example.net"


# ---- names ------------------------------------------------------------------------------------------------------


def test_names_gone_slow_and_changing(make_server, make_client, origin, tmp_path):
    """Each dial asks anew: the client gets in as soon as the name is there, and follows it to another address."""
    first = make_server(grace="100ms", control="127.0.0.2:0")
    token = first.user().token
    names = Names(tmp_path, "gone")
    client = make_client(f"http://{NAME}:{first.control[1]}", origin, token, ready=False, name="laptop", env=names.env)
    client.program.wait_log(message="no tunnel yet, trying again", error=re.compile("the name service does not answer"))
    names.say("unknown")
    client.program.wait_log(message="no tunnel yet, trying again", error=re.compile("no such host name"))
    names.say("slow 1 127.0.0.2")
    client.wait_ready(seconds=STEP)
    assert first.fetch(client.host).status == 200
    names.say("ok 127.0.0.3")
    first.program.stop()
    first.listen["control"] = f"127.0.0.3:{first.control[1]}"
    first.start()
    client.wait_ready(2, seconds=STEP * 2)
    assert first.fetch(client.host).status == 200


def test_service_by_a_name(server, user, origin, make_client, tmp_path):
    """The local service's name: gone is 502 and the service's side, back is back; a slow answer stalls nobody else."""
    names = Names(tmp_path, "ok 127.0.0.1")
    client = make_client(server, f"http://{NAME}:{origin.port}", user.token, env=names.env)
    other = make_client(server, origin, user.token)
    assert server.fetch(client.host).status == 200
    names.say("gone")
    origin.connections[0].close()
    refusal = server.fetch(client.host)
    assert (refusal.status, refusal.fields.get("kavilo-error")) == (502, "origin_unreachable")
    names.say("slow 1 127.0.0.1")
    with server.visitor(client.host) as visitor:
        visitor.request()
        began = time.monotonic()
        for _ in range(20):
            assert server.fetch(other.host).status == 200
        assert time.monotonic() - began < 1 * PACE
        assert visitor.response().status == 200


# ---- nobody there at the start ----------------------------------------------------------------------------------


def test_server_comes_later(make_server, make_client, origin):
    """The client says once a try what is wrong and when the next one is, with growing pauses, and gets in by itself."""
    server = make_server(grace="100ms")
    token = server.user().token
    server.program.stop()
    client = make_client(server, origin, token, ready=False)
    wait_until(lambda: len(client.program.log(message="no tunnel yet, trying again")) == 2, STEP, "two tries")
    server.again()
    client.wait_ready(seconds=STEP)
    tries = client.program.log(message="no tunnel yet, trying again")
    assert all("Connection refused" in line["error"] and server.endpoint in line["error"] for line in tries)
    for line, longest in zip(tries, (1000, 2000, 4000)):
        assert longest * 3 // 4 <= line["in_ms"] <= longest
    assert not client.program.log(level="error")


def test_every_address_that_failed_is_told(make_client, origin):
    """localhost is two addresses; a person sees what each of them said."""
    client = make_client("http://localhost:1", origin, "x" * 52, ready=False)
    line = client.program.wait_log(message="no tunnel yet, trying again")
    assert "127.0.0.1:1: Connection refused" in line["error"] and "[::1]:1: " in line["error"]


# ---- the wall clock ---------------------------------------------------------------------------------------------

DAY = 86400


@pytest.mark.parametrize("step", [-400 * DAY, 400 * DAY], ids=["back", "ahead"])
def test_wall_clock_is_set(make_server, make_client, origin, tmp_path, step):
    """Nothing hangs on the time of day but what is stored and shown: tunnels, waits and tokens go on."""
    clock = WallClock(tmp_path)
    server = make_server(env=clock.env)
    token = server.user().token
    client = make_client(server, origin, token, "--response-timeout", "500ms", env=dict(clock.env), name="laptop")
    with server.visitor(client.host) as visitor:
        visitor.request("/wait")
        origin.wait_exchange()
        clock.step(step)
        refusal = visitor.response()
        assert (refusal.status, refusal.fields.get("kavilo-error")) == (504, "origin_timeout")
        refusal.content  # pylint: disable=pointless-statement
        for _ in range(5):
            assert visitor.request().response().content
    twin = make_client(server, origin, token, env=dict(clock.env))
    assert server.fetch(twin.host).status == 200
    stored = server.sql("SELECT created_at FROM tunnels WHERE name = 'laptop'")[0][0]
    assert abs(calendar.timegm(time.strptime(stored[:19], "%Y-%m-%dT%H:%M:%S")) - time.time()) < 300
    clock.step(0)
    assert server.fetch(client.host).status == 200
    assert len(client.ready) == 1, "the tunnel was lost"
