"""What the programs may do, and what they leave behind: rights given up for good, no token in memory, no core dump, units
that systemd accepts."""

import os
import pathlib
import pwd
import re
import shutil
import socket
import stat
import subprocess
import tempfile

import pytest

from harness import protobuf
from harness.grpclink import Link
from harness.handover import Fresh, Succession
from harness.process import run
from harness.settings import BIN, ROOT, SANITIZER, TUNNELD
from harness.wait import wait_until

UNITS = ROOT / "deploy" / "systemd"
USER = "nobody"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root's rights")


def status_of(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def memory_of(pid):
    """Every private page of a process, with its address; pages that cannot be read are none of its own."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(n, 16) for n in span.split("-"))
            if not rights.startswith("rw"):
                continue
            try:
                memory.seek(start)
                yield line, memory.read(end - start)
            except OSError:
                continue


def found_in(pid, secret):
    return [line for line, content in memory_of(pid) if secret in content]


@pytest.fixture
def folder():
    """A folder that is USER's; pytest's own are closed to everybody but root."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="kavilo-test-"))
    give(made)
    yield made
    shutil.rmtree(made)


def give(folder):
    """To USER, with all in it."""
    entry = pwd.getpwnam(USER)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, entry.pw_uid, entry.pw_gid)


@pytest.fixture
def user_can_run():
    """The words that run a program as USER; a skip where USER cannot reach the programs."""
    words = ["setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups"]
    if subprocess.run([*words, "test", "-x", str(TUNNELD)], check=False).returncode != 0:
        pytest.skip(f"{USER} cannot reach {TUNNELD}")
    return words


@needs_root
def test_root_makes_accounts_for_the_servers_user(folder, make_server):
    """In the order of the documentation: accounts first, as root, and then the server as its own user."""
    server = make_server("--user", USER, folder=folder, start=False)
    user = server.user()
    owner = pwd.getpwnam(USER).pw_uid
    made = {path.name: path.stat().st_uid for path in folder.iterdir() if path.name.startswith("tunneld.db")}
    assert "tunneld.db" in made and set(made.values()) == {owner}, made
    assert stat.S_IMODE((folder / "tunneld.db").stat().st_mode) == 0o600
    server.start()
    server.user("bob@example.com")
    assert {path.stat().st_uid for path in folder.iterdir() if path.name.startswith("tunneld.db")} == {owner}
    server.peer(user.token).connected().close()


# ---- --user ----


@needs_root
def test_root_becomes_a_user(folder, make_server, make_origin, make_client, user_can_run):  # pylint: disable=unused-argument
    """No right of root is left in any thread, the database and the pid file are the user's, and the successor of an
    upgrade, which never was root, has the same privileged port."""
    port = free_low_port()
    pid_file = folder / "tunneld.pid"
    server = make_server("--user", USER, "--pid-file", pid_file, folder=folder, edge=f"127.0.0.1:{port}")
    line = Succession(server)
    try:
        give(folder)
        client = make_client(server, make_origin(), server.user().token, name="app")
        poller = Fresh(server.edge, client.host)
        for _ in range(2):
            entry = pwd.getpwnam(USER)
            for task in pathlib.Path(f"/proc/{line.pid}/task").iterdir():
                status = status_of(task.name)
                assert status["Uid"].split() == [str(entry.pw_uid)] * 4
                assert status["Gid"].split() == [str(entry.pw_gid)] * 4
                assert status["Groups"].split() in ([], [str(entry.pw_gid)])
                assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
                assert status["NoNewPrivs"] == "1"
            assert (folder / "tunneld.db").stat().st_uid == entry.pw_uid
            wait_until(lambda: pid_file.read_text() == f"{line.pid}\n", what="the pid file names who serves")
            line.upgrade()
            poller.more()
        poller.stop()
    finally:
        line.close()
    assert not pid_file.exists()


def free_low_port():
    for port in range(1023, 600, -1):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no port below 1024 is free")


def refused(server, said):
    """It does not start, and says why."""
    ports = [word for name in server.listen for word in (f"--{name}-listen", "127.0.0.1:0")]
    done = run([*server.argv, *ports], server.env)
    assert done.returncode == 2 and said in done.stderr, done.stderr


def test_users_that_cannot_be(make_server):
    for value, said in (("nobody-at-all", "there is no user"), ("root", "is root"), (":x", "is no NAME"),
                        ("nobody:nogroup-at-all", "there is no group")):
        refused(make_server("--user", value, start=False), said)


