/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Receive-side scaling as src/sensor/rss.rs has it: Toeplitz under a key that repeats every 16 bits, then a table of
 * 128 entries, filled round robin.
 *
 * Toeplitz is linear, and under such a key the place of a 16-bit word does not matter: the hash of addresses and ports
 * is that of the exclusive or of all their words. So one word is hashed, whatever the version of IP: 16 steps, where
 * the general form takes 96 or 288, or 36 KiB of tables.
 */
#ifndef FLOWSCOPE_RSS_H
#define FLOWSCOPE_RSS_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* The first 16 bits of the key, and all others. */
#define RSS_KEY_WORD 0x6d5a
#define RSS_TABLE_LEN 128

/* The lower half of the hash (the upper half is the same) of a word in network order. */
static __always_inline __u16 rss_hash(__u16 words)
{
	__u32 input = bpf_ntohs(words);
	/* Bit i of the word meets the key from its bit i on. */
	__u32 window = RSS_KEY_WORD << 16 | RSS_KEY_WORD;
	__u32 hash = 0, bit;
	int i;

#pragma unroll
	for (i = 0; i < 16; i++) {
		bit = input >> (15 - i) & 1;
		/*
		 * Or the compiler makes a mask of it, and the verifier looks at both values of each of the 16, one
		 * after the other: 65 536 ways.
		 */
		asm volatile("" : "+r"(bit));
		hash ^= (window >> (16 - i)) * bit;
	}
	return hash;
}

/*
 * Which of its queue's sockets a flow belongs to.
 *
 * The table is one over all sockets of all queues, and socket s of queue q is its entry s * queues + q: so a NIC that
 * spreads over its queues by the same hash and a table of its own, round robin, picks the same queue.
 */
static __always_inline __u32 rss_socket(__u16 hash, __u32 queues, __u32 sockets_per_queue)
{
	return hash % RSS_TABLE_LEN % (queues * sockets_per_queue) / queues;
}

#endif
