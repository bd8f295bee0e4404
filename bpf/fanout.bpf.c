// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Says which socket of a fanout group a frame goes to (PACKET_FANOUT_EBPF, packet(7)).
 *
 * Contract: the number of a worker, by the same hash and table as the XDP program and src/sensor/rss.rs; 0 for what is not IP.
 * Members of a group are numbered as they joined. The kernel takes the number modulo how many there are.
 *
 * The frame comes from behind its Ethernet header on, and without its outer VLAN tag: the type that is left is the buffer's
 * protocol. A length in its place is told as ETH_P_802_2, or ETH_P_802_3, which are lengths too.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define WALK_COPIES
#include "rss.h"
#include "walk.h"

/* Set before loading. */
const volatile __u32 workers = 1;

SEC("socket")
int fanout(struct __sk_buff *skb)
{
	__u32 copy[COPY_BYTES / 4] = {};
	struct bytes frame = { .skb = skb, .unknown = skb->len, .copy = copy };
	__u16 words = 0;

	if (!words_after(&frame, bpf_ntohs(skb->protocol), 0, &words))
		return 0;
	return rss_socket(rss_hash(words), 1, workers);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
