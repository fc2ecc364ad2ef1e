"""kavilo-tunneld and kavilo-tunnel as the tests see them: started, ready, visited, stopped."""

import http.client
import itertools
import os
import pathlib
import random
import re
import socket
import sqlite3
from urllib.parse import urlsplit

from . import protobuf
from .grpclink import Link, LinkClosed
from .http1 import Visitor
from .process import base_environment, run
from .settings import STEP, TUNNEL, TUNNELD

BASE_HOST = "tnl.test"
READY = re.compile(
    r"^  kavilo-tunnel ready\n  public URL: (?P<url>\S+)\n  forwarding to: (?P<target>\S+)\n", re.MULTILINE
)


def host_port(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class LastingPorts:
    """Free ports that the kernel gives to nobody by itself: whoever stops and starts again finds his own free. Tests that
    run at once have ranges of their own, and each port comes once a round."""

    RANGES = 16

    def __init__(self):
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            last = max(int(file.read().split()[0]), 12000)
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % self.RANGES
        size = (last - 10000) // self.RANGES
        self.first, self.size = 10000 + worker * size, size
        self.next = random.SystemRandom().randrange(size)

    def take(self):
        for _ in range(self.size):
            port = self.first + self.next
            self.next = (self.next + 1) % self.size
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    continue
        raise AssertionError("no port is free")


LASTING = LastingPorts()


class User:
    def __init__(self, email, slug, token):
        self.email, self.slug, self.token = email, slug, token


class Server:
    """One kavilo-tunneld with a store of its own in `folder`. start() returns when every listener is up."""

    def __init__(self, programs, folder, args=(), env=None, base_host=BASE_HOST, tls=None, grace="2s", database=None,
                 wrap=(), edge="127.0.0.1:0", control="127.0.0.1:0", admin="127.0.0.1:0", level="debug"):
        self.programs = programs
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.base_host = base_host
        self.tls = tls
        self.database_file = self.folder / "tunneld.db"
        self.env = base_environment(self.folder)
        self.env["DATABASE_URL"] = database or f"sqlite:{self.database_file}"
        self.env.update(env or {})
        self.wrap = list(wrap)
        self.listen = {"edge": edge, "control": control, "admin": admin}
        self.argv = [TUNNELD, "serve", "--base-host", base_host, "--grace", grace]
        self.argv += ["--log-format", "json", "--log-level", level]
        if tls:
            self.argv += ["--tls-mode", "files", "--tls-cert", tls.cert, "--tls-key", tls.key]
        self.argv += list(args)
        self.program = None
        self.starts = itertools.count(1)

    def start(self):
        argv = self.wrap + self.argv
        for name, address in self.listen.items():
            if address == "127.0.0.1:0":
                address = f"127.0.0.1:{LASTING.take()}"
            argv += [f"--{name}-listen", address]
        self.program = self.programs.start(f"tunneld{next(self.starts)}", argv, self.folder, self.env)
        line = self.program.wait_log(message="listening")
        self.edge = host_port(line["edge"])
        self.control = host_port(line["control"])
        self.admin = host_port(line["admin"]) if "admin" in line else None
        return self

    def restart(self, seconds=STEP):
        """SIGTERM, then a new process on the same ports and store."""
        self.program.stop(seconds=seconds)
        return self.again()

    def again(self):
        for name in self.listen:
            if getattr(self, name):
                self.listen[name] = "%s:%d" % getattr(self, name)
        return self.start()

    @property
    def endpoint(self):
        return f"{'https' if self.tls else 'http'}://{self.control[0]}:{self.control[1]}"

    # ---- accounts ----

    def metrics(self):
        """{line of /metrics up to its value: value}"""
        connection = http.client.HTTPConnection(*self.admin, timeout=STEP)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}

    def admin_command(self, *argv):
        return run(self.wrap + [TUNNELD, "admin", *argv], self.env, cwd=self.folder)

    def user(self, email="alice@example.com", token_name="test"):
        made = self.admin_command("create-user", "--email", email)
        assert made.returncode == 0, made
        return User(email, made.stdout.strip(), self.token(email, token_name))

    def token(self, email, name="test"):
        made = self.admin_command("issue-token", "--email", email, "--name", name)
        assert made.returncode == 0, made
        return made.stdout.strip()

    def sql(self, statement, *values):
        """One statement on the store, beside the running server; the rows."""
        with sqlite3.connect(self.database_file, timeout=STEP) as db:
            rows = db.execute(statement, values).fetchall()
        db.close()
        return rows

    # ---- visitors and peers ----

    def visitor(self, host, **how):
        if self.tls:
            how.setdefault("tls", self.tls.client())
        return Visitor(self.edge, host, **how)

    def fetch(self, host, target="/", method="GET", fields=(), body=None, **how):
        """One request on a connection of its own; the Response, its content read."""
        with self.visitor(host, **how) as visitor:
            visitor.request(target, method, list(fields) + [("Connection", "close")], body)
            response = visitor.response(method)
            response.content  # pylint: disable=pointless-statement
            return response

    def peer(self, token, name=None, **hello):
        """A scripted client that has sent its Hello; see Peer."""
        return Peer(self, token, name, **hello)


