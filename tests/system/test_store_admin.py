"""The admin commands, on both back ends, without a server."""

import json
import os
import pty
import re
import stat
import subprocess

import pytest

from harness.process import run
from harness.settings import ROOT, STEP, TUNNELD
from store_tools import TIME, UUID, Admin, PostgresDatabase, SqliteDatabase

pytest_plugins = ["store_fixtures"]

ALICE = "alice@example.com"
COMMANDS = "create-user list-users disable-user enable-user delete-user set-slug issue-token list-tokens revoke-token \
list-names release-name migrate check export import".split()


def refused(done, status, part):
    """One sentence on standard error, nothing on standard output."""
    assert done.returncode == status, done
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if " info " not in line]
    assert len(lines) == 1 and part in lines[0], done.stderr


# ---- users and tokens -------------------------------------------------------------------------------------------


def test_create_user_prints_the_slug_alone(admin, database):
    done = admin("create-user", "--email", "Alice@Example.com")
    assert done.returncode == 0
    assert re.fullmatch(r"alice-[0-9a-f]{4}\n", done.stdout)
    assert "Alice@Example.com" in done.stderr
    assert database.sql("SELECT email, slug FROM users") == [(ALICE, done.stdout.strip())]
    refused(admin("create-user", "--email", "ALICE@example.com"), 1, "already a user alice@example.com")
    admin.check()


def test_delete_user_wants_to_be_meant(admin):
    admin.user(ALICE)
    refused(admin("delete-user", "--email", ALICE), 2, "--yes")
    assert [user["email"] for user in admin.json("list-users")] == [ALICE]


@pytest.mark.parametrize("typed,deleted", [(b"yes\n", True), (b"y\n", False), (b"\n", False), (b"no\n", False)])
def test_delete_user_asks_a_person(admin, typed, deleted):
    admin.user(ALICE)
    master, slave = pty.openpty()
    process = subprocess.Popen([TUNNELD, "admin", "delete-user", "--email", ALICE], stdin=slave, stdout=slave, stderr=slave,
                               env=admin.env)
    try:
        shown = b""
        while b"Type yes:" not in shown:
            shown += os.read(master, 1000)
        os.write(master, typed)
        assert process.wait(STEP) == (0 if deleted else 1)
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)
    assert ALICE.encode() in shown
    assert (admin.json("list-users") == []) == deleted


def test_issue_token_tells_what_to_do_with_it(admin):
    """Standard output has the token alone; a person reads which it is, and what the user types."""
    admin.user(ALICE)
    done = admin("issue-token", "--email", ALICE, "--name", "laptop", "--endpoint", "https://tnl.test:7777")
    assert re.fullmatch("[a-z2-7]{52}\n", done.stdout)
    assert "kavilo-tunnel login --endpoint https://tnl.test:7777\n" in done.stderr
    assert done.stdout.strip() not in done.stderr and "more of that name" not in done.stderr
    again = admin("issue-token", "--email", ALICE, "--name", "laptop")
    assert "there is 1 more of that name" in again.stderr
    ids = [token["id"] for token in admin.json("list-tokens") if token["name"] == "laptop"]
    assert len(set(ids)) == 2 and all(any(i in text for i in ids) for text in (done.stderr, again.stderr))


@pytest.mark.parametrize(
    "email, slug",
    [
        ("+@x", r"user-[0-9a-f]{4}"),
        ("jörg@example.de", r"jrg-[0-9a-f]{4}"),
        ("-A.b_C+d-@x.org", r"abcd-[0-9a-f]{4}"),
        ("a" * 64 + "@x.org", r"a{26}-[0-9a-f]{4}"),
    ],
)
def test_slugs(admin, email, slug):
    assert re.fullmatch(slug, admin.ok("create-user", "--email", email))


@pytest.mark.parametrize("email", ["alice", "@x", "a@", "a b@c", "a@b@c", "", "a\n@b", "x" * 300 + "@y"])
def test_bad_addresses(admin, email):
    refused(admin("create-user", "--email", email), 2, "")
    refused(admin("create-user"), 2, "--email")


