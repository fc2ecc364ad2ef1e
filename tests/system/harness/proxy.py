"""A TCP proxy in the middle of a connection, for the faults that happen there."""

import socket
import threading

from .wait import wait_until


class _Pair:
    def __init__(self, near, far):
        self.near, self.far = near, far
        self.held = False


class Proxy:
    """Forwards to `target`. `near` is the side that dialled us, `far` the target's."""

    def __init__(self, target):
        self.target = target
        self.refuse = False
        self.refused = 0
        self.frozen = threading.Event()
        self.frozen.set()  # set: flowing
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.refuse:
                self.refused += 1
                near.close()
                continue
            try:
                far = socket.create_connection(self.target, timeout=5)
            except OSError:
                near.close()
                continue
            for sock in (near, far):
                sock.settimeout(None)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(near, far)
            self.pairs.append(pair)
            threading.Thread(target=self._pump, args=(pair, near, far), daemon=True).start()
            threading.Thread(target=self._pump, args=(pair, far, near), daemon=True).start()

    def _pump(self, pair, source, sink):
        try:
            while data := source.recv(65536):
                self.frozen.wait()
                sink.sendall(data)
        except OSError:
            pass
        if not pair.held:
            _shut(source)
            _shut(sink)

    def cut(self):
        """Both sides of every connection are closed."""
        for pair in self.pairs:
            _shut(pair.near)
            _shut(pair.far)

    def cut_near_side(self):
        """The dialler sees its connection end; the target sees nothing at all."""
        wait_until(lambda: self.pairs, what="a connection through the proxy")
        for pair in self.pairs:
            pair.held = True
            _shut(pair.near)

    def freeze(self):
        self.frozen.clear()

    def thaw(self):
        self.frozen.set()

    def close(self):
        self.thaw()
        _shut(self.listener)
        self.listener.close()
        for pair in self.pairs:
            for sock in (pair.near, pair.far):
                _shut(sock)
                sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _shut(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
