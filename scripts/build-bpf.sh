#!/usr/bin/env bash
# Compiles the programs of bpf/*.bpf.c to objects, which are committed so that building flowscope takes no clang.
# The same sources give the same bytes with the same clang, wherever the checkout is.
#
#   scripts/build-bpf.sh            compiles
#   scripts/build-bpf.sh --check    compiles elsewhere and fails when a committed object is another
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# Debian 12's version. Another one may give other bytes, which are not wrong, but cannot be compared.
clang_version=14
need "clang-$clang_version" "llvm-$clang_version" libbpf-dev linux-libc-dev

check=no
case ${1:-} in
    "") ;;
    --check)
        check=yes
        scratch=$(mktemp -d)
        trap 'rm -rf "$scratch"' EXIT
        ;;
    *) die "$1: only --check is known" ;;
esac

for source in bpf/*.bpf.c; do
    object=${source%.c}.o
    out=$object
    [ "$check" = no ] || out=$scratch/${object##*/}

    # -g for the BTF that the loader reads; DWARF, which is most of it, goes again.
    "clang-$clang_version" -O2 -g -Wall -Wextra -Werror -target bpf -mcpu=v3 \
        -ffile-prefix-map="$PWD=." -I"/usr/include/$(uname -m)-linux-gnu" \
        -c "$source" -o "$out"
    "llvm-strip-$clang_version" -g "$out"

    if [ "$check" = yes ]; then
        cmp -s "$out" "$object" || die "$object is not what its sources compile to: run scripts/build-bpf.sh and commit it"
        say "$object is what its sources compile to"
    fi
done
