"""Capture files, written byte for byte: what make.py needs of pcap and pcapng.

Every writer takes records and returns the file's bytes. Nothing here depends on the clock or on
chance, so the same records always give the same file.
"""

import gzip
import struct
from dataclasses import dataclass

ETHERNET = 1


@dataclass(frozen=True)
class Frame:
    """A frame as a capture record keeps it."""

    packet: object  # a scapy packet, or bytes
    at_ns: int
    kept: int | None = None  # bytes kept of it, when a snap length cut it short

    def record(self, packet=None):
        """(time, bytes kept, original length), with `packet` in place of our own."""
        whole = bytes(self.packet if packet is None else packet)
        return self.at_ns, whole[: self.kept], len(whole)


def pcap(records, *, order="<", unit_ns=1):
    """draft-ietf-opsawg-pcap, with stamps in nanoseconds or microseconds."""
    magic = {1: 0xA1B23C4D, 1000: 0xA1B2C3D4}[unit_ns]
    file = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, ETHERNET)
    for at_ns, kept, wire in records:
        assert at_ns % unit_ns == 0, f"{at_ns} ns does not fit a stamp in units of {unit_ns} ns"
        seconds, rest_ns = divmod(at_ns, 1_000_000_000)
        file += struct.pack(order + "IIII", seconds, rest_ns // unit_ns, len(kept), wire) + kept
    return file


def microseconds(records):
    return pcap(records, unit_ns=1000)


def big_endian(records):
    return pcap(records, order=">")


def big_endian_microseconds(records):
    return pcap(records, order=">", unit_ns=1000)


def gzipped(records):
    return gzip.compress(pcap(records), mtime=0)


def pcapng(records, *, order="<"):
    """draft-ietf-opsawg-pcapng: three interfaces with three clock resolutions, used in turn.

    Microseconds because nothing is said, nanoseconds, and 1/1024 of a second. A name resolution
    block and blocks of a type nobody knows stand between the packets: a reader skips them.
    """
    resolutions = [(None, 1_000_000), (9, 1_000_000_000), (0x8A, 1024)]
    file = _block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    for code, _ in resolutions:
        body = struct.pack(order + "HHI", ETHERNET, 0, 0)
        if code is not None:
            body += struct.pack(order + "HHB3xHH", 9, 1, code, 0, 0)
        file += _block(order, 1, body)
    file += _block(order, 4, struct.pack(order + "HH", 0, 0))
    for number, (at_ns, kept, wire) in enumerate(records):
        interface = number % len(resolutions)
        stamp, rest = divmod(at_ns * resolutions[interface][1], 1_000_000_000)
        assert rest == 0, f"{at_ns} ns does not fit the clock of interface {interface}"
        fields = (interface, stamp >> 32, stamp & 0xFFFFFFFF, len(kept), wire)
        file += _block(order, 6, struct.pack(order + "IIIII", *fields) + kept)
        file += _block(order, 0x80000042, b"no reader knows this block")
    return file


def big_endian_pcapng(records):
    return pcapng(records, order=">")


def _block(order, kind, body):
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length
