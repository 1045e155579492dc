/* A tap: takes every frame, notes in front of it when it came, and gives it to the reader.
 *
 *     data_meta              data
 *     | struct note, 32 bytes | frame ...
 *
 * A frame that no socket takes is left to the kernel and counted; none is dropped here. Without room for the note
 * the frame goes without, and the reader finds no mark.
 *
 * tap_bound is bound to one interface and asks its driver; tap_plain asks nobody. No header of the system is used:
 * what is needed of the kernel's interface is declared here.
 */

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
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
static long (*bpf_xdp_adjust_meta)(struct xdp_md *context, int delta) = (void *)54;
static __u64 (*bpf_ktime_get_tai_ns)(void) = (void *)208;

/* Of the driver, Documentation/networking/xdp-rx-metadata.rst: the NIC's stamp since Linux 6.3, the VLAN tag that the NIC
 * took off since 6.8. */
#define KERNEL_FUNCTION __attribute__((section(".ksyms")))
extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *context, __u64 *timestamp) KERNEL_FUNCTION;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *context, __u16 *type, __u16 *tag) KERNEL_FUNCTION
	__attribute__((weak));

/* libbpf reads maps from BTF: numbers are array lengths, types are pointers. */
#define SECTION(name) __attribute__((section(name), used))
#define NUMBER(field, value) int(*field)[value]
#define TYPE(field, value) value *field
#define INLINE static inline __attribute__((always_inline))

/* note.rs reads it. */
struct note {
	__u64 nic_ns;		/* what the driver calls the NIC's stamp; means something if nic_result is 0 */
	__u64 program_ns;	/* when this program ran, by CLOCK_TAI */
	__u32 mark;
	__s32 nic_result;	/* what the driver answered: 0, or a negative error number */
	__u16 vlan_type;	/* of the tag that was taken off, as on the wire; 0: none was */
	__u16 vlan_tag;
	__u32 unused;
};

enum { MARK = 0x6c616e65 };

/* Nobody was asked: EOPNOTSUPP. */
enum { NOT_ASKED = -95 };

/* The sockets, by receive queue. The loader sets the number of entries. */
struct {
	NUMBER(type, BPF_MAP_TYPE_XSKMAP);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, __u32);
} sockets SECTION(".maps");

/* The order is program.rs's. */
enum counter { FRAMES, NO_SOCKET, COUNTERS };

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, COUNTERS);
	TYPE(key, __u32);
	TYPE(value, __u64);
} counters SECTION(".maps");

INLINE void count(__u32 counter)
{
	__u64 *frames = bpf_map_lookup_elem(&counters, &counter);

	if (frames)
		*frames += 1;
}

INLINE void write_note(struct xdp_md *context, const struct note *from)
{
	struct note *note;

	if (bpf_xdp_adjust_meta(context, -(int)sizeof(*note)))
		return;
	note = (struct note *)(unsigned long)context->data_meta;
	/* The verifier wants it in writing. */
	if ((void *)(note + 1) > (void *)(unsigned long)context->data)
		return;
	*note = *from;
}

INLINE int give_to_reader(struct xdp_md *context)
{
	/* The third argument is what the helper returns when the queue has no socket. */
	long action = bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);

	if (action == XDP_PASS)
		count(NO_SOCKET);
	return action;
}

SECTION("xdp")
int tap_bound(struct xdp_md *context)
{
	struct note note = { .program_ns = bpf_ktime_get_tai_ns(), .mark = MARK };

	count(FRAMES);
	note.nic_result = bpf_xdp_metadata_rx_timestamp(context, &note.nic_ns);
	if (bpf_xdp_metadata_rx_vlan_tag &&
	    bpf_xdp_metadata_rx_vlan_tag(context, &note.vlan_type, &note.vlan_tag))
		note.vlan_type = 0;
	write_note(context, &note);
	return give_to_reader(context);
}

SECTION("xdp")
int tap_plain(struct xdp_md *context)
{
	struct note note = { .program_ns = bpf_ktime_get_tai_ns(), .mark = MARK, .nic_result = NOT_ASKED };

	count(FRAMES);
	write_note(context, &note);
	return give_to_reader(context);
}

/* The kernel lets only programs whose licence is compatible with the GPL call its functions. */
char program_license[] SECTION("license") = "Dual MIT/GPL";
