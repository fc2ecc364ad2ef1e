#!/usr/bin/env bash
# Runs the fuzzers of tests/fuzz/ from their corpora, one a core at a time. `./dev fuzz` builds them first.
#
#     fuzz.sh [NAME...] [SECONDS]    NAME as in tests/fuzz/fuzz_NAME.c; all of them without one; 60 seconds each
#
# New inputs are kept in build-fuzz/corpus/. A crash stays in build-fuzz/crashes/NAME-*; once mended, it earns a seat in
# tests/fuzz/corpus/fuzz_NAME/, which every later run starts from. The words in tests/fuzz/corpus/http1.dict, say, help
# all fuzzers whose NAME begins with http1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build='build-fuzz'
names=()
seconds=60
for word in "$@"; do
    if [[ $word =~ ^[0-9]+$ ]]; then
        seconds=$word
    elif [ -f "tests/fuzz/fuzz_$word.c" ]; then
        names+=("$word")
    else
        echo "fuzz: there is no tests/fuzz/fuzz_$word.c" >&2
        exit 2
    fi
done
if [ ${#names[@]} -eq 0 ]; then
    mapfile -t names < <(find tests/fuzz -name 'fuzz_*.c' | sed 's,.*/fuzz_\(.*\)\.c,\1,' | sort)
fi
if [ ${#names[@]} -eq 0 ]; then
    echo 'fuzz: tests/fuzz has no fuzzers' >&2
    exit 1
fi

fuzz() {
    local name=$1 start=$SECONDS log=$build/fuzz_$1.log found=$build/corpus/fuzz_$1 arguments
    local seeds=tests/fuzz/corpus/fuzz_$1 words=tests/fuzz/corpus/${1%%_*}.dict

    arguments=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
        -artifact_prefix="$build/crashes/$name-")
    [ ! -f "$words" ] || arguments+=(-dict="$words")
    arguments+=("$found")
    [ ! -d "$seeds" ] || arguments+=("$seeds")
    mkdir -p "$found"
    if "$build/fuzz_$name" "${arguments[@]}" >"$log" 2>&1 </dev/null; then
        printf '  ok      %-24s %9s inputs in %d s\n' "$name" \
            "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" $((SECONDS - start))
    else
        printf '  FAILED  %s\n%s\n' "$name" "$(tail -n 40 "$log")"
        return 1
    fi
}

failed=0
running=0
mkdir -p "$build/crashes"
for name in "${names[@]}"; do
    if [ "$running" -ge "$(nproc)" ]; then
        wait -n || failed=$((failed + 1))
        running=$((running - 1))
    fi
    fuzz "$name" &
    running=$((running + 1))
done
for (( ; running > 0; running--)); do
    wait -n || failed=$((failed + 1))
done
printf 'fuzzers: %d passed, %d failed\n' $((${#names[@]} - failed)) "$failed"
[ "$failed" -eq 0 ]
