"""The admin listener: metrics by a strict reader, live tunnels, kick, readiness, who may ask, and its commands."""

import json
import math
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from datetime import datetime, timezone

import pytest

from harness.http1 import Broken, Visitor
from harness.process import base_environment, run
from harness.settings import PACE, STEP, TUNNELD
from harness.wait import wait_until

ABORTED = 10

# ---- the Prometheus text format, version 0.0.4, read strictly ----

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
VALUE = re.compile(r"[+-]?(\d+(\.\d+)?([eE][+-]?\d+)?|Inf|NaN)")
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


class Family:
    def __init__(self, help_text):
        self.help, self.type = help_text, None
        self.samples = {}  # labels as a sorted tuple of pairs -> value


def read_sample(line):
    """name, labels, value"""
    name = NAME.match(line)
    assert name, f"no name: {line!r}"
    at, labels = name.end(), []
    if line[at : at + 1] == "{":
        at += 1
        while line[at : at + 1] != "}":
            label = LABEL.match(line, at)
            assert label, f"no label at {at}: {line!r}"
            value = re.sub(r"\\.", lambda m: UNESCAPED[m[0]], label[2])
            labels.append((label[1], value))
            at = label.end()
            if line[at : at + 1] == ",":
                at += 1
        at += 1
    assert len({n for n, _ in labels}) == len(labels), f"a label twice: {line!r}"
    assert line[at : at + 1] == " ", f"no space before the value: {line!r}"
    text = line[at + 1 :]
    assert VALUE.fullmatch(text), f"no value: {line!r}"
    return name[0], tuple(sorted(labels)), float(text)


def parse_metrics(text):
    """{name: Family}. HELP, then TYPE, then the samples, each family once and in one piece; nothing else."""
    assert text.endswith("\n"), "the last line has no end"
    families, current = {}, None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, _, help_text = line[7:].partition(" ")
            assert NAME.fullmatch(name) and help_text.strip(), line
            assert name not in families, f"{name} twice"
            current = families[name] = Family(help_text)
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            assert current is families.get(name) and current is not None, f"TYPE without HELP before it: {line}"
            assert current.type is None and not current.samples, f"TYPE twice or behind samples: {line}"
            assert kind in ("counter", "gauge"), line
            assert (kind == "counter") == name.endswith("_total"), f"a counter, and only it, ends in _total: {line}"
            current.type = kind
        else:
            name, labels, value = read_sample(line)
            assert current is not None and families.get(name) is current and current.type, f"not in its family: {line}"
            assert labels not in current.samples, f"twice: {line}"
            assert current.type != "counter" or (value >= 0 and math.isfinite(value)), line
            current.samples[labels] = value
    return families


GOOD = "# HELP a_total A.\n# TYPE a_total counter\n"


@pytest.mark.peers
@pytest.mark.parametrize(
    "text",
    [
        GOOD[:-1],
        "a_total 1\n",
        GOOD + "b_total 1\n",
        GOOD + "a_total 1\na_total 2\n",
        GOOD + 'a_total{x="1",x="2"} 1\n',
        GOOD + 'a_total{x="a"b"} 1\n',
        GOOD + 'a_total{x="\\q"} 1\n',
        GOOD + "a_total{x=1} 1\n",
        GOOD + "a_total  1\n",
        GOOD + "a_total one\n",
        GOOD + "a_total -1\n",
        GOOD + "a_total 1 \n",
        GOOD + "a_total 1\n\n",
        GOOD + GOOD,
        GOOD + "a_total 1\n# TYPE a_total counter\n",
        "# TYPE a_total counter\na_total 1\n",
        "# HELP a_total A.\na_total 1\n",
        "# HELP a A.\n# TYPE a counter\n",
        "# HELP a_total A.\n# TYPE a_total gauge\n",
        "# HELP a_total \n# TYPE a_total counter\n",
    ],
)
def test_reader_is_strict(text):
    with pytest.raises(AssertionError):
        parse_metrics(text)


@pytest.mark.peers
def test_reader_reads():
    families = parse_metrics(GOOD + 'a_total{x="q\\"\\\\\\n",y=""} 1.5e3\na_total 0\n')
    assert families["a_total"].samples == {(("x", 'q"\\\n'), ("y", "")): 1500, (): 0}


# ---- asking ----


