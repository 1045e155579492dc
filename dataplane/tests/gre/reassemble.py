#!/usr/bin/env python3
"""Reassembles the IPv4 datagrams of a capture with scapy, after it has judged each header checksum.

Prints a line for each: identification and data in hexadecimal digits.
"""

import sys

from scapy.layers.inet import IP, defragment
from scapy.utils import rdpcap


def main():
    fragments = [packet[IP] for packet in rdpcap(sys.argv[1])]
    for fragment in fragments:
        written = fragment.chksum
        again = fragment.copy()
        del again.chksum
        assert IP(bytes(again)).chksum == written, fragment.summary()
        assert len(fragment) == fragment.len, fragment.summary()
    for packet in defragment(fragments):
        assert packet.frag == 0 and not packet.flags.MF, packet.summary()
        print(packet.id, bytes(packet[IP].payload).hex())


main()
