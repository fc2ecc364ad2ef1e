"""
gRPC by python3-grpcio, which nobody here wrote, without generated code: messages are bytes. A service to stand behind a
tunnel and channels to the edge.

    service = Service(tls=pair)      h2c:// or, with a pair, https:// with ALPN h2
    with channel(server, host) as calls:
        calls.unary("Echo")(b"hello")
"""

import threading
from concurrent import futures

import grpc

from .settings import STEP

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
    Hang     unary     answers when the call is over for somebody else
    """

    def __init__(self, tls=None, workers=32):
        self.hanging = threading.Event()
        self.cancelled = threading.Event()
        self.release = threading.Event()
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
        self.release.set()
        self.server.stop(grace).wait(STEP)

    def service(self, details):
        self.seen.append((details.method, [(m.key, m.value) for m in details.invocation_metadata]))
        _, _, method = details.method.rpartition("/")
        if not details.method.startswith(f"/{NAME}/"):
            return None
        if method in ("Count", "Break"):
            return grpc.unary_stream_rpc_method_handler(getattr(self, method.lower()))
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
    def break_(_, context):
        yield b"one"
        context.abort(grpc.StatusCode.ABORTED, "broke off")

    def hang(self, request, context):
        context.add_callback(self.cancelled.set)
        self.hanging.set()
        self.release.wait(STEP)
        return request


setattr(Service, "break", Service.break_)


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