def ask(server, target, method="GET", fields=(), body=None, host=None):
    """One request on a connection of its own; the Response, its content read."""
    with Visitor(server.admin, host or f"{server.admin[0]}:{server.admin[1]}") as visitor:
        visitor.request(target, method, list(fields), body)
        response = visitor.response(method)
        assert response.content is not None
        return response


class Metrics:
    def __init__(self, server):
        response = ask(server, "/metrics")
        assert response.status == 200
        assert response.fields.one("content-type") == "text/plain; version=0.0.4; charset=utf-8"
        self.families = parse_metrics(response.text)

    def __call__(self, name, **labels):
        return self.families[name].samples.get(tuple(sorted(labels.items())), 0)


def tunnels(server):
    response = ask(server, "/admin/tunnels")
    assert response.status == 200
    assert response.fields.one("content-type") == "application/json"
    value = json.loads(response.content)
    assert isinstance(value, list)
    return value


def kick(server, subdomain, **how):
    return ask(server, f"/admin/tunnels/{subdomain}/kick", "POST", **how)


def subdomain_of(peer):
    return peer.host.partition(".")[0]


def serve_one(server, peer, **how):
    """One whole request through a peer's tunnel; the visitor's Response."""
    with server.visitor(peer.host) as visitor:
        visitor.request(**how)
        request_id, _ = peer.request()
        peer.body(request_id)
        peer.answer(request_id, 200, [("content-length", "2")], b"ok")
        response = visitor.response()
        assert response.content == b"ok"
        return response


# ---- metrics ----


def test_metrics_of_an_idle_server(server):
    metrics = Metrics(server)
    kinds = {name: family.type for name, family in metrics.families.items()}
    for name in ("kavilo_tunnels_connected_total", "kavilo_edge_requests_total", "kavilo_edge_responses_total",
                 "kavilo_edge_body_limit_exceeded_total", "process_cpu_seconds_total"):
        assert kinds[name] == "counter"
    for name in ("kavilo_tunnels_active", "kavilo_edge_connections", "kavilo_control_connections",
                 "kavilo_credit_granted_bytes", "kavilo_chunks_live", "kavilo_chunk_bytes_live",
                 "process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_start_time_seconds"):
        assert kinds[name] == "gauge"
    assert metrics("kavilo_tunnels_active") == 0
    assert metrics("kavilo_store_reachable") == 1
    version = run([TUNNELD, "--version"], base_environment(server.folder)).stdout
    [labels] = metrics.families["kavilo_build_info"].samples
    assert labels[0][0] == "version" and labels[0][1] in version
    # Codes that are known before they happen are there at 0, so that the first one is seen as growth.
    codes = {dict(labels)["code"] for labels in metrics.families["kavilo_edge_responses_total"].samples}
    assert {"200", "413", "502", "503", "504"} <= codes


def test_process_metrics_are_true(server):
    metrics = Metrics(server)
    assert abs(metrics("process_open_fds") - server.program.descriptors()) <= 4
    assert metrics("process_resident_memory_bytes") == pytest.approx(server.program.rss(), rel=0.2)
    assert 0 <= time.time() - metrics("process_start_time_seconds") < 3 * STEP
    assert metrics("process_cpu_seconds_total") > 0


def test_what_happens_is_counted(make_server):
    server = make_server("--max-request-body-bytes", "1000")
    user = server.user()
    peer = server.peer(user.token).connected()
    for _ in range(3):
        serve_one(server, peer)
    assert server.fetch("nobody.tnl.test").status == 502
    assert server.fetch(peer.host, method="POST", body=b"x" * 1001).status == 413
    metrics = Metrics(server)
    assert metrics("kavilo_tunnels_active") == 1
    assert metrics("kavilo_tunnels_connected_total") == 1
    assert metrics("kavilo_control_connections") == 1
    assert metrics("kavilo_edge_requests_total") == 5
    assert metrics("kavilo_edge_responses_total", code="200") == 3
    assert metrics("kavilo_edge_responses_total", code="502") == 1
    assert metrics("kavilo_edge_responses_total", code="413") == 1
    assert metrics("kavilo_edge_body_limit_exceeded_total") == 1
    peer.close()
    wait_until(lambda: Metrics(server)("kavilo_tunnels_active") == 0, what="the tunnel is gone from the metrics")
    server.peer(user.token).connected()
    metrics = Metrics(server)
    assert (metrics("kavilo_tunnels_active"), metrics("kavilo_tunnels_connected_total")) == (1, 2)


