#!/usr/bin/env bash
# Zero-copy AF_XDP, shown: boots a Debian kernel whose drivers have it, in QEMU's software emulation, once with virtio-net
# and once with igb, two queues each, runs the sensor in there, and sends it frames.
#
#   scripts/zero-copy-vm.sh [--work DIR] [--out DIR] [--kernel VERSION] [--nic "LIST"] [--note TEXT]
#
# Fails unless every queue is bound without a copy (XDP_OPTIONS, and the kernel's sock_diag), every queue gets
# frames, frames sent = offered = delivered, the records are those of a replay, nothing is attached after kill -9 and a second
# sensor starts. It shows correctness, not speed. Needs root (a network namespace of its own with a TAP in it; no
# other interface is touched) and Debian 12 or newer; takes about ten minutes the first time, four later.
#
#   --work DIR     where the kernel and the guest's disk are put together (default target/zero-copy-vm)
#   --out DIR      where the results go (default bench/runs/DATE-zero-copy)
#   --kernel V     version of linux-image-amd64 (default: the newest of trixie-backports)
#   --nic LIST     of: virtio-net igb (default: both)
#   --note TEXT    put into the results
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tools=$root/scripts/zero-copy-vm
work=${CARGO_TARGET_DIR:-$root/target}/zero-copy-vm
out=$root/bench/runs/$(date +%F)-zero-copy
kernel=
nic="virtio-net igb"
note=
suite_kernel=trixie-backports
# All bounds in seconds; a guest takes about 90.
guest_seconds=600
line_seconds=240
fetch_seconds=900

# Not refused.pcap: an ICMP error may come on another queue than the flow that it quotes, whose record is then without it.
captures=(http.pcap http6.pcapng dns.pcap.gz aborted.pcap lossy-at-receiver.pcap lossy-at-sender.pcap ping.pcap
    iperf3-snap96.pcap)
first_frames=1000
# More than a queue has buffers (32 768), on each of two.
long_frames=120000

options "" "work out kernel nic note" "$@"
nics=$nic
for nic in $nics; do
    case $nic in
    virtio-net | igb) ;;
    *) die "no NIC $nic: choose virtio-net, igb" ;;
    esac
done
[ "$(uname -m)" = x86_64 ] || die "the kernel that is booted is for x86_64, this is $(uname -m)"
[ "$(id -u)" -eq 0 ] || die "a network namespace and a TAP in it take root; run: sudo $0"
command -v apt-get >/dev/null || die "the kernel is fetched by apt-get, which is not here: run this on Debian"
[ -c /dev/net/tun ] || die "/dev/net/tun is not here: load the module tun"
need "${packages_build[@]}" "${packages_af_xdp[@]}" busybox-static cpio debian-archive-keyring ethtool iproute2 jq kmod python3 util-linux xz-utils
need_rust
mkdir -p "$work" "$out"
work=$(realpath "$work")
out=$(realpath "$out")

# ---- packages ------------------------------------------------------------------------------------

# apt with lists of its own, from the mirror that this host is set up with: /etc/apt stays as it is.
apt=$work/apt
apt_options=(-q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o DPkg::Lock::Timeout=300)
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
apt_ready=no
apt_prepare() {
    local mirror suite
    [ "$apt_ready" = no ] || return 0
    # shellcheck disable=SC2016 # apt's own placeholders
    mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' |
        awk -v name="$codename" '$2 == name { print $1; exit }')
    [ -n "$mirror" ] || die "apt has no mirror of $codename: is this Debian, and was apt-get update run?"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
    for suite in "$codename" "$codename-backports" "$suite_kernel"; do
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$suite"
    done | awk '!seen[$0]++' >"$apt/sources.list"
    timeout "$fetch_seconds" apt-get "${apt_options[@]}" update >"$work/apt.log" 2>&1 || {
        tail -n 20 "$work/apt.log" >&2
        die "the lists of $codename-backports and $suite_kernel could not be fetched"
    }
    apt_ready=yes
}

