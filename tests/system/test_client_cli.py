"""kavilo-tunnel from the outside: settings and where they come from, the three lines, local services of every kind,
and input that cannot work."""

import json
import os
import pty
import re
import socket
import stat
import subprocess
import termios

import pytest

from harness.origin import Origin
from harness.process import base_environment, run
from harness.settings import STEP, TUNNEL
from harness.wait import wait_until

TOKEN = "t" * 52


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def tunnel_command(home, *argv, env=None, stdin=b""):
    environment = base_environment(home)
    if argv[:1] == ("tunnel",):
        environment["KAVILO_ENDPOINT"] = "http://127.0.0.1:1"  # never a server that happens to run here
    environment.update(env or {})
    return run([TUNNEL, *argv], environment, stdin, cwd=home)


def config(home):
    return home / ".kavilo-tunnel" / "config.yml"


def saved(home):
    """The settings in the file; it is plain enough for two lines of Python."""
    return dict(re.findall(r"^(\w+):\s*[\"']?([^\"'\n]*)[\"']?$", config(home).read_text(), re.MULTILINE))


# ---- login ----


def test_login_with_a_flag(home):
    done = tunnel_command(home, "login", "--token", TOKEN, "--endpoint", "http://tnl.test:7777")
    assert done.returncode == 0, done.stderr
    assert saved(home) == {"token": TOKEN, "endpoint": "http://tnl.test:7777"}
    assert TOKEN not in done.stdout + done.stderr


def test_login_from_standard_input(home):
    done = tunnel_command(home, "login", stdin=TOKEN.encode() + b"\n")
    assert done.returncode == 0, done.stderr
    assert saved(home)["token"] == TOKEN


