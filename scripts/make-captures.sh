#!/usr/bin/env bash
# Makes the captures under tests/captures: real programs talk over a veth pair between two network
# namespaces of this script's own, tcpdump and dumpcap listen, and what was sent is written down from
# what the programs themselves and the kernel's interface counters say (never from a decoder).
#
#   scripts/make-captures.sh [DIRECTORY]     default: tests/captures
#
# Needs root. Touches no interface but those it makes; takes about a minute.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

out=$(realpath -m "${1:-$root/tests/captures}")
[ "$(id -u)" -eq 0 ] || die "network namespaces take root; run: sudo $0"
need curl nginx-light bind9-dnsutils dnsmasq-base openssh-server openssh-client iperf3 iputils-ping \
    tcpdump wireshark-common iproute2 ethtool jq zstd gzip python3

tmp=$(mktemp -d)
chmod 755 "$tmp"
ns=fsc$$
# A wire of three: client va=wa (bridge that can lose frames) wb=vb server.
client4=192.0.2.1 server4=192.0.2.2
client6=2001:db8::1 server6=2001:db8::2

clean_up() {
    local space
    for space in "$ns-a" "$ns-m" "$ns-b"; do
        # Every process in a namespace of ours was started by us.
        ip netns pids "$space" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
        ip netns del "$space" 2>/dev/null || true
    done
    rm -rf "$tmp"
}
trap clean_up EXIT

in_a() { ip netns exec "$ns-a" "$@"; }
in_b() { ip netns exec "$ns-b" "$@"; }

# ---- the wire ------------------------------------------------------------------------------------

make_wire() {
    local space
    for space in a m b; do
        ip netns add "$ns-$space"
        ip netns exec "$ns-$space" sysctl -qw net.ipv6.conf.default.router_solicitations=0 \
            net.ipv6.conf.default.accept_dad=0
        ip -n "$ns-$space" link set lo up
    done
    # The bridge is silent: it has no addresses.
    ip netns exec "$ns-m" sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    ip -n "$ns-a" link add va address 02:00:00:00:00:0a type veth peer name wa netns "$ns-m"
    ip -n "$ns-b" link add vb address 02:00:00:00:00:0b type veth peer name wb netns "$ns-m"
    # Frames as they would be on a cable: no segmentation offload, checksums filled in.
    in_a ethtool -K va tso off gso off gro off tx off >/dev/null
    in_b ethtool -K vb tso off gso off gro off tx off >/dev/null
    ip -n "$ns-a" addr add $client4/24 dev va
    ip -n "$ns-b" addr add $server4/24 dev vb
    ip -n "$ns-a" addr add $client6/64 dev va nodad
    ip -n "$ns-b" addr add $server6/64 dev vb nodad
    ip -n "$ns-a" link set va up
    ip -n "$ns-b" link set vb up
    ip -n "$ns-m" link set wa up
    ip -n "$ns-m" link set wb up
    cat >"$tmp/wire.py" <<'PY'
# A cable between wa and wb. While the file LOSS exists, of the large frames towards the client every
# 11th is lost and every 13th overtaken by the next.
import os, select, socket, sys
ports = []
for name in ("wa", "wb"):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
    s.bind((name, 0))
    ports.append(s)
a, b = ports
count, held = 0, None
print("ready", flush=True)
while True:
    for s in select.select(ports, [], [], 0.02)[0] or [None]:
        if s is None:
            if held:
                a.send(held)
                held = None
            continue
        frame = s.recv(65536)
        if s is a:
            b.send(frame)
            continue
        if len(frame) > 1000 and os.path.exists(sys.argv[1]):
            count += 1
            if count % 11 == 0:
                continue
            if count % 13 == 0 and not held:
                held = frame
                continue
        a.send(frame)
        if held:
            a.send(held)
            held = None
PY
    ip netns exec "$ns-m" python3 "$tmp/wire.py" "$tmp/LOSS" >"$tmp/wire.log" 2>&1 &
    disown
    wait_for "the wire" grep -q ready "$tmp/wire.log"
    wait_for "the other end" in_a ping -q -c 1 -W 1 $server4
    wait_for "the other end by IPv6" in_a ping -q -c 1 -W 1 $server6
    # No ARP and no neighbour solicitation but where a scenario asks for them: an exchange between the start of
    # a capture and the reading of the kernel's counters would part the two.
    local address
    for address in $server4 $server6; do
        ip -n "$ns-a" neigh replace "$address" lladdr 02:00:00:00:00:0b dev va nud permanent
    done
    for address in $client4 $client6; do
        ip -n "$ns-b" neigh replace "$address" lladdr 02:00:00:00:00:0a dev vb nud permanent
    done
    # Multicast reports of a new interface come in the first seconds; let them pass.
    sleep 4
}

