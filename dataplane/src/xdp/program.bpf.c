/* Decides, before the kernel or the worker sees a frame, whose it is.
 *
 *     destination is this port's own address  -> kernel   counted: own_address
 *     longer than a frame of packet memory    -> kernel   counted: oversize
 *     a worker's socket serves this queue     -> worker
 *     none does                               -> kernel   counted: no_socket
 *
 * "Kernel" is XDP_PASS: ARP, SSH or BGP to the gateway itself, and everything when no worker runs.
 * No frame is dropped here.
 *
 * The program uses no header: what it needs of the kernel's stable interface is declared here.
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
enum { BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_XSKMAP = 17 };

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;

/* libbpf reads maps from BTF: numbers are array lengths, types are pointers. */
#define SECTION(name) __attribute__((section(name), used))
#define NUMBER(field, value) int(*field)[value]
#define TYPE(field, value) value *field

enum { ETHERNET_HEADER_BYTES = 14 };

/* Longest Ethernet frames that fit: the kernel keeps 256 bytes of each frame of packet memory. */
enum { SMALL_FRAME_BYTES_MAX = 2048 - 256, LARGE_FRAME_BYTES_MAX = 4096 - 256 };

/* Written by the loader, constant once loaded. */
struct port {
	__u16 address[3];	/* the port's own MAC address, bytes as on the wire */
	__u16 large_frames;	/* whether frames of packet memory have 4096 bytes; if not, 2048 */
};
const volatile struct port port = {};

/* The sockets, by receive queue. The loader sets the number of entries. */
struct {
	NUMBER(type, BPF_MAP_TYPE_XSKMAP);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, __u32);
} sockets SECTION(".maps");

/* Frames left to the kernel, by reason. The order is the loader's `KernelCounters`. */
enum reason { OWN_ADDRESS, OVERSIZE, NO_SOCKET, REASONS };

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, REASONS);
	TYPE(key, __u32);
	TYPE(value, __u64);
} counters SECTION(".maps");

static inline __attribute__((always_inline)) int leave_to_kernel(__u32 reason)
{
	__u64 *frames = bpf_map_lookup_elem(&counters, &reason);

	if (frames)
		*frames += 1;
	return XDP_PASS;
}

/* Packet pointers plus constants: anything else done with them would take CAP_PERFMON. */
static inline __attribute__((always_inline)) int oversize(const __u8 *data, const __u8 *data_end)
{
	if (data + SMALL_FRAME_BYTES_MAX >= data_end)
		return 0;
	return !port.large_frames || data + LARGE_FRAME_BYTES_MAX < data_end;
}

SECTION("xdp")
int lanesplit(struct xdp_md *context)
{
	const __u8 *data = (const __u8 *)(unsigned long)context->data;
	const __u8 *data_end = (const __u8 *)(unsigned long)context->data_end;
	const __u16 *destination = (const __u16 *)data;
	long action;

	/* Drivers do not hand over less; the verifier wants it in writing. */
	if (data + ETHERNET_HEADER_BYTES > data_end)
		return XDP_PASS;

	if (destination[0] == port.address[0] && destination[1] == port.address[1] &&
	    destination[2] == port.address[2])
		return leave_to_kernel(OWN_ADDRESS);

	if (oversize(data, data_end))
		return leave_to_kernel(OVERSIZE);

	/* The third argument is what the helper returns when the queue has no socket. */
	action = bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);
	if (action == XDP_PASS)
		return leave_to_kernel(NO_SOCKET);
	return action;
}

/* No helper used here is restricted to GPL programs. */
char program_license[] SECTION("license") = "MIT OR Apache-2.0";
