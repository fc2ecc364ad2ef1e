"""Accounts on a running server, on both back ends: names, rewritten slugs, tokens and users that end, two servers."""

import re
import subprocess
import threading
import time

import pytest

from harness.settings import PACE, STEP, TUNNELD
from harness.wait import stays, wait_until
from store_tools import Admin

pytest_plugins = ["store_fixtures"]

ALICE = "alice@example.com"
INVALID_ARGUMENT, ALREADY_EXISTS, PERMISSION_DENIED = 3, 6, 7
PROMISE = 2  # seconds within which a running server notices


@pytest.fixture
def server(make_server, database):
    return make_server(database=database.url)


def connect(server, token, name=None):
    return server.peer(token, name).connected()


def subdomain(peer):
    return peer.welcome["subdomain"]


def refusal(server, token, name=None):
    peer = server.peer(token, name)
    status = peer.refused()
    peer.close()
    return status


def serves(server, peer):
    """One request through the tunnel."""
    with server.visitor(peer.host) as visitor:
        visitor.request("/x")
        number, head = peer.request()
        assert head["path"] == "/x" and peer.body(number) == b""
        peer.answer(number, content=b"here")
        return visitor.response().content == b"here"


def ended(peer, seconds):
    """The link ends within so long; pings are answered on the way."""

    def over():
        peer.answer_pings()
        return peer.link.closed or peer.link.trailers or peer.link.reset is not None or peer.link.ended

    wait_until(over, seconds, "the end of the tunnel")
    return True


# ---- the tables of the source document --------------------------------------------------------------------------


def test_random_names_are_not_stored(server, admin, database):
    token = admin.user()
    peers = [connect(server, token) for _ in range(5)]
    for peer in peers:
        assert re.fullmatch(r"[a-z]+-[a-z]+-[1-9][0-9]{3}", subdomain(peer))
        assert peer.host == f"{subdomain(peer)}.tnl.test"
    assert len({subdomain(peer) for peer in peers}) == 5
    assert database.sql("SELECT count(*) FROM tunnels") == [("0",)]


def test_named_row_is_reused(server, admin, database):
    token = admin.user()
    (slug,) = database.sql("SELECT slug FROM users")[0]
    for _ in range(2):
        peer = connect(server, token, "laptop")
        assert subdomain(peer) == f"laptop-{slug}"
        assert serves(server, peer)
        peer.close()
    other = connect(server, token, "desktop")
    assert subdomain(other) == f"desktop-{slug}"
    assert database.sql("SELECT count(*) FROM tunnels") == [("2",)]


def test_names_of_two_users(server, admin):
    alice, bob = admin.user(ALICE, "alice-7f0c"), admin.user("bob@example.com", "bob-3b9e")
    ours, theirs = connect(server, alice, "laptop"), connect(server, bob, "laptop")
    assert (subdomain(ours), subdomain(theirs)) == ("laptop-alice-7f0c", "laptop-bob-3b9e")
    assert serves(server, ours) and serves(server, theirs)


def test_two_users_meet_in_one_subdomain(server, admin):
    first, second = admin.user("a@x", "c"), admin.user("b@x", "b-c")
    peer = connect(server, first, "a-b")
    assert subdomain(peer) == "a-b-c"
    status, sentence = refusal(server, second, "a")
    assert status == ALREADY_EXISTS
    assert "belongs to another account" in sentence and "already connected" not in sentence
    peer.close()
    assert refusal(server, second, "a")[0] == ALREADY_EXISTS
    assert serves(server, connect(server, first, "a-b"))


@pytest.mark.parametrize("name", ["Laptop", "a.b", "-a", "a b", "ü", "x" * 60, "a_b", "a/b"])
def test_names_that_are_no_label(server, admin, database, name):
    token = admin.user(slug="alice")
    status, sentence = refusal(server, token, name)
    assert status == INVALID_ARGUMENT and len(sentence) > 10
    assert database.sql("SELECT count(*) FROM tunnels") == [("0",)]


def test_last_use_is_noted(server, admin):
    token = admin.user()
    assert admin.json("list-tokens")[0]["last_used_at"] is None
    connect(server, token)
    assert admin.json("list-tokens")[0]["last_used_at"] is not None


# ---- the source document's SQL, beside the running server -------------------------------------------------------


def test_rewritten_with_sql(server, admin, database):
    token = admin.user(ALICE, "alice-7f0c")
    peer = connect(server, token, "laptop")
    assert subdomain(peer) == "laptop-alice-7f0c"
    database.shell("UPDATE users SET slug = 'alice' WHERE email = 'alice@example.com';")
    database.shell("UPDATE tunnels SET subdomain = REPLACE(subdomain, '-alice-7f0c', '-alice')\n"
                   "WHERE subdomain LIKE '%-alice-7f0c';")
    peer.close()
    again = connect(server, token, "laptop")
    assert subdomain(again) == "laptop-alice"
    assert serves(server, again)
    assert subdomain(connect(server, token, "desktop")) == "desktop-alice"
    assert database.sql("SELECT count(*) FROM tunnels") == [("2",)]
    admin.check()


