/* The generator with numbered packets, so that each can be told from all others; the numbers are so far apart that GRO
 * does not take neighbours for one segment.
 */

#define SEQUENCE ((__u32)state.packets * 0x10001u)
#include "generator.bpf.c"
