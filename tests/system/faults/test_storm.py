"""A small storm.py, which says what it does. `./dev storm` makes it large."""

import pytest

from harness.settings import PACE, SANITIZER
from storm import Storm
from store_tools import PostgresDatabase

pytest_plugins = ["store_fixtures"]

CLIENTS = 500 if not SANITIZER else 100


@pytest.mark.parametrize("names", ["random", "stable"])
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.patience(120 * PACE)
def test_all_come_back_at_once(request, tmp_path, store, names):
    database = PostgresDatabase(request.getfixturevalue("cluster")) if store == "postgres" else None
    storm = Storm(tmp_path, CLIENTS, names == "stable", database, watch=1).run()
    storm.report()
    assert not storm.wrong, "\n".join(storm.wrong)
    assert storm.idle < 0.5 or SANITIZER, "the server is busy with nothing"
    # What the server asks by itself, once a second, is on top.
    assert storm.asked <= 4 * CLIENTS + 100, "the database is asked more than each client needs"
