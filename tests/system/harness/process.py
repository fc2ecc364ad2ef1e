"""
Programs under test. Each writes to files of its own; whoever waits for one notices when it dies; at the end each has
to leave in order (SIGTERM, status 0), and what a sanitizer wrote is a failure whatever the test itself said.
"""

import ctypes
import json
import os
import pathlib
import re
import signal
import subprocess
import time

from .settings import PACE, SANITIZER, STEP
from .wait import wait_until

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1

SANITIZER_REPORT = re.compile(
    r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|LeakSanitizer|DEADLYSIGNAL|Assertion .* failed"
)


class Died(AssertionError):
    """A program ended that had no business to."""


def _die_with_parent():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Program:
    """One process. Start it from the main thread: the kernel ends it with the thread that started it."""

    def __init__(self, name, argv, folder, env, stdin=None, pass_fds=()):
        self.name = name
        self.argv = [str(a) for a in argv]
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.stdout_file = folder / f"{name}.stdout"
        self.stderr_file = folder / f"{name}.stderr"
        self.expected_to_end = False
        with open(self.stdout_file, "wb") as out, open(self.stderr_file, "wb") as err:
            self.process = subprocess.Popen(
                self.argv,
                stdin=stdin if stdin is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
                cwd=folder,
                preexec_fn=_die_with_parent,
                pass_fds=pass_fds,
            )
        self.pid = self.process.pid

    # ---- what it wrote ----

    def stdout(self):
        return self.stdout_file.read_text(errors="replace")

    def stderr(self):
        return self.stderr_file.read_text(errors="replace")

    def log(self, **wanted):
        """Log lines (JSON) whose fields have these values; a value that is a compiled pattern has to match."""
        found = []
        for line in self.stderr().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and all(_has(entry, k, v) for k, v in wanted.items()):
                found.append(entry)
        return found

    def wait_log(self, seconds=STEP, **wanted):
        return self.wait(lambda: self.log(**wanted), seconds, f"{self.name} logs {wanted}")[0]

    # ---- life ----

    def running(self):
        return self.process.poll() is None

    def check(self):
        """Raises Died if it is gone against expectation."""
        if not self.expected_to_end and self.process.poll() is not None:
            raise Died(f"{self.name} ended with status {self.process.returncode}; its last words:\n{self.stderr()[-3000:]}")
        return True

    def wait(self, predicate, seconds=STEP, what="something"):
        return wait_until(lambda: self.check() and predicate(), seconds, f"{self.name}: {what}")

    def wait_exit(self, seconds=STEP):
        self.expected_to_end = True
        wait_until(lambda: not self.running(), seconds, f"{self.name} ends")
        return self.process.returncode

    def send_signal(self, number):
        if number != signal.SIGSTOP and number != signal.SIGCONT and number != signal.SIGHUP:
            self.expected_to_end = True
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=STEP):
        """Ends it in order and returns its status."""
        self.check()
        self.send_signal(number)
        return self.wait_exit(seconds)

    def kill(self):
        """As a power cut: SIGKILL."""
        self.expected_to_end = True
        self.process.kill()
        self.process.wait()

    def finish(self):
        """The end of the fixture: stops it if it still runs, returns what went wrong with it, as sentences."""
        wrong = []
        try:
            self.check()
        except Died as died:
            wrong.append(str(died))
        if self.running():
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(15 * PACE)
                if self.process.returncode not in (0, -signal.SIGTERM if self.expected_to_end else 0):
                    wrong.append(f"{self.name} ended with status {self.process.returncode} after SIGTERM")
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                wrong.append(f"{self.name} did not end within {15 * PACE} s of SIGTERM")
        for line in self.log(message="left over"):
            if line["chunks"] or line["credit"]:
                wrong.append(f"{self.name} ended with {line['chunks']} chunks and {line['credit']} bytes of credit that nobody gave back")
        text = self.stderr()
        if SANITIZER_REPORT.search(text):
            at = SANITIZER_REPORT.search(text).start()
            wrong.append(f"{self.name}: {text[at : at + 6000]}")
        return wrong

    # ---- what it uses ----

    def rss(self):
        """Resident bytes."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise Died(f"{self.name} has no memory any more")

    def processor_seconds(self):
        """Of all its threads so far."""
        tasks = pathlib.Path(f"/proc/{self.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))


def _has(entry, key, value):
    if key not in entry:
        return False
    if isinstance(value, re.Pattern):
        return bool(value.search(str(entry[key])))
    return entry[key] == value


class RssMeter:
    """The largest growth of some programs' memory while it is open; sampled by calling sample()."""

    def __init__(self, *programs):
        self.programs = programs
        self.start = {p: p.rss() for p in programs}
        self.peak = dict(self.start)
        self.next = 0

    def sample(self):
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + 0.02
        for p in self.programs:
            self.peak[p] = max(self.peak[p], p.rss())

    def check(self, limit):
        """Growth of each stays below `limit` bytes. Sanitizers keep freed memory, so there it says nothing."""
        self.next = 0
        self.sample()
        if SANITIZER:
            return
        for p in self.programs:
            grown = self.peak[p] - self.start[p]
            assert grown < limit, f"{p.name} grew by {grown >> 10} KiB, more than {limit >> 10} KiB"


def base_environment(home):
    """Nothing of the caller's environment but what programs need: a test never depends on who runs it."""
    keep = {k: os.environ[k] for k in ("PATH", "LANG", "LC_ALL", "TZ") if k in os.environ}
    keep["HOME"] = str(home)
    keep["ASAN_OPTIONS"] = "abort_on_error=0:exitcode=99:detect_leaks=1:quarantine_size_mb=8"
    keep["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1"
    keep["TSAN_OPTIONS"] = "exitcode=99:halt_on_error=0"
    return keep


def run(argv, env, stdin=b"", seconds=STEP * 2, cwd=None):
    """Runs a program that ends by itself; the CompletedProcess has text in stdout and stderr."""
    done = subprocess.run(
        [str(a) for a in argv], input=stdin, env=env, timeout=seconds, capture_output=True, cwd=cwd, check=False
    )
    done.stdout, done.stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert not SANITIZER_REPORT.search(done.stderr), f"{argv}: {done.stderr}"
    return done
