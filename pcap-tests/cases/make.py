#!/usr/bin/python3
"""Makes the captures of the golden cases: in.pcap, and out.pcap as it has to be.

    cases/make.py            write all captures
    cases/make.py --check    write nothing, fail when a capture differs from what would be written
    cases/make.py NAME...    only these

scapy (Debian: python3-scapy) is the encoder of both files, so that the splitter's own code vouches
for nothing. An input is built from scapy's layers by the function of the case's name. Which DSCP
each packet must leave with is said by a person, in `dscp` of the case's case.toml; its output is
the same layers with that DSCP, built again from nothing, checksum and all. A `-` there is a packet
that stays as it is.

The packets of a case follow each other by a millisecond, from one second after the epoch, unless
the case says otherwise. Cases with a side of the WAN have wan-in.pcap and lan-out.pcap too.

Cases of routed mode are in routed.py, which builds what has to come out as well.
"""

import sys
import tomllib
from pathlib import Path

from scapy.all import (
    ARP, Dot1Q, Ether, GRE, ICMP, IP, IPv6, Packet, Padding, Raw, SCTP, TCP, UDP,
    ICMPv6DestUnreach, ICMPv6EchoRequest, IPOption_NOP, IPOption_RR, IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN,
)

sys.dont_write_bytecode = True
import captures  # noqa: E402
import routed  # noqa: E402
from captures import Frame  # noqa: E402

HERE = Path(__file__).resolve().parent
S, MS, US = 1_000_000_000, 1_000_000, 1_000
CASES = {}


def case(function=None, *, name_in="in.pcap", write=captures.pcap):
    """Registers a function as the case of its name."""
    def register(function):
        CASES[function.__name__.replace("_", "-")] = (function, name_in, write)
        return function
    return register(function) if function else register


# Building blocks: one flow unless told otherwise, 10.0.0.1:40000 -> 192.0.2.2:443 or its IPv6 twin.

TCP_FIELDS = {"sport": 40000, "dport": 443, "flags": "A", "seq": 1, "ack": 1}
IPV4_FIELDS = {"src": "10.0.0.1", "dst": "192.0.2.2"}
IPV6_FIELDS = {"src": "2001:db8::1", "dst": "2001:db8:ff::2"}
FOUR_NOPS = [IPOption_NOP()] * 4
HOP_BY_HOP, TCP_NUMBER, UDP_NUMBER, ROUTING, FRAGMENT, OPTIONS = 0, 6, 17, 43, 44, 60


def ethernet(body, tags=(), **fields):
    """A frame; each tag is a VID, or a dictionary of the tag's fields with its `tpid`."""
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **fields)
    tags = [tag if isinstance(tag, dict) else {"vlan": tag} for tag in tags]
    layers = [Dot1Q(**{key: value for key, value in tag.items() if key != "tpid"}) for tag in tags]
    for outer, tag in zip([frame, *layers], tags):
        outer.type = tag.get("tpid", 0x8100)
    for layer in layers:
        frame = frame / layer
    return frame / body


def tcp(payload=b"", **fields):
    segment = TCP(**(TCP_FIELDS | fields))
    if not segment.flags.A:
        segment.ack = 0
    return segment / Raw(payload) if payload else segment


def v4(body=None, tags=(), **fields):
    return ethernet(IP(**(IPV4_FIELDS | fields)) / (tcp() if body is None else body), tags)


def v6(body=None, tags=(), **fields):
    return ethernet(IPv6(**(IPV6_FIELDS | fields)) / (tcp() if body is None else body), tags)


def arp():
    return ARP(hwsrc="02:00:00:00:00:01", psrc="10.0.0.1", pdst="10.0.0.2")


def both(body=None, **fields):
    return [v4(body, **fields), v6(body, **fields)]


HEADERS = {
    HOP_BY_HOP: lambda nh: IPv6ExtHdrHopByHop(nh=nh, options=[PadN(optdata=bytes(4))]),
    ROUTING: lambda nh: IPv6ExtHdrRouting(nh=nh, type=0, segleft=0, addresses=[]),
    FRAGMENT: lambda nh: IPv6ExtHdrFragment(nh=nh, offset=0, m=0, id=7),
    OPTIONS: lambda nh: IPv6ExtHdrDestOpt(nh=nh, options=[PadN(optdata=bytes(4))]),
}


