"""ICMP errors about gateway A's tunnel packets that no router has sent: each is wrong in one way.

    forge.py INTERFACE MAC SEQUENCE

MAC is that of the gateway's WAN port, SEQUENCE a number that it has sent of late in the short lane, whose key is 1.
"""

import sys

from scapy.all import GRE, ICMP, IP, TCP, Ether, get_if_hwaddr, raw, sendp

interface, mac, sequence = sys.argv[1], sys.argv[2], int(sys.argv[3])


def quoted(ip=None, gre=None, length=1500):
    fields = dict(src="192.0.2.1", dst="198.51.100.1", proto=47, ttl=63, flags="DF", len=length)
    fields.update(ip or {})
    options = dict(proto=0x0800, key_present=1, key=1, seqnum_present=1, sequence_number=sequence)
    options.update(gre or {})
    inner = IP(src="10.1.0.2", dst="10.2.0.2", flags="DF", len=1468) / TCP()
    return raw(IP(**fields) / GRE(**options) / inner)


def error(quotation, mtu=1200, kind=(3, 4), **fields):
    message = ICMP(type=kind[0], code=kind[1], nexthopmtu=mtu, **fields)
    ethernet = Ether(src=get_if_hwaddr(interface), dst=mac)
    return ethernet / IP(src="192.0.2.11", dst="192.0.2.1") / message / quotation


forgeries = [
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
sendp(forgeries, iface=interface, verbose=False)
