"""kavilo-tunneld from the outside: input that cannot work, ports that are taken, what its commands print."""

import re
import socket

import pytest

from harness.process import base_environment, run
from harness.settings import STEP, TUNNELD

LISTEN = ["--edge-listen", "127.0.0.1:0", "--control-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]


@pytest.fixture
def tunneld(tmp_path):
    def command(*argv, database=None, env=None):
        environment = base_environment(tmp_path)
        environment["DATABASE_URL"] = database if database is not None else f"sqlite:{tmp_path}/db"
        environment.update(env or {})
        return run([TUNNELD, *argv], environment, seconds=STEP, cwd=tmp_path)

    return command


def assert_refused(done, *words):
    """One sentence with these words, status 2, nothing on standard output."""
    assert done.returncode == 2, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], lines[0]
    assert done.stdout == ""


@pytest.mark.parametrize(
    "argv,words",
    [
        (["--base-host", ""], ["--base-host"]),
        (["--base-host", "a b"], ["--base-host", "a b"]),
        (["--upgrades", "a b"], ["--upgrades", "a b", "list of protocols"]),
        (["--upgrades", "websocket, H2C"], ["--upgrades", "'H2C' carries HTTP"]),
        (["--base-host", "-x.test"], ["--base-host", "-x.test"]),
        (["--base-host", "http://x.test"], ["--base-host", "http://x.test"]),
        (["--base-host", "x.test:80"], ["--base-host", "x.test:80"]),
        (["--base-host", "*.x.test"], ["--base-host", "*.x.test"]),
        (["--base-host", "x..test"], ["--base-host", "x..test"]),
        (["--base-host", "a" * 64 + ".test"], ["--base-host"]),
        (["--base-host", "a." * 130 + "test"], ["--base-host"]),
        (["--base-host", "127.0.0.1"], ["--base-host", "127.0.0.1"]),
        (["--edge-listen", "nonsense"], ["--edge-listen", "nonsense"]),
        (["--edge-listen", "127.0.0.1:70000"], ["--edge-listen", "127.0.0.1:70000"]),
        (["--edge-listen", "127.0.0.1:-1"], ["--edge-listen", "127.0.0.1:-1"]),
        (["--edge-listen", "300.0.0.1:80"], ["--edge-listen", "300.0.0.1:80"]),
        (["--edge-listen", "[::1:80"], ["--edge-listen", "[::1:80"]),
        (["--edge-listen", "203.0.113.9:0"], ["--edge-listen", "203.0.113.9"]),
        (["--control-listen", "x y"], ["--control-listen", "x y"]),
        (["--admin-listen", ""], ["--admin-listen"]),
        (["--tls-mode", "maybe"], ["--tls-mode", "maybe"]),
        (["--tls-mode", "files"], ["--tls-cert"]),
        (["--tls-mode", "files", "--tls-cert", "/no/such/cert", "--tls-key", "/no/such/key"], ["/no/such/cert"]),
        (["--max-concurrent", "0"], ["--max-concurrent", "0"]),
        (["--max-concurrent", "-5"], ["--max-concurrent", "-5"]),
        (["--max-concurrent", "many"], ["--max-concurrent", "many"]),
        (["--max-concurrent", "99999999999999999999"], ["--max-concurrent"]),
        (["--max-request-body-bytes", "lots"], ["--max-request-body-bytes", "lots"]),
        (["--max-request-body-bytes", "-1"], ["--max-request-body-bytes", "-1"]),
        (["--grace", "soon"], ["--grace", "soon"]),
        (["--grace", "-1s"], ["--grace", "-1s"]),
        *[([option, value], [option, value, "1000h"])
          for option in ("--grace", "--response-timeout", "--stall-timeout", "--upgrade-idle-timeout", "--head-timeout",
                         "--idle-timeout")
          for value in ("1000h1s", "1001h", "50d", "4294967295s", "18446744073709551616ms", "1.5s", " 1s", "")],
        *[([option, "0"], [option, "1ms"]) for option in ("--head-timeout", "--idle-timeout")],
        (["--max-request-body-bytes", "9223372036854775808"], ["--max-request-body-bytes", "bytes"]),
        (["--max-request-body-bytes", "99999999999G"], ["--max-request-body-bytes", "bytes"]),
        (["--memory-budget", "0"], ["--memory-budget", "1M"]),
        (["--workers", "0"], ["--workers", "0"]),
        (["--workers", "100000"], ["--workers", "100000"]),
        (["--log-level", "loud"], ["--log-level", "loud"]),
        (["--log-format", "xml"], ["--log-format", "xml"]),
        (["--base-hots", "x.test"], ["--base-hots", "--base-host"]),
        (["--grace", "1s", "--grace", "2s"], ["--grace", "twice"]),
        (["extra"], ["extra"]),
    ],
    ids=lambda v: " ".join(v)[:50] if isinstance(v, list) else None,
)
def test_flags_that_cannot_work(tunneld, tmp_path, argv, words):
    listen = LISTEN
    for name in ("--edge-listen", "--control-listen", "--admin-listen"):
        if name in argv:
            at = LISTEN.index(name)
            listen = LISTEN[:at] + LISTEN[at + 2 :]
    base = [] if "--base-host" in argv else ["--base-host", "tnl.test"]
    assert_refused(tunneld("serve", *base, *listen, *argv), *words)
    assert not (tmp_path / "db").exists(), "nothing half-started"


