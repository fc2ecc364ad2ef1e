"""Every wait of the suite has a deadline and a name: wait_until is the only loop that sleeps."""

import time

from .settings import STEP


class TooLate(AssertionError):
    """Something that had to happen did not happen in time."""


def wait_until(predicate, seconds=STEP, what="condition", every=0.01):
    """Polls predicate until it returns something true, and returns that; TooLate after `seconds`. An exception of the
    predicate passes through, which is how a dead program ends a wait early."""
    deadline = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TooLate(f"not within {seconds} s: {what}")
        time.sleep(every)


def stays(predicate, seconds, what):
    """The opposite: predicate must hold all the time for `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert predicate(), f"did not hold for {seconds} s: {what}"
        time.sleep(0.02)
