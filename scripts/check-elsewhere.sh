#!/usr/bin/env bash
# Type-checks the library for a system other than Linux: that no code of Linux is without its cfg, and that what is there for the
# others compiles. Nothing is linked or run.
#
#   scripts/check-elsewhere.sh [TARGET…]     default: x86_64-apple-darwin
#
# The standard library of a target comes from rustup, or, where rustup has none to offer, is compiled from the sources in
# Debian's rust-web-src with Debian's compiler, which are unpacked under the target directory and not installed.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
need_rust

targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(x86_64-apple-darwin)
mkdir -p "${CARGO_TARGET_DIR:-target}/elsewhere"
work=$(realpath "${CARGO_TARGET_DIR:-target}/elsewhere")

# A compiler and the sources of its standard library, of the same version.
debian_sources() {
    [ -d "$work/library" ] && return
    local package
    (
        mkdir -p "$work/packages"
        cd "$work/packages"
        apt-get download -q -q rustc-web rust-web-src libstd-rust-web-dev \
            "$(apt-cache depends libstd-rust-web-dev | sed -n 's/.*Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p' | head -n 1)"
        apt-get download -q -q "$(apt-cache depends "$(echo libstd-rust-web-1*.deb | cut -d_ -f1)" | sed -n 's/.*Depends: \(libllvm[0-9]*\)$/\1/p' | head -n 1)"
        for package in *.deb; do dpkg -x "$package" "$work/unpacked"; done
    ) 2>/dev/null || return 1
    local libraries
    libraries=$(dirname "$(find "$work/unpacked" -name 'libLLVM*.so*' | head -n 1)")
    # The compiler finds its sources beside itself.
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s:%s exec %s "$@"\n' "$work/unpacked/usr/lib/x86_64-linux-gnu" "$libraries" \
        "$work/unpacked/usr/bin/rustc" >"$work/rustc"
    chmod +x "$work/rustc"
    ln -sfn "$(find "$work/unpacked/usr/src" -maxdepth 2 -name library -type d | head -n 1)" "$work/library"
}

for target in "${targets[@]}"; do
    build_std=()
    if ! rustup target add "$target" >/dev/null 2>&1; then
        debian_sources || die "neither rustup nor Debian has a standard library for $target"
        # Cargo compiles a standard library on a nightly only, or when it is told that it is one.
        export RUSTC_BOOTSTRAP=1 RUSTC=$work/rustc __CARGO_TESTS_ONLY_SRC_ROOT=$work/library
        build_std=(-Z "build-std=std,panic_abort")
    fi
    # Compiling C for it would take a compiler for it; nothing is linked, so that it need not be there.
    export "CC_${target//-/_}=true" "AR_${target//-/_}=true"
    for features in "" "metrics,tracing" "capture" "pcap-live" "sensor"; do
        say "== cargo check --target $target --features '$features'"
        cargo check --quiet --locked --lib --target "$target" --features "$features" "${build_std[@]}"
    done
done
