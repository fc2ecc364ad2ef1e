"""
Fixtures of the account tests. A module asks for them by `pytest_plugins = ["store_fixtures"]`.

    database     an empty database; every test that uses it runs on SQLite and on PostgreSQL
    admin        admin(*words) runs `kavilo-tunneld admin` on it
    cluster      the PostgreSQL server of this test process, on a UNIX socket in a folder of its own
    own_cluster  one that a test may kill, pause and start again
"""

import pytest

from store_tools import Admin, Postgres, PostgresDatabase, SqliteDatabase


@pytest.fixture(scope="session")
def cluster():
    made = Postgres()
    yield made
    made.close()


@pytest.fixture
def own_cluster():
    made = Postgres()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    if request.param == "sqlite":
        return SqliteDatabase(tmp_path / "store")
    return PostgresDatabase(request.getfixturevalue("cluster"))


@pytest.fixture
def admin(database, tmp_path):
    return Admin(database.url, tmp_path)
