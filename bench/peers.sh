#!/usr/bin/env bash
# Flow records from files: flowscope against what package managers here have, in one run.
#
#   bench/peers.sh [--data DIR] [--runs N] [--core N] [--peers "LIST"] [--install] [--out DIR]
#                  [--unstable] [--scale X] [--assert] [--note TEXT]
#
# Every tool reads the same file from the page cache, where it is read anew before the first run, pinned to
# one core with all its threads, and writes its records to the same disk; tools take turns, N runs each (one that takes
# more than 20 seconds runs once), and the median counts. The time is that of the whole process and of nothing else (`bench/timed.rs`), but for
# pmacctd, which sleeps for seconds: there it is the processor's time. A tool that is not installed, fails, or takes five minutes is left out and named.
#
#   --data DIR     where the workloads are, or are made (default bench/data)
#   --runs N       runs of each tool on each workload (default 5)
#   --core N       the core (default 1)
#   --peers LIST   of: tcpdump nfpcapd softflowd argus pmacctd ndpiReader suricata ipfixprobe yaf zeek tshark nfstream flowscope-crate
#                  (default: all); NAME@unstable is that of --unstable
#   --install      install those that apt-get knows first (Debian 12: all up to ndpiReader, and tshark; suricata where
#                  its backports are among the sources); nfstream by pip into bench/data/nfstream; and build flowscope-crate, which is the
#                  library that others publish under that name, by cargo in bench/data/flowscope-crate. With it the two are also compared
#                  as libraries: frames in memory, tracked and nothing else
#   --unstable     nfpcapd and suricata of Debian unstable as well, for they are newer there: unpacked into
#                  bench/data/unstable the first time (debootstrap; takes root), run by their own loader
#   --out DIR      where peers.csv, memory.csv, peers.md and peers.svg go (default bench/runs/DATE)
#   --scale X      smaller workloads, to try the script; figures are then worth nothing
#   --assert       fail when flowscope is below 5 times nfpcapd on a workload
#   --note TEXT    put into peers.md
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

failed_code=2
data=$root/bench/data
runs=5
core=1
peers="tcpdump nfpcapd softflowd argus pmacctd ndpiReader suricata ipfixprobe yaf zeek tshark nfstream flowscope-crate"
out=$root/bench/runs/$(date +%F)
scale=1
install=no
unstable=no
assert=no
note=
ratio_min=5

options "install unstable assert" "data runs core peers out scale note" "$@"

# A package of its own, outside of ours: the two have one name.
install_crate() {
    local crate=$data/flowscope-crate
    mkdir -p "$crate/src"
    cp "$root/bench/peers/flowscope-crate.rs" "$crate/src/main.rs"
    cat >"$crate/Cargo.toml" <<TOML
[package]
name = "flowscope-crate"
version = "0.0.0"
edition = "2024"

[dependencies]
flowscope = { version = "=0.26.0", features = ["pcap", "emit-ndjson"] }

[profile.release]
lto = "fat"
codegen-units = 1

[workspace]
TOML
    # It asks for a newer compiler than it needs.
    (cd "$crate" && CARGO_TARGET_DIR=$crate/target cargo build --quiet --release --ignore-rust-version)
}

if [ "$install" = yes ]; then
    [ "$(id -u)" = 0 ] || die "--install wants root"
    apt-get -qq update
    for package in tcpdump nfdump softflowd argus-server pmacct libndpi-bin suricata/bookworm-backports suricata \
        ipfixprobe yaf zeek tshark; do
        DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$package" >/dev/null 2>&1 ||
            echo "peers.sh: apt-get has no $package here" >&2
    done
    python3 -m venv "$data/nfstream" && "$data/nfstream/bin/pip" --quiet install nfstream==6.6.0 ||
        echo "peers.sh: pip has no nfstream here (python3-venv is needed)" >&2
    install_crate || echo "peers.sh: cargo has no flowscope-crate here" >&2
fi
command -v taskset >/dev/null || die "taskset is missing: apt-get install util-linux"

cd "$root"
cargo build --quiet --release --features sensor --bin flowscope --example generate --example instructions --example timed
target=${CARGO_TARGET_DIR:-$root/target}/release
mkdir -p "$data" "$out"
for workload in A B C; do
    if ! grep -qs "\"scale\": $scale," "$data/$workload.json"; then
        "$target/examples/generate" "$workload" --dir "$data" --scale "$scale" >/dev/null
    fi
