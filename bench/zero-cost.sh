#!/usr/bin/env bash
# Shows that the hooks of metrics and tracing cost nothing when they are off, by counting the
# instructions that tracking executes under callgrind:
#
#   deleted   built with --cfg flowscope_no_hooks: the calls are not in the source any more
#   off       built without features: the calls are there, and do nothing
#   tracing   with the feature, no subscriber
#   metrics   with the feature, nobody scraping
#
# Fails unless "deleted" and "off" are equal to the instruction.
#
#   bench/zero-cost.sh [OUTPUT]      the table also goes to the file OUTPUT
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
cd "$root"
need "${packages_build[@]}" valgrind
need_rust

target=${CARGO_TARGET_DIR:-$root/target}/zero-cost
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# build NAME RUSTFLAGS FEATURES: one target directory for each set of flags.
build() {
    local name=$1 flags=$2 features=$3 dir=$target/off
    [ -z "$flags" ] || dir=$target/deleted
    RUSTFLAGS=$flags cargo build --quiet --locked --release --example zero_cost \
        --features "$features" --target-dir "$dir"
    cp "$dir/release/examples/zero_cost" "$work/$name"
}

# count NAME: executed instructions of `measured` and what it calls. No environment, no address randomisation.
count() {
    local name=$1
    (cd "$work" && env -i setarch --addr-no-randomize valgrind --tool=callgrind --collect-atstart=no \
        '--toggle-collect=*zero_cost*measured*' --callgrind-out-file="$name.out" "./$name" >"$name.txt" 2>"$name.err") || {
        cat "$work/$name.err" >&2
        die "callgrind failed on $name"
    }
    awk '/^(summary|totals):/ { print $2; exit }' "$work/$name.out"
}

# What only hooks use is unused without them.
build deleted "--cfg flowscope_no_hooks -Awarnings" ""
build off "" ""
build tracing "" tracing
build metrics "" metrics

deleted=$(count deleted)
off=$(count off)
tracing=$(count tracing)
metrics=$(count metrics)
for name in off tracing metrics; do
    cmp -s "$work/deleted.txt" "$work/$name.txt" || die "$name did other work: $(cat "$work/$name.txt")"
done

frames=$(awk '{ print $2 }' "$work/deleted.txt")
row() {
    awk -v name="$1" -v n="$2" -v base="$deleted" -v frames="$frames" 'BEGIN {
        printf "| %-8s | %12d | %+10d | %8.2f %% | %8.2f |\n", name, n, n - base, 100 * (n - base) / base, n / frames }'
}
table() {
    say "# Instructions executed by the tracker, hooks deleted, off and on"
    say
    say "$(rustc --version), $(valgrind --version), $(nproc) vCPU $(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)"
    say "Workload of bench/zero_cost.rs: $(cat "$work/deleted.txt")"
    say
    say "| hooks    | instructions | difference | relative   | a frame  |"
    say "|----------|-------------:|-----------:|-----------:|---------:|"
    row deleted "$deleted"
    row off "$off"
    row tracing "$tracing"
    row metrics "$metrics"
}
[ $# -eq 0 ] || mkdir -p "$(dirname "$1")"
table | tee ${1:+"$1"}
[ "$deleted" -gt 0 ] || die "nothing was counted: is the symbol still called measured?"
[ "$deleted" -eq "$off" ] || die "hooks that are off cost $((off - deleted)) instructions"
say "hooks that are off cost nothing: equal to the instruction"
