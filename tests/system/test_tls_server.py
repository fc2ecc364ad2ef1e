"""TLS as a server speaks it, asked by openssl and Python's ssl: suites, versions, groups, names, protocols, tickets,
stapled responses; and certificates that are renewed under way."""

import http.client
import os
import re
import signal
import socket
import ssl
from datetime import timezone

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from harness.process import RssMeter, run
from harness.settings import HEAVY, SANITIZER, STEP
from harness.tunnel import BASE_HOST, Server
from harness.wait import wait_until

NAMES = (BASE_HOST, "*." + BASE_HOST, "localhost", "127.0.0.1")
PATH = {"PATH": "/usr/bin:/bin"}


def handshakes(server, result):
    return server.metrics()[f'kavilo_tls_handshakes_total{{result="{result}"}}']


def reloads(server, result):
    return server.metrics()[f'kavilo_tls_reloads_total{{result="{result}"}}']


def common_name(sock):
    certificate = x509.load_der_x509_certificate(sock.getpeercert(binary_form=True))
    return certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


def shown(address, name, ca, alpn=()):
    """The common name of the certificate that a visitor is shown who asks for a name, or for none."""
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    with socket.create_connection(address, timeout=STEP) as sock:
        with context.wrap_socket(sock, server_hostname=name) as tls:
            return common_name(tls)


def s_client(server, *options, said=b"", address=None):
    """What `openssl s_client` tells of a handshake."""
    argv = ["openssl", "s_client", "-connect", "%s:%d" % (address or server.edge), "-CAfile", server.tls.ca, *options]
    done = run(argv, PATH, stdin=said)
    return done.stdout + done.stderr


# ---- a server with a certificate of each kind of key, and one for another name ----


@pytest.fixture(scope="module")
def server(module_programs, tmp_path_factory, authority):
    folder = tmp_path_factory.mktemp("pairs")
    pair = authority.issue("ecdsa", *NAMES, folder=folder)
    other = authority.issue("rsa", *NAMES, folder=folder, rsa_key=True)
    legacy = authority.issue("legacy", "legacy.example", "one.tnl.test", folder=folder)
    (folder / "ocsp").write_bytes(authority.ocsp(pair))
    (folder / "old-ocsp").write_bytes(authority.ocsp(legacy, hours=-1))
    args = ["--tls-ocsp", folder / "ocsp"]  # behind the harness's own --tls-cert
    for one in (other, legacy):
        args += ["--tls-cert", one.cert, "--tls-key", one.key]
    args += ["--tls-ocsp", folder / "old-ocsp"]
    return Server(module_programs, tmp_path_factory.mktemp("server"), args, tls=pair, level="info").start()