def test_only_the_slug_rewritten(server, admin, database):
    token = admin.user(ALICE, "alice-7f0c")
    connect(server, token, "laptop").close()
    database.shell("UPDATE users SET slug = 'alice' WHERE email = 'alice@example.com';")
    assert subdomain(connect(server, token, "laptop")) == "laptop-alice-7f0c"
    assert subdomain(connect(server, token, "desktop")) == "desktop-alice"


# ---- what ends a live tunnel ------------------------------------------------------------------------------------


def close_by(server, admin, act, token, name=None, bystander=True):
    """Opens a tunnel and another user's; `act` has to end the first within the promised time, and it alone."""
    other = connect(server, admin.user("bob@example.com")) if bystander else None
    peer = connect(server, token, name)
    assert serves(server, peer)
    act()
    began = time.monotonic()
    ended(peer, STEP)
    assert time.monotonic() - began < PROMISE * PACE
    peer.close()
    if other:
        other.answer_pings()
        assert serves(server, other)
    return refusal


def test_revoked_token(server, admin):
    token = admin.user()
    (row,) = admin.json("list-tokens", "--email", ALICE)
    close_by(server, admin, lambda: admin.ok("revoke-token", "--id", row["id"]), token)
    assert refusal(server, token) == (PERMISSION_DENIED, "invalid token")


def test_token_revoked_while_away_is_refused_at_once(server, admin):
    token = admin.user()
    connect(server, token).close()
    admin.ok("revoke-token", "--email", ALICE, "--name", "test")
    assert refusal(server, token) == (PERMISSION_DENIED, "invalid token")


def test_disabled_user(server, admin):
    token = admin.user()
    close_by(server, admin, lambda: admin.ok("disable-user", "--email", ALICE), token, "laptop")
    assert refusal(server, token, "laptop") == (PERMISSION_DENIED, "invalid token")
    admin.ok("enable-user", "--email", ALICE)
    assert serves(server, connect(server, token, "laptop"))


def test_deleted_user(server, admin):
    token = admin.user(ALICE, "alice")
    close_by(server, admin, lambda: admin.ok("delete-user", "--yes", "--email", ALICE), token, "laptop")
    assert refusal(server, token, "laptop")[0] == PERMISSION_DENIED
    assert [n["subdomain"] for n in admin.json("list-names", "--all")] == ["laptop-alice"]
    admin.check()


def test_expired_token(server, admin):
    admin.ok("create-user", "--email", ALICE)
    token = admin.ok("issue-token", "--email", ALICE, "--name", "short", "--expires", f"{4 * PACE}s")
    issued = time.monotonic()
    peer = connect(server, token)
    ended(peer, 4 * PACE + STEP)
    assert 3 * PACE < time.monotonic() - issued < 4 * PACE + 1 + PROMISE * PACE
    assert refusal(server, token) == (PERMISSION_DENIED, "invalid token")


def test_released_name(server, admin):
    token = admin.user("a@x", "c")
    other = admin.user("b@x", "b-c")
    close_by(server, admin, lambda: admin.ok("release-name", "--email", "a@x", "--name", "a-b"), token, "a-b")
    assert refusal(server, other, "a")[0] == ALREADY_EXISTS
    again = connect(server, token, "a-b")
    assert subdomain(again) == "a-b-c" and serves(server, again)
    admin.check()


def test_moved_name(server, admin):
    token = admin.user(ALICE, "alice-7f0c")
    close_by(server, admin, lambda: admin.ok("set-slug", "--email", ALICE, "--slug", "alice", "--rewrite"), token, "laptop")
    assert subdomain(connect(server, token, "laptop")) == "laptop-alice"


def test_other_changes_close_nobody(server, admin):
    token = admin.user(ALICE, "alice")
    peer = connect(server, token, "laptop")
    admin.ok("create-user", "--email", "bob@example.com")
    admin.ok("issue-token", "--email", ALICE, "--name", "two")
    admin.ok("revoke-token", "--email", ALICE, "--name", "two")
    admin.ok("set-slug", "--email", ALICE, "--slug", "al")

    def alive():
        peer.answer_pings()
        return not (peer.link.closed or peer.link.trailers or peer.link.reset is not None)

    stays(alive, PROMISE + 1, "the tunnel")
    assert serves(server, peer)


