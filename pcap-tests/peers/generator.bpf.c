/* Floods a veth with TCP packets, when run as live frames (BPF_PROG_TEST_RUN with
 * BPF_F_TEST_XDP_LIVE_FRAMES): the kernel hands it one page after the other, and it writes all headers and
 * redirects. A frame it gets has the headers of an earlier packet, as changed by whoever received that.
 *
 * Packet n belongs to flow `random(n) % flows`. A flow's number, times an odd constant, gives the lower half
 * of the source address and the source port, so that flows are distinct and look random.
 */

#include "bpf.h"

/* Packets between two looks at the clock: the kernel's own batch of live frames. */
enum { BATCH = 64 };
/* TCP sequence number of packet `state.packets`; whoever wants packets that differ defines another. */
#ifndef SEQUENCE
#define SEQUENCE 0
#endif
/* Time behind its schedule that the generator makes up for. */
enum { LAG_MAX_NS = 100000 };
enum { WAIT_ROUNDS_MAX = 1 << 22 };

struct {
	__u16 destination_mac[3];
	__u16 source_mac[3];
	__u32 interface;
	__u32 flows;
} settings SECTION(".data.settings");

/* Time for a batch, or 0 for as fast as it goes. */
__u64 batch_ns SECTION(".data.pace");

struct {
	__u64 packets;
	__u64 random;
	__u64 next_ns;
} state SECTION(".data.state");

static long wait(__u32 round, __u64 *now_ns)
{
	(void)round;
	*now_ns = bpf_ktime_get_ns();
	return *now_ns >= state.next_ns;
}

INLINE void keep_pace(void)
{
	__u64 now_ns = 0;

	bpf_loop(WAIT_ROUNDS_MAX, wait, &now_ns, 0);
	if (now_ns > state.next_ns + LAG_MAX_NS)
		state.next_ns = now_ns;
	state.next_ns += batch_ns;
}

/* Xorshift; uniform on 0 to flows - 1. */
INLINE __u32 pick_flow(void)
{
	__u64 random = state.random;

	random ^= random << 13;
	random ^= random >> 7;
	random ^= random << 17;
	state.random = random;
	return (__u32)(((random >> 32) * settings.flows) >> 32);
}

SECTION("xdp")
int generate(struct xdp_md *context)
{
	struct headers *packet = (struct headers *)(unsigned long)context->data;
	const void *data_end = (const void *)(unsigned long)context->data_end;
	__u32 scattered, sum;

	if ((const void *)(packet + 1) > data_end)
		return XDP_DROP;
	if (batch_ns && state.packets % BATCH == 0)
		keep_pace();
	scattered = pick_flow() * 0x9e3779b1u;

	for (int i = 0; i < 3; i++) {
		packet->destination_mac[i] = settings.destination_mac[i];
		packet->source_mac[i] = settings.source_mac[i];
	}
	packet->ethertype = BIG_ENDIAN_16(ETHERTYPE_IPV4);
	packet->version_and_length = 0x45;
	packet->type_of_service = 0;
	packet->total_length = BIG_ENDIAN_16((__u16)((const __u8 *)data_end - (const __u8 *)packet - 14));
	packet->identification = 0;
	packet->fragment = BIG_ENDIAN_16(0x4000);
	packet->time_to_live = 64;
	packet->protocol = PROTOCOL_TCP;
	packet->checksum = 0;
	/* 10.1.x.x to 10.2.0.2 */
	packet->source[0] = BIG_ENDIAN_16(0x0a01);
	packet->source[1] = (__u16)(scattered >> 16);
	packet->destination[0] = BIG_ENDIAN_16(0x0a02);
	packet->destination[1] = BIG_ENDIAN_16(0x0002);
	sum = 0x45 + packet->total_length + packet->fragment + 64 + (PROTOCOL_TCP << 8) + packet->source[0] +
	      packet->source[1] + packet->destination[0] + packet->destination[1];
	packet->checksum = (__u16)~fold(sum);
	packet->source_port = (__u16)scattered;
	packet->destination_port = BIG_ENDIAN_16(443);
	packet->sequence = SEQUENCE;
	packet->acknowledgement = 0;
	packet->data_offset = 0x50;
	packet->flags = 0x10;
	packet->window = 0xffff;
	packet->tcp_checksum = 0;
	packet->urgent = 0;

	state.packets++;
	return bpf_redirect(settings.interface, 0);
}

char program_license[] SECTION("license") = "MIT OR Apache-2.0";
