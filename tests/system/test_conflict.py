"""Two clients, one name: who serves, what the other is told, and how the name changes hands."""

import re
import signal
import threading
import time

import pytest

from harness import protobuf
from harness.proxy import Proxy
from harness.settings import PACE, STEP
from harness.wait import stays, wait_until

CONFLICT = "tunnel 'laptop' is already connected from another client"
ALREADY_EXISTS = 6


def named(text):
    return lambda ex: ex.reply(text)


@pytest.fixture
def two(server, user, make_origin, make_client):
    """A holds `laptop`; b() starts a second client for it."""
    a = make_client(server, make_origin(named("A")), user.token, name="laptop")
    service = make_origin(named("B"))

    def b(*args, **how):
        return make_client(server, service, user.token, *args, name="laptop", ready=False, **how)

    return a, b


def who(server, host):
    response = server.fetch(host)
    return response.text if response.status == 200 else response.status


def test_second_client_is_told_to_the_letter(server, two):
    a, b = two
    second = b()
    second.program.wait(lambda: CONFLICT in second.program.stderr(), what="the conflict in the log")
    assert second.ready == []
    assert who(server, a.host) == "A"


def test_first_serves_on_undisturbed(server, two):
    """Every request during B's tries goes to A; A has one session all along."""
    a, b = two
    second = b()
    answers = []
    with server.visitor(a.host) as visitor:

        def poll():
            visitor.request()
            answers.append(visitor.response().text)
            return second.program.stderr().count("is already connected from another client") >= 3

        second.program.wait(poll, 20 * PACE, "three refusals of B")
    assert set(answers) == {"A"} and len(answers) > 20
    assert len(a.ready) == 1
    a.program.check()


def test_backoff_of_the_second(server, two):
    """1 s, 2 s, 4 s …: the pauses between B's tries double, within their jitter."""
    _, b = two
    second = b()
    refused = re.compile(re.escape(CONFLICT))
    times = []

    def watch():
        count = len(refused.findall(second.program.stderr()))
        while len(times) < count:
            times.append(time.monotonic())
        return len(times) >= 4

    second.program.wait(watch, 20 * PACE, "four refusals")
    pauses = [late - early for early, late in zip(times, times[1:])]
    for pause, nominal in zip(pauses, (1, 2, 4)):
        assert nominal * 0.45 <= pause <= nominal * 1.6 + 0.5 * PACE, pauses


@pytest.mark.parametrize("how", ["killed", "SIGTERM", "SIGINT"])
def test_failover(server, two, how):
    """A goes, B's next try wins: nobody has to do anything."""
    a, b = two
    second = b()
    second.program.wait(lambda: CONFLICT in second.program.stderr(), what="the conflict")
    if how == "killed":
        a.program.kill()
    else:
        assert a.program.stop(getattr(signal, how)) == 0
    second.wait_ready(seconds=15 * PACE)
    assert second.host == a.host
    assert who(server, a.host) == "B"
    assert server.sql("SELECT count(*) FROM tunnels") == [(1,)]


def test_stopped_client_frees_its_name_at_once(server, two):
    """An orderly stop closes the session: a newcomer needs no second try."""
    a, b = two
    a.program.stop()
    second = b().wait_ready()
    assert CONFLICT not in second.program.stderr()


def test_takeover(server, two):
    a, b = two
    second = b("--takeover").wait_ready()
    assert second.host == a.host
    assert who(server, a.host) == "B"
    # A comes back without --takeover, is refused, and does not fight.
    a.program.wait(lambda: CONFLICT in a.program.stderr(), what="A's own conflict")
    stays(lambda: who(server, a.host) == "B" and len(second.ready) == 1, 1, "B keeps the name")
    a.program.check()
    second.program.stop()
    a.wait_ready(2, seconds=15 * PACE)
    assert who(server, a.host) == "A"


