"""The client behind a proxy: CONNECT and SOCKS5, real proxies and hostile ones, credentials, exemptions, exact words."""

import re
import time

import pytest

from harness.process import base_environment, run
from harness.proxies import RealProxies, ScriptedProxy, connect_to, free_port, says, socks_to
from harness.settings import PACE, TUNNEL
from harness.tunnel import Server

SECRET = "s3cret"
NAME = "tnl.invalid"  # no resolver knows it, so only a proxy that is asked for the name can lead there


@pytest.fixture
def real(programs, tmp_path):
    made = RealProxies(programs, tmp_path)
    yield made
    made.close()


@pytest.fixture
def scripted():
    made = []

    def make(play, **how):
        made.append(ScriptedProxy(play, **how))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture(scope="module")
def secure(module_programs, tmp_path_factory, pair):
    """A server with TLS: what is in the tunnel then cannot be read, or taken for HTTP, by a proxy."""
    return Server(module_programs, tmp_path_factory.mktemp("secure"), tls=pair).start()


@pytest.fixture(scope="module")
def secure_user(secure):
    return secure.user()


def works(server, client):
    """A whole request with a body through the tunnel."""
    body = bytes(range(256)) * 1024
    response = server.fetch(client.host, "/mirror", "POST", body=body)
    assert (response.status, response.content) == (200, body)


# ---- real ones ----


def test_tinyproxy(secure, secure_user, shared_server, shared_user, origin, real, make_client):
    """CONNECT to a server with TLS and to one without, with credentials and without."""
    plain = real.tinyproxy()
    client = make_client(secure, origin, secure_user.token, "--proxy", f"http://{plain}")
    works(secure, client)
    client = make_client(shared_server, origin, shared_user.token, "--proxy", f"http://{plain}")
    works(shared_server, client)
    locked = real.tinyproxy(f"BasicAuth joe {SECRET}")
    client = make_client(secure, origin, secure_user.token, env={"KAVILO_PROXY": f"http://joe:{SECRET}@{locked}",
                                                                 "KAVILO_CA_CERT": str(secure.tls.ca)})
    works(secure, client)
    assert SECRET not in client.program.stderr()
    client = make_client(secure, origin, secure_user.token, "--proxy", f"http://joe:wrong@{locked}", ready=False)
    assert client.program.wait_exit() == 1
    assert f"proxy http://{locked} does not accept its user name and password (401)" in client.program.stderr()


def test_tinyproxy_refuses(secure, secure_user, origin, real, make_client):
    """What a proxy does not let through, or cannot reach, is said to be its doing, and tried again."""
    strict = real.tinyproxy("ConnectPort 9")
    client = make_client(secure, origin, secure_user.token, "--proxy", f"http://{strict}", ready=False)
    client.program.wait_log(error=f"proxy http://{strict} refused to connect to the server: 403 Forbidden")
    plain = real.tinyproxy()
    client = make_client(f"http://127.0.0.1:{free_port()}", origin, secure_user.token, "--proxy", f"http://{plain}", ready=False)
    client.program.wait_log(error=re.compile(f"^proxy http://{plain} refused to connect to the server: 50[0-9] "))


def test_danted(secure, secure_user, origin, real, make_client):
    """SOCKS5 without credentials, the name looked up here and there; and its own rules' refusal."""
    address = real.danted()
    for scheme in ("socks5", "socks5h"):
        client = make_client(secure.endpoint.replace("127.0.0.1", "localhost"), origin, secure_user.token, "--proxy",
                             f"{scheme}://{address}", env={"KAVILO_CA_CERT": str(secure.tls.ca)})
        works(secure, client)
    strict = real.danted("socks block { from: 0.0.0.0/0 to: 127.0.0.0/8 }")
    client = make_client(secure, origin, secure_user.token, "--proxy", f"socks5://{strict}", ready=False)
    client.program.wait_log(
        error=f"proxy socks5://{strict} cannot connect to the server: not allowed by its rules (reply 2)")


def test_microsocks(secure, secure_user, origin, real, make_client):
    """SOCKS5 with a user name and a password (RFC 1929)."""
    address = real.microsocks("-u", "joe", "-P", SECRET)
    client = make_client(secure, origin, secure_user.token, "--proxy", f"socks5h://joe:{SECRET}@{address}")
    works(secure, client)
    assert SECRET not in client.program.stderr()
    client = make_client(secure, origin, secure_user.token, "--proxy", f"socks5://joe:wrong@{address}", ready=False)
    assert client.program.wait_exit() == 1
    assert f"proxy socks5://{address} does not accept its user name and password" in client.program.stderr()
    client = make_client(secure, origin, secure_user.token, "--proxy", f"socks5://{address}", ready=False)
    assert client.program.wait_exit() == 1
    assert "wants a user name and a password" in client.program.stderr()


# ---- what the proxy is told ----


