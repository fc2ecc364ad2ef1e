"""A service that takes bodies and throws them away, faster than any way can bring them: `sink.py` prints its port."""

import re
import socket
import threading


def serve(s):
    block = bytearray(1 << 20)
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = s.recv(65536)
            if not more:
                return
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        left = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head).group(1)) - len(rest)
        data = b""
        while left > 0:
            got = s.recv_into(block, min(left, len(block)))
            if not got:
                return
            left -= got
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        s, _ = listener.accept()
        threading.Thread(target=serve, args=(s,), daemon=True).start()


if __name__ == "__main__":
    main()
