#!/usr/bin/env bash
# Compiles the XDP program to bpf/flowscope.bpf.o, which is committed so that building flowscope takes no clang.
# The same sources give the same bytes with the same clang, wherever the checkout is.
#
#   scripts/build-bpf.sh            compiles
#   scripts/build-bpf.sh --check    compiles elsewhere and fails when the committed object is another
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# Debian 12's version. Another one may give other bytes, which are not wrong, but cannot be compared.
clang_version=14
need "clang-$clang_version" "llvm-$clang_version" libbpf-dev linux-libc-dev

object=bpf/flowscope.bpf.o
case ${1:-} in
    "") out=$object ;;
    --check) out=$(mktemp) && trap 'rm -f "$out"' EXIT ;;
    *) die "$1: only --check is known" ;;
esac

# -g for the BTF that the loader reads; DWARF, which is most of it, goes again.
"clang-$clang_version" -O2 -g -Wall -Wextra -Werror -target bpf -mcpu=v3 \
    -ffile-prefix-map="$PWD=." -I"/usr/include/$(uname -m)-linux-gnu" \
    -c bpf/flowscope.bpf.c -o "$out"
"llvm-strip-$clang_version" -g "$out"

if [ "$out" != "$object" ]; then
    cmp -s "$out" "$object" || die "$object is not what its sources compile to: run scripts/build-bpf.sh and commit it"
    say "$object is what its sources compile to"
fi
