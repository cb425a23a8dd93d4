# For scripts of tests and benchmarks to source: installs Debian packages that are missing.
# shellcheck shell=bash

packages=()

# `need PACKAGE COMMAND...`: the package is missing if the command fails.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || packages+=("$package")
}

# Installs what is missing. Servers among it are for tests to start: those of the packages do not run, which Debian asks policy-rc.d.
install_needed() {
    [ ${#packages[@]} -gt 0 ] || return 0
    local as_root=() policy=/usr/sbin/policy-rc.d own_policy= outcome=0
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update
    if [ ! -e "$policy" ]; then
        own_policy=yes
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin "$policy"
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${packages[@]}" || outcome=$?
    [ -z "$own_policy" ] || "${as_root[@]}" rm -f "$policy"
    return "$outcome"
}
