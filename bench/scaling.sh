#!/usr/bin/env bash
# What a second core brings, and what metrics cost: flowscope against itself, in one run.
#
#   bench/scaling.sh [--data DIR] [--runs N] [--workloads "LIST"] [--out DIR] [--scale X] [--assert] [--note TEXT]
#
# Three comparisons of whole runs, files in the page cache to JSON records on disk, in turns, medians. The frames of A and C are
# repeated until a run takes about a second: what a second costs is not what a start costs.
#
#   steered    `replay --workers 2` against `--workers 1`: the packets of one file, of which two workers find the frames together. Both
#              may use both cores, so that the one worker has its export thread on the other.
#   apart      two processes, each on a core of its own and with all that a file takes, against one: what two queues of
#              an interface with a worker each share is the memory and the disk, and so do these. The figure is twice
#              the time of one over the time until both are done. A replay has no such mode: its files are one capture.
#   metrics    metrics on, listening and read once a second, against a program without the hooks
#              (`--cfg flowscope_no_hooks`) that does not listen, both on one core, who asks on the other
#   counted    hooks against none in instructions (callgrind), of a tenth of the workload less what a run of one frame takes, and
#              what answering a scrape takes of a processor: what these add up to does not depend on the machine's mood, and is asserted.
#              Nobody listens while instructions are counted, for what waits for a scrape goes by the clock
#
#   --data DIR         where the workloads are, or are made (default bench/data)
#   --runs N           runs of each (default 7)
#   --workloads LIST   default "A B C"
#   --out DIR          where scaling.csv, counted.csv and scaling.md go (default bench/runs/DATE-scaling)
#   --scale X          smaller workloads, to try the script; figures are then worth nothing
#   --assert           fail below 1.5 (steered) and 1.8 (apart), and above 1.02 (metrics, counted)
#   --note TEXT        put into scaling.md
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

failed_code=2
data=$root/bench/data
runs=7
workloads="A B C"
out=$root/bench/runs/$(date +%F)-scaling
scale=1
assert=no
note=

options "assert" "data runs workloads out scale note" "$@"
for tool in taskset curl valgrind; do
    command -v "$tool" >/dev/null || die "$tool is missing: apt-get install util-linux curl valgrind"
done
[ "$(nproc)" -ge 2 ] || die "one core is here, and two are compared: run it where there are two"

cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
cargo build --quiet --release --features sensor --bin flowscope --example generate
# What only hooks use is unused without them.
RUSTFLAGS="--cfg flowscope_no_hooks -Awarnings" cargo build --quiet --release --features sensor \
    --bin flowscope --target-dir "$target/no-hooks"
with=$target/release/flowscope
without=$target/no-hooks/release/flowscope
mkdir -p "$data" "$out"
for workload in $workloads; do
    if ! grep -qs "\"scale\": $scale," "$data/$workload.json"; then
        "$target/release/examples/generate" "$workload" --dir "$data" --scale "$scale" >/dev/null
    fi
done

work=$(mktemp -d "$data/scaling.XXXXXX")
memory=$(mktemp -u /dev/shm/flowscope-scaling.XXXXXX)
scraper=
trap '[ -z "$scraper" ] || kill "$scraper" 2>/dev/null || true; rm -rf "$work" "$memory"' EXIT

csv=$out/scaling.csv
echo "workload,what,run,seconds" >"$csv"

known() { # workload, field, where it is if not in the data
    sed -n "s/.*\"$2\": \([0-9]*\),*/\1/p" "${3:-$data}/$1.json"
}

# replay PROGRAM WORKLOAD NAME [OPTION…]: of `file`, to records of its own.
replay() {
    local program=$1 workload=$2 name=$3 flows
    shift 3
    flows=$(known "$workload" flows)
    "$program" replay "$file" --output "jsonl:$work/$name.jsonl" \
        --max-flows $((flows + flows / 10)) "$@" 2>"$work/$name.err" || {
        tail -n 5 "$work/$name.err" >&2
        die "a replay of $workload failed"
    }
}

pinned() { # core, then as replay
    local core=$1
    shift
    (taskset -pc "$core" "$BASHPID" >/dev/null && replay "$@")
}

apart() { # workload
    local first
    pinned 0 "$with" "$1" first --workers 1 &
    first=$!
    pinned 1 "$with" "$1" second --workers 1
    wait "$first"
}