# wait_for WHAT COMMAND…: ten seconds at most.
wait_for() {
    local what=$1 i
    shift
    for i in $(seq 100); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    die "waited ten seconds for $what"
}

# ---- the servers ---------------------------------------------------------------------------------

# bytes COUNT SEED: the same bytes for the same seed.
bytes() { python3 -c 'import random,sys; sys.stdout.buffer.write(random.Random(int(sys.argv[2])).randbytes(int(sys.argv[1])))' "$@"; }

start_servers() {
    mkdir -p "$tmp/www" "$tmp/nginx"
    bytes 1000 1 >"$tmp/www/small.bin"
    bytes 60000 2 >"$tmp/www/large.bin"
    bytes 4000000 3 >"$tmp/www/huge.bin"
    cat >"$tmp/nginx.conf" <<CONF
user root;
worker_processes 1;
daemon off;
pid $tmp/nginx/pid;
error_log $tmp/nginx/error.log;
events { worker_connections 64; }
http {
    default_type application/octet-stream;
    log_format facts '\$uri \$status \$body_bytes_sent';
    access_log $tmp/nginx/access.log facts;
    client_body_temp_path $tmp/nginx/t1; proxy_temp_path $tmp/nginx/t2; fastcgi_temp_path $tmp/nginx/t3;
    uwsgi_temp_path $tmp/nginx/t4; scgi_temp_path $tmp/nginx/t5;
    server {
        listen $server4:80; listen [$server6]:80;
        root $tmp/www;
        location = /huge.bin { limit_rate 50k; }
    }
}
CONF
    in_b nginx -c "$tmp/nginx.conf" -p "$tmp/nginx" 2>"$tmp/nginx/stderr" &
    disown
    cat >"$tmp/dnsmasq.conf" <<CONF
no-resolv
no-hosts
no-ping
bind-interfaces
listen-address=$server4,$server6
address=/example.test/198.51.100.7
address=/example.test/2001:db8:7::7
log-queries
log-facility=$tmp/dnsmasq.log
local=/test/
txt-record=big.test,"$(printf 'x%.0s' {1..200})"
CONF
    in_b dnsmasq --no-daemon --user=root -C "$tmp/dnsmasq.conf" >/dev/null 2>&1 &
    disown
    mkdir -p /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f "$tmp/host_key"
    ssh-keygen -q -t ed25519 -N '' -f "$tmp/key"
    cat >"$tmp/sshd_config" <<CONF
ListenAddress $server4
HostKey $tmp/host_key
AuthorizedKeysFile $tmp/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
PidFile none
CONF
    in_b /usr/sbin/sshd -D -f "$tmp/sshd_config" -E "$tmp/sshd.log" >/dev/null 2>&1 &
    disown
    in_b iperf3 -s >/dev/null 2>&1 &
    disown
    wait_for nginx in_b curl -sf -o /dev/null "http://$server4/small.bin"
    wait_for dnsmasq in_b dig +short +tries=1 +time=1 @$server4 up.test
    wait_for sshd in_b bash -c "exec 3<>/dev/tcp/$server4/22"
    wait_for iperf3 in_b bash -c "ss -ltn | grep -q :5201"
    : >"$tmp/nginx/access.log"
}

# ---- capturing -----------------------------------------------------------------------------------

# counted NAMESPACE INTERFACE: frames and bytes that the kernel counted, both directions.
counted() {
    ip -n "$1" -s -j link show dev "$2" |
        jq -c '.[0].stats64 | {frames: (.rx.packets + .tx.packets), bytes: (.rx.bytes + .tx.bytes)}'
}

