"""Behind proxies: PROXY headers by hand, and real HAProxy and nginx in front of the edge."""

import asyncio
import json
import re
import socket
import struct

import pytest
import websockets

from harness import front, grpcpeer
from harness.http1 import Pattern, Visitor
from harness.origin import fields_of
from harness.process import run
from harness.settings import STEP
from harness.wait import wait_until
from harness.websocket import WebSocketService

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command, family, block):
    return V2 + bytes([0x20 | command, family]) + struct.pack(">H", len(block)) + block


TCP4 = v2(1, 0x11, bytes([203, 0, 113, 7, 192, 0, 2, 1]) + struct.pack(">HH", 4567, 443))
TCP6 = v2(1, 0x21, socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + struct.pack(">HH", 4567, 443))
LOCAL = v2(0, 0, b"")


def forwarded_for(response):
    return fields_of(json.loads(response.content)).one("x-forwarded-for")


class TestProxyProtocol:
    """PROXY headers written by hand, on a server that expects them from loopback."""

    @pytest.fixture
    def behind(self, make_server, origin, make_client):
        """behind(tls) -> (server, client): --proxy-protocol-from is 127.0.0.1, and so is every visitor here."""

        def make(tls=None, origin=origin):
            server = make_server("--proxy-protocol-from", "192.0.2.0/24,127.0.0.1", tls=tls)
            return server, make_client(server, origin, server.user().token)

        return make

    @staticmethod
    def visit(server, client, header):
        """A request behind a header; with TLS the header comes before the handshake."""
        visitor = Visitor(server.edge, client.host)
        visitor.send(header)
        if server.tls:
            visitor.sock = server.tls.client().wrap_socket(visitor.sock, server_hostname=client.host)
            visitor.source.sock = visitor.sock
        return visitor

    @pytest.mark.parametrize("with_tls", [False, True], ids=["clear", "tls"])
    def test_the_header_names_the_visitor(self, behind, pair, with_tls):
        server, client = behind(pair if with_tls else None)
        for header, address in ((b"PROXY TCP4 203.0.113.7 192.0.2.1 4567 443\r\n", "203.0.113.7"),
                                (b"PROXY TCP6 2001:db8::7 2001:db8::1 4567 443\r\n", "2001:db8::7"),
                                (b"PROXY UNKNOWN\r\n", "127.0.0.1"), (TCP4, "203.0.113.7"), (TCP6, "2001:db8::7"),
                                (LOCAL, "127.0.0.1")):
            with self.visit(server, client, header) as visitor:
                for _ in range(2):
                    fields = fields_of(json.loads(visitor.request().response().content))
                    assert fields.one("x-forwarded-for") == fields.one("x-real-ip") == address

    def test_the_tunnel_is_told(self, make_server):
        """remote_addr on the tunnel's wire is the visitor's address and port."""
        server = make_server("--proxy-protocol-from", "127.0.0.1")
        peer = server.peer(server.user().token).connected()
        with self.visit(server, peer, TCP6) as visitor:
            visitor.request()
            request_id, head = peer.request()
            assert head["remote_addr"] == "[2001:db8::7]:4567"
            assert peer.body(request_id) == b""
            peer.answer(request_id)
            assert visitor.response().status == 200
        peer.close()

    def test_headers_come_in_pieces(self, behind):
        server, client = behind()
        for header in (b"PROXY TCP4 203.0.113.7 192.0.2.1 4567 443\r\n", TCP4):
            wire = header + b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % client.host.encode()
            with Visitor(server.edge, client.host) as visitor:
                for at in range(0, len(wire), 3):
                    visitor.send(wire[at : at + 3])
                assert forwarded_for(visitor.response()) == "203.0.113.7"

    def test_without_a_header_there_is_no_answer(self, behind):
        """The addresses that are named have to send one: a request alone could be anybody's."""
        server, client = behind()
        for wrong in (b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % client.host.encode(), b"PROXY TCP4 x\r\n",
                      b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", V2 + b"\x21\x11\0\x04abcd"):
            with Visitor(server.edge, client.host) as visitor:
                visitor.send(wrong)
                assert visitor.source.at_end()

        def counted():
            with Visitor(server.admin, "localhost") as operator:
                metrics = operator.request("/metrics").response().text
            return re.search(r"^kavilo_edge_proxy_headers_refused_total 4$", metrics, re.MULTILINE)

        wait_until(counted, what="all four are counted")  # which is after their connections have been closed
        warnings = server.program.log(level="warn", message=re.compile("PROXY header"))
        assert 1 <= len(warnings) <= 2, "one a worker, and not one a connection"

    def test_strangers_may_not_send_one(self, shared_server, shared_tunnel):
        """Without --proxy-protocol-from nobody may; the header is a bad request like any other."""
        for header in (b"PROXY TCP4 203.0.113.7 192.0.2.1 4567 443\r\n", TCP4):
            with Visitor(shared_server.edge, shared_tunnel.host) as visitor:
                visitor.send(header + b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % shared_tunnel.host.encode())
                response = visitor.response()
                assert (response.status, response.text) == (400, "the request is not valid HTTP")
                assert visitor.source.at_end()

    def test_probes_leave_no_trace(self, behind):
        """A balancer's health check connects and leaves: no warning, nothing counted."""
        server, client = behind()
        Visitor(server.edge, client.host).close()
        with self.visit(server, client, TCP4) as visitor:
            assert forwarded_for(visitor.request().response()) == "203.0.113.7"
        assert not server.program.log(level="warn", message=re.compile("PROXY header"))

    @pytest.mark.first
    def test_silence_has_an_end(self, behind):
        server, client = behind()
        with Visitor(server.edge, client.host) as visitor:
            visitor.send(b"PROXY TCP4 203.0.113.7 ")
            assert visitor.source.at_end()
        wait_until(lambda: server.program.log(text="no PROXY header in time"), what="the reason in the log")


class TestTcpProxies:
    """Real proxies that pass bytes on and write the header. Their own address is 127.0.0.3; what counts is the
    visitor's, 127.0.0.2."""

    @pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
    @pytest.mark.parametrize("with_tls", [False, True], ids=["clear", "tls"])
    def test_haproxy(self, programs, make_server, origin, make_client, pair, tmp_path, version, with_tls):
        need(front.HAPROXY)
        server = make_server("--proxy-protocol-from", "127.0.0.3", tls=pair if with_tls else None)
        client = make_client(server, origin, server.user().token)
        config = front.replaced(
            front.documented("OPERATE.md", "Behind a TCP proxy", "haproxy-tcp"),
            ("10.0.0.7:443", "%s:%d source 127.0.0.3" % server.edge), ("send-proxy-v2", version))
        proxy = front.haproxy(programs, tmp_path / "haproxy", lambda bind: front.replaced(
            config, ("bind :443", f"bind {bind}\n    unique-id-format %pid")))
        self.visit(server, client, proxy)

    def test_nginx(self, programs, make_server, origin, make_client, pair, tmp_path):
        need(front.NGINX, front.NGINX_STREAM)
        server = make_server("--proxy-protocol-from", "127.0.0.3", tls=pair)
        client = make_client(server, origin, server.user().token)
        config = front.replaced(
            front.documented("OPERATE.md", "Behind a TCP proxy", "nginx-stream"),
            ("10.0.0.7:443;", "%s:%d; proxy_bind 127.0.0.3;" % server.edge))
        proxy = front.nginx(programs, tmp_path / "nginx", lambda address: front.replaced(
            config, ("listen 443;", f"listen {address};")), modules=f"load_module {front.NGINX_STREAM};")
        self.visit(server, client, proxy)

    @staticmethod
    def visit(server, client, proxy):
        with Visitor(proxy.address, client.host, tls=server.tls.client() if server.tls else None,
                     source=("127.0.0.2", 0)) as visitor:
            assert forwarded_for(visitor.request().response()) == "127.0.0.2"


def need(*files):
    reason = front.missing(*files)
    if reason:
        pytest.skip(reason)


LIES = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "evil.test"), ("X-Forwarded-Port", "666"), ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6;host=evil.test;proto=gopher")]


