#!/usr/bin/env python3
"""The peer of a border, and its judge: packets by scapy, and what must become of each.

    border.py valid               every combination of versions and options
    border.py mutations SEED N    N mutations of such packets

Prints a line for each: bytes on the wire, frame, verdict, inner packet (hexadecimal digits). A verdict is
`lane-N`, followed by `!!!` or `!` where RFC 6040 has them, or the name of a refusal. The judge is slow and
plain; it shares nothing with the implementation but the order of reasons, which is part of what is promised.
"""

import ipaddress
import random
import struct
import sys

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, HBHOptUnknown, PadN
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

# Local end, remote end, key, in UDP: as in border.rs.
LANES = [
    ("192.0.2.1", "198.51.100.1", 0x11111111, False),
    ("192.0.2.1", "198.51.100.1", 0x22222222, False),
    ("192.0.2.2", "198.51.100.2", None, False),
    ("192.0.2.1", "198.51.100.1", None, True),
    ("192.0.2.2", "198.51.100.2", 5, True),
    ("fd00:9::1", "fd00:9::2", 7, False),
    ("fd00:9::1", "fd00:9::2", None, False),
    ("fd00:9::1", "fd00:9::2", None, True),
    ("fd00:9::1", "fd00:9::3", 6, True),
]
SOURCES = ["10.1.0.0/16", "172.16.4.0/22", "fd00:2::/32"]
DESTINATIONS = ["10.0.0.0/16", "fd00:1::/32"]

GRE_PORT = 4754
INNER_ADDRESSES = {
    4: ["10.1.0.1", "10.1.255.255", "10.2.0.0", "172.16.7.9", "172.16.8.0", "10.0.0.1", "10.0.255.9",
        "192.0.2.1", "192.0.2.2", "198.51.100.1", "255.255.255.255", "0.0.0.0"],
    6: ["fd00:2::1", "fd00:2:ffff::1", "fd00:3::1", "fd00:1::1", "fd00:1:8::1", "fd00:9::1", "fd00:9::2",
        "::", "ff02::1"],
}


# -- The judge -----------------------------------------------------------------------------------------

class Refused(Exception):
    pass


def word(data, at):
    return data[at] << 8 | data[at + 1]