done

# Packages of unstable are only unpacked, never set up: nothing of this system changes.
newest=$data/unstable
if [ "$unstable" = yes ]; then
    peers="$peers nfpcapd@unstable suricata@unstable"
    if [ ! -e "$newest/unpacked" ]; then
        [ "$(id -u)" = 0 ] || die "--unstable wants root the first time"
        command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
        rm -rf "$newest"
        debootstrap --foreign --variant=minbase --include=nfdump,suricata,softflowd,pmacct,libndpi-bin,argus-server,tcpdump \
            unstable "$newest" >/dev/null
        for package in "$newest"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$newest"; done
        touch "$newest/unpacked"
    fi
fi

# Sets `program`: how a tool is started; false if it is not here.
find_program() {
    local found
    case $1 in
    nfstream)
        program=("$data/nfstream/bin/python" "$root/bench/peers/by_nfstream.py")
        [ -x "${program[0]}" ]
        ;;
    flowscope-crate)
        program=("$data/flowscope-crate/target/release/flowscope-crate")
        [ -x "${program[0]}" ]
        ;;
    *@unstable)
        found=$(find "$newest/usr/bin" "$newest/usr/sbin" -name "${1%@unstable}" 2>/dev/null | head -n 1)
        [ -n "$found" ] && program=("$newest/lib64/ld-linux-x86-64.so.2" --library-path "$newest/usr/lib/x86_64-linux-gnu" "$found")
        ;;
    *) found=$(command -v "$1") && program=("$found") ;;
    esac
}

work=$(mktemp -d "$data/peers.XXXXXX")
trap 'rm -rf "$work"' EXIT

known() { # workload, field
    sed -n "s/.*\"$2\": \([0-9]*\),*/\1/p" "$data/$1.json"
}

# As many flows as the workload has and a tenth more: what the two flowscopes, whose defaults are fewer, are told to hold.
room() { # workload
    local flows
    flows=$(known "$1" flows)
    echo $((flows + flows / 10))
}

present() {
    case $1 in
    flowscope | reassembling) return 0 ;;
    *) find_program "$1" ;;
    esac
}

version() {
    local text
    find_program "$1" || true
    case $1 in
    flowscope) text=$("$target/flowscope" --version) ;;
    reassembling) text="flowscope with \`--reassemble\`: every TCP stream put in order" ;;
    nfpcapd*) text="$1 (nfdump) $("${program[@]}" -V 2>&1 | sed -n 's/.*Version: \([^ ]*\).*/\1/p')" ;;
    nfstream) text="nfstream $("${program[0]}" -c 'import nfstream; print(nfstream.__version__)')" ;;
    flowscope-crate) text="flowscope-crate: the library published as flowscope, $(sed -n 's/^flowscope = .*"=\([^"]*\)".*/\1/p' "$data/flowscope-crate/Cargo.toml")" ;;
    suricata*) text="$1: $("${program[@]}" -V 2>&1 | head -n 1)" ;;
    *) text="$1 $(dpkg-query -W -f '${Version}' "$(dpkg-query -S "${program[0]}" | cut -d: -f1)")" ;;
    esac
    echo "$text"
}

# Sets `command`: what the tool is called with on a workload; $dir is an empty directory for its records.
command_of() { # tool, workload
    local file=$data/$2.pcap flows
    flows=$(known "$2" flows)
    find_program "$1" || true
    case ${1%@unstable} in
    flowscope | reassembling)
        command=("$target/flowscope" replay "$file" --output "jsonl:$dir/records.jsonl"
            --max-flows "$(room "$2")" --workers 1)
        [ "$1" = flowscope ] || command+=(--reassemble)
        ;;
    tcpdump) command=("${program[@]}" -r "$file" -w /dev/null) ;;
    nfpcapd) command=("${program[@]}" -r "$file" -l "$dir") ;;
    softflowd)
        # Sends NetFlow 9 to a port where nobody listens.
        command=("${program[@]}" -d -r "$file" -m $((flows * 2 + 1000)) -v 9 -n 127.0.0.1:9)
        ;;
    argus) command=("${program[@]}" -X -r "$file" -w "$dir/records.argus") ;;
    pmacctd)
        cat >"$dir/pmacctd.conf" <<CONF
