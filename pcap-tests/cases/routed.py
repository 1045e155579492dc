"""The captures of the routed cases: what comes in on both ports, and what has to leave by each, by scapy.

A case is a function that gives a Routed: every frame in and every frame out, the latter built from nothing, as the RFCs
and the case's configuration have them. Checksums and lengths are scapy's. The gateway is that of routed.toml.
"""

from dataclasses import dataclass, field

from scapy.all import (
    ARP, Dot1Q, Ether, GRE, ICMP, IP, IPv6, Raw, TCP, UDP, ICMPv6DestUnreach, ICMPv6PacketTooBig,
    ICMPv6TimeExceeded, fragment,
)

import captures
from captures import Frame

S, MS = 1_000_000_000, 1_000_000
CASES = {}

HOST, LAN, WAN = "02:00:00:00:00:09", "02:00:00:00:01:01", "02:00:00:00:01:02"
ROUTER, SECOND_ROUTER = "02:00:00:00:02:01", "02:00:00:00:02:03"
HOST4, HOST6, THERE4, THERE6 = "10.1.0.9", "2001:db8:1::9", "10.2.0.7", "2001:db8:2::7"
LAN4, LAN6 = "10.1.0.1", "2001:db8:1::1"
ENDS = {4: ("192.0.2.2", "198.51.100.2"), 6: ("2001:db8:9::2", "2001:db8:99::2")}
GRE_IN_UDP = 4754
NOT_ECT, ECT_1, ECT_0, CE = range(4)


@dataclass
class Routed:
    """Packets at even steps, or Frames."""
    lan: list = field(default_factory=list)
    wan: list = field(default_factory=list)
    wan_out: list = field(default_factory=list)
    lan_out: list = field(default_factory=list)
    write: object = captures.pcap
    name_in: str = "in.pcap"


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


# Links.

def from_host(packet):
    return Ether(src=HOST, dst=LAN) / packet


def to_host(packet):
    return Ether(src=LAN, dst=HOST) / packet


def from_router(packet):
    return Ether(src=ROUTER, dst=WAN) / packet


def to_router(packet, router=ROUTER):
    return Ether(src=WAN, dst=router) / packet


# Packets of the two sites' hosts.

def tcp(payload=b"data", **fields):
    segment = TCP(**({"sport": 40000, "dport": 443, "flags": "A", "seq": 1, "ack": 1} | fields))
    return segment / Raw(payload) if payload else segment


def out4(body=None, **fields):
    return IP(**({"src": HOST4, "dst": THERE4, "id": 1} | fields)) / (tcp() if body is None else body)


def out6(body=None, **fields):
    return IPv6(**({"src": HOST6, "dst": THERE6} | fields)) / (tcp() if body is None else body)


def back4(body=None, **fields):
    body = tcp(sport=443, dport=40000) if body is None else body
    return IP(**({"src": THERE4, "dst": HOST4, "id": 1} | fields)) / body


def back6(body=None, **fields):
    body = tcp(sport=443, dport=40000) if body is None else body
    return IPv6(**({"src": THERE6, "dst": HOST6} | fields)) / body


def hop(packet):
    """The packet a hop further, its checksum made anew."""
    packet = packet.copy()
    if isinstance(packet, IPv6):
        packet.hlim -= 1
    else:
        packet.ttl -= 1
        del packet.chksum
    return packet


def traffic_class(packet):
    return packet.tc if isinstance(packet, IPv6) else packet.tos


def with_class(packet, tos):
    packet = packet.copy()
    if isinstance(packet, IPv6):
        packet.tc = tos
    else:
        packet.tos = tos
        del packet.chksum
    return packet


# Tunnels.

def gre(inner, *, key=None, sequence=None, checksum=False, **fields):
    header = GRE(**fields)
    if checksum:
        header.chksum_present = 1
    if key is not None:
        header.key_present, header.key = 1, key
    if sequence is not None:
        header.seqnum_present, header.sequence_number = 1, sequence
    return header / inner


