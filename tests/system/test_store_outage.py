"""
The database goes away, in every way it does: killed, stopped, locked, full, read-only. Live tunnels serve on, new ones are
told UNAVAILABLE and get in again by themselves afterwards, and what is stored stays whole.
"""

import random
import signal
import sqlite3
import subprocess
import time

import pytest

from harness.disk import fill
from harness.http1 import Visitor
from harness.settings import PACE, STEP, TUNNELD
from harness.wait import wait_until
from store_tools import Admin, PostgresDatabase

pytest_plugins = ["store_fixtures"]

ALICE = "alice@example.com"
UNAVAILABLE = 14
HELLO = 10  # seconds until a client that got no answer is told DEADLINE_EXCEEDED


class Scene:
    """A server, a user, and a live tunnel."""

    def __init__(self, server, admin):
        self.server, self.admin = server, admin
        self.token = admin.user(ALICE, "alice")
        self.live = server.peer(self.token, "live").connected()

    def serves(self):
        """A visitor's request through the live tunnel; seconds."""
        began = time.monotonic()
        self.live.answer_pings()
        with self.server.visitor(self.live.host) as visitor:
            visitor.request("/x")
            number, _ = self.live.request()
            assert self.live.body(number) == b""
            self.live.answer(number, content=b"here")
            assert visitor.response().content == b"here"
        return time.monotonic() - began

    def ready(self):
        """The status of /readyz."""
        with Visitor(self.server.admin, "localhost") as visitor:
            return visitor.request("/readyz").response().status

    def refused(self, name="other"):
        """A new connect is told UNAVAILABLE, in time; the sentence."""
        began = time.monotonic()
        peer = self.server.peer(self.token, name)
        status, sentence = peer.refused(HELLO + STEP)
        peer.close()
        assert status == UNAVAILABLE, (status, sentence)
        assert time.monotonic() - began < HELLO * PACE
        return sentence

    def connects(self, name):
        peer = self.server.peer(self.token, name)
        try:
            peer.connected()
        except (AssertionError, ConnectionError):
            assert peer.link.status()[0] == UNAVAILABLE
            return False
        finally:
            peer.close()
        return True

    def heals(self, name="other", seconds=None):
        wait_until(lambda: self.connects(name), seconds or STEP * 2, "a new connect gets in", every=0.2)
        self.live.answer_pings()


@pytest.fixture
def on_postgres(own_cluster, make_server, tmp_path):
    database = PostgresDatabase(own_cluster)
    return Scene(make_server(database=database.url), Admin(database.url, tmp_path))


# ---- PostgreSQL -------------------------------------------------------------------------------------------------


@pytest.mark.first
@pytest.mark.patience(120 * PACE)
def test_postgres_killed_and_started_again(own_cluster, on_postgres):
    scene = on_postgres
    for name in ("one", "two"):
        own_cluster.kill()
        assert "connect" not in scene.refused(name)  # what failed inside is the operator's to read, not the user's
        for _ in range(5):
            assert scene.serves() < 1 * PACE
        scene.refused(name)
        wait_until(lambda: scene.ready() == 503, what="/readyz notices")
        done = scene.admin("list-users")
        assert done.returncode == 2 and "PostgreSQL" in done.stderr
        own_cluster.start()
        scene.heals(name)
        wait_until(lambda: scene.ready() == 200, what="/readyz notices")
        scene.serves()
    assert [n["name"] for n in scene.admin.json("list-names")] == ["live", "one", "two"]
    scene.admin.check()
    log = scene.server.program
    assert log.log(level="warn", message="the account database cannot be used; live tunnels go on, new ones are told to come again")
    assert log.log(message="the account database answers again")


@pytest.mark.patience(120 * PACE)
def test_postgres_restarted_while_idle(own_cluster, on_postgres):
    """The first connect after a restart gets in: dead connections are noticed before they are used."""
    own_cluster.kill()
    own_cluster.start()
    wait_until(lambda: on_postgres.connects("one"), 5 * PACE, "a new connect gets in", every=0.2)
    on_postgres.serves()
    on_postgres.admin.check()


