/* Routed mode: decides, before the kernel or the worker sees a frame, whose it is.
 *
 *     destination is not this port's own MAC address        -> kernel   counted: other_link
 *     neither IPv4 nor IPv6, or behind a VLAN tag           -> kernel   counted: not_ip
 *     destination in no prefix that the gateway serves      -> kernel   counted: other_destination
 *     an address of this machine, and not a tunnel's packet -> kernel   counted: own_address
 *     a tunnel's packet that is a fragment                  -> kernel   counted: fragment
 *     longer than a frame with room for encapsulation       -> kernel   counted: oversize
 *     a worker's socket serves this queue                   -> worker
 *     none does                                             -> kernel   counted: no_socket
 *
 * "Kernel" is XDP_PASS: ARP, neighbour discovery, SSH, BGP, whatever the kernel routes by itself, and everything
 * when no worker runs. No frame is dropped here.
 *
 * A tunnel's packet is one to our end of it with GRE, or UDP to the port of GRE-in-UDP, or an ICMP error about
 * such a packet. One with IPv4 options or IPv6 extension headers is not: nobody sends tunnels that way, and to look
 * behind them needs packet pointers with variable offsets, which the verifier forbids without CAP_PERFMON.
 */

#include "kernel.bpf.h"

#define BIG_ENDIAN_16(number) __builtin_bswap16(number)

enum {
	IPV4 = BIG_ENDIAN_16(0x0800),
	IPV6 = BIG_ENDIAN_16(0x86dd),
	IPV4_HEADER_BYTES = 20,
	IPV6_HEADER_BYTES = 40,
	ICMP_HEADER_BYTES = 8,
	/* An ICMP error quotes an IP header and at least this much of what follows it. */
	QUOTED_BYTES_MIN = 8,
	VERSION_4_WITHOUT_OPTIONS = 0x45,
	MORE_FRAGMENTS_OR_OFFSET = BIG_ENDIAN_16(0x3fff),
	PROTOCOL_ICMP = 1,
	PROTOCOL_UDP = 17,
	PROTOCOL_IPV6_FRAGMENT = 44,
	PROTOCOL_GRE = 47,
	PROTOCOL_ICMPV6 = 58,
	GRE_IN_UDP_PORT = BIG_ENDIAN_16(4754),	/* RFC 8086 */
	/* IPv6 header, UDP header, GRE header with checksum, key and sequence number. */
	ENCAPSULATION_BYTES_MAX = 40 + 8 + 16,
};

/* What the gateway does with a destination. The longest prefix decides; the values are the loader's. */
enum {
	FORWARDED = 1,	/* it routes it */
	TUNNEL_GRE = 2,	/* it is our end of a GRE tunnel */
	TUNNEL_UDP = 4,	/* it is our end of a GRE-in-UDP tunnel */
	/* 0: an address of this machine */
};

/* Not a reason: the frame is the worker's. */
enum { OURS = REASONS };

struct ipv4_key {
	__u32 prefix_bits;
	__u32 address;
};

struct ipv6_key {
	__u32 prefix_bits;
	__u32 address[4];
};

/* DESTINATIONS_MAX of the loader. */
enum { DESTINATIONS_MAX = 16384 };

struct {
	NUMBER(type, BPF_MAP_TYPE_LPM_TRIE);
	NUMBER(max_entries, DESTINATIONS_MAX);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct ipv4_key);
	TYPE(value, __u32);
} ipv4_routed SECTION(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_LPM_TRIE);
	NUMBER(max_entries, DESTINATIONS_MAX);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct ipv6_key);
	TYPE(value, __u32);
} ipv6_routed SECTION(".maps");

/* Whether a transport header begins a tunnel's packet. The caller has checked that 8 bytes of it are there. */
INLINE int is_tunnel(__u32 tunnels, __u8 protocol, const __u8 *header)
{
	if (protocol == PROTOCOL_GRE)
		return tunnels & TUNNEL_GRE;
	if (protocol == PROTOCOL_UDP)
		return tunnels & TUNNEL_UDP && *(const __u16 *)(header + 2) == GRE_IN_UDP_PORT;
	return 0;
}

INLINE __u32 ipv4_tunnel(__u32 tunnels, const __u8 *ip, const __u8 *data_end)
{
	const __u8 *payload = ip + IPV4_HEADER_BYTES;
	const __u8 *quoted = payload + ICMP_HEADER_BYTES;
	__u8 protocol = ip[9];
	int is_fragment = *(const __u16 *)(ip + 6) & MORE_FRAGMENTS_OR_OFFSET;

	if (ip[0] != VERSION_4_WITHOUT_OPTIONS || payload + QUOTED_BYTES_MIN > data_end)
		return OWN_ADDRESS;
	if (is_fragment) {
		if (protocol == PROTOCOL_GRE && tunnels & TUNNEL_GRE)
			return FRAGMENT;
		/* Of a later fragment the port is not known. */
		if (protocol == PROTOCOL_UDP && tunnels & TUNNEL_UDP)
			return FRAGMENT;
		return OWN_ADDRESS;
	}
	if (is_tunnel(tunnels, protocol, payload))
		return OURS;
	if (protocol != PROTOCOL_ICMP)
		return OWN_ADDRESS;
	/* Destination unreachable, time exceeded, parameter problem. */
	if (payload[0] != 3 && payload[0] != 11 && payload[0] != 12)
		return OWN_ADDRESS;
	if (quoted + IPV4_HEADER_BYTES + QUOTED_BYTES_MIN > data_end)
		return OWN_ADDRESS;
	if (quoted[0] == VERSION_4_WITHOUT_OPTIONS &&
	    is_tunnel(tunnels, quoted[9], quoted + IPV4_HEADER_BYTES))
		return OURS;
	return OWN_ADDRESS;
}