def outer(payload, version=4, *, udp=False, inward=False, **fields):
    """The outer headers of what we send, or, inward, of what the peer sends. The source port of UDP and the flow label
    of IPv6 are anything: see `any_entropy` in tests/cases.rs."""
    local, remote = ENDS[version]
    ends = {"src": remote, "dst": local} if inward else {"src": local, "dst": remote}
    if version == 4:
        header = IP(**({"id": 0, "flags": "DF", "ttl": 64} | ends | fields))
        number = {"proto": 17 if udp else 47}
    else:
        header = IPv6(**({"hlim": 64} | ends | fields))
        number = {"nh": 17 if udp else 47}
    for name, value in number.items():
        if name not in fields:
            setattr(header, name, value)
    if udp:
        # RFC 8086 has no checksum over IPv4 here, and one over IPv6.
        datagram = UDP(sport=0xC000, dport=GRE_IN_UDP, **({"chksum": 0} if version == 4 else {}))
        return header / datagram / payload
    return header / payload


def sent(inner, version=4, *, udp=False, router=ROUTER, tos=None, outer_fields=None, **options):
    """What leaves in a tunnel when `inner`, as it was before its hop, came in: RFC 6040's copy of ECN, and of the DSCP
    unless `tos` says other."""
    tos = traffic_class(inner) if tos is None else tos
    name = "tos" if version == 4 else "tc"
    fields = {name: tos} | (outer_fields or {})
    return to_router(outer(gre(hop(inner), **options), version, udp=udp, **fields), router)


def arrived(inner, version=4, *, udp=False, outer_fields=None, **options):
    """What comes in a tunnel."""
    fields = outer_fields or {}
    return from_router(outer(gre(inner, **options), version, udp=udp, inward=True, **fields))


# Every option of GRE, over IPv4 and IPv6 and in UDP, with IPv4 and IPv6 inside, out and in.

def options_case(name, version, short, long, udp=False):
    def of(lane, number):
        options = dict(lane)
        if options.pop("sequence", False):
            options["sequence"] = number
        return options

    def make():
        pairs = [(short, 0), (short, 1), (long, 0), (long, 1)]
        going, coming = [out4(), out6()] * 2, [back4(), back6()] * 2
        return Routed(
            lan=[from_host(packet) for packet in going],
            wan=[arrived(packet, version, udp=udp, **of(*pair)) for packet, pair in zip(coming, pairs)],
            wan_out=[sent(packet, version, udp=udp, **of(*pair)) for packet, pair in zip(going, pairs)],
            lan_out=[to_host(hop(packet)) for packet in coming],
        )
    CASES[name] = make


for version in (4, 6):
    for name, short, long in [
        ("gre-without-options-and-with-a-key", {}, {"key": 7}),
        ("gre-with-sequence-numbers", {"sequence": True}, {"key": 0, "sequence": True}),
        ("gre-with-checksums", {"checksum": True}, {"key": 0xFFFFFFFF, "checksum": True}),
        ("gre-with-all-options", {"checksum": True, "sequence": True},
         {"key": 7, "checksum": True, "sequence": True}),
    ]:
        options_case(f"{name}-crosses-ipv{version}", version, short, long)
    options_case(f"gre-in-udp-crosses-ipv{version}", version, {}, {"key": 7, "sequence": True, "checksum": True}, True)


@case
def a_lane_says_the_dscp_ttl_and_df_of_its_outer_header():
    # Short: AF21, TTL 9, DF. Long: the inner DSCP, TTL 255, no DF and so identifications that differ.
    inner = [with_class(out4(), 0xB8 | ecn) for ecn in (NOT_ECT, ECT_0)] + [with_class(out6(), 0x48 | ECT_1)]
    flow = [inner[0], inner[1], inner[1], inner[2]]
    outers = [
        sent(flow[0], tos=18 << 2, key=1, outer_fields={"ttl": 9}),
        sent(flow[1], key=2, outer_fields={"ttl": 255, "flags": 0, "id": 0}),
        sent(flow[2], key=2, outer_fields={"ttl": 255, "flags": 0, "id": 1}),
        sent(flow[3], tos=18 << 2 | ECT_1, key=1, outer_fields={"ttl": 9}),
    ]
    return Routed(lan=[from_host(packet) for packet in flow], wan_out=outers)