def test_https_proxy(secure, secure_user, shared_server, shared_user, origin, scripted, make_client, pair):
    """TLS to the proxy, and TLS to the server inside of it; and a server in the clear inside of it."""
    for server, user in ((secure, secure_user), (shared_server, shared_user)):
        proxy = scripted(connect_to(server.control, f"joe:{SECRET}"), tls=pair.server())
        client = make_client(server, origin, user.token, "--proxy", f"https://joe:{SECRET}@{proxy.address}",
                             env={"KAVILO_CA_CERT": str(pair.ca)})
        works(server, client)
        assert proxy.wait_asked().startswith(f"CONNECT 127.0.0.1:{server.control[1]} HTTP/1.1\r\n")
        client.program.stop()
    client = make_client(secure, origin, secure_user.token, "--proxy", f"https://{proxy.address}", ready=False,
                         env={"KAVILO_CA_CERT": ""})
    client.program.wait_log(error=re.compile(f"^proxy https://{proxy.address}: .*certificate"))


def test_names_are_the_proxys_to_look_up(shared_server, shared_user, origin, scripted, make_client):
    """CONNECT and socks5h are given the name; socks5 is given an address, and cannot be without one."""
    port = shared_server.control[1]
    http, socks = scripted(connect_to(shared_server.control)), scripted(socks_to(shared_server.control))
    client = make_client(f"http://{NAME}:{port}", origin, shared_user.token, "--proxy", http.address)
    works(shared_server, client)
    assert http.wait_asked().startswith(f"CONNECT {NAME}:{port} HTTP/1.1\r\nHost: {NAME}:{port}\r\n")
    client = make_client(f"http://{NAME}:{port}", origin, shared_user.token, "--proxy", f"socks5h://{socks.address}")
    works(shared_server, client)
    assert socks.wait_asked() == (3, NAME.encode(), port)
    client = make_client(f"http://localhost:{port}", origin, shared_user.token, "--proxy", f"socks5://{socks.address}")
    works(shared_server, client)
    assert socks.wait_asked(2) == (1, bytes([127, 0, 0, 1]), port)
    client = make_client(f"http://{NAME}:{port}", origin, shared_user.token, "--proxy", f"socks5://{socks.address}", ready=False)
    client.program.wait_log(error=re.compile("was not asked: the server's name cannot be looked up here: "))
    assert len(socks.asked) == 2


def test_socks_tries_the_next_address(shared_server, shared_user, origin, scripted, make_client):
    """localhost is 127.0.0.1 and ::1: when the proxy cannot reach the one, it is asked for the other."""
    unreachable, leads = socks_to(reply=5), socks_to(shared_server.control)
    proxy = scripted(lambda proxy, sock: (unreachable if not proxy.asked else leads)(proxy, sock))
    client = make_client(f"http://localhost:{shared_server.control[1]}", origin, shared_user.token, "--proxy",
                         f"socks5://{proxy.address}")
    works(shared_server, client)
    assert [kind for kind, _, _ in proxy.asked] == [1, 4]