@pytest.mark.first
@pytest.mark.patience(120 * PACE)
def test_postgres_stopped(own_cluster, on_postgres):
    scene = on_postgres
    own_cluster.pause()
    try:
        peers = [scene.server.peer(scene.token, f"n{n}") for n in range(20)]
        for _ in range(10):
            assert scene.serves() < 1 * PACE
        for peer in peers:
            status, sentence = peer.refused(HELLO + STEP)
            assert status == UNAVAILABLE, sentence
            peer.close()
        scene.serves()
    finally:
        own_cluster.resume()
    scene.heals("one")
    scene.serves()
    scene.admin.check()


def test_postgres_terminates_our_connections(on_postgres, own_cluster):
    scene = on_postgres
    for _ in range(3):
        own_cluster.psql("postgres", "-c", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 't1'")
        wait_until(lambda: scene.connects("one"), 5 * PACE, "a new connect gets in", every=0.2)
        scene.serves()


def test_row_locked_in_psql(on_postgres, own_cluster):
    """An operator forgets a transaction: connects with known names do not wait for it."""
    scene = on_postgres
    scene.heals("known")
    psql = subprocess.Popen([own_cluster.bin / "psql", "-X", "-q", "-h", own_cluster.folder, "-U", "kavilo", "-d", "t1"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    psql.stdin.write("UPDATE api_tokens SET last_used_at = '2020-01-01'; BEGIN; SELECT 1 FROM api_tokens FOR UPDATE;\n"
                     "SELECT 1 FROM tunnels FOR UPDATE; \\echo locked\n")
    psql.stdin.flush()
    while psql.stdout.readline().strip() != "locked":
        pass
    began = time.monotonic()
    assert scene.connects("known")
    assert time.monotonic() - began < 2 * PACE
    psql.communicate("ROLLBACK;\n")
    assert psql.returncode == 0


def test_postgres_is_not_there_at_the_start(own_cluster, programs, tmp_path):
    database = PostgresDatabase(own_cluster)
    own_cluster.kill()
    admin = Admin(database.url, tmp_path)
    program = programs.start("tunneld", [TUNNELD, "serve", "--edge-listen", "127.0.0.1:0", "--control-listen", "127.0.0.1:0",
                                         "--admin-listen", "127.0.0.1:0"], tmp_path, admin.env)
    assert program.wait_exit() == 2
    assert "PostgreSQL" in program.stderr() and len(program.stderr().splitlines()) == 1


# ---- SQLite -----------------------------------------------------------------------------------------------------


@pytest.fixture
def on_sqlite(make_server, tmp_path):
    admin = Admin(f"sqlite:{tmp_path}/accounts.db", tmp_path)
    return Scene(make_server(database=admin.env["DATABASE_URL"]), admin)


@pytest.mark.patience(120 * PACE)
def test_locked_file(on_sqlite, tmp_path):
    """Another program keeps the write lock: what only reads goes on, a new name has to wait and come again."""
    scene = on_sqlite
    scene.heals("known")
    other = sqlite3.connect(tmp_path / "accounts.db", isolation_level=None)
    other.execute("UPDATE api_tokens SET last_used_at = '2020-01-01'")
    other.execute("BEGIN EXCLUSIVE")
    try:
        began = time.monotonic()
        assert scene.connects("known")
        assert time.monotonic() - began < 2 * PACE
        scene.refused("new")
        assert scene.serves() < 1 * PACE
        done = scene.admin("create-user", "--email", "bob@example.com")
        assert done.returncode == 1 and "locked" in done.stderr
    finally:
        other.execute("ROLLBACK")
        other.close()
    scene.heals("new")
    scene.admin.check()


@pytest.mark.patience(120 * PACE)
def test_full_disk(small_disk, make_server, tmp_path):
    admin = Admin(f"sqlite:{small_disk}/accounts.db", tmp_path)
    scene = Scene(make_server(database=admin.env["DATABASE_URL"]), admin)
    names = []
    for turn in range(2):
        fill(small_disk)
        refused = 0
        for n in range(300):  # until what SQLite has in hand is used up; a smaller write may still fit after a larger one
            name = f"n{turn}-{n}"
            if scene.connects(name):
                names.append(name)
            else:
                refused += 1
            if refused == 8:
                break
        assert refused == 8
        scene.serves()
        done = admin("create-user", "--email", f"bob{turn}@example.com")
        assert done.returncode in (1, 2) and "full" in done.stderr, done
        assert done.stdout == ""
        (small_disk / "filler").unlink()
        scene.heals("full")
        scene.serves()
        admin.check()
    stored = {n["name"] for n in admin.json("list-names")}
    assert set(names) <= stored


def test_read_only_folder(small_disk, programs, tmp_path):
    admin = Admin(f"sqlite:{small_disk}/accounts.db", tmp_path)
    admin.user()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = admin("create-user", "--email", "bob@example.com")
    assert done.returncode == 2 and done.stdout == "" and str(small_disk) in done.stderr
    program = programs.start("tunneld", [TUNNELD, "serve", "--edge-listen", "127.0.0.1:0", "--control-listen", "127.0.0.1:0",
                                         "--admin-listen", "127.0.0.1:0"], tmp_path, admin.env)
    assert program.wait_exit() == 2 and str(small_disk) in program.stderr()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    admin.ok("create-user", "--email", "bob@example.com")
    admin.check()


# ---- killed while writing ---------------------------------------------------------------------------------------

KILLS = 200


def words_of(number):
    """A command that writes, another each time."""
    email = f"user{number % 7}@example.com"
    return [
        ["create-user", "--email", f"user{number}@example.com"],
        ["issue-token", "--email", email, "--name", f"t{number}"],
        ["set-slug", "--email", email, "--slug", f"slug-{number}", "--rewrite"],
        ["release-name", "--subdomain", f"n{number % 40}-kept"],
        ["delete-user", "--yes", "--email", f"user{number - 30}@example.com"],
        ["revoke-token", "--email", email, "--name", f"t{number - 6}"],
    ][number % 6]


@pytest.mark.first
@pytest.mark.patience(300 * PACE)
def test_killed_while_writing(admin, database):
    """Two hundred admin commands are killed at random moments: nothing is half-written, what was said to be made is."""
    for number in range(7):
        admin.ok("create-user", "--email", f"user{number}@example.com")
    owner = database.sql("SELECT id FROM users WHERE email = 'user0@example.com'")[0][0]
    for number in range(40):
        database.sql("INSERT INTO tunnels (id, user_id, name, subdomain) VALUES "
                     f"('33333333-3333-4333-8333-3333333333{number:02}', '{owner}', 'n{number}', 'n{number}-kept')")
    began = time.monotonic()
    admin.ok("list-users")
    usual = time.monotonic() - began

    rng = random.Random(7)
    promised, killed = [], 0
    while killed < KILLS:
        number = 100 + killed
        words = words_of(number)
        process = subprocess.Popen([TUNNELD, "admin", *words], env=admin.env, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True)
        time.sleep(rng.uniform(0.2, 1.3) * usual)  # the moment of the fault
        process.send_signal(signal.SIGKILL)
        out = process.communicate()[0]
        killed += 1
        if words[0] == "create-user" and out.endswith("\n"):
            promised.append((words[2], out.strip()))
    admin.check()
    users = {u["email"]: u["slug"] for u in admin.json("list-users")}
    deleted = {words_of(n)[3] for n in range(100, 100 + KILLS) if words_of(n)[0] == "delete-user"}
    for email, slug in promised:
        assert email in deleted or users.get(email) == slug
    admin.ok("create-user", "--email", "after@example.com")


@pytest.mark.patience(180 * PACE)
def test_server_killed_while_claiming(make_server, admin, database):
    """The server dies again and again while tunnels get their names."""
    token = admin.user(ALICE, "alice")
    rng = random.Random(7)
    promised = set()
    for turn in range(10):
        server = make_server(database=database.url)
        peers = [(f"n{turn}-{n}", server.peer(token, f"n{turn}-{n}")) for n in range(8)]
        time.sleep(rng.uniform(0, 0.05) * PACE)  # the moment of the fault
        server.program.kill()
        for name, peer in peers:
            try:
                promised.add((name, peer.connected().welcome["subdomain"]))
            except (AssertionError, ConnectionError):
                pass
            peer.close()
    admin.check()
    stored = {(n["name"], n["subdomain"]) for n in admin.json("list-names")}
    assert promised <= stored