pcap_savefile: $file
plugins: print
aggregate: src_host, dst_host, src_port, dst_port, proto
print_output: json
print_output_file: $dir/records.json
print_refresh_time: 86400
print_cache_entries: $((flows * 2 + 3))
plugin_buffer_size: 102400
plugin_pipe_size: 104857600
CONF
        command=("${program[@]}" -f "$dir/pmacctd.conf")
        ;;
    # Protocols are given up after one packet; a flow is told only with -v 2.
    ndpiReader) command=("${program[@]}" -i "$file" -C "$dir/records.csv" -v 2 -d -T 1 -U 1) ;;
    ipfixprobe)
        # As softflowd: to a port where nobody listens.
        command=("${program[@]}" -i "pcap;file=$file" -s "cache;s=21" -o "ipfix;host=127.0.0.1;port=9;udp")
        ;;
    yaf) command=("${program[@]}" --in "$file" --out "$dir/records.ipfix" --max-flows $((flows * 2 + 1000))) ;;
    zeek) command=("${program[@]}" --bare-mode -C -r "$file" base/protocols/conn "Log::default_logdir=$dir") ;;
    tshark) command=("${program[@]}" -n -r "$file" -q -o tcp.analyze_sequence_numbers:false -z "conv,tcp" -z "conv,udp") ;;
    nfstream) command=("${program[@]}" "$file" "$dir/records.csv") ;;
    flowscope-crate) command=("${program[@]}" records "$file" "$(room "$2")" "$dir/records.jsonl") ;;
    suricata)
        cat >"$dir/suricata.yaml" <<YAML
%YAML 1.1
---
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      types: [flow]
stats: {enabled: no}
flow: {memcap: 4gb, hash-size: 1048576, prealloc: 100000}
stream: {memcap: 4gb, checksum-validation: no}
app-layer: {protocols: {}}
YAML
        command=("${program[@]}" -c "$dir/suricata.yaml" --runmode single -k none -S /dev/null -l "$dir"
            -r "$file")
        ;;
    esac
}

csv=$out/peers.csv
echo "workload,tool,run,seconds,mpps,rss_mib" >"$csv"
# Seconds after which a tool runs only once, and after which it is given up.
slow=20
hopeless=300
tools=(flowscope)
absent=
for peer in $peers; do
    if present "$peer"; then tools+=("$peer"); else absent="$absent $peer"; fi
done

measure() { # workload, tool, run
    local packets micros rss user system
    dir=$work/out
    rm -rf "$dir"
    mkdir "$dir"
    command_of "$2" "$1"
    packets=$(known "$1" packets)
    if ! timeout "$hopeless" "$target/examples/timed" "$core" "$work/time" "${command[@]}" \
        >"$work/stdout" 2>"$work/stderr"; then
        echo "peers.sh: $2 failed on $1:" >&2
        tail -n 5 "$work/stderr" >&2
        return 1
    fi
    read -r micros rss user system <"$work/time"
    if [ "$2" = pmacctd ]; then
        micros=$(awk -v u="$user" -v s="$system" 'BEGIN { printf "%.0f", (u + s) * 1e6 }')
    fi
    awk -v OFS=, -v w="$1" -v t="$2" -v r="$3" -v us="$micros" -v n="$packets" -v rss="$rss" \
        'BEGIN { print w, t, r, sprintf("%.4f", us / 1e6), sprintf("%.4f", n / us), sprintf("%.1f", rss / 1024) }' \
        >>"$csv"
}

for workload in A B C; do
    into_cache "$data/$workload.pcap"
    turns=("${tools[@]}")
    [ "$workload" != C ] || turns+=(reassembling)
    for ((run = 1; run <= runs; run++)); do
        again=()
        for tool in "${turns[@]}"; do
            if ! measure "$workload" "$tool" "$run"; then
                case $tool in flowscope | reassembling) exit 1 ;; esac
                absent="$absent $tool(failed on $workload)"
                continue
            fi
            # What was measured is also right: flow by flow as the generator knows it.
            case $tool in
            flowscope | reassembling) [ "$run" != 1 ] || "$root/bench/check.py" "$data/$workload" "$dir/records.jsonl" ;;
            esac
            if [ "$(tail -n 1 "$csv" | cut -d, -f4 | cut -d. -f1)" -lt "$slow" ]; then again+=("$tool"); fi
        done
        turns=("${again[@]}")
    done
done