# RFC 6040.

ECN = (NOT_ECT, ECT_0, ECT_1, CE)
# Figure 4, inner by row and outer by column; None is dropped.
LEAVING = {
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, None),
    ECT_0: (ECT_0, ECT_0, ECT_1, CE),
    ECT_1: (ECT_1, ECT_1, ECT_1, CE),
    CE: (CE, CE, CE, CE),
}


def entering(version):
    inner = [with_class(make(), 46 << 2 | ecn) for make in (out4, out6) for ecn in ECN]
    return Routed(
        lan=[from_host(packet) for packet in inner],
        wan_out=[sent(packet, version, tos=18 << 2 | traffic_class(packet) & 3, key=1) for packet in inner],
    )


def leaving(version):
    name = "tos" if version == 4 else "tc"
    wan, lan_out = [], []
    for make in (back4, back6):
        for inner_ecn in ECN:
            for outer_ecn, left in zip(ECN, LEAVING[inner_ecn]):
                inner = with_class(make(), 46 << 2 | inner_ecn)
                wan.append(arrived(inner, version, key=1, outer_fields={name: 18 << 2 | outer_ecn}))
                at_ns = S + (len(wan) - 1) * MS
                if left is not None:
                    lan_out.append(Frame(to_host(hop(with_class(inner, 46 << 2 | left))), at_ns))
    return Routed(wan=wan, lan_out=lan_out)


for version in (4, 6):
    CASES[f"ecn-enters-a-tunnel-over-ipv{version}-as-rfc-6040-has-it"] = lambda version=version: entering(version)
    CASES[f"ecn-leaves-a-tunnel-over-ipv{version}-as-rfc-6040-has-it"] = lambda version=version: leaving(version)


# Size.

def syn(mss, **fields):
    return tcp(b"", options=[("MSS", mss), ("NOP", None), ("SAckOK", b"")], **fields)


@case
def the_mss_is_lowered_both_ways_to_what_the_lane_carries():
    # IPv4 and GRE with a key: 28 bytes, so 1472 for inner packets: 1432 behind IPv4 and TCP, 1412 behind IPv6.
    flags = ("S", "SA")
    going = [make(syn(mss, flags=flag)) for make in (out4, out6) for flag in flags for mss in (1460, 536)]
    low4, low6 = 1432, 1412
    expected = [out4(syn(mss, flags=flag)) for flag in flags for mss in (low4, 536)]
    expected += [out6(syn(mss, flags=flag)) for flag in flags for mss in (low6, 536)]
    coming = [back4(syn(1460, flags="SA")), back6(syn(9000, flags="S")), back4(tcp(options=[("MSS", 1460)]))]
    delivered = [back4(syn(low4, flags="SA")), back6(syn(low6, flags="S")), coming[2]]
    return Routed(
        lan=[from_host(packet) for packet in going],
        wan=[arrived(packet, key=1) for packet in coming],
        wan_out=[sent(packet, key=1, tos=0) for packet in expected],
        lan_out=[to_host(hop(packet)) for packet in delivered],
    )


def error4(offender, **fields):
    """An ICMP error of the gateway about an IPv4 packet: RFC 1812 section 4.3.2, in at most 576 bytes."""
    return IP(src=LAN4, dst=offender.src, tos=0xC0, id=0, flags="DF", ttl=64) / ICMP(**fields) / Raw(
        bytes(offender)[:576 - 28])


def error6(offender, message):
    return IPv6(src=LAN6, dst=offender.src, tc=0xC0, hlim=64) / message / Raw(bytes(offender)[:1280 - 48])


