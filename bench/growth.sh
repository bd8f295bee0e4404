#!/usr/bin/env bash
# What the work costs as it grows: nanoseconds a frame, and memory, against flows, sizes, new connections and attacks.
#
#   bench/growth.sh [--out DIR] [--only STAGE] [--core N] [--rounds N] [--assert] [--smoke]
#
# Traffic is made in memory and given to decoding, to ingest (decoding, key, hash), to the tracker, and to both in one call
# (process). A point is a process of its own, pinned to one core; points take turns, --rounds times (default 2), three
# windows of a million frames each time, and the median counts. Six minutes at most on a quiet machine; every stage alone is
# below 80 seconds and adds to the same folder, so that each can have a quiet moment of its own:
#
#   flows          1 k to 10 M live flows
#   sizes          frames of 64 to 9000 bytes
#   opens          connections from beginning to end, 0 to 100 % of all packets open one
#   memory         accounted and resident bytes, 1 k to 10 M flows
#   hard           floods, collisions, an elephant, one direction, fragments, TCP out of order
#   probe          what this machine's memory can do
#   instructions   by callgrind, at a reduced scale, of the same points; not part of a run without --only
#
#   --out DIR      where STAGE.csv, growth.md and growth.svg go (default bench/runs/DATE-growth)
#   --core N       the core (default: the last one)
#   --assert       fail when a relation that must hold does not: see bench/growth/report.py
#   --smoke        everything, small and once: to try the script; figures are then worth nothing
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

failed_code=2
out=$root/bench/runs/$(date +%F)-growth
only=
core=$(($(nproc) - 1))
rounds=2
frames=1000000
windows=3
scale=1
flows="1000 10000 100000 1000000 10000000"
assert=no
smoke=no

options "assert smoke" "out only core rounds" "$@"
if [ "$smoke" = yes ]; then
    rounds=1 windows=1 frames=20000 scale=0.05 flows="1000 10000"
    [ "$assert" = no ] || die "--smoke measures nothing that --assert could hold; ledgers are asserted in any case"
    only=${only:-flows sizes opens memory hard}
fi
only=${only:-probe flows sizes opens memory hard}

cd "$root"
# As in the binary: features decide what the hooks of a tracker do.
cargo build --quiet --release --features sensor --example growth --example probe
target=${CARGO_TARGET_DIR:-$root/target}/release/examples
mkdir -p "$out"

points() { # stage
    case $1 in
    flows | memory) for point in $flows; do echo "$1 $point"; done ;;
    sizes) for point in 64 128 256 512 1024 1518 4096 9000; do echo "size $point"; done ;;
    # Packets of a connection; 0: none opens, 1: a SYN without an answer, 2: a connection that is refused.
    opens) for point in 0 1000 100 20 10 6 2 1; do echo "opens $point"; done ;;
    hard) "$target/growth" hard list | sed 's/^/hard /' ;;
    esac
}

counted() { # axis, point, what
    local summary
    valgrind --quiet --tool=callgrind --callgrind-out-file="$work/callgrind" --toggle-collect='*measured_*' \
        "$target/growth" "$1" "$2" --only "$3" --frames 20000 --windows 1 --scale 0.1 >"$work/line" 2>"$work/log" ||
        { cat "$work/log" >&2; die "$3 of $1 $2 failed"; }
    summary=$(sed -n 's/^\(summary\|totals\): \([0-9]*\).*/\2/p' "$work/callgrind" | head -n 1)
    awk -F, -v OFS=, -v a="$1" -v p="$2" -v w="$3" -v t="${summary:-0}" \
        '$3 == w && $4 == "frames" { printf "0,%s,%s,%s,instructions,0,%.1f\n", a, p, w, t / $6 }' "$work/line"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for stage in $only; do
    csv=$out/$stage.csv
    bench/growth/report.py begin "$out" "$stage"
    case $stage in
    probe)
        { echo "what,bytes,value,unit" && taskset -c "$core" "$target/probe"; } >"$csv"
        ;;
    instructions)
        command -v valgrind >/dev/null || die "valgrind is missing: apt-get install valgrind"
        echo "round,axis,point,what,unit,window,value" >"$csv"
        # What opens before it counts is simulated too: no more than 10 k flows.
        for point in "flows 1000" "flows 10000" "size 64" "size 1518" "hard normal" "hard flood-udp" "hard flood-syn" \
            "hard elephant" "hard one-way" "hard fragments" "hard fragments-reversed" "hard tcp-in-order" "hard tcp-out-of-order"; do
            for what in decode ingest tracker; do
                # shellcheck disable=SC2086 # two words
                counted $point $what | tee -a "$csv"
            done
        done
        ;;
    flows | sizes | opens | memory | hard)
        echo "round,axis,point,what,unit,window,value" >"$csv"
        for ((round = 0; round < rounds; round++)); do
            while read -r axis point; do
                taskset -c "$core" "$target/growth" "$axis" "$point" --frames "$frames" --windows "$windows" --scale "$scale" \
                    >"$work/lines" </dev/null || die "$axis $point failed"
                sed "s/^/$round,/" "$work/lines" >>"$csv"
            done < <(points "$stage")
        done
        ;;
    *) die "no stage $stage: see --help" ;;
    esac
    bench/growth/report.py end "$out" "$stage"
done
if [ "$assert" = yes ]; then
    bench/growth/report.py assert "$out"
fi
