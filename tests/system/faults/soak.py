#!/usr/bin/python3
"""
Mixed traffic under random faults, for as long as one likes.

    soak.py [SECONDS] [--seed N] [--visitors N]

One server, four tunnels (two of them through a proxy that is cut), visitors of every kind. Meanwhile clients are killed,
the server is stopped or killed and started again, links are cut, visitors stall and give up. Every complete body is
compared by its hash. A request may fail only while a fault is at work on its tunnel, from the fault to the moment all is
back; anything else is unexplained and fails the run, as do a wrong byte, memory that grows and descriptors that stay.

The last third has no faults at the server, so that one process lives long enough for its memory to say something. The
seed decides what is done, not how the threads meet.
"""

import argparse
import collections
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

# pylint: disable=wrong-import-position
from harness import h2visitor  # noqa: E402
from harness.http1 import Broken, Pattern  # noqa: E402
from harness.origin import Origin  # noqa: E402
from harness.process import Program  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from harness.settings import PACE, STEP  # noqa: E402
from harness.tunnel import Client, Server  # noqa: E402
from harness.wait import TooLate, wait_until  # noqa: E402

TUNNELS = 4
EVERYWHERE = None  # a fault at the server is one of all tunnels
PATIENCE = 20 * PACE  # of a visitor with one step
BACK = 40 * PACE  # until all is back after a fault
SPREAD = 0.3  # a fault's beginning and end as seen by a thread that was not scheduled meanwhile
RSS_GROWTH = 24 << 20


class Wrong(AssertionError):
    """Bytes that are not those that were sent, in an answer that looked complete."""


class Failed(Exception):
    """A request that did not get its answer."""


class Starter:
    """What conftest's Programs is to tests."""

    def __init__(self):
        self.all = []

    def start(self, name, argv, folder, env, **how):
        program = Program(f"{len(self.all)}-{name}", argv, folder, env, **how)
        self.all.append(program)
        return program

    def finish(self):
        return [wrong for program in reversed(self.all) for wrong in program.finish()]


# ---- visitors ---------------------------------------------------------------------------------------------------


def good(response):
    if response.status != 200:
        raise Failed(f"{response.status} {response.fields.get('kavilo-error')}")
    return response


def same(body, pattern):
    if body.digest() != pattern.digest:
        raise Wrong(f"a body of {body.size} bytes instead of {pattern.size}")
    return pattern.size