@case
def a_packet_at_its_last_hop_is_answered_to_where_it_came_from():
    one4, one6 = out4(ttl=1), out6(hlim=1)
    back = [back4(ttl=1), back6(hlim=0)]
    # A later fragment, and an ICMP error, are answered by nobody.
    silent = [out4(Raw(bytes(16)), ttl=1, frag=5, proto=6), out4(ICMP(type=3, code=1) / Raw(bytes(28)), ttl=0)]
    exceeded = [
        error4(one4, type=11, code=0), error6(one6, ICMPv6TimeExceeded()),
        error4(back[0], type=11, code=0), error6(back[1], ICMPv6TimeExceeded()),
    ]
    errors = [outer(gre(packet, key=1), tos=0xC0) for packet in exceeded[2:]]
    wan = [Frame(arrived(packet, key=1), S + number * MS + 500) for number, packet in enumerate(back)]
    return Routed(
        lan=[from_host(packet) for packet in [one4, one6, *silent]],
        wan=wan,
        lan_out=[to_host(packet) for packet in exceeded[:2]],
        wan_out=[Frame(to_router(error), frame.at_ns) for error, frame in zip(errors, wan)],
    )


@case
def a_packet_too_big_with_df_is_answered_and_without_df_goes_in_pieces():
    # 1500 less IPv4 and GRE without options: 1476 inside.
    fits = out4(tcp(bytes(1476 - 40)), flags="DF")
    big4, big6 = out4(tcp(bytes(1477 - 40)), flags="DF"), out6(tcp(bytes(1477 - 60)))
    cut = out4(UDP(sport=1, dport=2) / Raw(bytes(range(250)) * 6), id=4711)
    # The quotation is of the packet a hop further: RFC 1812 section 4.3.2.3 leaves that to the router.
    answers = [
        error4(hop(big4), type=3, code=4, nexthopmtu=1476),
        error6(hop(big6), ICMPv6PacketTooBig(mtu=1476)),
    ]
    # 1476 less the header, in units of 8 bytes: 1456.
    pieces = fragment(cut, fragsize=1456)
    assert [len(piece) for piece in pieces] == [1476, 72]
    return Routed(
        lan=[from_host(packet) for packet in (fits, big4, big6, cut)],
        wan_out=[Frame(sent(fits), S), *[Frame(sent(piece), S + 3 * MS) for piece in pieces]],
        lan_out=[Frame(to_host(answer), S + (1 + number) * MS) for number, answer in enumerate(answers)],
    )


@case
def fragments_take_the_lane_of_their_first():
    whole = out4(tcp(bytes(100)), id=7)
    pieces = fragment(whole, fragsize=64)
    long = out4()
    return Routed(
        lan=[from_host(packet) for packet in [*pieces, long, *pieces]],
        wan_out=[sent(packet, key=1) for packet in pieces] + [sent(packet, key=2) for packet in [long, *pieces]],
    )


# The border.

def spoiled(frame, layer, **fields):
    frame = frame.copy()
    for name, value in fields.items():
        setattr(frame[layer], name, value)
    return frame


@case
def each_refusal_at_the_border_has_its_reason():
    inner = back4()
    good = arrived(inner, key=1)
    wrong_inner_checksum = back4(chksum=0x1234)
    nested = back4(GRE() / IP(src=THERE4, dst=HOST4) / tcp(), dst=ENDS[4][0], proto=47)
    return Routed(
        wan=[
            good,
            spoiled(good, IP, chksum=0x1234),                                   # outer_checksum
            arrived(inner, key=1, outer_fields={"src": "198.51.100.3"}),        # peer
            arrived(inner, key=1, outer_fields={"flags": "MF"}),                # outer_fragment
            from_router(outer(gre(inner, key=1), udp=True, inward=True)),       # protocol
            spoiled(good, GRE, version=1),                                      # version
            arrived(inner, key=1, routing_present=1),                           # routing
            arrived(inner, key=1, strict_route_source=1),                       # reserved
            arrived(inner),                                                     # key: none
            arrived(inner, key=3),                                              # key: another
            spoiled(arrived(inner, key=1, checksum=True), GRE, chksum=0x1234),  # gre_checksum
            arrived(inner, key=1, proto=0x6558),                                # inner_protocol
            arrived(back4(len=4000), key=1),                                    # inner_malformed
            arrived(inner, key=1, proto=0x86DD),                                # inner_malformed
            arrived(wrong_inner_checksum, key=1),                               # inner_checksum
            arrived(nested, key=1),                                             # nested
            arrived(back4(src="10.3.0.1"), key=1),                              # inner_source
            arrived(back4(dst="10.4.0.1"), key=1),                              # inner_destination
            arrived(with_class(inner, NOT_ECT), key=1, outer_fields={"tos": CE}),  # congestion
            arrived(inner, key=1, outer_fields={"len": 2000}),                  # malformed
            good,
        ],
        lan_out=[Frame(to_host(hop(inner)), S), Frame(to_host(hop(inner)), S + 20 * MS)],
    )