# Asks for metrics at once and then once a second, of whatever listens.
scrape() {
    while :; do
        if taskset -c 0 curl -sf "http://127.0.0.1:$port/metrics" -o "$work/metrics"; then
            echo read >>"$work/scrapes"
            sleep 1
        else
            sleep 0.02
        fi
    done
}
port=19464

# Memory that was free for two seconds goes back to the host of a virtual machine, and is dear to take again: all that two
# processes need is taken and given back before each run.
warm() {
    head -c 2G /dev/zero >"$memory"
    rm "$memory"
}

# timed WORKLOAD WHAT RUN COMMAND…
timed() {
    local workload=$1 what=$2 run=$3 begin end
    shift 3
    rm -f "$work"/*.jsonl
    warm
    begin=${EPOCHREALTIME/./}
    "$@"
    end=${EPOCHREALTIME/./}
    awk -v w="$workload" -v t="$what" -v r="$run" -v us=$((end - begin)) \
        'BEGIN { printf "%s,%s,%s,%.4f\n", w, t, r, us / 1e6 }' >>"$csv"
}

# The workload's file, its frames so often that it takes about a second.
repeated() { # workload
    local times=1
    case $1 in
    A) times=20 ;;
    C) times=3 ;;
    esac
    times=$(awk -v n=$times -v scale="$scale" 'BEGIN { printf "%.0f", n / scale }')
    cat "$data/$1.pcap"
    for ((; times > 1; times--)); do
        tail -c +25 "$data/$1.pcap"
    done
}

for workload in $workloads; do
    file=$work/long.pcap
    repeated "$workload" >"$file"
    # In again as from a disk, and one run that does not count: free memory goes back to the host.
    into_cache "$file"
    apart "$workload"
    for ((run = 1; run <= runs; run++)); do
        timed "$workload" workers-1 "$run" replay "$with" "$workload" one --workers 1
        timed "$workload" workers-2 "$run" replay "$with" "$workload" two --workers 2
        if [ "$run" = 1 ]; then
            replay "$with" "$workload" one --workers 1
            cmp -s <(sort "$work/one.jsonl") <(sort "$work/two.jsonl") ||
                die "two workers gave other records of $workload than one"
        fi
        timed "$workload" one "$run" pinned 1 "$with" "$workload" one --workers 1
        timed "$workload" apart "$run" apart "$workload"
        timed "$workload" hooks-none "$run" pinned 1 "$without" "$workload" none --workers 1
        : >"$work/scrapes"
        scrape &
        scraper=$!
        timed "$workload" metrics-on "$run" pinned 1 "$with" "$workload" on --workers 1 \
            --metrics "127.0.0.1:$port"
        kill "$scraper"
        wait "$scraper" 2>/dev/null || true
        scraper=
        [ -s "$work/scrapes" ] || die "nobody could read the metrics on port $port: is it taken?"
    done
done

# Of a whole replay.
instructions() { # program, file, flows
    rm -f "$work"/*.jsonl
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$1" replay "$2" --output "jsonl:$work/counted.jsonl" \
        --max-flows "$3" --workers 1 >"$work/counted.log" 2>&1 ||
        { cat "$work/counted.log" >&2; die "instructions of $2 cannot be counted"; }
    sed -n 's/.*Collected : //p' "$work/counted.log"
}

# The same without what a run of the first frame alone takes.
instructions_of_frames() { # program, file, flows
    local length whole one
    # The file's header and one record, whose captured length is in the third word of its header.
    length=$(od -An -tu4 -j 32 -N 4 "$2")
    head -c $((24 + 16 + length)) "$2" >"$work/one.pcap"
    whole=$(instructions "$1" "$2" "$3") || exit
    one=$(instructions "$1" "$work/one.pcap" "$3") || exit
    echo $((whole - one))
}

# Processor time that a process had so far, in ticks.
ticks() { # process
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

# Milliseconds of processor time that answering a scrape takes, after a whole replay of a workload.
scrape_cost() { # workload
    local asked=2000 before after
    taskset -c 1 "$with" replay "$data/$1.pcap" --output "jsonl:$work/held.jsonl" --metrics "127.0.0.1:$port" --hold \
        2>"$work/held.err" &
    scraper=$!
    while ! curl -sf "http://127.0.0.1:$port/readyz" | grep -q holding; do
        kill -0 "$scraper" 2>/dev/null || die "a replay of $1 that is to hold failed: $(tail -n 1 "$work/held.err")"
        sleep 0.05
    done
    before=$(ticks $scraper)
    curl -sf "http://127.0.0.1:$port/metrics?[1-$asked]" -o /dev/null
    after=$(ticks $scraper)
    kill "$scraper"
    wait "$scraper" 2>/dev/null || true
    scraper=
    awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n=$asked 'BEGIN { printf "%.3f", t * 1000 / hz / n }'
}

counts=$out/counted.csv
echo "workload,frames,instructions_without_hooks,instructions_metrics_on,scrape_ms" >"$counts"
for workload in $workloads; do
    "$target/release/examples/generate" "$workload" --dir "$work" --scale 0.1 >/dev/null
    small=$work/$workload
    frames=$(known "$workload" packets "$work")
    flows=$(known "$workload" flows "$work")
    flows=$((flows + flows / 10))
    none=$(instructions_of_frames "$without" "$small.pcap" "$flows")
    on=$(instructions_of_frames "$with" "$small.pcap" "$flows")
    echo "$workload,$frames,$none,$on,$(scrape_cost "$workload")" >>"$counts"
    rm -f "$small".*
done

# What metrics cost by count: the ratio of instructions, and the part of a second that a scrape takes.
counted() { # workload
    awk -F, -v w="$1" '$1 == w { printf "%.4f", $4 / $3 + $5 / 1000 }' "$counts"
}

median() { # workload, what
    awk -F, -v w="$1" -v t="$2" '$1 == w && $2 == t { print $4 }' "$csv" | sort -g |
        awk '{ v[NR] = $1 } END { if (NR) print (NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2) }'
}

# figure WORKLOAD OVER UNDER FACTOR: FACTOR · median(OVER) / median(UNDER)
figure() {
    awk -v a="$(median "$1" "$2")" -v b="$(median "$1" "$3")" -v f="$4" 'BEGIN { printf "%.3f", f * a / b }'
}

{
    echo "# Two cores against one, metrics on against off, $(date +%F)"
    echo
    echo "$(nproc) vCPU $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)," \
        "$(awk '/MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB," \
        "kernel $(uname -r | cut -d. -f1-2), $(rustc --version | cut -d' ' -f1-2), $("$with" --version)."
    echo "Medians of $runs runs in turns, scale $scale. Load at the end: $(cut -d' ' -f1-3 /proc/loadavg)."
    [ -z "$note" ] || echo "$note"
    echo
    echo "| workload | one worker, s | two, steered, s | times | one process, s | two apart, s | times | without hooks, s | metrics on, s | ratio |"
    echo "|---|---|---|---|---|---|---|---|---|---|"
    for workload in $workloads; do
        row="| $workload"
        for what in workers-1 workers-2 steered one apart twice hooks-none metrics-on ratio; do
            case $what in
            steered) cell=$(figure "$workload" workers-1 workers-2 1)× ;;
            twice) cell=$(figure "$workload" one apart 2)× ;;
            ratio) cell=$(figure "$workload" metrics-on hooks-none 1) ;;
            *) cell=$(median "$workload" "$what") ;;
            esac
            row="$row | $cell"
        done
        echo "$row |"
    done
    echo
    echo "| workload | instructions a frame, without hooks | metrics on | ratio | a scrape, ms of a processor | with a scrape a second |"
    echo "|---|---|---|---|---|---|"
    for workload in $workloads; do
        awk -F, -v w="$workload" -v sum="$(counted "$workload")" '$1 == w {
            printf "| %s | %.1f | %.1f | %.4f | %s | %s |\n", w, $3 / $2, $4 / $2, $4 / $3, $5, sum }' "$counts"
    done
    echo
    echo "Wanted: steered at least 1.5×, apart at least 1.8×, metrics at most 1.02. What each is: \`bench/scaling.sh --help\`."
    echo "Two workers gave the same records as one, compared after sorting."
} >"$out/scaling.md"
cat "$out/scaling.md"

[ "$assert" = yes ] || exit 0
failed=no
hold() { # workload, what, figure, awk's condition on x
    if ! awk -v x="$3" "BEGIN { exit !($4) }"; then
        echo "scaling.sh: $2 on $1 is $3, and wanted is $4" >&2
        failed=yes
    fi
}
for workload in $workloads; do
    hold "$workload" steered "$(figure "$workload" workers-1 workers-2 1)" "x >= 1.5"
    hold "$workload" apart "$(figure "$workload" one apart 2)" "x >= 1.8"
    hold "$workload" metrics "$(counted "$workload")" "x <= 1.02"
done
[ "$failed" = no ]