has_igb() { qemu-system-x86_64 -device help 2>/dev/null | grep -q '^name "igb"'; }
if ! has_igb; then
    apt_prepare
    say "installing qemu-system-x86 (emulates igb from version 8 on)"
    DEBIAN_FRONTEND=noninteractive timeout "$fetch_seconds" apt-get "${apt_options[@]}" install -y \
        --no-install-recommends -t "$codename-backports" qemu-system-x86 >"$work/apt.log" 2>&1 </dev/null || {
        tail -n 20 "$work/apt.log" >&2
        die "qemu-system-x86 could not be installed from $codename-backports"
    }
    has_igb || die "$(qemu-system-x86_64 --version | head -n 1) emulates no igb: version 8 or newer is needed"
fi

# depends_on PACKAGE PATTERN: what of its dependencies is of its own version and fits.
depends_on() {
    apt-cache "${apt_options[@]}" show "$1=$kernel" | sed -n 's/^Depends: //p' | tr ',' '\n' |
        sed 's/^ *//; s/ .*//' | grep -E "$2" || true
}

# The packages are unpacked, not installed: this host keeps its kernel.
if [ -z "$kernel" ] || [ ! -e "$work/kernel-$kernel/complete" ]; then
    apt_prepare
    [ -n "$kernel" ] || kernel=$(apt-cache "${apt_options[@]}" madison linux-image-amd64 |
        awk -F' *\\| *' -v suite="$suite_kernel" 'index($3, suite) { print $2; exit }')
    [ -n "$kernel" ] || die "$suite_kernel has no linux-image-amd64"
