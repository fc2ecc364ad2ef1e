#!/usr/bin/python3
"""
A server with thousands of tunnels is killed and started again: all clients come back at once.

    storm.py [CLIENTS] [--names random|stable] [--postgres]

Clients that carry nothing (harness/swarm.py) and some real ones with visitors. Told: how long until the last is back, what
that cost the server and the database, what visitors of tunnels that were back noticed, and that no two had one name.
"""

import argparse
import pathlib
import resource
import shutil
import sys
import tempfile
import threading
import time

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

# pylint: disable=wrong-import-position
from harness.http1 import Broken  # noqa: E402
from harness.origin import Origin  # noqa: E402
from harness.settings import PACE  # noqa: E402
from harness.swarm import Swarm  # noqa: E402
from harness.tunnel import Client, Server  # noqa: E402
from soak import Starter  # noqa: E402
from store_tools import Postgres, PostgresDatabase  # noqa: E402

USERS = 20
REAL = 4
BACK = 30 * PACE  # the promise


def processor_time(program):
    with open(f"/proc/{program.pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Visits(threading.Thread):
    """Requests through one tunnel, one behind another, from the moment it is back; the slowest and the failed."""

    def __init__(self, server, host):
        super().__init__(daemon=True)
        self.server, self.host = server, host
        self.done = threading.Event()
        self.served, self.slowest, self.failed = 0, 0, []
        self.start()

    def run(self):
        while not self.done.is_set():
            began = time.monotonic()
            try:
                status = self.server.fetch(self.host, timeout=BACK).status
            except (OSError, Broken) as error:
                status = error
            if status == 200:
                self.served += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
            elif self.served:
                self.failed.append(status)
            self.done.wait(0.02)


class Storm:
    def __init__(self, folder, clients, stable, database=None, watch=5):
        self.folder, self.count, self.stable, self.database = pathlib.Path(folder), clients, stable, database
        self.watch = watch  # seconds for which the server is looked at afterwards
        self.programs = Starter()
        self.wrong = []
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        need = clients + 500
        if need > hard:
            raise SystemExit(f"storm: {clients} clients need {need} descriptors, the limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))

    def transactions(self):
        """What PostgreSQL has committed and given up."""
        if not self.database:
            return 0
        return int(self.database.sql("SELECT pg_stat_clear_snapshot(); SELECT xact_commit + xact_rollback FROM pg_stat_database "
                                     f"WHERE datname = '{self.database.name}'")[-1][0])

    def all_back(self, what):
        took = self.swarm.run(BACK * 2, lambda: self.swarm.up == self.count and all(len(c.ready) > self.rounds for c in self.real))
        if took is None or took > BACK:
            self.wrong.append(f"{what}: {self.swarm.up} of {self.count} clients after {took or BACK * 2:.1f} s")
        names = [m.welcome["subdomain"] for m in self.swarm.members if m.welcome] + [c.subdomain for c in self.real]
        if len(set(names)) != len(names):
            self.wrong.append(f"{what}: two tunnels have one name")
        return took or BACK * 2

    def run(self):
        self.server = Server(self.programs, self.folder / "server", level="info", grace="1s",
                             database=self.database.url if self.database else None).start()
        tokens = [self.server.user(f"u{n}@example.com").token for n in range(USERS)]
        origin = Origin()
        self.real = [Client(self.programs, self.folder / f"real{n}", self.server.endpoint, origin.url, tokens[0],
                            f"real{n}", level="info", label=f"real{n}").wait_ready() for n in range(REAL)]
        self.swarm = Swarm(self.server.control, [(tokens[n % USERS], f"n{n}" if self.stable else None) for n in range(self.count)])
        self.rounds = 0
        try:
            self.measure()
        finally:
            self.swarm.close()
            self.wrong += self.programs.finish()
            origin.close()
        return self

    def measure(self):
        self.swarm.start()
        self.first = self.all_back("at first")
        subdomains = {m.name: m.welcome["subdomain"] for m in self.swarm.members if m.welcome}
        self.swarm.failures.clear()
        before = self.transactions()
        self.server.program.kill()
        self.rounds = 1
        self.server.again()
        visits = Visits(self.server, self.real[0].host)
        self.again = self.all_back("after the restart")
        self.cost = processor_time(self.server.program)
        self.swarm.run(BACK, lambda: visits.served)
        visits.done.set()
        visits.join(BACK)
        self.visits = visits
        self.asked = self.transactions() - before
        if visits.failed or not visits.served:
            self.wrong.append(f"visitors of a tunnel that was back: {visits.served} served, failed {visits.failed[:5]}")
        if self.stable and subdomains != {m.name: m.welcome["subdomain"] for m in self.swarm.members if m.welcome}:
            self.wrong.append("a client came back under another name")
        began = processor_time(self.server.program)
        self.swarm.run(self.watch)
        self.idle = (processor_time(self.server.program) - began) / self.watch
        if self.swarm.up != self.count:
            self.wrong.append(f"{self.count - self.swarm.up} clients were lost again")
        self.memory = self.server.program.rss()

    def report(self):
        store = "PostgreSQL" if self.database else "SQLite"
        print(f"{self.count} clients, {'stable' if self.stable else 'random'} names, {store}")
        print(f"  at first all up after {self.first:.1f} s, after the restart all back after {self.again:.1f} s")
        print(f"  the server used {self.cost:.1f} s of processor time for it, then {100 * self.idle:.1f} % of one core; "
              f"{self.memory >> 20} MiB")
        if self.database:
            print(f"  {self.asked} transactions, {self.asked / self.count:.2f} a client")
        print(f"  visitors meanwhile: {self.visits.served} served, {len(self.visits.failed)} failed, the slowest "
              f"{self.visits.slowest:.2f} s")
        print(f"  tries that failed: {dict(self.swarm.failures) or 'none'}")
        print(f"  wrong: {len(self.wrong)}")
        for sentence in self.wrong[:10]:
            print("    " + sentence[:600])


def main():
    parser = argparse.ArgumentParser(description="all clients come back at once after a restart of the server")
    parser.add_argument("clients", type=int, nargs="?", default=5000)
    parser.add_argument("--names", choices=("random", "stable"), default="stable")
    parser.add_argument("--postgres", action="store_true")
    given = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="kavilo-storm.")
    cluster = Postgres() if given.postgres else None
    try:
        storm = Storm(folder, given.clients, given.names == "stable", PostgresDatabase(cluster) if cluster else None).run()
    finally:
        if cluster:
            cluster.close()
    storm.report()
    if storm.wrong:
        print(f"  the programs' logs are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
