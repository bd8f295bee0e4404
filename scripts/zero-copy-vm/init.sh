#!/bin/sh
# The guest of scripts/zero-copy-vm.sh: its first and only process tree, in BusyBox. Asks the host for frames by lines
# that begin with @, on the serial line, and puts what it has to tell into /out, which goes to the host on /dev/vda.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
stty -echo </dev/console

port=eth0
api=http://127.0.0.1:9090/metrics
pid=

# Not the one that BusyBox has in it, which shows no programs.
ip() { /bin/ip "$@"; }

tell() { echo "@$*"; }

# What must not happen: said, and the run is over.
fail() {
    tell "failed $*"
    for log in /out/*.log; do tail -n 20 "$log"; done
    dmesg | tail -n 20
    hand_over
}

hand_over() {
    dmesg >/out/dmesg
    tar -cf /dev/vda -C /out .
    sync
    tell over
    poweroff -f
}

# wait_for SECONDS COMMAND…
wait_for() {
    tries=$(($1 * 5))
    shift
    while [ "$tries" -gt 0 ]; do
        "$@" && return 0
        tries=$((tries - 1))
        sleep 0.2
    done
    return 1
}

serves() { grep -qs '^serving metrics' "/out/$run.log" || ! kill -0 "$pid" 2>/dev/null; }
carrier() { [ "$(cat /sys/class/net/$port/carrier 2>/dev/null)" = 1 ]; }
gone() { ! kill -0 "$pid" 2>/dev/null; }
nothing_attached() { ! ip -d link show dev $port | grep -q xdp; }
# The sum over all queues.
metric() { wget -q -O - $api | awk -v name="flowscope_queue_frames_$1_total{" 'index($0, name) == 1 { sum += $NF } END { print sum + 0 }'; }
has_come() { [ "$(metric delivered)" -ge "$1" ]; }

# start RUN: the sensor, until frames come to it.
start() {
    run=$1
    flowscope live --interface $port --backend af-xdp --output "jsonl:/out/$run.jsonl" \
        --summary "/out/$run.json" --metrics 127.0.0.1:9090 2>"/out/$run.log" &
    pid=$!
    wait_for 60 serves || fail "$run: the sensor does not get ready in 60 s"
    gone && fail "$run: the sensor ended"
    # A driver that is given a program may take its link down and up again.
    wait_for 30 carrier || fail "$run: no carrier"
    # What the kernel says of the sockets (sock_diag), and of the interface.
    ss --xdp --extended --no-header >"/out/$run.sockets"
    ip -d link show dev $port >"/out/$run.link"
}

# frames FILE: the host sends them; sets `sent`.
frames() {
    tell "send $1"
    read -r sent || fail "the host has gone"
}

# end: an orderly one; its exit code must be 0.
end() {
    wget -q -O "/out/$run.metrics" $api
    ethtool -S $port >"/out/$run.driver" 2>&1
    kill -TERM "$pid"
    wait_for 60 gone || fail "$run: the sensor does not end"
    wait "$pid"
    code=$?
    [ "$code" = 0 ] || fail "$run: exit code $code"
    wait_for 5 nothing_attached || fail "$run: a program is still attached"
}

while read -r module; do
    insmod "/modules/$module" || fail "$module does not load"
done </modules/order
ip link set lo up
[ -e /sys/class/net/$port ] || fail "no $port"
ip link set $port up
wait_for 30 carrier || fail "no carrier"
ethtool -i $port >/out/nic 2>&1
ethtool -l $port >>/out/nic 2>&1
ethtool -T $port >>/out/nic 2>&1
# Both directions of a flow to one queue, where the NIC spreads them by a key (the emulated virtio-net does not).
if ethtool -x $port >/out/rss 2>&1 && grep -q : /out/rss; then
    key=6d:5a
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do key=$key:6d:5a; done
    ethtool -X $port hkey $key >>/out/rss 2>&1 && tell "symmetric key set"
    ethtool -x $port >>/out/rss 2>&1
fi
tell "kernel $(uname -r)"

# 1. Killed in the middle, it leaves nothing.
start killed
frames killed
wait_for 60 has_come "$sent" || fail "killed: $(metric delivered) of $sent came"
wget -q -O /out/killed.metrics $api
kill -9 "$pid"
wait "$pid"
wait_for 5 nothing_attached || fail "a program is attached after kill -9"
[ -z "$(ss --xdp --no-header)" ] || fail "a socket is open after kill -9"
ip -d link show dev $port >/out/killed.link-after
tell "killed: nothing is attached"

# 2. A second one starts, and takes all of the frames.
start all
frames all
wait_for 120 has_come "$sent" || tell "all: $(metric delivered) of $sent came"
end
tell "all: $sent sent"

# 3. So many that each of its buffers comes round more than once.
start long
frames long
wait_for 120 has_come "$sent" || tell "long: $(metric delivered) of $sent came"
end
tell "long: $sent sent"

# 4. One that stands still loses frames, and says how many.
start still
kill -STOP "$pid"
frames still
kill -CONT "$pid"
sleep 2
end
tell "still: $sent sent"

hand_over