fi
tree=$work/kernel-$kernel
if [ ! -e "$tree/complete" ]; then
    image=$(depends_on linux-image-amd64 '^linux-image-[0-9]' | head -n 1)
    [ -n "$image" ] || die "there is no linux-image-amd64 $kernel in $suite_kernel: leave --kernel out for the newest"
    mapfile -t images < <(printf '%s\n' "$image" && depends_on "$image" '^linux-(binary|modules)-[0-9]')
    say "fetching ${images[*]}, version $kernel"
    rm -rf "$tree" "$apt/debs"
    mkdir -p "$tree" "$apt/debs"
    (
        cd "$apt/debs"
        timeout "$fetch_seconds" apt-get "${apt_options[@]}" -o APT::Sandbox::User=root download \
            "${images[@]/%/=$kernel}"
    ) >"$work/apt.log" 2>&1 || {
        tail -n 20 "$work/apt.log" >&2
        die "the kernel could not be fetched"
    }
    for package in "$apt/debs"/*.deb; do dpkg-deb -x "$package" "$tree"; done
    rm -rf "$apt/debs"
    : >"$tree/complete"
fi
vmlinuz=$(find "$tree" -name 'vmlinuz*' -type f | head -n 1)
[ -n "$vmlinuz" ] || die "the packages of $kernel have no vmlinuz"

# ---- the guest's disk ----------------------------------------------------------------------------

say "building (the first time takes a few minutes)"
(cd "$root" && cargo build --quiet --release --locked --features sensor,af-xdp --bin flowscope)
flowscope=${CARGO_TARGET_DIR:-$root/target}/release/flowscope

disk=$work/guest
rm -rf "$disk"
mkdir -p "$disk"/{bin,dev,etc,lib,lib64,modules,out,proc,sys,tmp}
cp "$(command -v busybox)" "$disk/bin/busybox"
for applet in awk cat dmesg grep insmod kill mount poweroff sed sh sleep stty sync tail tar uname wget; do
    ln -s busybox "$disk/bin/$applet"
done
cp "$tools/init.sh" "$disk/init"
chmod 755 "$disk/init"
strip -o "$disk/bin/flowscope" "$flowscope"
for program in ip ss ethtool; do cp "$(command -v $program)" "$disk/bin/"; done
# With the libraries that they are linked with, where the loader looks for them.
for program in flowscope ip ss ethtool; do
    ldd "$disk/bin/$program" | sed -n 's|.* => \(/[^ ]*\) .*|\1|p; s|^[[:space:]]*\(/[^ ]*\) .*|\1|p'
done | sort -u | while read -r library; do
    mkdir -p "$disk$(dirname "$library")"
    cp -L "$library" "$disk$library"
done

# add_module NAME: it and what it depends on, that first. What is not a file is part of the kernel.
: >"$disk/modules/order"
add_module() {
    local file needed
    file=$(find "$tree" -regex ".*/${1//[-_]/[-_]}\.ko\(\.xz\)?" | head -n 1)
    if [ -z "$file" ] || grep -qx "$1.ko" "$disk/modules/order"; then return 0; fi
    for needed in $(modinfo -F depends "$file" | tr ',' ' '); do add_module "$needed"; done
    case $file in
    *.xz) xz -dc "$file" >"$disk/modules/$1.ko" ;;
    *) cp "$file" "$disk/modules/$1.ko" ;;
    esac
    echo "$1.ko" >>"$disk/modules/order"
}
for module in virtio_pci virtio_blk xsk_diag virtio_net igb; do add_module $module; done
(cd "$disk" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/guest.gz"

"$tools/frames.py" make "$work/all.pcap" "${captures[@]/#/$root/tests/captures/}"
"$tools/frames.py" flood "$work/long.pcap" "$long_frames"
for run in all long; do
    rm -f "$work/$run.jsonl"
    "$flowscope" replay "$work/$run.pcap" --output "jsonl:$work/$run.jsonl" 2>"$work/replay.log" ||
        die "the replay failed, see $work/replay.log"
done

# ---- the runs ------------------------------------------------------------------------------------

space=fszc$$
vm=
clean_up() {
    [ -z "$vm" ] || kill "$vm" 2>/dev/null || true
    ip netns del "$space" 2>/dev/null || true
}
trap clean_up EXIT

in_space() { ip netns exec "$space" "$@"; }

# boot NIC: what the guest says goes to NIC.log, what it leaves to NIC/.
boot() {
    local nic=$1 console=$work/$1.log results=$work/$1 line file
    local device netdev=tap,id=port,ifname=tap0,script=no,downscript=no,vhost=off
    rm -rf "$results"
    mkdir -p "$results"
    # Fresh: what the last guest wrote is gone.
    : >"$work/out.img"
    truncate -s 64M "$work/out.img"
    ip netns del "$space" 2>/dev/null || true
    ip netns add "$space"
    # Or both ends send frames of their own.
    in_space sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    case $nic in
    virtio-net)
        # The TAP spreads flows over its queues by a symmetric hash, and virtio-net keeps them apart.
        in_space ip tuntap add dev tap0 mode tap multi_queue
        netdev+=,queues=2
        # The platform's DMA is what its zero-copy takes; offloads would make frames that were on no wire.
        device=virtio-net-pci,mq=on,vectors=6,iommu_platform=on,disable-legacy=on,guest_csum=off
        device+=,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,guest_uso4=off,guest_uso6=off
        ;;
    igb)
        in_space ip tuntap add dev tap0 mode tap
        device=igb
        ;;
    esac
    # Room for a burst while the guest does something else.
    in_space ip link set tap0 txqueuelen 20000 up
    mkfifo "$work/to-guest.$$" "$work/from-guest.$$"
    timeout --foreground "$guest_seconds" ip netns exec "$space" qemu-system-x86_64 \
        -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -nodefaults -no-reboot -display none \
        -kernel "$vmlinuz" -initrd "$work/guest.gz" \
        -append "console=ttyS0 quiet panic=-1 ipv6.disable=1 mitigations=off" \
        -serial stdio -drive "if=none,id=out,format=raw,file=$work/out.img" -device virtio-blk-pci,drive=out \
        -netdev "$netdev" -device "$device,netdev=port,mac=02:00:00:00:00:99" \
        <"$work/to-guest.$$" >"$work/from-guest.$$" 2>"$work/qemu.log" &
    vm=$!
    exec 3>"$work/to-guest.$$" 4<"$work/from-guest.$$"
    rm -f "$work/to-guest.$$" "$work/from-guest.$$"
    : >"$console"
    local code=0
    while IFS= read -r -t "$line_seconds" -u 4 line; do
        line=${line//[$'\r']/}
        printf '%s\n' "$line" >>"$console"
        case $line in
        "@send "*)
            case $line in
            *killed) set -- "$work/all.pcap" "$first_frames" ;;
            *all) set -- "$work/all.pcap" "" ;;
            *long | *still) set -- "$work/long.pcap" "" ;;
            *) die "$nic: the guest asks for frames that there are not: $line" ;;
            esac
            file=$results/${line#@send }
            in_space ip -s -j link show dev tap0 >"$file.before"
            in_space timeout "$line_seconds" "$tools/frames.py" send "$1" tap0 ${2:+"$2"} >"$file.sent" ||
                die "the frames could not be sent"
            # The TAP's queue runs empty before its counts are final.
            sleep 2
            in_space ip -s -j link show dev tap0 >"$file.after"
            cat "$file.sent" >&3
            say "$nic: $(cat "$file.sent") frames sent"
            ;;
        "@failed "*) code=1 ;;&
        "@"*) say "$nic: ${line#@}" ;;
        esac
        [ "$line" != "@over" ] || break
    done
    exec 3>&- 4<&-
    if [ "$line" != "@over" ]; then
        kill "$vm" 2>/dev/null || true
        tail -n 20 "$console" "$work/qemu.log" >&2
        die "$nic: the guest fell silent; all that it said is in $console"
    fi
    wait "$vm" || true
    vm=
    tar -xf "$work/out.img" -C "$results"
    [ "$code" = 0 ] || {
        tail -n 60 "$console" >&2
        die "$nic: the guest says that it failed; what it left is in $results"
    }
}


