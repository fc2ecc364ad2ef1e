"""
Databases for the account tests, and the admin commands on them: a PostgreSQL cluster that a test may kill, pause and start
again, and one face for a SQLite file and a PostgreSQL database. store_fixtures.py makes fixtures of them.
"""

import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile

import pytest

from harness.process import base_environment, run
from harness.settings import STEP, TUNNELD
from harness.wait import wait_until

UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")


def _postgres_bin():
    for folder in sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    return pathlib.Path(found).parent if found else None


def _lives(pid):
    """Whether a process runs: one that waits for its parent to take notice has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Postgres:
    """A cluster in a short-named temporary folder (socket paths are short). It refuses to run as root, so root's tests
    run it as the user postgres."""

    def __init__(self):
        self.bin = _postgres_bin()
        if not self.bin:
            pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kavilo-pg.", dir="/tmp"))
        self.user = {}
        if os.getuid() == 0:
            postgres = pwd.getpwnam("postgres")
            self.user = {"user": postgres.pw_uid, "group": postgres.pw_gid, "extra_groups": []}
            os.chown(self.folder, postgres.pw_uid, postgres.pw_gid)
        self.process = None
        self.databases = 0
        self._run("initdb", "-D", self.folder / "data", "-U", "kavilo", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
                  "--no-sync")
        self.start()

    def _run(self, program, *words):
        done = subprocess.run([str(self.bin / program), *map(str, words)], cwd=self.folder, capture_output=True, check=False,
                              **self.user)
        assert done.returncode == 0, done

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.folder / "data", "-c", "listen_addresses=", "-c", "max_connections=200",
                 "-c", f"unix_socket_directories={self.folder}"],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.user)
        wait_until(self.answers, STEP * 2, "PostgreSQL answers")
        return self

    def answers(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        return subprocess.run([self.bin / "pg_isready", "-q", "-t", "1", "-h", self.folder], check=False).returncode == 0

    def _all(self):
        """The postmaster and its children."""
        pids = [self.process.pid]
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid:
                pids.append(int(stat.parent.name))
        return pids

    def _signal(self, number):
        for pid in self._all():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        """As a power cut of its host: every process at once."""
        children = self._all()[1:]
        self._signal(signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not any(map(_lives, children)), STEP, "the children's end")

    def pause(self):
        self._signal(signal.SIGSTOP)

    def resume(self):
        self._signal(signal.SIGCONT)

    def close(self):
        if self.process and self.process.poll() is None:
            self.resume()
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
        shutil.rmtree(self.folder)

    def url(self, name="postgres"):
        return f"postgres://kavilo@/{name}?host={self.folder}"

    def psql(self, name, *words):
        """As an operator would; the output's lines."""
        done = subprocess.run([self.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", "kavilo",
                               "-d", name, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def make_database(self):
        self.databases += 1
        name = f"t{self.databases}"
        self.psql("postgres", "-c", f"CREATE DATABASE {name}")
        return name


class SqliteDatabase:
    kind = "sqlite"

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "accounts.db"
        self.url = f"sqlite:{self.file}"

    def sql(self, statement):
        """The rows, as tuples of text."""
        with sqlite3.connect(self.file, timeout=STEP) as db:
            rows = db.execute(statement).fetchall()
        db.close()
        return [tuple("" if v is None else str(v) for v in row) for row in rows]

    def shell(self, statement):
        """The same through the sqlite3 command."""
        done = subprocess.run(["sqlite3", "-bail", self.file, statement], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class PostgresDatabase:
    kind = "postgres"

    def __init__(self, cluster):
        self.cluster = cluster
        self.name = cluster.make_database()
        self.url = cluster.url(self.name)

    def sql(self, statement):
        lines = self.cluster.psql(self.name, "-A", "-t", "-F", "\t", "-c", statement)
        return [tuple(line.split("\t")) for line in lines]

    def shell(self, statement):
        self.cluster.psql(self.name, "-c", statement)


class Admin:
    """Runs `kavilo-tunneld admin` on one database."""

    def __init__(self, url, folder):
        self.folder = folder
        self.env = base_environment(folder)
        if url:
            self.env["DATABASE_URL"] = url

    def __call__(self, *words, stdin=b""):
        return run([TUNNELD, "admin", *words], self.env, stdin=stdin, cwd=self.folder)

    def ok(self, *words, stdin=b""):
        """Standard output of a command that has to succeed, without its last line's end."""
        done = self(*words, stdin=stdin)
        assert done.returncode == 0, done
        return done.stdout.rstrip("\n")

    def json(self, *words):
        return json.loads(self.ok(*words, "--json"))

    def check(self):
        """Nothing is wrong in the database."""
        done = self("check")
        assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr

    def user(self, email="alice@example.com", slug=None):
        """Makes a user and a token; the token."""
        self.ok("create-user", "--email", email)
        if slug:
            self.ok("set-slug", "--email", email, "--slug", slug)
        return self.ok("issue-token", "--email", email, "--name", "test")