def test_environment(shared_server, shared_user, origin, scripted, make_client):
    """The usual variables lead to a proxy, NO_PROXY away from it; the local service is never asked for by a proxy."""
    proxy = scripted(connect_to(shared_server.control))
    endpoint = f"http://{NAME}:{shared_server.control[1]}"
    for count, variable in enumerate(("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), 1):
        client = make_client(endpoint, origin, shared_user.token, env={variable: f"http://{proxy.address}"})
        works(shared_server, client)
        client.program.stop()
        assert len(proxy.asked) == count
    for exempt in ({"NO_PROXY": ".invalid"}, {"no_proxy": "x.test,*"}, {"KAVILO_PROXY": "none"}):
        client = make_client(endpoint, origin, shared_user.token, env={"ALL_PROXY": proxy.address, **exempt}, ready=False)
        client.program.wait_log(error=re.compile(f"^{endpoint}: (no such host name|the name service)"))
        client.program.stop()
    # This machine needs none.
    client = make_client(shared_server, origin, shared_user.token, env={"ALL_PROXY": proxy.address})
    works(shared_server, client)
    assert len(proxy.asked) == 4


def test_settings_file(shared_server, shared_user, origin, scripted, make_client, tmp_path):
    proxy = scripted(connect_to(shared_server.control, f"joe:{SECRET}"))
    home = tmp_path / "home"
    home.mkdir()
    made = run([TUNNEL, "login", "--endpoint", f"http://{NAME}:7777", "--proxy", f"http://joe:{SECRET}@{proxy.address}"],
               base_environment(home), shared_user.token.encode(), cwd=tmp_path)
    assert made.returncode == 0, made
    assert SECRET not in made.stderr
    client = make_client(None, origin, home=home, env={"ALL_PROXY": "http://127.0.0.1:1"})
    works(shared_server, client)
    assert proxy.wait_asked().startswith(f"CONNECT {NAME}:7777 ")


def test_bad_values_end_with_a_sentence(tmp_path):
    for argv, env, sentence in (
        (["--proxy", f"http://joe:{SECRET}@p:99999"], {}, "--proxy: has no valid host and port behind the '@'"),
        (["--proxy", "ftp://p"], {}, "--proxy: has a scheme that is none of http, https, socks5 and socks5h"),
        ([], {"HTTPS_PROXY": f"http://joe:{SECRET}@"}, "HTTPS_PROXY (not shown): has no valid host and port"),
    ):
        env = {**base_environment(tmp_path), "KAVILO_TOKEN": "x", "KAVILO_ENDPOINT": f"http://{NAME}", **env}
        done = run([TUNNEL, "tunnel", "--url", "3000", *argv], env, cwd=tmp_path)
        assert done.returncode == 2, done
        assert sentence.replace("--proxy: ", "") in done.stderr and SECRET not in done.stderr, done.stderr


def test_credentials_that_worked_are_tried_again(shared_server, shared_user, origin, scripted, make_client):
    """A proxy that says 407 to a client that it let through before is out of order, not the client."""
    lets, refuses = connect_to(shared_server.control), says(b"HTTP/1.1 407 No\r\n\r\n")
    proxy = scripted(lambda proxy, sock: (refuses if len(proxy.asked) == 1 else lets)(proxy, sock))
    client = make_client(shared_server, origin, shared_user.token, "--proxy", f"http://joe:x@{proxy.address}")
    proxy.sockets[0].shutdown(2)
    client.wait_ready(2, seconds=15 * PACE)
    assert len(proxy.asked) == 3
    works(shared_server, client)


# ---- hostile ones ----


def drips(proxy, sock):
    proxy.asked.append(None)
    while True:
        sock.sendall(b"H")
        time.sleep(0.5)


def floods(proxy, sock):
    proxy.asked.append(None)
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        sock.sendall(b"X-Y: " + b"z" * 1000 + b"\r\n")


def stays_silent(proxy, sock):
    proxy.asked.append(None)
    while sock.recv(4096):
        pass


WORDS = {
    "closes": ("http", lambda proxy, sock: proxy.asked.append(None), "closed the connection before it answered"),
    "half": ("http", says(b"HTTP/1.1 200"), "closed the connection before it answered"),
    "garbage": ("http", says(b"SSH-2.0-OpenSSH_9\r\n\r\n"), "does not answer as an HTTP proxy does"),
    "drips": ("http", drips, "does not answer as an HTTP proxy does"),
    "floods": ("http", floods, "does not answer as an HTTP proxy does"),
    "silent": ("http", stays_silent, "did not answer in time"),
    "silent socks": ("socks5", stays_silent, "did not answer in time"),
    "403": ("http", says(b"HTTP/1.1 403 Forbidden\r\n\r\n"), "refused to connect to the server: 403 Forbidden"),
    "504": ("http", says(b"HTTP/1.0 504 x\r\nContent-Length: 3\r\n\r\nno!"), "refused to connect to the server: 504 Gateway Timeout"),
    "no tunnel": ("http", says(b"HTTP/1.1 200 OK\r\n\r\n<html>hello</html>"), "does not speak HTTP/2"),
    "then gone": ("http", says(b"HTTP/1.1 200 OK\r\n\r\n"), "the peer closed the connection|connection reset"),
    "socks garbage": ("socks5", lambda proxy, sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does not answer as a SOCKS5"),
    "socks 1": ("socks5", socks_to(reply=1), "cannot connect to the server: general failure (reply 1)"),
    "socks 5": ("socks5", socks_to(reply=5), "cannot connect to the server: connection refused (reply 5)"),
    "socks 99": ("socks5h", socks_to(reply=99), "cannot connect to the server: unknown error (reply 99)"),
}


@pytest.mark.first
def test_hostile_proxies(scripted, make_client):
    """All at once, each with a client of its own: the right words, another try, nothing of the password, no death."""
    clients = {}
    for name, (scheme, play, _) in WORDS.items():
        address = scripted(play).address
        clients[name] = make_client("http://127.0.0.1:9", "3000", "t", "--proxy", f"{scheme}://joe:{SECRET}@{address}", ready=False)
    address = f"127.0.0.1:{free_port()}"
    clients["nobody"] = make_client("http://127.0.0.1:9", "3000", "t", "--proxy", f"socks5://joe:{SECRET}@{address}", ready=False)
    words = {name: entry[2] for name, entry in WORDS.items()}
    words["nobody"] = f"proxy socks5://{address}: Connection refused"
    for name, client in clients.items():
        client.program.wait(lambda: client.program.log(message="no tunnel yet, trying again"), 25 * PACE, f"{name}: a failed try")
        error = client.program.log(message="no tunnel yet, trying again")[0]["error"]
        assert any(word in error for word in words[name].split("|")), f"{name}: {error}"
        assert SECRET not in client.program.stderr()
        client.program.check()
