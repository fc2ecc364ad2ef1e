"""A TCP proxy in the middle of a connection, for the faults that happen there."""

import socket
import threading
import time

from .wait import wait_until


class _Pair:
    def __init__(self, near, far):
        self.near, self.far = near, far
        self.held = False


class Proxy:
    """Forwards to `target`. `near` is the side that dialled us, `far` the target's. `rate` bytes a second pass, each way;
    with a small `receive_buffer` what has to wait waits with its sender."""

    def __init__(self, target, receive_buffer=None):
        self.target = target
        self.rate = None
        self.receive_buffer = receive_buffer
        self.refuse = False
        self.refused = 0
        self.frozen = threading.Event()
        self.frozen.set()  # set: flowing
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        if receive_buffer:  # what is accepted inherits it
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
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
                far = self._dial()
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

    def _dial(self):
        far = socket.socket()
        far.settimeout(5)
        if self.receive_buffer:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        far.connect(self.target)
        return far

    def _pump(self, pair, source, sink):
        try:
            while data := source.recv(65536 if self.rate is None else 1024):
                self.frozen.wait()
                if self.rate:
                    time.sleep(len(data) / self.rate)  # the line itself
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