def test_token_is_shown_once_and_kept_as_hash(admin, database):
    admin.ok("create-user", "--email", ALICE)
    done = admin("issue-token", "--email", "Alice@EXAMPLE.com", "--name", "my laptop")
    token = done.stdout.strip()
    assert re.fullmatch(r"[a-z2-7]{52}\n", done.stdout) and token not in done.stderr
    digest = subprocess.run(["b3sum", "--no-names"], input=token.encode(), capture_output=True, check=True).stdout.decode().strip()
    column = "encode(token_hash, 'hex')" if database.kind == "postgres" else "lower(hex(token_hash))"
    assert database.sql(f"SELECT {column}, name FROM api_tokens") == [(digest, "my laptop")]
    for listing in (admin.ok("list-tokens"), json.dumps(admin.json("list-tokens"))):
        assert "my laptop" in listing
        assert token not in listing and digest not in listing
    refused(admin("issue-token", "--email", "bob@example.com", "--name", "x"), 1, "no user bob@example.com")
    refused(admin("issue-token", "--email", ALICE, "--name", ""), 2, "")
    refused(admin("issue-token", "--email", ALICE, "--name", "a\x1bb"), 2, "control character")


def test_token_that_cannot_be_shown_is_a_failure(admin):
    admin.ok("create-user", "--email", ALICE)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([TUNNELD, "admin", "issue-token", "--email", ALICE, "--name", "x"], env=admin.env, stdout=full,
                              stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1 and b"could not be printed" in done.stderr


@pytest.mark.parametrize(
    "when, good",
    [
        ("90d", True), ("12h", True), ("2999-01-31", True), ("2999-01-31T12:00:00Z", True), ("2999-01-31T12:00:00+02:00", True),
        ("2020-01-01", False), ("0d", False), ("101y", False), ("d", False), ("-1d", False), ("soon", False),
        ("99999999999999999999d", False), ("2999-02-30", False), ("", False),
    ],
)
def test_expiry(admin, when, good):
    admin.ok("create-user", "--email", ALICE)
    done = admin("issue-token", "--email", ALICE, "--name", "x", "--expires", when)
    if good:
        assert done.returncode == 0, done
        (token,) = admin.json("list-tokens")
        assert TIME.match(token["expires_at"])
        if when == "2999-01-31T12:00:00+02:00":
            assert token["expires_at"] == "2999-01-31T10:00:00Z"
    else:
        refused(done, 2, "--expires")


# ---- listings ---------------------------------------------------------------------------------------------------


def test_json_of_every_command(admin, database):
    made = admin.json("create-user", "--email", ALICE)
    assert made == {"email": ALICE, "slug": made["slug"]}
    token = admin.json("issue-token", "--email", ALICE, "--name", "ci", "--expires", "2999-01-01")
    assert re.fullmatch(r"[a-z2-7]{52}", token["token"]) and UUID.match(token["id"])
    assert (token["email"], token["name"], token["expires_at"]) == (ALICE, "ci", "2999-01-01T00:00:00Z")
    (user,) = admin.json("list-users")
    assert TIME.match(user.pop("created_at"))
    assert user == {"email": ALICE, "slug": made["slug"], "tokens": 1, "names": 0, "disabled_at": None}
    (listed,) = admin.json("list-tokens", "--email", ALICE)
    assert TIME.match(listed.pop("created_at"))
    assert listed == {"id": token["id"], "email": ALICE, "name": "ci", "last_used_at": None,
                      "expires_at": "2999-01-01T00:00:00Z"}
    assert admin.json("disable-user", "--email", ALICE) == {"email": ALICE, "disabled": True}
    assert TIME.match(admin.json("list-users")[0]["disabled_at"])
    assert admin.json("enable-user", "--email", ALICE) == {"email": ALICE, "enabled": True}
    assert admin.json("set-slug", "--email", ALICE, "--slug", "alice") == {"email": ALICE, "slug": "alice", "rewritten": 0}
    assert admin.json("list-names") == []
    user_id = database.sql("SELECT id FROM users")[0][0]
    database.sql("INSERT INTO tunnels (id, user_id, name, subdomain) VALUES "
                 f"('33333333-3333-4333-8333-333333333333', '{user_id}', 'laptop', 'laptop-alice')")
    (name,) = admin.json("list-names", "--email", ALICE)
    assert TIME.match(name.pop("created_at"))
    assert name == {"subdomain": "laptop-alice", "name": "laptop", "email": ALICE, "released_at": None}
    assert admin.json("release-name", "--email", ALICE, "--name", "laptop")["released"] is True
    assert admin.json("list-names") == []
    assert TIME.match(admin.json("list-names", "--all")[0]["released_at"])
    assert admin.json("revoke-token", "--id", token["id"]) == {"revoked": 1}
    assert admin.json("migrate") == {"pending": 0, "applied": 0}
    assert admin.json("check") == []
    assert admin.json("delete-user", "--yes", "--email", ALICE) == {"email": ALICE, "deleted": True}
    assert admin.json("list-users") == []
    assert admin.json("list-names", "--all")[0]["email"] is None
    admin.check()


def test_tables_are_aligned(admin):
    admin.ok("create-user", "--email", "a@x")
    admin.ok("create-user", "--email", "jörg.with.a.long.address@example.org")
    admin.ok("issue-token", "--email", "a@x", "--name", "büro zwei")
    admin.ok("issue-token", "--email", "a@x", "--name", "x")
    for listing in ("list-users", "list-tokens"):
        heading, *rows = admin.ok(listing).splitlines()
        assert heading == heading.upper() and len(rows) == 2
        for at in (m.start() for m in re.finditer(r"(?<=  )\S", heading)):
            assert all(row[at - 2 : at] == "  " and row[at] != " " for row in rows), rows
    done = admin("list-names")
    assert done.returncode == 0 and done.stdout == "" and "no stored names" in done.stderr


# ---- changes ----------------------------------------------------------------------------------------------------


def test_wrong_targets(admin):
    admin.user()
    for words in (["disable-user"], ["enable-user"], ["delete-user", "--yes"], ["set-slug", "--slug", "x"], ["list-tokens"],
                  ["list-names"], ["revoke-token", "--name", "x"], ["release-name", "--name", "x"]):
        refused(admin(*words, "--email", "bob@example.com"), 1, "no user bob@example.com")
    refused(admin("revoke-token", "--email", ALICE, "--name", "other"), 1, "no token named 'other'")
    refused(admin("revoke-token", "--id", "11111111-1111-4111-8111-111111111111"), 1, "no token")
    refused(admin("revoke-token", "--id", "x"), 2, "id of a token")
    refused(admin("revoke-token", "--email", ALICE), 2, "--id or by --email and --name")
    refused(admin("revoke-token"), 2, "--id or by --email and --name")
    refused(admin("release-name", "--email", ALICE, "--name", "laptop"), 1, "no name 'laptop'")
    refused(admin("release-name", "--subdomain", "laptop-alice"), 1, "'laptop-alice'")
    refused(admin("release-name"), 2, "--subdomain")
    refused(admin("set-slug", "--email", ALICE, "--slug", "Not A Slug"), 2, "cannot be a slug")


def test_disabled_user_gets_no_token(admin):
    admin.user()
    admin.ok("disable-user", "--email", ALICE)
    refused(admin("issue-token", "--email", ALICE, "--name", "y"), 1, "is disabled")


def test_one_address_many_commands(admin, database):
    """Twenty processes at once: one makes the user, nineteen are told that it is there."""
    argv = [TUNNELD, "admin", "create-user", "--email", ALICE]
    many = [subprocess.Popen(argv, env=admin.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(20)]
    done = [(p.communicate()[0], p.returncode) for p in many]
    assert sorted(code for _, code in done) == [0] + [1] * 19
    assert len([out for out, _ in done if out]) == 1
    assert database.sql("SELECT count(*) FROM users") == [("1",)]
    admin.check()


# ---- the database -----------------------------------------------------------------------------------------------


def test_migrate_and_check(admin, database):
    assert admin.json("migrate", "--dry-run") == {"pending": 2, "applied": 0}
    refused(admin("check"), 1, "run admin migrate first")
    assert admin.json("migrate") == {"pending": 0, "applied": 2}
    assert admin.json("migrate", "--dry-run") == {"pending": 0, "applied": 0}
    admin.user()
    admin.check()
    database.sql("UPDATE users SET slug = 'No Slug'")
    done = admin("check")
    assert done.returncode == 1 and "'No Slug'" in done.stdout
    assert len(json.loads(admin("check", "--json").stdout)) == 1


def test_newer_and_changed_schemas_are_refused(admin, database):
    admin.user()
    database.sql("UPDATE kavilo_migrations SET checksum = 'x' WHERE version = 2")
    for words in (["list-users"], ["migrate"], ["check"], ["create-user", "--email", "b@x"]):
        refused(admin(*words), 2, "0002_lifecycle")
    database.sql("DELETE FROM kavilo_migrations WHERE version = 2")
    database.sql("INSERT INTO kavilo_migrations (version, name, checksum, applied_at) VALUES (7, 'later', 'x', '2030-01-01')")
    refused(admin("list-users"), 2, "has 7 where 2 is expected")


ORIGINAL = """
CREATE TABLE users (id uuid PRIMARY KEY, email TEXT NOT NULL UNIQUE, slug TEXT NOT NULL UNIQUE, created_at {time} NOT NULL);
CREATE TABLE api_tokens (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users (id), token_hash BYTEA NOT NULL UNIQUE,
  name TEXT NOT NULL, created_at {time} NOT NULL, last_used_at {time});
CREATE TABLE tunnels (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users (id), name TEXT NOT NULL,
  subdomain TEXT NOT NULL UNIQUE, created_at {time} NOT NULL, UNIQUE (user_id, name));
INSERT INTO users VALUES ('11111111-1111-4111-8111-111111111111', 'Alice@example.com', 'alice-7f0c', '2024-01-01 10:00:00');
INSERT INTO tunnels VALUES ('31111111-1111-4111-8111-111111111111', '11111111-1111-4111-8111-111111111111', 'laptop',
  'laptop-alice-7f0c', '2024-01-01 10:00:00');
"""


def test_database_of_the_original_is_adopted(admin, database):
    database.shell(ORIGINAL.format(time="TIMESTAMP" if database.kind == "sqlite" else "TIMESTAMPTZ"))
    (user,) = admin.json("list-users")
    assert (user["email"], user["slug"], user["names"]) == ("Alice@example.com", "alice-7f0c", 1)
    assert user["created_at"].startswith("2024-01-01T")
    refused(admin("create-user", "--email", ALICE), 1, "already a user")
    assert admin.json("list-names", "--email", ALICE)[0]["subdomain"] == "laptop-alice-7f0c"
    admin.ok("issue-token", "--email", ALICE, "--name", "new")
    admin.check()


# ---- export and import ------------------------------------------------------------------------------------------


def export(admin):
    """Every line but the first, which has the time."""
    first, *rest = admin.ok("export").splitlines()
    assert json.loads(first)["kavilo_export"] == 1
    return rest


def test_moving_from_one_back_end_to_the_other_and_back(cluster, tmp_path):
    places = [SqliteDatabase(tmp_path / "a"), PostgresDatabase(cluster), SqliteDatabase(tmp_path / "b")]
    admins = [Admin(place.url, tmp_path) for place in places]
    admins[0].user("gone@example.com")
    admins[0].ok("delete-user", "--yes", "--email", "gone@example.com")
    admins[0].user("jörg@example.com")
    admins[0].user(ALICE, "alice")
    admins[0].ok("issue-token", "--email", ALICE, "--name", 'quotes " and \\', "--expires", "2999-01-01")
    admins[0].ok("disable-user", "--email", "jörg@example.com")
    user_id = places[0].sql(f"SELECT id FROM users WHERE email = '{ALICE}'")[0][0]
    for n, name in enumerate(("laptop", "desktop")):
        places[0].sql("INSERT INTO tunnels (id, user_id, name, subdomain) VALUES "
                      f"('3333333{n}-3333-4333-8333-333333333333', '{user_id}', '{name}', '{name}-alice')")
    admins[0].ok("release-name", "--subdomain", "desktop-alice")
    for old, new in ((admins[0], admins[1]), (admins[1], admins[2])):
        new.ok("import", stdin=old("export").stdout.encode())
        assert export(new) == export(old)
        new.check()
    assert places[0].sql("SELECT lower(hex(token_hash)) FROM api_tokens ORDER BY 1") == places[2].sql(
        "SELECT lower(hex(token_hash)) FROM api_tokens ORDER BY 1")


def test_export_file_is_private_and_never_overwritten(admin, tmp_path):
    admin.user()
    file = tmp_path / "export.jsonl"
    admin.ok("export", "--output", str(file))
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    text = file.read_text()
    refused(admin("export", "--output", str(file)), 2, "File exists")
    assert file.read_text() == text
    refused(admin("import", "--input", str(tmp_path / "none")), 2, "No such file")


def test_import_is_all_or_nothing(admin, database, tmp_path):
    other = Admin(f"sqlite:{tmp_path}/other.db", tmp_path)
    other.user("bob@example.com")
    other.user(ALICE)
    lines = other("export").stdout.encode().splitlines(keepends=True)
    admin.ok("migrate")
    bob = next(line for line in lines if b'"email":"bob' in line)
    cases = [
        (lines[:-1], "the end is missing"),
        (lines[1:], "line 1: this is no export"),
        ([line for line in lines if line != bob], "the user that this token belongs to"),
        (lines[:3] + [bob] + lines[3:], "line 4: this user, or one with the same"),
        (lines[:4] + lines[-1:], "line 5: rows are missing"),
        (lines + [bob], "something behind the end"),
        (lines[:2] + [b"{\n"], "line 3: "),
        (lines[:2] + [b"[]\n"], "line 3: no JSON object"),
        (lines[:2] + [b'{"car": {}}\n'], "line 3: neither a user nor"),
        (lines[:2] + [b'{"user": {"id": 7}}\n'], "line 3: a value that is neither"),
        (lines[:2] + [b'{"user": {"id": "7"}}\n'], 'line 3: "id" of a user'),
        ([b'{"kavilo_export": 2}\n'] + lines[1:], "newer kavilo-tunneld"),
        ([b""], "the end is missing"),
        ([b"\xff\x00garbage"], "line 1: "),
    ]
    for data, part in cases:
        done = admin("import", stdin=b"".join(data))
        assert done.returncode in (1, 2) and part in done.stderr, (part, done)
        assert database.sql("SELECT count(*) FROM users") == [("0",)]
    admin.ok("import", stdin=b"".join(lines))
    assert admin.json("import", "--input", str(write(tmp_path / "none", [lines[0], b'{"end": {"rows": 0}}\n']))) == {"rows": 0}
    done = admin("import", stdin=b"".join(lines))
    assert done.returncode == 1 and "already in the database" in done.stderr
    admin.check()


def write(file, lines):
    file.write_bytes(b"".join(lines))
    return file


# ---- where the database is --------------------------------------------------------------------------------------


def test_default_database_is_private(tmp_path):
    admin = Admin(None, tmp_path)
    old = os.umask(0)
    try:
        admin.ok("create-user", "--email", ALICE)
    finally:
        os.umask(old)
    folder = tmp_path / ".local/share/kavilo-tunnel"
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600, file
    assert (folder / "tunneld.db").exists()
    admin.env["XDG_DATA_HOME"] = str(tmp_path / "xdg")
    admin.ok("create-user", "--email", ALICE)
    assert (tmp_path / "xdg/kavilo-tunnel/tunneld.db").exists()


def test_no_home(tmp_path):
    admin = Admin(None, tmp_path)
    del admin.env["HOME"]
    refused(admin("list-users"), 2, "DATABASE_URL")


@pytest.mark.parametrize(
    "url, part",
    [
        ("mysql://root:geheim@localhost/x", "'mysql'"),
        ("sqlite:", "names no file"),
        ("sqlite::memory:", "not in memory"),
        ("sqlite:/nowhere/at/all.db", "/nowhere/at/all.db"),
        ("sqlite:/tmp/", "names a folder"),
        ("sqlite:/tmp", "/tmp"),
        ("sqlite:/dev/null", "/dev/null"),
        ("sqlite:x.db?mode=rwc", "without '?'"),
        ("/var/lib/x.db", "sqlite:/path"),
        ("postgres://u:geheim@127.0.0.1:1/x", "127.0.0.1"),
        ("postgres://u:geh%eim@127.0.0.1/x", "connection string"),
        ("postgresql://u:geheim@127.0.0.1:1/x?sslmode=nonsense", "sslmode"),
        ("postgres:///x?host=/nowhere", "/nowhere"),
        ("host=127.0.0.1 port=1 user=u password=geheim", "127.0.0.1"),
        ("host=127.0.0.1 nonsense=1 password=geheim", "connection string"),
    ],
)
def test_databases_that_cannot_be(tmp_path, url, part):
    admin = Admin(url, tmp_path)
    for words in (["list-users"], ["export"], ["check"]):
        done = admin(*words)
        refused(done, 2, part)
        assert "geh" not in done.stderr


def test_files_that_are_no_database(tmp_path):
    file = tmp_path / "text.db"
    file.write_text("this is a letter to a friend, and no database at all\n" * 100)
    refused(Admin(f"sqlite:{file}", tmp_path)("list-users"), 2, "not a database")


def test_flag_wins_over_environment(tmp_path):
    admin = Admin(f"sqlite:{tmp_path}/environment.db", tmp_path)
    admin.ok("create-user", "--email", ALICE, "--database-url", f"sqlite:{tmp_path}/flag.db")
    assert (tmp_path / "flag.db").exists() and not (tmp_path / "environment.db").exists()


def test_help_names_every_command(tmp_path):
    text = run([TUNNELD, "admin", "--help"], Admin(None, tmp_path).env).stdout
    for name in COMMANDS:
        assert f"admin {name}" in text
        page = run([TUNNELD, "admin", name, "--help"], Admin(None, tmp_path).env)
        assert page.returncode == 0 and "--database-url" in page.stdout


# ---- what operators are given -----------------------------------------------------------------------------------


def test_compose_has_the_names_of_the_document():
    text = (ROOT / "deploy/compose.yml").read_text()
    for line in ("container_name: kavilo-postgres", "POSTGRES_USER: kavilo", "POSTGRES_DB: kavilo", '- "127.0.0.1:5432:5432"'):
        assert f" {line}\n" in text


def test_document_names_every_command():
    text = (ROOT / "docs/ACCOUNTS.md").read_text()
    for name in COMMANDS:
        assert re.search(rf"`{name}\b", text), name
