/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * From a frame's first byte to its ports, over bytes that nobody vouches for.
 *
 * Contract: finds what src/decode finds in the same frame, as far as steering needs it: the addresses, and the
 * ports when all fragments of the flow have them. Every loop is bounded by a named constant, the same as there;
 * every read is checked against the frame's end. A test runs the captures through both.
 *
 * What a frame is, its program says: bytes in memory, or, with WALK_COPIES, a socket's buffer, of which it gets copies.
 */
#ifndef FLOWSCOPE_WALK_H
#define FLOWSCOPE_WALK_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TAGS_MAX 32
#define LABELS_MAX 64
#define EXTENSIONS_MAX 32

/* No header is looked for behind this; the verifier wants a bound that is well below 64 KiB. */
#define OFFSET_MAX 0x3fff

#define ETH_BYTES 14
#define ETH_TYPE_AT 12
#define TAG_BYTES 4
#define LABEL_BYTES 4
#define PPPOE_BYTES 6
#define LLC_BYTES 3
#define LLC_SNAP_BYTES 8
#define V4_BYTES_MIN 20
#define V6_BYTES 40
#define EXTENSION_BYTES_MIN 8
#define AH_BYTES_MIN 12

enum ether_type {
	TYPE_LENGTH_MAX = 1500,
	TYPE_IPV4 = 0x0800,
	TYPE_IPV6 = 0x86dd,
	TYPE_VLAN = 0x8100,
	TYPE_QINQ = 0x88a8,
	TYPE_QINQ_OLD = 0x9100,
	TYPE_MPLS = 0x8847,
	TYPE_MPLS_MULTICAST = 0x8848,
	TYPE_PPPOE = 0x8864,
};

enum ppp_protocol {
	PPP_IPV4 = 0x0021,
	PPP_IPV6 = 0x0057,
	PPP_MPLS = 0x0281,
	PPP_MPLS_MULTICAST = 0x0283,
};

enum protocol {
	PROTO_HOP_BY_HOP = 0,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_AH = 51,
	PROTO_DESTINATION = 60,
	PROTO_SCTP = 132,
};

/* Where an IP header is said to start; version 0 leaves it to the header. */
struct network {
	__u32 at;
	__u8 version;
};

#ifdef WALK_COPIES

/* A frame from behind its Ethernet header on, as the kernel hands it around. */
struct bytes {
	struct __sk_buff *skb;
	/* Any number that the verifier does not know: see forget(). */
	__u32 unknown;
	/* COPY_BYTES for the last header that was seen. None is longer, and each is done with before the next one is wanted. */
	__u32 *copy;
};

#define COPY_BYTES V6_BYTES

/* The bytes from `at` on when there are `count` of them, a constant, until the next call. */
static __always_inline void *see(const struct bytes *frame, __u32 at, __u32 count)
{
	if (at > OFFSET_MAX || bpf_skb_load_bytes(frame->skb, at, frame->copy, count))
		return NULL;
	return frame->copy;
}

static __always_inline __u32 length(const struct bytes *frame)
{
	return frame->skb->len;
}

#else

/* The part of a frame that can be read directly. */
struct bytes {
	void *start;
	void *end;
	/* Any number that the verifier does not know: see forget(). */
	__u32 unknown;
};

/* The bytes from `at` on when there are `count` of them, a constant. */
static __always_inline void *see(const struct bytes *frame, __u32 at, __u32 count)
{
	void *p;

	if (at > OFFSET_MAX)
		return NULL;
	p = frame->start + at;
	/* Or the compiler computes it a second time, and the verifier does not see that this one was checked. */
	asm volatile("" : "+r"(p));
	if (p + count > frame->end)
		return NULL;
	return p;
}

static __always_inline __u32 length(const struct bytes *frame)
{
	return frame->end - frame->start;
}

#endif

/*
 * The same offset, of which the verifier does not know any more how it came about. Otherwise it follows every way through
 * every loop with another offset, more than a million instructions; now ways that meet are one. see() checks it anew.
 */
static __always_inline __u32 forget(const struct bytes *frame, __u32 at)
{
	asm volatile("%0 ^= %1; %0 ^= %1" : "+r"(at) : "r"(frame->unknown));
	return at;
}

