"""
gRPC by libraries that nobody here wrote, without generated code: messages are bytes. By python3-grpcio a service to
stand behind a tunnel and channels to the edge, by @grpc/grpc-js the same (grpc_peer.js).

    service = Service(tls=pair)      h2c:// or, with a pair, https:// with ALPN h2
    with channel(server, host) as calls:
        calls.unary("Echo")(b"hello")
"""

import fcntl
import json
import pathlib
import shutil
import subprocess
import threading
from concurrent import futures

import grpc

from .settings import BIN, STEP
from .wait import wait_until

NAME = "kavilo.test.Peer"
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Service(grpc.GenericRpcHandler):
    """
    Echo     unary     what came; metadata that begin with "x-" come back, as initial and as trailing ones
    Count    1 -> n    "n size": n messages of that size
    Join     n -> 1    all messages in one
    Chat     n -> n    each message in upper case, at once
    Fail     unary     "code text": that status, before any message; trailing metadata x-why: because
    Break    1 -> n    one message, then status ABORTED
    Hang     unary     no answer; `hanging` is set when it has begun, `cancelled` when it is over
    """

    def __init__(self, tls=None, workers=32):
        self.hanging = threading.Event()
        self.cancelled = threading.Event()
        self.seen = []  # (method, invocation metadata as pairs)
        self.server = grpc.server(futures.ThreadPoolExecutor(workers), handlers=[self], options=UNLIMITED)
        if tls:
            credentials = grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.cert.read_bytes())])
            self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        else:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.url = f"{'https' if tls else 'h2c'}://127.0.0.1:{self.port}"
        self.server.start()

    def close(self, grace=None):
        self.server.stop(grace).wait(STEP)

    def service(self, details):
        self.seen.append((details.method, [(m.key, m.value) for m in details.invocation_metadata]))
        _, _, method = details.method.rpartition("/")
        if not details.method.startswith(f"/{NAME}/"):
            return None
        if method in ("Count", "Break"):
            return grpc.unary_stream_rpc_method_handler(self.count if method == "Count" else self.break_off)
        if method == "Join":
            return grpc.stream_unary_rpc_method_handler(self.join)
        if method == "Chat":
            return grpc.stream_stream_rpc_method_handler(self.chat)
        if method in ("Echo", "Fail", "Hang"):
            return grpc.unary_unary_rpc_method_handler(getattr(self, method.lower()))
        return None

    @staticmethod
    def echo(request, context):
        mirrored = [(m.key, m.value) for m in context.invocation_metadata() if m.key.startswith("x-")]
        mirrored = [pair for pair in mirrored if not pair[0].startswith("x-forwarded") and pair[0] != "x-real-ip"]
        context.send_initial_metadata([("x-first", "1")] + mirrored)
        context.set_trailing_metadata([("x-last", "2")] + mirrored)
        return request

    @staticmethod
    def count(request, _):
        number, size = request.split()
        for i in range(int(number)):
            yield b"%-*d" % (int(size), i)

    @staticmethod
    def join(requests, _):
        return b"".join(requests)

    @staticmethod
    def chat(requests, _):
        for request in requests:
            yield request.upper()

    @staticmethod
    def fail(request, context):
        code, _, text = request.decode().partition(" ")
        context.set_trailing_metadata([("x-why", "because")])
        context.abort(getattr(grpc.StatusCode, code), text)

    @staticmethod
    def break_off(_, context):
        yield b"one"
        context.abort(grpc.StatusCode.ABORTED, "broke off")

    def hang(self, request, context):
        over = threading.Event()
        context.add_callback(over.set)
        self.hanging.set()
        if over.wait(STEP):
            self.cancelled.set()
        return request


class Calls:
    """A channel, with the methods of Service as callables on bytes."""

    def __init__(self, address, authority, tls=None):
        options = UNLIMITED + [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        if tls:
            credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes())
            self.channel = grpc.secure_channel("%s:%d" % address, credentials,
                                               options + [("grpc.ssl_target_name_override", authority),
                                                          ("grpc.default_authority", authority)])
        else:
            self.channel = grpc.insecure_channel("%s:%d" % address, options + [("grpc.default_authority", authority)])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def unary(self, method):
        return self.channel.unary_unary(f"/{NAME}/{method}")

    def server_stream(self, method):
        return self.channel.unary_stream(f"/{NAME}/{method}")

    def client_stream(self, method):
        return self.channel.stream_unary(f"/{NAME}/{method}")

    def stream(self, method):
        return self.channel.stream_stream(f"/{NAME}/{method}")


def channel(server, host):
    return Calls(server.edge, host, server.tls)


# ---- @grpc/grpc-js ----


class NodePackage:
    """@grpc/grpc-js from the npm registry, installed once a build folder, or the reason why there is none."""

    folder = BIN / "test-node"

    @classmethod
    def unavailable(cls):
        if not shutil.which("node"):
            return "node is not installed"
        cls.folder.mkdir(parents=True, exist_ok=True)
        with open(cls.folder / "lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (cls.folder / "installed").exists():
                return None
            if not shutil.which("npm"):
                return "npm is not installed"
            try:
                done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0",
                                       "--prefix", str(cls.folder), "@grpc/grpc-js@1"],
                                      capture_output=True, text=True, timeout=40, stdin=subprocess.DEVNULL, check=False)
            except subprocess.TimeoutExpired:
                return "the npm registry does not answer"
            if done.returncode != 0:
                return f"npm cannot install @grpc/grpc-js: {done.stderr.strip()[-200:]}"
            (cls.folder / "installed").touch()
        return None


class NodePeer:
    """grpc_peer.js, running; `said` are the JSON lines so far."""

    def __init__(self, *argv):
        script = pathlib.Path(__file__).with_name("grpc_peer.js")
        env = {"PATH": "/usr/bin:/bin", "NODE_PATH": str(NodePackage.folder / "node_modules")}
        self.process = subprocess.Popen(["node", str(script), *map(str, argv)], env=env, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said, self.wrote = [], []
        for stream, into in ((self.process.stdout, self.said), (self.process.stderr, self.wrote)):
            threading.Thread(target=self._read, args=(stream, into), daemon=True).start()

    def _read(self, stream, into):
        for line in stream:
            into.append(json.loads(line) if into is self.said else line)

    def wait(self, key, **wanted):
        """The first line that has this key, and these values."""
        def found(line):
            return key in line and all(line.get(k) == v for k, v in wanted.items())

        return wait_until(lambda: next((line for line in self.said if found(line)), None), STEP * 2,
                          f"{key} from node, which said {self.said} {''.join(self.wrote)[-500:]}")

    def close(self):
        self.process.stdin.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STEP)
