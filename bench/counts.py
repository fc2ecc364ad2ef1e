"""
What the two programs do for one request, counted instead of timed: instructions in user space by function and by module,
and system calls by name. valgrind's callgrind counts both; it needs no rights and no counters of the processor, and the
counts of two runs differ by far less than a percent, however busy the machine is.

One thread is both the visitors and the local service, so that it knows what is where. A wave of one request runs in lock
step by itself. In a wave of many, each program is stopped until all that it will find has come, so that one turn of its
loop meets all of it, every time. Start-up cancels out: what is counted is the difference of two runs that differ in
their number of waves.
"""

import collections
import os
import re
import selectors
import signal
import socket
import subprocess

from programs import Programs, fail, until

BODY = b"x" * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + BODY
PATIENCE = 60

Profile = collections.namedtuple("Profile", "instructions functions modules calls")


class Waves:
    """The visitors of a tunnel and the local service behind it, in one thread."""

    def __init__(self, width):
        self.width = width
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.requests = []  # origin connections that hold a whole request
        self.partial = {}
        self.visitors = []

    def close(self):
        for s in [self.listener, *self.partial, *self.visitors]:
            s.close()

    def connect(self, tunnel):
        self.visitors = [socket.create_connection(("127.0.0.1", tunnel.edge)) for _ in range(self.width)]
        for s in self.visitors:
            s.settimeout(PATIENCE)
        self.request = f"GET /body HTTP/1.1\r\nHost: {tunnel.host}\r\nUser-Agent: guard\r\nAccept: */*\r\n\r\n".encode()
        self.programs = list(tunnel.pids.values()) if self.width > 1 else [None, None]

    def run(self):
        """One request of each visitor and its answer."""
        server, client = self.programs
        stop(server)
        for s in self.visitors:
            s.sendall(self.request)
        go(server)
        self.collect()
        stop(client)
        for s in self.requests:
            s.sendall(ANSWER)
        self.requests = []
        go(client)
        for s in self.visitors:
            self.answer(s)

    def collect(self):
        while len(self.requests) < self.width:
            ready = self.selector.select(PATIENCE)
            if not ready:
                fail(f"{len(self.requests)} of {self.width} requests reached the local service")
            for key, _ in ready:
                if key.fileobj is self.listener:
                    s, _ = self.listener.accept()
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.selector.register(s, selectors.EVENT_READ)
                    self.partial[s] = b""
                else:
                    self.read_request(key.fileobj)

    def read_request(self, s):
        data = s.recv(65536)
        if not data:
            fail("a connection to the local service was closed")
        self.partial[s] += data
        if self.partial[s].endswith(b"\r\n\r\n"):
            self.partial[s] = b""
            self.requests.append(s)

    @staticmethod
    def answer(s):
        data = b""
        while not data.endswith(BODY):
            more = s.recv(65536)
            if not more:
                fail(f"a visitor's connection was closed after {data[:200]!r}")
            data += more
        if not data.startswith(b"HTTP/1.1 200 "):
            fail(f"a visitor got {data[:200]!r}")


def stop(pid):
    """SIGSTOP, and waits until it is heard. No pid, nothing to do."""

    def stopped():
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rpartition(") ")[2].startswith("T")

    if pid:
        os.kill(pid, signal.SIGSTOP)
        until(stopped, f"process {pid} stops")


def go(pid):
    if pid:
        os.kill(pid, signal.SIGCONT)


# ---- reading what valgrind wrote ----

def module_of(source, program):
    """The room of src/ that a line of a callgrind file belongs to, or the library."""
    room = re.search(r"/src/(\w+)/\w+\.[ch]$", source)
    return room.group(1) if room else re.sub(r"[-.]so.*|\.so.*", "", os.path.basename(program)) or "unknown"


def read_profile(path, log):
    """A callgrind file: `ob=`, `fl=` (or `fi=`, `fe=` inside a function) and `fn=(number) name` say where the numbers that
    follow belong, with the name where the number is new; the line behind `calls=` is a callee's, which has lines of its
    own elsewhere."""
    names, functions, modules, total = {}, collections.Counter(), collections.Counter(), 0
    where = {"fn": None, "fl": "", "ob": ""}
    skip = False
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            if found := re.match(r"(c?)(fn|fl|fi|fe|ob)=(\(\d+\))(?: (.*))?$", line):
                callee, kind, number, name = found.groups()
                kind = "fl" if kind in ("fi", "fe") else kind
                if name:
                    names[kind, number] = name
                if not callee:
                    where[kind] = names[kind, number]
            elif line.startswith("calls="):
                skip = True
            elif line[0] in "0123456789+-*" and where["fn"]:
                if not skip:
                    cost = int(line.split()[1])
                    functions[where["fn"]] += cost
                    modules[module_of(where["fl"], where["ob"])] += cost
                    total += cost
                skip = False
    calls = collections.Counter()
    with open(log, encoding="utf-8", errors="replace") as f:
        for line in f:
            # One line when a call begins, and one, with dots, when it has returned; only some have to wait.
            if found := re.match(r"SYSCALL\[\d+,\d+\]\(\s*\d+\) (?:sys_)?(\w+)\s*\(", line):
                calls[found.group(1)] += 1
    return Profile(total, functions, modules, calls)


def profile(width, waves, io_uring):
    """One run of both programs, with --io-uring as given: {"server": Profile, "client": Profile}."""
    with Programs() as programs:
        meeting = Waves(width)
        files = {}

        def wrap(role):
            files[role] = programs.path(f"{role}.callgrind"), programs.path(f"{role}.calls")
            return ["valgrind", "--tool=callgrind", "--trace-syscalls=yes", f"--callgrind-out-file={files[role][0]}",
                    f"--log-file={files[role][1]}"]

        how = f"--io-uring={io_uring}"
        tunnel = programs.server("--max-concurrent=1000", how, wrap=wrap("server"))
        programs.client(tunnel, f"http://127.0.0.1:{meeting.port}", how, wrap=wrap("client"))
        meeting.connect(tunnel)
        for _ in range(waves):
            meeting.run()
        # The visitors leave last: what ends is the same in every run.
        client, server = tunnel.client, tunnel.server
        for process in (client, server):
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                fail("a program under valgrind did not end")
        meeting.close()
        return {role: read_profile(*paths) for role, paths in files.items()}


def difference(more, less, requests):
    """What one request costs, from two profiles that are so many requests apart."""
    def per_request(a, b):
        keys = set(a) | set(b)
        return {k: (a[k] - b[k]) / requests for k in keys if a[k] != b[k]}

    return Profile((more.instructions - less.instructions) / requests, per_request(more.functions, less.functions),
                   per_request(more.modules, less.modules), per_request(more.calls, less.calls))


def count(width, waves, io_uring):
    """{"server": Profile, "client": Profile} of one request, with `width` of them under way together. The first waves,
    which open connections and grow windows, are in both runs."""
    warm = max(2, waves // 4)
    less, more = profile(width, warm, io_uring), profile(width, warm + waves, io_uring)
    return {role: difference(more[role], less[role], waves * width) for role in more}