def ones_sum(data):
    if len(data) % 2:
        data = data + b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Judge:
    """One frame: `kept` bytes of `wire` on the wire."""

    def __init__(self, frame, wire):
        self.frame, self.wire = frame, wire

    def need(self, start, end, limit, reason):
        """The bytes from start to end, which must lie before limit, and be at hand."""
        if end > limit:
            raise Refused(reason)
        if end > len(self.frame):
            raise Refused("truncated")
        return self.frame[start:end]

    def verdict(self):
        frame = self.frame
        self.need(0, 14, self.wire, "malformed")
        kind = word(frame, 12)
        if kind == 0x0800:
            self.outer_v4()
        elif kind == 0x86DD:
            self.outer_v6()
        else:
            raise Refused("not_ip")
        self.ends()
        if self.fragment:
            raise Refused("outer_fragment")
        self.protocol_and_udp()
        self.gre()
        if self.inner_kind == 0x0800:
            self.inner_v4()
        elif self.inner_kind == 0x86DD:
            self.inner_v6()
        else:
            raise Refused("inner_protocol")
        self.prefixes()
        return self.ecn()

    def outer_v4(self):
        header = self.need(14, 34, self.wire, "malformed")
        size, total = (header[0] & 15) * 4, word(header, 2)
        if header[0] >> 4 != 4 or size < 20 or total < size or 14 + total > self.wire:
            raise Refused("malformed")
        header = self.need(14, 14 + size, self.wire, "malformed")
        if ones_sum(header) != 0xFFFF:
            raise Refused("outer_checksum")
        self.source = ipaddress.ip_address(header[12:16])
        self.destination = ipaddress.ip_address(header[16:20])
        self.fragment = word(header, 6) & 0x3FFF != 0
        self.protocol, self.outer_ecn = header[9], header[1] & 3
        self.at, self.end = 14 + size, 14 + total
        self.pseudo = header[12:20]

    def outer_v6(self):
        header = self.need(14, 54, self.wire, "malformed")
        self.at, self.end = 54, 54 + word(header, 4)
        if header[0] >> 4 != 6 or self.end > self.wire:
            raise Refused("malformed")
        self.source = ipaddress.ip_address(header[8:24])
        self.destination = ipaddress.ip_address(header[24:40])
        self.protocol, self.outer_ecn = header[6], header[1] >> 4 & 3
        self.pseudo = header[8:40]
        if self.protocol == 60:
            option = self.need(54, 62, self.end, "malformed")
            if option[1:4] + option[5:] == bytes([0, 4, 1, 1, 1, 0]):
                self.protocol, self.at = option[0], 62
        self.fragment = self.protocol == 44

    def ends(self):
        if str(self.destination) not in [lane[0] for lane in LANES]:
            raise Refused("destination")
        ends = (str(self.destination), str(self.source))
        self.lanes = [number for number, lane in enumerate(LANES) if lane[:2] == ends]
        if not self.lanes:
            raise Refused("peer")

    def protocol_and_udp(self):
        if self.protocol not in (17, 47):
            raise Refused("protocol")
        in_udp = self.protocol == 17
        self.lanes = [number for number in self.lanes if LANES[number][3] == in_udp]
        if not self.lanes:
            raise Refused("protocol")
        if not in_udp:
            return
        header = self.need(self.at, self.at + 8, self.end, "malformed")
        if word(header, 2) != GRE_PORT:
            raise Refused("protocol")
        if word(header, 4) != self.end - self.at:
            raise Refused("malformed")
        if word(header, 6) == 0:
            if self.source.version == 6:
                raise Refused("udp_checksum_missing")
        else:
            datagram = self.need(self.at, self.end, self.end, "malformed")
            pseudo = self.pseudo + struct.pack("!HH", 17, self.end - self.at)
            if ones_sum(pseudo + datagram) != 0xFFFF:
                raise Refused("udp_checksum")
        self.at += 8

    def gre(self):
        start = self.at
        header = self.need(start, start + 4, self.end, "malformed")
        flags, self.inner_kind = word(header, 0), word(header, 2)
        if flags & 7:
            raise Refused("version")
        if flags & 0x4000:
            raise Refused("routing")
        if flags & 0x0FF8:
            raise Refused("reserved")
        key, self.at, reserved1 = None, start + 4, 0
        for flag in (0x8000, 0x2000, 0x1000):
            if flags & flag:
                field = self.need(self.at, self.at + 4, self.end, "malformed")
                if flag == 0x8000:
                    reserved1 = word(field, 2)
                elif flag == 0x2000:
                    key = int.from_bytes(field, "big")
                self.at += 4
        if reserved1:
            raise Refused("reserved")
        self.lanes = [number for number in self.lanes if LANES[number][2] == key]
        if not self.lanes:
            raise Refused("key")
        if flags & 0x8000 and ones_sum(self.need(start, self.end, self.end, "")) != 0xFFFF:
            raise Refused("gre_checksum")

    def inner_v4(self):
        at = self.at
        header = self.need(at, at + 20, self.end, "inner_malformed")
        size, total = (header[0] & 15) * 4, word(header, 2)
        if header[0] >> 4 != 4 or size < 20 or total < size or at + total > self.end:
            raise Refused("inner_malformed")
        header = self.need(at, at + size, self.end, "inner_malformed")
        if ones_sum(header) != 0xFFFF:
            raise Refused("inner_checksum")
        self.inner_ends(header[12:16], header[16:20], at + total)
        later = word(header, 6) & 0x1FFF != 0
        self.nested(header[9], at + size, later)

    def inner_v6(self):
        at = self.at
        header = self.need(at, at + 40, self.end, "inner_malformed")
        end = at + 40 + word(header, 4)
        if header[0] >> 4 != 6 or end > self.end:
            raise Refused("inner_malformed")
        self.inner_ends(header[8:24], header[24:40], end)
        protocol, place, later, walked = header[6], at + 40, False, 0
        while protocol in (0, 43, 44, 60) and not later:
            walked += 1
            if walked > 8:
                raise Refused("inner_malformed")
            extension = self.need(place, place + 8, end, "inner_malformed")
            size = 8
            if protocol == 44:
                later = word(extension, 2) & 0xFFF8 != 0
            else:
                size = 8 + 8 * extension[1]
            protocol = extension[0]
            place += size
            if place > end:
                raise Refused("inner_malformed")
        self.nested(protocol, place, later)

    def inner_ends(self, source, destination, end):
        self.inner_source = ipaddress.ip_address(source)
        self.inner_destination = ipaddress.ip_address(destination)
        self.inner_end = end

    def nested(self, protocol, place, later):
        if str(self.inner_destination) not in [lane[0] for lane in LANES]:
            return
        if protocol == 47:
            raise Refused("nested")
        if protocol == 17 and not later and place + 4 <= self.inner_end:
            if word(self.need(place, place + 4, self.inner_end, ""), 2) == GRE_PORT:
                raise Refused("nested")

    def prefixes(self):
        def inside(address, prefixes):
            return any(address in network for network in map(ipaddress.ip_network, prefixes)
                       if network.version == address.version)

        if not inside(self.inner_source, SOURCES):
            raise Refused("inner_source")
        if not inside(self.inner_destination, DESTINATIONS):
            raise Refused("inner_destination")

    def ecn(self):
        """RFC 6040, figure 4; rows and columns by the value of the field: Not-ECT, ECT(1), ECT(0), CE."""
        table = [["0", "0!!!", "0!!!", "drop"],
                 ["1", "1", "1!", "3"],
                 ["2", "1", "2", "3"],
                 ["3", "3!!!", "3", "3"]]
        inner = bytearray(self.frame[self.at:self.inner_end])
        v4 = self.inner_kind == 0x0800
        field = inner[1] & 3 if v4 else inner[1] >> 4 & 3
        outcome = table[field][self.outer_ecn]
        if outcome == "drop":
            raise Refused("congestion")
        field = int(outcome[0])
        if v4 and inner[1] & 3 != field:
            size = (inner[0] & 15) * 4
            inner[1] = inner[1] & 0xFC | field
            inner[10:12] = b"\0\0"
            inner[10:12] = (ones_sum(bytes(inner[:size])) ^ 0xFFFF).to_bytes(2, "big")
        elif not v4:
            inner[1] = inner[1] & 0xCF | field << 4
        return f"lane-{self.lanes[0]}{outcome[1:]}", bytes(inner)