SOUND = {f"ECDHE-{kind}-{suite}" for kind in ("ECDSA", "RSA")
         for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")}


def try_suites(server, suites):
    """The suite that the server takes of these (TLS 1.2), or None."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suites + ":@SECLEVEL=0")
    try:
        with socket.create_connection(server.edge, timeout=STEP) as sock, context.wrap_socket(sock, server_hostname="a.tnl.test") as tls:
            return tls.cipher()[0]
    except (ssl.SSLError, ConnectionError):
        return None


def test_suites(server):
    """Every suite that openssl knows, each by itself: those with ECDHE and AEAD are taken, and no other."""
    every = run(["openssl", "ciphers", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"], PATH).stdout.strip().split(":")
    every = [name for name in every if not name.startswith(("TLS_", "PSK", "SRP")) and "-PSK" not in name]
    assert len(every) > 60 and SOUND < set(every)
    assert {name for name in every if try_suites(server, name)} == SOUND


def test_order_of_suites(server):
    """Ours, but for a client that would rather have ChaCha20."""
    assert try_suites(server, "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384") == "ECDHE-RSA-AES256-GCM-SHA384"
    assert try_suites(server, "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES256-GCM-SHA384") == "ECDHE-RSA-CHACHA20-POLY1305"


@pytest.mark.parametrize(
    "suite, taken",
    [("TLS_AES_256_GCM_SHA384", True), ("TLS_CHACHA20_POLY1305_SHA256", True), ("TLS_AES_128_GCM_SHA256", True),
     ("TLS_AES_128_CCM_SHA256", False), ("TLS_AES_128_CCM_8_SHA256", False)],
)
def test_suites_of_tls13(server, suite, taken):
    assert (f"Cipher is {suite}" in s_client(server, "-tls1_3", "-ciphersuites", suite)) == taken


@pytest.mark.parametrize(
    "group, taken",
    [("X25519", True), ("P-256", True), ("P-384", True), ("P-521", False), ("X448", False), ("ffdhe2048", False)],
)
def test_groups(server, group, taken):
    for version in ("-tls1_3", "-tls1_2"):
        if not (group.startswith("ffdhe") and version == "-tls1_2"):  # which has none of these
            told = s_client(server, version, "-groups", group, "-servername", "x.tnl.test")
            assert ("Cipher is (NONE)" not in told) == taken, version


def test_signatures_and_the_rest(server):
    """No SHA-1, no renegotiation, no compression, no early data."""
    assert "Cipher is (NONE)" in s_client(server, "-tls1_2", "-cipher", "DEFAULT:@SECLEVEL=0", "-sigalgs", "RSA+SHA1:ECDSA+SHA1")
    told = s_client(server, "-tls1_2", said=b"R\n")
    assert "Secure Renegotiation IS supported" in told and "Compression: NONE" in told
    assert "RENEGOTIATING" in told and "no renegotiation" in told, told
    told = s_client(server, "-tls1_3", said=b"Q\n")
    assert "Early data was not sent" in told and "Verify return code: 0 (ok)" in told


@pytest.mark.parametrize(
    "name, certificate",
    [("x.tnl.test", "ecdsa"), ("tnl.test", "ecdsa"), ("legacy.example", "legacy"), ("LEGACY.example", "legacy"),
     ("one.tnl.test", "legacy"), ("a.b.tnl.test", "ecdsa"), ("nobody.example", "ecdsa"), (None, "ecdsa")],
)
def test_names(server, name, certificate):
    """The same at both ports; the exact name of a later pair before the wildcard of an earlier one."""
    assert shown(server.edge, name, server.tls.ca) == certificate
    assert shown(server.control, name, server.tls.ca, ["h2"]) == certificate


def test_two_kinds_of_key(server):
    assert try_suites(server, "ECDHE-RSA-AES128-GCM-SHA256") and try_suites(server, "ECDHE-ECDSA-AES128-GCM-SHA256")


def agreed(address, offered):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if offered:
        context.set_alpn_protocols(offered)
    with socket.create_connection(address, timeout=STEP) as sock, context.wrap_socket(sock) as tls:
        return tls.selected_alpn_protocol()


def test_protocols(server):
    assert agreed(server.edge, ["http/1.1", "h2"]) == "h2"
    assert agreed(server.edge, ["http/1.1"]) == agreed(server.edge, ["spdy/3", "http/1.1"]) == "http/1.1"
    assert agreed(server.edge, []) is None
    assert agreed(server.control, ["http/1.1", "h2"]) == "h2"
    assert agreed(server.control, []) is None
    for address, offered in ((server.edge, ["h3"]), (server.edge, ["h"]), (server.control, ["http/1.1"])):
        with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
            agreed(address, offered)
    context = server.tls.client(alpn=())
    assert server.fetch("nobody." + BASE_HOST, tls=context).status == 502  # HTTP/1.1 without a word about it


def test_stapling(server):
    """Shown by a client that asks; what has expired is not sent, and said once."""
    told = s_client(server, "-servername", "x.tnl.test", "-cipher", "ECDHE+ECDSA", "-tls1_2", "-status", said=b"Q\n")
    assert "OCSP Response Status: successful" in told and "Cert Status: good" in told, told
    assert "Cert Status: good" in s_client(server, "-servername", "x.tnl.test", "-sigalgs", "ECDSA+SHA256", "-status", said=b"Q\n")
    assert "OCSP response: no response sent" in s_client(server, "-servername", "legacy.example", "-status", said=b"Q\n")
    assert "OCSP response" not in s_client(server, "-servername", "x.tnl.test", said=b"Q\n")
    lines = server.program.log(message="serving without OCSP stapling")
    assert len(lines) == 1 and "has expired" in lines[0]["cause"]
    seen = server.metrics()
    assert seen[f'kavilo_tls_ocsp_next_update_seconds{{file="{server.tls.cert}"}}'] > 0
    assert [value for name, value in seen.items() if name.startswith("kavilo_tls_ocsp") and "legacy" in name] == [0]


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_resumption(server, version):
    """By ticket, whichever worker takes the connection, and behind a reload."""
    context = server.tls.client()
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    resumed = handshakes(server, "resumed")

    def visit(session):
        with socket.create_connection(server.edge, timeout=STEP) as sock:
            with context.wrap_socket(sock, server_hostname="nobody." + BASE_HOST, session=session) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: nobody.tnl.test\r\nConnection: close\r\n\r\n")
                while tls.recv(65536):
                    pass  # the tickets of TLS 1.3 come with the answer
                return tls.session_reused, tls.session

    reused, session = visit(None)
    assert not reused
    assert all(visit(session)[0] for _ in range(6))
    before = reloads(server, "ok")
    server.program.send_signal(signal.SIGHUP)
    wait_until(lambda: reloads(server, "ok") == before + 3, what="every pair loaded anew")
    assert visit(session)[0]
    assert handshakes(server, "resumed") == resumed + 7


def test_failures_are_counted_and_quiet(server):
    """A scanner is a number in the metrics and no line in the log."""
    failed, lines = handshakes(server, "failed"), len(server.program.stderr().splitlines())
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"SSH-2.0-x\r\n", bytes(200)):
        for _ in range(10):
            with socket.create_connection(server.edge, timeout=STEP) as sock:
                sock.sendall(said)
    for _ in range(10):
        socket.create_connection(server.edge, timeout=STEP).close()  # a probe that says nothing is no handshake
    wait_until(lambda: handshakes(server, "failed") == failed + 40, what="failures counted")
    assert len(server.program.stderr().splitlines()) == lines


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_idle_connections_are_cheap(make_server, pair, version):
    """Keys and a little state, no buffers: what a visitor holds who says nothing more."""
    server = make_server(tls=pair, level="info")
    context = pair.client()
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)

    def visit(count):
        visitors = [server.visitor("nobody." + BASE_HOST, tls=context) for _ in range(count)]
        for visitor in visitors:
            assert visitor.request().response().content
        return visitors

    for visitor in visit(20):  # by now whatever is allocated once has been
        visitor.close()
    wait_until(lambda: server.metrics()["kavilo_edge_connections"] == 0, what="they are gone")
    meter, count = RssMeter(server.program), 300
    visitors = visit(count)
    meter.check(count * 24 * 1024)
    for visitor in visitors:
        visitor.close()


# ---- renewal ----


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "live"
    path.mkdir()
    return path


def renew(authority, folder, label, **how):
    return authority.issue(label, *NAMES, folder=folder, files=("tls.crt", "tls.key"), **how)


def test_reload_drops_nothing(make_server, make_client, origin, authority, folder):
    """Fifty idle connections, a download and a tunnel live through reloads, good and bad."""
    server = make_server(tls=renew(authority, folder, "first"))
    tunnel = make_client(server, origin, server.user().token)
    size = HEAVY // 4
    download = server.visitor(tunnel.host)
    download.request(f"/body?size={size}")
    response = download.response()
    pieces = iter(response.body)
    next(pieces)
    visitors = [server.visitor(tunnel.host) for _ in range(50)]
    for visitor in visitors:
        assert visitor.request().response().content is not None

    def shows(name):
        assert shown(server.edge, "x.tnl.test", server.tls.ca) == name
        assert shown(server.control, "x.tnl.test", server.tls.ca, ["h2"]) == name

    def hang_up(result, count):
        server.program.send_signal(signal.SIGHUP)
        wait_until(lambda: reloads(server, result) >= count, what=f"reload {count}: {result}")

    shows("first")
    renew(authority, folder, "second")
    hang_up("ok", 1)
    shows("second")
    key = (folder / "tls.key").read_bytes()
    renew(authority, folder, "third")
    (folder / "tls.key").write_bytes(key)  # the certificate before its key
    hang_up("refused", 1)
    (folder / "tls.key").write_bytes(key[:100])
    hang_up("refused", 2)
    renew(authority, folder, "expired", days=-1)
    hang_up("refused", 3)
    shows("second")
    causes = " ".join(line["cause"] for line in server.program.log(message="new certificate refused, the old one is served on"))
    for words in ("does not belong to the certificate", "holds a broken key", "has expired"):
        assert words in causes
    renew(authority, folder, "fourth")
    hang_up("ok", 2)
    shows("fourth")

    for visitor in visitors:
        assert visitor.request().response().status == 200
        visitor.close()
    for _ in pieces:
        pass
    assert response.body.size == size and response.body.complete
    assert len(tunnel.ready) == 1  # the tunnel's connection has been the same all the time
    expiry = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes()).not_valid_after.replace(tzinfo=timezone.utc)
    seen = server.metrics()[f'kavilo_tls_certificate_not_after_seconds{{file="{folder}/tls.crt"}}']
    assert seen == expiry.timestamp()


@pytest.mark.first
def test_files_are_watched(make_server, authority, folder, tmp_path):
    """Without a signal: links exchanged as certbot and Kubernetes do it, and a key that comes a moment late."""
    archive = tmp_path / "archive"
    for i in (1, 2, 3):
        version = tmp_path / f"..v{i}"
        version.mkdir()
        renew(authority, version, f"version{i}")
    archive.mkdir()
    data = tmp_path / "..data"
    data.symlink_to(tmp_path / "..v1")
    (folder / "tls.crt").symlink_to(data / "tls.crt")
    (folder / "tls.key").symlink_to(data / "tls.key")
    server = make_server(tls=_Links(folder, authority.ca))

    def becomes(name):
        wait_until(lambda: shown(server.edge, "x.tnl.test", authority.ca) == name, what=f"{name} is served")

    becomes("version1")
    new = tmp_path / "..data_tmp"
    new.symlink_to(tmp_path / "..v2")
    os.rename(new, data)  # Kubernetes: one link above both files
    becomes("version2")
    for name in ("tls.crt", "tls.key"):  # certbot: one link a file, the key last
        (folder / "new").symlink_to(tmp_path / "..v3" / name)
        os.rename(folder / "new", folder / name)
        if name == "tls.crt":
            wait_until(lambda: reloads(server, "refused") == 1, what="the certificate without its key is refused")
            assert shown(server.edge, "x.tnl.test", authority.ca) == "version2"
    becomes("version3")


class _Links:
    """A pair behind links; see harness.tls.Pair."""

    def __init__(self, folder, ca):
        self.cert, self.key, self.ca = folder / "tls.crt", folder / "tls.key", ca


@pytest.mark.first
def test_a_thousand_reloads(make_server, pair, authority, folder):
    """Of two pairs, five hundred times. None of them leaves memory or descriptors behind."""
    server = make_server("--tls-cert", pair.cert, "--tls-key", pair.key, tls=renew(authority, folder, "first"), level="info")
    rounds = 500 if not SANITIZER else 50
    connection = http.client.HTTPConnection(*server.admin, timeout=STEP)

    def done():
        connection.request("GET", "/metrics")
        return int(re.search(rb'kavilo_tls_reloads_total\{result="ok"\} (\d+)', connection.getresponse().read())[1])

    meter = descriptors = None
    for i in range(1, rounds + 1):
        server.program.send_signal(signal.SIGHUP)
        wait_until(lambda: done() >= 2 * i, what=f"reload {i}", every=0.0005)
        if i == rounds // 10:  # by now whatever is allocated once has been
            meter, descriptors = RssMeter(server.program), server.program.descriptors()
    meter.check(1 << 20)
    assert server.program.descriptors() == descriptors
    connection.close()


# ---- settings ----


@pytest.mark.parametrize(
    "args, sentence",
    [
        (["--tls-cert", "a", "--tls-key", "b"], "--tls-cert and --tls-key are used with --tls-mode files only"),
        (["--tls-mode", "files"], "needs --tls-cert and --tls-key"),
        (["--tls-mode", "files", "--tls-cert", "a", "--tls-cert", "b", "--tls-key", "c"],
         "--tls-cert was given 2 times and --tls-key 1 times; they go in pairs"),
        (["--tls-mode", "files", "--tls-cert", "a", "--tls-cert", "a", "--tls-key", "b", "--tls-key", "b"],
         "--tls-cert 'a' was given twice"),
        (["--tls-mode", "files", "--tls-ocsp", "a", "--tls-cert", "a", "--tls-key", "b"],
         "--tls-ocsp 'a': it goes behind the --tls-cert that it is for, once"),
        (["--tls-mode", "files", "--tls-cert", "/nowhere/a", "--tls-key", "b"],
         "certificate file '/nowhere/a': No such file or directory"),
        (["--tls-mode", "files", "--tls-cert", ""] + ["--tls-key", "b"], "it has to be a file"),
        (["--tls-mode", "files"] + ["--tls-cert", "a"] * 33, "32 are the most that one server takes"),
    ],
)
def test_settings_that_make_no_sense(make_server, args, sentence):
    server = make_server(start=False)
    done = run(server.argv + args, server.env)
    assert done.returncode == 2 and sentence in done.stderr, done
