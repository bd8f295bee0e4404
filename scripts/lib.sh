# shellcheck shell=bash disable=SC2034 # what is set here is used where this is sourced
# What the scripts share. Sourced, not run. The one place that installs packages.

# The root of the checkout.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What building needs: a linker, libpcap to compile filters, and a C compiler for zstd and mimalloc.
packages_build=(gcc libc6-dev make pkg-config libpcap-dev)

# What the feature af-xdp needs beside it: libbpf and libxdp are built from source, and bindgen reads their headers.
packages_af_xdp=(clang libelf-dev zlib1g-dev m4)

say() { printf '%s\n' "$*"; }

# What a script that gives up exits with; set it for another code.
failed_code=1

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit "$failed_code"
}

# options FLAGS VALUES ARGUMENT…: sets a variable for each option, named as it is with _ for -: of those in FLAGS to yes, of those
# in VALUES to what follows. --help shows the comment that the script begins with.
options() {
    local flags=" $1 " values=" $2 " name
    shift 2
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h)
            sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
            exit 0
            ;;
        esac
        name=${1#--}
        if [[ $1 == --?* && $flags == *" $name "* ]]; then
            printf -v "${name//-/_}" %s yes
        elif [[ $1 == --?* && $values == *" $name "* ]]; then
            [ $# -ge 2 ] || die "$1 wants a value"
            printf -v "${name//-/_}" %s "$2"
            shift
        else
            die "unknown option $1: see --help"
        fi
        shift
    done
}

# as_root COMMAND…: runs it with the rights of root, or fails when there are none to be had.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 77
    fi
}

# need PACKAGE…: installs the Debian packages that are missing, quietly.
need() {
    local missing=() package
    command -v dpkg-query >/dev/null || {
        # Not Debian: trust that what is needed is there; a build error will name what is not.
        return 0
    }
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0

    local install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    as_root true || die "these packages are missing and installing them takes root; run this first:
    sudo sh -c '$install'"
    say "installing ${missing[*]}"
    local log
    log=$(mktemp)
    if ! (install_quietly "${missing[@]}") >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        die "could not install ${missing[*]}; the whole log is $log"
    fi
    rm -f "$log"
}

# A daemon that a test needs (prometheus, nginx) must not start as a service: policy-rc.d tells Debian's
# maintainer scripts so, and goes away again. Runs in a subshell, for the trap.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d
    export DEBIAN_FRONTEND=noninteractive
    if [ ! -e "$policy" ]; then
        trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    as_root apt-get -q update || return
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@"
}

# need_rust: a toolchain is the one thing that these scripts do not install.
need_rust() {
    command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null || die "cargo is missing: install a Rust toolchain, 1.88 or newer (Debian 12's own is too old)"
    local have
    have=$(cargo --version | sed 's/^cargo \([0-9]*\)\.\([0-9]*\).*/\1 \2/')
    [ "${have% *}" -gt 1 ] || [ "${have#* }" -ge 88 ] || die "cargo 1.${have#* } is too old: 1.88 or newer is needed"
}

# into_cache FILE: how a file came into the page cache decides the size of its pieces there, which also become smaller within the hour, and
# with it a tenth to a third of a fast reader's time: out with what there is, and in again as from a disk.
into_cache() {
    sync "$1"
    dd if="$1" iflag=nocache count=0 status=none
    cat "$1" >/dev/null
}