def judge(frame, wire):
    try:
        verdict, inner = Judge(frame, wire).verdict()
    except Refused as refused:
        verdict, inner = str(refused), b""
    return f"{wire} {frame.hex()} {verdict} {inner.hex()}"


# -- The peer ------------------------------------------------------------------------------------------

class Built:
    """A valid frame, and where its headers are, so that checksums can be put right after a mutation."""

    def __init__(self, lane, inner_v4, sequence, checksum, extra, size):
        local, remote, key, in_udp = LANES[lane]
        self.v4, self.inner_v4, self.in_udp, self.checksum = "." in local, inner_v4, in_udp, checksum
        self.lane = lane
        inner = inner_packet(inner_v4, extra, size)
        gre = GRE(proto=0x0800 if inner_v4 else 0x86DD)
        if key is not None:
            gre.key_present, gre.key = 1, key
        if sequence is not None:
            gre.seqnum_present, gre.seqence_number = 1, sequence
        if checksum:
            gre.chksum_present = 1
        payload = gre / inner
        if in_udp:
            udp = UDP(sport=50000 + size % 1000, dport=GRE_PORT)
            if self.v4 and extra % 2:
                udp.chksum = 0
            payload = udp / payload
        if self.v4:
            outer = IP(src=remote, dst=local, ttl=60, flags="DF", proto=17 if in_udp else 47)
            self.transport = 34
        else:
            outer = IPv6(src=remote, dst=local, hlim=60, nh=17 if in_udp else 47)
            self.transport = 54
            if extra % 3 == 1:
                limit = HBHOptUnknown(otype=4, optdata=b"\x04")
                options = IPv6ExtHdrDestOpt(options=[limit, PadN(optdata=b"\0")], autopad=0)
                options.nh, outer.nh = outer.nh, 60
                outer = outer / options
                self.transport += 8
        frame = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / outer / payload
        self.bytes = bytes(frame)
        self.end = len(self.bytes)
        self.gre = self.transport + (8 if in_udp else 0)
        self.inner = self.gre + 4 + 4 * (checksum + (key is not None) + (sequence is not None))
        self.inner_bytes = bytes(inner)
        assert self.bytes[self.inner:] == self.inner_bytes

    def repair(self, frame, inner=True):
        """Makes the checksums right again, as far as the headers are still where they were."""
        if inner and self.inner_v4 and self.inner + 20 <= len(frame):
            size = (frame[self.inner] & 15) * 4
            put(frame, self.inner + 10, self.inner, self.inner + size)
        if self.checksum:
            put(frame, self.gre + 4, self.gre, self.end)
        has_udp_sum = frame[self.transport + 6:self.transport + 8] not in (b"", b"\0", b"\0\0")
        if self.in_udp and has_udp_sum:
            addresses = bytes(frame[26:34] if self.v4 else frame[22:54])
            pseudo = addresses + struct.pack("!HH", 17, self.end - self.transport)
            put(frame, self.transport + 6, self.transport, self.end, pseudo)
        if self.v4 and len(frame) >= 34:
            put(frame, 24, 14, 14 + (frame[14] & 15) * 4)