@needs_root
def test_foreign_database_is_refused(folder, make_server):
    """A database that root made would fail at its first write: said at the start instead."""
    server = make_server("--user", USER, folder=folder, start=False)
    server.user()
    give(folder)
    os.chown(folder / "tunneld.db", 0, 0)
    refused(server, "tunneld.db is not this user's")


# ---- memory ----


@needs_root
@pytest.mark.skipif(bool(SANITIZER), reason="sanitizers keep copies of their own")
@pytest.mark.parametrize("secured", [False, True])
def test_tokens_are_forgotten(make_server, pair, secured):
    """After a session is open, and after one was refused, the token is nowhere in the server's memory: read in one piece,
    read in two, and on the edge's port."""
    server = make_server("--workers", "1", tls=pair if secured else None)
    user = server.user()
    secrets = []

    def token():
        """One of its own for each way, so that none hides another's traces."""
        secrets.append(server.token(user.email, f"token{len(secrets)}"))
        return secrets[-1]

    def forgotten(secret):
        wait_until(lambda: not found_in(server.program.pid, secret.encode()), 2, "nothing of the token is left")

    edge = f"{'https' if secured else 'http'}://{server.edge[0]}:{server.edge[1]}"
    for endpoint in (server.endpoint, edge):
        peer = server.peer(token(), f"n{len(secrets)}", endpoint=endpoint).connected()
        forgotten(secrets[-1])
        peer.close()
    wrong = "w" * 30 + "kavilo-search-for-me"
    assert server.peer(wrong).refused()[0] == 7
    forgotten(wrong)
    slow = Link.dial(server.endpoint, tls=server.tls.client(["h2"]) if secured else None)
    hello = protobuf.encode("ClientFrame", {"hello": {"token": token(), "name": "slow"}}, protobuf.FULL)
    framed = b"\0" + len(hello).to_bytes(4, "big") + hello
    for count, piece in enumerate((framed[:40], framed[40:]), 1):
        slow.send_bytes(piece)
        slow.h2_ping()  # its answer says that the piece was read
        slow.wait(lambda count=count: slow.pings_acked >= count, what="the piece was read")
    slow.next_message()
    assert found_in(server.program.pid, user.slug.encode()), "the search finds what is there"
    for secret in secrets:
        forgotten(secret)
    slow.close()


@needs_root
def test_no_core_dumps(folder, make_server, make_client, user_can_run):
    """Neither program leaves its memory behind in a file (PR_SET_DUMPABLE): the kernel gives what describes such a
    process to root alone, whoever's it is."""
    server = make_server(folder=folder, wrap=user_can_run)
    client = make_client("http://127.0.0.1:1", "http://127.0.0.1:1", "x" * 52, ready=False, wrap=user_can_run, folder=folder)
    client.program.wait_log(message=re.compile("no tunnel yet"))
    for program in (server.program, client.program):
        status = status_of(program.pid)
        assert status["Uid"].split()[0] == str(pwd.getpwnam(USER).pw_uid) and status["NoNewPrivs"] == "1"
        assert os.stat(f"/proc/{program.pid}/environ").st_uid == 0


# ---- units ----


@pytest.fixture
def units(tmp_path):
    """The units with the programs that were built, in a folder."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    folder = tmp_path / "units"
    for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.socket"), *UNITS.glob("user/*.service")]:
        into = folder / unit.relative_to(UNITS)
        into.parent.mkdir(exist_ok=True, parents=True)
        into.write_text(unit.read_text().replace("/usr/local/bin", str(BIN)))
    return folder


def analyze(*words, **env):
    return subprocess.run(["systemd-analyze", *map(str, words)], capture_output=True, text=True, timeout=30, check=False,
                          env={**os.environ, **env})


def test_units_are_sound(units):
    for unit in [*units.glob("*.service"), *units.glob("*.socket")]:
        done = analyze("verify", unit)
        assert done.returncode == 0 and not done.stderr, done.stderr
    (units / "run").mkdir()
    for unit in units.glob("user/*.service"):
        done = analyze("--user", "verify", unit, XDG_RUNTIME_DIR=str(units / "run"))
        assert done.returncode == 0 and not done.stderr, done.stderr


def test_units_expose_little(units):
    """The figures of docs/OPERATE.md, or better ones."""
    for name, most in (("kavilo-tunneld.service", 1.2), ("kavilo-tunnel@.service", 1.3)):
        figure = re.search(r"exposure level for \S+: ([0-9.]+)", analyze("security", "--offline=true", units / name).stdout)
        assert figure and float(figure[1]) <= most, figure
