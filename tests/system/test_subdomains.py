"""Hosts with further labels in front of a tunnel's."""

import pytest

from harness import h2visitor
from harness.tunnel import BASE_HOST


def echo_host(ex):
    ex.reply(ex.request.fields.one("host"), fields=[("X-Told", ex.request.fields.get("x-forwarded-host"))])


@pytest.fixture
def tunnel(server, user, make_client, make_origin):
    return make_client(server, make_origin(echo_host), user.token, "--name", "laptop")


@pytest.mark.parametrize("front", ["x.", "a.b.c.", "X.", "xn--bcher-kva.", "a--b.", "_dmarc.", "x" * 60 + "."])
def test_labels_in_front_are_passed_on(server, tunnel, front):
    host = front + tunnel.host
    response = server.fetch(host)
    assert (response.status, response.text) == (200, host)
    assert response.fields.one("x-told") == host
    (status, _, _, _), = h2visitor.fetch(server.edge, host, ["/"])
    assert status == 200


@pytest.mark.parametrize("host", ["x.nobody-at-all.{base}", "{base}", "x{tunnel}", "{tunnel}.x", "x.{tunnel}x"])
def test_other_hosts_stay_nobodys(server, tunnel, host):
    response = server.fetch(host.format(base=BASE_HOST, tunnel=tunnel.host))
    assert (response.status, response.fields.one("kavilo-error")) == (502, "no_tunnel")


@pytest.mark.parametrize("host", ["..{tunnel}", ".{tunnel}", "x..{tunnel}"])
def test_labels_that_are_none(server, tunnel, host):
    assert server.fetch(host.format(tunnel=tunnel.host)).status == 400


def test_off(server, user, make_client, make_origin):
    client = make_client(server, make_origin(echo_host), user.token, "--subdomains", "off")
    assert server.fetch(client.host).status == 200
    response = server.fetch(f"x.{client.host}")
    assert (response.status, response.fields.one("kavilo-error")) == (502, "no_tunnel")


def test_clients_that_do_not_know_of_it(server, user):
    peer = server.peer(user.token).connected()
    with server.visitor(f"x.{peer.host}") as visitor:
        visitor.request()
        request_id, head = peer.request()
        assert ("host", f"x.{peer.host}".encode()) in [(h["name"], h["value"]) for h in head["headers"]]
        peer.send(request_id, response_head={"status": 204})
        peer.send(request_id, data={"end_stream": True})
        assert visitor.response().status == 204
    peer.close()


def test_loop_through_another_label(server, user, make_client):
    """Whatever stands in front, it is the same tunnel."""
    client = make_client(server, f"http://127.0.0.1:{server.edge[1]}", user.token)
    response = server.fetch(f"x.{client.host}")
    assert response.status == 508