def inner_packet(v4, extra, size):
    if v4:
        addresses = {"src": "10.1.0.1", "dst": "10.0.0.1"}
        network = IP(tos=extra % 64 << 2, **addresses)
    else:
        network = IPv6(src="fd00:2::1", dst="fd00:1::1", tc=extra % 64 << 2)
    if extra % 5 == 0:
        return network / TCP(sport=40000, dport=443, flags="S") / Raw(b"\x5a" * size)
    return network / UDP(sport=1000, dport=2000) / Raw(b"\xa5" * size)


def put(frame, at, start, end, pseudo=b""):
    if at + 2 > len(frame):
        return
    frame[at:at + 2] = b"\0\0"
    value = ones_sum(pseudo + bytes(frame[start:end])) ^ 0xFFFF
    frame[at:at + 2] = (value or 0xFFFF if pseudo else value).to_bytes(2, "big")


def combinations():
    number = 0
    for lane in range(len(LANES)):
        for inner_v4 in (True, False):
            for sequence in (None, 0, 0xFFFFFFFF):
                for checksum in (False, True):
                    number += 1
                    yield Built(lane, inner_v4, sequence, checksum, number, number * 17 % 90)


def valid():
    for built in combinations():
        for padding in (0, 7):
            frame = built.bytes + b"\xee" * padding
            verdict = f"lane-{built.lane}"
            line = f"{len(frame)} {frame.hex()} {verdict} {built.inner_bytes.hex()}"
            assert judge(frame, len(frame)) == line, line
            print(line)


# -- Mutations: each changes a copy of a valid frame in place ------------------------------------------

def some_bits(chance, built, frame):
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(min(len(frame), 140))
        frame[at] ^= 1 << chance.randrange(8)


def some_byte(chance, built, frame):
    value = chance.choice([0, 1, 4, 6, 0x45, 0x60, 0x7F, 0xFF, chance.randrange(256)])
    frame[chance.randrange(min(len(frame), 140))] = value


def shorter(chance, built, frame):
    del frame[chance.randrange(max(1, len(frame))):]


def longer(chance, built, frame):
    frame.extend(bytes(chance.randrange(60)))


def outer_ends(chance, built, frame):
    addresses = sorted({end for lane in LANES for end in lane[:2]})
    address = ipaddress.ip_address(chance.choice(addresses)).packed
    first = 26 if built.v4 else 22
    size = 4 if built.v4 else 16
    if len(address) == size:
        at = first + size * chance.randrange(2)
        frame[at:at + size] = address


def outer_fragment(chance, built, frame):
    if built.v4:
        frame[20:22] = chance.choice([0x2000, 0x0001, 0x1FFF, 0x4000, 0x8000]).to_bytes(2, "big")
    else:
        frame[chance.choice([20, 54])] = chance.choice([44, 60, 0, 43])


def outer_protocol(chance, built, frame):
    frame[23 if built.v4 else 20] = chance.choice([6, 17, 47, 4, 41, 60, 44])


def udp_header(chance, built, frame):
    at = built.transport + chance.choice([2, 4, 6])
    frame[at:at + 2] = chance.choice([0, 4754, 4755, chance.randrange(65536)]).to_bytes(2, "big")


