#!/usr/bin/env bash
# Instructions of each stage, counted by callgrind; nanoseconds, memory and pauses without it.
#
#   bench/instructions.sh [--out DIR] [--core N] [--scale X] [--runs N] [--count-only] [--assert]
#
# callgrind collects in the functions named measured_… of bench/instructions.rs alone, on a tenth of
# each workload (--scale, default 0.1; a hundredth of C). The counts do not depend on the load of the
# machine. Times are those of whole workloads in memory, the least and the median of --runs (default
# 5), pinned to one core. Writes instructions.csv and instructions.md to --out (default
# bench/runs/DATE).
#
# decode: bytes to layers. ingest: decode, key, hash. tracker: packets that are decoded to flows.
# process: ingest and tracker in one call. driver: process and every byte stream. json: a record as
# text, Community ID included.
#
#   --count-only   leave the times, memory and pauses out
#   --assert       fail when the tracker takes more than 400 instructions a packet on A, or
#                  more than 256 bytes a flow
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

failed_code=2
out=$root/bench/runs/$(date +%F)
core=1
scale=0.1
runs=5
count_only=no
assert=no
instructions_max=400
flow_bytes_max=256

options "count-only assert" "out core scale runs" "$@"
command -v valgrind >/dev/null || die "valgrind is missing: apt-get install valgrind"

cd "$root"
cargo build --quiet --release --features sensor --example instructions
bin=${CARGO_TARGET_DIR:-$root/target}/release/examples/instructions
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
csv=$out/instructions.csv
echo "stage,workload,units,instructions_per_unit,ns_least,ns_median" >"$csv"

count() { # stage, workload
    local part=$scale
    [ "$2" != C ] || part=$(awk -v s="$scale" 'BEGIN { print s / 10 }')
    valgrind --quiet --tool=callgrind --callgrind-out-file="$work/callgrind" \
        --toggle-collect='*measured_*' "$bin" "$1" "$2" --scale "$part" >"$work/line" 2>"$work/log" ||
        { cat "$work/log" >&2; die "$1 on $2 failed"; }
    local units total
    units=$(cut -d' ' -f3 "$work/line")
    total=$(sed -n 's/^summary: \([0-9]*\).*/\1/p' "$work/callgrind")
    [ -n "$total" ] || total=$(sed -n 's/^totals: \([0-9]*\).*/\1/p' "$work/callgrind")
    [ "${total:-0}" -gt 0 ] || die "callgrind collected nothing in $1 on $2"
    awk -v t="$total" -v u="$units" 'BEGIN { printf "%.1f", t / u }'
}

for stage in decode ingest tracker process driver json; do
    for workload in A B C; do
        # Streams are those of C: the others have none to speak of.
        case $stage$workload in driver[AB]) continue ;; esac
        counted=$(count "$stage" "$workload")
        least=- median=-
        if [ "$count_only" = no ]; then
            taskset -c "$core" "$bin" "$stage" "$workload" --scale 1 --runs "$runs" >"$work/line"
            read -r _ _ units least median <"$work/line"
        else
            read -r _ _ units _ <"$work/line"
        fi
        echo "$stage,$workload,$units,$counted,$least,$median" | tee -a "$csv"
    done
done

memory=- pauses=
if [ "$count_only" = no ]; then
    memory=$("$bin" memory --scale 1)
    echo "$memory"
    pauses=$(taskset -c "$core" "$bin" pause --scale 1 --runs "$runs")
    echo "$pauses"
fi

{
    echo "# Instructions, nanoseconds, memory and pauses, $(date +%F)"
    echo
    echo "$(nproc) vCPU $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)," \
        "$(awk '/MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB," \
        "kernel $(uname -r | cut -d. -f1-2)," \
        "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release), $(rustc --version | cut -d' ' -f1-2)," \
        "$(valgrind --version)."
    echo "Features as in the binary. Load of the machine at the end: $(cut -d' ' -f1-3 /proc/loadavg)."
    echo
    echo "| stage | workload | units | instructions each | ns each, least | median of $runs |"
    echo "|---|---|---|---|---|---|"
    tail -n +2 "$csv" | sed 's/,/ | /g; s/^/| /; s/$/ |/'
    if [ "$count_only" = no ]; then
        echo
        echo "| memory of a tracker, bytes a flow | at start | with every place taken | resident |"
        echo "|---|---|---|---|"
        echo "$memory" | awk '{ printf "| %d flows | %s | %s | %s |\n", $2, $3, $4, $5 }'
        echo
        echo "| one call, 1 M live flows | calls | p50 µs | p99 µs | most, best run, µs | most of all, µs | over 100 µs | each call at its best, most, µs |"
        echo "|---|---|---|---|---|---|---|---|"
        echo "$pauses" | awk '{ printf "| %s | %d | %s | %s | %s | %s | %s | %s |\n", $2, $4, $5, $6, $7, $8, $9, $10 }'
    fi
} >"$out/instructions.md"
cat "$out/instructions.md"

if [ "$assert" = yes ]; then
    awk -F, -v max=$instructions_max '$1 == "tracker" && $2 == "A" { seen = 1; if ($4 > max) { print "tracker on A: " $4 " instructions a packet, more than " max; exit 1 } } END { if (!seen) exit 1 }' "$csv" >&2
    [ "$count_only" = yes ] || echo "$memory" |
        awk -v max=$flow_bytes_max '$4 > max { print "tracker: " $4 " bytes a flow, more than " max; exit 1 }' >&2
fi
