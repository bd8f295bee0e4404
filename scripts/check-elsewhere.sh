#!/usr/bin/env bash
# Type-checks the library for systems other than Linux: that no code of Linux is without its cfg, and that what is there for the
# others compiles. Nothing is linked or run.
#
#   scripts/check-elsewhere.sh [TARGET…]     default: macOS, FreeBSD and Windows
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
need_rust

targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(x86_64-apple-darwin x86_64-unknown-freebsd x86_64-pc-windows-gnu)
for target in "${targets[@]}"; do
    # A toolchain that does not come from rustup, or one that gets nothing more, has what it has.
    if ! rustup target list --installed | grep -qxF "$target" && ! timeout 120 rustup target add "$target"; then
        say "SKIPPED: $target: this toolchain does not have its standard library, and none is to be had"
        continue
    fi
    # Compiling C for it would take a compiler for it; nothing is linked, so that it need not be there.
    export "CC_${target//-/_}=true" "AR_${target//-/_}=true"
    features=("" "metrics,tracing" "capture" "pcap-live" "sensor")
    # Standard input is waited for as Unix has it.
    [[ $target != *windows* ]] || unset "features[4]"
    for feature in "${features[@]}"; do
        say "== cargo check --target $target --features '$feature'"
        cargo check --quiet --locked --lib --target "$target" --features "$feature"
    done
done
