"""
The programs that are measured, and what they need: a folder, free ports, certificates, an account. Everything listens on
loopback, on ports that the system picks, and ends with the `with` block.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("KAVILO_BIN", os.path.join(ROOT, "build")))
SERVER, CLIENT = os.path.join(BUILD, "kavilo-tunneld"), os.path.join(BUILD, "kavilo-tunnel")


def fail(text):
    sys.exit(f"bench: {text}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(condition, what, seconds=20):
    """The first true value of condition()."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            fail(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return value


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Tunnel:
    """A running pair of ours: where visitors and clients come, and who works."""

    def __init__(self, edge, control, admin, server, token):
        self.edge, self.control, self.admin = edge, control, admin
        self.server = server  # a Popen
        self.client = None  # a Popen, once there is one
        self.token = token
        self.host = None  # the name of the client's tunnel

    @property
    def pids(self):
        return {"kavilo-tunneld": self.server.pid, "kavilo-tunnel": self.client.pid}


class Programs:
    """Starts programs in a folder of its own; `with` ends them and removes it."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="kavilo-bench-")
        os.chmod(self.folder, 0o755)  # nginx's worker is another user when root starts it
        self.processes = []
        self.log = open(self.path("log"), "ab")
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.stop(*self.processes)
        self.log.close()
        if kind not in (None, KeyboardInterrupt):
            with open(self.path("log"), encoding="utf-8", errors="replace") as f:
                sys.stderr.write(f.read()[-3000:])
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def number(self):
        """Tells the files of one program from those of the next."""
        self.count += 1
        return self.count

    def start(self, argv, **options):
        options.setdefault("stdout", self.log)
        options.setdefault("stderr", self.log)
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **options)
        self.processes.append(process)
        return process

    def stop(self, *processes):
        """SIGTERM to all of them, then waits for all; by force after five seconds."""
        for process in reversed(processes):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in reversed(processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
            if process in self.processes:
                self.processes.remove(process)

    # ---- ours ----

    def server(self, *args, tls=None, workers=1, wrap=()):
        """kavilo-tunneld, ready, with one account; tls is (certificate, key)."""
        name = f"tunneld{self.number()}"
        environment = dict(os.environ, DATABASE_URL=f"sqlite:{self.path(name)}.db", HOME=self.folder)

        def admin(*argv):
            done = subprocess.run([SERVER, "admin", *argv], env=environment, capture_output=True, text=True, check=False)
            return done.stdout.strip() if done.returncode == 0 else fail(done.stderr)

        admin("create-user", "--email", "bench@example.com")
        token = admin("issue-token", "--email", "bench@example.com", "--name", "bench")
        listen = [f"--{kind}-listen=127.0.0.1:0" for kind in ("edge", "control", "admin")]
        tls_args = ["--tls-mode=files", f"--tls-cert={tls[0]}", f"--tls-key={tls[1]}"] if tls else []
        with open(self.path(name + ".log"), "wb") as log:
            process = self.start([*wrap, SERVER, "serve", "--workers", str(workers), *listen, *tls_args, *args],
                                 env=environment, stderr=log)

        def listening():
            if process.poll() is not None:
                with open(self.path(name + ".log"), encoding="utf-8") as f:
                    fail(f"kavilo-tunneld ended: {f.read()[-2000:]}")
            with open(self.path(name + ".log"), encoding="utf-8") as f:
                return re.search(r" edge=\S+:(\d+) .*control=\S+:(\d+) .*admin=\S+:(\d+) ", f.read())

        ports = until(listening, "kavilo-tunneld listens", 60)
        return Tunnel(*map(int, ports.groups()), process, token)

    def client(self, tunnel, url, *args, ca=None, wrap=()):
        """kavilo-tunnel beside a server(), ready; fills in what the tunnel lacked."""
        name = self.path(f"tunnel{self.number()}.out")
        scheme, extra = ("https", {"KAVILO_CA_CERT": ca}) if ca else ("http", {})
        environment = dict(os.environ, KAVILO_TOKEN=tunnel.token, HOME=self.folder, **extra)
        with open(name, "wb") as out:
            tunnel.client = self.start([*wrap, CLIENT, "tunnel", "--url", url, "--endpoint",
                                        f"{scheme}://localhost:{tunnel.control}", *args], env=environment, stdout=out)

        def ready():
            if tunnel.client.poll() is not None:
                fail("kavilo-tunnel ended before it was ready")
            with open(name, encoding="utf-8") as f:
                return re.search(r"public URL: https?://([^:/\s]+).*\n.*forwarding", f.read())

        tunnel.host = until(ready, "kavilo-tunnel is ready", 60).group(1)
        return tunnel
