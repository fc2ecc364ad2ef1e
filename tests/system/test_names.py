"""The two tables of "Naming and routing": what a name looks like, how long it lives, who may hold it."""

import re

import pytest

from harness.settings import STEP
from harness.wait import wait_until

RANDOM = re.compile(r"([a-z]+)-([a-z]+)-([1-9][0-9]{3})")


# ---- the table of formats ----


def test_random_name_is_new_at_each_connect(server, user, origin, make_client):
    seen = set()
    for _ in range(3):
        client = make_client(server, origin, user.token)
        assert RANDOM.fullmatch(client.subdomain)
        assert client.host == f"{client.subdomain}.{server.base_host}"
        seen.add(client.subdomain)
        assert server.fetch(client.host).status == 200
        client.program.stop()
    assert len(seen) == 3
    assert server.sql("SELECT count(*) FROM tunnels") == [(0,)], "a random name is never stored"


def test_random_names_by_the_hundred(shared_server, shared_user):
    """The format, the range of the number, and lists of about 24 words each."""
    adjectives, animals, numbers, live = set(), set(), set(), []
    for _ in range(150):
        peer = shared_server.peer(shared_user.token).connected()
        adjective, animal, number = RANDOM.fullmatch(peer.welcome["subdomain"]).groups()
        adjectives.add(adjective)
        animals.add(animal)
        numbers.add(int(number))
        live.append(peer)
    assert len({p.welcome["subdomain"] for p in live}) == 150
    # 150 draws of 24 miss more than seven of them once in a million runs or so.
    assert 16 <= len(adjectives) <= 40 and 16 <= len(animals) <= 40
    assert 1000 <= min(numbers) and max(numbers) <= 9999 and len(numbers) > 130
    for peer in live:
        peer.close()


def test_random_name_dies_with_its_connection(shared_server, shared_user, shared_tunnel):
    peer = shared_server.peer(shared_user.token).connected()
    host = peer.host
    peer.close()

    def gone():
        return shared_server.fetch(host).status == 502

    wait_until(gone, what="the random name is gone")
    assert shared_server.fetch(shared_tunnel.host).status == 200


def test_stable_name(server, user, origin, make_client):
    """`--name laptop` is laptop-<userslug>, whatever restarts."""
    expected = f"laptop-{user.slug}"
    for attempt in range(3):
        client = make_client(server, origin, user.token, name="laptop")
        assert client.subdomain == expected
        assert server.fetch(f"{expected}.{server.base_host}").status == 200
        client.program.stop()
        if attempt == 1:
            server.restart()
    assert server.sql("SELECT name, subdomain FROM tunnels") == [("laptop", expected)], "the row is reused"


def test_stable_name_does_not_depend_on_the_machine(server, user, origin, make_client, tmp_path):
    """Another home, another token of the same user: the same name."""
    first = make_client(server, origin, user.token, name="laptop")
    host = first.host
    first.program.stop()
    second = make_client(server, origin, server.token(user.email, "second"), name="laptop", home=tmp_path / "elsewhere")
    assert second.host == host


def test_authentication_is_required_either_way(server, origin, make_client):
    for name in (None, "laptop"):
        client = make_client(server, origin, "x" * 52, name=name, ready=False)
        assert client.program.wait_exit() not in (0, -11)
        assert "invalid token" in client.program.stderr()
        assert client.ready == []


# ---- the table of uniqueness ----


def test_two_names_of_one_user_coexist(server, user, make_origin, make_client):
    hosts = {}
    for name in ("laptop", "desktop"):
        hosts[name] = make_client(server, make_origin(lambda ex, n=name: ex.reply(n)), user.token, name=name).host
    assert hosts == {n: f"{n}-{user.slug}.{server.base_host}" for n in hosts}
    for name, host in hosts.items():
        assert server.fetch(host).text == name


