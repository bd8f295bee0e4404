/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Counts frames of flows that user space wants to hear no more of than how many there are.
 *
 * Contract: a frame is counted here only when src/decode would certainly give it the same flow and the same bytes, and
 * would learn nothing from it that the counters do not have. So every check is stricter than there: at most two tags, no
 * IP options or extension headers, no fragments, nothing cut; of TCP nothing with SYN, FIN or RST. All else comes up.
 */
#ifndef FLOWSCOPE_SHUNT_H
#define FLOWSCOPE_SHUNT_H

#include "walk.h"

#define SHUNT_TAGS_MAX 2
#define SHUNT_V4_BYTES 20
#define SHUNT_TCP_BYTES_MIN 20
#define SHUNT_UDP_BYTES 8

/* FIN, SYN, RST. */
#define TCP_COMES_UP 0x07

/* Beside the TCP flags, in `seen`. */
#define SEEN_DATA (1 << 8)
#define SEEN_ACK (1 << 9)
#define SEEN_ZERO_WINDOW (1 << 10)

/* As `FlowKey` of src/flow/key.rs in memory, but for its last field: which reader of frames the flow is of. */
struct shunt_key {
	__u32 a[4];
	__u32 b[4];
	/* In the order of this machine, as the tags are. */
	__u16 port_a;
	__u16 port_b;
	__u8 proto;
	__u8 version;
	__u16 vlans[2];
	__u16 reader;
};

_Static_assert(sizeof(struct shunt_key) == 44, "no bytes that nobody sets");

/* In a flow's place: it was closed, and all of it comes up until user space takes it out. */
#define SHUNT_CLOSED (1U << 31)

/* What one end sent. `packets` is read first and written last. */
struct shunt_side {
	__u64 packets;
	__u64 bytes;
	/* CLOCK_MONOTONIC. */
	__u64 last_ns;
	/* TCP flags or'ed, and what else was seen. */
	__u64 seen;
};

struct shunt_counts {
	struct shunt_side sides[2];
};

/* A packet whose key is known. */
struct shunted {
	struct shunt_key key;
	/* Whether end B sent it. */
	__u32 from_b;
	__u32 seen;
	/* It opens or closes: it is not counted, and nothing after it. */
	__u32 comes_up;
};

static __always_inline bool shunt_ports(const struct bytes *frame, __u32 at, __u32 bytes, struct shunted *shunted)
{
	const __u8 *header;
	__u32 header_bytes;

	if (shunted->key.proto == PROTO_UDP) {
		header = see(frame, at, SHUNT_UDP_BYTES);
		if (!header || bytes < SHUNT_UDP_BYTES)
			return false;
		/* 0 is a jumbogram's. */
		if (be16(header + 4) && be16(header + 4) < SHUNT_UDP_BYTES)
			return false;
	} else if (shunted->key.proto == PROTO_TCP) {
		header = see(frame, at, SHUNT_TCP_BYTES_MIN);
		if (!header)
			return false;
		header_bytes = (header[12] >> 4) * 4;
		if (header_bytes < SHUNT_TCP_BYTES_MIN || header_bytes > bytes)
			return false;
		shunted->seen = header[13];
		shunted->comes_up = header[13] & TCP_COMES_UP;
		/* An ACK is all of it, as the history of a flow has it. */
		if (bytes > header_bytes)
			shunted->seen |= SEEN_DATA;
		else if (header[13] & 0x10)
			shunted->seen |= SEEN_ACK;
		if (!be16(header + 14))
			shunted->seen |= SEEN_ZERO_WINDOW;
	} else {
		return false;
	}
	shunted->key.port_a = be16(header);
	shunted->key.port_b = be16(header + 2);
	return true;
}

/* Less than 0, 0 or more than 0, as memcmp of both. */
static __always_inline int shunt_compare(const __u32 *a, const __u32 *b)
{
	__u32 left, right;
	int i;

#pragma unroll
	for (i = 0; i < 4; i++) {
		left = bpf_ntohl(a[i]);
		right = bpf_ntohl(b[i]);
		if (left != right)
			return left < right ? -1 : 1;
	}
	return 0;
}

/* Whether the frame is one that may be shunted; and then of which flow. */
static __always_inline bool shunt_find(const struct bytes *frame, __u32 frame_bytes, bool by_vlan, struct shunted *shunted)
{
	const __u8 *header = see(frame, 0, ETH_BYTES);
	struct shunt_key *key = &shunted->key;
	const __u32 *addresses;
	__u32 at = ETH_BYTES, bytes, swapped;
	int i, order;
	__u16 type;

	__builtin_memset(shunted, 0, sizeof(*shunted));
	if (!header)
		return false;
	type = be16(header + ETH_TYPE_AT);
#pragma unroll
	for (i = 0; i < SHUNT_TAGS_MAX; i++) {
		if (type != TYPE_VLAN && type != TYPE_QINQ && type != TYPE_QINQ_OLD)
			break;
		header = see(frame, at, TAG_BYTES);
		if (!header)
			return false;
		if (by_vlan)
			key->vlans[i] = (be16(header) & 0xfff) + 1;
		type = be16(header + 2);
		at += TAG_BYTES;
	}
	if (type == TYPE_IPV4) {
		header = see(frame, at, SHUNT_V4_BYTES);
		if (!header || header[0] != 0x45 || be16(header + 6) & 0x3fff)
			return false;
		bytes = be16(header + 2);
		if (bytes < SHUNT_V4_BYTES || at + bytes > frame_bytes)
			return false;
		bytes -= SHUNT_V4_BYTES;
		key->version = 4;
		key->proto = header[9];
		/* The mapped form, as there. */
		key->a[2] = key->b[2] = bpf_htonl(0xffff);
		key->a[3] = *(const __u32 *)(header + 12);
		key->b[3] = *(const __u32 *)(header + 16);
		at += SHUNT_V4_BYTES;
	} else if (type == TYPE_IPV6) {
		header = see(frame, at, V6_BYTES);
		if (!header || header[0] >> 4 != 6)
			return false;
		bytes = be16(header + 4);
		/* 0 is a jumbogram's. */
		if (!bytes || at + V6_BYTES + bytes > frame_bytes)
			return false;
		key->version = 6;
		key->proto = header[6];
		addresses = (const __u32 *)(header + 8);
#pragma unroll
		for (i = 0; i < 4; i++) {
			key->a[i] = addresses[i];
			key->b[i] = addresses[4 + i];
		}
		at += V6_BYTES;
	} else {
		return false;
	}
	if (!shunt_ports(frame, at, bytes, shunted))
		return false;

	order = shunt_compare(key->a, key->b);
	if (order > 0 || (!order && key->port_a > key->port_b)) {
		shunted->from_b = 1;
#pragma unroll
		for (i = 0; i < 4; i++) {
			swapped = key->a[i];
			key->a[i] = key->b[i];
			key->b[i] = swapped;
		}
		type = key->port_a;
		key->port_a = key->port_b;
		key->port_b = type;
	}
	return true;
}

/* `packets` must be seen to grow only when the rest has. */
static __always_inline void shunt_count(struct shunt_side *side, __u32 frame_bytes, __u32 seen)
{
	side->bytes += frame_bytes;
	side->last_ns = bpf_ktime_get_ns();
	side->seen |= seen;
	asm volatile("" ::: "memory");
	side->packets++;
}

#endif
