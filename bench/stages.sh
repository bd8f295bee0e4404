#!/usr/bin/env bash
# A frame's way through the program, stage by stage: instructions, simulated cache misses, nanoseconds, and what memory
# allows.
#
#   bench/stages.sh [--out DIR] [--only STEP] [--core N] [--runs N] [--workloads "A B C"] [--data DIR]
#
# It is `flowscope replay FILE` with one worker, writing JSON records to a file. Every instruction is put down to the innermost
# source file of ours that it was inlined from, every sample too; see the list in bench/stages/report.py.
#
#   count    callgrind with its cache simulator, on the first 300 k frames of A, a tenth of B and a twentieth of C; what a file
#            with a single frame takes is subtracted. A minute a workload; the load of the machine does not matter
#   time     perf record -e cpu-clock, --runs times (default 9), on the whole workloads; and the time of runs without perf.
#            Half a minute; wants a quiet machine
#   probe    latency and bandwidth of this machine's memory (bench/probe.rs). Twenty seconds; wants a quiet machine
#
# The simulated caches are a first one of 48 KiB and a last one of 2 MiB, which is a second-level cache of today: what misses
# it goes to the third, or to memory. A prefetch that comes in time hides a miss and does not undo it.
#
#   --only STEP       of: count time probe (default: all); adds to the same folder
#   --out DIR         where counts.csv, samples.csv, times.csv, probe.csv and stages.md go (default bench/runs/DATE-stages)
#   --workloads LIST  (default "A B C")
#   --data DIR        where the workloads are, or are made (default bench/data)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

failed_code=2
data=$root/bench/data
out=$root/bench/runs/$(date +%F)-stages
only="count time probe"
core=$(($(nproc) - 1))
runs=9
workloads="A B C"

options "" "out only core runs workloads data" "$@"
command -v addr2line >/dev/null || die "addr2line is missing: apt-get install binutils"

cd "$root"
cargo build --quiet --release --features sensor --bin flowscope --example generate --example probe
target=${CARGO_TARGET_DIR:-$root/target}/release
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
report=bench/stages/report.py

# A frame of A or B with its record header, and what is before the first one.
record_bytes=80
header_bytes=24

# Sets `command`: what replays a file of a workload with so many flows.
replay() { # file, flows
    command=("$target/flowscope" replay "$1" --output "jsonl:$work/records.jsonl" --max-flows "$2" --workers 1)
    rm -f "$work/records.jsonl"
}

simulate() { # file, flows, where to
    replay "$1" "$2"
    valgrind --quiet --tool=callgrind --dump-instr=yes --cache-sim=yes --D1=49152,12,64 --LL=2097152,16,64 \
        --callgrind-out-file="$3" "${command[@]}" >/dev/null 2>"$work/log" || { tail -n 5 "$work/log" >&2; die "$1 failed"; }
}

count() { # workload
    local flows frames
    case $1 in
    A)
        [ -s "$data/A.pcap" ] || "$target/examples/generate" A --dir "$data" >/dev/null
        # All of the flows, and as many packets as there is patience for: a smaller workload would fit into the cache.
        frames=300000 flows=11000
        head -c $((header_bytes + record_bytes * frames)) "$data/A.pcap" >"$work/part.pcap"
        ;;
    B | C)
        local part=0.1
        [ "$1" = B ] || part=0.05
        "$target/examples/generate" "$1" --dir "$work" --scale "$part" >/dev/null
        mv "$work/$1.pcap" "$work/part.pcap"
        frames=$(sed -n 's/.*"packets": \([0-9]*\),*/\1/p' "$work/$1.json")
        flows=$(sed -n 's/.*"flows": \([0-9]*\),*/\1/p' "$work/$1.json")
        flows=$((flows + flows / 10))
        ;;
    esac
    simulate "$work/part.pcap" "$flows" "$work/callgrind"
    # The first frame alone: 60 bytes and more, of which the length is in its header.
    local first
    first=$(od -An -tu4 -j $((header_bytes + 8)) -N 4 "$work/part.pcap")
    head -c $((header_bytes + 16 + first)) "$work/part.pcap" >"$work/one.pcap"
    simulate "$work/one.pcap" "$flows" "$work/callgrind-one"
    python3 $report count "$target/flowscope" "$1" "$frames" "$work/callgrind" "$work/callgrind-one" >>"$out/counts.csv"
}

run_time() { # workload
    [ -s "$data/$1.pcap" ] || "$target/examples/generate" "$1" --dir "$data" >/dev/null
    local flows frames begin end run
    frames=$(sed -n 's/.*"packets": \([0-9]*\),*/\1/p' "$data/$1.json")
    flows=$(sed -n 's/.*"flows": \([0-9]*\),*/\1/p' "$data/$1.json")
    into_cache "$data/$1.pcap"
    for ((run = 0; run < runs; run++)); do
        replay "$data/$1.pcap" $((flows + flows / 10))
        begin=${EPOCHREALTIME/./}
        taskset -c "$core" "${command[@]}" >/dev/null 2>&1
        end=${EPOCHREALTIME/./}
        echo "$1,$run,$frames,$(stat -c %s "$data/$1.pcap"),$((end - begin))" >>"$out/times.csv"
        replay "$data/$1.pcap" $((flows + flows / 10))
        taskset -c "$core" perf record --quiet -e cpu-clock -F 9999 -g -o "$work/perf.data" "${command[@]}" >/dev/null 2>&1 ||
            die "perf record failed: install linux-perf, and see kernel.perf_event_paranoid"
        perf script -i "$work/perf.data" -F ip,sym,dso 2>/dev/null >>"$work/samples.$1"
    done
}

for step in $only; do
    python3 bench/growth/report.py note "$out" "$step" begin
    case $step in
    count)
        command -v valgrind >/dev/null || die "valgrind is missing: apt-get install valgrind"
        echo "workload,frames,stage,instructions,first_cache_misses,last_cache_misses" >"$out/counts.csv"
        for workload in $workloads; do count "$workload"; done
        ;;
    time)
        command -v perf >/dev/null || die "perf is missing: apt-get install linux-perf"
        echo "workload,run,frames,file_bytes,microseconds" >"$out/times.csv"
        echo "workload,stage,samples" >"$out/samples.csv"
        for workload in $workloads; do run_time "$workload"; done
        for workload in $workloads; do
            python3 $report samples "$target/flowscope" "$workload" "$work/samples.$workload" >>"$out/samples.csv"
        done
        ;;
    probe)
        { echo "what,bytes,value,unit" && taskset -c "$core" "$target/examples/probe"; } >"$out/probe.csv"
        ;;
    *) die "no step $step: see --help" ;;
    esac
    python3 bench/growth/report.py note "$out" "$step" end
done
python3 $report table "$out"