def test_login_from_a_file(home, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert tunnel_command(home, "login", "--token-file", str(file)).returncode == 0
    assert saved(home)["token"] == TOKEN


def test_login_at_a_prompt(home):
    """On a terminal: a prompt, and what is typed is not shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen([TUNNEL, "login"], stdin=slave, stdout=slave, stderr=slave, cwd=home,
                               env=base_environment(home), start_new_session=True)
    try:
        shown = b""

        def more():
            nonlocal shown
            shown += os.read(master, 1000)
            return b"oken" in shown

        wait_until(more, what="the prompt")
        wait_until(lambda: not termios.tcgetattr(slave)[3] & termios.ECHO, what="echo is off")
        os.write(master, TOKEN.encode() + b"\n")
        assert process.wait(STEP) == 0
        assert termios.tcgetattr(slave)[3] & termios.ECHO, "echo is on again"
        os.close(slave)
        try:
            while data := os.read(master, 1000):
                shown += data
        except OSError:
            pass
        assert TOKEN.encode() not in shown
        assert saved(home)["token"] == TOKEN
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_file_is_private_from_its_creation(home, umask):
    """0600 whatever the umask; watched with strace-like care: no other mode is ever asked for."""
    old = os.umask(umask)
    try:
        assert tunnel_command(home, "login", "--token", TOKEN).returncode == 0
    finally:
        os.umask(old)
    assert stat.S_IMODE(config(home).stat().st_mode) == 0o600
    assert stat.S_IMODE(config(home).parent.stat().st_mode) & 0o077 == 0


def test_file_with_a_token_is_never_readable_by_others(home):
    """Not even for a moment: every file the login makes in the folder is created with 0600."""
    if not os.path.exists("/usr/bin/strace"):
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("strace is not permitted here")
    trace = home / "trace"
    done = run(["strace", "-f", "-e", "trace=open,openat,creat,chmod,fchmod,fchmodat", "-o", trace, TUNNEL, "login", "--token",
                TOKEN], dict(base_environment(home), ASAN_OPTIONS="detect_leaks=0"), cwd=home)
    assert done.returncode == 0, done.stderr
    made = [line for line in trace.read_text().splitlines() if ".kavilo-tunnel" in line and "O_CREAT" in line]
    assert made and all("0600" in line for line in made), made


def test_second_login_replaces_and_keeps(home):
    """A new token replaces the old; an endpoint that is not named stays."""
    assert tunnel_command(home, "login", "--token", "a" * 52, "--endpoint", "http://one.test").returncode == 0
    config(home).chmod(0o644)
    assert tunnel_command(home, "login", "--token", TOKEN).returncode == 0
    assert saved(home) == {"token": TOKEN, "endpoint": "http://one.test"}
    assert stat.S_IMODE(config(home).stat().st_mode) == 0o600
    assert [f.name for f in config(home).parent.iterdir()] == ["config.yml"], "no leftovers"


@pytest.mark.parametrize("option,value", [("--endpoint", "https://tnl.test:8443"), ("--proxy", "http://proxy.test:3128"),
                                          ("--proxy", "none"), ("--ca-cert", None)])
def test_login_changes_one_thing(home, pair, option, value):
    """The stored token stays, and is not asked for; whatever comes on standard input is not looked at."""
    value = value or str(pair.ca)
    assert tunnel_command(home, "login", "--token", TOKEN, "--endpoint", "http://one.test").returncode == 0
    done = tunnel_command(home, "login", option, value, stdin=b"z" * 52 + b"\n")
    assert done.returncode == 0, done.stderr
    assert "the token stays" in done.stderr
    key = option[2:].replace("-", "_")
    assert saved(home) == {"token": TOKEN, "endpoint": "http://one.test", key: value}


def test_login_without_a_stored_token_asks(home):
    done = tunnel_command(home, "login", "--endpoint", "http://one.test", stdin=TOKEN.encode())
    assert done.returncode == 0, done.stderr
    assert saved(home) == {"token": TOKEN, "endpoint": "http://one.test"}


@pytest.mark.parametrize("token", ["T", "TOKEN", "<token>", "$TOKEN", "a" * 51, "a" * 53, "A" * 52, "a" * 51 + "1", "a" * 51 + "="])
def test_placeholders_are_no_tokens(home, tmp_path, token):
    file = tmp_path / "token"
    file.write_text(token)
    for how in (["--token", token], ["--token-file", str(file)], []):
        done = tunnel_command(home, "login", *how, stdin=token.encode())
        assert done.returncode == 2 and "52 characters" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not config(home).exists()


def test_logout_takes_the_token_alone(home):
    assert tunnel_command(home, "login", "--token", TOKEN, "--endpoint", "http://one.test").returncode == 0
    with config(home).open("a") as file:
        file.write("# a comment\n")
    done = tunnel_command(home, "logout")
    assert done.returncode == 0 and "taken out" in done.stderr
    assert saved(home) == {"endpoint": "http://one.test"}
    assert "# a comment" in config(home).read_text() and TOKEN not in config(home).read_text()
    assert stat.S_IMODE(config(home).stat().st_mode) == 0o600
    done = tunnel_command(home, "logout")
    assert done.returncode == 0 and "there was no token" in done.stderr
    assert tunnel_command(home, "tunnel", "--url", "3000").returncode == 2


def test_logout_without_a_file(home):
    done = tunnel_command(home, "logout")
    assert done.returncode == 0 and not config(home).exists()


def test_check(home, make_server):
    """Once, and no tunnel is left behind; with what is stored then."""
    server = make_server()
    token = server.user().token
    assert tunnel_command(home, "login", "--check").returncode == 2, "there is nothing to check"
    done = tunnel_command(home, "login", "--token", token, "--endpoint", server.endpoint, "--check")
    assert done.returncode == 0 and f"{server.endpoint} accepts the token" in done.stderr, done.stderr
    before = config(home).read_bytes()
    assert tunnel_command(home, "login", "--check").returncode == 0
    assert config(home).read_bytes() == before
    wait_until(lambda: server.metrics()["kavilo_tunnels_active"] == 0, what="the tunnel of the check is gone")
    done = tunnel_command(home, "login", "--token", TOKEN, "--check")
    assert done.returncode == 1 and "does not accept the token" in done.stderr
    server.program.stop()
    done = tunnel_command(home, "login", "--check")
    assert done.returncode == 1 and "Connection refused" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("stdin", [b"", b"\n", b"   \n", b"to ken\n", b"t\xc3\xb6ken\n", b"\0\n", b"x" * 5000 + b"\n"],
                         ids=lambda s: repr(s[:12]))
def test_login_with_no_token(home, stdin):
    done = tunnel_command(home, "login", stdin=stdin)
    assert done.returncode == 2, done
    assert len(done.stderr.strip().splitlines()) == 1
    assert not config(home).exists(), "nothing half-started"


def test_login_with_a_missing_token_file(home):
    done = tunnel_command(home, "login", "--token-file", "/no/such/file")
    assert done.returncode == 2 and "/no/such/file" in done.stderr and "No such file" in done.stderr


@pytest.mark.parametrize("endpoint", ["ftp://x", "http://", "tnl.test:7777:7", "http://host:0", "http://host:70000",
                                      "http://user@host", "http://ho st", "http://host/path?x", "https://[::1", ""])
def test_login_with_a_bad_endpoint(home, endpoint):
    done = tunnel_command(home, "login", "--token", TOKEN, "--endpoint", endpoint)
    assert done.returncode == 2
    assert "--endpoint" in done.stderr and endpoint in done.stderr
    assert not config(home).exists()


def test_login_without_a_home(tmp_path):
    environment = base_environment(tmp_path)
    environment["HOME"] = "/dev/null/nowhere"
    done = run([TUNNEL, "login", "--token", TOKEN], environment)
    assert done.returncode in (1, 2) and "/dev/null/nowhere" in done.stderr


# ---- where settings come from ----


def test_settings_from_the_file(server, user, origin, make_client, home):
    assert tunnel_command(home, "login", "--token", user.token, "--endpoint", server.endpoint).returncode == 0
    client = make_client(None, origin, None, home=home)
    assert server.fetch(client.host).status == 200


def test_environment_beats_the_file(server, user, origin, make_client, home):
    assert tunnel_command(home, "login", "--token", TOKEN, "--endpoint", "http://127.0.0.1:1").returncode == 0
    client = make_client(server, origin, user.token, home=home)
    assert server.fetch(client.host).status == 200


def test_flags_beat_the_environment(server, user, origin, make_client, home):
    assert tunnel_command(home, "login", "--token", TOKEN, "--endpoint", "http://127.0.0.1:1").returncode == 0
    client = make_client("http://127.0.0.1:2", origin, TOKEN, "--endpoint", server.endpoint, "--token", user.token, home=home)
    assert server.fetch(client.host).status == 200


def test_no_token_at_all(home):
    done = tunnel_command(home, "tunnel", "--url", "3000")
    assert done.returncode == 2
    assert "token" in done.stderr and "login" in done.stderr, "says what to do"


@pytest.mark.parametrize(
    "text,word",
    [("token: [1, 2]\n", "token"), ("token: abc\ntoken: def\n", "config.yml"), (": : :\n", "config.yml"), ("\tx", "config.yml"),
     ("tokne: abc\n", "tokne"), ("endpoint: ftp://x\n", "ftp://x"), ("ca_cert: /no/such/pem\n", "/no/such/pem"),
     ("token: abc\n" * 100_000, "config.yml"), ("\0", "config.yml"), ("- a\n- b\n", "config.yml")],
    ids=lambda v: repr(v)[:24],
)
def test_bad_config_file(home, text, word):
    config(home).parent.mkdir(mode=0o700)
    config(home).write_text(text)
    config(home).chmod(0o600)
    empty = {"KAVILO_ENDPOINT": "", "KAVILO_CA_CERT": ""}  # as if they were not there
    done = tunnel_command(home, "tunnel", "--url", "3000", env={"KAVILO_TOKEN": TOKEN, **empty})
    assert done.returncode == 2, done
    assert word in done.stderr and "config.yml" in done.stderr
    assert done.stdout == ""


def test_unreadable_config_file(home):
    config(home).mkdir(parents=True)
    done = tunnel_command(home, "tunnel", "--url", "3000", env={"KAVILO_TOKEN": TOKEN})
    assert done.returncode == 2 and "config.yml" in done.stderr


@pytest.mark.parametrize("variable,value", [("KAVILO_ENDPOINT", "ftp://x"), ("KAVILO_ENDPOINT", "::"),
                                            ("KAVILO_CA_CERT", "/no/such/file"), ("KAVILO_TOKEN", "to ken")])
def test_bad_environment(home, variable, value):
    environment = {"KAVILO_TOKEN": TOKEN, variable: value}
    done = tunnel_command(home, "tunnel", "--url", "3000", env=environment)
    assert done.returncode == 2, done
    assert variable in done.stderr
    assert value in done.stderr or variable == "KAVILO_TOKEN"
    assert "to ken" not in done.stderr, "a token is not echoed, not even a wrong one"


@pytest.mark.parametrize(
    "argv,words",
    [
        ([], ["--url"]),
        (["--url"], ["--url"]),
        (["--url", ""], ["--url"]),
        (["--url", "ftp://127.0.0.1"], ["--url", "ftp://127.0.0.1"]),
        (["--url", "0"], ["--url", "0"]),
        (["--url", "65536"], ["--url", "65536"]),
        (["--url", "-1"], ["--url", "-1"]),
        (["--url", "http://"], ["--url", "http://"]),
        (["--url", "http://h:port"], ["--url", "http://h:port"]),
        (["--url", "http://user:pw@h"], ["--url"]),
        (["--url", "http://h/path"], ["--url", "http://h/path"]),
        (["--url", "http://[::1"], ["--url", "http://[::1"]),
        (["--url", "http://h h"], ["--url", "http://h h"]),
        (["--url", "3000", "--url", "3001"], ["--url", "twice"]),
        (["--url", "3000", "--name", ""], ["--name"]),
        (["--url", "3000", "--endpoint", "gopher://x"], ["--endpoint", "gopher://x"]),
        (["--url", "3000", "--ca-cert", "/no/such/pem"], ["--ca-cert", "/no/such/pem"]),
        (["--url", "3000", "--host-header", "a b"], ["--host-header", "a b"]),
        (["--url", "3000", "--log-level", "loud"], ["--log-level", "loud"]),
        (["--url", "3000", "--log-format", "xml"], ["--log-format", "xml"]),
        (["--url", "3000", "--nmae", "x"], ["--nmae", "--name"]),
        (["--url", "3000", "extra"], ["extra"]),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else None,
)
def test_flags_that_cannot_work(home, argv, words):
    """One sentence that names the value and the reason, status 2, nothing on standard output."""
    done = tunnel_command(home, "tunnel", *argv, env={"KAVILO_TOKEN": TOKEN})
    assert done.returncode == 2, done
    assert len(done.stderr.strip().splitlines()) == 1 and done.stdout == ""
    for word in words:
        assert word in done.stderr, done.stderr
    assert "pw" not in done.stderr


@pytest.mark.parametrize("content", ["", "no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_ca_file_that_is_none(home, tmp_path, content):
    file = tmp_path / "ca.pem"
    file.write_text(content)
    done = tunnel_command(home, "tunnel", "--url", "3000", "--endpoint", "https://tnl.test", "--ca-cert", str(file),
                          env={"KAVILO_TOKEN": TOKEN})
    assert done.returncode == 2 and str(file) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_unknown_command_and_help(home):
    assert tunnel_command(home, "tunel").returncode == 2
    assert tunnel_command(home).returncode == 2
    for argv in (["--help"], ["tunnel", "--help"], ["login", "--help"]):
        done = tunnel_command(home, *argv)
        assert done.returncode == 0 and done.stdout and not done.stderr
    assert "--takeover" in tunnel_command(home, "tunnel", "--help").stdout
    assert re.search(r"\d+\.\d+\.\d+", tunnel_command(home, "--version").stdout)


# ---- success ----


def test_three_lines_exactly(server, user, origin, make_client):
    client = make_client(server, origin, user.token)
    assert client.program.stdout() == (
        "  kavilo-tunnel ready\n"
        f"  public URL: https://{client.subdomain}.{server.base_host}/\n"
        f"  forwarding to: {origin.url}\n"
    )


@pytest.mark.parametrize("scheme,port,url", [("http", "80", "http://{}/"), ("http", "8000", "http://{}:8000/"),
                                             ("https", "443", "https://{}/"), ("https", "8443", "https://{}:8443/")])
def test_public_url_as_the_operator_says(make_server, origin, make_client, scheme, port, url):
    server = make_server("--public-scheme", scheme, "--public-port", port)
    client = make_client(server, origin, server.user().token)
    assert client.public_url == url.format(client.host)


@pytest.mark.parametrize("form", ["{port}", "127.0.0.1:{port}", "http://127.0.0.1:{port}", "http://127.0.0.1:{port}/",
                                  "localhost:{port}", "HTTP://LOCALHOST:{port}"])
def test_forms_of_a_url(server, user, origin, make_client, form):
    client = make_client(server, form.format(port=origin.port), user.token)
    assert server.fetch(client.host).status == 200
    assert re.fullmatch(rf"http://(127\.0\.0\.1|localhost):{origin.port}", client.ready[0][1], re.IGNORECASE)


def test_token_is_not_in_the_process_list_or_the_log(server, user, origin, make_client, home):
    """By file: neither argv nor the log, at its most talkative, show it."""
    assert tunnel_command(home, "login", "--endpoint", server.endpoint, stdin=user.token.encode() + b"\n").returncode == 0
    client = make_client(None, origin, None, home=home)
    assert server.fetch(client.host, fields=[("Cookie", "secret=1"), ("Authorization", "Bearer hush")]).status == 200
    argv = open(f"/proc/{client.program.pid}/cmdline", "rb").read()
    assert user.token.encode() not in argv
    for text in (client.program.stderr(), client.program.stdout(), server.program.stderr()):
        assert user.token not in text and "secret=1" not in text and "hush" not in text


@pytest.mark.parametrize("family", ["127.0.0.1", "::1"])
def test_localhost_of_either_family(server, user, make_origin, make_client, family):
    """`localhost` is two addresses; the service has only one of them."""
    origin = make_origin(host=family)
    client = make_client(server, f"http://localhost:{origin.port}", user.token)
    for _ in range(3):
        assert server.fetch(client.host).status == 200


def test_ipv6_literal(server, user, make_origin, make_client):
    origin = make_origin(host="::1")
    client = make_client(server, f"http://[::1]:{origin.port}", user.token)
    assert server.fetch(client.host).status == 200
    assert client.ready[0][1] == f"http://[::1]:{origin.port}"


def test_bare_port_reaches_a_service_on_ipv6_only(server, user, make_origin, make_client):
    """What `node` listens on: a bare port means this machine, not one family of it."""
    origin = make_origin(host="::1")
    client = make_client(server, str(origin.port), user.token)
    assert server.fetch(client.host).status == 200


# ---- https services ----


def test_https_service(server, user, make_origin, make_client, pair):
    """A local service with a certificate that the client can verify or that is on loopback: it is reached; the visitor's
    body is the service's."""
    origin = make_origin(tls=pair.server(["http/1.1"]))
    client = make_client(server, f"https://localhost:{origin.port}", user.token, "--ca-cert", str(pair.ca))
    response = server.fetch(client.host, "/x")
    assert response.status == 200 and json.loads(response.content)["target"] == "/x"
    assert client.ready[0][1] == f"https://localhost:{origin.port}"


def test_https_service_that_speaks_no_tls(server, user, origin, make_client):
    origin.surprises_expected = True
    client = make_client(server, f"https://127.0.0.1:{origin.port}", user.token)
    origin.raw = lambda connection: (connection.source.some(), connection.sock.sendall(b"HTTP/1.1 400 Bad\r\n\r\n"))
    response = server.fetch(client.host)
    assert (response.status, response.fields.one("kavilo-error")) == (502, "origin_tls")


def test_http_to_a_tls_service(server, user, make_origin, make_client, pair):
    origin = make_origin(tls=pair.server(), surprises=True)
    client = make_client(server, f"http://127.0.0.1:{origin.port}", user.token)
    response = server.fetch(client.host)
    assert response.status == 502
    assert response.fields.one("kavilo-error") in ("origin_closed", "origin_bad_response")


# ---- ends ----


def test_wrong_token_ends_the_client(server, origin, make_client):
    """What cannot heal by waiting is no reason to wait."""
    client = make_client(server, origin, TOKEN, ready=False)
    assert client.program.wait_exit() == 1
    assert "invalid token" in client.program.stderr()
    assert client.program.stdout() == ""


def test_endpoint_that_is_no_tunnel_server(origin, make_client):
    """An ordinary web server: said clearly, tried again."""
    other = Origin()
    client = make_client(f"http://127.0.0.1:{other.port}", origin, TOKEN, ready=False)
    client.program.wait(lambda: client.program.stderr(), what="a sentence")
    wait_until(lambda: len(other.connections) >= 2, what="a second try")
    client.program.check()
    other.close()


# ---- the log ----


def logged(home, server, token, origin, env, *argv):
    """The levels and the messages in the log of a client whose tunnel was up."""
    environment = dict(base_environment(home), KAVILO_ENDPOINT=server.endpoint, KAVILO_TOKEN=token, **env)
    process = subprocess.Popen([TUNNEL, "tunnel", "--url", origin.url, "--log-format", "json", *argv], env=environment, cwd=home,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert "ready" in process.stdout.readline()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=STEP)
    lines = [json.loads(line) for line in errors.splitlines()]
    return {line["level"] for line in lines}, " ".join(line["message"] for line in lines)


@pytest.mark.parametrize("value,levels", [
    ("debug", {"debug", "info"}), ("trace", {"debug", "info"}), ("DEBUG", {"debug", "info"}), ("info", {"info"}),
    ("error", set()), ("kavilo_tunnel=debug,hyper=error", {"debug", "info"}), ("hyper=debug", {"info", "warn"}),
    ("warn,kavilo_tunnel::session=debug", {"debug", "info"}), ("loud", {"info", "warn"}), ("", {"info"}),
])
def test_log_level_by_the_deployed_clients_variable(home, server, user, origin, value, levels):
    seen, text = logged(home, server, user.token, origin, {"RUST_LOG": value})
    assert seen == levels
    assert ("use --log-level" in text) == ("warn" in levels)


def test_flag_is_stronger_than_the_variable(home, server, user, origin):
    assert logged(home, server, user.token, origin, {"RUST_LOG": "debug"}, "--log-level", "error")[0] == set()


def test_service_that_does_not_run_yet(home, server, user, origin):
    """Said once, at the start, without a connection that a service would have to make sense of."""
    assert "nothing listens" not in logged(home, server, user.token, origin, {})[1]
    assert not origin.connections
    port = origin.port
    origin.stop_listening()
    wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) != 0, what="the port is free")
    assert "nothing listens" in logged(home, server, user.token, origin, {})[1]