def test_nothing_is_left_over(server, user):
    """Connections, chunks and credit go back to what they were before the traffic, when the greeting's last bytes may
    still have been on their way."""
    names = ("kavilo_edge_connections", "kavilo_chunks_live", "kavilo_chunk_bytes_live", "kavilo_credit_granted_bytes")
    peer = server.peer(user.token).connected()
    before = [Metrics(server)(name) for name in names]
    with server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        assert Metrics(server)("kavilo_edge_connections") == before[0] + 1
        peer.answer(request_id, 200, [("content-length", "2")], b"ok")
        assert visitor.response().content == b"ok"

    def left_over():
        metrics = Metrics(server)
        return {name: metrics(name) for name, most in zip(names, before) if metrics(name) > most}

    deadline = time.monotonic() + STEP
    while left_over() and time.monotonic() < deadline:
        time.sleep(0.01)  # between the looks
    assert not left_over()


def test_scrapes_beside_churn(server, user):
    """Tunnels come and go while four scrapers read: every answer is whole and in order."""
    stop, wrong = threading.Event(), []

    def scrape():
        try:
            while not stop.is_set():
                assert Metrics(server)("kavilo_tunnels_active") <= 8
                listed = [t["subdomain"] for t in tunnels(server)]
                assert listed == sorted(set(listed))
        except BaseException as error:  # pylint: disable=broad-except
            wrong.append(error)

    scrapers = [threading.Thread(target=scrape) for _ in range(4)]
    for scraper in scrapers:
        scraper.start()
    for _ in range(6):
        peers = [server.peer(user.token).connected() for _ in range(8)]
        for peer in peers:
            peer.close(abrupt=True)
        wait_until(lambda: wrong or not tunnels(server), what="the tunnels are gone")
    stop.set()
    for scraper in scrapers:
        scraper.join()
    assert not wrong, wrong
    assert Metrics(server)("kavilo_tunnels_connected_total") == 48


# ---- live tunnels ----