static __always_inline __u16 be16(const void *p)
{
	return bpf_ntohs(*(const __u16 *)p);
}

/* A label stack (RFC 3032): IP tells itself by its first nibble. */
static __always_inline bool mpls(const struct bytes *frame, struct network *network)
{
	const __u8 *label, *first;
	int i;

	for (i = 0; i < LABELS_MAX; i++) {
		label = see(frame, network->at, LABEL_BYTES);
		if (!label)
			return false;
		network->at = forget(frame, network->at + LABEL_BYTES);
		if (!(label[2] & 1))
			continue;
		first = see(frame, network->at, 1);
		if (!first)
			return false;
		network->version = *first >> 4;
		return network->version == 4 || network->version == 6;
	}
	return false;
}

/* A PPP protocol field, of one byte when compressed; 0 when it is cut. */
static __always_inline __u16 ppp(const struct bytes *frame, __u32 *at)
{
	const __u8 *field = see(frame, *at, 1);

	if (!field)
		return 0;
	if (*field & 1) {
		*at += 1;
		return *field;
	}
	field = see(frame, *at, 2);
	if (!field)
		return 0;
	*at += 2;
	return be16(field);
}

/* RFC 1042; 0 when it holds no EtherType, 1 for IP without SNAP. */
static __always_inline __u16 llc(const struct bytes *frame, __u32 *at)
{
	const __u8 *header = see(frame, *at, LLC_BYTES);
	__u16 type;

	if (!header || header[2] != 3)
		return 0;
	if (header[0] == 6 && header[1] == 6) {
		*at += LLC_BYTES;
		return 1;
	}
	if (header[0] != 0xaa || header[1] != 0xaa)
		return 0;
	header = see(frame, *at, LLC_SNAP_BYTES);
	if (!header || header[3] || header[4] || (header[5] && header[5] != 0xf8))
		return 0;
	*at += LLC_SNAP_BYTES;
	type = be16(header + 6);
	return type > TYPE_LENGTH_MAX ? type : 0;
}

/* Tags and what else may lie between an EtherType, or a length, and IP. */
static __always_inline bool find_network(const struct bytes *frame, __u16 type, struct network *network)
{
	const __u8 *header;
	int i;

	network->version = 0;
	for (i = 0; i <= TAGS_MAX; i++) {
		if (type == TYPE_IPV4) {
			network->version = 4;
			return true;
		}
		if (type == TYPE_IPV6) {
			network->version = 6;
			return true;
		}
		if (type == TYPE_VLAN || type == TYPE_QINQ || type == TYPE_QINQ_OLD) {
			header = see(frame, network->at, TAG_BYTES);
			if (!header)
				return false;
			type = be16(header + 2);
			network->at = forget(frame, network->at + TAG_BYTES);
			continue;
		}
		if (type > TYPE_LENGTH_MAX)
			break;
		type = llc(frame, &network->at);
		network->at = forget(frame, network->at);
		if (type <= 1)
			return type;
	}
	/* More tags than the bound. */
	if (i > TAGS_MAX)
		return false;
	if (type == TYPE_PPPOE) {
		network->at += PPPOE_BYTES;
		type = ppp(frame, &network->at);
		if (type == PPP_IPV4)
			return true;
		if (type == PPP_IPV6) {
			network->version = 6;
			return true;
		}
		if (type != PPP_MPLS && type != PPP_MPLS_MULTICAST)
			return false;
	} else if (type != TYPE_MPLS && type != TYPE_MPLS_MULTICAST) {
		return false;
	}
	return mpls(frame, network);
}

/* Sums up the words of an address pair, or of the ports: see rss.h. */
static __always_inline __u16 fold(__u32 words)
{
	return words ^ words >> 16;
}

/* The ports, when the datagram that ends at `end` has them; else 0, which adds nothing to the sum. */
static __always_inline __u16 port_words(const struct bytes *frame, __u8 proto, __u32 at, __u32 end)
{
	const __u32 *ports;

	if (proto != PROTO_TCP && proto != PROTO_UDP && proto != PROTO_SCTP)
		return 0;
	ports = see(frame, at, sizeof(*ports));
	if (!ports || at + sizeof(*ports) > end)
		return 0;
	return fold(*ports);
}