# ---- the same, with the real client -----------------------------------------------------------------------------


def test_client_ends_with_its_token(server, admin, origin, make_client):
    client = make_client(server, origin, admin.user(), name="laptop")
    admin.ok("revoke-token", "--email", ALICE, "--name", "test")
    assert client.program.wait_exit() != 0
    assert "invalid token" in client.program.stderr()
    assert server.fetch(client.host).status == 502


def test_client_comes_back_under_the_new_name(server, admin, database, origin, make_client):
    client = make_client(server, origin, admin.user(ALICE, "alice-7f0c"), name="laptop")
    assert client.subdomain == "laptop-alice-7f0c"
    old = client.host
    admin.ok("set-slug", "--email", ALICE, "--slug", "alice", "--rewrite")
    client.wait_ready(2)
    assert client.subdomain == "laptop-alice"
    assert server.fetch(client.host).status == 200
    assert server.fetch(old).status == 502


def test_client_waits_while_disabled_users_do_not(server, admin, origin, make_client):
    """A released name comes back by itself; a disabled user's client ends."""
    client = make_client(server, origin, admin.user(ALICE, "alice"), name="laptop")
    admin.ok("release-name", "--email", ALICE, "--name", "laptop")
    client.wait_ready(2)
    assert client.subdomain == "laptop-alice"
    admin.ok("disable-user", "--email", ALICE)
    assert client.program.wait_exit() != 0


# ---- two servers on one database --------------------------------------------------------------------------------


def test_two_servers_start_at_once(programs, tmp_path, database):
    """Both are up, and the schema was made once."""
    admin = Admin(database.url, tmp_path)
    argv = [TUNNELD, "serve", "--edge-listen", "127.0.0.1:0", "--control-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
            "--log-format", "json"]
    many = [programs.start(f"tunneld{n}", argv, tmp_path, admin.env) for n in range(4)]
    for program in many:
        program.wait_log(message="listening")
    assert database.sql("SELECT count(*) FROM kavilo_migrations") == [("2",)]
    admin.check()


def test_fifty_connects_for_one_name_over_two_servers(make_server, database, admin):
    servers = [make_server(database=database.url) for _ in range(2)]
    token = admin.user(ALICE, "alice")
    results = []
    start = threading.Barrier(50)

    def try_once(server):
        start.wait()
        peer = server.peer(token, "laptop")
        try:
            results.append((server, "up", subdomain(peer.connected())))
        except (AssertionError, ConnectionError):
            results.append((server, *peer.link.status()))

    threads = [threading.Thread(target=try_once, args=(servers[n % 2],)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STEP * 3)
    assert len(results) == 50
    for server in servers:
        mine = [r[1:] for r in results if r[0] is server]
        assert mine.count(("up", "laptop-alice")) == 1, mine
        assert set(mine) == {("up", "laptop-alice"),
                             (ALREADY_EXISTS, "tunnel 'laptop' is already connected from another client")}
    assert database.sql("SELECT name, subdomain FROM tunnels") == [("laptop", "laptop-alice")]
    admin.check()


def test_colliding_subdomains_over_two_servers(make_server, database, admin):
    servers = [make_server(database=database.url) for _ in range(2)]
    tokens = {"a-b": admin.user("a@x", "c"), "a": admin.user("b@x", "b-c")}
    results = []
    start = threading.Barrier(20)

    def try_once(server, name):
        start.wait()
        peer = server.peer(tokens[name], name)
        try:
            results.append((name, "up", subdomain(peer.connected())))
        except (AssertionError, ConnectionError):
            results.append((name, *peer.link.status()))

    threads = [threading.Thread(target=try_once, args=(servers[n % 2], "a" if n // 2 % 2 else "a-b")) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STEP * 3)
    assert len(results) == 20
    (owner,) = database.sql("SELECT name FROM tunnels")[0]
    for name, kind, text in results:
        if name != owner:
            assert kind == ALREADY_EXISTS and "another account" in text
        else:
            assert kind in ("up", ALREADY_EXISTS)


# ---- secrets ----------------------------------------------------------------------------------------------------


def test_no_token_in_logs(server, admin):
    token = admin.user()
    connect(server, token, "laptop")
    refusal(server, token[::-1])
    log = server.program.stderr()
    assert ALICE in log
    assert token not in log and token[::-1] not in log


def test_no_token_in_the_files(make_server, tmp_path):
    admin = Admin(f"sqlite:{tmp_path}/a.db", tmp_path)
    server = make_server(database=admin.env["DATABASE_URL"])
    token = admin.user()
    connect(server, token, "laptop")
    files = list(tmp_path.glob("a.db*"))
    assert len(files) == 3
    found = subprocess.run(["grep", "-c", token, *files], capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stdout