class Client:
    """One kavilo-tunnel. wait_ready() returns when its three lines are out."""

    numbers = itertools.count(1)

    def __init__(self, programs, folder, endpoint, url, token=None, name=None, args=(), env=None, home=None, wrap=(),
                 level="debug", label=None, pass_fds=()):
        self.folder = pathlib.Path(folder)
        self.home = pathlib.Path(home or self.folder)
        self.env = base_environment(self.home)
        if token is not None:
            self.env["KAVILO_TOKEN"] = token
        if endpoint is not None:
            self.env["KAVILO_ENDPOINT"] = endpoint
        self.env.update(env or {})
        argv = list(wrap) + [TUNNEL, "tunnel", "--url", url, "--log-format", "json", "--log-level", level]
        if name is not None:
            argv += ["--name", name]
        self.program = programs.start(
            label or f"tunnel{next(Client.numbers)}", argv + list(args), self.folder, self.env, pass_fds=pass_fds
        )

    @property
    def ready(self):
        """The (url, target) of every set of three lines so far."""
        return [(m["url"], m["target"]) for m in READY.finditer(self.program.stdout())]

    def wait_ready(self, count=1, seconds=STEP):
        self.program.wait(lambda: len(self.ready) >= count, seconds, f"ready line {count}")
        return self

    @property
    def public_url(self):
        return self.ready[-1][0]

    @property
    def host(self):
        return urlsplit(self.public_url).hostname

    @property
    def subdomain(self):
        return self.host.partition(".")[0]


class Peer:
    """
    A tunnel client that does nothing by itself: the test sends and receives frames. `schema` decides which messages it
    knows; `features` and `initial_credit` what it announces. Dicts in and out, as in protobuf.py.
    """

    def __init__(self, server, token, name=None, features=None, initial_credit=None, instance_id=None, takeover=None,
                 version="0.1.5", schema=protobuf.FULL, hello=True, endpoint=None, tls=None, auto_window=True,
                 seconds=STEP, response_timeout_ms=None):
        if tls is None and server is not None and server.tls:
            tls = server.tls.client(["h2"])
        self.schema = schema
        self.link = Link.dial(endpoint or server.endpoint, tls=tls, auto_window=auto_window, timeout=seconds)
        self.welcome = None
        if not hello:
            return
        message = {"token": token}
        if name is not None:
            message["name"] = name
        message["client_version"] = version
        for key, value in (("takeover", takeover), ("features", features), ("initial_credit", initial_credit),
                           ("instance_id", instance_id), ("response_timeout_ms", response_timeout_ms)):
            if value is not None:
                message[key] = value
        try:
            self.send(hello=message)
        except LinkClosed:
            pass  # refused before all of it was sent: status() has the refusal

    def send(self, request_id=0, **frame):
        whole = {"request_id": request_id, **frame} if request_id else frame
        self.link.send_message(protobuf.encode("ClientFrame", whole, self.schema))

    def receive(self, seconds=STEP):
        """The next frame, pings answered and skipped."""
        while True:
            frame = protobuf.decode("ServerFrame", self.link.next_message(seconds), self.schema)
            if "ping" not in frame:
                return frame
            self.send(pong=frame["ping"])

    def answer_pings(self):
        """Answers the Pings that have come, when nothing but Pings has come."""
        while self.link.messages:
            frame = protobuf.decode("ServerFrame", self.link.next_message(), self.schema)
            assert "ping" in frame, frame
            self.send(pong=frame["ping"])

    def expect(self, kind, request_id=None, seconds=STEP):
        """The next frame, which has to be of this kind (and request); its content."""
        frame = self.receive(seconds)
        assert kind in frame, f"{kind} expected: {frame}"
        if request_id is not None:
            assert frame.get("request_id", 0) == request_id, frame
        return frame[kind]

    def connected(self):
        self.welcome = self.expect("welcome")
        return self

    def refused(self, seconds=STEP):
        """(grpc-status, grpc-message) instead of a Welcome."""
        return self.link.status(seconds)

    def request(self, seconds=STEP):
        """The next request: (id, head)."""
        frame = self.receive(seconds)
        assert "request_head" in frame, frame
        return frame["request_id"], frame["request_head"]

    def answer(self, request_id, status=200, headers=(), content=b"", end=True):
        self.send(request_id, response_head={"status": status, "headers": protobuf.headers(headers)})
        if content:
            self.send(request_id, data={"data": content})
        if end:
            self.send(request_id, data={"end_stream": True})

    def body(self, request_id):
        """The request's body up to its end; frames of other requests must not come in between."""
        out = b""
        while True:
            frame = self.receive()
            assert frame.get("request_id") == request_id, frame
            if "credit" in frame:
                continue
            assert "data" in frame, frame
            out += frame["data"].get("data", b"")
            if frame["data"].get("end_stream"):
                return out

    @property
    def host(self):
        return urlsplit(self.welcome["public_url"]).hostname

    def close(self, abrupt=False):
        self.link.close(abrupt)
