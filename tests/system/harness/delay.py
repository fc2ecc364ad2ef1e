"""
A long way between two namespaces: a process of its own that carries packets from a TUN device in one to a TUN device in
the other and keeps each for so long. What TCP does over it is TCP's own; nothing of it is imitated. (The kernel's netem
would do the same, where there is one.)
"""

import collections
import fcntl
import os
import select
import struct
import sys
import time

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
MTU = 9000
QUEUE_BYTES = 64 * 1024 * 1024  # beyond it packets are lost, as on any wire


def unavailable():
    """Why there can be no long way here; None when there can."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"no TUN devices: {error}"
    return None


def _device(namespace, name):
    """A TUN device in this namespace; the process that holds its descriptor may be in another."""
    import ctypes  # pylint: disable=import-outside-toplevel

    fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return tun


def _carry(pair, seconds):
    """From each to the other, so many seconds later, for ever."""
    queues = {fd: collections.deque() for fd in pair}  # what is to be written there: (when, packet)
    waiting = {fd: 0 for fd in pair}
    other = {pair[0]: pair[1], pair[1]: pair[0]}
    while True:
        now = time.monotonic()
        due = min((queue[0][0] for queue in queues.values() if queue), default=now + 1)
        for fd in select.select(pair, [], [], max(0, due - now))[0]:
            to = other[fd]
            try:
                while True:
                    packet = os.read(fd, 65536)
                    if waiting[to] < QUEUE_BYTES:
                        queues[to].append((time.monotonic() + seconds, packet))
                        waiting[to] += len(packet)
            except BlockingIOError:
                pass
        now = time.monotonic()
        for fd, queue in queues.items():
            while queue and queue[0][0] <= now:
                packet = queue.popleft()[1]
                waiting[fd] -= len(packet)
                try:
                    os.write(fd, packet)
                except OSError:
                    pass  # lost


def main():
    """delay.py DEVICE SECONDS NAMESPACE NAMESPACE: says "ready" when both devices are there."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    pair = [_device(namespace, name) for namespace in sys.argv[3:5]]
    print("ready", flush=True)
    _carry(pair, seconds)


if __name__ == "__main__":
    main()
