"""The faults of tests/shims as the tests drive them: each has `env`, with which a program is started under it."""

import mmap
import os
import struct
import subprocess

from .settings import BIN, SANITIZER

FOR_EVER = 2**63


def preload(name, **env):
    """The environment under which a program meets this fault. The sanitizer's runtime stands behind the shim."""
    env = {"LD_PRELOAD": str(BIN / "tests" / f"{name}.so"), **env}
    if SANITIZER:
        env["ASAN_OPTIONS"] = "abort_on_error=0:exitcode=99:detect_leaks=1:verify_asan_link_order=0:allocator_may_return_null=1"
    return env


class _Shared:
    """A file of numbers that the program has mapped too."""

    def __init__(self, file, size):
        file.write_bytes(bytes(size))
        with open(file, "r+b") as opened:
            self.map = mmap.mmap(opened.fileno(), size)

    def get(self, index, kind="Q"):
        return struct.unpack_from(f"={kind}", self.map, 8 * index)[0]

    def set(self, index, value, kind="Q"):
        struct.pack_into(f"={kind}", self.map, 8 * index, value)


class Memory:
    """fault_malloc: see there. Numbers of allocations count from the moment of arming."""

    FRAMES = 12

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.shared = _Shared(folder / "fault_malloc", 8 * (4 + self.FRAMES))
        self.env = preload("fault_malloc", FAULT_MALLOC=str(folder / "fault_malloc"))
        # What the loader keeps it asks of us, where LeakSanitizer does not know it for the loader's own.
        (folder / "lsan").write_text("leak:_dl_map_object_deps\n")
        self.env["LSAN_OPTIONS"] = f"suppressions={folder / 'lsan'}:print_suppressions=0"

    def arm(self, first, last=None):
        """The allocations from `first` to `last` fail, or that one alone."""
        self.disarm()
        self.shared.set(1, last or first)
        self.shared.set(2, 0)
        self.shared.set(3, 0)
        self.shared.set(0, first)

    def count(self):
        """Counts and fails nothing."""
        self.arm(FOR_EVER)

    def disarm(self):
        """The number of allocations since it was armed, and how many of them failed."""
        self.shared.set(0, 0)
        return self.shared.get(2), self.shared.get(3)

    def place(self, maps):
        """Where the last failure was, as text; `maps` is the program's /proc/PID/maps."""
        lines = []
        for index in range(self.FRAMES):
            address = self.shared.get(4 + index)
            for entry in maps.splitlines():
                span, mode, offset, *rest = entry.split()
                start, end = (int(n, 16) for n in span.split("-"))
                if start <= address < end and len(rest) == 3 and "x" in mode:
                    found = subprocess.run(["addr2line", "-fse", rest[2], hex(address - 1 - start + int(offset, 16))],
                                           capture_output=True, text=True, check=False).stdout.split()
                    lines.append(" ".join(found) or f"{os.path.basename(rest[2])}+{address - start:#x}")
        return "\n".join(lines)


class WallClock:
    """fault_wall_clock: the seconds by which the program's wall clock is off."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.shared = _Shared(folder / "fault_wall_clock", 8)
        self.env = preload("fault_wall_clock", FAULT_WALL_CLOCK=str(folder / "fault_wall_clock"))

    def step(self, seconds):
        self.shared.set(0, seconds, "q")


class Names:
    """fault_names: what the program is told when it asks for a name."""

    def __init__(self, folder, order):
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "fault_names"
        self.say(order)
        self.env = preload("fault_names", FAULT_NAMES=str(self.file))

    def say(self, order):
        new = self.file.with_suffix(".new")
        new.write_text(order + "\n")
        new.rename(self.file)


def io(seed, percent):
    """The environment of fault_io."""
    return preload("fault_io", FAULT_IO=f"{seed} {percent}")