# record NAME SIDE SNAPLEN SCENARIO: runs the scenario (a function that prints facts as JSON) while the
# interface of that side is captured; adds what the kernel counted.
record() {
    local name=$1 side=$2 snap=$3 scenario=$4
    local space=$ns-$side interface=v$side raw=$tmp/raw.${1#*.} before after facts pid
    say "$name"
    case $name in
    *.pcapng)
        ip netns exec "$space" dumpcap -q -i "$interface" -s "$snap" -w "$raw" 2>"$tmp/cap.log" &
        pid=$!
        wait_for dumpcap grep -q File "$tmp/cap.log"
        ;;
    *)
        ip netns exec "$space" tcpdump -i "$interface" -s "$snap" --immediate-mode -U -Z root \
            ${TIME_PRECISION:+--time-stamp-precision=$TIME_PRECISION} -w "$raw" 2>"$tmp/cap.log" &
        pid=$!
        wait_for tcpdump grep -q "listening on" "$tmp/cap.log"
        ;;
    esac
    sleep 0.3
    before=$(counted "$space" "$interface")
    facts=$($scenario)
    sleep 0.7
    after=$(counted "$space" "$interface")
    kill -INT "$pid"
    wait "$pid" || true
    if grep -Eq '^[1-9][0-9]* packets? dropped by kernel' "$tmp/cap.log"; then
        die "$name: the capture lost packets, run again"
    fi
    case $name in
    *.gz) gzip -9 -n -c "$raw" >"$out/$name" ;;
    *.zst) zstd -q -19 -f "$raw" -o "$out/$name" ;;
    *) cp "$raw" "$out/$name" ;;
    esac
    chmod 644 "$out/$name"
    jq -n --arg name "$name" --argjson facts "$facts" --argjson before "$before" --argjson after "$after" \
        '{($name): ({kernel: {frames: ($after.frames - $before.frames), bytes: ($after.bytes - $before.bytes)}} + $facts)}' \
        >>"$tmp/facts"
    # Not a decoder, only how many records the file holds: all that the kernel counted must be there.
    local records
    records=$(capinfos -T -r -c -M "$raw" | cut -f 2)
    [ "$records" -eq "$(jq -s 'last | .[].kernel.frames' "$tmp/facts")" ] ||
        die "$name: $records records, but the kernel counted $(jq -s 'last | .[].kernel.frames' "$tmp/facts"); run again"
}

# ---- what the programs do ------------------------------------------------------------------------

# body FILE PATH STATUS: facts of one body received.
body() {
    jq -nc --arg path "$2" --argjson status "$3" --argjson bytes "$(stat -c %s "$1")" \
        --arg sha256 "$(sha256sum "$1" | cut -d' ' -f1)" '{path: $path, status: $status, bytes: $bytes, sha256: $sha256}'
}

# get ADDRESS PATH: one request on a connection of its own.
get() {
    local status
    status=$(in_a curl -s -o "$tmp/body" -w '%{http_code}' "http://$1$2")
    body "$tmp/body" "$2" "$status"
}

# http_facts CONNECTIONS: gathers bodies, and how many requests the server says it answered since the last look.
http_facts() {
    local bodies log
    bodies=$(cat)
    log=$(wc -l <"$tmp/nginx/access.log")
    : >"$tmp/nginx/access.log"
    jq -sc --argjson log "$log" --argjson connections "$1" \
        '{http: {connections: $connections, server_log_requests: $log, bodies: .}}' <<<"$bodies"
}

web() {
    { get $server4 /small.bin; get $server4 /large.bin; get $server4 /nothing-here; } | http_facts 3
}

# Two requests on one connection.
web6() {
    in_a curl -s -o "$tmp/one" "http://[$server6]/small.bin" -o "$tmp/two" "http://[$server6]/large.bin"
    { body "$tmp/one" /small.bin 200; body "$tmp/two" /large.bin 200; } | http_facts 1
}

lossy() {
    touch "$tmp/LOSS"
    get $server4 /large.bin | http_facts 1
    rm "$tmp/LOSS"
}

# unread: whether bytes wait in the client's kernel that it has not read.
unread() { in_a ss -Htn state established dst "$server4:80" | awk '$1 > 0 { found = 1 } END { exit !found }'; }

# The client is stopped in the middle, and goes away once bytes wait for it unread: its kernel sends RST, no FIN.
aborted() {
    local client code=0
    ip netns exec "$ns-a" curl -s -N -o "$tmp/part" "http://$server4/huge.bin" &
    client=$!
    wait_for "a part of the download" test -s "$tmp/part"
    kill -STOP "$client"
    wait_for "bytes unread" unread
    kill -KILL "$client"
    wait "$client" 2>/dev/null || code=$?
    sleep 0.5
    : >"$tmp/nginx/access.log"
    jq -nc --argjson code "$code" --argjson part "$(body "$tmp/part" /huge.bin 200)" \
        '{aborted: ($part + {curl_exit: $code})}'
}