static __always_inline bool v4_words(const struct bytes *frame, __u32 at, __u16 *words)
{
	const __u8 *header = see(frame, at, V4_BYTES_MIN);
	__u32 header_bytes, total_bytes;

	if (!header || header[0] >> 4 != 4)
		return false;
	header_bytes = (header[0] & 0xf) * 4;
	total_bytes = be16(header + 2);
	/* A length of 0 is yet to be filled in, by a card that segments. */
	if (header_bytes < V4_BYTES_MIN || (total_bytes && total_bytes < header_bytes))
		return false;
	*words = fold(*(const __u32 *)(header + 12) ^ *(const __u32 *)(header + 16));
	/* Fragments, the first one too, are spread by their addresses: the later ones have no ports. */
	if (be16(header + 6) & 0x3fff)
		return true;
	*words ^= port_words(frame, header[9], at + header_bytes, total_bytes ? at + total_bytes : ~0u);
	return true;
}

static __always_inline bool v6_words(const struct bytes *frame, __u32 at, __u16 *words)
{
	const __u8 *header = see(frame, at, V6_BYTES), *extension;
	const __u32 *addresses;
	__u32 payload_bytes, end, bytes;
	__u8 proto;
	int i;

	if (!header || header[0] >> 4 != 6)
		return false;
	addresses = (const __u32 *)(header + 8);
	*words = fold(addresses[0] ^ addresses[1] ^ addresses[2] ^ addresses[3] ^
		      addresses[4] ^ addresses[5] ^ addresses[6] ^ addresses[7]);
	payload_bytes = be16(header + 4);
	proto = header[6];
	at += V6_BYTES;
	/* A length of 0 is a jumbogram's, or yet to be filled in. */
	end = forget(frame, payload_bytes ? at + payload_bytes : ~0u);
	for (i = 0; i < EXTENSIONS_MAX; i++) {
		if (proto != PROTO_HOP_BY_HOP && proto != PROTO_ROUTING && proto != PROTO_DESTINATION &&
		    proto != PROTO_FRAGMENT && proto != PROTO_AH)
			break;
		extension = see(frame, at, EXTENSION_BYTES_MIN);
		if (!extension || at + EXTENSION_BYTES_MIN > end)
			return true;
		bytes = EXTENSION_BYTES_MIN;
		if (proto == PROTO_FRAGMENT) {
			/* Offset or more to come; neither is an atomic fragment (RFC 6946), which is whole. */
			if (be16(extension + 2) & 0xfff9)
				return true;
		} else if (proto == PROTO_AH) {
			bytes = (extension[1] + 2) * 4;
			if (bytes < AH_BYTES_MIN)
				return true;
		} else {
			bytes = (extension[1] + 1) * 8;
		}
		proto = extension[0];
		at = forget(frame, at + bytes);
		/* The whole header must be there. */
		if (at > end || at > length(frame))
			return true;
	}
	*words ^= port_words(frame, proto, at, end);
	return true;
}

/* The sum of the words of a flow whose headers begin at `at`, after this type; false when it is not IP. */
static __always_inline bool words_after(const struct bytes *frame, __u16 type, __u32 at, __u16 *words)
{
	struct network network = { .at = at };
	const __u8 *first;

	if (!find_network(frame, type, &network))
		return false;
	if (!network.version) {
		first = see(frame, network.at, 1);
		if (!first)
			return false;
		network.version = *first >> 4;
	}
	network.at = forget(frame, network.at);
	if (network.version == 4)
		return v4_words(frame, network.at, words);
	return network.version == 6 && v6_words(frame, network.at, words);
}

/* The same of an Ethernet frame. */
static __always_inline bool flow_words(const struct bytes *frame, __u16 *words)
{
	const __u8 *header = see(frame, 0, ETH_BYTES);

	return header && words_after(frame, be16(header + ETH_TYPE_AT), ETH_BYTES, words);
}

#endif
