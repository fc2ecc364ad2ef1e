#!/bin/sh
# Runs a command beside a PostgreSQL cluster that is made for it and removed after it:
#
#     with_postgres.sh COMMAND [ARGUMENT...]
#
# The command finds the cluster's URL in KV_TEST_POSTGRES ("none" where PostgreSQL is not installed). The cluster listens
# on a UNIX socket in its own folder alone. PostgreSQL refuses to run as root, so root hands it to the user postgres.
set -eu

bin=
for dir in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) $(dirname "$(command -v initdb || echo /nowhere/initdb)"); do
    if [ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ]; then
        bin=$dir
        break
    fi
done
if [ -z "$bin" ]; then
    echo "PostgreSQL is not installed: its tests are skipped (apt-get install postgresql)" >&2
    KV_TEST_POSTGRES=none exec "$@"
fi

as=
folder=$(mktemp -d /tmp/kavilo-pg.XXXXXX)
if [ "$(id -u)" = 0 ]; then
    chown postgres "$folder"
    as="runuser -u postgres --"
fi

cd "$folder"
stop() {
    # shellcheck disable=SC2086
    $as "$bin/pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck disable=SC2086
$as "$bin/initdb" -D "$folder/data" -U kavilo -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$folder/initdb.log" 2>&1 ||
    { cat "$folder/initdb.log" >&2; exit 1; }
# shellcheck disable=SC2086
$as "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/data/log" \
    -o "-c listen_addresses='' -c unix_socket_directories=$folder -c fsync=off -c max_connections=200" start \
    >/dev/null || { cat "$folder/data/log" >&2; exit 1; }

KV_TEST_POSTGRES="postgresql://kavilo@/postgres?host=$folder"
export KV_TEST_POSTGRES
cd - >/dev/null
status=0
"$@" || status=$?
exit $status