def test_tunnels_are_listed(server, user):
    before = time.time()
    named = server.peer(user.token, "web", version='0.1.5 "x\\y" é\x01').connected()
    others = [server.peer(user.token).connected() for _ in range(3)]
    rows = tunnels(server)
    assert [row["subdomain"] for row in rows] == sorted([f"web-{user.slug}"] + [subdomain_of(p) for p in others])
    assert len({row["session_id"] for row in rows}) == 4
    for row in rows:
        assert set(row) == {"subdomain", "public_url", "user_email", "client_version", "peer_addr", "session_id",
                            "connected_at", "age_seconds", "named"}
        assert row["user_email"] == user.email
        assert row["named"] is (row["subdomain"] == f"web-{user.slug}")
        assert re.fullmatch(r"127\.0\.0\.1:\d+", row["peer_addr"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["connected_at"])
        at = datetime.strptime(row["connected_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
        assert before - 1 <= at <= time.time()
        assert isinstance(row["age_seconds"], int) and 0 <= row["age_seconds"] <= time.time() - before + 1
    row = next(row for row in rows if row["named"])
    assert row["public_url"] == named.welcome["public_url"]
    assert row["client_version"] == '0.1.5 "x\\y" é\x01'
    server.program.wait_log(message="tunnel up", session=row["session_id"])


def test_age_grows(server, user):
    server.peer(user.token).connected()
    wait_until(lambda: tunnels(server)[0]["age_seconds"] >= 2, what="the tunnel grows older")


def test_no_tunnels_is_an_empty_list(server):
    assert tunnels(server) == []


def test_recipes_of_the_manual(server, user):
    """As the deployed system's manual prints them, with the address of this server."""
    for name, version in (("one", "0.1.4"), ("two", "0.1.5")):
        server.peer(user.token, name, version=version).connected()
    rows = sorted(tunnels(server), key=lambda row: row["subdomain"])

    def recipe(line):
        line = line.replace("127.0.0.1:9090", "%s:%d" % server.admin)
        done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=STEP, check=True, text=True)
        assert not done.stderr
        return done.stdout

    listed = json.loads(recipe("curl -sS http://127.0.0.1:9090/admin/tunnels | jq ."))
    assert [row["subdomain"] for row in listed] == [f"one-{user.slug}", f"two-{user.slug}"]
    assert set(listed[0]) >= {"subdomain", "public_url", "user_email", "client_version", "peer_addr", "session_id",
                              "connected_at", "age_seconds"}
    datetime.strptime(listed[0]["connected_at"], "%Y-%m-%dT%H:%M:%SZ")
    assert recipe("curl -sS http://127.0.0.1:9090/admin/tunnels | jq length") == "2\n"
    lines = recipe(r"""curl -sS http://127.0.0.1:9090/admin/tunnels | jq -r '.[] | "\(.subdomain)  \(.user_email)  """
                   r"""v\(.client_version)  \(.peer_addr)  age=\(.age_seconds)s"'""").splitlines()
    for line, row in zip(lines, rows):
        shown = re.fullmatch(r"(\S+)  (\S+)  v(\S+)  (\S+)  age=\d+s", line)
        assert shown.groups() == (row["subdomain"], row["user_email"], row["client_version"], row["peer_addr"])
    old = recipe("""curl -sS http://127.0.0.1:9090/admin/tunnels | jq '.[] | select(.client_version != "0.1.4")'""")
    assert json.loads(old)["subdomain"] == f"two-{user.slug}"


# ---- kick ----


def test_kick_closes_one_tunnel(server, user):
    victim, other = server.peer(user.token).connected(), server.peer(user.token).connected()
    response = kick(server, subdomain_of(victim))
    assert (response.status, json.loads(response.content)) == (200, {"kicked": subdomain_of(victim)})
    status, message = victim.refused()
    assert (status, "operator" in message) == (ABORTED, True), message
    wait_until(lambda: len(tunnels(server)) == 1, what="it is gone")
    assert server.fetch(victim.host).status == 502
    serve_one(server, other)
    server.program.wait_log(message="an operator closed a tunnel", subdomain=subdomain_of(victim))
    response = kick(server, subdomain_of(victim))
    assert response.status == 404
    assert json.loads(response.content)["error"] == "no_tunnel"


def test_kicked_name_is_free_at_once(server, user):
    first = server.peer(user.token, "web").connected()
    assert kick(server, subdomain_of(first)).status == 200
    first.refused()
    server.peer(user.token, "web").connected()


@pytest.mark.parametrize("subdomain", ["nobody", "a.b", "%2e%2e", "'", '"', "x" * 2000, "-", "WEB"])
def test_kick_of_nothing(shared_server, subdomain):
    response = kick(shared_server, subdomain)
    assert response.status == 404
    assert json.loads(response.content)["error"] == "no_tunnel"


# ---- health ----


def test_healthy_and_ready(server):
    assert (ask(server, "/healthz").status, ask(server, "/healthz").text.strip()) == (200, "ok")
    assert (ask(server, "/readyz").status, ask(server, "/readyz").text.strip()) == (200, "ready")


def test_not_ready_without_store(server, user):
    """The database stops answering and comes back: readiness follows, tunnels serve on, the process stays healthy."""
    peer = server.peer(user.token).connected()

    def rename(old, new):
        with sqlite3.connect(server.database_file, timeout=STEP) as db:
            db.execute(f"ALTER TABLE {old} RENAME TO {new}")
        db.close()

    rename("api_tokens", "away")
    wait_until(lambda: ask(server, "/readyz").status == 503, what="not ready")
    assert "store" in ask(server, "/readyz").text
    assert Metrics(server)("kavilo_store_reachable") == 0
    assert ask(server, "/healthz").status == 200
    serve_one(server, peer)
    rename("away", "api_tokens")
    wait_until(lambda: ask(server, "/readyz").status == 200, what="ready again")
    assert Metrics(server)("kavilo_store_reachable") == 1


def test_drain_can_be_watched(make_server):
    """During the drain the admin listener answers, and says so; it is the last to go."""
    server = make_server(grace="30s")
    peer = server.peer(server.user().token).connected()
    with server.visitor(peer.host) as visitor:
        visitor.request()
        request_id, _ = peer.request()
        server.program.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(server, "/readyz").status == 503, what="not ready")
        assert "draining" in ask(server, "/readyz").text
        assert ask(server, "/healthz").status == 200
        assert Metrics(server)("kavilo_edge_connections") == 1
        assert len(tunnels(server)) == 1
        peer.answer(request_id, 200, [("content-length", "2")], b"ok")
        assert visitor.response().content == b"ok"
    assert server.program.wait_exit() == 0


def test_open_admin_connections_delay_nothing(make_server):
    server = make_server(grace="30s")
    idle = Visitor(server.admin, "localhost")
    half = Visitor(server.admin, "localhost")
    idle.request("/metrics")
    assert idle.response().content
    half.send(b"GET /metrics HT")
    start = time.monotonic()
    assert server.program.stop() == 0
    assert time.monotonic() - start < 5 * PACE
    assert idle.source.at_end() and half.source.at_end()


# ---- HTTP ----


def test_keep_alive_and_pipelining(shared_server):
    with Visitor(shared_server.admin, "localhost") as visitor:
        for _ in range(3):
            visitor.request("/healthz")
            assert visitor.response().content == b"ok\n"
        targets = ["/healthz", "/readyz", "/metrics", "/nothing", "/admin/tunnels"] * 20
        visitor.send(b"".join(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % t.encode() for t in targets))
        for target in targets:
            response = visitor.response()
            assert response.content and response.keeps_alive
            assert response.status == (404 if target == "/nothing" else 200)


@pytest.mark.parametrize("target", ["/metrics", "/admin/tunnels", "/healthz", "/readyz", "/nothing"])
def test_head_is_get_without_a_body(shared_server, target):
    with Visitor(shared_server.admin, "localhost") as visitor:
        visitor.request(target, "HEAD")
        head = visitor.response("HEAD")
        visitor.request(target)
        get = visitor.response()
    assert head.status == get.status
    assert head.fields.one("content-type") == get.fields.one("content-type")
    # /metrics has numbers whose digits may grow between the two
    assert abs(int(head.fields.one("content-length")) - len(get.content)) <= (32 if target == "/metrics" else 0)


def test_answers_are_not_stored_or_sniffed(shared_server):
    for target in ("/metrics", "/admin/tunnels", "/nothing"):
        fields = ask(shared_server, target).fields
        assert fields.one("cache-control") == "no-store"
        assert fields.one("x-content-type-options") == "nosniff"
        datetime.strptime(fields.one("date"), "%a, %d %b %Y %H:%M:%S GMT")


@pytest.mark.parametrize(
    "target", ["/", "/metric", "/metrics/", "/Metrics", "//metrics", "/%6detrics", "/../metrics", "/readyz/x"]
)
def test_unknown_paths(shared_server, target):
    response = ask(shared_server, target)
    assert response.status == 404
    assert "/metrics" in response.text


@pytest.mark.parametrize("target", ["/admin/", "/admin/tunnels/", "/admin/tunnels/x", "/admin/tunnels//kick",
                                    "/admin/tunnels/a/b/kick", "/admin/tunnels/kick", "/admin/tunnels/x/kick/"])
def test_unknown_admin_paths_are_json(shared_server, target):
    for method in ("GET", "POST"):
        response = ask(shared_server, target, method)
        assert (response.status, json.loads(response.content)["error"]) == (404, "not_found")


@pytest.mark.parametrize(
    "method,target,allow",
    [
        ("POST", "/metrics", "GET, HEAD"),
        ("DELETE", "/admin/tunnels", "GET, HEAD"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
        ("get", "/readyz", "GET, HEAD"),
        ("GET", "/admin/tunnels/x/kick", "POST"),
        ("HEAD", "/admin/tunnels/x/kick", "POST"),
        ("PUT", "/admin/tunnels/x/kick", "POST"),
    ],
)
def test_wrong_method(shared_server, method, target, allow):
    response = ask(shared_server, target, method)
    assert (response.status, response.fields.one("allow")) == (405, allow)


def test_query_is_ignored(shared_server):
    assert ask(shared_server, "/healthz?a=b&c").status == 200


@pytest.mark.parametrize("body", [b"x", b"x" * 300000, [b"abc"]], ids=["short", "long", "chunked"])
def test_bodies_are_refused(shared_server, body):
    for method, target in (("GET", "/metrics"), ("POST", "/admin/tunnels/x/kick")):
        response = ask(shared_server, target, method, body=body)
        assert response.status == 413
        assert not response.keeps_alive


def test_empty_body_is_none(shared_server):
    assert kick(shared_server, "x", body=b"").status == 404


@pytest.mark.parametrize(
    "raw,status",
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\nHost: localhost\n\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 40000 + b"\r\n\r\n", 431),
    ],
    ids=["no-host", "bare-lf", "two-hosts", "two-framings", "tls", "h2", "large"],
)
def test_malformed_requests(shared_server, raw, status):
    with Visitor(shared_server.admin, "localhost") as visitor:
        visitor.send(raw)
        response = visitor.response()
        assert response.status == status
        assert response.content and not response.keeps_alive
        assert visitor.source.at_end()
    assert ask(shared_server, "/healthz").status == 200