def test_takeover_says_cancel_to_the_old_one(server, user):
    first = server.peer(user.token, "laptop").connected()
    second = server.peer(user.token, "laptop", takeover=True).connected()
    assert "reason" in first.expect("cancel", 0)
    first.link.wait_over()
    assert second.welcome["subdomain"] == first.welcome["subdomain"]
    # The old one's late clean-up removes nothing.
    first.close(abrupt=True)
    with server.visitor(second.host) as visitor:
        for _ in range(3):
            visitor.request()
            request_id, _ = second.request()
            assert second.body(request_id) == b""
            second.answer(request_id, 204)
            assert visitor.response().status == 204
    second.close()


def test_takeover_of_a_free_name_is_a_connect(server, user):
    server.peer(user.token, "laptop", takeover=True).connected().close()


def test_takeover_ends_requests_in_flight_truthfully(server, user):
    first = server.peer(user.token, "laptop", features=protobuf.ALL_FEATURES, initial_credit=65536).connected()
    with server.visitor(first.host) as waiting:
        waiting.request()
        first.request()
        second = server.peer(user.token, "laptop", takeover=True, features=protobuf.ALL_FEATURES).connected()
        response = waiting.response()
        assert (response.status, response.fields.one("kavilo-error")) in ((502, "taken_over"), (502, "client_gone"))
    second.close()


def test_many_takeovers(server, user):
    """Forty rounds of two clients that take one name from each other leave exactly one of them."""
    current = server.peer(user.token, "laptop").connected()
    for _ in range(40):
        newcomer = server.peer(user.token, "laptop", takeover=True).connected()
        current.close()
        current = newcomer
    with server.visitor(current.host) as visitor:
        visitor.request()
        request_id, _ = current.request()
        current.answer(request_id, 204)
        assert visitor.response().status == 204
    current.close()

    def free():
        return server.fetch(f"laptop-{user.slug}.tnl.test").status == 502

    wait_until(free, what="no registration is left")


