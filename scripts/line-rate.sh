#!/usr/bin/env bash
# The highest rate without loss (RFC 2544), live: flowscope, receivers that touch nothing, and peers, in one run.
#
#   scripts/line-rate.sh [--mode quick|full] [OPTIONS]
#
# Load comes from a generator of ours (bench/send.rs: XDP live frames) through a veth pair in a namespace that is made and
# removed, or through real ports that are named. Each trial starts the receiver anew and accounts for every frame: sent = refused by
# the port + offered to the receiver, offered = delivered + dropped; where that does not hold, it is said loudly.
#
#   --mode MODE        quick: some minutes, few sizes and flows; full (default): some hours
#   --sizes LIST       bytes with FCS, and imix (full: 64 128 256 512 1024 1280 1518 imix; quick: 64 512 imix)
#   --flows LIST       (full: 1000 100000 1000000; quick: 1000)
#   --receivers LIST   of xdp-drop bare-af-xdp bare-af-packet flowscope-af-xdp flowscope-af-packet and peers (all that there are)
#   --peers LIST       of tcpdump softflowd nfpcapd suricata (default: all); what is not installed is named and left out
#   --install          install tcpdump, softflowd and nfdump with apt-get first (suricata: from backports, by hand)
#   --seconds X        of a trial (full: 10, quick: 2; RFC 2544 wants 60)
#   --resolution P     end the search when the bounds are P percent apart (full: 2, quick: 5)
#   --loss P           percent of loss that passes (0)
#   --tries N          a rate passes when one of N trials does (1); for a machine that is not quiet
#   --hold-seconds X   of the trials at a million packets a second (full: 60, quick: 5)
#   --queues N         of the veth pair (1); the queue is that of the sending core's number
#   --napi WHERE       receiver (default): the kernel's side of receiving on the receiver's core, above it in priority;
#                      sender: on the generator's core
#   --tx-cores LIST --rx-cores LIST
#                      with commas (0 and 1): generator, and receiver with all its threads
#   --tx-interface NAME --rx-interface NAME
#                      real ports, joined by a cable or a switch; both are left as they are
#   --out DIR          (bench/runs/DATE-line-rate)
#   --note TEXT        put into line-rate.md
#   --assert           fail when flowscope gets less than 80 % of the bare receiver of its backend, loses a frame at a
#                      million packets a second, or is not ahead of every peer, or when a frame is unaccounted for
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mode=full
install=no
tx_interface=
rx_interface=
queues=
out=$root/bench/runs/$(date +%F)-line-rate
passed=()
peers="tcpdump softflowd nfpcapd suricata"
tx_cores=0
rx_cores=1
napi=receiver
while [ $# -gt 0 ]; do
    case $1 in
    --install) install=yes ;;
    --assert) passed+=(--assert) ;;
    --mode | --sizes | --flows | --receivers | --peers | --seconds | --resolution | --loss | --tries | --hold-seconds | \
        --queues | --napi | --tx-cores | --rx-cores | --tx-interface | --rx-interface | --out | --note)
        [ $# -ge 2 ] || die "$1 wants a value"
        case $1 in
        --mode) mode=$2 ;;
        --peers) peers=$2 ;;
        --napi) napi=$2 ;;
        --queues) queues=$2 ;;
        --tx-cores) tx_cores=$2 ;;
        --rx-cores) rx_cores=$2 ;;
        --tx-interface) tx_interface=$2 ;;
        --rx-interface) rx_interface=$2 ;;
        --out) out=$2 ;;
        *) passed+=("$1" "$2") ;;
        esac
        shift
        ;;
    --help | -h)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    *) die "unknown option $1: see --help" ;;
    esac
    shift
done

# What a mode means comes first, so that an option after it has the last word.
case $mode in
full)
    defaults=(--sizes "64 128 256 512 1024 1280 1518 imix" --flows "1000 100000 1000000"
        --seconds 10 --resolution 2 --hold-seconds 60)
    ;;
quick) defaults=(--sizes "64 512 imix" --flows 1000 --seconds 2 --resolution 5 --hold-seconds 5) ;;
*) die "--mode $mode: quick or full" ;;
esac
case $napi in
receiver | sender) ;;
*) die "--napi $napi: receiver or sender" ;;
esac
[ -n "$tx_interface" ] && [ -n "$rx_interface" ] || [ -z "$tx_interface$rx_interface" ] ||
    die "--tx-interface and --rx-interface go together"
for name in $tx_interface $rx_interface; do
    [ -e "/sys/class/net/$name" ] || die "there is no interface $name"
done
if [ -n "$rx_interface" ]; then
    [ -z "$queues" ] || die "--queues is for veth pairs: set those of $rx_interface with ethtool -L"
    receive=("/sys/class/net/$rx_interface/queues/"rx-*)
    queues=${#receive[@]}
fi
for core in ${tx_cores//,/ } ${rx_cores//,/ }; do
    [ -e "/sys/devices/system/cpu/cpu$core" ] || die "there is no core $core: --tx-cores and --rx-cores name two that there are"
done
[ "$(id -u)" = 0 ] || die "this takes root: it makes a namespace and loads programs into the kernel"

need "${packages_build[@]}" "${packages_af_xdp[@]}" iproute2 ethtool curl python3 util-linux
[ "$install" = no ] || need tcpdump softflowd nfdump
need_rust
cd "$root"
say "building (the first time takes some minutes)"
cargo build --quiet --release --locked --features sensor,af-xdp --bin flowscope --example send --example receive

exec python3 "$root/bench/line_rate/run.py" "${defaults[@]}" --tries 1 --loss 0 --queues "${queues:-1}" --peers "$peers" \
    --napi "$napi" --tx-cores "$tx_cores" --rx-cores "$rx_cores" --out "$out" \
    ${tx_interface:+--tx-interface "$tx_interface" --rx-interface "$rx_interface"} \
    --target "$(realpath "${CARGO_TARGET_DIR:-target}")/release" "${passed[@]}"
