"""Where the programs are, how large the heavy tests are and how long anything may take. Nothing else decides sizes."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ.get("KAVILO_BIN", ROOT / "build")).resolve()
TUNNELD = BIN / "kavilo-tunneld"
TUNNEL = BIN / "kavilo-tunnel"

MiB = 1024 * 1024


def _sanitizer():
    """The sanitizer the programs were built with, by the symbols of its runtime in them; "" for none."""
    try:
        image = TUNNELD.read_bytes()
    except OSError:
        return ""
    for name, symbol in (("address", b"__asan_init"), ("thread", b"__tsan_init")):
        if symbol in image:
            return name
    return ""


SANITIZER = _sanitizer()

# Sanitized programs are several times slower: their heavy tests are smaller and every deadline is longer.
HEAVY = 256 * MiB if not SANITIZER else 24 * MiB
PACE = 1 if not SANITIZER else 4

# Patience with one step that normally takes milliseconds. A deadline, never a pause.
STEP = 10 * PACE
# A whole test: beyond it something hangs, and the alarm of conftest.py says where.
TEST = 60 if not SANITIZER else 180

# The sizes that flow control is promised for take minutes: `./dev bench --only flow` asks for them.
FULL = os.environ.get("KAVILO_FLOW") == "full"
