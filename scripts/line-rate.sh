#!/usr/bin/env bash
# The highest rate without loss (RFC 2544), live: flowscope, receivers that touch nothing, and peers, in one run.
#
#   scripts/line-rate.sh [--mode quick|standard|full] [OPTIONS]
#
# Load comes from a generator of ours (bench/send.rs: XDP live frames) through a veth pair in a namespace that is made and
# removed, or through real ports that are named. Each trial starts the receiver anew and accounts for every frame: sent = refused by
# the port + offered to the receiver, offered = delivered + dropped; where that does not hold, it is said loudly.
#
# A search comes down from all that the generator can, which may be an overload in which the receiver gets no processor, by halves to a
# rate that passes; where a neighbour is known, it begins there. Then the gap is halved (RFC 2544, 26.1).
#
#   --mode MODE        quick: some minutes, few sizes and flows; standard: half an hour to an hour; full (default): some hours.
#                      RFC 2544 wants trials of a minute: the shorter ones are written into the result
#   --sizes LIST       bytes with FCS, and imix (64 128 256 512 1024 1280 1518 imix; quick: 64 512 imix)
#   --flows LIST       (1000 100000 1000000; quick: 1000)
#   --flows-sizes LIST sizes with all numbers of flows, the others have the first (full: all; standard: 64 imix)
#   --flows-peers LIST --flows-hold LIST
#                      numbers of flows for peers, and for the trials at a million (full: all; standard: 1000, and 1000 100000)
#   --receivers LIST   of xdp-drop bare-af-xdp bare-af-packet flowscope-af-xdp flowscope-af-packet and peers (all that there are);
#                      on request flowscope-af-xdp-shunting, with --shunt-above 10kB: flows up to 1024 are all counted in the kernel
#   --peers LIST       of tcpdump softflowd nfpcapd suricata (default: all); what is not installed is named and left out
#   --install          install tcpdump, softflowd and nfdump with apt-get first, and suricata, from backports where they are known
#   --only LIST        of search hold: parts of the run (both)
#   --resume           add to what --out has already; what it has is not measured again
#   --end-after X      begin nothing after that many seconds; ends with 75 when something is left. With --resume, and in a loop,
#                      the run is made in pieces
#   --seconds X        of a trial (full: 10, standard: 3, quick: 2; RFC 2544 wants 60)
#   --resolution P     end the search when the bounds are P percent apart (full: 2, else 5)
#   --loss P           percent of loss that passes (0; with --napi receiver 2, see there)
#   --tries N          a rate passes when one of N trials does (1, standard: 3); for a machine that is not quiet
#   --hold-seconds X   of the trials at a million packets a second (full, standard: 60, quick: 5; 0: none)
#   --queues N         of the veth pair (1); the queue is that of the sending core's number
#   --napi WHERE       sender (default): the kernel's side of receiving on the generator's core;
#                      receiver: on the receiver's core, above it in priority, every 50 microseconds, as a NIC's interrupt. The ring
#                      of a veth pair (256 frames) is then full whenever that core is away for longer than it lasts, 0.25 ms at a
#                      million packets a second, which a virtual machine's is every second: every receiver has some loss, two
#                      percent are let pass, and a million packets a second are not held (--hold-seconds 0)
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
peers="tcpdump softflowd nfpcapd suricata"
tx_cores=0
rx_cores=1
napi=sender
# What is only handed on, where it is given: a mode has defaults for most of it.
handed_on="sizes flows flows-sizes flows-peers flows-hold receivers only end-after seconds resolution loss tries hold-seconds note"
# shellcheck disable=SC2086 # words; they are not to come from the environment
unset assert resume ${handed_on//-/_}
options "install assert resume" "mode peers napi queues tx-cores rx-cores tx-interface rx-interface out $handed_on" "$@"
passed=(${assert:+--assert} ${resume:+--resume})
for name in $handed_on; do
    variable=${name//-/_}
    [ -z "${!variable+given}" ] || passed+=("--$name" "${!variable}")
done

# Debian 12 has Suricata in its backports only. They are added from where the rest comes from, and stay; nothing else is taken from there
# unless it is asked for by name.
install_suricata() {
    local release uri backports=()
    ! command -v suricata >/dev/null || return 0
    if ! LC_ALL=C apt-cache policy suricata | grep -q 'Candidate: [0-9]'; then
        release=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
        # shellcheck disable=SC2016 # apt's own words
        uri=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $release" 'Origin: Debian' 2>/dev/null | head -n 1)
        [ -n "$uri" ] || return 0
        say "adding $release-backports to apt's sources: suricata is nowhere else"
        printf 'deb %s %s-backports main\n' "$uri" "$release" >"/etc/apt/sources.list.d/$release-backports.list"
    fi
    [ ! -e "/etc/apt/sources.list.d/${release:=none}-backports.list" ] || backports=(-t "$release-backports")
    (install_quietly "${backports[@]}" suricata) >/dev/null 2>&1 </dev/null || say "suricata could not be installed: it is left out"
}

# What a mode means comes first, so that an option after it has the last word.
all_sizes="64 128 256 512 1024 1280 1518 imix"
all_flows="1000 100000 1000000"
all=(--sizes "$all_sizes" --flows "$all_flows")
case $mode in
full)
    defaults=("${all[@]}" --tries 1 --flows-sizes "$all_sizes" --flows-peers "$all_flows" --flows-hold "$all_flows" --seconds 10 --resolution 2
        --hold-seconds 60)
    ;;
standard)
    defaults=("${all[@]}" --flows-sizes "64 imix" --flows-peers 1000 --flows-hold "1000 100000" --seconds 3 --resolution 5
        --hold-seconds 60 --tries 3)
    ;;
quick)
    defaults=(--tries 1 --sizes "64 512 imix" --flows 1000 --flows-sizes "" --flows-peers 1000 --flows-hold 1000 --seconds 2 --resolution 5
        --hold-seconds 5)
    ;;
*) die "--mode $mode: quick, standard or full" ;;
esac
case $napi in
sender) defaults+=(--loss 0) ;;
receiver) defaults+=(--loss 2 --hold-seconds 0) ;;
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
[ "$install" = no ] || {
    need tcpdump softflowd nfdump
    install_suricata
}
need_rust
cd "$root"
say "building (the first time takes some minutes)"
cargo build --quiet --release --locked --features sensor,af-xdp --bin flowscope --example send --example receive

exec python3 "$root/bench/line_rate/run.py" "${defaults[@]}" --only "search hold" --end-after 0 --queues "${queues:-1}" --peers "$peers" \
    --napi "$napi" --tx-cores "$tx_cores" --rx-cores "$rx_cores" --out "$out" \
    ${tx_interface:+--tx-interface "$tx_interface" --rx-interface "$rx_interface"} \
    --target "$(realpath "${CARGO_TARGET_DIR:-target}")/release" "${passed[@]}"