@pytest.mark.parametrize(
    "url",
    ["mysql://x", "sqlite", "sqlite:", "nonsense", "/path/only.db", "sqlite:/no/such/folder/db", "sqlite:/dev/null/db",
     "sqlite:/", "postgres://127.0.0.1:1/none"],
)
@pytest.mark.parametrize("command", ["serve", "admin"])
def test_database_that_cannot_work(tunneld, url, command):
    argv = ["serve", "--base-host", "tnl.test", *LISTEN] if command == "serve" else ["admin", "create-user", "--email", "a@b.c"]
    done = tunneld(*argv, database=url)
    assert done.returncode == (1 if url.startswith("postgres") and done.returncode == 1 else 2), done
    assert len(done.stderr.strip().splitlines()) == 1
    assert (url.partition(":")[2].strip("/").partition(":")[0] or url) in done.stderr or url.partition(":")[0] in done.stderr
    assert done.stdout == ""


def test_database_url_keeps_its_password(tunneld):
    done = tunneld("admin", "create-user", "--email", "a@b.c", database="postgres://user:hushhush@127.0.0.1:1/none")
    assert done.returncode != 0 and "hushhush" not in done.stderr + done.stdout


def test_file_that_is_no_database(tunneld, tmp_path):
    (tmp_path / "db").write_bytes(b"this is no database at all, but long enough to be one" * 100)
    done = tunneld("serve", "--base-host", "tnl.test", *LISTEN)
    assert_refused(done, str(tmp_path / "db"))


