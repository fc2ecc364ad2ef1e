"""Two hosts on a wire, as Linux network namespaces: for faults that loopback cannot have. Needs root and iproute2."""

import ctypes
import os
import secrets
import subprocess
import sys
import threading

from . import delay

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def _ip(*argv):
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 0, f"ip {' '.join(argv)}: {done.stderr}"


class Namespace:
    """name, the address of its end of the wire, the device of it, and `wrap`, to be put before a command."""

    def __init__(self, name, device, address):
        self.name, self.device, self.address = name, device, address
        self.wrap = ["ip", "netns", "exec", name]

    def inside(self, function):
        """Calls function in a thread that lives in this namespace: sockets made there stay there. Its result."""
        result = {}

        def enter():
            try:
                fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if _LIBC.setns(fd, _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(fd)
                result["value"] = function()
            except BaseException as error:  # pylint: disable=broad-except
                result["error"] = error

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if "error" in result:
            raise result["error"]
        return result.get("value")

    def unplug(self):
        """The wire goes dead here: nothing is sent or received, and nobody is told."""
        _ip("-n", self.name, "link", "set", self.device, "down")

    def drop(self, *hooks):
        """Packets of this direction ("input", "output") vanish here; the wire stays up, and nobody is told."""
        rules = "".join(
            f"add chain inet kavilo {hook} {{ type filter hook {hook} priority 0; policy drop; }}\n" for hook in hooks
        )
        done = subprocess.run(self.wrap + ["nft", "-f", "-"], input="add table inet kavilo\n" + rules, capture_output=True,
                              text=True, check=False, timeout=10)
        assert done.returncode == 0, done.stderr

    def plug(self):
        _ip("-n", self.name, "link", "set", self.device, "up")


class Namespaces:
    """Makes pairs; close() removes all of them with whatever is inside."""

    def __init__(self):
        self.names = []

    @staticmethod
    def unavailable(ip_command):
        if os.geteuid() != 0:
            return "network namespaces need root"
        if not ip_command:
            return "network namespaces need iproute2"
        name = f"kv{os.getpid()}t{secrets.token_hex(3)}"
        steps = [["ip", "netns", "add", name],
                 ["ip", "-n", name, "link", "add", "kv0", "type", "veth", "peer", "name", "kv1"],
                 ["ip", "netns", "exec", name, "true"],
                 ["ip", "netns", "exec", name, "nft", "add", "table", "inet", "kavilo"]]
        try:
            for step in steps:
                tried = subprocess.run(step, capture_output=True, text=True, check=False)
                if tried.returncode != 0:
                    said = (tried.stderr.strip().splitlines() or ["no reason"])[-1]
                    return f"network namespaces do not work here: {' '.join(step).replace(name, 'NAME')}: {said}"
        except FileNotFoundError as error:
            return f"network namespaces need {error.filename}"
        finally:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        return None

    def pair(self):
        """Two hosts with one wire between them."""
        tag = f"{os.getpid()}{secrets.token_hex(3)}"
        left = Namespace(f"kva{tag}", "kv0", "10.99.0.1")
        right = Namespace(f"kvb{tag}", "kv0", "10.99.0.2")
        for one in (left, right):
            _ip("netns", "add", one.name)
            self.names.append(one.name)
            _ip("-n", one.name, "link", "set", "lo", "up")
        _ip("-n", left.name, "link", "add", "kv0", "type", "veth", "peer", "name", "kv0", "netns", right.name)
        for one in (left, right):
            _ip("-n", one.name, "addr", "add", f"{one.address}/24", "dev", one.device)
            _ip("-n", one.name, "link", "set", one.device, "up")
        return left, right

    def long_pair(self, programs, folder, seconds):
        """Two hosts with a wire that takes so long one way; see delay.py."""
        tag = f"{os.getpid()}{secrets.token_hex(3)}"
        pair = [Namespace(f"kv{side}{tag}", "kv0", f"10.98.0.{i}") for i, side in enumerate("ab", 1)]
        for one in pair:
            _ip("netns", "add", one.name)
            self.names.append(one.name)
            _ip("-n", one.name, "link", "set", "lo", "up")
        carrier = programs.start("delay", [sys.executable, delay.__file__, "kv0", str(seconds), *(n.name for n in pair)],
                                 folder, dict(os.environ))
        carrier.wait(lambda: "ready" in carrier.stdout(), what="both devices are there")
        carrier.expected_to_end = True  # by SIGTERM
        for one, other in (pair, pair[::-1]):
            _ip("-n", one.name, "addr", "add", one.address, "peer", other.address, "dev", "kv0")
            _ip("-n", one.name, "link", "set", "kv0", "mtu", str(delay.MTU), "txqueuelen", "10000", "up")
        return pair

    def delete(self, namespace):
        """The host is gone, once the last process in it is."""
        _ip("netns", "del", namespace.name)
        self.names.remove(namespace.name)

    def close(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
