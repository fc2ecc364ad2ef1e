"""Fields that hold the public URL: what the service and the visitor see of each other's names."""

import pytest

HOST = "app.local:8000"


@pytest.fixture(params=["http", "https"])
def public(request, make_server, pair):
    """(a server, the scheme of its visitors)"""
    return make_server(tls=pair if request.param == "https" else None), request.param


@pytest.fixture
def tunnel(public, make_client, make_origin, pair):
    server, _ = public

    def start(handler=None, *args):
        origin = make_origin(handler)
        return make_client(server, origin, server.user().token, *args, env={"KAVILO_CA_CERT": str(pair.ca)}), origin

    return start


@pytest.mark.parametrize("host_header", [None, HOST])
@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_destination_is_the_services(public, tunnel, method, host_header):
    server, scheme = public
    client, origin = tunnel(None, *(["--host-header", host_header] if host_header else []))
    server.fetch(client.host, "/a", method, [("Destination", f"{scheme}://{client.host}/b%20c")])
    seen = origin.last.request.fields
    assert seen.one("destination") == f"http://{host_header or client.host}/b%20c"
    assert seen.one("host") == (host_header or client.host)
    server.fetch(client.host, "/a", method, [("Destination", "https://else.test/b")])
    assert origin.last.request.fields.one("destination") == "https://else.test/b"


def places(ex):
    ex.reply("", 302, [("Location", f"http://{HOST}/next"), ("Content-Location", f"http://{HOST}/here"),
                       ("Set-Cookie", "a=b; Domain=app.local; Path=/"), ("Set-Cookie", "c=d; Domain=else.test")])


def test_answers_name_the_public_host(public, tunnel):
    server, scheme = public
    client, _ = tunnel(places, "--host-header", HOST)
    fields = server.fetch(client.host).fields
    assert fields.one("location") == f"{scheme}://{client.host}/next"
    assert fields.one("content-location") == f"{scheme}://{client.host}/here"
    assert fields.all("set-cookie") == [f"a=b; Domain={client.host}; Path=/", "c=d; Domain=else.test"]


@pytest.mark.parametrize("args", [[], ["--host-header", HOST, "--no-rewrite"]], ids=["no-host-header", "no-rewrite"])
def test_answers_that_are_left_alone(public, tunnel, args):
    server, _ = public
    client, _ = tunnel(places, *args)
    fields = server.fetch(client.host).fields
    assert fields.one("location") == f"http://{HOST}/next"
    assert fields.all("set-cookie")[0] == "a=b; Domain=app.local; Path=/"


def test_no_rewrite_leaves_destination_alone(public, tunnel):
    server, scheme = public
    client, origin = tunnel(None, "--no-rewrite")
    server.fetch(client.host, "/a", "MOVE", [("Destination", f"{scheme}://{client.host}/b")])
    assert origin.last.request.fields.one("destination") == f"{scheme}://{client.host}/b"