names() {
    : >"$tmp/dnsmasq.log"
    local i
    for i in 1 2 3 4 5; do in_a dig +short +tries=1 +nocookie @$server4 "host$i.example.test" >/dev/null; done
    in_a dig +short +tries=1 +nocookie @$server6 AAAA "host6.example.test" >/dev/null
    in_a dig +short +tries=1 +nocookie @$server4 "missing.test" >/dev/null
    in_a dig +short +tries=1 +nocookie +tcp @$server4 TXT "big.test" >/dev/null
    sleep 0.2
    jq -nc --argjson log "$(grep -c 'query\[' "$tmp/dnsmasq.log")" \
        '{dns: {udp4_queries: 6, udp6_queries: 1, tcp_queries: 1, server_log_queries: $log}}'
}

shell() {
    local code=0
    in_a ssh -i "$tmp/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
        -o BatchMode=yes root@$server4 'head -c 5000 /dev/zero; exit 7' >"$tmp/ssh.out" || code=$?
    jq -nc --argjson code "$code" --argjson bytes "$(stat -c %s "$tmp/ssh.out")" \
        --arg version "$(ssh -V 2>&1 | sed 's/[ ,].*//')" \
        '{ssh: {connections: 1, exit: $code, output_bytes: $bytes, banner: ("SSH-2.0-" + $version)}}'
}

speed() {
    in_a iperf3 -c $server4 -P 2 -b 5M -n 128K -l 4K -J >"$tmp/tcp.json"
    sleep 0.3
    in_a iperf3 -c $server4 -u -b 1M -n 20K -l 1000 -J >"$tmp/udp.json"
    jq -c -n --slurpfile tcp "$tmp/tcp.json" --slurpfile udp "$tmp/udp.json" '{iperf3: {
        control_connections: 2,
        tcp: [range($tcp[0].start.connected | length) as $i
              | {local_port: $tcp[0].start.connected[$i].local_port, sent: $tcp[0].end.streams[$i].sender.bytes,
                 received: $tcp[0].end.streams[$i].receiver.bytes}],
        udp: {local_port: $udp[0].start.connected[0].local_port, bytes: $udp[0].end.sum.bytes,
              packets: $udp[0].end.sum.packets, lost: $udp[0].end.sum.lost_packets}}}'
}

# pinged ADDRESS COUNT SIZE: what ping says that it sent and got.
pinged() {
    in_a ping -q -n -i 0.2 -c "$2" -s "$3" "$1" |
        sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) received.*/\1 \2/p' |
        jq -Rc --arg to "$1" --argjson size "$3" 'split(" ") | {to: $to, size: $size, transmitted: (.[0] | tonumber), received: (.[1] | tonumber)}'
}

# 4000 bytes of data make three fragments at an MTU of 1500, by IPv4 and by IPv6.
echoes() {
    { pinged $server4 5 56; pinged $server6 4 56; pinged $server4 3 4000; pinged $server6 2 4000; } |
        jq -sc '{ping: map(. + {fragments: (if .size > 1472 then 3 else 1 end)})}'
}

# One datagram of 5 bytes from a socket of its own.
probe() { in_a bash -c "echo -n probe >/dev/udp/$1/9"; }

# The client has to ask for the server's hardware address first: one ARP and one IPv6 exchange.
refused() {
    local code4=0 code6=0 i
    ip -n "$ns-a" neigh del $server4 dev va
    ip -n "$ns-a" neigh del $server6 dev va
    in_a curl -s "http://$server4:81/" || code4=$?
    in_a curl -s "http://[$server6]:81/" || code6=$?
    for i in 1 2 3; do probe $server4; sleep 0.1; done
    for i in 1 2; do probe $server6; sleep 0.1; done
    jq -nc --argjson code4 "$code4" --argjson code6 "$code6" \
        '{refused: {arp_frames: 2, tcp: [{family: 4, curl_exit: $code4}, {family: 6, curl_exit: $code6}], udp_probes4: 3, udp_probes6: 2, probe_bytes: 5}}'
}

# ---- main ----------------------------------------------------------------------------------------

mkdir -p "$out"
: >"$tmp/facts"
make_wire
start_servers

record http.pcap a 262144 web
record http6.pcapng b 262144 web6
record lossy-at-receiver.pcap a 262144 lossy
TIME_PRECISION=nano record lossy-at-sender.pcap b 262144 lossy
record aborted.pcap b 262144 aborted
record dns.pcap.gz b 262144 names
record ssh.pcap.zst a 262144 shell
record iperf3-snap96.pcap b 96 speed
record ping.pcap a 262144 echoes
record refused.pcap b 262144 refused

jq -s 'add' "$tmp/facts" >"$out/EXPECTED.json"
# Under sudo the files would be root's.
[ -z "${SUDO_UID:-}" ] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$out"
du -bc "$out"/*.pcap* | tail -n 1 | cut -f 1 | sed 's/$/ bytes of captures/'