# ---- what must hold ------------------------------------------------------------------------------

# expect WHAT FOUND WANTED: said either way.
expect() {
    if [ "$2" = "$3" ]; then say "  $1: $2"; else say "  $1: $2, NOT $3"; fi
}

# tap FILE FIELD: what the TAP counted while FILE's frames were sent, from `ip -s -j`.
tap() {
    jq -s ".[1][0].stats64.tx.$2 - .[0][0].stats64.tx.$2" "$1.before" "$1.after"
}

queues=2
check() {
    local dir=$work/$1 run sent
    say "$1:"
    for run in killed all long still; do
        sent=$(cat "$dir/$run.sent")
        expect "$run: queues bound without a copy, by the sensor's XDP_OPTIONS" \
            "$(grep -c ': AF_XDP, zero-copy, ' "$dir/$run.log")" $queues
        expect "$run: the same, by the kernel's sock_diag" "$(grep -o 'zc:1' "$dir/$run.sockets" | wc -l)" $queues
        expect "$run: programs attached" "$(grep -c 'prog/xdp' "$dir/$run.link")" 1
        expect "$run: frames that the TAP handed on, and dropped" \
            "$(tap "$dir/$run" packets), $(tap "$dir/$run" dropped)" "$sent, 0"
        [ "$run" != killed ] || continue
        expect "$run: frames offered" "$(jq '[.queues[].offered] | add' "$dir/$run.json")" "$sent"
        expect "$run: frames delivered or dropped" \
            "$(jq '[.queues[] | .delivered, .dropped[]] | add' "$dir/$run.json")" "$sent"
        expect "$run: queues that had frames" \
            "$(jq '[.queues[] | select(.delivered > 0)] | length' "$dir/$run.json")" $queues
        expect "$run: ledger balanced" "$(jq .ledger.balanced "$dir/$run.json")" true
    done
    expect "killed: frames that had come, by /metrics" \
        "$(awk '/^flowscope_queue_frames_delivered_total{/ { sum += $NF } END { print sum + 0 }' "$dir/killed.metrics")" \
        "$(cat "$dir/killed.sent")"
    expect "killed: programs attached afterwards" "$(grep -c 'prog/xdp' "$dir/killed.link-after" || true)" 0
    for run in all long; do
        expect "$run: frames dropped" "$(jq '[.queues[].dropped[]] | add // 0' "$dir/$run.json")" 0
        expect "$run: records that are those of a replay" \
            "$("$tools/frames.py" same "$dir/$run.jsonl" "$work/$run.jsonl" || true)" "$(wc -l <"$work/$run.jsonl")"
    done
    expect "still: queues that dropped frames because the ring was full, and for no other reason" \
        "$(jq '[.queues[] | select(.dropped | keys == ["ring_full"])] | length' "$dir/still.json")" $queues
}