def extended(kinds, body=None, last=TCP_NUMBER, **fields):
    """IPv6 with these extension headers in this order, each of eight bytes."""
    body = tcp() if body is None else body
    for kind, following in reversed(list(zip(kinds, [*kinds[1:], last]))):
        body = HEADERS[kind](following) / body
    return v6(body, nh=kinds[0], **fields)


def fragments4(sizes, body=None, tags=(), identification=7, protocol=TCP_NUMBER, **fields):
    """The fragments of one IPv4 datagram: all but the last of these sizes, in bytes."""
    whole = bytes(IP(**(IPV4_FIELDS | fields)) / (tcp(bytes(100)) if body is None else body))[20:]
    return [
        v4(Raw(whole[start:end]), tags, proto=protocol, id=identification, frag=start // 8,
           flags="MF" if end < len(whole) else 0, **fields)
        for start, end in cuts(sizes, len(whole))
    ]


def fragments6(sizes, body=None, tags=(), identification=7, first=TCP_NUMBER, **fields):
    """The fragments of one IPv6 datagram; its fragmentable part starts with a header `first`."""
    whole = bytes(IPv6(**(IPV6_FIELDS | fields)) / (tcp(bytes(100)) if body is None else body))[40:]
    return [
        v6(IPv6ExtHdrFragment(nh=first, offset=start // 8, m=end < len(whole), id=identification)
           / Raw(whole[start:end]), tags, nh=FRAGMENT, **fields)
        for start, end in cuts(sizes, len(whole))
    ]


def cuts(sizes, total):
    starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    assert all(start % 8 == 0 and start < total for start in starts)
    return zip(starts, [*starts[1:], total])


def at(moments_ns, packets):
    return [Frame(packet, moment) for moment, packet in zip(moments_ns, packets, strict=True)]


def paced(packets, start_ns=S, step_ns=MS):
    """Frames of what is not one yet, in even steps."""
    return [
        packet if isinstance(packet, Frame) else Frame(packet, start_ns + number * step_ns)
        for number, packet in enumerate(packets)
    ]


# What counts as a flow, and where it becomes long.


@case
def the_forty_first_packet_is_long():
    return [v4()] * 42


@case
def the_forty_first_ipv6_packet_is_long():
    return [v6()] * 42


@case
def a_threshold_of_one_leaves_only_the_first_packet_short():
    return both() * 3


@case
def lanes_take_their_dscp_from_the_configuration():
    return both() * 4


@case
def the_command_line_overrides_the_configuration():
    return [v4()] * 4


@case
def both_directions_are_two_flows():
    there = both()
    back = [v4(tcp(sport=443, dport=40000), src="192.0.2.2", dst="10.0.0.1"),
            v6(tcp(sport=443, dport=40000), src="2001:db8:ff::2", dst="2001:db8::1")]
    return there + back + there + back + there


@case
def every_part_of_the_key_separates_flows():
    ports = [tcp(sport=40001), tcp(dport=444)]
    ipv4 = [v4(), v4(src="10.0.0.3"), v4(dst="192.0.2.3"), *map(v4, ports)]
    ipv6 = [v6(), v6(src="2001:db8::3"), v6(dst="2001:db8:ff::3"), *map(v6, ports)]
    return (ipv4 + ipv6) * 2


@case
def vlan_tags_separate_flows():
    tags = [(), (0,), (10,), (21,), (10, 21), (21, 10)]
    return [make(tags=tag) for _ in range(2) for tag in tags for make in (v4, v6)]


@case
def only_the_identifier_of_a_vlan_tag_matters():
    tags = [{"vlan": 10}, {"vlan": 10, "tpid": 0x88A8}, {"vlan": 10, "tpid": 0x9100},
            {"vlan": 10, "prio": 7, "id": 1}]
    return [v4(tags=[tag]) for tag in tags]


@case
def two_tags_are_walked_three_are_not():
    service = {"vlan": 100, "tpid": 0x88A8}
    return [make(tags=tags) for tags in ([service, 10], [service, 10, 11]) for make in (v4, v6)]


@case
def fin_and_rst_do_not_end_a_flow():
    return [v4(tcp(flags=flags)) for flags in ("A", "FA", "RA", "R", "FPU", "")]


@case
def a_syn_restarts_a_long_flow():
    return [packet for flags in "SAASA" for packet in both(tcp(flags=flags))]


@case
def every_repeated_syn_restarts():
    return [v4(tcp(flags=flags)) for flags in ("S", "S", "SEC", "SF", "SPU")]


@case
def with_no_restart_a_syn_does_not():
    return [packet for flags in "SAASA" for packet in both(tcp(flags=flags))]


@case
def a_syn_ack_does_not_restart():
    return [v4(tcp(flags=flags)) for flags in ("SA", "A", "SA", "SAEC")]


# Time.


@case
def silence_of_exactly_thirty_seconds_keeps_the_flow():
    return at([S, S, 31 * S, 31 * S, 61 * S, 61 * S], both() * 3)


@case
def one_nanosecond_more_than_thirty_seconds_starts_afresh():
    return at([S, S, 2 * S, 2 * S, 32 * S + 1, 32 * S + 1, 33 * S, 33 * S], both() * 4)


@case
def a_flow_may_last_longer_than_the_idle_timeout():
    return at([S + 20 * S * number for number in range(6)], [v4()] * 6)


@case
def the_idle_timeout_is_what_the_command_line_says():
    return at([S, S + 5 * MS, S + 10 * MS, S + 15 * MS + 1], [v4()] * 4)


@case
def a_syn_after_silence_is_an_expiry_and_no_restart():
    return at([S, 31 * S + 1], [v4(tcp(flags="S"))] * 2)


@case
def traffic_of_others_lets_a_flow_expire():
    others = [v4(UDP(sport=1, dport=2)), ethernet(arp())]
    return at([S, 2 * S, 20 * S, 31 * S + 1], [v4(), v6(), *others])


@case
def time_going_backwards_is_handled_at_the_last_time():
    return at([5 * S, 3 * S, 5 * S - 1, 35 * S, 34 * S], [v4()] * 5)


@case
def a_stamp_of_the_past_does_not_revive_a_silent_flow():
    return at([S, 31 * S + 1, 20 * S], [v4(), v6(), v4()])


@case
def a_stamp_of_the_past_from_the_wan_changes_nothing():
    lan = at([S, 20 * S, 32 * S], [v4()] * 3)
    wan = at([10 * S, 5 * S], [v4(src="192.0.2.2", dst="10.0.0.1")] * 2)
    return lan, wan


@case
def traffic_from_the_wan_lets_a_flow_expire():
    lan = at([S, 2 * S], [v4(), v6()])
    return lan, at([S, 31 * S + 1], [v4(src="192.0.2.2", dst="10.0.0.1")] * 2)


@case
def a_capture_may_begin_at_the_epoch():
    return at([0, 0, 30 * S, 60 * S + 1], [v4()] * 4)


# What marking does to a packet.


@case
def ecn_bits_survive():
    ipv4 = [v4(tos=dscp << 2 | ecn) for dscp in (0, 63) for ecn in range(4)]
    ipv6 = [v6(tc=dscp << 2 | ecn, fl=0xFFFFF) for dscp in (0, 63) for ecn in range(4)]
    return ipv4 + ipv6


@case
def every_dscp_is_rewritten():
    return [packet for dscp in range(64) for packet in (v4(tos=dscp << 2), v6(tc=dscp << 2))] * 2


@case
def a_correct_dscp_is_left_alone():
    packets = []
    for tos in (18 << 2 | 1, 18 << 2, 10 << 2 | 2, 10 << 2):
        zero = identified(lambda id: checksum(v4(tos=tos, id=id)), 0)
        packets += [v4(tos=tos), v4(tos=tos, chksum=0x1234), v4(tos=tos, id=zero, chksum=0xFFFF)]
        packets += [v6(tc=tos)] * 3
    return packets


@case
def a_wrong_checksum_stays_wrong():
    right = checksum(v4())
    return [v4(chksum=(right + error) % 0xFFFF) for error in (1, 0x100, 0x8000, 0xFFFE)]


@case
def a_checksum_of_zero_is_not_written_as_ffff():
    is_zero = identified(lambda id: checksum(v4(id=id)), 0)
    packets = []
    for dscp in (18, 10):
        becomes_zero = identified(lambda id: checksum(marked(v4(id=id), dscp)), 0)
        packets += [v4(id=becomes_zero), v4(id=is_zero), v4(id=is_zero, chksum=0xFFFF)]
    return packets


@case
def checksums_carry_around_the_end():
    checksums = (0x0001, 0x0027, 0x0028, 0x0047, 0x0048, 0x0049, 0xFFD8, 0xFFFE)
    return [v4(id=identified(lambda id: checksum(v4(id=id)), wanted)) for wanted in checksums] * 2


@case
def ipv4_options_are_skipped():
    full = [IPOption_RR(length=39, pointer=4, routers=["0.0.0.0"] * 9), IPOption_NOP()]
    return [v4(), v4(options=FOUR_NOPS), v4(options=full), v4(tcp(b"data"), options=full)]


@case
def a_tcp_header_of_sixty_bytes_is_legal():
    options = [("NOP", None)] * 40
    return both(tcp(options=options)) + both(tcp(b"data", options=options))


@case
def a_jumbo_frame_is_a_packet_like_any_other():
    return [v4(tcp(bytes(8960))), v6(tcp(bytes(8940)))]


# IPv6 extension headers.


@case
def ipv6_extension_headers_are_walked():
    chains = [[HOP_BY_HOP], [ROUTING], [OPTIONS], [HOP_BY_HOP, OPTIONS, ROUTING, OPTIONS]]
    long_header = IPv6ExtHdrDestOpt(nh=TCP_NUMBER, options=[PadN(optdata=bytes(250))] * 8)
    return [v6(), *map(extended, chains), v6(long_header / tcp(), nh=OPTIONS)]


@case
def eight_extension_headers_are_walked():
    return [extended([HOP_BY_HOP, *[OPTIONS] * 7]),
            extended([HOP_BY_HOP, *[OPTIONS] * 6, FRAGMENT])]


@case
def nine_extension_headers_are_malformed():
    return [extended([HOP_BY_HOP, *[OPTIONS] * 8]),
            extended([HOP_BY_HOP, *[OPTIONS] * 7, FRAGMENT]),
            extended([HOP_BY_HOP, *[OPTIONS] * 8], UDP(), UDP_NUMBER)]


@case
def any_other_header_ends_the_walk():
    authentication = bytes([TCP_NUMBER, 4, 0, 0]) + bytes(20)
    encrypted = bytes(40)
    mobility = bytes([59, 0, 0, 0, 0, 0, 0, 0])
    return [
        v6(Raw(authentication) / tcp(), nh=51), v6(Raw(encrypted), nh=50),
        v6(Raw(mobility), nh=135), v6(Raw(bytes(tcp())), nh=59),
        extended([OPTIONS], Raw(authentication) / tcp(), 51),
        v4(Raw(authentication) / tcp(), proto=51), v4(Raw(bytes(tcp())), proto=HOP_BY_HOP),
        v4(Raw(bytes(tcp())), proto=OPTIONS),
    ]


@case
def an_extension_header_beyond_the_payload_is_malformed():
    header = IPv6ExtHdrDestOpt(nh=TCP_NUMBER, len=4, options=[PadN(optdata=bytes(4))])
    before_udp = IPv6ExtHdrDestOpt(nh=UDP_NUMBER, len=4, options=[PadN(optdata=bytes(4))])
    return [v6(header / tcp(), nh=OPTIONS), v6(before_udp / UDP(), nh=OPTIONS),
            v6(Raw(b""), nh=OPTIONS), v6(Raw(bytes(7)), nh=ROUTING),
            v6(Raw(bytes([TCP_NUMBER])), nh=HOP_BY_HOP), v6(Raw(bytes(7)), nh=FRAGMENT),
            v6(HEADERS[OPTIONS](FRAGMENT), nh=OPTIONS),
            v6(HEADERS[OPTIONS](TCP_NUMBER) / tcp(), nh=OPTIONS, plen=8)]


# Fragments.


@case
def later_fragments_follow_their_first():
    short, long = fragments4([24, 40], identification=1), fragments4([24, 40], identification=2)
    return [*short, v4(), *long]


@case
def ipv6_fragments_follow_their_first():
    short, long = fragments6([24, 40], identification=1), fragments6([24, 40], identification=2)
    return [*short, v6(), *long]


@case
def a_later_fragment_keeps_the_class_its_first_had():
    first4, later4 = fragments4([24])
    first6, later6 = fragments6([24])
    return [first4, first6, v4(), v6(), later4, later6]


@case
def a_fragment_without_its_first_is_untouched():
    return [fragments4([24])[1], *fragments4([24, 40])[1:], v4(), fragments4([24])[1]]


@case
def an_ipv6_fragment_without_its_first_is_untouched():
    return [fragments6([24])[1], *fragments6([24, 40])[1:], v6(), fragments6([24])[1]]


@case
def a_fragment_ahead_of_its_first_is_untouched():
    first4, middle4, last4 = fragments4([24, 40])
    first6, middle6, last6 = fragments6([24, 40])
    return [last4, last6, first4, first6, middle4, middle6, last4, last6]


@case
def fragments_are_told_apart_by_their_datagram():
    first, later = fragments4([24])
    first6, later6 = fragments6([24])
    return [
        first, later, fragments4([24], src="10.0.0.3")[1], fragments4([24], dst="192.0.2.3")[1],
        fragments4([24], identification=8)[1], fragments4([24], tags=[10])[1],
        first6, later6,
        fragments6([24], src="2001:db8::3")[1], fragments6([24], dst="2001:db8:ff::3")[1],
        fragments6([24], identification=1 << 16 | 7)[1], fragments6([24], tags=[10])[1],
    ]


@case
def a_reused_identification_takes_the_newer_class():
    first, later = fragments4([24])
    first6, later6 = fragments6([24])
    return [first, later, first, later, later, first6, later6, first6, later6, later6]


@case
def the_oldest_fragmented_datagram_is_forgotten():
    datagrams = [fragments4([24], identification=number) for number in (1, 2, 3)]
    return [first for first, _ in datagrams] + [later for _, later in datagrams]


@case
def fragments_of_udp_are_not_tcp():
    datagram = UDP(sport=40000, dport=443) / Raw(bytes(100))
    return [*fragments4([24]), *fragments4([24], datagram, protocol=UDP_NUMBER),
            *fragments6([24]), *fragments6([24], datagram, identification=8, first=UDP_NUMBER),
            fragments4([24], datagram, protocol=UDP_NUMBER, identification=9)[1],
            fragments6([24], datagram, identification=9, first=UDP_NUMBER)[1]]


@case
def an_ipv6_fragment_may_begin_with_options():
    return fragments6([32, 24], HEADERS[OPTIONS](TCP_NUMBER) / tcp(bytes(100)), first=OPTIONS)


@case
def options_may_stand_before_an_ipv6_fragment_header():
    whole = bytes(v6(tcp(bytes(100))))[54:]
    header = {"nh": TCP_NUMBER, "id": 7}
    fragments = [IPv6ExtHdrFragment(offset=0, m=1, **header) / Raw(whole[:24]),
                 IPv6ExtHdrFragment(offset=3, m=0, **header) / Raw(whole[24:])]
    return [extended([HOP_BY_HOP, OPTIONS], fragment, FRAGMENT) for fragment in fragments]


@case
def an_atomic_fragment_is_an_ordinary_packet():
    return [v6(), extended([FRAGMENT]), extended([FRAGMENT]), fragments6([24])[1]]


@case
def a_tiny_first_fragment_is_malformed():
    first4, later4 = fragments4([16])
    first6, later6 = fragments6([16])
    options = tcp(bytes(100), options=[("NOP", None)] * 8)
    return [first4, later4, first6, later6, *fragments4([24], options, identification=8),
            *fragments6([24], options, identification=8)]


# What is not TCP, or not IP.


@case
def udp_and_icmp_keep_their_tos():
    inner = IP(**IPV4_FIELDS) / tcp()
    inner6 = IPv6(**IPV6_FIELDS) / tcp()
    udp, sctp = UDP(sport=40000, dport=443) / Raw(b"quic"), SCTP(sport=1, dport=2, tag=1)
    ipv4 = [udp, sctp, ICMP(), ICMP(type=3, code=4) / inner, inner, GRE() / inner, inner6]
    ipv6 = [udp, sctp, ICMPv6EchoRequest(), ICMPv6DestUnreach() / inner6, inner6, GRE() / inner6,
            inner]
    return [v4(body, tos=0xB9) for body in ipv4] + [v6(body, tc=0xB9) for body in ipv6]


@case
def arp_and_lldp_pass():
    bridge = "8000020000000001"
    bpdu = f"424203 0000000000 {bridge} 00000000 {bridge} 8001 0000 1400 0200 0f00"
    lldp = "0207 04020000000001 0404 07657468 0602 0078 0000"
    frame = bytes(v4())
    return [
        ethernet(arp()), ethernet(arp(), tags=[10]),
        ethernet(Raw(bytes.fromhex(lldp)) / Padding(bytes(24)), type=0x88CC),
        ethernet(Raw(bytes.fromhex(bpdu)) / Padding(bytes(8)), type=len(bytes.fromhex(bpdu))),
        ethernet(Raw(bytes.fromhex("0001f140") + frame[14:]), type=0x8847),
        ethernet(Raw(bytes.fromhex("11000001002a" "0021") + frame[14:]), type=0x8864),
        frame[:12] + b"\x05\xff" + frame[14:], frame[:12] + b"\x88\xb5",
    ]


# Headers that lie.


@case
def a_frame_shorter_than_its_link_header_is_malformed():
    frame, tagged = bytes(v4()), bytes(v4(tags=[10, 20]))
    return [frame[:1], frame[:13], frame[:14], tagged[:14], tagged[:17], tagged[:18], tagged[:21],
            tagged[:22], bytes(v6())[:14]]


@case
def the_ip_version_must_match_the_ethertype():
    return [v4(version=6), v4(version=5), v6(version=4), v6(version=0), v4(tags=[10], version=6)]


@case
def an_ipv4_header_shorter_than_twenty_bytes_is_malformed():
    return [v4(ihl=ihl, len=40) for ihl in range(5)] + [bytes(v4())[:33], v4(UDP(), ihl=4, len=28)]


@case
def ipv4_options_beyond_the_packet_are_malformed():
    return [v4(ihl=11), v4(ihl=15, len=40), v4(UDP(), ihl=15), v4(ihl=10)]


@case
def a_total_length_beyond_the_frame_is_malformed():
    return [v4(len=41), v4(len=65535), v4(UDP() / Raw(bytes(10)), len=39),
            v4(Raw(bytes(40)), frag=9, proto=TCP_NUMBER, len=61), v4(len=45, options=FOUR_NOPS),
            v4()]


@case
def a_total_length_short_of_the_headers_is_malformed():
    return [v4(len=0), v4(len=19), v4(len=20), v4(len=39), v4(len=23, options=FOUR_NOPS),
            v4(UDP(), len=19), v4(UDP(), len=20)]


@case
def an_ipv6_payload_length_that_lies_is_malformed():
    return [v6(plen=21), v6(plen=65535), v6(UDP(), plen=9), v6(plen=0), v6(plen=19),
            bytes(v6())[:53], extended([HOP_BY_HOP], plen=0), v6()]


@case
def a_data_offset_that_lies_is_malformed():
    return [packet for offset in (0, 4, 6, 15) for packet in both(tcp(dataofs=offset))] \
        + both(tcp(bytes(3), dataofs=6)) + both(tcp(bytes(4), dataofs=6))


@case
def ethernet_padding_is_not_payload():
    padded = [v4() / Padding(bytes(6)), v6() / Padding(b"\xff" * 50)]
    too_short = [v4(Raw(bytes(tcp())[:19]) / Padding(bytes(50)), proto=TCP_NUMBER),
                 v6(Raw(bytes(tcp())[:19]) / Padding(bytes(50)), nh=TCP_NUMBER),
                 v4(tcp(dataofs=6) / Padding(bytes(6))), v6(tcp(dataofs=6) / Padding(bytes(6)))]
    return padded + too_short


# Captures cut short by a snap length: packets, and how many bytes of each were kept.


def cut(*packets):
    return [Frame(packet, S + number * MS, kept) for number, (packet, kept) in enumerate(packets)]


@case
def a_snap_length_does_not_make_a_packet_malformed():
    options = [("NOP", None)] * 12
    return cut(
        (v4(tcp(bytes(1460))), 54), (v6(tcp(bytes(1440))), 74),
        (v4(tcp(bytes(10), options=options)), 54), (v6(tcp(options=options), tags=[10]), 78),
        (v4(UDP() / Raw(bytes(500))), 34), (ethernet(arp()), 14),
    )


@case
def the_longest_packet_is_a_packet():
    return cut((v4(tcp(bytes(65495))), 54), (v6(tcp(bytes(65515))), 74))


@case
def a_record_cut_inside_tcp_is_untouched():
    return cut(
        (v4(), 53), (v6(), 73), (v4(), 35), (v6(), 54), (v4(), 34), (v4(options=FOUR_NOPS), 57),
        *[(extended([HOP_BY_HOP]), kept) for kept in (54, 61, 62, 81)],
        (v4(tags=[10]), 57), (fragments4([24])[0], 53),
    )


@case
def a_record_cut_before_tcp_is_untouched():
    return cut(
        *[(v4(), kept) for kept in (0, 6, 13, 14, 24, 33)], (v6(), 14), (v6(), 53),
        *[(v4(tags=[10, 20]), kept) for kept in (14, 17, 21, 22)],
    )


@case
def a_cut_record_whose_header_lies_is_malformed():
    return cut(
        (v4(len=1500), 34), (v4(len=1500), 40), (v6(plen=1500), 54), (v4(len=39), 34),
        (v4(tcp(dataofs=6)), 54), (v4(ihl=4, len=40), 34),
        (v6(HEADERS[OPTIONS](TCP_NUMBER) / Raw(bytes(19)), nh=OPTIONS), 62),
    )


@case
def a_cut_later_fragment_follows_its_first():
    first4, later4 = fragments4([24])
    first6, later6 = fragments6([24])
    return cut((first4, None), (later4, 34), (first6, None), (later6, 62))


# Policies, ports and limits.


@case
def policy_none_changes_nothing():
    return both(tcp(flags="S")) * 3 + [v4(UDP()), ethernet(arp()), v4(len=41), fragments4([24])[1]]


@case
def wan_to_lan_is_not_classified():
    lan = at([S, 2 * S, 3 * S], [v4()] * 3)
    back = [v4(tcp(sport=443, dport=40000, flags="SA"), src="192.0.2.2", dst="10.0.0.1"),
            v6(), v4(UDP()), ethernet(arp()), v4(len=41), v4(), v4(tcp(flags="S"))]
    return lan, paced(back, S + MS, 100 * MS)


@case
def a_full_table_forwards_unknown_flows_short():
    ports = range(40000, 40006)
    return [make(tcp(sport=port)) for port in ports for make in (v4, v6)] * 2


@case
def flows_that_ended_leave_their_room():
    early = [make(tcp(sport=port)) for port in range(40000, 40004) for make in (v4, v6)]
    other = both(tcp(sport=40004))
    late = [31 * S + 1] * 2 + [31 * S + 2] * 2
    return at([S] * 10 + late, [*early, *other, *other, *early[:2]])


# Capture formats.


@case
def an_empty_capture_has_nothing_to_say():
    return []


@case(write=captures.microseconds)
def microseconds_become_nanoseconds():
    return at([S, 31 * S, 61 * S + US], [v4()] * 3)


@case(write=captures.big_endian)
def a_big_endian_capture_reads_the_same():
    return at([S, 31 * S, 61 * S + 1], [v4()] * 3)


@case(write=captures.big_endian_microseconds)
def a_big_endian_capture_in_microseconds_reads_the_same():
    return [Frame(v4(tcp(bytes(1000))), S, 54), *at([31 * S, 61 * S + US], [v4()] * 2)]


@case(name_in="in.pcap.gz", write=captures.gzipped)
def a_compressed_capture_reads_the_same():
    return at([S, 31 * S, 61 * S + 1], [v4()] * 3)


@case(name_in="in.pcapng", write=captures.pcapng)
def pcapng_interfaces_have_their_own_clocks():
    return at([S + US, S + US + 1, S + S // 2, 30 * S + US, 30 * S + US + 1, 31 * S], [v4()] * 6)


@case(name_in="in.pcapng", write=captures.big_endian_pcapng)
def a_big_endian_pcapng_reads_the_same():
    return [Frame(v4(tcp(bytes(1000))), S, 54), *at([31 * S, 61 * S + S // 2], [v4()] * 2)]


@case
def stamps_of_this_century_keep_their_nanoseconds():
    start_ns = 1_767_225_599 * S + 999_999_999
    return at([start_ns, start_ns + 1, start_ns + 30 * S + 2], [v4(), v4(), v4()])


# The expected output.


def checksum(packet):
    """The checksum that scapy gives the IPv4 header of a packet."""
    header = packet.copy()[IP]
    del header.chksum
    return IP(bytes(header)).chksum


def identified(function, wanted):
    """An IPv4 identification for which the function gives what is wanted."""
    seed = function(0)
    for guess in ((seed - wanted) % 0xFFFF, 0xFFFF):
        if function(guess) == wanted:
            return guess
    raise ValueError(f"no identification gives {wanted:#06x}")


def marked(packet, dscp):
    """The packet with this DSCP: the same layers built again.

    A checksum that the input states is wrong by some amount, and has to stay wrong by the same
    amount in ones' complement: RFC 1624 corrects for what was changed and repairs nothing.
    """
    packet = packet.copy()
    header = next(layer for layer in layers(packet) if isinstance(layer, (IP, IPv6)))
    if isinstance(header, IPv6):
        header.tc = dscp << 2 | header.tc & 3
        return packet
    if header.tos >> 2 == dscp:
        return packet
    before = checksum(packet)
    header.tos = dscp << 2 | header.tos & 3
    if header.chksum is not None:
        error = (header.chksum - before) % 0xFFFF
        header.chksum = (checksum(packet) + error) % 0xFFFF if error else None
    return packet


def layers(packet):
    while isinstance(packet, Packet) and packet.name != "NoPayload":
        yield packet
        packet = packet.payload


def expectations(text, count):
    """`dscp = "40*18 10 -"` as a list: a number for each packet, None for one that stays."""
    marks = []
    for word in text.split():
        times, _, mark = word.rpartition("*")
        marks += [None if mark == "-" else int(mark)] * int(times or 1)
    if len(marks) != count:
        raise ValueError(f"dscp names {len(marks)} packets, the capture has {count}")
    return marks


def files(name):
    """The captures of a case by file name."""
    if name in routed.CASES:
        yield from routed_files(routed.CASES[name]())
        return
    function, name_in, write = CASES[name]
    made = function()
    lan, wan = made if isinstance(made, tuple) else (made, None)
    lan = paced(lan)
    statement = tomllib.loads((HERE / name / "case.toml").read_text())
    marks = expectations(statement["dscp"], len(lan))
    out = [
        frame.record(None if mark is None else marked(frame.packet, mark))
        for frame, mark in zip(lan, marks)
    ]
    yield name_in, write([frame.record() for frame in lan])
    yield "out.pcap", captures.pcap(out)
    if wan is not None:
        records = [frame.record() for frame in wan]
        yield "wan-in.pcap", captures.pcap(records)
        yield "lan-out.pcap", captures.pcap(records)


def routed_files(made):
    """A side without packets has no input; both have an output."""
    sides = {made.name_in: made.lan, "wan-in.pcap": made.wan, "out.pcap": made.wan_out, "lan-out.pcap": made.lan_out}
    for file, packets in sides.items():
        if packets or not file.endswith(("in.pcap", made.name_in)):
            yield file, made.write([frame.record() for frame in paced(packets)])


def main(arguments):
    check = "--check" in arguments
    known = {**CASES, **routed.CASES}
    names = [name for name in arguments if name != "--check"] or sorted(known)
    folders = {path.parent.name for path in HERE.glob("*/case.toml")}
    wrong = [f"{name}: a folder without a function" for name in sorted(folders - set(known))]
    for name in names:
        try:
            made = dict(files(name))
        except (ValueError, OSError) as error:
            wrong.append(f"{name}: {error}")
            continue
        for file, content in made.items():
            path = HERE / name / file
            if not check:
                path.write_bytes(content)
            elif not path.exists() or path.read_bytes() != content:
                wrong.append(f"{name}/{file} is not what this script makes")
        for path in (HERE / name).iterdir():
            if path.name not in {*made, "case.toml"}:
                wrong.append(f"{name}/{path.name} belongs to no case")
    for line in wrong:
        print(f"make.py: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
