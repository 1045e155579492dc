/* What both programs need of the kernel's stable interface, and what they have in common.
 *
 * No header of the system is used: what is needed of it is declared here.
 */

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

/* linux/bpf.h */
struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

enum { XDP_PASS = 2 };
enum { BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_LPM_TRIE = 11, BPF_MAP_TYPE_XSKMAP = 17 };
enum { BPF_F_NO_PREALLOC = 1 };

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;

/* libbpf reads maps from BTF: numbers are array lengths, types are pointers. */
#define SECTION(name) __attribute__((section(name), used))
#define NUMBER(field, value) int(*field)[value]
#define TYPE(field, value) value *field
#define INLINE static inline __attribute__((always_inline))

enum { ETHERNET_HEADER_BYTES = 14 };

/* Longest Ethernet frames that fit: the kernel keeps 256 bytes of each frame of packet memory. */
enum { SMALL_FRAME_BYTES_MAX = 2048 - 256, LARGE_FRAME_BYTES_MAX = 4096 - 256 };

/* Written by the loader, constant once loaded. */
struct port {
	__u16 address[3];	/* the port's own MAC address, bytes as on the wire */
	__u8 large_frames;	/* whether frames of packet memory have 4096 bytes; if not, 2048 */
	__u8 encapsulates;	/* whether what comes in here may leave in a tunnel */
};
const volatile struct port port = {};

/* The sockets, by receive queue. The loader sets the number of entries. */
struct {
	NUMBER(type, BPF_MAP_TYPE_XSKMAP);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, __u32);
} sockets SECTION(".maps");

/* Why a frame is left to the kernel. The order is the loader's `KernelCounters`. */
enum reason {
	OWN_ADDRESS,
	OVERSIZE,
	NO_SOCKET,
	OTHER_LINK,
	NOT_IP,
	OTHER_DESTINATION,
	FRAGMENT,
	REASONS
};

/* Frames left to the kernel, by reason. */
struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, REASONS);
	TYPE(key, __u32);
	TYPE(value, __u64);
} counters SECTION(".maps");

INLINE int leave_to_kernel(__u32 reason)
{
	__u64 *frames = bpf_map_lookup_elem(&counters, &reason);

	if (frames)
		*frames += 1;
	return XDP_PASS;
}

INLINE int is_for_this_port(const __u8 *data)
{
	const __u16 *destination = (const __u16 *)data;

	return destination[0] == port.address[0] && destination[1] == port.address[1] &&
	       destination[2] == port.address[2];
}

/* Packet pointers plus constants: anything else done with them would take CAP_PERFMON. */
INLINE int is_longer(const __u8 *data, const __u8 *data_end, int small_bytes_max, int large_bytes_max)
{
	if (data + small_bytes_max >= data_end)
		return 0;
	return !port.large_frames || data + large_bytes_max < data_end;
}

INLINE int give_to_worker(const struct xdp_md *context)
{
	/* The third argument is what the helper returns when the queue has no socket. */
	long action = bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);

	if (action == XDP_PASS)
		return leave_to_kernel(NO_SOCKET);
	return action;
}

/* No helper used here is restricted to GPL programs. */
char program_license[] SECTION("license") = "MIT OR Apache-2.0";