@case
def what_is_not_the_gateways_is_left_to_the_kernel():
    other = [
        from_host(ARP(hwsrc=HOST, psrc=HOST4, pdst=LAN4)),
        from_host(out4(dst=LAN4)),
        from_host(out4(dst="203.0.113.1")),
        from_host(out6(dst="2001:db8:7::1")),
        Ether(src=HOST, dst=LAN) / Dot1Q(vlan=5) / out4(),
        Ether(src=HOST, dst="01:00:5e:00:00:05") / IP(src=HOST4, dst="224.0.0.5", proto=89) / Raw(bytes(24)),
    ]
    back = [
        from_router(IP(src="192.0.2.1", dst="192.0.2.2") / ICMP()),
        from_router(back4()),
        from_router(IP(src=ENDS[4][1], dst=ENDS[4][0]) / tcp()),
    ]
    return Routed(lan=other, wan=back)


# Lanes without a tunnel.

@case
def lanes_may_be_next_hops_with_a_mark_or_without():
    flow4, flow6 = [with_class(out4(), 0xB8 | ECT_0)] * 2, with_class(out4(tcp(sport=2)), ECT_1)
    udp = out4(UDP(sport=1, dport=2) / Raw(b"data"), tos=0x20)
    plain = [back4(), back6(), back4(ttl=1)]
    return Routed(
        lan=[from_host(packet) for packet in [*flow4, flow6, udp]],
        wan_out=[
            to_router(hop(with_class(flow4[0], 18 << 2 | ECT_0))),
            to_router(hop(flow4[1]), SECOND_ROUTER),
            to_router(hop(with_class(flow6, 18 << 2 | ECT_1))),
            Frame(to_router(error4(plain[2], type=11, code=0)), S + 2 * MS + 500),
            Frame(to_router(hop(udp)), S + 3 * MS),
        ],
        wan=[Frame(from_router(packet), S + number * MS + 500) for number, packet in enumerate(plain)],
        lan_out=[Frame(to_host(hop(packet)), S + number * MS + 500) for number, packet in enumerate(plain[:2])],
    )


@case
def marks_and_routes_need_no_tunnel():
    flow = [with_class(make(), ECT_0) for make in (out4, out6) for _ in range(2)]
    return Routed(
        lan=[from_host(packet) for packet in flow],
        wan_out=[
            to_router(hop(with_class(packet, dscp << 2 | ECT_0))) for packet, dscp in zip(flow, (18, 10, 18, 10))
        ],
    )


@case
def an_unknown_neighbour_is_unresolved():
    return Routed(
        lan=[from_host(out4())],
        wan=[Frame(arrived(back4(dst="10.1.0.77"), key=2), S + 500), Frame(arrived(back6(), key=2), S + 600)],
        lan_out=[Frame(to_host(hop(back6())), S + 600)],
    )


@case
def without_a_route_the_sender_is_told():
    packets = [out4(), out6()]
    answers = [error4(hop(packets[0]), type=3, code=0), error6(hop(packets[1]), ICMPv6DestUnreach(code=0))]
    return Routed(
        lan=[from_host(packet) for packet in packets],
        lan_out=[to_host(answer) for answer in answers],
    )


