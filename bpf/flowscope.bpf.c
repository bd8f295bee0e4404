// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Hands frames to the AF_XDP sockets of their queue.
 *
 * Contract: a frame is counted exactly once under `seen`, and once more under what became of it. It is redirected when
 * its socket is in the map, and passed on otherwise, as if this program were not there: while the sensor is
 * not ready, and from the moment it takes a socket out of the map. Nothing is dropped here but frames that the socket
 * would have taken, of a flow that is shunted: they are counted for it, and no more of them is wanted.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "rss.h"
#include "shunt.h"
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
/* Readers of frames, each with flows of its own, that the slots are dealt to; 0 when nothing is shunted. */
const volatile __u32 shunt_readers;
/* A VLAN that differs is a different flow. */
const volatile __u8 shunt_vlan;

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
	/* Of a flow that is shunted; counted for it, and gone. */
	__u64 shunted;
	__u64 shunted_bytes;
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

/*
 * Where the counters of a flow are that is shunted. The two are apart so that a flow can be taken out and, when no program
 * runs any more that found it, its last counters read.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct shunt_key);
	__type(value, __u32);
} shunts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct shunt_counts);
} shunt_counters SEC(".maps");

/* Whether the frame is of a flow that is shunted, and so was counted. */
static __always_inline bool shunt(const struct bytes *frame, __u32 frame_bytes, __u32 slot)
{
	struct shunted shunted;
	struct shunt_counts *counters;
	__u32 *place, index;

	if (!shunt_find(frame, frame_bytes, shunt_vlan, &shunted))
		return false;
	shunted.key.reader = slot % shunt_readers;
	place = bpf_map_lookup_elem(&shunts, &shunted.key);
	if (!place)
		return false;
	/* Not deleted: another flow would get the element while other processors may still look at it. */
	if (shunted.comes_up)
		*place |= SHUNT_CLOSED;
	index = *place;
	if (index & SHUNT_CLOSED)
		return false;
	counters = bpf_map_lookup_elem(&shunt_counters, &index);
	if (!counters)
		return false;
	shunt_count(shunted.from_b ? &counters->sides[1] : &counters->sides[0], frame_bytes, shunted.seen);
	return true;
}

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
	if (shunt_readers && is_ip && shunt(&frame, frame_bytes, slot)) {
		count->shunted++;
		count->shunted_bytes += frame_bytes;
		return XDP_DROP;
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