class Kinds:
    """What visitors do. Each gets (soak, host, rng) and returns the bytes that were compared."""

    @staticmethod
    def pattern(rng, most=600_000):
        return Pattern(rng.choice((0, 1, 1000, 65536, rng.randrange(most))), rng.randrange(50))

    @staticmethod
    def download(soak, host, rng, how=""):
        pattern = Kinds.pattern(rng)
        with soak.visitor(host) as visitor:
            return sum(same(good(visitor.request(f"/body?size={pattern.size}&seed={pattern.seed}{how}").response()).body, pattern)
                       for _ in range(1 if how else rng.randrange(1, 6)))

    @staticmethod
    def chunked(soak, host, rng):
        return Kinds.download(soak, host, rng, "&chunked=1")

    @staticmethod
    def until_close(soak, host, rng):
        return Kinds.download(soak, host, rng, "&until_close=1")

    @staticmethod
    def head(soak, host, rng):
        with soak.visitor(host) as visitor:
            response = good(visitor.request("/body?size=70000", "HEAD").response("HEAD"))
            if response.fields.one("content-length") != "70000":
                raise Wrong("the length of a HEAD")
            return len(good(visitor.request("/after").response()).content)

    @staticmethod
    def upload(soak, host, rng):
        pattern = Kinds.pattern(rng)
        body = pattern.bytes() if rng.randrange(2) else pattern
        with soak.visitor(host) as visitor:
            content = good(visitor.request("/echo", "POST", body=body).response()).content
            if pattern.digest.encode() not in content:
                raise Wrong("an upload's hash")
            return pattern.size

    @staticmethod
    def mirror(soak, host, rng):
        pattern = Kinds.pattern(rng, 200_000)
        with soak.visitor(host) as visitor:
            response = good(visitor.request("/mirror", "POST", body=pattern).response())
            size = same(response.body, pattern)
            if response.body.trailers.get("x-mirrored") != str(pattern.size):
                raise Wrong("trailers")
            return size

    @staticmethod
    def interim(soak, host, rng):
        with soak.visitor(host) as visitor:
            response = good(visitor.request("/interim").response())
            if response.content != b"final" or [i.status for i in response.interims] != [103, 102]:
                raise Wrong("1xx")
            return 5

    @staticmethod
    def events(soak, host, rng):
        with soak.visitor(host) as visitor:
            if good(visitor.request("/sse?n=5&gap=0.1").response()).content != b"".join(b"data: %d\n\n" % i for i in range(5)):
                raise Wrong("events")
            return 40

    @staticmethod
    def upgrade(soak, host, rng):
        with soak.visitor(host) as visitor:
            response = visitor.request("/upgrade", fields=[("Connection", "Upgrade"), ("Upgrade", "shout")]).response()
            if response.status != 101:
                raise Failed(f"{response.status} {response.fields.get('kavilo-error')}")
            for n in range(rng.randrange(1, 20)):
                message = (b"message %d;" % n) * rng.randrange(1, 500)
                visitor.send(message)
                if visitor.source.exactly(len(message)) != message.upper():
                    raise Wrong("an upgraded stream")
            return 1000

    @staticmethod
    def http2(soak, host, rng):
        patterns = [Kinds.pattern(rng, 200_000) for _ in range(rng.randrange(1, 6))]
        answers = h2visitor.fetch(soak.server.edge, host, [f"/body?size={p.size}&seed={p.seed}" for p in patterns], PATIENCE)
        for pattern, (status, fields, digest, complete) in zip(patterns, answers):
            if status != 200 or not complete:
                raise Failed(f"{status} {fields.get('kavilo-error')} complete={complete}")
            if digest != pattern.digest:
                raise Wrong("a body on HTTP/2")
        return sum(p.size for p in patterns)

    @staticmethod
    def stalled(soak, host, rng):
        """Reads slowly, with a small buffer, and to the end or not."""
        pattern = Pattern(1_500_000, rng.randrange(50))
        with soak.visitor(host, buffer_size=8192) as visitor:
            body = good(visitor.request(f"/body?size={pattern.size}&seed={pattern.seed}").response()).body
            if rng.randrange(2):
                body.source.some(1000)
                soak.pause(rng.uniform(0.5, 3))
                visitor.abort()
                return 0
            soak.pause(rng.uniform(0.5, 2))
            return same(body, pattern)

    @staticmethod
    def aborted_upload(soak, host, rng):
        with soak.visitor(host) as visitor:
            visitor.request("/up", "POST", [("Content-Length", "1000000")])
            visitor.send(bytes(rng.randrange(1, 300_000)))
            soak.pause(rng.uniform(0, 0.2))
            visitor.abort()
            return 0


KINDS = [Kinds.download, Kinds.chunked, Kinds.until_close, Kinds.head, Kinds.upload, Kinds.mirror, Kinds.interim, Kinds.events,
         Kinds.upgrade, Kinds.http2, Kinds.stalled, Kinds.aborted_upload]


# ---- the run ----------------------------------------------------------------------------------------------------


class Fault:
    def __init__(self, kind, tunnel):
        self.kind, self.tunnel = kind, tunnel
        self.began, self.ended = time.monotonic(), None

    def explains(self, tunnel, began, ended):
        return (self.tunnel in (EVERYWHERE, tunnel) and self.began - SPREAD <= ended
                and (self.ended is None or began <= self.ended + SPREAD))


