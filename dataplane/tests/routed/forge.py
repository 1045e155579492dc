"""ICMP errors about gateway A's tunnel packets that no router has sent: each is wrong in one way.

    forge.py INTERFACE MAC SEQUENCE FAMILY

MAC is that of the gateway's WAN port, SEQUENCE a number that it has sent of late in the short lane, whose key is 1;
FAMILY, 4 or 6, is that of the tunnels' outer headers.
"""

import sys

from scapy.all import (GRE, ICMP, IP, TCP, Ether, ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6ParamProblem,
    ICMPv6TimeExceeded, IPv6, get_if_hwaddr, raw, sendp)

interface, mac, sequence, family = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
ethernet = Ether(src=get_if_hwaddr(interface), dst=mac)


def behind(gre, bytes_inside):
    options = dict(proto=0x0800, key_present=1, key=1, seqnum_present=1, sequence_number=sequence)
    options.update(gre or {})
    return GRE(**options) / IP(src="10.1.0.2", dst="10.2.0.2", flags="DF", len=bytes_inside) / TCP()


def quoted(ip=None, gre=None, length=1500):
    fields = dict(src="192.0.2.1", dst="198.51.100.1", proto=47, ttl=63, flags="DF", len=length)
    fields.update(ip or {})
    return raw(IP(**fields) / behind(gre, 1468))


def error(quotation, mtu=1200, kind=(3, 4), **fields):
    message = ICMP(type=kind[0], code=kind[1], nexthopmtu=mtu, **fields)
    return ethernet / IP(src="192.0.2.11", dst="192.0.2.1") / message / quotation


def quoted_v6(ip=None, gre=None, length=1500):
    fields = dict(src="2001:db8:a::1", dst="2001:db8:b::1", nh=47, hlim=63, plen=length - 40)
    fields.update(ip or {})
    return raw(IPv6(**fields) / behind(gre, 1448))


def error_v6(quotation, mtu=1300, message=None, **fields):
    message = message or ICMPv6PacketTooBig(mtu=mtu, **fields)
    return ethernet / IPv6(src="2001:db8:a::11", dst="2001:db8:a::1") / message / quotation


FORGERIES = [
    # not_ours: another destination, another source, no DF, longer than any packet sent.
    error(quoted(ip=dict(dst="198.51.100.9"))),
    error(quoted(ip=dict(src="192.0.2.7"))),
    error(quoted(ip=dict(flags=0))),
    error(quoted(length=1501)),
    # key: another one, and none.
    error(quoted(gre=dict(key=7))),
    error(quoted(gre=dict(key_present=0))),
    # sequence: not sent yet, and sent very long ago.
    error(quoted(gre=dict(sequence_number=(sequence + 1_000_000) % 2**32))),
    error(quoted(gre=dict(sequence_number=(sequence - 1_000_000) % 2**32))),
    # out_of_bounds: less than any WAN has, and more than would have been in the way.
    error(quoted(), mtu=68),
    error(quoted(), mtu=1500),
    # checksum
    error(quoted(), chksum=0x1234),
    # other_kind: port unreachable, time exceeded.
    error(quoted(), kind=(3, 3)),
    error(quoted(), kind=(11, 0)),
]

FORGERIES_V6 = [
    # not_ours: another destination, another source, a hop limit above ours, longer than any packet sent.
    error_v6(quoted_v6(ip=dict(dst="2001:db8:b::9"))),
    error_v6(quoted_v6(ip=dict(src="2001:db8:a::7"))),
    error_v6(quoted_v6(ip=dict(hlim=65))),
    error_v6(quoted_v6(length=1501)),
    # key
    error_v6(quoted_v6(gre=dict(key=7))),
    error_v6(quoted_v6(gre=dict(key_present=0))),
    # sequence
    error_v6(quoted_v6(gre=dict(sequence_number=(sequence + 1_000_000) % 2**32))),
    error_v6(quoted_v6(gre=dict(sequence_number=(sequence - 1_000_000) % 2**32))),
    # out_of_bounds: less than any link of IPv6 has, what fits, and a number whose lower half alone is in bounds.
    error_v6(quoted_v6(), mtu=1279),
    error_v6(quoted_v6(), mtu=1500),
    error_v6(quoted_v6(), mtu=2**16 + 1300),
    # checksum
    error_v6(quoted_v6(), cksum=0x1234),
    # other_kind: port unreachable, time exceeded, a header not understood.
    error_v6(quoted_v6(), message=ICMPv6DestUnreach(code=4)),
    error_v6(quoted_v6(), message=ICMPv6TimeExceeded()),
    error_v6(quoted_v6(), message=ICMPv6ParamProblem()),
]

sendp(FORGERIES_V6 if family == "6" else FORGERIES, iface=interface, verbose=False)
