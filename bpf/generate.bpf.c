// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Load for bench/send.rs: run on live frames by BPF_PROG_RUN, sends them out of an interface.
 *
 * Contract: a run of the program is one frame that is sent, or one that is not due and is dropped here. What is sent is
 * counted twice, here (`attempted`) and where the driver took it or refused it (`taken`, `refused`): once the program
 * rests, attempted = taken + refused + what was not even asked for, because the interface cannot. Every field that
 * differs between frames is written anew each time, for a frame comes back as it was left.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Set before loading. */

/* Where to. */
const volatile __u32 interface;
/* All processors together; a multiple of `processors`, so that each has flows of its own. */
const volatile __u32 flows = 1;
const volatile __u32 processors = 1;
/* From one frame of a processor to its next, in units of 2^-16 ns; 0 for as fast as it can. */
const volatile __u64 interval;
/* The same while time is made up for in which nothing could be sent: a little less. */
const volatile __u64 interval_min;
/* Sizes 7:4:1 instead of the frame as it was given. */
const volatile __u8 imix;

#define FRACTION_BITS 16

/*
 * So many frames may be sent at once when the processor was away for a moment: a quarter of what the ring of a veth pair
 * has room for. What is more than that is made up for at `interval_min`, however long it takes.
 */
#define BURST_MAX 64

#define FROM 0x0a000000u /* 10.0.0.0, and the flow */
#define TO 0xc6120001u	 /* 198.18.0.1, of the addresses for benchmarks (RFC 2544) */
#define PORT_TO 9	 /* discard */
#define PORT_MIN 1024

/* How often the clock is looked at when nothing waits for it. */
#define LOOK_EVERY 64

/*
 * And how often in one run when a frame is not due yet: some two microseconds, all the time between frames at a million a
 * second. A frame that is dropped here goes back to the pool of pages under a lock, and whoever empties the port at the other
 * end needs that lock for every frame. Not for longer: softirqs wait for the whole batch of runs.
 */
#define WAIT_LOOKS 100

/* As `State` in bench/load/generator.rs. */
struct state {
	/* Written before the run: which of the processors this is, and after how many frames it is enough. */
	__u64 rank;
	__u64 frames_max;

	__u64 attempted;
	__u64 bytes;
	__u64 first_ns;
	__u64 last_ns;
	/*
	 * When the next frame is due, and when it may go, after `first_ns`, in units of 2^-16 ns. `due` knows nothing of
	 * what became of the frames before, and so holds the rate; `free` holds the distance, and so the bursts.
	 */
	__u64 due;
	__u64 free;
	/* Whose run it is. */
	__u64 task;
	__u64 taken;
	__u64 refused;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

/* Without FCS: 64, 594 and 1518 bytes with it, never two long ones in a row. */
#define SHORT 60
#define MIDDLE 590
#define LONG 1514
#define MIX 12
static const __u16 mix[MIX] = { SHORT, MIDDLE, SHORT, SHORT, MIDDLE, SHORT, LONG, SHORT, MIDDLE, SHORT, SHORT, MIDDLE };

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
} __attribute__((packed));

static __always_inline struct state *my_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&states, &zero);
}

/* Whether a frame is due. Not inline: the compiler would load the frame's bounds before it, in a way that the verifier refuses. */
static __noinline int due(struct state *state)
{
	__u64 now = 0, now_after = 0;
	__u32 looks;

	if (!interval) {
		if (state->attempted % LOOK_EVERY == 0) {
			state->last_ns = bpf_ktime_get_ns();
			if (!state->first_ns)
				state->first_ns = state->last_ns;
		}
		return 1;
	}
	for (looks = 0; looks < WAIT_LOOKS; looks++) {
		now = bpf_ktime_get_ns();
		if (!state->first_ns)
			state->first_ns = now;
		now_after = (now - state->first_ns) << FRACTION_BITS;
		if (now_after >= state->due && now_after >= state->free)
			break;
	}
	if (looks == WAIT_LOOKS)
		return 0;
	if (now_after - state->free > BURST_MAX * interval)
		state->free = now_after - BURST_MAX * interval;
	state->due += interval;
	state->free += interval_min;
	state->last_ns = now;
	return 1;
}

static __always_inline __u16 checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Addresses, ports, lengths and checksums of a frame whose other bytes are 0 from UDP on. */
static __always_inline void write(struct frame *frame, __u32 flow, __u32 frame_bytes)
{
	__u32 from = FROM + flow;
	__u32 addresses = (from >> 16) + (from & 0xffff) + (TO >> 16) + (TO & 0xffff);
	/* An odd factor: neighbours get ports far apart. */
	__u16 port = PORT_MIN + (flow * 40503u & 0x7fff);
	__u16 ip_bytes = frame_bytes - sizeof(frame->eth);
	__u16 udp_bytes = ip_bytes - sizeof(frame->ip);
	__u16 sum;

	frame->ip.tot_len = bpf_htons(ip_bytes);
	frame->ip.saddr = bpf_htonl(from);
	frame->ip.check = bpf_htons(checksum(0x4500 + ip_bytes + 0x4000 + (64 << 8 | IPPROTO_UDP) + addresses));
	frame->udp.source = bpf_htons(port);
	frame->udp.len = bpf_htons(udp_bytes);
	sum = checksum(addresses + IPPROTO_UDP + udp_bytes + port + PORT_TO + udp_bytes);
	/* RFC 768: 0 would say that there is none. */
	frame->udp.check = bpf_htons(sum ? sum : 0xffff);
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct state *state = my_state();
	struct frame *frame;
	__u32 frame_bytes;

	if (!state || state->attempted >= state->frames_max || !due(state))
		return XDP_DROP;
	frame_bytes = ctx->data_end - ctx->data;
	if (!state->task)
		state->task = bpf_get_current_pid_tgid();
	if (imix) {
		__u32 at = (__u32)state->attempted % MIX, wanted;

		/* Or the compiler knows better than to check, and the verifier does not. */
		asm volatile("" : "+r"(at));
		if (at >= MIX)
			return XDP_ABORTED;
		wanted = mix[at];
		/* The kernel gives it back its length before the next run. */
		if (bpf_xdp_adjust_tail(ctx, (int)wanted - (int)frame_bytes))
			return XDP_ABORTED;
		frame_bytes = wanted;
	}
	frame = (void *)(long)ctx->data;
	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	write(frame, (state->attempted * processors + state->rank) % flows, frame_bytes);
	state->attempted++;
	state->bytes += frame_bytes;
	return bpf_redirect(interface, 0);
}

/* What the driver said to up to 16 frames: (from, to, taken, refused, error). */
SEC("raw_tp/xdp_devmap_xmit")
int handed_over(struct bpf_raw_tracepoint_args *ctx)
{
	struct state *state = my_state();

	/* Others send as well: only what this thread sends is ours. */
	if (state && state->task && state->task == bpf_get_current_pid_tgid()) {
		state->taken += (__u32)ctx->args[2];
		state->refused += (__u32)ctx->args[3];
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
