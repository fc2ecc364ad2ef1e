"""A short run of soak.py, which says what it does. `./dev soak` makes it long."""

import pytest

from harness.settings import PACE
from soak import Soak


@pytest.mark.first
@pytest.mark.patience(240 * PACE)
def test_short_soak(tmp_path):
    soak = Soak(tmp_path, 10, seed=7, visitors=4).run()
    soak.report()
    assert not soak.wrong, "\n".join(soak.wrong)
    assert sum(soak.good.values()) > 100 // PACE and soak.faults