# Libraries alone: frames in memory, in turns.
memory=$out/memory.csv
rm -f "$memory"
in_memory() { # workload
    local run ours theirs
    find_program flowscope-crate
    for ((run = 1; run <= runs; run++)); do
        ours=$(taskset -c "$core" "$target/examples/instructions" process "$1" --scale "$scale" | cut -d' ' -f5)
        theirs=$(taskset -c "$core" "${program[@]}" memory "$data/$1.pcap" "$(room "$1")")
        printf '%s\n' "$1,flowscope,$run,$ours" "$1,flowscope-crate,$run,$theirs" >>"$memory"
    done
}
if [[ " ${tools[*]} " == *" flowscope-crate "* ]]; then
    echo "workload,library,run,ns" >"$memory"
    for workload in A B C; do in_memory "$workload"; done
fi

# Medians, and the ratio of flowscope to each tool.
median() { # workload, tool, column, file if not peers.csv
    awk -F, -v w="$1" -v t="$2" -v c="$3" '$1 == w && $2 == t { print $c }' "${4:-$csv}" | sort -g |
        awk '{ v[NR] = $1 } END { if (NR) print (NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2) }'
}

failed=no
{
    echo "# Peers, $(date +%F)"
    echo
    echo "$(nproc) vCPU $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)," \
        "$(awk '/MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB," \
        "kernel $(uname -r | cut -d. -f1-2)," \
        "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release), $(rustc --version | cut -d' ' -f1-2)."
    echo "Median of $runs runs, tools taking turns, each pinned to one core with all its threads, file in the page cache;"
    echo "scale $scale. Load of the machine at the end: $(cut -d' ' -f1-3 /proc/loadavg)."
    [ -z "$note" ] || echo "$note"
    [ -z "$absent" ] || echo "Not here:$absent."
    echo
    for tool in "${tools[@]}" reassembling; do echo "- $(version "$tool")"; done
    echo
    echo "| workload | tool | runs | M packets/s | peak resident MiB | flowscope is |"
    echo "|---|---|---|---|---|---|"
    for workload in A B C; do
        ours=$(median "$workload" flowscope 5)
        for tool in "${tools[@]}" reassembling; do
            theirs=$(median "$workload" "$tool" 5)
            [ -n "$theirs" ] || continue
            awk -v w="$workload" -v t="$tool" -v o="$ours" -v x="$theirs" \
                -v rss="$(median "$workload" "$tool" 6)" -v n="$(grep -c "^$workload,$tool," "$csv")" \
                'BEGIN { printf "| %s | %s | %d | %.2f | %.0f | %s |\n", w, t, n, x, rss, t == "flowscope" ? "" : sprintf("%.1f×", o / x) }'
        done
    done
    echo
    echo "pmacctd is measured by its processor time, for it sleeps. zeek and ndpiReader are told to look at no more than they must."
    echo "tcpdump only reads (\`-w /dev/null\`) and keeps no flows: a bound, not a peer."
    echo "Peers run with their defaults, but for sizes that let them keep all flows (see the script)."
    if [ -e "$memory" ]; then
        echo
        echo "As libraries, without files and records: nanoseconds to decode and track a frame that is in memory."
        echo
        echo "| workload | flowscope | the library published as flowscope | times |"
        echo "|---|---|---|---|"
        for workload in A B C; do
            awk -v w="$workload" -v o="$(median "$workload" flowscope 4 "$memory")" -v x="$(median "$workload" flowscope-crate 4 "$memory")" \
                'BEGIN { printf "| %s | %.1f | %.1f | %.1f× |\n", w, o, x, x / o }'
        done
    fi
} >"$out/peers.md"
"$root/bench/peers_plot.py" <"$csv" >"$out/peers.svg"
cat "$out/peers.md"

if [ "$assert" = yes ]; then
    present nfpcapd || die "--assert wants nfpcapd: try --install"
    for workload in A B C; do
        ours=$(median "$workload" flowscope 5)
        theirs=$(median "$workload" nfpcapd 5)
        if ! awk -v o="$ours" -v x="$theirs" -v min=$ratio_min 'BEGIN { exit !(x > 0 && o >= min * x) }'; then
            echo "peers.sh: on $workload flowscope is below $ratio_min times nfpcapd" >&2
            failed=yes
        fi
    done
    [ "$failed" = no ] || exit 1
fi
