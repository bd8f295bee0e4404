#!/usr/bin/env python3
"""The frames of scripts/zero-copy-vm.sh: made, sent, and the records of two runs compared.

    frames.py make OUT.pcap CAPTURE…      the Ethernet frames of the captures, then flows made up here
    frames.py flood OUT.pcap COUNT        UDP, each frame 60 bytes, 500 flows
    frames.py send FILE INTERFACE [COUNT] the first COUNT frames (all), in order; prints how many
    frames.py same A.jsonl B.jsonl        as multisets, without times; prints how many, or what differs and exits with 1

Python's own library only. Frames are filled up to 60 bytes, as they are on a wire.
"""

import collections
import gzip
import json
import socket
import struct
import sys
import time

FRAME_BYTES_MIN, FRAME_BYTES_MAX = 60, 1514
ETHERNET = 1
# Frames at once, and how long until the next ones: about 8 000 a second, which an emulated machine takes.
BURST, PAUSE_SECONDS = 16, 0.002
MADE_FLOWS = 300
SHOWN_MAX = 10


def read_pcap(data):
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">"}
    end = order[data[:4]]
    (link,) = struct.unpack_from(end + "I", data, 20)
    at = 24
    while at + 16 <= len(data):
        (bytes_kept,) = struct.unpack_from(end + "I", data, at + 8)
        yield link, data[at + 16 : at + 16 + bytes_kept]
        at += 16 + bytes_kept


def read_pcapng(data):
    at, end, links = 0, "<", []
    while at + 12 <= len(data):
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            end = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            links = []
        kind, length = struct.unpack_from(end + "II", data, at)
        if kind == 1:
            links.append(struct.unpack_from(end + "H", data, at + 8)[0])
        elif kind == 6:
            interface, _, _, kept = struct.unpack_from(end + "IIII", data, at + 8)
            yield links[interface], data[at + 28 : at + 28 + kept]
        at += length


def frames_of(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        data = file.read()
    read = read_pcapng if data[:4] == b"\x0a\x0d\x0d\x0a" else read_pcap
    return [bytes(frame) for link, frame in read(data) if link == ETHERNET]


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(source, target, protocol, segment, checksum_at):
    """An Ethernet frame with an IPv4 or IPv6 packet of `segment`, whose checksum is filled in."""
    pseudo = source + target + struct.pack("!II", len(segment), protocol)
    value = checksum(pseudo + segment) or 0xFFFF
    segment = segment[:checksum_at] + struct.pack("!H", value) + segment[checksum_at + 2 :]
    if len(source) == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, protocol, 0) + source + target
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        kind = 0x0800
    else:
        header = struct.pack("!IHBB", 6 << 28, len(segment), protocol, 64) + source + target
        kind = 0x86DD
    # Neither address is the emulated NIC's: it has to listen to all, as on a SPAN port.
    return bytes.fromhex("020000000001020000000002") + struct.pack("!H", kind) + header + segment


def udp(source, target, ports, payload):
    return frame(source, target, 17, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, 6)


def tcp(source, target, ports, seq, ack, flags, payload=b""):
    return frame(source, target, 6, struct.pack("!HHIIBBHHH", *ports, seq, ack, 5 << 4, flags, 65535, 0, 0) + payload, 16)


def addresses(number):
    if number % 5 == 4:
        prefix = bytes.fromhex("20010db8000000000000000000")
        return prefix + b"\x01" + struct.pack("!H", number), prefix + b"\x02\0\x01"
    return bytes([10, 7]) + struct.pack("!H", number), bytes([10, 8, 0, 1])


def made_flows():
    """TCP connections from SYN to FIN and UDP questions with answers, a frame of each in turn."""
    flows = []
    for number in range(MADE_FLOWS):
        a, b = addresses(number)
        there, back = (20000 + number, 443), (443, 20000 + number)
        if number % 3 == 2:
            there, back = (20000 + number, 53), (53, 20000 + number)
            flows.append([f for n in range(1 + number % 4) for f in (
                udp(a, b, there, bytes(30 + n)), udp(b, a, back, bytes(100 + 11 * (number % 90))))])
            continue
        syn, ack, fin, push = 2, 16, 17, 24
        length = 1 + number * 37 % 1400
        flows.append([
            tcp(a, b, there, 100, 0, syn), tcp(b, a, back, 900, 101, syn | ack), tcp(a, b, there, 101, 901, ack),
            tcp(a, b, there, 101, 901, push, bytes(200)), tcp(b, a, back, 901, 301, ack, bytes(1400)),
            tcp(b, a, back, 2301, 301, push, bytes(length)), tcp(a, b, there, 301, 2301 + length, ack),
            tcp(b, a, back, 2301 + length, 301, fin), tcp(a, b, there, 301, 2302 + length, fin),
            tcp(b, a, back, 2302 + length, 302, ack)])
    for turn in range(max(map(len, flows))):
        for flow in flows:
            if turn < len(flow):
                yield flow[turn]


def write_pcap(path, frames):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, ETHERNET))
        for number, data in enumerate(frames):
            data += b"\0" * (FRAME_BYTES_MIN - len(data))
            micros = number * 100
            file.write(struct.pack("<IIII", 1_700_000_000 + micros // 1_000_000, micros % 1_000_000, len(data), len(data)))
            file.write(data)


def make(out, *captures):
    frames = [f for path in captures for f in frames_of(path) if 14 <= len(f) <= FRAME_BYTES_MAX]
    write_pcap(out, frames + list(made_flows()))


def flood(out, count):
    def one(number):
        a, b = addresses(number % 500 * 5)
        return udp(a, b, (30000 + number % 500, 53), struct.pack("!I", number))

    write_pcap(out, (one(number) for number in range(int(count))))


def send(path, interface, count=None):
    frames = frames_of(path)[: int(count) if count else None]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as port:
        port.bind((interface, 0))
        for number, data in enumerate(frames):
            if port.send(data) != len(data):
                sys.exit(f"frame {number} was not sent whole")
            if number % BURST == BURST - 1:
                time.sleep(PAUSE_SECONDS)
    print(len(frames))


def records_of(path):
    counts = collections.Counter()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            for name in ("start", "end", "duration"):
                del record[name]
            counts[json.dumps(record, sort_keys=True)] += 1
    return counts


def same(one, other):
    a, b = records_of(one), records_of(other)
    if a != b:
        for name, odd in (("first", a - b), ("second", b - a)):
            print(f"only in the {name}: {sum(odd.values())} records")
            for line in sorted(odd)[:SHOWN_MAX]:
                print(f"  {line}")
        sys.exit(1)
    print(sum(a.values()))


if __name__ == "__main__":
    commands = {"make": make, "flood": flood, "send": send, "same": same}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
