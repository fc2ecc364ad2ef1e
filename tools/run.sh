#!/usr/bin/env bash
# A whole tunnel on this machine: server, account, token, client, local service. Ends with a public URL that works.
#
#     run.sh [URL] [--once]
#
# URL is the local service to publish; without one, tools/demo.py is. --once ends after the URL was fetched through the
# tunnel: status 0 when what came back is what the local service says. All that the run makes lives in one folder under
# build/ and goes with it. The processes are told by the kernel to end when this script does, however it ends.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin=${KAVILO_BIN:-build}
patience=15 # seconds for anything that normally takes milliseconds
url=
once=false
declare -A pids=()

say() {
    printf 'dev: %s\n' "$*" >&2
}

fail() {
    local log
    say "$*"
    for log in "$folder"/*.log; do
        [ -s "$log" ] || continue
        printf -- '--- %s\n' "${log##*/}" >&2
        tail -n 20 "$log" >&2
    done
    exit 1
}

# start NAME COMMAND...: in the background, standard output and error to files of that name.
start() {
    local name=$1
    shift
    setpriv --pdeathsig SIGTERM "$@" >"$folder/$name.out" 2>"$folder/$name.log" </dev/null &
    pids[$name]=$!
}

# wait_for NAME WHAT COMMAND...: until COMMAND succeeds, NAME has died, or patience is over.
wait_for() {
    local name=$1 what=$2 deadline=$((SECONDS + patience))
    shift 2
    until "$@" >/dev/null 2>&1; do
        kill -0 "${pids[$name]}" 2>/dev/null || fail "the $name ended before $what"
        [ "$SECONDS" -lt "$deadline" ] || fail "$what took more than $patience seconds"
        sleep 0.05
    done
}

# stop NAME: in order first, by force when that is not heard.
stop() {
    local pid=${pids[$1]:-} deadline=$((SECONDS + patience))
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null && say "the $1 did not stop when asked to, and was ended"
    wait "$pid" 2>/dev/null || true
    unset "pids[$1]"
}

clean_up() {
    trap '' INT TERM HUP
    stop client
    stop server
    stop page
    rm -rf "$folder"
}

# free_ports PREFERRED...: prints one port for each, the preferred one where nobody has it.
free_ports() {
    /usr/bin/python3 - "$@" <<'PYTHON'
import socket, sys
held = []
for preferred in map(int, sys.argv[1:]):
    for port in (preferred, 0):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            s.listen()
        except OSError:
            continue
        held.append(s)
        print(s.getsockname()[1])
        break
PYTHON
}

answers() {
    (: <"/dev/tcp/127.0.0.1/$1")
}

public_url() {
    sed -n 's/^ *public URL: *//p' "$folder/client.out"
}

# True when the public URL gives what the local service gives, and not an error of the tunnel's own. Says so otherwise.
prove() {
    local head="$folder/head" body="$folder/body" status
    if ! status=$(curl -sS --noproxy '*' --max-time "$patience" -D "$head" -o "$body" -w '%{http_code}' "$1"); then
        say "curl could not fetch $1"
        return 1
    fi
    if grep -qi '^kavilo-error:' "$head"; then
        say "the tunnel is up, but $url gave no answer: $(sed -n 's/^kavilo-error: *//Ip' "$head" | tr -d '\r') ($status)"
        return 1
    fi
    if [ -n "$proof" ] && ! grep -q "$proof" "$body"; then
        say "$1 answered $status with something that is not the page of this run"
        return 1
    fi
    say "fetched $1 through the tunnel: status $status, $(stat -c %s "$body") bytes"
}

for word in "$@"; do
    case $word in
    --once) once=true ;;
    -*) say "run knows --once and a URL, not $word" && exit 2 ;;
    *) [ -z "$url" ] || { say "one URL is enough: $url or $word?" && exit 2; } && url=$word ;;
    esac
done

mkdir -p build
folder=$(mktemp -d build/dev-run-XXXXXX)
folder=$PWD/$folder
trap clean_up EXIT
trap 'echo >&2; exit 130' INT
trap 'exit 143' TERM HUP

# A person's own settings (~/.kavilo-tunnel, KAVILO_*) have no say in this run, and stay as they are.
unset "${!KAVILO_@}"
export HOME=$folder DATABASE_URL=sqlite:$folder/kavilo.db
mapfile -t ports < <(free_ports 8080 7777 9090)

start server "$bin/kavilo-tunneld" serve --base-host localhost --edge-listen "127.0.0.1:${ports[0]}" \
    --control-listen "127.0.0.1:${ports[1]}" --admin-listen "127.0.0.1:${ports[2]}" --grace 2s
wait_for server 'the control port answered' answers "${ports[1]}"

slug=$("$bin/kavilo-tunneld" admin create-user --email dev@example.com 2>"$folder/admin.log") || fail 'no user could be made'
token=$("$bin/kavilo-tunneld" admin issue-token --email dev@example.com --name dev-run 2>"$folder/admin.log") ||
    fail 'no token could be issued'
say "server on ports ${ports[*]}, user $slug"

proof=
if [ -z "$url" ]; then
    proof=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    start page /usr/bin/python3 tools/demo.py "$proof"
    wait_for page 'the page had a port' test -s "$folder/page.out"
    url=http://127.0.0.1:$(cat "$folder/page.out")
fi

KAVILO_TOKEN=$token start client "$bin/kavilo-tunnel" tunnel --url "$url" --endpoint "http://127.0.0.1:${ports[1]}"
wait_for client 'the tunnel was ready' grep -q 'forwarding to:' "$folder/client.out"
public=$(public_url)

proven=true
prove "$public" || proven=false
if $once; then
    printf '%s\n' "$public"
    $proven
    exit
fi

printf '\n'
cat "$folder/client.out"
printf '\n  Open it, or: curl %s\n  Ctrl-C stops everything. Logs: %s\n\n' "$public" "${folder#"$PWD"/}"
wait -n "${pids[@]}" || true
for name in "${!pids[@]}"; do
    kill -0 "${pids[$name]}" 2>/dev/null || fail "the $name ended by itself"
done
