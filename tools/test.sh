#!/usr/bin/env bash
# Everything that has to be right, or a part of it. `./dev test` installs what this needs.
#
#     test.sh                       all of it
#     test.sh lint [deep]           the lints
#     test.sh unit [CTEST...]       unit tests of the release build
#     test.sh system [PYTEST...]    system tests of the release build
#     test.sh guard                 instructions and system calls of one request
#     test.sh asan|tsan [PYTEST...] unit and system tests under sanitizers
#
# All of it runs in two lanes. The steps in front stream their output; lints and the sanitizer and fuzzer builds run
# behind them at the lowest priority, and show their output when they are waited for. Status 0 when every step passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

logs=build/test-logs
fuzz_seconds=5
lane=
summary=()
passed=0
failed=0

export PYTHONDONTWRITEBYTECODE=1
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=second_deadlock_stack=1

# ---- what the steps do

build() { # build PRESET [TARGET]
    cmake --preset "$1" >/dev/null && cmake --build --preset "$1" ${2:+--target "$2"}
}

lint() {
    build release kv_proto && tests/lint/run build "$@"
}

unit_tests() { # unit_tests BUILD [CTEST...]
    ctest --test-dir "$1" --output-on-failure --no-tests=error -j "$(nproc)" "${@:2}"
}

# Twice as many at once as there are cores, because system tests wait more than they work.
system_tests() { # system_tests BUILD [PYTEST...]
    KAVILO_BIN=$1 /usr/bin/python3 -m pytest -q -ra -n "$((2 * $(nproc)))" --durations=5 -p no:cacheprovider tests/system "${@:2}"
}

# Instructions and system calls of one request against those in the tree: nothing is timed, so nothing has to be quiet.
cost_of_a_request() {
    KAVILO_BIN=build bench/guard
}

# ThreadSanitizer wants its own places in memory, which the kernel's randomisation may have given away.
without_aslr() {
    setarch "$(uname -m)" -R "$0" "$@"
}

# ---- how steps are run and counted

result() { # result NAME STATUS SECONDS
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
        summary+=("$(printf '  ok      %-44s %4d s' "$1" "$3")")
    else
        failed=$((failed + 1))
        summary+=("$(printf '  FAILED  %-44s %4d s' "$1" "$3")")
    fi
    printf '%s\n' "${summary[-1]}"
}

step() { # step NAME COMMAND...: in front. Always succeeds; the result is counted.
    local name=$1 start=$SECONDS status=0
    printf '\n== %s\n' "$name"
    mkdir -p "$logs"
    { "${@:2}" 2>&1 || status=$?; } > >(tee "$logs/front-$start-$RANDOM.log")
    wait $! 2>/dev/null || true # tee's last lines before ours
    result "$name" "$status" $((SECONDS - start))
}

behind() { # behind KEY COMMAND...: one step of the lane behind
    local start=$SECONDS status=0
    "${@:2}" >"$logs/$1.log" 2>&1 || status=$?
    printf '%d %d\n' "$status" $((SECONDS - start)) >"$logs/$1.new"
    mv "$logs/$1.new" "$logs/$1.result"
}

join() { # join KEY NAME: waits for a step of the lane behind, shows and counts it; its status is join's
    local status=1 seconds=0
    printf '\n== %s\n' "$2"
    while [ ! -e "$logs/$1.result" ] && kill -0 "$lane" 2>/dev/null; do
        sleep 0.1
    done
    cat "$logs/$1.log"
    [ ! -e "$logs/$1.result" ] || read -r status seconds <"$logs/$1.result"
    result "$2" "$status" "$seconds"
    return "$status"
}

# Which tests failed, and which were not run and why, out of all that the steps have printed.
name_tests() {
    local failures skips
    failures=$(cat "$logs"/*.log 2>/dev/null | grep -aE '^(FAILED|ERROR) |^[[:space:]]+[0-9]+ - .*\((Failed|Timeout|SEGFAULT|Subprocess aborted)\)$|^ +FAILED ' |
        grep -avE '^ +FAILED .* [0-9]+ s$' | sort -u || true)
    skips=$(cat "$logs"/*.log 2>/dev/null | grep -aE '^SKIPPED |\*\*\*Skipped' | sort -u || true)
    [ -z "$failures" ] || printf '\nfailed:\n%s\n' "$failures"
    [ -z "$skips" ] || printf '\nnot run, and why:\n%s\n' "$skips"
}

finish() {
    name_tests
    printf '\n== summary (%d min %02d s)\n' $((SECONDS / 60)) $((SECONDS % 60))
    printf '%s\n' "${summary[@]}"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" -eq 0 ]
    exit
}

stop_lane() {
    [ -z "$lane" ] || kill -TERM -- "-$lane" 2>/dev/null || true
}

# ---- the parts

everything() {
    rm -rf "$logs"
    mkdir -p "$logs"
    step 'build (release)' build release
    [ "$failed" -eq 0 ] || finish

    # A process group of its own, so that it can be ended whole when this script is.
    trap stop_lane EXIT
    trap 'exit 130' INT TERM HUP
    set -m
    {
        renice -n 19 "$BASHPID" >/dev/null
        behind lint lint
        behind asan build asan
        behind fuzz build fuzz fuzzers
        behind guard cost_of_a_request
    } &
    lane=$!
    set +m

    step 'unit tests' unit_tests build
    step 'system tests' system_tests build
    join lint 'lint' || true
    if join asan 'build (asan)'; then
        step 'unit tests under ASan and UBSan' unit_tests build-asan
        step 'system tests under ASan and UBSan' system_tests build-asan
    fi
    if join fuzz 'build (fuzzers)'; then
        step "fuzzers, $fuzz_seconds s each" tools/fuzz.sh "$fuzz_seconds"
    fi
    join guard 'cost of a request' || true
    finish
}

sanitized() { # sanitized PRESET NAME [PYTEST...]
    step "build ($1)" build "$1"
    [ "$failed" -eq 0 ] || finish
    step "unit tests under $2" unit_tests "build-$1"
    step "system tests under $2" system_tests "build-$1" "${@:3}"
    finish
}

part=${1:-everything}
[ $# -eq 0 ] || shift
case $part in
everything) everything ;;
lint) lint "$@" ;;
unit) build release && unit_tests build "$@" ;;
system) build release && system_tests build "$@" ;;
guard) build release && cost_of_a_request ;;
asan) sanitized asan 'ASan and UBSan' "$@" ;;
tsan) without_aslr tsan-here "$@" ;;
tsan-here) sanitized tsan 'ThreadSanitizer' "$@" ;;
*)
    echo "test: there is no part '$part'; there are lint, unit, system, guard, asan, tsan" >&2
    exit 2
    ;;
esac
