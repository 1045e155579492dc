"""Writes the captures of tests/exact/main.rs with scapy: traffic as a sender makes it, and what a WAN makes of it.

    captures.py FOLDER

writes FOLDER/CASE/ingress.pcap, egress.pcap (or one both.pcapng) and expected.json: what was planted. The figures
in it are computed here, from what was planted, and from nothing that the program under test has.
"""

import json
import math
import random
import struct
import sys
from pathlib import Path

from scapy.all import GRE, IP, TCP, UDP, ICMP, Dot1Q, Dot1AD, Ether, IPv6, Raw, raw
from scapy.layers.inet6 import IPv6ExtHdrFragment, IPv6ExtHdrHopByHop

# With both addresses: scapy would ask the network for one that is missing.
LINK = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")

START_NS = 1_700_000_000_123_456_789


def pcap(path, records, snap=None, unit_ns=1, link=1):
    magic = {1: 0xA1B23C4D, 1000: 0xA1B2C3D4}[unit_ns]
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", magic, 2, 4, 0, 0, 262144, link))
        for at_ns, frame in records:
            kept = frame[:snap]
            seconds, rest = divmod(at_ns, 10**9)
            file.write(struct.pack("<IIII", seconds, rest // unit_ns, len(kept), len(frame)) + kept)


def pcapng(path, taps, names):
    """One section, an interface a tap, nanoseconds."""

    def block(kind, body):
        length = len(body) + 12
        return struct.pack("<II", kind, length) + body + struct.pack("<I", length)

    def option(code, value):
        return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)

    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    for name in names:
        options = option(2, name.encode()) + option(9, b"\x09") + option(0, b"")
        out += block(1, struct.pack("<HHI", 1, 0, 0) + options)
    records = sorted((at, tap, frame) for tap, records in enumerate(taps) for at, frame in records)
    for at, tap, frame in records:
        head = struct.pack("<IIIII", tap, at >> 32, at & 0xFFFFFFFF, len(frame), len(frame))
        out += block(6, head + frame + bytes(-len(frame) % 4))
    Path(path).write_bytes(out)


# What the WAN does to a packet on its way.


def aged(packet, tos=0x48, hops=3, mss=None):
    """Another ToS, a lower TTL, other checksums, a clamped MSS: what gateways and routers do."""
    packet = packet.copy()
    if IP in packet:
        packet[IP].tos, packet[IP].ttl = tos, packet[IP].ttl - hops
        del packet[IP].chksum
    else:
        packet[IPv6].tc, packet[IPv6].hlim = tos, packet[IPv6].hlim - hops
    if mss and TCP in packet:
        packet[TCP].options = [(k, mss if k == "MSS" else v) for k, v in packet[TCP].options]
    for layer in (TCP, UDP):
        if layer in packet:
            del packet[layer].chksum
    return packet


def figures(samples):
    samples = sorted(samples)
    if not samples:
        return None
    count, mean = len(samples), sum(samples) / len(samples)
    whole = count * sum(s * s for s in samples) - sum(samples) ** 2
    rank = lambda share: samples[max(1, -(-count * share // 10000)) - 1]
    return {
        "samples": count,
        "min": samples[0],
        "mean": mean,
        "stddev": math.sqrt(whole) / count,
        "p50": rank(5000),
        "p90": rank(9000),
        "p95": rank(9500),
        "p99": rank(9900),
        "p999": rank(9990),
        "p9999": rank(9999),
        "max": samples[-1],
    }


class World:
    """Sent packets, and what happened to each. Times are planted; nothing is measured here."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.taps = ([], [])
        self.count = dict.fromkeys(
            "ingress egress matched lost unmatched duplicate ambiguous out_of_window".split(), 0
        )
        # (flow, when it entered, delay), forward and reverse.
        self.matches = ([], [])
        self.flows = {}
        self.extra = {}

    def see(self, tap, at_ns, frame):
        self.taps[tap].append((at_ns, raw(frame)))
        self.count[("ingress", "egress")[tap]] += 1

    def flow(self, name):
        zero = dict(packets=[0, 0], first=[None, None], last=[None, None], single=[0, 0])
        return self.flows.setdefault(name, zero | dict(bytes=0, reverse=False))

    def note(self, flow, tap, at_ns):
        flow["packets"][tap] += 1
        first, last = flow["first"][tap], flow["last"][tap]
        flow["first"][tap] = at_ns if first is None else min(first, at_ns)
        flow["last"][tap] = at_ns if last is None else max(last, at_ns)

    def send(self, name, at_ns, packet, delay_ns, behind=None, reverse=False):
        """A packet that arrives after delay_ns, or never (None). `behind`: as the second tap sees it."""
        here, there = (1, 0) if reverse else (0, 1)
        flow = self.flow(name)
        flow["reverse"] = reverse
        self.see(here, at_ns, packet)
        self.note(flow, here, at_ns)
        if delay_ns is None:
            self.count["unmatched" if reverse else "lost"] += 1
            flow["single"][here] += 1
            flow["bytes"] += len(packet)
            return
        behind = aged(packet) if behind is None else behind
        self.see(there, at_ns + delay_ns, behind)
        self.note(flow, there, at_ns + delay_ns)
        flow["bytes"] += len(behind if reverse else packet)
        self.count["matched"] += 1
        self.matches[reverse].append((name, at_ns, delay_ns))

    def duplicate(self, tap, at_ns, frame):
        self.see(tap, at_ns, frame)
        self.count["duplicate"] += 1

    def delays(self, reverse):
        return [delay_ns for _, _, delay_ns in self.matches[reverse]]

    def variations(self, reverse):
        """Between consecutive packets of a flow, in the order in which they entered."""
        last, found = {}, []
        for flow, _, delay_ns in sorted(self.matches[reverse], key=lambda match: match[1]):
            if flow in last:
                found.append(delay_ns - last[flow])
            last[flow] = delay_ns
        return found

    def reordered(self, name, reverse):
        """Packets that arrive behind one that entered after them (RFC 4737); of two at one time, the first sent is first."""
        sent = sorted((at_ns, delay_ns) for flow, at_ns, delay_ns in self.matches[reverse] if flow == name)
        arrived = sorted((at_ns + delay_ns, number) for number, (at_ns, delay_ns) in enumerate(sent))
        count, latest = 0, -1
        for _, number in arrived:
            count += number < latest
            latest = max(latest, number)
        return count

    def expected(self):
        flows = []
        for name, flow in self.flows.items():
            src, sport, dst, dport, protocol = name
            here, there = (1, 0) if flow["reverse"] else (0, 1)
            both = flow["first"][here] is not None and flow["last"][there] is not None
            flows.append(
                {
                    "src": src,
                    "src_port": sport,
                    "dst": dst,
                    "dst_port": dport,
                    "protocol": protocol,
                    "packets_ingress": flow["packets"][0],
                    "packets_egress": flow["packets"][1],
                    "lost": flow["single"][0],
                    "unmatched": flow["single"][1],
                    "reordered": self.reordered(name, flow["reverse"]),
                    "bytes": flow["bytes"],
                    "first_ingress_ns": flow["first"][0],
                    "last_egress_ns": flow["last"][1],
                    "fct_ns": flow["last"][there] - flow["first"][here] if both else None,
                }
            )
        return {
            "packets": self.count,
            "delay_ns": figures(self.delays(0)),
            "ipdv_ns": figures(self.variations(0)),
            "reverse_delay_ns": figures(self.delays(1)),
            "reverse_ipdv_ns": figures(self.variations(1)),
            "flows": [f for f in flows if f["protocol"] in ("tcp", "udp")],
        }

    def write(self, folder, **options):
        for tap in self.taps:
            tap.sort(key=lambda record: record[0])
        both = options.pop("both", None)
        if both:
            pcapng(folder / "both.pcapng", self.taps, both)
        else:
            for name, records in zip(("ingress", "egress"), self.taps):
                pcap(folder / f"{name}.pcap", records, **options)
        (folder / "expected.json").write_text(json.dumps(self.expected() | self.extra))


def tcp4(flow, seq, flags="A", size=100, ident=0, options=(), ack=1, window=8192):
    src, sport, dst, dport, _ = flow
    ip = IP(src=src, dst=dst, id=ident)
    header = TCP(sport=sport, dport=dport, seq=seq, ack=ack, flags=flags, window=window, options=list(options))
    return LINK / ip / header / Raw(bytes((seq + n) & 0xFF for n in range(size)))


def conversation(world, flow, start_ns, packets, gap_ns, delay, reverse=False, lost=(), behind=None):
    """A whole TCP flow: SYN, data, FIN. Returns when it ended."""
    for number in range(packets):
        flags = "S" if number == 0 else "FA" if number == packets - 1 else "A"
        options = [("MSS", 1460), ("SAckOK", b"")] if number == 0 else []
        packet = tcp4(flow, 1000 + 100 * number, flags, 100 if 0 < number < packets - 1 else 0, number + 1, options)
        at_ns = start_ns + number * gap_ns
        delay_ns = None if number in lost else delay()
        seen = behind(packet, number) if behind else aged(packet, mss=1360)
        world.send(flow, at_ns, packet, delay_ns, seen, reverse)
    return start_ns + packets * gap_ns


# The cases.


def delay_and_loss(world):
    """Flows of every size class, random delays, random loss in the middle; one flow without an end."""
    draw = lambda: 10_000_000 + world.random.randrange(100_000)
    at_ns = START_NS
    for number, size in enumerate([3, 5, 6, 10, 15, 20, 21, 40, 41, 100, 150, 1000, 1001, 4, 7, 12]):
        flow = ("10.0.0.%d" % (number + 1), 2000 + number, "10.9.9.9", 443, "tcp")
        lost = {n for n in range(1, size - 1) if world.random.random() < 0.02}
        conversation(world, flow, at_ns + number * 777, size, 10_000, draw, lost=lost)
    flow = ("10.0.1.1", 5, "10.9.9.9", 443, "tcp")
    for number in range(30):
        world.send(flow, at_ns + number * 5_000, tcp4(flow, number * 10, ident=number + 1), draw())
    udp = ("10.0.1.2", 6, "10.9.9.9", 53, "udp")
    for number in range(50):
        packet = LINK / IP(src=udp[0], dst=udp[2], id=number + 1) / UDP(sport=6, dport=53) / Raw(b"question")
        world.send(udp, at_ns + number * 9_000, packet, draw())
    for number in range(20):
        packet = LINK / IP(src="10.0.1.3", dst=udp[2], id=number + 1) / ICMP(id=1, seq=number) / Raw(b"x" * 30)
        world.send(("10.0.1.3", 0, udp[2], 0, "icmp"), at_ns + number * 8_000, packet, draw())


def duplicates(world):
    """The mirrors copy packets: at ingress, at egress, of lost packets, three times over."""
    flow = ("10.0.0.1", 1, "10.0.0.2", 2, "tcp")
    for number in range(400):
        packet = tcp4(flow, number * 100, ident=number + 1)
        at_ns, delay_ns = START_NS + number * 100_000, 20_000_000 + world.random.randrange(1000)
        lost = number % 40 == 39
        world.send(flow, at_ns, packet, None if lost else delay_ns)
        if number % 10 == 3:
            world.duplicate(0, at_ns + 2_000, packet)
        if number % 10 == 5:
            world.duplicate(1, at_ns + delay_ns + 3_000, aged(packet))
        if number % 40 == 39:
            world.duplicate(0, at_ns + 1_500, packet)
        if number % 50 == 7:
            world.duplicate(0, at_ns + 10, packet)
            world.duplicate(0, at_ns + 20, packet)


def reordering(world):
    """Packets overtake each other by up to tens of places; FCT ends with the last to arrive."""
    flow = ("10.0.0.1", 1, "10.0.0.2", 2, "tcp")
    for number in range(1000):
        flags = "S" if number == 0 else "FA" if number == 999 else "A"
        packet = tcp4(flow, number * 100, flags, ident=number + 1)
        delay_ns = 5_000_000 + world.random.randrange(10) * 400_000
        world.send(flow, START_NS + number * 50_000, packet, delay_ns)


def retransmissions(world):
    """The same segment sent again: with another identification (IPv4), or the very same bytes (IPv6)."""
    flow = ("10.0.0.1", 1, "10.0.0.2", 2, "tcp")
    ident = 0
    for number in range(200):
        at_ns = START_NS + number * 100_000
        ident += 1
        lost = number % 20 == 10
        world.send(flow, at_ns, tcp4(flow, number * 100, ident=ident), None if lost else 7_000_000 + number)
        if lost:
            ident += 1
            world.send(flow, at_ns + 50_000, tcp4(flow, number * 100, ident=ident), 7_500_000 + number)
    src, dst = "2001:db8::1", "2001:db8::2"
    six = (src, 1, dst, 2, "tcp")
    for number in range(200):
        packet = LINK / IPv6(src=src, dst=dst) / TCP(sport=1, dport=2, seq=number * 50, flags="A") / Raw(b"y" * 50)
        at_ns = START_NS + number * 1_000_000
        lost = number % 20 == 10
        world.send(six, at_ns, packet, None if lost else 7_000_000 + number)
        if lost:
            # Fast retransmission: packets sent after it have arrived.
            world.send(six, at_ns + 14_500_000, packet, 7_300_000 + number)


def collisions(world):
    """Small packets that are the same byte for byte, as often at both taps: each is matched, in order."""
    flow = ("10.0.0.1", 9, "10.0.0.2", 9, "udp")
    packet = LINK / IP(src=flow[0], dst=flow[2], id=0, flags="DF") / UDP(sport=9, dport=9) / Raw(b"a")
    at_ns = START_NS
    for number in range(300):
        # Sometimes in bursts, several on the way at a time.
        at_ns += (3_000, 200_000, 9_000_000)[number % 3]
        world.send(flow, at_ns, packet, 4_000_000 + number)
    six = ("2001:db8::1", 9, "2001:db8::2", 9, "udp")
    packet = LINK / IPv6(src=six[0], dst=six[2]) / UDP(sport=9, dport=9) / Raw(b"b")
    for number in range(100):
        world.send(six, START_NS + number * 20_000_000, packet, 6_000_000 + number)


def identification_wraps(world):
    """More than 65536 small packets that differ in nothing but their identification, which comes round; some lost."""
    flow = ("10.0.0.1", 9, "10.0.0.2", 9, "udp")
    base = raw(LINK / IP(src=flow[0], dst=flow[2], id=1) / UDP(sport=9, dport=9) / Raw(b"same"))
    for number in range(150_000):
        frame = bytearray(base)
        ident = number % 65535 + 1
        frame[18:20] = struct.pack(">H", ident)
        frame = bytes(frame)
        lost = number % 10_007 == 5_000
        world.send(flow, START_NS + number * 5_000, frame, None if lost else 3_000_000 + number % 97, frame)


def both_directions(world):
    """TCP both ways, with acknowledgements, loss both ways, and a handshake."""
    pairs = []
    for number in range(40):
        out = ("10.0.0.%d" % (number + 1), 3000 + number, "10.1.0.1", 80, "tcp")
        back = (out[2], out[3], out[0], out[1], "tcp")
        start_ns = START_NS + number * 1_111_111
        packets = 5 + number * 3
        lost = {n for n in range(2, packets - 1) if world.random.random() < 0.05}
        forth, home = lambda: 8_000_000 + world.random.randrange(50_000), lambda: 6_000_000 + world.random.randrange(50_000)
        rtt_ns = 8_000_000 + 6_000_000 + 300 + number
        for n in range(packets):
            flags = "S" if n == 0 else "FA" if n == packets - 1 else "A"
            at_ns = start_ns + n * 20_000_000
            delay_ns = 8_000_000 if n == 0 else forth()
            packet = tcp4(out, 7_000 + n * 10, flags, 0 if n == 0 else 10, n + 1)
            world.send(out, at_ns, packet, None if n in lost else delay_ns)
            if n in lost:
                continue
            flags = "SA" if n == 0 else "FA" if n == packets - 1 else "A"
            answer = tcp4(back, 90_000 + n * 5, flags, 0 if n == 0 else 5, n + 1, ack=7_001 + n * 10)
            delay_ns = 6_000_000 if n == 0 else home()
            sent_ns = at_ns + (8_000_000 + 300 + number if n == 0 else 9_000_000)
            world.send(back, sent_ns, answer, None if n == 3 else delay_ns, aged(answer), reverse=True)
        pairs.append({"src": out[0], "handshake_rtt_ns": rtt_ns})
    world.extra = {"handshakes": pairs}


def tunnels(world):
    """GRE with every option over IPv4 and IPv6, with IPv4, IPv6 and Ethernet inside, tags outside and inside."""
    inner = {
        "four": lambda n: IP(src="10.0.0.1", dst="10.0.0.2", id=n + 1) / TCP(sport=1, dport=2, seq=n * 10, flags="A") / Raw(b"v4" * 20),
        "six": lambda n: IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(sport=1, dport=2, seq=n * 10, flags="A") / Raw(b"v6" * 20),
    }
    outer = {
        "four": lambda: IP(src="192.0.2.1", dst="192.0.2.2", tos=0x88),
        "six": lambda: IPv6(src="2001:db8:ffff::1", dst="2001:db8:ffff::2", tc=0x88),
    }
    number = 0
    lanes = {}
    for version, make in inner.items():
        flow = ("10.0.0.1", 1, "10.0.0.2", 2, "tcp") if version == "four" else ("2001:db8::1", 1, "2001:db8::2", 2, "tcp")
        for around, cover in outer.items():
            for bits in range(8):
                for ethernet in (False, True):
                    for tags in range(3):
                        number += 1
                        options = {}
                        if bits & 1:
                            options["key_present"], options["key"] = 1, 7000 + bits
                        if bits & 2:
                            options["seqnum_present"], options["sequence_number"] = 1, number
                        if bits & 4:
                            options["chksum_present"] = 1
                        packet = make(number)
                        body = aged(LINK / packet)[1]
                        if ethernet:
                            tag = Dot1Q(vlan=5) / body if number % 2 else body
                            body = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / tag
                        link = LINK
                        for tag in range(tags):
                            link = link / (Dot1AD(vlan=100) if tag == 0 and tags == 2 else Dot1Q(vlan=200))
                        proto = {"proto": 0x6558} if ethernet else {}
                        seen = link / cover() / GRE(**options, **proto) / body
                        seen = Ether(raw(seen))
                        at_ns = START_NS + number * 100_000
                        world.send(flow, at_ns, LINK / packet, 2_000_000 + number, seen)
                        outside = "192.0.2.1>192.0.2.2" if around == "four" else "2001:db8:ffff::1>2001:db8:ffff::2"
                        lane = f"gre key {7000 + bits}" if bits & 1 else f"gre {outside}"
                        lanes[lane] = lanes.get(lane, 0) + 1
    world.extra = {"lanes": lanes}


def tags(world):
    """VLAN tags that differ between the taps, IPv6 extension headers, fragments."""
    flow = ("10.0.0.1", 1, "10.0.0.2", 2, "tcp")
    for number in range(60):
        packet = tcp4(flow, number * 100, ident=number + 1)
        tagged = [packet, LINK / Dot1Q(vlan=7) / packet[IP], LINK / Dot1AD(vlan=9) / Dot1Q(vlan=7) / packet[IP]]
        behind = aged(tagged[(number // 3) % 3])
        world.send(flow, START_NS + number * 10_000, tagged[number % 3], 1_000_000 + number, behind)
    six = ("2001:db8::1", 1, "2001:db8::2", 2, "udp")
    for number in range(60):
        body = UDP(sport=1, dport=2) / Raw(struct.pack(">I", number) * 5)
        packet = LINK / IPv6(src=six[0], dst=six[2]) / IPv6ExtHdrHopByHop() / body
        world.send(six, START_NS + number * 10_000, packet, 1_500_000 + number)
    # Fragments of three datagrams: the first shows the ports, the others are between the hosts.
    for number in range(3):
        whole = raw(UDP(sport=1, dport=2, len=2008) / Raw(bytes(range(200)) * 10))
        for place in range(3):
            part = whole[place * 800 : (place + 1) * 800]
            ip = IP(src="10.0.0.3", dst="10.0.0.4", id=50 + number, frag=place * 100, flags="MF" if place < 2 else 0, proto=17)
            name = ("10.0.0.3", 1, "10.0.0.4", 2, "udp") if place == 0 else ("10.0.0.3", 0, "10.0.0.4", 0, "rest")
            at_ns = START_NS + number * 1_000_000 + place * 1_000
            world.send(name, at_ns, LINK / ip / Raw(part), 900_000 + number * 3 + place, aged(LINK / ip / Raw(part)))
    for number in range(3):
        for place in range(2):
            head = IPv6ExtHdrFragment(nh=17, id=7000 + number, offset=place * 100, m=1 - place)
            part = raw(UDP(sport=1, dport=2, len=1208, chksum=1))[:8] + bytes(792) if place == 0 else bytes(408)
            packet = LINK / IPv6(src="2001:db8::3", dst="2001:db8::4") / head / Raw(part)
            name = ("2001:db8::3", 1, "2001:db8::4", 2, "udp") if place == 0 else ("2001:db8::3", 0, "2001:db8::4", 0, "rest")
            world.send(name, START_NS + number * 1_000_000 + place * 1_000, packet, 800_000 + number * 2 + place)


def out_of_window(world):
    """With a window of 100 ms: most arrive in 5 ms, some in exactly 100 ms, some a nanosecond later, some in 3 s."""
    flow = ("10.0.0.1", 1, "10.0.0.2", 2, "tcp")
    for number in range(500):
        packet = tcp4(flow, number * 100, ident=number + 1)
        at_ns = START_NS + number * 1_000_000
        late_ns = {7: 100_000_001, 8: 3_000_000_000}.get(number % 50)
        if late_ns:
            world.see(0, at_ns, packet)
            world.see(1, at_ns + late_ns, aged(packet))
            world.count["out_of_window"] += 1
        else:
            world.send(flow, at_ns, packet, 100_000_000 if number % 50 == 9 else 5_000_000 + number)
    world.flows = {}


def random_copies(world):
    """Traffic of few identities, many copies, any loss: what the rules of README.md say, followed word by word.

    A slow matcher: every sighting looks through the whole list of those before it. All within one window.
    """
    draw = world.random
    flows = [("10.0.0.%d" % n, 9, "10.0.0.9", 9, "udp") for n in range(1, 4)]
    sightings = []
    for number in range(4000):
        flow = draw.choice(flows)
        ident = draw.randrange(1, 200)
        frame = raw(LINK / IP(src=flow[0], dst=flow[2], id=ident) / UDP(sport=9, dport=9) / Raw(b"x"))
        at_ns = START_NS + draw.randrange(800_000_000)
        delay_ns = draw.choice([3_000_000, 3_000_500, 9_000_000])
        for tap, when in ((0, at_ns), (1, at_ns + delay_ns)):
            fate = draw.random()
            if fate < 0.05:
                continue
            sightings.append((when + draw.randrange(400), tap, flow, frame))
            if fate > 0.95:
                sightings.append((when + 500 + draw.randrange(10_000), tap, flow, frame))
    sightings.sort(key=lambda sighting: sighting[:2])
    # Of one time at most one: else which of them a rule means would be left to chance.
    times = set()
    sightings = [s for s in sightings if not (s[0] in times or times.add(s[0]))]
    for at_ns, tap, _, frame in sightings:
        world.see(tap, at_ns, frame)
    reference(world, sightings)
    world.flows = {}


SOON_NS = 1_000_000


class Run:
    """Copies of one identity. Each is [time, first seen as number, further, passed over]."""

    def __init__(self):
        self.copies = ([], [])
        self.order = []  # numbers of packets, by place: the nth copies share one


def reference(world, sightings):
    runs = {}
    finished = []
    frontier = {}  # per flow, the highest number of a packet that was seen at both taps
    number = 0
    for at_ns, tap, flow, frame in sightings:
        run = runs.get(frame)
        if run and not belongs(run, tap, at_ns):
            finished.append((flow, run))
            run = None
        if run is None:
            run = runs[frame] = Run()
        mine, theirs = run.copies[tap], run.copies[1 - tap]
        if len(mine) > len(theirs) and mine and not mine[-1]["further"]:
            if frontier.get(flow, -1) > run.order[len(mine) - 1]:
                mine[-1]["passed"] = True
        further = bool(mine) and at_ns - run_cluster(mine) <= SOON_NS
        mine.append({"at": at_ns, "further": further, "passed": False})
        place = len(mine) - 1
        if place == len(run.order):
            run.order.append(number)
            number += 1
        else:
            frontier[flow] = max(frontier.get(flow, -1), run.order[place])
    flow_of = {frame: flow for _, _, flow, frame in sightings}
    finished += [(flow_of[frame], run) for frame, run in runs.items()]
    for flow, run in finished:
        settle(world, flow, run)


def run_cluster(copies):
    """When the latest cluster of copies began."""
    return [copy["at"] for copy in copies if not copy["further"]][-1]


def belongs(run, tap, at_ns):
    mine, theirs = run.copies[tap], run.copies[1 - tap]
    if mine and at_ns - mine[-1]["at"] <= SOON_NS:
        return True
    if len(theirs) > len(mine):
        return True
    if len(theirs) == len(mine):
        return False
    left = [sum(not copy["passed"] for copy in copies) for copies in run.copies]
    return left[0] != left[1]


def settle(world, flow, run):
    ingress, egress = run.copies
    many, few = (ingress, egress) if len(ingress) >= len(egress) else (egress, ingress)
    once = [copy for copy in many if not copy["further"]]
    left = [copy for copy in many if not copy["passed"]]
    left_once = [copy for copy in left if not copy["further"]]
    if len(many) == len(few):
        meant = many
    elif not few or len(once) == len(few):
        meant = once
    elif len(left) == len(few):
        meant = left
    elif len(left_once) == len(few):
        meant = left_once
    else:
        world.count["ambiguous"] += len(many) + len(few)
        return
    for copy in many:
        if not few or not any(copy is one for one in meant):
            single = "lost" if many is ingress else "unmatched"
            world.count["duplicate" if copy["further"] else single] += 1
    for one, other in zip(meant, few):
        at = (one["at"], other["at"]) if many is ingress else (other["at"], one["at"])
        world.count["matched"] += 1
        if at[1] >= at[0]:
            world.matches[0].append((flow, at[0], at[1] - at[0]))
        else:
            world.extra["negative"] = world.extra.get("negative", 0) + 1


def undecidable(world):
    """Three copies sent far apart, nothing between them, two arrive: nobody can say which."""
    flow = ("10.0.0.1", 9, "10.0.0.2", 9, "udp")
    packet = LINK / IP(src=flow[0], dst=flow[2], id=0) / UDP(sport=9, dport=9) / Raw(b"a")
    for number in range(3):
        world.see(0, START_NS + number * 5_000_000, packet)
    for number in range(2):
        world.see(1, START_NS + 50_000_000 + number * 5_000_000, packet)
    world.count["ambiguous"] = 5


def restarts(world):
    """Ports used again: a SYN with another number begins a flow, one sent again does not."""
    flow = ("10.0.0.1", 1, "10.0.0.2", 2, "tcp")
    world.extra = {"lives": []}
    ident = 0
    for life in range(3):
        start_ns = START_NS + life * 300_000_000
        base = 1_000_000 * (life + 1)
        for number in range(8):
            ident += 1
            # The first two are one SYN, sent twice.
            seq, flags = (base, "S") if number < 2 else (base + number, "FA" if number == 7 else "A")
            packet = tcp4(flow, seq, flags, 0, ident)
            world.send(flow, start_ns + number * 1_000_000, packet, 5_000_000)
        world.extra["lives"].append({"packets_ingress": 8, "fct_ns": 12_000_000, "complete": True})
    world.flows = {}
    # Delay variation is within a life.
    world.matches = ([(index // 8, at, d) for index, (_, at, d) in enumerate(world.matches[0])], [])


CASES = {
    "delay_and_loss": (delay_and_loss, {}),
    "short_snap": (delay_and_loss, dict(snap=64)),
    "one_file": (delay_and_loss, dict(both=("lan0", "wan0"))),
    "duplicates": (duplicates, {}),
    "reordering": (reordering, {}),
    "retransmissions": (retransmissions, {}),
    "collisions": (collisions, {}),
    "identification_wraps": (identification_wraps, {}),
    "both_directions": (both_directions, {}),
    "tunnels": (tunnels, {}),
    "tags": (tags, {}),
    "out_of_window": (out_of_window, {}),
    "random_copies": (random_copies, {}),
    "undecidable": (undecidable, {}),
    "restarts": (restarts, {}),
}


def main():
    for case, (make, options) in CASES.items():
        folder = Path(sys.argv[1]) / case
        folder.mkdir(parents=True)
        world = World(case)
        make(world)
        world.write(folder, **options)


if __name__ == "__main__":
    main()