@pytest.mark.parametrize("which", ["edge", "control", "admin"])
def test_busy_port(tunneld, which):
    """Which one is said; nothing else has started."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        argv = list(LISTEN)
        argv[argv.index(f"--{which}-listen") + 1] = f"127.0.0.1:{port}"
        assert_refused(tunneld("serve", "--base-host", "tnl.test", *argv), str(port), f"--{which}-listen")


def test_port_of_a_running_server(server, tunneld):
    """SO_REUSEPORT is for the workers of one server, not for two servers by mistake."""
    argv = list(LISTEN)
    argv[1] = "127.0.0.1:%d" % server.edge[1]
    assert_refused(tunneld("serve", "--base-host", "tnl.test", *argv), str(server.edge[1]))


def test_one_port_for_two_listeners(tunneld):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    argv = ["--edge-listen", f"127.0.0.1:{port}", "--control-listen", f"127.0.0.1:{port}", "--admin-listen", "127.0.0.1:0"]
    done = tunneld("serve", "--base-host", "tnl.test", *argv)
    assert_refused(done, str(port))


@pytest.mark.parametrize("how", ["empty", "no-pem", "other-key", "swapped", "garbage-key", "folder"])
def test_certificates_that_cannot_work(tunneld, tmp_path, authority, pair, how):
    cert, key = pair.cert, pair.key
    bad = tmp_path / "bad.pem"
    if how == "empty":
        bad.write_text("")
        cert = bad
    elif how == "no-pem":
        bad.write_text("hello")
        cert = bad
    elif how == "other-key":
        bad = key = authority.issue("other", "other.test").key
    elif how == "swapped":
        cert, key = pair.key, pair.cert
        bad = cert
    elif how == "garbage-key":
        bad.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        key = bad
    else:
        bad.mkdir()
        cert = bad
    done = tunneld("serve", "--base-host", "tnl.test", *LISTEN, "--tls-mode", "files", "--tls-cert", str(cert), "--tls-key", str(key))
    assert_refused(done, str(bad))


def test_tls_files_without_tls(tunneld, pair):
    """A certificate that would silently not be used is a mistake worth a sentence."""
    done = tunneld("serve", "--base-host", "tnl.test", *LISTEN, "--tls-mode", "off", "--tls-cert", str(pair.cert), "--tls-key",
                   str(pair.key))
    assert_refused(done, "--tls-mode")


def test_what_admin_commands_print(tunneld):
    """Standard output carries the thing made, one line; words for people go to standard error."""
    done = tunneld("admin", "create-user", "--email", "Alice@Example.com")
    assert done.returncode == 0 and re.fullmatch(r"alice-[0-9a-f]{4}\n", done.stdout), done
    assert done.stderr
    done = tunneld("admin", "issue-token", "--email", "alice@example.com", "--name", "laptop")
    assert done.returncode == 0 and re.fullmatch(r"[a-z2-7]{52}\n", done.stdout), done
    assert done.stdout.strip() not in done.stderr


@pytest.mark.parametrize(
    "argv,words",
    [
        (["admin"], []),
        (["admin", "create-user"], ["--email"]),
        (["admin", "create-user", "--email", "nobody"], ["nobody"]),
        (["admin", "create-user", "--email", "a@"], ["a@"]),
        (["admin", "create-user", "--email", "@b"], ["@b"]),
        (["admin", "create-user", "--email", "a b@c.d"], ["a b@c.d"]),
        (["admin", "create-user", "--email", "a@b@c"], ["a@b@c"]),
        (["admin", "create-user", "--email", "a" * 300 + "@b.c"], ["aaa", "254"]),
        (["admin", "issue-token", "--email", "a@b.c"], ["--name"]),
        (["admin", "issue-token", "--name", "x"], ["--email"]),
        (["admin", "destroy-everything"], ["destroy-everything"]),
        (["serv"], ["serv"]),
        ([], []),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else None,
)
def test_admin_commands_that_cannot_work(tunneld, argv, words):
    done = tunneld(*argv)
    assert done.returncode == 2, done
    for word in words:
        assert word in done.stderr


def test_admin_commands_that_fail(tunneld):
    """Possible, but not done: status 1 and why."""
    assert tunneld("admin", "create-user", "--email", "a@b.c").returncode == 0
    again = tunneld("admin", "create-user", "--email", "A@B.C")
    assert again.returncode == 1 and again.stdout == "" and "a@b.c" in again.stderr.lower()
    nobody = tunneld("admin", "issue-token", "--email", "nobody@b.c", "--name", "x")
    assert nobody.returncode == 1 and nobody.stdout == "" and "nobody@b.c" in nobody.stderr


def test_admin_beside_a_running_server(server, origin, make_client):
    """A user and a token made while the server runs work at once."""
    user = server.user("late@example.com")
    client = make_client(server, origin, user.token, name="laptop")
    assert server.fetch(client.host).status == 200


def test_help_and_version(tunneld):
    for argv in (["--help"], ["serve", "--help"], ["admin", "create-user", "--help"]):
        done = tunneld(*argv)
        assert done.returncode == 0 and done.stdout and not done.stderr
    assert "--base-host" in tunneld("serve", "--help").stdout
    assert re.search(r"\d+\.\d+\.\d+", tunneld("--version").stdout)


def test_database_file_is_private(server):
    """Hashes of tokens are nobody else's to read."""
    assert server.database_file.stat().st_mode & 0o077 == 0
