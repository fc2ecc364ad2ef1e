"""A short run of soak.py, which says what it does. `./dev soak` makes it long."""

import pytest

from harness.settings import PACE
from soak import Soak


@pytest.mark.first
@pytest.mark.patience(240 * PACE)
def test_short_soak(tmp_path):
    for seconds in (10, 60):  # a machine with much else to do needs longer for as many
        soak = Soak(tmp_path / str(seconds), seconds, seed=7, visitors=4).run()
        soak.report()
        assert not soak.wrong, "\n".join(soak.wrong)
        if sum(soak.good.values()) > 100 // PACE:
            break
    assert sum(soak.good.values()) > 100 // PACE and soak.faults
