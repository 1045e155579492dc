/* Inline mode: decides, before the kernel or the worker sees a frame, whose it is.
 *
 *     destination is this port's own address  -> kernel   counted: own_address
 *     longer than a frame of packet memory    -> kernel   counted: oversize
 *     a worker's socket serves this queue     -> worker
 *     none does                               -> kernel   counted: no_socket
 *
 * "Kernel" is XDP_PASS: ARP, SSH or BGP to the gateway itself, and everything when no worker runs.
 * No frame is dropped here.
 */

#include "kernel.bpf.h"

SECTION("xdp")
int lanesplit(struct xdp_md *context)
{
	const __u8 *data = (const __u8 *)(unsigned long)context->data;
	const __u8 *data_end = (const __u8 *)(unsigned long)context->data_end;

	/* Drivers do not hand over less; the verifier wants it in writing. */
	if (data + ETHERNET_HEADER_BYTES > data_end)
		return XDP_PASS;

	if (is_for_this_port(data))
		return leave_to_kernel(OWN_ADDRESS);

	if (is_longer(data, data_end, SMALL_FRAME_BYTES_MAX, LARGE_FRAME_BYTES_MAX))
		return leave_to_kernel(OVERSIZE);

	return give_to_worker(context);
}