class TestHttpProxies:
    """The configurations of docs/OPERATE.md, with other ports and files, around a whole tunnel whose client comes through
    the proxy as well."""

    @pytest.fixture(params=["nginx", "haproxy"])
    def site(self, request, programs, make_server, make_client, origin, authority, pair, tmp_path):
        need(front.NGINX if request.param == "nginx" else front.HAPROXY)
        server = make_server("--trusted-proxies", "127.0.0.1", "--forwarded")
        ports = (("127.0.0.1:8080", "%s:%d" % server.edge), ("127.0.0.1:7777", "%s:%d" % server.control))
        if request.param == "nginx":
            config = front.replaced(front.documented("OPERATE.md", "nginx", "nginx"), *ports,
                                    ("/etc/kavilo/fullchain.pem", str(pair.cert)), ("/etc/kavilo/privkey.pem", str(pair.key)),
                                    ("tnl.example.com", "tnl.test"))
            proxy = front.nginx(programs, tmp_path / "nginx", lambda address: front.replaced(
                config, ("listen 443", f"listen {address}")))
        else:
            both = tmp_path / "both.pem"
            both.write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())
            config = front.replaced(front.documented("OPERATE.md", "HAProxy", "haproxy"), *ports,
                                    ("/etc/kavilo/both.pem", str(both)))
            proxy = front.haproxy(programs, tmp_path / "haproxy", lambda bind: front.replaced(
                config, ("bind :443", f"bind {bind}")))
        endpoint, token = "https://localhost:%d" % proxy.address[1], server.user().token
        client = make_client(endpoint, origin, token, env={"KAVILO_CA_CERT": str(pair.ca)})
        return Site(server, proxy, client, pair, endpoint, token)

    def test_requests(self, site):
        """Fields that say who visits, lies and all; bodies both ways."""
        with site.visitor() as visitor:
            fields = fields_of(json.loads(visitor.request("/?x=1", fields=LIES).response().content))
            assert fields.one("x-forwarded-for").split(", ")[-2:] == ["127.0.0.2", "127.0.0.1"]
            assert fields.one("x-real-ip") == "127.0.0.2"
            assert fields.one("x-forwarded-proto") == "https"
            assert fields.one("x-forwarded-host") == fields.one("host") == site.client.host
            assert fields.one("x-forwarded-port") in ("443", str(site.proxy.address[1]))
            assert fields.one("forwarded") == f"for=127.0.0.2;host={site.client.host};proto=https, for=127.0.0.1"
            pattern = Pattern(3_000_000)
            seen = json.loads(visitor.request("/up", "POST", body=pattern).response().content)
            assert seen["sha256"] == pattern.digest
            assert visitor.request(f"/body?size={pattern.size}&chunked=1").response().body.digest() == pattern.digest

    def test_strangers_beside_the_proxy(self, site):
        """Who comes to the edge directly and is not named is who he is, over http."""
        with Visitor(site.server.edge, site.client.host, source=("127.0.0.2", 0)) as visitor:
            fields = fields_of(json.loads(visitor.request(fields=LIES).response().content))
            assert fields.one("x-forwarded-for") == fields.one("x-real-ip") == "127.0.0.2"
            assert fields.one("x-forwarded-proto") == "http" and fields.one("x-forwarded-host") == site.client.host
            assert "x-forwarded-port" not in fields
            assert fields.one("forwarded") == f"for=127.0.0.2;host={site.client.host};proto=http"

    def test_events_stream(self, site):
        with site.visitor() as visitor:
            pieces = iter(visitor.request("/sse?n=3&gap=0.1").response().body)
            assert next(pieces) == b"data: 0\n\n", "the first event is held back until there are more"

    def test_websocket(self, site, make_client):
        """Through a second tunnel, whose service is python3-websockets."""
        service = WebSocketService()
        client = make_client(site.endpoint, service.url, site.token, env={"KAVILO_CA_CERT": str(site.pair.ca)})
        context = site.pair.client()

        async def talk():
            async with websockets.connect(f"wss://{client.host}/", host=site.proxy.address[0], port=site.proxy.address[1],
                                          ssl=context, open_timeout=STEP) as ws:
                for message in ("hello", b"\0\xff" * 50000):
                    await ws.send(message)
                    assert await ws.recv() == message

        asyncio.run(asyncio.wait_for(talk(), STEP))
        service.close()

    @pytest.mark.parametrize("site", ["haproxy"], indirect=True)
    def test_grpc(self, site, make_client):
        """A call there and back with its trailers, and both directions at once. (nginx speaks HTTP/1.1 to the edge.)"""
        service = grpcpeer.Service()
        client = make_client(site.endpoint, service.url, site.token, env={"KAVILO_CA_CERT": str(site.pair.ca)})
        with grpcpeer.Calls(site.proxy.address, client.host, site.pair) as calls:
            assert calls.unary("Echo")(b"hello", timeout=STEP) == b"hello"
            assert list(calls.stream("Chat")(iter([b"a", b"b"]), timeout=STEP)) == [b"A", b"B"]
        service.close()

    def test_http2(self, site):
        """curl by ALPN, two requests on one connection."""
        url = f"https://{site.client.host}:{site.proxy.address[1]}/"
        done = run(["curl", "-sS", "--http2", "--cacert", site.pair.ca, "--connect-to", f"::127.0.0.1:{site.proxy.address[1]}",
                    "-w", "%{http_version}", url + "a", url + "b"], {"PATH": "/usr/bin:/bin"})
        assert done.returncode == 0 and done.stdout.count("}2") == 2, done

    def test_answers_of_the_edge(self, site):
        """Error answers pass as they are."""
        with Visitor(site.proxy.address, "nobody.tnl.test", tls=site.pair.client()) as visitor:
            response = visitor.request().response()
            assert (response.status, response.text) == (502, "no active tunnel for this hostname")
            assert response.fields.one("kavilo-error") == "no_tunnel"


class Site:
    def __init__(self, server, proxy, client, pair, endpoint, token):
        self.server, self.proxy, self.client, self.pair = server, proxy, client, pair
        self.endpoint, self.token = endpoint, token

    def visitor(self):
        """Someone at 127.0.0.2."""
        return Visitor(self.proxy.address, self.client.host, tls=self.pair.client(), source=("127.0.0.2", 0))


def test_networks_on_the_command_line(make_server):
    for flag in ("--trusted-proxies", "--proxy-protocol-from"):
        for value, why in (("10.0.0.1/8", "bits behind its prefix"), ("10.0.0.0/33", "from 0 to 32"), ("proxy.example", "neither"),
                           ("127.0.0.1,", "neither")):
            server = make_server(flag, value, start=False)
            done = run([*server.argv, "--edge-listen", "127.0.0.1:0"], server.env)
            assert done.returncode == 2 and why in done.stderr and flag in done.stderr, done
