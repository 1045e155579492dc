/* The end of the line: counts what arrives by its mark and drops it, at tc ingress or in XDP. Of every packet it
 * checks that it is one of the generator's and came over so many hops, of one in 256 the header checksum; of one flow
 * in 64 it counts short and long packets.
 */

#include "bpf.h"

struct {
	__u32 time_to_live;	/* of every packet */
} settings SECTION(".data.settings");

enum { SHORT_DSCP = 18, LONG_DSCP = 10, SAMPLED_FLOWS_MAX = 1 << 15 };

struct {
	__u64 packets;
	__u64 short_lane;
	__u64 long_lane;
	__u64 other;		/* not a packet of the generator's */
	__u64 wrong_checksums;	/* among those looked at */
	__u64 wrong_hops;
} counters SECTION(".data.counters");

struct lanes {
	__u32 short_lane;
	__u32 long_lane;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, SAMPLED_FLOWS_MAX);
	TYPE(key, __u32);
	TYPE(value, struct lanes);
} sample SECTION(".maps");

INLINE void sample_flow(const struct headers *packet, int is_short, int is_long)
{
	__u32 key = (__u32)packet->source[1] << 16 | packet->source_port;
	struct lanes none = {};
	struct lanes *lanes = bpf_map_lookup_elem(&sample, &key);

	if (!lanes) {
		bpf_map_update_elem(&sample, &key, &none, BPF_NOEXIST);
		lanes = bpf_map_lookup_elem(&sample, &key);
	}
	if (lanes) {
		lanes->short_lane += is_short;
		lanes->long_lane += is_long;
	}
}

INLINE void check_checksum(const struct headers *packet)
{
	const __u16 *words = (const __u16 *)&packet->version_and_length;
	__u32 sum = 0;

	for (int i = 0; i < 10; i++)
		sum += words[i];
	if (fold(sum) != 0xffff)
		counters.wrong_checksums++;
}

INLINE void see(const struct headers *packet, const void *data_end)
{
	__u8 dscp;

	if ((const void *)(packet + 1) > data_end || packet->ethertype != BIG_ENDIAN_16(ETHERTYPE_IPV4) ||
	    packet->version_and_length != 0x45 || packet->protocol != PROTOCOL_TCP ||
	    packet->source[0] != BIG_ENDIAN_16(0x0a01) || packet->destination[0] != BIG_ENDIAN_16(0x0a02) ||
	    packet->destination[1] != BIG_ENDIAN_16(0x0002) || packet->destination_port != BIG_ENDIAN_16(443)) {
		counters.other++;
		return;
	}
	dscp = packet->type_of_service >> 2;
	counters.packets++;
	counters.short_lane += dscp == SHORT_DSCP;
	counters.long_lane += dscp == LONG_DSCP;
	counters.wrong_hops += packet->time_to_live != settings.time_to_live;
	if (counters.packets % 256 == 0)
		check_checksum(packet);
	/* Never flow 0, which has port 0: with one flow it would be every packet. */
	if (packet->source_port % 64 == 1)
		sample_flow(packet, dscp == SHORT_DSCP, dscp == LONG_DSCP);
}

SECTION("tc")
int at_tc(struct __sk_buff *context)
{
	see((const void *)(unsigned long)context->data, (const void *)(unsigned long)context->data_end);
	return TC_ACT_SHOT;
}

SECTION("xdp")
int at_xdp(struct xdp_md *context)
{
	see((const void *)(unsigned long)context->data, (const void *)(unsigned long)context->data_end);
	return XDP_DROP;
}

char program_license[] SECTION("license") = "MIT OR Apache-2.0";
