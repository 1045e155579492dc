/* What the programs here need of the kernel's stable interface and of headers on the wire, so that they
 * use no header of the system's. */

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

/* linux/bpf.h, as far as it is read here */
struct __sk_buff {
	__u32 before[19];
	__u32 data;
	__u32 data_end;
};

enum { XDP_DROP = 1, XDP_PASS = 2 };
enum { TC_ACT_SHOT = 2 };
enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_LRU_HASH = 9 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*bpf_loop)(__u32 rounds, void *function, void *context, __u64 flags) = (void *)181;

/* libbpf reads maps from BTF: numbers are array lengths, types are pointers. */
#define SECTION(name) __attribute__((section(name), used))
#define NUMBER(field, value) int(*field)[value]
#define TYPE(field, value) value *field
#define INLINE static inline __attribute__((always_inline))

#define BIG_ENDIAN_16(value) ((__u16)__builtin_bswap16(value))
#define BIG_ENDIAN_32(value) ((__u32)__builtin_bswap32(value))

/* Ethernet, IPv4 without options and TCP, in the order of the wire; all numbers big-endian. */
struct headers {
	__u16 destination_mac[3];
	__u16 source_mac[3];
	__u16 ethertype;
	__u8 version_and_length;
	__u8 type_of_service;
	__u16 total_length;
	__u16 identification;
	__u16 fragment;
	__u8 time_to_live;
	__u8 protocol;
	__u16 checksum;
	__u16 source[2];
	__u16 destination[2];
	__u16 source_port;
	__u16 destination_port;
	__u32 sequence;
	__u32 acknowledgement;
	__u8 data_offset;
	__u8 flags;
	__u16 window;
	__u16 tcp_checksum;
	__u16 urgent;
} __attribute__((packed, aligned(2)));

enum { ETHERTYPE_IPV4 = 0x0800, PROTOCOL_TCP = 6 };

INLINE __u32 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}
