/* The splitter as an XDP program, as small as can be: the way the paper took. It counts the packets of each
 * IPv4 TCP flow in an LRU map, marks the packet short or long, and redirects it to the other port. Fragments, VLAN
 * tags, IPv6, IPv4 options, an idle timeout and SYN are left out.
 */

#include "bpf.h"

enum { FLOWS_MAX = 1 << 21, THRESHOLD_PACKETS = 40, SHORT_DSCP = 18, LONG_DSCP = 10 };

struct {
	__u32 interface;
} settings SECTION(".data.settings");

struct flow {
	__u32 source;
	__u32 destination;
	__u16 source_port;
	__u16 destination_port;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, FLOWS_MAX);
	TYPE(key, struct flow);
	TYPE(value, __u64);
} flows SECTION(".maps");

/* The flow's packets, this one included. */
INLINE __u64 count(const struct headers *packet)
{
	struct flow flow = {
		.source = packet->source[0] | (__u32)packet->source[1] << 16,
		.destination = packet->destination[0] | (__u32)packet->destination[1] << 16,
		.source_port = packet->source_port,
		.destination_port = packet->destination_port,
	};
	__u64 *packets = bpf_map_lookup_elem(&flows, &flow);
	__u64 one = 1;

	if (packets)
		return ++*packets;
	bpf_map_update_elem(&flows, &flow, &one, BPF_ANY);
	return 1;
}

/* RFC 1624, equation 3. The two ECN bits stay. */
INLINE void mark(struct headers *packet, __u8 dscp)
{
	__u16 *word = (__u16 *)&packet->version_and_length;
	__u16 before = *word;

	packet->type_of_service = (__u8)(dscp << 2 | (packet->type_of_service & 3));
	packet->checksum = (__u16)~fold((__u16)~packet->checksum + (__u32)(__u16)~before + *word);
}

SECTION("xdp")
int split(struct xdp_md *context)
{
	struct headers *packet = (struct headers *)(unsigned long)context->data;
	const void *data_end = (const void *)(unsigned long)context->data_end;

	if ((const void *)(packet + 1) > data_end)
		return XDP_PASS;
	if (packet->ethertype == BIG_ENDIAN_16(ETHERTYPE_IPV4) && packet->version_and_length == 0x45 &&
	    packet->protocol == PROTOCOL_TCP)
		mark(packet, count(packet) <= THRESHOLD_PACKETS ? SHORT_DSCP : LONG_DSCP);
	return bpf_redirect(settings.interface, 0);
}

/* For the kernel's own forwarding: redirecting into a veth needs a program at its other end. */
SECTION("xdp")
int pass(struct xdp_md *context)
{
	(void)context;
	return XDP_PASS;
}

char program_license[] SECTION("license") = "MIT OR Apache-2.0";
