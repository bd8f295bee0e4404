// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Hands frames to the AF_XDP sockets of their queue.
 *
 * Contract: a frame is counted exactly once under `seen`, and once more under what became of it. It is redirected when
 * its socket is in the map, and passed on otherwise, as if this program were not there: while the sensor is
 * not ready, and from the moment it takes a socket out of the map. Nothing is ever dropped here.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "rss.h"
#include "walk.h"

/* Set before loading, so the verifier knows them and what is off costs nothing. */

/* Queues that the NIC spreads flows over. */
const volatile __u32 queues = 1;
const volatile __u32 sockets_per_queue = 1;
/* What is not IP is left to the kernel. */
const volatile __u8 ip_only;
/* Each frame gets the kernel's time before its first byte, as a `struct stamp`. */
const volatile __u8 stamped;
/* The longest frame that a UMEM frame has room for; 0 when longer ones are split. */
const volatile __u32 room_bytes;

/* The order is that of `Verdict` in src/capture/af_xdp/program.rs. */
struct counts {
	__u64 seen;
	/* The socket was there. What it did with the frame is told by its own statistics. */
	__u64 redirected;
	/* Longer than the socket has room for; passed on. */
	__u64 too_long;
	/* No such socket, or not any more; passed on. */
	__u64 closed;
	/* Not IP, and only IP was wanted; passed on. */
	__u64 not_ip;
};

struct stamp {
	__u64 mark;
	/* CLOCK_MONOTONIC. */
	__u64 nanos;
};

/* Tells a stamp from what else may lie in front of a frame: "flowsens" in one byte order or the other. */
#define STAMP_MARK 0x666c6f7773656e73ULL

/* Both are indexed by queue * sockets_per_queue + socket, and made as large as that needs when loaded. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

static __always_inline void stamp(struct xdp_md *ctx)
{
	struct stamp *stamp;
	void *data;

	/* A driver without metadata: the frame goes on without, and its receiver sees that. */
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*stamp)))
		return;
	data = (void *)(long)ctx->data;
	stamp = (void *)(long)ctx->data_meta;
	if ((void *)(stamp + 1) > data)
		return;
	stamp->mark = STAMP_MARK;
	stamp->nanos = bpf_ktime_get_ns();
}

static __always_inline int decide(struct xdp_md *ctx, __u32 frame_bytes)
{
	struct bytes frame = { (void *)(long)ctx->data, (void *)(long)ctx->data_end, ctx->rx_queue_index };
	__u16 words = 0;
	bool is_ip = flow_words(&frame, &words);
	__u32 slot = ctx->rx_queue_index * sockets_per_queue;
	struct counts *count;
	int verdict;

	/* What is not IP has no flow and goes to its queue's first socket. */
	if (is_ip && sockets_per_queue > 1)
		slot += rss_socket(rss_hash(words), queues, sockets_per_queue);
	count = bpf_map_lookup_elem(&counts, &slot);
	if (!count)
		return XDP_PASS;
	count->seen++;
	if (ip_only && !is_ip) {
		count->not_ip++;
		return XDP_PASS;
	}
	verdict = bpf_redirect_map(&sockets, slot, XDP_PASS);
	if (verdict != XDP_REDIRECT) {
		count->closed++;
		return verdict;
	}
	if (room_bytes && frame_bytes > room_bytes) {
		count->too_long++;
		return XDP_PASS;
	}
	count->redirected++;
	if (stamped)
		stamp(ctx);
	return verdict;
}

SEC("xdp")
int flowscope(struct xdp_md *ctx)
{
	return decide(ctx, ctx->data_end - ctx->data);
}

/* For frames that come in several buffers: those of a large MTU. */
SEC("xdp.frags")
int flowscope_frags(struct xdp_md *ctx)
{
	return decide(ctx, bpf_xdp_get_buff_len(ctx));
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