def test_half_closed_peer_is_answered(shared_server):
    with Visitor(shared_server.admin, "localhost") as visitor:
        visitor.request("/metrics").end()
        assert parse_metrics(visitor.response().text)
        assert visitor.source.at_end()


@pytest.mark.first
def test_slow_head_is_cut(shared_server):
    """A head that trickles in does not hold its connection for ever."""
    with Visitor(shared_server.admin, "localhost", timeout=40) as visitor:
        visitor.send(b"GET /metrics HTTP/1.1\r\nHo")
        start = time.monotonic()
        assert visitor.source.at_end()
        assert 10 < time.monotonic() - start < 30


def test_peer_that_never_reads(server):
    """Thousands of requests and no reader: the server answers one after the other and stops when nothing leaves."""
    visitor = Visitor(server.admin, "localhost", timeout=1, buffer_size=4096)
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500
    rss = server.program.rss()
    with pytest.raises((Broken, socket.timeout)):
        for _ in range(400):
            visitor.send(request)
    assert server.program.rss() - rss < 32 << 20
    assert ask(server, "/healthz").status == 200
    visitor.abort()


def test_connections_have_a_cap(server):
    """Too many are turned away, the others are served, and there is room again when they go."""
    held = []

    def turned_away():
        visitor = Visitor(server.admin, "localhost")
        held.append(visitor)
        try:
            visitor.request("/healthz")
            return visitor.response().content != b"ok\n"
        except Broken:
            return True

    wait_until(turned_away, what="a connection too many", every=0)
    assert 64 <= len(held) <= 256
    held[0].request("/healthz")
    assert held[0].response().content == b"ok\n"
    for visitor in held:
        visitor.close()
    wait_until(lambda: not turned_away(), what="room again")
    for visitor in held:
        visitor.close()


