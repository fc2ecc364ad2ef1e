"""Behind proxies: PROXY headers by hand, and real HAProxy and nginx in front of the edge."""

import json
import re
import socket
import struct

import pytest

from harness import front
from harness.http1 import Visitor
from harness.origin import fields_of
from harness.wait import wait_until

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
        with Visitor(server.admin, "localhost") as operator:
            metrics = operator.request("/metrics").response().text
        assert re.search(r"^kavilo_edge_proxy_headers_refused_total 4$", metrics, re.MULTILINE), metrics
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
    """Real proxies that pass bytes on and write the header."""

    @pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
    @pytest.mark.parametrize("with_tls", [False, True], ids=["clear", "tls"])
    def test_haproxy(self, programs, make_server, origin, make_client, pair, tmp_path, version, with_tls):
        if front.missing(front.HAPROXY):
            pytest.skip(front.missing(front.HAPROXY))
        server = make_server("--proxy-protocol-from", "127.0.0.0/8", tls=pair if with_tls else None)
        client = make_client(server, origin, server.user().token)
        proxy = front.haproxy(programs, tmp_path / "haproxy", lambda bind: f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend edge
    bind {bind}
    unique-id-format %pid
    default_backend edge
backend edge
    source 127.0.0.3
    server kavilo {server.edge[0]}:{server.edge[1]} {version}
""")
        self.visit(server, client, proxy)

    def test_nginx(self, programs, make_server, origin, make_client, pair, tmp_path):
        if front.missing(front.NGINX, front.NGINX_STREAM):
            pytest.skip(front.missing(front.NGINX, front.NGINX_STREAM))
        server = make_server("--proxy-protocol-from", "127.0.0.3", tls=pair)
        client = make_client(server, origin, server.user().token)
        proxy = front.nginx(programs, tmp_path / "nginx", lambda address: f"""
server {{
    listen {address};
    proxy_pass {server.edge[0]}:{server.edge[1]};
    proxy_bind 127.0.0.3;
    proxy_protocol on;
}}""", modules=f"load_module {front.NGINX_STREAM};")
        self.visit(server, client, proxy)

    @staticmethod
    def visit(server, client, proxy):
        """The proxy's own address is 127.0.0.3; the visitor's, 127.0.0.2, is what counts."""
        with Visitor(proxy.address, client.host, tls=server.tls.client() if server.tls else None,
                     source=("127.0.0.2", 0)) as visitor:
            assert forwarded_for(visitor.request().response()) == "127.0.0.2"
