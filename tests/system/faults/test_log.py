"""The log's end is stuck or full: requests go on, and the lines that were lost are counted and said."""

import re

from harness.disk import fill
from harness.http1 import Visitor
from harness.settings import STEP
from harness.wait import wait_until

LOST = "log lines were lost: standard error took no more"
# Reads until the server listens, then nothing until the file `thaw` is there. It ends with the server, or by itself.
STUCK_READER = "sed -u /listening/q >&2; for i in {1..600}; do [ -e thaw ] && exec cat >&2; sleep 0.1; done"


def dropped(server):
    with Visitor(server.admin, "localhost") as visitor:
        text = visitor.request("/metrics").response().text
    return int(re.search(r"^kavilo_log_lines_dropped_total (\d+)$", text, re.MULTILINE)[1])


def visit_until(server, host, predicate, what):
    """Requests, each of them right, until something is so."""
    with server.visitor(host) as visitor:

        def after_some():
            for _ in range(50):
                assert visitor.request("/x").response().content
            return predicate()

        wait_until(after_some, STEP, what)


def loses_and_tells(server, host, stick, thaw):
    assert dropped(server) == 0
    stick()
    visit_until(server, host, lambda: dropped(server) > 100, "lines are lost")
    thaw()
    visit_until(server, host, lambda: server.program.log(message=LOST), "the log says so")
    assert sum(line["lines"] for line in server.program.log(message=LOST)) == dropped(server)


def test_reader_of_the_log_is_stuck(make_server, make_client, origin):
    server = make_server(wrap=["bash", "-c", f'exec "$@" 2> >({STUCK_READER})', "bash"])
    server.wrap = []
    client = make_client(server, origin, server.user().token)
    loses_and_tells(server, client.host, lambda: None, (server.folder / "thaw").touch)
    assert len(client.ready) == 1


def test_disk_of_the_log_is_full(small_disk, make_server, make_client, origin, tmp_path):
    server = make_server(folder=small_disk, database=f"sqlite:{tmp_path}/accounts.db")
    client = make_client(server, origin, server.user().token)
    loses_and_tells(server, client.host, lambda: fill(small_disk), (small_disk / "filler").unlink)
    assert len(client.ready) == 1


def test_client_that_cannot_log(server, user, origin, make_client):
    client = make_client(server, origin, user.token, wrap=["bash", "-c", 'exec "$@" 2>/dev/full', "bash"])
    for _ in range(50):
        assert server.fetch(client.host).status == 200
    assert client.program.stderr() == ""