# ---- who may ask ----


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "localhost.", "a.localhost", "127.0.0.1", "127.0.0.1:99",
                                  "10.1.2.3", "[::1]", "[::1]:9090"])
def test_own_hosts(shared_server, host):
    assert ask(shared_server, "/healthz", host=host).status == 200
    assert kick(shared_server, "x", host=host).status == 404
    assert kick(shared_server, "x", host=host, fields=[("Origin", f"http://{host.lower()}")]).status == 404


@pytest.mark.parametrize("host", ["evil.example", "tnl.test", "localhost.evil.example", "notlocalhost",
                                  "127.0.0.1.evil.example", "127.1", "0x7f000001", "2130706433", "evil.example:9090"])
def test_other_hosts(shared_server, host):
    """DNS rebinding: the page's own name is in Host, whatever address it resolved to."""
    for target in ("/metrics", "/admin/tunnels", "/healthz", "/nothing"):
        response = ask(shared_server, target, host=host)
        assert response.status == 403
        assert "kavilo_" not in response.text and "tunnels\"" not in response.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "https://localhost:1", "http://localhost",
                                    "http://localhost:2", "http://localhost:1/", "localhost:1"])
def test_other_origins_change_nothing(server, user, origin):
    peer = server.peer(user.token).connected()
    target = f"/admin/tunnels/{subdomain_of(peer)}/kick"
    response = ask(server, target, "POST", [("Origin", origin)], host="localhost:1")
    assert (response.status, json.loads(response.content)["error"]) == (403, "forbidden")
    both = [("Origin", "http://localhost:1"), ("Origin", origin)]
    assert ask(server, target, "POST", both, host="localhost:1").status == 403
    assert len(tunnels(server)) == 1
    server.program.wait_log(message="an admin request was refused", host="localhost:1")


# ---- admin tunnels, admin kick ----


def admin(server, *argv, url=None):
    return server.admin_command(*argv, "--admin-url", url or f"http://{server.admin[0]}:{server.admin[1]}")