class Soak:
    def __init__(self, folder, seconds, seed, visitors):
        self.folder, self.seconds, self.seed, self.visitors = pathlib.Path(folder), seconds, seed, visitors
        self.programs = Starter()
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.good, self.explained, self.faults = collections.Counter(), collections.Counter(), []
        self.failures, self.wrong, self.bytes = [], [], 0

    def visitor(self, host, **how):
        try:
            return self.server.visitor(host, timeout=PATIENCE, **how)
        except OSError as error:
            raise Failed(f"no connection: {error}") from error

    def pause(self, seconds):
        """The rhythm of a visitor or of the faults."""
        self.done.wait(seconds)

    def set_up(self):
        self.server = Server(self.programs, self.folder / "server", grace="1s", level="info").start()
        self.token = self.server.user().token
        self.origin = Origin()
        self.proxies = [Proxy(self.server.control) for _ in range(TUNNELS // 2)]
        self.clients = [self.client(n) for n in range(TUNNELS)]
        for client in self.clients:
            client.wait_ready()
        self.hosts = [client.host for client in self.clients]

    def client(self, number):
        endpoint = self.proxies[number].endpoint if number < len(self.proxies) else self.server.endpoint
        return Client(self.programs, self.folder / f"client{number}", endpoint, self.origin.url, self.token, f"t{number}",
                      level="info", label=f"tunnel{number}")

    # ---- visitors

    def visit(self, number):
        rng = random.Random(f"{self.seed}/{number}")
        while not self.done.is_set():
            kind, tunnel = rng.choice(KINDS), rng.randrange(TUNNELS)
            began = time.monotonic()
            try:
                size = kind(self, self.hosts[tunnel], rng)
            except Wrong as error:
                with self.lock:
                    self.wrong.append(f"{kind.__name__} on t{tunnel}: {error}")
            except (Failed, Broken, OSError) as error:
                with self.lock:
                    self.failures.append((kind.__name__, tunnel, began, time.monotonic(), f"{type(error).__name__}: {error}"))
                self.pause(0.1)
            except Exception as error:  # pylint: disable=broad-except
                with self.lock:
                    self.wrong.append(f"{kind.__name__} on t{tunnel}: {type(error).__name__}: {error}")
            else:
                with self.lock:
                    self.good[kind.__name__] += 1
                    self.bytes += size
            if rng.random() < 0.3:
                self.pause(rng.uniform(0, 0.1))

    # ---- faults

    def serves(self, number):
        try:
            return self.server.fetch(self.hosts[number], timeout=5 * PACE).status == 200
        except (OSError, Broken):
            return False

    def all_back(self, *numbers):
        for number in numbers or range(TUNNELS):
            wait_until(lambda n=number: self.serves(n), BACK, f"t{number} serves again", every=0.05)

    def kill_client(self, rng):
        number = rng.randrange(TUNNELS)
        fault = self.begin("client killed", number)
        self.clients[number].program.kill()
        self.clients[number] = self.client(number).wait_ready(seconds=BACK)
        self.all_back(number)
        fault.ended = time.monotonic()

    def cut_link(self, rng):
        number = rng.randrange(len(self.proxies))
        fault = self.begin("link cut", number)
        self.proxies[number].cut()
        count = len(self.clients[number].ready)
        wait_until(lambda: len(self.clients[number].ready) > count, BACK, f"t{number} reconnects")
        self.all_back(number)
        fault.ended = time.monotonic()

    def stop_server(self, rng):
        del rng
        fault = self.begin("server stopped", EVERYWHERE)
        self.server.restart(seconds=BACK)
        self.all_back()
        fault.ended = time.monotonic()

    def kill_server(self, rng):
        del rng
        fault = self.begin("server killed", EVERYWHERE)
        self.server.program.kill()
        self.server.again()
        self.all_back()
        fault.ended = time.monotonic()

    def begin(self, kind, tunnel):
        fault = Fault(kind, tunnel)
        self.faults.append(fault)
        return fault

    def break_things(self):
        """On the main thread, which starts the programs."""
        rng = random.Random(self.seed)
        end = time.monotonic() + self.seconds
        calm = end - self.seconds / 3
        steady = None
        while (now := time.monotonic()) < end:
            if now < calm:
                rng.choice((self.kill_client, self.cut_link, self.stop_server, self.kill_server))(rng)
            else:
                steady = steady or self.server.program.rss()
                rng.choice((self.kill_client, self.cut_link))(rng)
            self.check()
            self.pause(min(rng.uniform(1, 4), max(0, end - time.monotonic())))
        return steady or self.server.program.rss()

    def check(self):
        for program in [self.server.program] + [c.program for c in self.clients]:
            program.check()

    # ---- the end

    def judge(self):
        for kind, tunnel, began, ended, why in self.failures:
            fault = next((f for f in self.faults if f.explains(tunnel, began, ended)), None)
            if fault:
                self.explained[fault.kind] += 1
            else:
                self.wrong.append(f"unexplained: {kind} on t{tunnel} after {ended - began:.1f} s: {why}")

    def settle(self, idle, steady):
        """Nobody visits any more: what the programs hold is what they held in the beginning."""
        server = self.server.program
        self.all_back()
        wait_until(lambda: server.descriptors() <= idle, STEP * 2, f"{idle} descriptors at the server again")
        self.growth = server.rss() - steady
        if self.growth > RSS_GROWTH:
            self.wrong.append(f"the server's memory grew by {self.growth >> 10} KiB in the last third")

    def run(self):
        self.set_up()
        self.all_back()
        idle = self.server.program.descriptors() + 8  # database files, connections that linger
        threads = [threading.Thread(target=self.visit, args=(n,), daemon=True) for n in range(self.visitors)]
        for thread in threads:
            thread.start()
        try:
            steady = self.break_things()
            self.done.set()
            for thread in threads:
                thread.join(PATIENCE * 2)
            if any(thread.is_alive() for thread in threads):
                self.wrong.append("a visitor hangs")
            self.settle(idle, steady)
        except (TooLate, AssertionError) as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            self.done.set()
            self.wrong += self.programs.finish()
            for proxy in self.proxies:
                proxy.close()
            self.origin.close()
        self.judge()
        return self

    def report(self):
        faults = collections.Counter(f.kind for f in self.faults)
        print(f"seed {self.seed}, {self.seconds:.0f} s, {self.visitors} visitors, {TUNNELS} tunnels")
        print("  right    " + ", ".join(f"{k} {n}" for k, n in sorted(self.good.items())))
        print(f"           {sum(self.good.values())} requests or more, {self.bytes >> 20} MiB compared")
        print("  faults   " + ", ".join(f"{k} {n}" for k, n in sorted(faults.items())))
        longest = max((f.ended - f.began for f in self.faults if f.ended), default=0)
        print(f"           the longest until all was back: {longest:.1f} s")
        print("  failed   " + (", ".join(f"{n} by {k}" for k, n in sorted(self.explained.items())) or "none"))
        if hasattr(self, "growth"):
            print(f"  memory   {self.growth >> 10:+} KiB at the server over the last third; descriptors as before")
        print(f"  wrong    {len(self.wrong)}")
        for sentence in self.wrong[:20]:
            print("    " + sentence[:600])


def main():
    parser = argparse.ArgumentParser(description="mixed traffic under random faults, every body compared")
    parser.add_argument("seconds", type=float, nargs="?", default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--visitors", type=int, default=8)
    given = parser.parse_args()
    print(f"soak: seed {given.seed}", flush=True)
    folder = tempfile.mkdtemp(prefix="kavilo-soak.")
    soak = Soak(folder, given.seconds, given.seed, given.visitors).run()
    soak.report()
    if soak.wrong:
        print(f"  the programs' logs are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
