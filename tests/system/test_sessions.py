"""Sessions that take a name from each other: who serves at any moment, what is left of the others, and who gives way."""

import json
import re
import threading
import time

import pytest

from harness import protobuf
from harness.grpclink import LinkClosed
from harness.http1 import Broken, Visitor
from harness.process import RssMeter
from harness.proxy import Proxy
from harness.settings import MiB, PACE, STEP
from harness.wait import TooLate, stays, wait_until

ROUNDS = 200
OURS = {"features": protobuf.ALL_FEATURES, "initial_credit": 65536}


def ask(server, target):
    with Visitor(server.admin, "127.0.0.1") as visitor:
        visitor.request(target, fields=[("Connection", "close")])
        return visitor.response().text


def tunnels(server):
    return json.loads(ask(server, "/admin/tunnels"))


def gauges(server, *names):
    text = ask(server, "/metrics")
    return {name: float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1]) for name in names}


class Holder:
    """A raw client that answers each request with its own number, until it is evicted."""

    def __init__(self, server, token, number, **hello):
        self.number = number
        self.asked = time.monotonic()  # it cannot hold the name before this
        self.peer = server.peer(token, "laptop", takeover=True, **OURS, **hello).connected()
        self.welcomed = time.monotonic()  # and holds it from here at the latest
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        try:
            while True:
                frame = self.peer.receive(60)
                if "request_head" in frame:
                    self.peer.answer(frame["request_id"], content=str(self.number).encode())
        except (LinkClosed, TooLate, OSError):
            pass


class Visits:
    """Visitors that ask all the time; (start, end, status, text or code) of every answer."""

    def __init__(self, server, host, count):
        self.server, self.host = server, host
        self.answers, self.over = [], threading.Event()
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _ask(self):
        while not self.over.is_set():
            start = time.monotonic()
            try:
                response = self.server.fetch(self.host)
                answer = response.text if response.status == 200 else response.fields.one("kavilo-error")
                self.answers.append((start, time.monotonic(), response.status, answer))
            except Broken as broken:  # cut off in the middle of an answer: no answer at all
                self.answers.append((start, time.monotonic(), 0, str(broken)))

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(STEP)
        return self.answers


@pytest.mark.first
def test_200_swaps_of_one_name(server, user):
    """Two clients that take one name from each other, 200 times, under visitors: each answer comes from one that held the
    name while the request ran; at the end there is one registration, one row, and nothing left of the others."""
    holders = [Holder(server, user.token, 0, instance_id=bytes(16))]
    host = holders[0].peer.host
    visits = Visits(server, host, 2)

    def swap(first, last):
        for number in range(first, last):
            holders.append(Holder(server, user.token, number, instance_id=bytes([number % 2] * 16)))
            holders[-2].peer.close()

    swap(1, 21)  # what is allocated once
    descriptors = server.program.descriptors()
    meter = RssMeter(server.program)
    swap(21, ROUNDS + 1)
    meter.check(4 * MiB)
    answers = visits.end()

    served = 0
    for start, end, status, answer in answers:
        if status != 200:
            # no_tunnel: found the holder, and reached it when it was one no more.
            assert status == 0 or status == 502 and answer in ("client_gone", "taken_over", "no_tunnel"), (status, answer)
            continue
        served += 1
        number = int(answer)
        gone = holders[number + 1].welcomed if number < ROUNDS else float("inf")
        assert start <= gone and end >= holders[number].asked, f"{number} answered when it did not hold the name"
    assert served > ROUNDS / 4, f"{served} of {len(answers)} answered"

    assert [t["subdomain"] for t in tunnels(server)] == [holders[-1].peer.welcome["subdomain"]]
    assert server.sql("SELECT count(*) FROM tunnels") == [(1,)]
    wait_until(lambda: server.program.descriptors() <= descriptors, what="no descriptor is left of the others")
    wanted = {"kavilo_tunnels_active": 1, "kavilo_control_connections": 1, "kavilo_credit_granted_bytes": 0}
    wait_until(lambda: gauges(server, *wanted) == wanted, what="the gauges count one tunnel")
    assert gauges(server, "kavilo_tunnels_connected_total")["kavilo_tunnels_connected_total"] == ROUNDS + 1
    holders[-1].peer.close()
    wait_until(lambda: not tunnels(server), what="no registration")


@pytest.mark.parametrize("how", [{"takeover": True, "instance_id": bytes(16)}, {"instance_id": bytes(range(16))}],
                         ids=["takeover", "own ghost"])
def test_half_open_link_is_replaced_at_once(server, user, how):
    """The holder's line is dead and nobody knows it yet: who may replace it does not wait for the verdict, and visitors
    are served by the newcomer from then on."""
    with Proxy(server.control) as line:
        ghost = server.peer(user.token, "laptop", endpoint=line.endpoint, instance_id=bytes(range(16)), **OURS).connected()
        line.freeze()
        newcomer = server.peer(user.token, "laptop", **OURS, **how).connected()
        with server.visitor(newcomer.host) as visitor:
            visitor.request()
            request_id, _ = newcomer.request()
            newcomer.answer(request_id, 204)
            assert visitor.response().status == 204
        line.thaw()  # what was held back arrives, and moves nobody
        ghost.link.wait_over()
        assert [t["subdomain"] for t in tunnels(server)] == [newcomer.welcome["subdomain"]]
        ghost.close()
        newcomer.close()


def test_evicted_clients_give_way(server, user, make_origin, make_client):
    """Four real clients, each with --takeover: the last one has the name, the others try again later and later and never
    take it back; when the last one goes, one of them has it."""
    clients = []
    for number in range(4):
        service = make_origin(lambda ex, n=number: ex.reply(str(n)))
        clients.append(make_client(server, service, user.token, "--takeover", name="laptop"))
    host, last = clients[-1].host, clients[-1]
    for client in clients[:-1]:
        client.program.wait_log(message=re.compile("^tunnel lost"), error="another client took this tunnel's name")
        conflict = {"message": re.compile("^no tunnel yet"), "status": "ALREADY_EXISTS"}
        client.program.wait(lambda c=client: len(c.program.log(**conflict)) >= 2, what="two refusals")
        waits = [e["in_ms"] for e in client.program.log(message=re.compile("^tunnel lost|^no tunnel yet"))]
        assert waits[0] >= 750 and waits[-1] > waits[0], waits
    stays(lambda: server.fetch(host).text == "3", 0.5, "the last one serves")
    assert [len(client.ready) for client in clients] == [1, 1, 1, 1]
    assert len(tunnels(server)) == 1
    last.program.kill()
    wait_until(lambda: any(len(client.ready) == 2 for client in clients[:-1]), 15 * PACE, "one of the others is back")
    assert server.fetch(host).text in "012"