def test_command_tunnels(server, user):
    peers = sorted((server.peer(user.token, version="9.9").connected() for _ in range(3)), key=subdomain_of)
    done = admin(server, "tunnels")
    assert (done.returncode, done.stderr) == (0, "")
    heading, *rows = done.stdout.splitlines()
    assert heading.split()[0] == "SUBDOMAIN"
    assert [row.split()[0] for row in rows] == [subdomain_of(p) for p in peers]
    at = heading.index("USER")
    for row, peer in zip(rows, peers):
        assert row[at:].startswith(user.email), "aligned"
        assert row.endswith(peer.welcome["public_url"])
        assert " 9.9 " in row
    done = admin(server, "tunnels", "--json")
    assert done.returncode == 0
    mine, listed = json.loads(done.stdout), tunnels(server)
    for row in mine + listed:
        del row["age_seconds"]
    assert mine == listed


def test_command_tunnels_cannot_move_the_cursor(server, user):
    server.peer(user.token, version="\x1b[2J\r\n").connected()
    done = admin(server, "tunnels")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert "\x1b" not in done.stdout and "\r" not in done.stdout


def test_command_without_tunnels(server):
    done = admin(server, "tunnels")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no tunnel" in done.stderr
    done = admin(server, "tunnels", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])


def test_command_kick(server, user):
    peer = server.peer(user.token, "web").connected()
    done = admin(server, "kick", "--subdomain", subdomain_of(peer).upper())
    assert (done.returncode, done.stdout) == (0, ""), done
    assert subdomain_of(peer) in done.stderr
    assert peer.refused()[0] == ABORTED
    done = admin(server, "kick", "--subdomain", subdomain_of(peer))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"'{subdomain_of(peer)}'" in done.stderr
    peer = server.peer(user.token, "web").connected()
    done = admin(server, "kick", "--subdomain", subdomain_of(peer), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"kicked": subdomain_of(peer)})


@pytest.mark.parametrize("form", ["{host}:{port}", "http://{host}:{port}/", "http://localhost:{port}"])
def test_forms_of_the_url(server, form):
    url = form.format(host=server.admin[0], port=server.admin[1])
    assert admin(server, "tunnels", url=url).returncode == 0
    server.env["KAVILO_ADMIN_URL"] = url
    assert server.admin_command("tunnels").returncode == 0


@pytest.mark.parametrize("url", ["https://127.0.0.1:9090", "http://", "http://a b", "http://127.0.0.1:0x",
                                 "http://127.0.0.1:99999", "http://127.0.0.1:9090/admin", "http://me@127.0.0.1", "ftp://127.0.0.1"])
def test_bad_urls(shared_server, url):
    done = admin(shared_server, "tunnels", url=url)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--admin-url" in done.stderr and url in done.stderr


@pytest.mark.parametrize("subdomain", ["", "a.b", "-a", "a/b", "a b", "x" * 64, "é"])
def test_bad_subdomains(shared_server, subdomain):
    done = admin(shared_server, "kick", "--subdomain", subdomain)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--subdomain" in done.stderr


def test_nothing_listens(shared_server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = admin(shared_server, "tunnels", url=f"http://127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "127.0.0.1" in done.stderr and str(port) in done.stderr and "refused" in done.stderr


def test_something_else_listens(shared_server, make_origin):
    """The edge, a web server, something that is no HTTP, something that hangs up: one sentence each."""
    host, port = shared_server.edge
    for url in (f"http://{host}:{port}", make_origin(lambda ex: ex.reply("<html>")).url,
                make_origin(lambda ex: ex.reply('{"tunnels": 3}')).url, make_origin(lambda ex: ex.reply('{"tunnels": []}')).url,
                make_origin(raw=lambda c: c.sock.sendall(b"220 mail\r\n")).url, make_origin(raw=lambda c: None).url,
                make_origin(lambda ex: (ex.head(200, [("Content-Length", "100")]), ex.close())).url):
        for words in (["tunnels"], ["kick", "--subdomain", "x"]):
            done = admin(shared_server, *words, url=url)
            assert (done.returncode, done.stdout) == (1, ""), (url, done)
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.first
def test_a_listener_that_never_answers(shared_server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        done = admin(shared_server, "tunnels", url=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (1, "")
    assert 5 < time.monotonic() - start < 15