def gre_flags(chance, built, frame):
    flags = word(frame, built.gre) ^ 1 << chance.randrange(16)
    frame[built.gre:built.gre + 2] = flags.to_bytes(2, "big")


def gre_protocol(chance, built, frame):
    kind = chance.choice([0x0800, 0x86DD, 0x6558, 0x880B, 0x0806, 0, 0xFFFF])
    frame[built.gre + 2:built.gre + 4] = kind.to_bytes(2, "big")


def gre_options(chance, built, frame):
    if built.inner - built.gre > 4:
        at = chance.randrange(built.gre + 4, built.inner)
        frame[at] = chance.randrange(256)


def inner_version(chance, built, frame):
    frame[built.inner] = chance.choice([0x45, 0x60, 0x44, 0x46, 0x4F, 0x55, 0x00])


def inner_length(chance, built, frame):
    at = built.inner + (2 if built.inner_v4 else 4)
    length = word(frame, at) + chance.choice([-40, -9, -1, 1, 2, 60, 4000])
    frame[at:at + 2] = (length & 0xFFFF).to_bytes(2, "big")


def inner_ends(chance, built, frame):
    version = 4 if built.inner_v4 else 6
    size = 4 if built.inner_v4 else 16
    at = built.inner + (12 if built.inner_v4 else 8) + size * chance.randrange(2)
    frame[at:at + size] = ipaddress.ip_address(chance.choice(INNER_ADDRESSES[version])).packed


def inner_tunnel(chance, built, frame):
    size, last = (4, 20) if built.inner_v4 else (16, 40)
    local = chance.choice([lane[0] for lane in LANES])
    address = ipaddress.ip_address(local).packed
    if len(address) == size:
        frame[built.inner + last - size:built.inner + last] = address
    frame[built.inner + (9 if built.inner_v4 else 6)] = chance.choice([47, 17, 17, 6, 44, 60])
    port = built.inner + last + 2
    frame[port:port + 2] = chance.choice([4754, 4754, 80]).to_bytes(2, "big")
    if built.inner_v4 and chance.random() < 0.2:
        frame[built.inner + 7] = chance.randrange(3)


def inner_extensions(chance, built, frame):
    if built.inner_v4:
        return
    frame[built.inner + 6] = chance.choice([0, 43, 44, 60])
    for at in range(built.inner + 40, min(built.end - 8, built.inner + 40 + 8 * chance.randrange(12)), 8):
        frame[at] = chance.choice([0, 43, 44, 60, 60, 17, 47])
        frame[at + 1] = chance.choice([0, 0, 0, 1, 255])
        frame[at + 2:at + 4] = chance.choice([b"\0\0", b"\0\1", b"\0\x10"])


def ecn_fields(chance, built, frame):
    outer, inner = chance.randrange(4), chance.randrange(4)
    if built.v4:
        frame[15] = frame[15] & 0xFC | outer
    else:
        frame[15] = frame[15] & 0xCF | outer << 4
    if built.inner_v4:
        frame[built.inner + 1] = frame[built.inner + 1] & 0xFC | inner
    else:
        frame[built.inner + 1] = frame[built.inner + 1] & 0xCF | inner << 4


MUTATIONS = [some_bits, some_byte, shorter, longer, outer_ends, outer_fragment, outer_protocol, udp_header,
             gre_flags, gre_protocol, gre_options, inner_version, inner_length, inner_ends, inner_tunnel,
             inner_extensions, ecn_fields]


def mutations(seed, count):
    chance = random.Random(seed)
    bases = list(combinations())
    for _ in range(count):
        built = chance.choice(bases)
        frame = bytearray(built.bytes)
        for _ in range(chance.choice([1, 1, 1, 2])):
            mutation = chance.choice(MUTATIONS)
            if mutation in (shorter, longer) or len(frame) >= built.end:
                mutation(chance, built, frame)
        if chance.random() < 0.85:
            built.repair(frame, inner=chance.random() < 0.9)
        wire = len(frame)
        if chance.random() < 0.1 and frame:
            del frame[chance.randrange(len(frame)):]
        print(judge(bytes(frame), wire))


if sys.argv[1] == "valid":
    valid()
else:
    mutations(int(sys.argv[2]), int(sys.argv[3]))
