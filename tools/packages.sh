#!/usr/bin/env bash
# The Debian packages that the project needs, by purpose, and how they are installed. Sourced by ./dev.

declare -A packages=(
    [build]='cmake ninja-build gcc libc6-dev pkg-config libuv1-dev libnghttp2-dev liburing-dev libssl-dev libprotobuf-c-dev
             protobuf-c-compiler libsqlite3-dev libpq-dev libjansson-dev libcyaml-dev libyaml-dev uthash-dev'
    [run]='curl python3'
    [format]='clang-format-14'
    [lint]='clang-format-14 clang-tidy-14 shellcheck python3-pyflakes python3-pytest'
    [fuzz]='clang-14 libclang-rt-14-dev'
    [test]='libcmocka-dev b3sum nodejs strace openssl postgresql-15 sqlite3 curl jq iproute2 procps valgrind python3-pytest
            python3-pytest-xdist python3-cryptography python3-grpcio python3-h2 python3-hpack python3-websockets
            nginx libnginx-mod-stream haproxy slowhttptest nftables tinyproxy-bin dante-server microsocks wrk
            systemd chromium'
    [bench]='nginx wrk nghttp2-client curl openssl openssh-server openssh-client python3 valgrind'
)

# Debian has npm as a package of its own; other builds of Node bring theirs, and the two exclude each other.
command -v npm >/dev/null || packages[test]+=' npm'

packages_installed() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' | sort -u
}

# packages_need PURPOSE...: installs what is missing; silent, and without a need for rights, when nothing is.
packages_need() {
    local purpose words wanted=() missing sudo=()

    for purpose; do
        read -rd '' -a words <<<"${packages[$purpose]}" || true
        wanted+=("${words[@]}")
    done
    if ! command -v dpkg-query >/dev/null; then
        echo "dev: this is not Debian, so nothing is installed; needed are the likes of: ${wanted[*]}" >&2
        return
    fi
    missing=$(comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) <(packages_installed "${wanted[@]}"))
    [ -n "$missing" ] || return 0

    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "dev: as root, please: apt-get install ${missing//$'\n'/ }" >&2
            return 1
        fi
        sudo=(sudo)
    fi
    # shellcheck disable=SC2086 # one word a package
    "${sudo[@]}" bash "${BASH_SOURCE[0]}" install $missing
}

# As root. Some packages bring services, and nobody asked for those: policy-rc.d, Debian's own switch, keeps them from
# starting now; PostgreSQL is told to make no cluster, and the others not to start with the machine.
packages_install() {
    local package policy=/usr/sbin/policy-rc.d clusters=/etc/postgresql-common/createcluster.d/kavilo.conf
    export DEBIAN_FRONTEND=noninteractive

    echo "dev: installing $*" >&2
    made=()
    trap 'rm -f "${made[@]}"' EXIT
    if [ ! -e "$policy" ]; then
        made+=("$policy")
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    if [[ " $* " == *" postgresql-15 "* ]]; then
        made+=("$clusters")
        mkdir -p "${clusters%/*}"
        echo 'create_main_cluster = false' >"$clusters"
    fi
    apt-get -q -o DPkg::Lock::Timeout=300 update >&2
    apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >&2
    if command -v systemctl >/dev/null; then
        for package in nginx:nginx haproxy:haproxy dante-server:danted microsocks:microsocks; do
            [[ " $* " != *" ${package%:*} "* ]] || systemctl disable "${package#*:}" >&2 || true
        done
    fi
}

if [ "${1:-}" = install ] && [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    packages_install "${@:2}"
fi