def test_race_for_one_name(server, user):
    """Twenty at once: one Welcome, nineteen refusals to the letter, one row."""
    peers = [None] * 20
    results = [None] * 20
    barrier = threading.Barrier(20)

    def connect(i):
        barrier.wait()
        peers[i] = server.peer(user.token, "laptop")
        try:
            peers[i].connected()
            results[i] = "welcome"
        except ConnectionError:
            results[i] = peers[i].refused()

    threads = [threading.Thread(target=connect, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STEP)
    assert sorted(map(str, results)) == sorted(["welcome"] + [str((ALREADY_EXISTS, CONFLICT))] * 19)
    assert server.sql("SELECT count(*) FROM tunnels") == [(1,)]
    for peer in peers:
        peer.close()


# ---- ghosts ----


def test_same_instance_replaces_its_ghost(server, user):
    instance = bytes(range(16))
    ghost = server.peer(user.token, "laptop", features=protobuf.ALL_FEATURES, instance_id=instance).connected()
    stranger = server.peer(user.token, "laptop", features=protobuf.ALL_FEATURES, instance_id=bytes(16))
    assert stranger.refused() == (ALREADY_EXISTS, CONFLICT)
    back = server.peer(user.token, "laptop", features=protobuf.ALL_FEATURES, instance_id=instance).connected()
    ghost.link.wait_over()
    ghost.close()
    with server.visitor(back.host) as visitor:
        visitor.request()
        request_id, _ = back.request()
        back.answer(request_id, 204)
        assert visitor.response().status == 204
    back.close()


@pytest.mark.parametrize("instance", [None, b"", b"short", bytes(17)], ids=["none", "empty", "short", "long"])
def test_no_instance_id_replaces_nothing(server, user, instance):
    first = server.peer(user.token, "laptop", instance_id=instance)
    if instance not in (None, b""):
        # Not 16 bytes: either ignored or refused, never a key.
        try:
            first.connected()
        except ConnectionError:
            assert first.refused()[0] != 0
            return
    else:
        first.connected()
    second = server.peer(user.token, "laptop", instance_id=instance)
    assert second.refused() == (ALREADY_EXISTS, CONFLICT)
    first.close()


def test_instance_id_of_another_user_replaces_nothing(server):
    """Two users, rewritten to the same subdomain wish: an instance id is worth something for its own user only."""
    alice, bob = server.user("alice@example.com"), server.user("bob@example.com")
    server.sql("UPDATE users SET slug = 'c' WHERE email = ?", alice.email)
    server.sql("UPDATE users SET slug = 'b-c' WHERE email = ?", bob.email)
    instance = bytes(range(16))
    holder = server.peer(alice.token, "a-b", instance_id=instance).connected()
    assert server.peer(bob.token, "a", instance_id=instance).refused()[0] == ALREADY_EXISTS
    assert not holder.link.over
    holder.close()


def test_client_replaces_its_own_ghost(server, user, origin, make_client):
    """The client's connection is cut on its side alone; the server still sees the old one open. No waiting for a
    time-out, no conflict: the same process is known."""
    with Proxy(server.control) as proxy:
        client = make_client(proxy.endpoint, origin, user.token, name="laptop")
        assert server.fetch(client.host).status == 200
        start = time.monotonic()
        proxy.cut_near_side()
        client.wait_ready(2, seconds=10 * PACE)
        assert time.monotonic() - start < 8 * PACE, "the ghost was waited for"
        assert CONFLICT not in client.program.stderr()
        assert server.fetch(client.host).status == 200



def test_link_cut_in_the_middle_reconnects(server, user, origin, make_client):
    """A lost connection, seen by both: back within the first steps of the back-off, by the same name."""
    with Proxy(server.control) as proxy:
        client = make_client(proxy.endpoint, origin, user.token, name="laptop")
        for round_number in (2, 3):
            proxy.cut()
            client.wait_ready(round_number, seconds=10 * PACE)
            assert server.fetch(client.host).status == 200


def test_backoff_starts_again_after_a_session_that_worked(server, user, origin, make_client):
    """Refused often, then connected, then cut: the next try comes after a second, not after the long pause before."""
    with Proxy(server.control) as proxy:
        proxy.refuse = True
        client = make_client(proxy.endpoint, origin, user.token, ready=False)
        wait_until(lambda: proxy.refused >= 3, 20 * PACE, "three failed tries")
        proxy.refuse = False
        client.wait_ready(seconds=15 * PACE)
        assert server.fetch(client.host).status == 200
        start = time.monotonic()
        proxy.cut()
        client.wait_ready(2, seconds=10 * PACE)
        assert time.monotonic() - start < 3 * PACE


def test_client_waits_for_a_server_that_is_not_there_yet(make_server, origin, make_client):
    """Started before the network: it retries until the server is up."""
    server = make_server()
    user = server.user()
    server.program.stop()
    client = make_client(server, origin, user.token, ready=False)
    client.program.wait(lambda: client.program.log(level=re.compile("warn|error")), what="a failed try in the log")
    server.again()
    client.wait_ready(seconds=15 * PACE)
    assert server.fetch(client.host).status == 200


def test_server_restart(server, user, origin, make_client):
    """The server goes and comes: the client is back by itself, by the same name."""
    client = make_client(server, origin, user.token, name="laptop")
    server.restart()
    client.wait_ready(2, seconds=15 * PACE)
    assert server.fetch(client.host).status == 200


def test_server_killed(server, user, origin, make_client):
    client = make_client(server, origin, user.token, name="laptop")
    server.program.kill()
    server.again()
    client.wait_ready(2, seconds=15 * PACE)
    assert server.fetch(client.host).status == 200
    assert server.sql("SELECT count(*) FROM tunnels") == [(1,)]


@pytest.mark.first
def test_stopped_process_is_found_dead(server, user, two):
    """SIGSTOP: the kernel still answers for A, A does not. Within 15 s it is dead and its name free; woken up, A sees
    that its session is over and comes back."""
    a, _ = two
    a.program.send_signal(signal.SIGSTOP)

    def free():
        peer = server.peer(user.token, "laptop")
        try:
            peer.connected()
            return True
        except ConnectionError:
            return False
        finally:
            peer.close()

    wait_until(free, 20 * PACE, "the name is free", every=0.25)
    a.program.send_signal(signal.SIGCONT)
    a.wait_ready(2, seconds=20 * PACE)
    assert who(server, a.host) == "A"