INLINE __u32 ipv6_tunnel(__u32 tunnels, const __u8 *ip, const __u8 *data_end)
{
	const __u8 *payload = ip + IPV6_HEADER_BYTES;
	const __u8 *quoted = payload + ICMP_HEADER_BYTES;
	__u8 protocol = ip[6];

	if (payload + QUOTED_BYTES_MIN > data_end)
		return OWN_ADDRESS;
	if (protocol == PROTOCOL_IPV6_FRAGMENT) {
		/* Its own next header says what it is a fragment of. */
		if (payload[0] == PROTOCOL_GRE && tunnels & TUNNEL_GRE)
			return FRAGMENT;
		if (payload[0] == PROTOCOL_UDP && tunnels & TUNNEL_UDP)
			return FRAGMENT;
		return OWN_ADDRESS;
	}
	if (is_tunnel(tunnels, protocol, payload))
		return OURS;
	/* Destination unreachable, packet too big, time exceeded, parameter problem. */
	if (protocol != PROTOCOL_ICMPV6 || payload[0] < 1 || payload[0] > 4)
		return OWN_ADDRESS;
	if (quoted + IPV6_HEADER_BYTES + QUOTED_BYTES_MIN > data_end)
		return OWN_ADDRESS;
	if (quoted[0] >> 4 == 6 && is_tunnel(tunnels, quoted[6], quoted + IPV6_HEADER_BYTES))
		return OURS;
	return OWN_ADDRESS;
}

INLINE __u32 ipv4(const __u8 *ip, const __u8 *data_end)
{
	struct ipv4_key key = { .prefix_bits = 32 };
	__u32 *use;

	if (ip + IPV4_HEADER_BYTES > data_end)
		return NOT_IP;
	key.address = *(const __u32 *)(ip + 16);
	use = bpf_map_lookup_elem(&ipv4_routed, &key);
	if (!use)
		return OTHER_DESTINATION;
	if (*use & FORWARDED)
		return OURS;
	return ipv4_tunnel(*use, ip, data_end);
}

INLINE __u32 ipv6(const __u8 *ip, const __u8 *data_end)
{
	struct ipv6_key key = { .prefix_bits = 128 };
	const __u32 *destination = (const __u32 *)(ip + 24);
	__u32 *use;

	if (ip + IPV6_HEADER_BYTES > data_end)
		return NOT_IP;
	key.address[0] = destination[0];
	key.address[1] = destination[1];
	key.address[2] = destination[2];
	key.address[3] = destination[3];
	use = bpf_map_lookup_elem(&ipv6_routed, &key);
	if (!use)
		return OTHER_DESTINATION;
	if (*use & FORWARDED)
		return OURS;
	return ipv6_tunnel(*use, ip, data_end);
}

INLINE int is_too_long(const __u8 *data, const __u8 *data_end)
{
	if (port.encapsulates)
		return is_longer(data, data_end, SMALL_FRAME_BYTES_MAX - ENCAPSULATION_BYTES_MAX,
				 LARGE_FRAME_BYTES_MAX - ENCAPSULATION_BYTES_MAX);
	return is_longer(data, data_end, SMALL_FRAME_BYTES_MAX, LARGE_FRAME_BYTES_MAX);
}

SECTION("xdp")
int lanesplit(struct xdp_md *context)
{
	const __u8 *data = (const __u8 *)(unsigned long)context->data;
	const __u8 *data_end = (const __u8 *)(unsigned long)context->data_end;
	const __u8 *ip = data + ETHERNET_HEADER_BYTES;
	__u32 reason = NOT_IP;
	__u16 type;

	/* Drivers do not hand over less; the verifier wants it in writing. */
	if (ip > data_end)
		return XDP_PASS;

	if (!is_for_this_port(data))
		return leave_to_kernel(OTHER_LINK);

	type = *(const __u16 *)(data + 12);
	if (type == IPV4)
		reason = ipv4(ip, data_end);
	else if (type == IPV6)
		reason = ipv6(ip, data_end);
	if (reason != OURS)
		return leave_to_kernel(reason);

	if (is_too_long(data, data_end))
		return leave_to_kernel(OVERSIZE);

	return give_to_worker(context);
}
