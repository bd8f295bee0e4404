"""Who receives: flowscope, receivers that touch nothing, and peers. Each is started for one trial and asked what came.

A count of `offered` is of what the receiver's own port or socket had for it; `None` where a peer does not tell.
"""

import json
import re
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

READY_PATIENCE_S = 60
END_PATIENCE_S = 120
# How often /metrics is asked for while frames come: more often than anybody does.
SCRAPE_EVERY_S = 1.0


@dataclass
class Received:
    delivered: int
    offered: int | None = None
    dropped: dict = field(default_factory=dict)
    # What is wrong with the receiver's own account.
    faults: list = field(default_factory=list)


class Receiver:
    """A process; `ready` is what it says when frames come to it."""

    ours = True
    ready = None
    # How long it may keep frames back before it has counted them.
    settle_s = 0.0
    # Whether it did not answer in time when it was asked for its metrics.
    missed = False
    end_signal = signal.SIGTERM

    def __init__(self, name):
        self.name = name

    def start(self, bed, flows, work):
        self.work = Path(work)
        command = [*bed.prefix(bed.rx_cores), *self.command(bed, flows)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self.text = ""
        deadline = time.monotonic() + READY_PATIENCE_S
        while not re.search(self.ready, self.text):
            if not self.read(deadline - time.monotonic()):
                self.kill()
                raise RuntimeError(f"{self.name} is not ready:\n{self.text}")

    def read(self, wait_s):
        """More of what it says; False at its end and when it says nothing for a while."""
        if wait_s <= 0 or not select.select([self.process.stdout], [], [], wait_s)[0]:
            return False
        more = self.process.stdout.read(65536).decode(errors="replace")
        self.text += more
        return bool(more)

    def while_sending(self, bed):
        """Called every now and then while frames come."""

    def before_end(self, bed):
        """Called when all frames came, before the receiver is told to end."""

    def end(self):
        self.process.send_signal(self.end_signal)
        try:
            rest, _ = self.process.communicate(timeout=END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"{self.name} does not end") from None
        self.text += (rest or b"").decode(errors="replace")
        return self.received()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Bare(Receiver):
    """bench/receive.rs."""

    ready = "ready"

    def __init__(self, name, binary, extra=()):
        super().__init__(name)
        self.binary, self.extra = binary, list(extra)
        self.backend = name.removeprefix("bare-")

    def command(self, bed, flows):
        command = [self.binary, "--interface", bed.rx, "--backend", self.backend]
        command += ["--cores", ",".join(map(str, bed.rx_cores)), *self.extra]
        if self.backend == "af-packet":
            command += ["--sockets", str(bed.queues)]
        return command

    def received(self):
        lines = [line for line in self.text.splitlines() if line.startswith("{")]
        if not lines:
            raise RuntimeError(f"{self.name} did not say what came:\n{self.text}")
        found = json.loads(lines[-1])
        return Received(found["delivered"], found["offered"], found["dropped"])


class Flowscope(Receiver):
    """`flowscope live` with its defaults, its flow table as large as the load needs, and its metrics scraped."""

    ready = r"http://[^/\s]*/metrics"

    def __init__(self, name, binary, backend, *more):
        super().__init__(name)
        self.binary, self.backend, self.more = binary, backend, more

    def command(self, bed, flows):
        self.summary = self.work / "summary.json"
        self.scraped = 0.0
        command = [self.binary, "live", "--interface", bed.rx, "--backend", self.backend, "--metrics", "127.0.0.1:0"]
        # A tenth more than there are, so that none is evicted; never fewer than the default.
        return [*command, "--max-flows", str(max(100_000, flows + flows // 10)), "--summary", str(self.summary), *self.more]

    def while_sending(self, bed):
        if time.monotonic() - self.scraped < SCRAPE_EVERY_S:
            return
        self.scraped = time.monotonic()
        url = re.search(self.ready, self.text).group()
        # Beside the generator, as a scraper is on another machine.
        curl = [*bed.prefix(bed.tx_cores), "curl", "-fsS", "-m", "2", "-o", "/dev/null", url]
        if subprocess.run(curl, check=False, stderr=subprocess.DEVNULL).returncode:
            self.missed = True

    def start(self, bed, flows, work):
        self.missed = False
        super().start(bed, flows, work)

    def received(self):
        if not self.summary.exists():
            raise RuntimeError(f"{self.name} left no summary:\n{self.text}")
        found = json.loads(self.summary.read_text(encoding="utf-8"))
        dropped = {}
        for queue in found["queues"]:
            for reason, frames in queue["dropped"].items():
                dropped[reason] = dropped.get(reason, 0) + frames
        offered = sum(queue["offered"] for queue in found["queues"])
        # What was counted in the kernel came through as well: it is in the flows.
        delivered = sum(queue["delivered"] + queue["shunted"] for queue in found["queues"])
        faults = []
        if not found["ledger"]["balanced"]:
            faults.append("its ledger does not balance")
        if found["packets_tracked"] != delivered:
            faults.append(f"{delivered} frames delivered, {found['packets_tracked']} tracked")
        return Received(delivered, offered, dropped, faults)


class Peer(Receiver):
    """libpcap hands a block over when it is full or after a second, and what is in one that is open at the end is not counted."""

    ours = False
    settle_s = 2.5


class Tcpdump(Peer):
    ready = r"listening on"
    end_signal = signal.SIGINT

    def command(self, bed, flows):
        return ["tcpdump", "-i", bed.rx, "-n", "-w", "/dev/null"]

    def received(self):
        return Received(
            number(self.text, r"(\d+) packets? captured"),
            number(self.text, r"(\d+) packets? received by filter"),
            {"kernel": number(self.text, r"(\d+) packets? dropped by kernel")},
        )


class Softflowd(Peer):
    ready = r"starting data collection"

    def command(self, bed, flows):
        self.control = self.work / "softflowd.ctl"
        # NetFlow 9 to a port where nobody listens.
        command = ["softflowd", "-d", "-i", bed.rx, "-m", str(flows * 2 + 1000), "-v", "9", "-n", "127.0.0.1:9"]
        return [*command, "-c", str(self.control), "-p", str(self.work / "softflowd.pid")]

    def before_end(self, bed):
        ask = ["softflowctl", "-c", str(self.control), "statistics"]
        self.told = subprocess.run(ask, check=True, capture_output=True, text=True).stdout

    def received(self):
        # It leaves libpcap's last block where it is for as long as no other one is full, so what it has processed is short of what
        # came by up to a block, at every rate. That is held to be received.
        dropped = number(self.told, r"Packets dropped by libpcap:\s*(\d+)")
        offered = number(self.told, r"Packets received by libpcap:\s*(\d+)")
        return Received(offered - dropped, offered, {"libpcap": dropped})


class Nfpcapd(Peer):
    ready = r"Startup nfpcapd"

    def command(self, bed, flows):
        records = self.work / "nfpcapd"
        records.mkdir()
        # One file, so that there is one account of it at the end.
        return ["nfpcapd", "-i", bed.rx, "-l", str(records), "-t", "3600"]

    def received(self):
        dropped = {"kernel": number(self.text, r"dropped by OS/Buffer: (\d+)")}
        return Received(number(self.text, r"Flows: \d+, Packets: (\d+)"), None, dropped)


class Suricata(Peer):
    """Its flow log only, no rules, AF_PACKET with one thread."""

    ready = r"(?i)engine started"

    def command(self, bed, flows):
        self.stats = self.work / "eve.json"
        (self.work / "suricata.yaml").write_text(
            f"""%YAML 1.1
---
af-packet:
  - {{interface: {bed.rx}, threads: 1, cluster-id: 99, cluster-type: cluster_flow, defrag: yes, tpacket-v3: yes}}
# With its offloads off, which it would see to, a veth port takes no frames from XDP.
capture: {{disable-offloading: no}}
outputs:
  - eve-log: {{enabled: yes, filetype: regular, filename: eve.json, types: [flow, stats]}}
stats: {{enabled: yes, interval: 8}}
flow: {{memcap: 4gb, hash-size: 1048576, prealloc: 100000}}
stream: {{memcap: 4gb, checksum-validation: no}}
app-layer: {{protocols: {{}}}}
""",
            encoding="utf-8",
        )
        command = ["suricata", "-c", str(self.work / "suricata.yaml"), f"--af-packet={bed.rx}"]
        return [*command, "--runmode", "workers", "-k", "none", "-S", "/dev/null", "-l", str(self.work)]

    def received(self):
        last = {}
        with open(self.stats, encoding="utf-8") as lines:
            for line in lines:
                if '"event_type":"stats"' in line:
                    last = json.loads(line)["stats"]
        if not last:
            raise RuntimeError(f"suricata wrote no statistics:\n{self.text}")
        capture = last["capture"]
        dropped = capture["kernel_drops"]
        return Received(last["decoder"]["pkts"], capture["kernel_packets"], {"kernel": dropped})


PEERS = {"tcpdump": Tcpdump, "softflowd": Softflowd, "nfpcapd": Nfpcapd, "suricata": Suricata}


def number(text, pattern):
    found = re.search(pattern, text)
    if not found:
        raise RuntimeError(f"no {pattern!r} in what a receiver said:\n{text}")
    return int(next(group for group in found.groups() if group is not None))