# Path MTU.

def too_big(quoted, mtu, source="203.0.113.9"):
    """What a router in the WAN says of a packet of ours."""
    message = ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(bytes(quoted)[:128])
    return from_router(IP(src=source, dst=ENDS[4][0]) / message)


@case
def an_error_about_a_tunnel_packet_lowers_the_lane_and_reaches_the_sender():
    big = out4(tcp(bytes(1300)), flags="DF")
    ours = sent(big, key=1, sequence=0)[IP]
    # 1300 less IPv4 and GRE with key and sequence number: 32.
    translated = error4(hop(big), type=3, code=4, nexthopmtu=1268)
    translated[Raw].load = bytes(hop(big))[:96]
    spoofed = [
        too_big(spoiled(ours, GRE, key=9), 1000),              # key
        too_big(spoiled(ours, GRE, sequence_number=77), 1000),  # sequence
        too_big(spoiled(ours, IP, dst="198.51.100.9"), 1000),  # not_ours
        too_big(ours, 500),                                    # out_of_bounds
        too_big(ours, 1400),                                   # out_of_bounds: it would have fitted
    ]
    step = S // 10
    moments = [S + number * step for number in range(9)]
    return Routed(
        lan=[Frame(from_host(big), moments[0]), Frame(from_host(big), moments[6]), Frame(from_host(big), moments[8])],
        wan=[Frame(packet, moment) for packet, moment in zip(spoofed, moments[1:6])]
        + [Frame(too_big(ours, 1300), moments[7])],
        wan_out=[Frame(sent(big, key=1, sequence=0), moments[0]), Frame(sent(big, key=1, sequence=1), moments[6])],
        lan_out=[
            Frame(to_host(translated), moments[7]),
            Frame(to_host(error4(hop(big), type=3, code=4, nexthopmtu=1268)), moments[8]),
        ],
    )


# Captures.

@case
def a_cut_record_keeps_its_original_length():
    packet, coming = out4(tcp(bytes(1000))), back6(tcp(bytes(500)))
    return Routed(
        lan=[Frame(from_host(packet), S, 64)],
        wan=[Frame(arrived(coming, key=1), S, 120)],
        wan_out=[Frame(sent(packet, key=1), S, 64 + 28)],
        lan_out=[Frame(to_host(hop(coming)), S, 120 - 28)],
    )


@case
def the_sides_are_merged_by_time_and_the_lan_comes_first():
    # A packet of the LAN moves the time on; one of the WAN, stamped before it, comes out before it.
    times = [S, S + 1, S + 2]
    return Routed(
        lan=[Frame(from_host(out4()), time) for time in (times[0], times[2])],
        wan=[Frame(arrived(back4(), key=1), time) for time in (times[0], times[1])],
        wan_out=[Frame(sent(out4(), key=1), time) for time in (times[0], times[2])],
        lan_out=[Frame(to_host(hop(back4())), time) for time in (times[0], times[1])],
    )


@case
def microseconds_in_are_microseconds_out():
    return Routed(
        lan=[from_host(out4())], wan=[arrived(back4(), key=1)],
        wan_out=[sent(out4(), key=1)], lan_out=[to_host(hop(back4()))],
        write=captures.microseconds,
    )


@case
def padding_and_an_encapsulation_limit_do_no_harm():
    short = Ether(bytes(from_host(out4(tcp(b"x"))))) / Raw(bytes(9))
    peer, ours = ENDS[6][1], ENDS[6][0]
    option = bytes([47, 0, 4, 1, 4, 1, 1, 0])
    inner = back4(tcp(b"y"))
    with_limit = Ether(src=ROUTER, dst=WAN) / IPv6(src=peer, dst=ours, nh=60, hlim=64) / Raw(
        option + bytes(gre(inner, key=1)))
    return Routed(
        lan=[short], wan=[with_limit / Raw(bytes(5))],
        wan_out=[sent(out4(tcp(b"x")), 6, key=1)], lan_out=[to_host(hop(inner))],
    )