# log_of NIC: what the guest left, in one text.
log_of() {
    local dir=$work/$1 file
    grep '^@' "$work/$1.log"
    for file in nic rss killed.log killed.sockets killed.link killed.link-after all.log all.sockets all.link all.driver \
        long.log long.driver still.log still.driver; do
        printf '\n==> %s\n' "$file"
        # Of a NIC's counters those that are not 0.
        case $file in
        *.driver) grep -v ': 0$' "$dir/$file" ;;
        rss) grep -i -A 1 'hash key' "$dir/$file" ;;
        *) cat "$dir/$file" ;;
        esac
    done
    printf '\n==> all.metrics, of queues\n'
    grep '^flowscope_queue' "$dir/all.metrics"
}

version_of() { dpkg-query -W -f '${Version}' "$1"; }

for nic in $nics; do
    boot "$nic"
    check "$nic" >"$work/$nic.checks"
    cat "$work/$nic.checks"
    log_of "$nic" >"$out/$nic.log"
    for run in all long still; do cp "$work/$nic/$run.json" "$out/$nic-$run.json"; done
done

{
    echo "# Zero-copy AF_XDP, $(date +%F)"
    echo
    echo "\`scripts/zero-copy-vm.sh\`: flowscope $(cd "$root" && git describe --always --dirty 2>/dev/null || echo unknown) on Linux" \
        "$kernel (Debian's linux-image-amd64) in QEMU $(version_of qemu-system-x86), software emulation, 2 processors."
    echo "Host: $(nproc) vCPU $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)," \
        "kernel $(uname -r | cut -d. -f1-2), $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)," \
        "$(rustc --version | cut -d' ' -f1-2)."
    [ -z "$note" ] || echo "$note"
    echo
    echo "Runs of the sensor: *killed* gets the first $first_frames frames and then kill -9; *all* gets all of them, those of" \
        "${captures[*]} under tests/captures and 300 flows made up by \`frames.py\`; *long* gets $long_frames frames of 60 bytes;" \
        "*still* gets as many while it is stopped (SIGSTOP)."
    echo "Speeds mean nothing here."
    echo
    echo "| run | what | ${nics// / | } |"
    echo "|---|---|$(for nic in $nics; do printf -- '---|'; done)"
    # The same lines for every NIC: "  RUN: WHAT: FOUND".
    for nic in $nics; do sed '1d' "$work/$nic.checks"; done | awk -F': ' '
        { what = $1 " | " $2; sub(/^ */, "", what) }
        !(what in row) { order[++rows] = what }
        { row[what] = row[what] " | " substr($0, length($1 ": " $2 ": ") + 1) }
        END { for (i = 1; i <= rows; i++) print "| " order[i] row[order[i]] " |" }'
    echo
    echo "| run | NIC | queue | offered | delivered | dropped |"
    echo "|---|---|---|---|---|---|"
    for run in all long still; do
        for nic in $nics; do
            jq -r --arg run "$run | $nic" '.queues[] | "| \($run) | \(.queue) | \(.offered) | \(.delivered) | \(
                [.dropped | to_entries[] | "\(.value) \(.key)"] | join(", ")) |"' "$out/$nic-$run.json"
        done
    done
} >"$out/zero-copy.md"
say "written to $out"
for nic in $nics; do
    ! grep -q ', NOT ' "$work/$nic.checks" || die "not all holds, see above"
done