def test_one_name_of_two_users_coexists(server, make_origin, make_client):
    users = [server.user("alice@example.com"), server.user("bob@example.com")]
    clients = [make_client(server, make_origin(lambda ex, u=u: ex.reply(u.email)), u.token, name="laptop") for u in users]
    assert clients[0].host != clients[1].host
    for one, client in zip(users, clients):
        assert client.subdomain == f"laptop-{one.slug}"
        assert server.fetch(client.host).text == one.email


def test_slug_of_the_source_document(server):
    assert re.fullmatch(r"alice-[0-9a-f]{4}", server.user("alice@example.com").slug)


# ---- the stored row decides ----


def test_slug_and_subdomain_rewritten_by_hand(server, user, origin, make_client):
    """The source document's two statements, tunnels down, server running: the next connect has the new name."""
    client = make_client(server, origin, user.token, name="laptop")
    client.program.stop()
    server.sql("UPDATE users SET slug = 'alice' WHERE email = 'alice@example.com'")
    server.sql(f"UPDATE tunnels SET subdomain = REPLACE(subdomain, '-{user.slug}', '-alice') WHERE subdomain LIKE '%-{user.slug}'")
    assert make_client(server, origin, user.token, name="laptop").subdomain == "laptop-alice"
    assert make_client(server, origin, user.token, name="desktop").subdomain == "desktop-alice"


def test_slug_alone_rewritten(server, user, origin, make_client):
    """Existing rows keep their subdomain, new names get the new slug."""
    client = make_client(server, origin, user.token, name="laptop")
    client.program.stop()
    server.sql("UPDATE users SET slug = 'alice' WHERE email = 'alice@example.com'")
    assert make_client(server, origin, user.token, name="laptop").subdomain == f"laptop-{user.slug}"
    assert make_client(server, origin, user.token, name="desktop").subdomain == "desktop-alice"


# ---- names and hosts at the edge ----


@pytest.mark.parametrize(
    "host",
    ["{sub}.{base}", "{SUB}.{BASE}", "{sub}.{base}.", "{sub}.{base}:8080", "{Sub}.{base}.:1"],
)
def test_ways_to_write_a_host(shared_server, shared_tunnel, host):
    sub, base = shared_tunnel.subdomain, shared_server.base_host
    text = host.format(sub=sub, base=base, SUB=sub.upper(), BASE=base.upper(), Sub=sub.title())
    assert shared_server.fetch(text).status == 200


@pytest.mark.parametrize(
    "host",
    ["{base}", "nobody.{base}", "{sub}", "{sub}.nobody.{base}", "{sub}.{base}.evil.test", "{sub}{base}", "evil{sub}.{base}",
     "{sub}.other.test", "127.0.0.1", "[::1]", "localhost", "{sub}-.{base}", "other.test"],
)
def test_hosts_without_a_tunnel(shared_server, shared_tunnel, host):
    text = host.format(sub=shared_tunnel.subdomain, base=shared_server.base_host)
    response = shared_server.fetch(text)
    assert (response.status, response.text.rstrip("\n")) == (502, "no active tunnel for this hostname")
    assert response.fields.one("kavilo-error") == "no_tunnel"


def test_host_decides_for_each_request_of_a_connection(server, user, make_origin, make_client):
    hosts = [make_client(server, make_origin(lambda ex, i=i: ex.reply(str(i))), user.token).host for i in range(2)]
    with server.visitor(hosts[0]) as visitor:
        for i in (0, 1, 1, 0):
            visitor.request(host=hosts[i])
            assert visitor.response().text == str(i)
        visitor.request(host="nobody.tnl.test")
        assert visitor.response().text == "no active tunnel for this hostname"
        visitor.request(host=hosts[1])
        assert visitor.response().text == "1"


def test_name_refused_by_the_client_or_the_server(server, user, origin, make_client):
    """A name that can be no label ends the client with a sentence and a non-zero status; nothing is retried."""
    for name in ("Laptop", "a_b", "-x", "x" * 64):
        client = make_client(server, origin, user.token, name=name, ready=False)
        assert client.program.wait_exit(STEP) != 0
        assert name in client.program.stderr()
        assert client.ready == []
    assert server.sql("SELECT count(*) FROM tunnels") == [(0,)]
